"""What the experiment on stocks has to say: tables, a verdict, a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from experiments import lab
from experiments.data.stocks import Stocks
from experiments.lab import figures
from experiments.lab.figures import GREY
from experiments.stocks.forecasts import (
    AR_1,
    GARCH,
    GARCH_LATE,
    GAUSSIAN,
    STUDENT_T,
    Forecast,
)
from experiments.stocks.refits import GARCH_REFIT, GJR_REFIT, GJR_ROLLING

# What the best network is compared with, in pairs.
RIVALS = (GARCH, GARCH_LATE, GARCH_REFIT, GJR_REFIT, GJR_ROLLING)
REFERENCE = GJR_REFIT  # of the figure: what the field would use
ZOOM = 0.035  # nats, the second panel's reach on either side of the reference


def span(numbers: Sequence[float], digits: int = 4) -> str:
    """Returns an interval as it is printed.

    >>> span([-0.1, 0.25], 2)
    '[-0.10, +0.25]'
    """
    return f"[{numbers[0]:+.{digits}f}, {numbers[1]:+.{digits}f}]"


def less(row: dict[str, Any], reference: str) -> str:
    """Returns a model's nats less those of a reference, with the interval."""
    found = row["less"][reference]
    return f"{found['mean']:+.4f} {span(found['interval'])}"


def tables(results: dict[str, Any]) -> str:
    """Returns who forecasts best, whose quantiles hold, and whether means are forecast.

    Models are in the order of their nats.
    """
    rows = sorted(results["models"].items(), key=lambda item: item[1]["nats"]["mean"])
    first, second, third = [], [], []
    for name, row in rows:
        nats = f"{row['nats']['mean']:.4f}"
        if len(row["nats"]["values"]) > 1:
            nats += f" ± {row['nats']['sd']:.4f}"
        others = (less(row, GARCH), less(row, REFERENCE))
        itself = (name == GARCH, name == REFERENCE)
        shown = ["" if own else gain for own, gain in zip(itself, others, strict=True)]
        first.append((name, nats, *shown))
        distance = f"{row['distance_from_uniform']['mean']:.3f}"
        second.append((name, *map(_risk, row["value_at_risk"].values()), distance))
        r2 = f"{100 * row['r2']:+.2f} {span([100 * x for x in row['r2_interval']], 2)}"
        size = row["size_correlation"]["mean"]
        third.append((name, r2, "none" if size is None else f"{size:.2f}"))
    risks = [f"below {100 * float(p):g}% quantile, %" for p in _levels(results)]
    blocks = (
        (("test part", "nats", f"less {GARCH}", "less GJR-GARCH, refitted"), first),
        (("model", *risks, "distance of PIT"), second),
        (("model", "R^2 of the mean, %", "correlation of sd and |r|"), third),
    )
    shown = "\n\n".join(lab.format_table(header, body) for header, body in blocks)
    unit = f"{results['unit']}; ± is the deviation over seeds, [] a 95% interval"
    return f"{unit}\n\n{shown}"


def _levels(results: dict[str, Any]) -> list[str]:
    return list(results["models"][REFERENCE]["value_at_risk"])


def _risk(risk: dict[str, Any]) -> str:
    low, high = (100 * x for x in risk["interval"])
    sign = "" if risk["covered"] else " !"
    return f"{100 * risk['share']:.2f} [{low:.2f}, {high:.2f}]{sign}"


def verdict(results: dict[str, Any]) -> str:
    """Returns what the numbers say of networks, of quantiles and of the mean."""
    models, best = results["models"], results["best_in_validation"]
    lines = [f"Best network in validation: {best}. On the test part it is"]
    for name in RIVALS:
        low, high = models[best]["less"][name]["interval"]
        word = "better than" if high < 0 else "worse than" if low > 0 else "level with"
        lines.append(f"  {word} {name}: {less(models[best], name)} nats.")
    block = results["settings"]["block"]
    lines.append(f"  Days are drawn in blocks of {block}; in blocks of other lengths")
    for name, own in results["best_less_by_block"].items():
        shown = ", ".join(f"{n} days {span(found)}" for n, found in own.items())
        lines.append(f"  less {name}: {shown}.")
    wrong = [
        f"{name} at {100 * float(level):g}%"
        for name, row in models.items()
        for level, risk in row["value_at_risk"].items()
        if not risk["covered"]
    ]
    lines.append("Quantiles that do not hold (!):")
    lines.append(f"  {', '.join(wrong) or 'none'}.")
    return "\n".join([*lines, *_of_the_mean(results)])


def _of_the_mean(results: dict[str, Any]) -> list[str]:
    models = {k: results["models"][k] for k in (AR_1, *results["settings"]["networks"])}
    found = [name for name, row in models.items() if row["r2_interval"][0] > 0]
    best = max(models, key=lambda name: models[name]["r2"])
    said = f"is forecast by {', '.join(found)}" if found else "is not predictable"
    prices = ", ".join(f"{r2:.3f}" for r2 in results["r2_of_yesterdays_price"])
    return [
        f"The mean {said}. The largest out-of-sample R^2 is "
        f"{100 * models[best]['r2']:+.2f}% ({best});",
        f"  AR(1) less independent returns: {less(models[AR_1], GAUSSIAN)} nats.",
        f'A price that is "forecast" to be yesterday\'s has an R^2 of {prices},',
        "  and forecasts nothing.",
    ]


def draw(
    path: Path,
    results: dict[str, Any],
    data: Stocks,
    foretold: dict[str, list[Forecast]],
) -> None:
    """Draws nats beside the reference's, the transforms' histograms, and volatility.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
      data: The returns.
      foretold: Each model's forecasts, one for each seed.
    """
    best = results["best_in_validation"]
    figure = figures.figure_of(13.5, 9.0)
    grid = figure.add_gridspec(3, 3, height_ratios=(1.4, 1, 1))
    left, right = (figure.add_subplot(grid[0, i]) for i in (0, 1))
    _differences(left, results, zoom=False)
    _differences(right, results, zoom=True)
    right.set_yticklabels([])
    _histograms(figure.add_subplot(grid[0, 2]), results, best)
    for i in (0, 1):
        axes = figure.add_subplot(grid[i + 1, :])
        _volatility(axes, data, foretold, best, 2 * i)
    figures.tidy(figure.axes)
    figures.save(figure, path)


def _differences(axes: Axes, results: dict[str, Any], zoom: bool) -> None:
    models = results["models"]
    names = sorted(models, key=lambda name: -models[name]["nats"]["mean"])
    reference = models[REFERENCE]["nats"]["mean"]
    for place, name in enumerate(names):
        row, gain = models[name], models[name]["less"][REFERENCE]
        colour = figures.COLOURS[name in results["settings"]["networks"]]
        axes.plot(gain["interval"], [place] * 2, color=colour, linewidth=2)
        axes.plot(gain["mean"], place, "o", color=colour, markersize=6)
        if len(row["nats"]["values"]) > 1:
            seeds = [value - reference for value in row["nats"]["values"]]
            axes.plot(seeds, [place] * len(seeds), "|", color="#000000", markersize=9)
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    if zoom:
        axes.set_xlim(-ZOOM, ZOOM)
    title = "the same, near 0" if zoom else "Test part: left of 0 is better"
    below = f"nats per stock and day, less those of\n{REFERENCE}"
    figures.describe(axes, title, below)
    marks = (
        ("o-", figures.COLOURS[0], "mean and 95% interval, days drawn in blocks"),
        ("o-", figures.COLOURS[1], "the same, networks"),
        ("|", "#000000", "seeds"),
    )
    if not zoom:
        for style, colour, label in marks:
            axes.plot([], [], style, color=colour, label=label)
        axes.legend(frameon=False, fontsize=7, loc="upper right")


def _histograms(axes: Axes, results: dict[str, Any], best: str) -> None:
    models = results["models"]
    trials = models[REFERENCE]["trials"]
    bins = len(models[REFERENCE]["pit_histogram"])
    edges = np.linspace(0, 1, bins + 1)
    names = (GAUSSIAN, STUDENT_T, REFERENCE, best)
    for colour, name in figures.coloured(names):
        shares = 100 * np.array(models[name]["pit_histogram"]) / trials
        width = 2.0 if name in (REFERENCE, best) else 1.0
        axes.stairs(shares, edges, color=colour, linewidth=width, label=name)
    band = 100 * stats.binom.ppf([0.025, 0.975], trials, 1 / bins) / trials
    axes.axhspan(*band, color=GREY, alpha=0.2, label="95% of a bin")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    below = "probability integral transform, P(R < r)"
    texts = "Flat where forecasts are right", below, "share of test returns (%)"
    figures.describe(axes, *texts, loc="upper center", ncols=2)


def _volatility(
    axes: Axes, data: Stocks, foretold: dict[str, list[Forecast]], best: str, stock: int
) -> None:
    part = data.parts.test
    days, sizes = data.dates[part], np.abs(data.returns[part, stock])
    axes.vlines(days, 0, sizes, color=GREY, alpha=0.55, linewidth=1, label="|return|")
    lines = ((REFERENCE, figures.COLOURS[2]), (best, figures.COLOURS[3]))
    for name, colour in lines:
        sd = foretold[name][0].sd[part, stock]
        axes.plot(days, sd, color=colour, linewidth=1.6, label=f"sd, {name}")
    axes.set_xlim(days[0], days[-1])
    axes.set_ylim(0)
    title = f"{data.symbols[stock]}: volatility forecast the day before, first seed"
    figures.describe(axes, title, "day, test part", "percent a day", ncols=3)
