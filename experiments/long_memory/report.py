"""What the long-memory tasks have to say: a table and a figure."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments import plots
from experiments._report import format_table
from experiments.long_memory.entrants import ENTRANTS
from experiments.long_memory.problems import LENGTHS, PUBLISHED, problem
from experiments.long_memory.training import CUT, DIVERGED, SOLVED

HEADER = (
    "task, T: cell",
    "parameters",
    "runs",
    "solved",
    "sequences to success",
    "trained on",
    "final loss",
    "wrong",
)
NOTES = """\
Mean ± deviation over seeds; empty: not run, or not told. Solved: adding, mean
squared error below 0.01; copy, loss below a tenth of the constant answer's; order, all
fresh sequences right, no output off by 0.3. Wrong: sums off by more than 0.04; copied
symbols; sequences; images. Training stops at the first success: a final loss is that of
a network that has just passed the threshold, and could fall further. (seconds): some
runs were cut by their limit of time, (diverged): some by a loss that is not finite.
Learning rates are from short probes, on seed 0 or on a seed of their own (entrants.py).
Published figures have other stopping rules and sizes; final losses there are those of
networks trained to the end."""
TITLES = {
    "adding": "adding, T = {}: mean squared error",
    "copy": "copying over {} steps: nats per step",
    "order_6a": "temporal order 6a (two symbols): nats",
    "order_6b": "temporal order 6b (three symbols): nats",
    "pixels": "784 pixels of a digit: nats",
    "permuted_pixels": "784 permuted pixels: nats",
}
STYLES = ("-", "--")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#777777"
PANEL = (4.1, 3.3)  # inches
COLUMNS = 3

Rows = Mapping[str, Mapping[str, Any]]


def spread(values: Sequence[float | None], digits: str) -> str:
    """Returns mean and deviation of what is known, or the one value, or "".

    >>> spread([1.0, 3.0], ".1f"), spread([2.0], ".1f"), spread([None], ".1f")
    ('2.0 ± 1.4', '2.0', '')
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    shown = format(float(np.mean(known)), digits)
    if len(known) == 1:
        return shown
    return f"{shown} ± {format(float(np.std(known, ddof=1)), digits)}"


def panels(rows: Rows) -> list[tuple[str, int]]:
    """Returns each task and length of the full table, and what else was run."""
    full = [(task, length) for task, lengths in LENGTHS.items() for length in lengths]
    run = {(row["task"], row["length"]) for row in rows.values()}
    order = list(LENGTHS)
    both = set(full) | run
    return sorted(both, key=lambda pair: (order.index(pair[0]), pair[1]))


def of_cell(rows: Rows, task: str, length: int, cell: str) -> list[Mapping[str, Any]]:
    """Returns the rows of a cell, in the order of their seeds."""
    own = (task, length, cell)
    found = [r for r in rows.values() if (r["task"], r["length"], r["cell"]) == own]
    return sorted(found, key=lambda row: row["seed"])


def line(cell: str, found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns a cell's line of the table; nothing but its name of one that never ran.

    Sequences to success are those of the runs that succeeded. What ended early says so.
    """
    if not found:
        return (f"  {cell}", *[""] * (len(HEADER) - 1))
    solved = [row for row in found if row["stopped"] == SOLVED]
    early = {row["stopped"] for row in found} & {CUT, DIVERGED}
    threshold = problem(found[0]["task"], found[0]["length"]).measure is not None
    return (
        f"  {cell}",
        f"{found[0]['parameters']:,}",
        str(len(found)),
        f"{len(solved)}/{len(found)}" if threshold else "",
        spread([row["sequences_to_success"] for row in solved], ",.0f"),
        spread([row["sequences"] for row in found], ",.0f")
        + "".join(f" ({why})" for why in sorted(early)),
        spread([row["loss"] for row in found], ".2g"),
        spread([100 * row["wrong"] for row in found], ".1f") + "%",
    )


def table(rows: Rows) -> str:
    """Returns the table: what was measured beside the baselines and what was said."""
    lines: list[tuple[str, ...]] = []
    empty = [""] * (len(HEADER) - 1)
    said = {(p.task, p.length) for p in PUBLISHED}
    order = list(LENGTHS)
    shown = sorted(
        {*panels(rows), *said}, key=lambda pair: (order.index(pair[0]), pair[1])
    )
    for task, length in shown:
        lines.append((f"{task}, {length}", *empty))
        level = problem(task, length).baseline
        lines.append(("  best constant answer", *empty[:5], f"{level:.4f}", ""))
        for p in PUBLISHED:
            if (p.task, p.length) == (task, length):
                needed = "" if p.sequences is None else f"{p.sequences:,}"
                loss = "" if p.loss is None else f"{p.loss:.2g}"
                lines.append((f"  {p.by}", "", "", "", needed, "", loss, ""))
        if (task, length) in panels(rows):
            cells = [(cell, of_cell(rows, task, length, cell)) for cell in ENTRANTS]
            lines += [line(cell, found) for cell, found in cells]
    return format_table(HEADER, lines)


def draw(path: Path, rows: Rows) -> None:
    """Draws loss on fresh data against sequences, a panel for each task that was run.

    Args:
      path: Where the PNG goes.
      rows: By name.
    """
    run = {(row["task"], row["length"]) for row in rows.values()}
    shown = [pair for pair in panels(rows) if pair in run]
    columns = min(COLUMNS, max(1, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * lines + 1.0))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    shades = [(c, style) for style in STYLES for c in plots.COLOURS]
    looks: dict[str, dict[str, Any]] = {
        cell: {"color": colour, "linestyle": style, "marker": marker}
        for cell, (colour, style), marker in zip(
            ENTRANTS, shades, cycle(MARKERS), strict=False
        )
    }
    for place, (task, length) in zip(axes, shown, strict=False):
        _panel(place, rows, task, length, looks)
    for place in axes[len(shown) :]:
        place.set_visible(False)
    figure.tight_layout(rect=(0, 1.0 / figure.get_figheight(), 1, 0.97))
    _legend(figure, list(axes), columns)
    figure.suptitle("Loss on fresh sequences while cells learn what lies far back")
    plots.save(figure, path)


def _legend(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    handles = {}
    for place in axes:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [name.replace("_", " ") for name in ENTRANTS]
    labels = sorted(handles, key=lambda name: (name not in order, name))
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="lower center",
        ncols=2 * columns,
        frameon=False,
        fontsize=8,
    )


def _panel(
    axes: Axes, rows: Rows, task: str, length: int, looks: Mapping[str, dict[str, Any]]
) -> None:
    own = problem(task, length)
    for cell, look in looks.items():
        for number, row in enumerate(of_cell(rows, task, length, cell)):
            _course(axes, row, look, cell.replace("_", " ") if number == 0 else None)
    axes.axhline(
        own.baseline, color=GREY, linestyle="--", linewidth=1, label="constant answer"
    )
    if own.measure == "loss":
        axes.axhline(own.threshold, color=GREY, linestyle=":", label="solved below")
    _published(axes, task, length)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 900), max(high, 11_000))  # at least one decade has its marks
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(TITLES[task].format(length), fontsize=9)
    axes.set_xlabel("training sequences (filled end: solved)", fontsize=8)
    unit = "mean squared error" if task == "adding" else "cross-entropy (nats)"
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _course(
    axes: Axes, row: Mapping[str, Any], look: dict[str, Any], label: str | None
) -> None:
    """Draws one run; its end is filled where it succeeded, open where it did not."""
    points = [(p["sequences"], p["loss"]) for p in row["course"]]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return
    xs, ys = zip(*known, strict=True)
    full = row["stopped"] == SOLVED
    axes.plot(
        xs,
        ys,
        label=label,
        linewidth=1.1,
        alpha=0.85,
        markersize=6,
        markevery=[len(xs) - 1],
        markerfacecolor=look["color"] if full else "white",
        **look,
    )


def _published(axes: Axes, task: str, length: int) -> None:
    for said in PUBLISHED:
        if (said.task, said.length) != (task, length):
            continue
        if said.sequences is not None:
            axes.axvline(
                said.sequences,
                color="black",
                linewidth=1,
                linestyle="-.",
                label=f"sequences: {said.by}",
            )
        if said.loss is not None:
            axes.axhline(
                said.loss,
                color="black",
                linewidth=1,
                linestyle=(0, (1, 3)),
                label=f"loss: {said.by}",
            )
