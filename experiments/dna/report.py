"""What the experiment on DNA has to say: two tables and a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import plots
from experiments._report import format_table

FIGURE_SIZE = (11.5, 8.6)  # inches
GREY = "#777777"
UNIFORM = 2.0  # bits: four bases, all alike


def spread(found: dict[str, Any], digits: int = 4) -> str:
    """Returns a mean, and the standard deviation where there are several values.

    >>> spread({"values": [1.5], "mean": 1.5, "sd": 0.0})
    '1.5000'
    """
    shown = f"{found['mean']:.{digits}f}"
    if len(found["values"]) == 1:
        return shown
    return f"{shown} ± {found['sd']:.{digits}f}"


def between(low: float, high: float, form: str = ".4f") -> str:
    """Returns an interval.

    >>> between(0.5, 1)
    '0.5000 .. 1.0000'
    """
    return f"{low:{form}} .. {high:{form}}"


def tables(results: dict[str, Any]) -> str:
    """Returns bits per base, and areas under the curve, as text."""
    bits, genes = results["bits"], results["genes"]
    best = bits["best_markov"]["order"]
    body = [
        (
            name,
            spread(row["valid"]),
            spread(row["test"]),
            between(*row["interval"]),
            f"{row['to_best_markov']['value']:+.4f}",
            between(
                row["to_best_markov"]["low"], row["to_best_markov"]["high"], "+.4f"
            ),
        )
        for name, row in bits["models"].items()
    ]
    body += [
        (f"lzma, {how}", "", f"{bits['lzma'][how]:.4f}", "", "", "")
        for how in ("alone", "primed")
    ]
    header = (
        "bits per base",
        "validation",
        "test",
        "95%",
        f"less markov {best}",
        "95%",
    )
    first = format_table(header, body)
    body = [
        (
            name,
            " ".join(map(str, row["window"])),
            spread(row["valid"]),
            spread(row["test"]),
            between(*row["interval"]),
            f"{row['to_plain_markov']['value']:+.4f}",
            between(
                row["to_plain_markov"]["low"], row["to_plain_markov"]["high"], "+.4f"
            ),
        )
        for name, row in genes["models"].items()
    ]
    header = (
        "coding or not, area",
        "window",
        "validation",
        "test",
        "95%",
        "less markov",
        "95%",
    )
    return f"{first}\n\n{format_table(header, body)}"


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws bits per base, the curves, and the ratio along a stretch of the test part.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
    """
    figure = Figure(figsize=FIGURE_SIZE, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.5, 1))
    panels = [figure.add_subplot(grid[at]) for at in ((0, 0), (0, 1))]
    along = figure.add_subplot(grid[1, :])
    _bits(panels[0], results["bits"])
    _curves(panels[1], results["genes"])
    _stretch(along, results["genes"])
    for axes in (*panels, along):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    plots.save(figure, path)


def _bits(axes: Axes, bits: dict[str, Any]) -> None:
    """Markov orders as points; every other model as a line with its interval."""
    models = bits["models"]
    chains = [name for name in models if name.startswith("markov ")]
    orders = [int(name.split()[1]) for name in chains]
    values = np.array([models[name]["test"]["mean"] for name in chains])
    ends = np.array([models[name]["interval"] for name in chains]).T
    axes.errorbar(
        orders,
        values,
        yerr=np.abs(ends - values),
        color=plots.COLOURS[0],
        marker="o",
        markersize=4,
        capsize=2,
        linewidth=1.2,
        label="Markov chain",
    )
    others = [name for name in models if name not in chains]
    for colour, name in zip(plots.COLOURS[1:], others, strict=False):
        row = models[name]
        label = f"{name}: {spread(row['test'], 3)}"
        axes.axhline(row["test"]["mean"], color=colour, linewidth=1.4, label=label)
        axes.axhspan(*row["interval"], color=colour, alpha=0.08, linewidth=0)
    primed = bits["lzma"]["primed"]
    axes.plot([], [], " ", label=f"lzma, primed: {primed:.3f} (off the scale)")
    axes.axhline(UNIFORM, color=GREY, linestyle=":", linewidth=1, label="no model: 2")
    axes.set_xticks(orders)
    axes.set_xlabel("order of the Markov chain (bases of context)")
    axes.set_ylabel("bits per base, test")
    axes.set_title("Test part: value, and 95% interval over blocks", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _curves(axes: Axes, genes: dict[str, Any]) -> None:
    for colour, (name, row) in zip(
        plots.COLOURS, genes["models"].items(), strict=False
    ):
        xs, ys = zip(*row["roc"], strict=True)
        axes.plot(xs, ys, color=colour, label=f"{name}: {spread(row['test'], 3)}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
    axes.set_xlabel("share of other positions called coding")
    axes.set_ylabel("share of coding positions called coding")
    axes.set_title("Coding or not, test part: area under the curve", fontsize=10)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _stretch(axes: Axes, genes: dict[str, Any]) -> None:
    """The ratio per base along some kilobases, with genes as bars above and below."""
    shown = genes["shown"]
    for colour, (name, ratios) in zip(
        plots.COLOURS, shown["ratios"].items(), strict=False
    ):
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
