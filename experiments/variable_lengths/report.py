"""What the experiment with spoken digits has to say: tables and a figure."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import lab
from experiments.lab import figures

# Of the distance between groups, what the markers of one group take up.
GROUP_WIDTH = 0.5
SHOWN_TIMES = (1.0, 2.0, 4.0)

Columns = dict[str, Callable[[Any], str]]
_percent = functools.partial(lab.percent, sign="%")


def tables(rows: dict[str, Any], padding: dict[str, Any]) -> str:
    """Returns accuracy by model and by length, and what padding does to it."""
    interval = "{:.1%} to {:.1%}".format
    accuracy = {
        "test accuracy": lambda row: f"{row[0]} ({row[1]['parameters']:,})",
        "rate": lambda row: f"{row[1]['learning_rate']:g}",
        "validation": lambda row: _percent(row[1]["valid"]),
        "test": lambda row: _percent(row[1]["test"]),
        "95%": lambda row: interval(*row[1]["test_interval"]),
        "new voice": lambda row: _percent(row[1]["new_voice"]),
    }
    by_frames: Columns = {"by frames": lambda row: row[0]}
    for group in next(iter(rows.values()))["test_by_length"]:
        by_frames[group] = lambda row, group=group: _percent(
            row[1]["test_by_length"][group]
        )
    first = next(iter(padding.values()))
    at = [first["times"].index(times) for times in SHOWN_TIMES]
    padded: Columns = {
        "padded to": lambda row: row[0],
        "own length": lambda row: _percent(row[1]["accuracy_without_padding"]),
    }
    for i in at:
        steps = str(first["steps"][i])
        padded[steps] = lambda row, i=i: _percent(row[1]["accuracy"][i])
    changed = f"changed, {first['steps'][at[1]]}"
    padded[changed] = lambda row: _percent(row[1]["changed_at_twice"])
    padded["log P moved"] = lambda row: f"{row[1]['log_p_moved_at_twice']:.1e}"
    shown = ((rows, accuracy), (rows, by_frames), (padding, padded))
    return "\n\n".join(lab.table_of(own.items(), columns) for own, columns in shown)


def leak_table(leaks: dict[str, Any]) -> str:
    """Returns what the training and the test part of each split have in common."""
    columns = {
        "test part": lambda row: row[0],
        "equal utterances": lambda row: str(row[1]["equal_utterances"]),
        "equal frames": lambda row: str(row[1]["equal_frames"]),
        "nearest in training": lambda r: f"{r[1]['nearest_test_to_train_median']:.2f}",
        "of training": lambda row: f"{row[1]['nearest_train_to_train_median']:.2f}",
        "nearest is same voice": lambda row: f"{row[1]['nearest_is_same_voice']:.1%}",
    }
    return lab.table_of(leaks.items(), columns)


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws accuracy by length, for each new voice, and against padding."""
    rows, padding = results["models"], results["padding"]
    figure = figures.figure_of(11.5, 4.6)
    known, new, padded = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    for i, (name, look) in enumerate(figures.looks_of(rows).items()):
        row, (colour, marker) = rows[name], look.values()
        shift = GROUP_WIDTH * (i / max(1, len(rows) - 1) - 0.5)
        groups = {"all": row["test"], **row["test_by_length"]}
        at = np.arange(len(groups)) + shift
        looks: dict[str, Any] = {**look, "label": name}
        _points(known, at, list(groups.values()), linestyle="none", **looks)
        known.set_xticks(range(len(groups)), list(groups), fontsize=9)
        if row["new_voice"]:
            values = row["new_voice"]["values"]
            voices = np.arange(len(values))
            new.plot(voices + shift, np.multiply(100, values), marker, color=colour)
            new.set_xticks(voices, [str(voice + 1) for voice in voices])
        if name in padding:
            found = padding[name]
            _points(padded, found["steps"], found["accuracy"], **looks)
            bare = 100 * found["accuracy_without_padding"]["mean"]
            padded.axhline(bare, color=colour, linestyle=":", linewidth=1.2)
    describe = functools.partial(figures.describe, size=11)
    texts = "voices heard in training", "frames of the utterance", "test accuracy (%)"
    describe(known, *texts, loc="lower right")
    describe(new, "a voice never heard", "voice left out")
    new.set_ylim(0, 100)
    padded.set_ylim(known.get_ylim())
    texts = "more padding (dotted: none)", "frames after padding"
    describe(padded, *texts, loc="lower left")
    figures.tidy(figure.axes, "y")
    figures.save(figure, path)


def _points(axes: Axes, at: Any, found: list[dict[str, Any]], **looks: Any) -> None:
    means, deviations = ([100 * f[name] for f in found] for name in ("mean", "sd"))
    axes.errorbar(at, means, deviations, capsize=3, **looks)
