"""What the experiment with spoken digits has to say: tables and a figure."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import lab
from experiments.lab import figures

# Of the distance between groups, what the markers of one group take up.
GROUP_WIDTH = 0.5
SHOWN_TIMES = (1.0, 2.0, 4.0)

_percent = functools.partial(lab.percent, sign="%")


def tables(rows: dict[str, Any], padding: dict[str, Any]) -> str:
    """Returns accuracy by model and by length, and what padding does to it."""
    header = ("test accuracy", "rate", "validation", "test", "95%", "new voice")
    body = [
        (
            f"{name} ({row['parameters']:,})",
            f"{row['learning_rate']:g}",
            _percent(row["valid"]),
            _percent(row["test"]),
            "{:.1%} to {:.1%}".format(*row["test_interval"]),
            _percent(row["new_voice"]),
        )
        for name, row in rows.items()
    ]
    groups = list(next(iter(rows.values()))["test_by_length"])
    lengths = [
        (name, *(_percent(row["test_by_length"][group]) for group in groups))
        for name, row in rows.items()
    ]
    first = next(iter(padding.values()))
    at = [first["times"].index(times) for times in SHOWN_TIMES]
    steps = [str(first["steps"][i]) for i in at]
    padded = [
        (
            name,
            _percent(row["accuracy_without_padding"]),
            *(_percent(row["accuracy"][i]) for i in at),
            _percent(row["changed_at_twice"]),
            f"{row['log_p_moved_at_twice']:.1e}",
        )
        for name, row in padding.items()
    ]
    last = (f"changed, {steps[1]}", "log P moved")
    return "\n\n".join(
        (
            lab.format_table(header, body),
            lab.format_table(("by frames", *groups), lengths),
            lab.format_table(("padded to", "own length", *steps, *last), padded),
        )
    )


def leak_table(leaks: dict[str, Any]) -> str:
    """Returns what the training and the test part of each split have in common."""
    header = (
        "test part",
        "equal utterances",
        "equal frames",
        "nearest in training",
        "of training",
        "nearest is same voice",
    )
    body = [
        (
            name,
            str(found["equal_utterances"]),
            str(found["equal_frames"]),
            f"{found['nearest_test_to_train_median']:.2f}",
            f"{found['nearest_train_to_train_median']:.2f}",
            f"{found['nearest_is_same_voice']:.1%}",
        )
        for name, found in leaks.items()
    ]
    return lab.format_table(header, body)


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws accuracy by length, for each new voice, and against padding."""
    rows, padding = results["models"], results["padding"]
    figure = figures.figure_of(11.5, 4.6)
    known, new, padded = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    for i, (name, row) in enumerate(rows.items()):
        colour, marker = figures.COLOURS[i], figures.MARKERS[i]
        shift = GROUP_WIDTH * (i / max(1, len(rows) - 1) - 0.5)
        groups = {"all": row["test"], **row["test_by_length"]}
        at = np.arange(len(groups)) + shift
        looks: dict[str, Any] = {"color": colour, "marker": marker, "label": name}
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
    _name(known, "voices heard in training", "frames of the utterance")
    known.set_ylabel("test accuracy (%)")
    known.legend(fontsize=8, frameon=False, loc="lower right")
    _name(new, "a voice never heard", "voice left out")
    new.set_ylim(0, 100)
    _name(padded, "more padding (dotted: none)", "frames after padding")
    padded.set_ylim(known.get_ylim())
    padded.legend(fontsize=8, frameon=False, loc="lower left")
    figures.tidy(figure.axes, "y")
    figures.save(figure, path)


def _points(axes: Axes, at: Any, found: list[dict[str, Any]], **looks: Any) -> None:
    means, deviations = ([100 * f[name] for f in found] for name in ("mean", "sd"))
    axes.errorbar(at, means, deviations, capsize=3, **looks)


def _name(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below)
