"""What the experiment with digits has to say: tables and a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import lab
from experiments.lab import figures

STORE = Path(__file__).parent.parent / "results" / "long_memory.json"
TASKS = {
    "mnist1d": "MNIST-1D",
    "rows": "5,000 images, row by row",
    "pixels": "5,000 images, pixel by pixel",
}
# Where accuracies are shown once more, in percent.
ZOOM = (90, 100)
# A cell of the confusion matrix darker than this, in percent, is written on in white.
DARK = 50


def long_memory_rows() -> dict[str, Any]:
    """Returns what `experiments.long_memory` found on pixels, answered at the last."""
    rows: Any = lab.read_json(STORE)["rows"] if STORE.exists() else {}
    names = ("cell", "seed", "sequences", "stopped", "parameters")
    return {
        key: {"accuracy": 1 - row["wrong"], **{name: row[name] for name in names}}
        for key, row in rows.items()
        if row["task"] == "pixels"
    }


def tables(results: dict[str, Any]) -> str:
    """Returns accuracies beside those published, and what a search found."""
    shown = [_accuracies(results)]
    shown += [_search(task, tried) for task, tried in results["search"].items()]
    if "pixels" in results["models"] and results["long_memory"]:
        columns = {
            "long_memory, pixels": lambda row: row[0],
            "test": lambda row: f"{row[1]['accuracy']:.1%}",
            "sequences": lambda row: f"{row[1]['sequences']:,}",
            "ended by": lambda row: row[1]["stopped"],
        }
        shown.append(lab.table_of(results["long_memory"].items(), columns))
    return "\n\n".join(shown)


def _accuracies(results: dict[str, Any]) -> str:
    body = []
    for task, rows in results["models"].items():
        if task == "mnist1d":
            for name, percent in results["published"].items():
                body.append((f"MNIST-1D, published: {name}", "", f"{percent}%", "", ""))
        body += [
            (
                f"{TASKS[task]}: {name}",
                f"{row['parameters']:,}",
                lab.percent(row["test"], sign="%"),
                "{:.1%} to {:.1%}".format(*row["test_interval"]),
                f"{row['seconds']:.0f}",
            )
            for name, row in rows.items()
        ]
    header = ("", "parameters", "test accuracy", "95%, binomial", "seconds")
    return lab.format_table(header, body)


def _search(task: str, tried: list[dict[str, Any]]) -> str:
    plans = [row["plan"] for row in tried]
    changed = [k for k in plans[0] if len({plan[k] for plan in plans}) > 1]
    columns = {
        f"{TASKS[task]}, candidates": lambda row: ", ".join(
            f"{k} {row['plan'][k]}" for k in changed
        ),
        "validation": lambda row: f"{row['valid']:.1%}",
        "nats": lambda row: f"{row['nats']:.3f}",
    }
    return lab.table_of(tried, columns)


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws accuracies beside those published, and who is taken for whom."""
    figure = figures.figure_of(14.0, 4.8)
    left, middle, right = figure.subplots(1, 3, width_ratios=(4, 4, 5))
    for axes in (left, middle):
        _draw_accuracies(axes, results)
    figures.describe(left, "accuracy on the test part", size=11, loc="lower left")
    figures.describe(middle, "the same, near 100", size=11)
    middle.set_xlim(*ZOOM)
    middle.set_yticklabels([])
    task, rows = next(iter(results["models"].items()))
    _draw_confusion(right, np.array(next(iter(rows.values()))["confusion"]))
    title = f"who is taken for whom: {TASKS[task]}, as chosen"
    figures.describe(right, title, size=11)
    figures.save(figure, path)


def _draw_accuracies(axes: Axes, results: dict[str, Any]) -> None:
    names: list[str] = []
    published, ours = figures.COLOURS[1], figures.COLOURS[0]
    if "mnist1d" in results["models"]:
        for name, percent in results["published"].items():
            axes.plot(percent, len(names), "D", color=published, markersize=6)
            names.append(f"MNIST-1D: {name}")
    count = len(names)
    for task, rows in results["models"].items():
        for name, row in rows.items():
            _draw_accuracy(axes, len(names), row)
            names.append(f"{TASKS[task]}: {name}")
    if count:
        axes.plot([], [], "D", color=published, label="published")
    axes.plot([], [], "o", color=ours, label="here: mean over seeds, 95% binomial")
    axes.plot([], [], "|", color="black", label="one seed", linestyle="none")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy (%)")
    axes.set_xlim(right=100.5)
    figures.tidy([axes], "x")


def _draw_accuracy(axes: Axes, at: int, row: dict[str, Any]) -> None:
    """One of ours: mean, interval, and a stroke for each seed."""
    mean, blue = row["test"]["mean"], figures.COLOURS[0]
    spread = np.abs(np.array(row["test_interval"]) - mean)[:, None]
    axes.errorbar(100 * mean, at, xerr=100 * spread, fmt="o", color=blue, capsize=3)
    values = 100 * np.array(row["test"]["values"])
    axes.plot(values, np.full(len(values), at), "|", color="black", zorder=3)


def _draw_confusion(axes: Axes, confusion: np.ndarray) -> None:
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(percent):
        if value:
            colour = "white" if value > DARK else "black"
            text = f"{value:.1f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(percent)))
    axes.set_yticks(range(len(percent)))
    below = "predicted digit (numbers: % of the digit's test examples)"
    figures.describe(axes, None, below, "true digit")
