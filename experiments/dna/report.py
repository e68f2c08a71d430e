"""What the experiment on DNA has to say: three tables and a figure."""

import functools
import operator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import lab
from experiments.lab import figures
from experiments.lab.figures import GREY

UNIFORM = 2.0  # bits: four bases, all alike

_between = functools.partial(lab.span, to=" .. ")
_name = operator.itemgetter("name")


def less(found: dict[str, float]) -> tuple[str, str]:
    """Returns a difference, and its interval.

    >>> less({"value": 0.5, "low": -0.25, "high": 1.0})
    ('+0.5000', '-0.2500 .. +1.0000')
    """
    return f"{found['value']:+.4f}", _between((found["low"], found["high"]), "+.4f")


def tables(results: dict[str, Any]) -> str:
    """Returns bits per base, in repeats and elsewhere, and areas under the curve."""
    bits = results["bits"]
    return "\n\n".join((_whole(bits), _apart(bits), _areas(results["genes"])))


def _named(models: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, **row} for name, row in models.items()]


def _whole(bits: dict[str, Any]) -> str:
    best = bits["best_markov"]["order"]
    body = [
        (
            name,
            lab.spread(row["valid"]),
            lab.spread(row["test"]),
            _between(row["interval"]),
            *less(row["to_best_markov"]),
            *less(row["to_mixture"]),
        )
        for name, row in bits["models"].items()
    ]
    body += [
        (f"lzma, {how}", "", f"{bits['lzma'][how]:.4f}", *[""] * 5)
        for how in ("alone", "primed")
    ]
    header = ("bits per base", "validation", "test", "95%", f"less markov {best}")
    return lab.format_table((*header, "95%", "less mixture", "95%"), body)


def _apart(bits: dict[str, Any]) -> str:
    """Bits where the training part holds what stands beside a base, and elsewhere."""
    length, share = bits["repeats"]["length"], bits["repeats"]["share"]
    shown = lambda bits: "" if bits is None else f"{bits:.4f}"
    columns = {
        f"exact repeats of {length} bases: {share:.2%} of the test part": _name,
        "in them": lambda row: shown(row["in_repeats"]),
        "elsewhere": lambda row: shown(row["elsewhere"]),
        "95%": lambda row: _between(row["elsewhere_interval"]),
        ("less mixture", "95%"): lambda row: less(row["to_mixture_elsewhere"]),
    }
    return lab.table_of(_named(bits["models"]), columns)


def _areas(genes: dict[str, Any]) -> str:
    columns = {
        "coding or not, area": _name,
        "window": lambda row: " ".join(map(str, row["window"])),
        "validation": lambda row: lab.spread(row["valid"]),
        "test": lambda row: lab.spread(row["test"]),
        "95%": lambda row: _between(row["interval"]),
        ("less markov", "95%"): lambda row: less(row["to_plain_markov"]),
    }
    return lab.table_of(_named(genes["models"]), columns)


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws bits per base, the curves, and the ratio along a stretch of the test part.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
    """
    figure = figures.figure_of(11.5, 8.6)
    grid = figure.add_gridspec(2, 2, width_ratios=(2, 1))
    _bits(figure.add_subplot(grid[0, 0]), results["bits"])
    _curves(figure.add_subplot(grid[0, 1]), results["genes"])
    _stretch(figure.add_subplot(grid[1, :]), results["genes"])
    figures.tidy(figure.axes)
    figures.save(figure, path)


def _bits(axes: Axes, bits: dict[str, Any]) -> None:
    """Every model in its place; hollow marks leave repeats out."""
    models, every, apart = bits["models"], *figures.COLOURS[:2]
    names = list(models)
    chains = [name for name in names if name.startswith("markov ")]
    apiece = np.where(np.arange(len(names)) < len(chains), 1.0, 1.6)  # room for names
    places = np.cumsum(apiece)
    values = np.array([models[name]["test"]["mean"] for name in names])
    ends = np.array([models[name]["interval"] for name in names]).T
    look = {"fmt": "o", "capsize": 2, "markersize": 4, "linewidth": 1.2}
    look["label"] = "whole test part, and 95% interval over blocks"
    axes.errorbar(places, values, np.abs(ends - values), color=every, **look)
    axes.plot(places[: len(chains)], values[: len(chains)], color=every, linewidth=1)
    rest = [models[name]["elsewhere"] for name in names]
    length, share = bits["repeats"]["length"], bits["repeats"]["share"]
    label = f"without exact repeats of {length} bases ({share:.1%} of it)"
    axes.plot(places, rest, "o", color=apart, fillstyle="none", label=label)
    last, label = places[-1] + apiece[-1], "lzma that has read the training part"
    axes.plot(last, bits["lzma"]["primed"], "s", color=every, markersize=5, label=label)
    axes.axhline(UNIFORM, color=GREY, linestyle=":", linewidth=1, label="no model: 2")
    shown = [n.replace("markov ", "").replace(" of", "\nof") for n in names]
    axes.set_xticks([*places, last], [*shown, "lzma"], fontsize=7.5)
    title = "Test part: bits per base, networks as means of seeds"
    below = "Markov chain of order 1, 2, ..., then the others"
    figures.describe(axes, title, below, "bits per base", loc="lower left")


def _curves(axes: Axes, genes: dict[str, Any]) -> None:
    for colour, (name, row) in figures.coloured(genes["models"].items()):
        xs, ys = zip(*row["roc"], strict=True)
        label = f"{name}: {lab.spread(row['test'], '.3f')}"
        axes.plot(xs, ys, color=colour, label=label)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.set_aspect("equal")
    title, called = "Coding or not: area under the curve", "positions called coding"
    labels = (f"share of other {called}", f"share of coding {called}")
    figures.describe(axes, title, *labels, loc="lower right")


def _stretch(axes: Axes, genes: dict[str, Any]) -> None:
    """The ratio per base along some kilobases, with genes as bars above and below."""
    shown = genes["shown"]
    for colour, (name, ratios) in figures.coloured(shown["ratios"].items()):
        window = genes["models"][name]["window"][0]
        xs = (shown["first"] + shown["every"] * np.arange(len(ratios))) / 1000
        label = f"{name}, window of {window}"
        axes.plot(xs, np.array(ratios) / window, color=colour, lw=1.1, label=label)
    axes.axhline(0, color="black", linewidth=0.6)
    low, high = axes.get_ylim()
    height, greys = 0.06 * (high - low), {1: "#444444", -1: "#aaaaaa"}
    for first, end, strand in shown["genes"]:
        span, colour = (first / 1000, (end - first) / 1000), greys[strand]
        rows = (low - (1.8 - 0.6 * strand) * height, height)
        axes.broken_barh([span], rows, facecolor=colour, edgecolor="white")
    for strand, label in ((1, "gene, this strand"), (-1, "gene, other strand")):
        axes.broken_barh([], (0, 0), facecolor=greys[strand], label=label)
    axes.set_xlim(shown["first"] / 1000, (shown["first"] + shown["length"]) / 1000)
    title = "Above 0 coding is likelier than not; bars: the gene finder's genes"
    below = "position in the test part (thousands of bases)"
    beside = "log-likelihood ratio\n(nats per base of the window)"
    figures.describe(axes, title, below, beside, ncols=5, loc="upper center")
