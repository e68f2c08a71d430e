"""What the experiment on gradient flow has to say: tables and a figure."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments import lab
from experiments.gradient_flow.judge import AFTER, BEFORE
from experiments.lab import figures
from experiments.lab.figures import GREY

CLIP_NAMES = {
    "none": "not clipped",
    "norm": "norm clipped to {clip:g}",
    "value": "each number clipped to {clip:g}",
}
LOG_10 = math.log(10)


def power(log_norm: float | None) -> str:
    """Returns a natural logarithm as a power of ten.

    >>> power(-230.2585), power(None)
    ('1e-100.0', '0')
    """
    return "0" if log_norm is None else f"1e{log_norm / LOG_10:+.1f}"


def percent(share: dict[str, Any]) -> str:
    """Returns mean and deviation in percent, and how many seeds have no gradient.

    >>> percent({"values": [0.25, None], "mean": 0.25, "sd": 0.0})
    '25 ± 0, 1 dead'
    """
    dead = sum(value is None for value in share["values"])
    if dead == len(share["values"]):
        return "dead"
    shown = f"{100 * share['mean']:.2g} ± {100 * share['sd']:.2g}"
    return f"{shown}, {dead} dead" if dead else shown


def median_of(curves: list[list[float | None]]) -> np.ndarray:
    """Returns the median of curves that hold None where a norm is 0: there -inf."""
    wide = [[-np.inf if x is None else x for x in curve] for curve in curves]
    return np.median(np.asarray(wide, np.float64), axis=0)


def tables(results: dict[str, Any]) -> str:
    """Returns norms beside bounds, cells beside each other, and the exploding run."""
    settings = results["settings"]
    steps, beyond = settings["steps"], settings["beyond"]
    radii = results["by_radius"].items()
    rows = [(f"spectral radius {name}", curve) for name, curve in radii]
    rows += list(results["counter_examples"].items())
    columns = {
        f"norm at lag {steps}": lambda row: row[0],
        "beta": lambda row: f"{math.exp(row[1]['log_beta']):.3f}",
        "measured": lambda row: power(row[1]["log_norms"][steps]),
        "bound": lambda row: power(steps * row[1]["log_beta"]),
    }
    first = lab.table_of(rows, columns)
    cells = [
        (f"{name}, {when}", found[when])
        for name, found in results["cells"].items()
        for when in (BEFORE, AFTER)
    ]
    columns = {
        "cell": lambda row: row[0],
        f"norm at lag {steps}": lambda row: _norm(row[1]["log_norms"], steps),
        "beta": lambda row: f"{math.exp(row[1]['log_beta']['mean']):.2f}",
        "bound is": lambda row: "proven" if row[1]["proven"] else "measured",
        f"from beyond lag {beyond}, %": lambda row: percent(row[1]["share"]),
        "test error": lambda row: "{mean:.4f} ± {sd:.4f}".format(**row[1]["error"]),
    }
    second = lab.table_of(cells, columns)
    columns = {
        "IRNN, gradient descent": lambda row: CLIP_NAMES[row[0]].format(**settings),
        "largest norm": lambda row: f"{max(row[1]['gradient_norms'], default=0):.3g}",
        "end": lambda row: _fate(row[1]),
    }
    third = lab.table_of(results["exploding"].items(), columns)
    chance = f"(always answering 1: test error {results['chance']:.3f})"
    return f"{first}\n\n{second}\n{chance}\n\n{third}"


def _norm(log_norms: list[list[float | None]], steps: int) -> str:
    norm = median_of(log_norms)[steps]
    return power(float(norm) if np.isfinite(norm) else None)


def _fate(run: dict[str, Any]) -> str:
    if run["not_finite_at"] is None:
        return f"loss {run['losses'][-1]:.3f}"
    return f"not finite at update {run['not_finite_at'] + 1}"


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws six panels.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
    """
    figure = figures.figure_of(13.5, 8.2)
    grid = figure.subplots(2, 3)
    _radii(grid[0, 0], results["by_radius"])
    _examples(grid[0, 1], results["counter_examples"])
    _exploding(grid[0, 2], results)
    both = list(zip(grid[1], (BEFORE, AFTER), strict=False))
    for axes, when in both:
        _cells(axes, results["cells"], when)
    lows, highs = zip(*(axes.get_ylim() for axes in grid[1, :2]), strict=True)
    low, high = min(lows), max(highs)
    for axes, when in both:
        axes.set_ylim(low, high + 0.25 * (high - low))  # most bounds leave the panel
        _bounds(axes, results["cells"], when)
    _shares(grid[1, 2], results)
    figures.tidy(grid.flat)
    figures.save(figure, path)


def _decades(log_norms: Any) -> np.ndarray:
    return np.asarray([np.nan if x is None else x for x in log_norms], float) / LOG_10


def _lag_axes(axes: Axes, title: str, of: str = "dh_t / dh_k") -> None:
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    figures.describe(axes, title, "lag t - k (steps)", f"log10 of norm of {of}")


def _norm_and_bound(axes: Axes, name: str, curve: dict[str, Any], colour: str) -> None:
    decades = _decades(curve["log_norms"])
    lags = np.arange(len(decades))
    axes.plot(lags, decades, color=colour, label=name)
    bound = lags * curve["log_beta"] / LOG_10
    axes.plot(lags, bound, "--", color=colour, linewidth=1)


def _radii(axes: Axes, curves: dict[str, Any]) -> None:
    for colour, (name, curve) in figures.coloured(curves.items()):
        _norm_and_bound(axes, name, curve, colour)
    _lag_axes(axes, "Elman (tanh), W_h orthogonal: beta = spectral radius")
    handles, _ = axes.get_legend_handles_labels()
    handles += [
        Line2D([], [], color=GREY, label="measured"),
        Line2D([], [], color=GREY, linestyle="--", label="bound, beta^(t-k)"),
    ]
    legend = {"title": "spectral radius", "title_fontsize": 8}
    axes.legend(handles=handles, frameon=False, fontsize=8, **legend)


def _examples(axes: Axes, curves: dict[str, Any]) -> None:
    for colour, (name, curve) in figures.coloured(curves.items()):
        decades = _decades(curve["log_norms"])
        axes.plot(decades, color=colour, label=name)
    curve = next(iter(curves.values()))
    lags = np.arange(len(curve["log_norms"]))
    bound = lags * curve["log_beta"] / LOG_10
    look = {"color": "#000000", "linewidth": 1.2, "label": "bound of all three"}
    axes.plot(lags, bound, "--", **look)
    beta = math.exp(curve["log_beta"])
    _lag_axes(axes, f"beta = {beta:g} permits explosion, and does not force it")
    axes.legend(frameon=False, fontsize=8)


def _cells(axes: Axes, cells: dict[str, Any], when: str) -> None:
    for place, (name, look) in enumerate(figures.looks_of(cells).items()):
        curves = cells[name][when]["log_norms"]
        for curve in curves:
            axes.plot(_decades(curve), color=look["color"], linewidth=0.7, alpha=0.45)
        middle = _decades(median_of(curves))
        # Markers stand apart: of curves that lie on each other each still shows.
        every = max(1, len(middle) // 5)
        marks = {"markersize": 5, "markevery": (place * every // len(cells), every)}
        axes.plot(middle, label=name, **look, **marks)
    _lag_axes(axes, f"Cells {when}; thin: each seed", "ds_t / ds_k (s: h; LSTM: h, c)")


def _bounds(axes: Axes, cells: dict[str, Any], when: str) -> None:
    """Draws the bound of each cell, of the median beta over seeds, and the legend."""
    thin = {"linestyle": "--", "linewidth": 0.9, "zorder": 1.5}
    for colour, found in figures.coloured(cells.values()):
        log_beta = float(np.median(found[when]["log_beta"]["values"]))
        lags = np.arange(len(found[when]["log_norms"][0]))
        axes.plot(lags, lags * log_beta / LOG_10, color=colour, **thin)
    axes.plot([], [], color=GREY, label="bound, beta^(t-k)", **thin)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _exploding(axes: Axes, results: dict[str, Any]) -> None:
    settings = results["settings"]
    for colour, (clip, run) in figures.coloured(results["exploding"].items()):
        name = CLIP_NAMES[clip].format(**settings)
        sizes = run["gradient_norms"]
        axes.plot(np.arange(1, len(sizes) + 1), sizes, color=colour, label=name)
        if run["not_finite_at"] is not None and sizes:
            look = {"color": colour, "markersize": 9, "label": "then not finite"}
            axes.plot(len(sizes), sizes[-1], "x", **look)
    axes.set_yscale("log")
    title = "IRNN, adding problem, plain gradient descent"
    beside = "norm of the gradient, before clipping"
    figures.describe(axes, title, "update", beside, loc="best")


def _shares(axes: Axes, results: dict[str, Any]) -> None:
    cells, width, everything = results["cells"], 0.38, []
    for i, (colour, when) in enumerate(figures.coloured((BEFORE, AFTER))):
        for place, found in enumerate(cells.values()):
            share = found[when]["share"]
            known = [100 * value for value in share["values"] if value is not None]
            everything += known
            at = place + (i - 0.5) * width
            mean = 100 * (share["mean"] or 0)
            label = when if place == 0 else None
            axes.bar(at, mean, width, color=colour, alpha=0.55, label=label)
            dots = {"markersize": 4, "markeredgecolor": "#000000"}
            axes.plot([at] * len(known), known, "o", color=colour, **dots)
    axes.set_xticks(range(len(cells)), list(cells))
    axes.set_yscale("log")
    least = min((v for v in everything if v > 0), default=1e-3)
    low = math.floor(math.log10(least)) - 1  # no dot on the edge
    axes.set_ylim(10.0**low, 10.0 ** (2 + (2 - low) / 6))  # the legend above the bars
    ticks = [10.0**power for power in range(2, low - 1, -max(1, (2 - low) // 6))]
    axes.set_yticks(ticks)
    title = f"Gradient from beyond lag {results['settings']['beyond']}; dots: seeds"
    legend = {"ncols": 2, "loc": "upper center"}
    figures.describe(axes, title, None, "norms there / norms at all lags (%)", **legend)
