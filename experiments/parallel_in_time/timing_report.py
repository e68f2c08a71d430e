"""What the timing of methods looks like: tables, and a figure of time by length."""

import statistics
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import lab
from experiments.lab import figures
from experiments.lab.tables import grouped

FORWARD, GRADIENT = "forward", "gradient"
SEQUENTIAL = ("scan", "bptt")
BLOCKS = "associative, blocks"
MEASURED, NO_MEMORY, NO_TIME = "measured", "skipped, memory", "skipped, time"
# Ratios nearer to 1 than this are noise on a machine that does other work.
EVEN = 1.1
STYLES = {
    "scan": "s--",
    "bptt": "o-",
    "associative": "^-",
    BLOCKS: "v-",
    "newton": "D-",
}


class Published(NamedTuple):
    """A figure of a paper, to be put beside ours on a like device."""

    what: str
    speed_up: float
    device: str
    source: str


_DEER = "https://arxiv.org/abs/2309.12252"
_MIN = "https://arxiv.org/abs/2410.01201"
_PARARNN = "https://arxiv.org/abs/2510.21450"
_T4, _A100 = "NVIDIA T4", "NVIDIA A100"
PUBLISHED = {
    "deer": (
        Published("gru, 2 inputs, forward, T=10,000", 68.2, "NVIDIA V100", _DEER),
    ),
    "min": (
        Published("min_gru against gru, T=512", 175, _T4, _MIN),
        Published("min_lstm against lstm, T=512", 235, _T4, _MIN),
        Published("min_gru against gru, T=4,096", 1324, _T4, _MIN),
        Published("min_lstm against lstm, T=4,096", 1361, _T4, _MIN),
    ),
    "pararnn": (
        Published("the faster of its two cells, T up to 512", 665, _A100, _PARARNN),
        Published("the slower of its two cells, T up to 512", 447, _A100, _PARARNN),
    ),
}


def speed_up(group: list[dict[str, Any]]) -> tuple[str, float] | None:
    """Returns the fastest method that is parallel in time, and what it gains.

    Args:
      group: The rows of one cell, size, length and pass.

    Returns:
      Its name, and the time of the fastest method that goes step by step over its own;
      None where either was not measured. `associative` on a CPU is one block, a loop
      with an adjoint by hand, and counts as step by step there.
    """
    loops = (*SEQUENTIAL, "associative") if on_cpu() else SEQUENTIAL
    measured = [row for row in group if row["status"] == MEASURED]
    # Ratios are medians over rounds, and steadier than seconds.
    by = "ratio" if all("ratio" in row for row in measured) else "median_seconds"
    times = {row["method"]: row[by] for row in measured}
    parallel = {name: t for name, t in times.items() if name not in loops}
    steps = [t for name, t in times.items() if name in loops]
    if not parallel or not steps:
        return None
    best = min(parallel, key=lambda name: parallel[name])
    return best, min(steps) / parallel[best]


def summary(name: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Returns the median seconds of a method, and its ratio to bptt, over rounds."""
    found: dict[str, Any] = {
        "rounds": len(rounds),
        "median_seconds": statistics.median(seconds[name] for seconds in rounds),
    }
    if "bptt" in rounds[0]:
        ratios = [seconds[name] / seconds["bptt"] for seconds in rounds]
        found["ratio"] = statistics.median(ratios)
        found["least_ratio"], found["greatest_ratio"] = min(ratios), max(ratios)
    return found


def on_cpu() -> bool:
    """Returns whether the device at hand is a CPU."""
    return jax.default_backend() == "cpu"


def groups(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yields rows that are compared with each other."""
    yield from grouped(rows, ("cell", "hidden", "steps", "pass")).values()


def verdict(group: list[dict[str, Any]]) -> str:
    """Returns whether evaluation in parallel wins, in words."""
    found = speed_up(group)
    if found is None:
        return ""
    gain = found[1]
    if max(gain, 1 / gain) < EVEN:
        return "even"
    return f"wins {gain:.1f}x" if gain > 1 else f"loses {1 / gain:.1f}x"


def table(rows: list[dict[str, Any]], which: str) -> str:
    """Returns seconds of bptt, and the ratio to it of every other method."""
    of = lambda name: lambda group: shown({r["method"]: r for r in group}.get(name))
    columns: dict[str, Callable[[Any], str]] = {
        which: lambda group: f"{group[0]['cell']}, H={group[0]['hidden']}",
        "T": lambda group: f"{group[0]['steps']:,}",
        **{name: of(name) for name in dict.fromkeys(row["method"] for row in rows)},
        "parallel": verdict,
    }
    chosen = groups([row for row in rows if row["pass"] == which])
    return lab.table_of(chosen, columns)


def shown(row: dict[str, Any] | None) -> str:
    """Returns a row as it stands in the table: seconds of bptt, ratios of the rest.

    >>> shown({"method": "scan", "status": "measured", "ratio": 1.234})
    '1.23'
    """
    if row is None:
        return ""
    if row["status"] != MEASURED:
        return row["status"]
    if row["method"] != "bptt" and "ratio" in row:
        return f"{row['ratio']:.2f}"
    return f"{row['median_seconds']:.2g} s"


def draw(path: Path, rows: list[dict[str, Any]], batch: int) -> None:
    """Draws time with the gradient against T, a panel for each cell and size."""
    rows = [row for row in rows if row["pass"] == GRADIENT]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    sizes = list(dict.fromkeys(row["hidden"] for row in rows))
    figure = figures.figure_of(11.5, 6.2)
    grid = figure.subplots(
        len(sizes), len(cells), sharex=True, sharey=True, squeeze=False
    )
    handles: dict[str, Any] = {}
    for axes, (hidden, cell) in zip(grid.flat, product(sizes, cells), strict=True):
        own = [r for r in rows if (r["cell"], r["hidden"]) == (cell, hidden)]
        for colour, (name, style) in figures.coloured(STYLES.items()):
            points = [
                (row["steps"], row["median_seconds"])
                for row in own
                if row["method"] == name and row["status"] == MEASURED
            ]
            if points:
                looks = {"color": colour, "markersize": 4, "label": name}
                handles[name] = axes.plot(*zip(*points, strict=True), style, **looks)[0]
        axes.loglog()
        figures.tidy([axes])
        figures.describe(axes, f"{cell}, H = {hidden}")
    for axes in grid[:, 0]:
        axes.set_ylabel("outputs and gradient (s)")
    for axes in grid[-1]:
        axes.set_xlabel("length T (steps)")
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=5, frameon=False
    )
    device = jax.devices()[0].device_kind
    figure.suptitle(f"Time against length, batch {batch}, on: {device}", fontsize=11)
    figures.save(figure, path)


def progress(group: list[dict[str, Any]]) -> str:
    """Returns one line about rows that were just measured."""
    first = group[0]
    seconds = (
        f"{row['method']} {row['median_seconds']:.2g} s"
        if row["status"] == MEASURED
        else f"{row['method']} {row['status']}"
        for row in group
    )
    size = f"H={first['hidden']}, T={first['steps']:,}, {first['pass']}"
    return f"{first['cell']}, {size}: {'; '.join(seconds)}"


def published_table(ours: list[dict[str, Any]], theirs: tuple[Published, ...]) -> str:
    """Returns our speed-ups, and below them the published ones."""
    device = jax.devices()[0].device_kind
    what = lambda o: f"{o['cell']}, {o['method']}, against {o['against']}"
    size = lambda o: f"H={o['hidden']}, T={o['steps']:,}, {o['pass']}"
    body = [(f"{what(o)}, {size(o)}", f"{o['speed_up']:.2f}", device) for o in ours]
    body += [(f"published: {p.what}", f"{p.speed_up:g}", p.device) for p in theirs]
    return lab.format_table(("speed-up", "times", "device"), body)
