"""What the experiment on DNA has to say: three tables and a figure."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import lab
from experiments.lab import figures
from experiments.lab.figures import GREY

UNIFORM = 2.0  # bits: four bases, all alike

_between = functools.partial(lab.span, to=" .. ")


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
    body = [
        (
            name,
            "" if row["in_repeats"] is None else f"{row['in_repeats']:.4f}",
            f"{row['elsewhere']:.4f}",
            _between(row["elsewhere_interval"]),
            *less(row["to_mixture_elsewhere"]),
        )
        for name, row in bits["models"].items()
    ]
    title = f"exact repeats of {length} bases: {share:.2%} of the test part"
    header = (title, "in them", "elsewhere", "95%", "less mixture", "95%")
    return lab.format_table(header, body)


def _areas(genes: dict[str, Any]) -> str:
    body = [
        (
            name,
            " ".join(map(str, row["window"])),
            lab.spread(row["valid"]),
            lab.spread(row["test"]),
            _between(row["interval"]),
            *less(row["to_plain_markov"]),
        )
        for name, row in genes["models"].items()
    ]
    header = ("coding or not, area", "window", "validation", "test", "95%")
    return lab.format_table((*header, "less markov", "95%"), body)


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws bits per base, the curves, and the ratio along a stretch of the test part.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
    """
    figure = figures.figure_of(11.5, 8.6)
    grid = figure.add_gridspec(2, 2, width_ratios=(2, 1))
    panels = [figure.add_subplot(grid[at]) for at in ((0, 0), (0, 1))]
    along = figure.add_subplot(grid[1, :])
    _bits(panels[0], results["bits"])
    _curves(panels[1], results["genes"])
    _stretch(along, results["genes"])
    figures.tidy((*panels, along))
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
    label = "whole test part, and 95% interval over blocks"
    axes.errorbar(
        places,
        values,
        np.abs(ends - values),
        fmt="o",
        capsize=2,
        color=every,
        markersize=4,
        linewidth=1.2,
        label=label,
    )
    axes.plot(places[: len(chains)], values[: len(chains)], color=every, linewidth=1)
    rest = [models[name]["elsewhere"] for name in names]
    length, share = bits["repeats"]["length"], bits["repeats"]["share"]
    label = f"without exact repeats of {length} bases ({share:.1%} of it)"
    axes.plot(places, rest, "o", color=apart, fillstyle="none", label=label)
    last = places[-1] + apiece[-1]
    axes.plot(
        last,
        bits["lzma"]["primed"],
        "s",
        color=every,
        markersize=5,
        label="lzma that has read the training part",
    )
    axes.axhline(UNIFORM, color=GREY, linestyle=":", linewidth=1, label="no model: 2")
    shown = [n.replace("markov ", "").replace(" of", "\nof") for n in names]
    axes.set_xticks([*places, last], [*shown, "lzma"], fontsize=7.5)
    axes.set_xlabel("Markov chain of order 1, 2, ..., then the others")
    axes.set_ylabel("bits per base")
    axes.set_title("Test part: bits per base, networks as means of seeds", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _curves(axes: Axes, genes: dict[str, Any]) -> None:
    for colour, (name, row) in figures.coloured(genes["models"].items()):
        xs, ys = zip(*row["roc"], strict=True)
        axes.plot(
            xs, ys, color=colour, label=f"{name}: {lab.spread(row['test'], '.3f')}"
        )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.set_xlabel("share of other positions called coding")
    axes.set_ylabel("share of coding positions called coding")
    axes.set_title("Coding or not: area under the curve", fontsize=10)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _stretch(axes: Axes, genes: dict[str, Any]) -> None:
    """The ratio per base along some kilobases, with genes as bars above and below."""
    shown = genes["shown"]
    for colour, (name, ratios) in figures.coloured(shown["ratios"].items()):
        window = genes["models"][name]["window"][0]
        xs = (shown["first"] + shown["every"] * np.arange(len(ratios))) / 1000
        axes.plot(
            xs,
            np.array(ratios) / window,
            color=colour,
            linewidth=1.1,
            label=f"{name}, window of {window}",
        )
    axes.axhline(0, color="black", linewidth=0.6)
    low, high = axes.get_ylim()
    height = 0.06 * (high - low)
    for first, end, strand in shown["genes"]:
        bottom = low - (1.2 if strand > 0 else 2.4) * height
        axes.broken_barh(
            [(first / 1000, (end - first) / 1000)],
            (bottom, height),
            facecolor="#444444" if strand > 0 else "#aaaaaa",
            edgecolor="white",
        )
    axes.broken_barh([], (0, 0), facecolor="#444444", label="gene, this strand")
    axes.broken_barh([], (0, 0), facecolor="#aaaaaa", label="gene, other strand")
    axes.set_xlim(shown["first"] / 1000, (shown["first"] + shown["length"]) / 1000)
    axes.set_xlabel("position in the test part (thousands of bases)")
    axes.set_ylabel("log-likelihood ratio\n(nats per base of the window)")
    axes.set_title(
        "Above 0 coding is likelier than not; bars: the gene finder's genes",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="upper center")
