"""What the learning experiment has to say: a table and a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import lab
from experiments.lab import figures
from experiments.lab.figures import GREY

# Percent. ParaRNN: table 6 of https://arxiv.org/abs/2510.21450, one layer of 64 units,
# the best of 3 runs, 100 steps; recall with 128 symbols, parity at the last step alone.
# minimal-LRU: its README, several layers, after 2 to 4 epochs.
PUBLISHED: dict[str, dict[str, float]] = {
    "parity": {"Transformer": 53, "Mamba2": 52, "ParaGRU": 100, "ParaLSTM": 100},
    "recall": {"Transformer": 100, "Mamba2": 100, "ParaGRU": 100, "ParaLSTM": 100},
    "copy": {"minimal-LRU": 100},
}
# Published under another name, or of a cell that differs in detail.
COUNTERPARTS = {
    ("parity", "diagonal_gru"): "ParaGRU",
    ("parity", "diagonal_lstm"): "ParaLSTM",
    ("recall", "diagonal_gru"): "ParaGRU",
    ("recall", "diagonal_lstm"): "ParaLSTM",
    ("copy", "lru"): "minimal-LRU",
}
TITLES = {
    "accuracy": "parity, {length} steps, as in training",
    "longer": "parity, steps {next} to {longer}",
    "recall": "recall of {pairs} pairs",
    "copy": "copying {pattern} steps of 7 bits",
}


def columns(content: dict[str, Any]) -> dict[str, tuple[str, str, float]]:
    """Returns title -> (task, measure, chance) of what was measured."""
    settings = content["settings"]
    told = {**settings, "next": settings["length"] + 1}
    found = {}
    for task in content["results"]:
        chance = content["chance"][task]
        if task != "parity":
            found[TITLES[task].format(**told)] = (task, "accuracy", chance)
            continue
        for measure in ("accuracy", "longer"):
            found[TITLES[measure].format(**told)] = (task, measure, chance)
    return found


def table(content: dict[str, Any]) -> str:
    """Returns accuracy by cell and task, what is published, and Newton's report."""
    shown, results = columns(content), content["results"]
    mean = lambda cell: [results[t][cell][m] for t, m, _ in shown.values()]
    body = [
        (f"{cell} ({kind})", *map(lab.percent, mean(cell)))
        for cell, kind in content["kinds"].items()
    ]
    chance = [f"{100 * c:.1f}" for *_, c in shown.values()]
    published = []
    for name in dict.fromkeys(n for known in PUBLISHED.values() for n in known):
        known = [
            (t, m == "accuracy" and name in PUBLISHED[t]) for t, m, _ in shown.values()
        ]
        said = [f"{PUBLISHED[t][name]:g}" if told else "" for t, told in known]
        published.append((f"{name} (published)", *said))
    accuracy = lab.format_table(
        ("accuracy in %", *shown), [*body, ("chance", *chance), *published]
    )
    newton = newton_table(content)
    return f"{accuracy}\n\n{newton}" if newton else accuracy


def newton_table(content: dict[str, Any]) -> str:
    """Returns what Newton's method made of the trained cells, "" of none."""
    rows = [
        {"name": f"{task}, {cell}", **row}
        for task, found in content["results"].items()
        for cell, row in found.items()
        if "newton_converged" in row
    ]
    longer = f"converged, {content['settings']['longer']} steps %"
    columns = {
        "Newton's method": lambda row: row["name"],
        "sequences converged %": lambda row: lab.percent(row["newton_converged"]),
        "iterations": lambda row: f"{row['newton_iterations']['mean']:.0f}",
        "accuracy of these": lambda row: lab.percent(row["newton_accuracy"]),
        "step by step": lambda row: lab.percent(row["steps_accuracy"]),
        "largest difference": lambda row: _largest(row["newton_difference"]["values"]),
        longer: lambda row: lab.percent(row.get("newton_converged_longer")),
    }
    return lab.table_of(rows, columns) if rows else ""


def _largest(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.0e}" if known else ""


def draw(path: Path, content: dict[str, Any]) -> None:
    """Draws every seed's accuracy, the means, chance, and what is published."""
    shown = columns(content)
    figure = figures.figure_of(11.5, 4.8)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    kinds = list(dict.fromkeys(content["kinds"].values()))
    for axes, (title, (task, measure, chance)) in zip(
        panels, shown.items(), strict=True
    ):
        for i, (cell, kind) in enumerate(content["kinds"].items()):
            found = content["results"][task][cell][measure]
            _row(axes, i, found, figures.COLOURS[kinds.index(kind)])
            known = COUNTERPARTS.get((task, cell))
            if known and measure == "accuracy":
                looks: dict[str, Any] = {"mfc": "none", "mec": GREY, "ms": 9}
                axes.plot(PUBLISHED[task][known], i, "D", clip_on=False, **looks)
        axes.axvline(100 * chance, color=GREY, linestyle=":", linewidth=1.2)
        figures.describe(axes, title, "test accuracy (%)")
        axes.set_xlim(100 * chance - 15, 103)
        axes.set_xticks(range(20 * round(5 * chance), 101, 20))
        figures.tidy([axes], "x")
    panels[0].set_yticks(range(len(content["kinds"])), list(content["kinds"]))
    panels[0].invert_yaxis()
    _legend(figure, kinds)
    figures.save(figure, path)


def _row(axes: Axes, at: int, found: dict[str, Any], colour: str) -> None:
    values = 100 * np.asarray(found["values"])
    axes.plot([values.min(), values.max()], [at, at], color=colour, linewidth=1.5)
    axes.plot(values, np.full(len(values), at), "o", color=colour, ms=4, alpha=0.6)
    axes.plot(values.mean(), at, "|", color=colour, ms=14, mew=2)


def _legend(figure: Figure, kinds: list[str]) -> None:
    handles = [
        Line2D([], [], color=figures.COLOURS[i], marker="o", ms=4, label=kind)
        for i, kind in enumerate(kinds)
    ]
    looks: dict[str, Any] = {"color": GREY, "mfc": "none"}
    handles += [
        Line2D([], [], linestyle="", marker="D", ms=9, label="published", **looks),
        Line2D([], [], linestyle=":", label="chance", **looks),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
