"""What the measurement of kernels looks like: a table, and a figure of times."""

from pathlib import Path
from typing import Any

from matplotlib.ticker import NullFormatter

from experiments import lab
from experiments.benchmarks.kernels.systems import Rows
from experiments.benchmarks.kernels.timing import COPY, LINEAR
from experiments.benchmarks.peers.problems import PASSES
from experiments.lab import figures

MARKERS = ("o", "^", "s", "D", "v", "P", "X")


def show(rows: Rows) -> int:
    """Prints times, differences and failures; returns 1 if there are any of these."""
    mib = lambda size: "" if size is None else f"{size / 2**20:.1f} MiB"
    columns = {
        "what": lambda row: row["what"],
        "pass": lambda row: row.get("pass", "FAILED"),
        "system": lambda row: row["system"],
        "": _number,
        "temporary": lambda row: mib(row.get("temporary_bytes")),
    }
    print(lab.table_of(rows, columns))
    return int(any("error" in row for row in rows))


def _number(row: dict[str, Any]) -> str:
    if "median_seconds" in row:
        return f"{1e3 * row['median_seconds']:.3f} ms"
    if "difference" in row:
        return f"{row['difference']:.1e} off"
    return row.get("error", "")


def bandwidths(rows: Rows) -> list[str]:
    """Returns how near the linear recurrence comes to the speed of a copy, in words."""
    speeds = {
        (row["system"], row["pass"]): row["bytes_per_second"]
        for row in rows
        if "bytes_per_second" in row
    }
    copies = [speed for (name, _), speed in speeds.items() if name == COPY]
    return [
        f"linear recurrence, {which}: {speeds[LINEAR, which] / 1e12:.2f} TB/s, "
        f"{speeds[LINEAR, which] / copy:.0%} of a copy's {copy / 1e12:.2f}"
        for copy in copies
        for which in PASSES
        if (LINEAR, which) in speeds
    ]


def draw(rows: Rows, path: Path, machine: str) -> None:
    """Draws milliseconds by the number of units, one panel for a cell and pass."""
    timed = [row for row in rows if "median_seconds" in row and "cell" in row]
    cells = list(dict.fromkeys(row["cell"] for row in timed))
    if not cells:
        return  # nothing ran
    figure = figures.figure_of(10.0, 6.0)
    axes = figure.subplots(
        len(PASSES), len(cells), sharex=True, sharey="row", squeeze=False
    )
    kinds = dict.fromkeys((row["system"], row["dtype"]) for row in timed)
    looks = figures.looks_of(kinds, markers=MARKERS)
    sizes = sorted({row["shape"][3] for row in timed})
    drawn = {}
    for line, which in zip(axes, PASSES, strict=True):
        for axis, cell in zip(line, cells, strict=True):
            for kind, look in looks.items():
                here = [
                    (row["shape"][3], 1e3 * row["median_seconds"])
                    for row in timed
                    if (row["system"], row["dtype"]) == kind
                    and (row["cell"], row["pass"]) == (cell, which)
                ]
                if here:
                    points = zip(*here, strict=True)
                    (drawn[kind],) = axis.plot(*points, linewidth=0.8, **look)
            axis.loglog()
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.xaxis.set_minor_formatter(NullFormatter())
            figures.describe(axis, f"{cell}, {which}", size=9)
            axis.grid(alpha=0.3)
        line[0].set_ylabel("milliseconds")
    for axis in axes[-1]:
        axis.set_xlabel("units H")
    labels = [f"{system}, {dtype}" for system, dtype in drawn]
    lines = list(drawn.values())
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=8)
    T, B, *_ = timed[0]["shape"]
    title = [f"{B} sequences of {T} steps, {machine}", *bandwidths(rows)]
    figure.suptitle("\n".join(title), fontsize=9)
    figures.save(figure, path)
