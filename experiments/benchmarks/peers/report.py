"""What the comparison looks like: tables, and a figure of ratios."""

from pathlib import Path
from statistics import geometric_mean
from typing import Any

from matplotlib.ticker import NullFormatter

from experiments import lab
from experiments.benchmarks.grid import label
from experiments.benchmarks.peers.jax_peers import DEVICES, FUSED, OURS, RESET_BEFORE
from experiments.benchmarks.peers.problems import (
    INFERENCE,
    PASSES,
    STEP,
    TRAINING,
    Shape,
)
from experiments.benchmarks.peers.running import FLOOR, PLAIN_TORCH, TORCH
from experiments.benchmarks.turns import median_ratio
from experiments.lab import figures
from experiments.lab.tables import grouped

LINEN = "flax.linen"
OWN = (OURS, "jrnn, scan", FUSED, RESET_BEFORE, DEVICES)
MARKERS = ("s", "o", "^", "D", "v", "P", "X", "<", ">")
RATIOS = (0.3, 0.5, 1, 2, 5, 10, 20)


def groups(rows: list[dict[str, Any]], which: str) -> list[dict[str, dict[str, Any]]]:
    """Returns for each cell and shape the rows of one pass, by system."""
    chosen = [{**r, "shape": tuple(r["shape"])} for r in rows if r["pass"] == which]
    alike = grouped(chosen, ("cell", "shape")).values()
    return [{row["system"]: row for row in group} for group in alike]


def fastest_peer(
    group: dict[str, dict[str, Any]], jax_only: bool = False
) -> str | None:
    """Returns which of the other libraries is fastest; None: there is none."""
    apart = {*OWN, FLOOR, PLAIN_TORCH, *((TORCH,) if jax_only else ())}
    peers = [name for name in group if name not in apart]
    return min(peers, key=lambda name: group[name]["median_seconds"], default=None)


def ratio(group: dict[str, dict[str, Any]], name: str, to: str) -> float:
    """Returns the median over rounds of one's seconds over the other's."""
    return median_ratio(
        group[name]["seconds_per_round"], group[to]["seconds_per_round"]
    )


def table(rows: list[dict[str, Any]], which: str) -> str:
    """Returns each library's time as a ratio to jrnn's, and the verdict."""
    found = groups(rows, which)
    names = list(dict.fromkeys(name for group in found for name in group))
    names.remove(OURS)
    columns = {
        which: lambda group: label(group[OURS]),
        "jrnn, ms": lambda group: f"{1e3 * group[OURS]['median_seconds']:.3g}",
    }
    for name in names:
        columns[name] = lambda group, name=name: (
            f"{ratio(group, name, OURS):.2f}" if name in group else ""
        )
    columns["jrnn to the fastest"] = _to_the_fastest
    return lab.table_of(found, columns)


def _to_the_fastest(group: dict[str, dict[str, Any]]) -> str:
    best = fastest_peer(group)
    return "" if best is None else f"{ratio(group, OURS, best):.2f} of {best}"


def small_table(rows: list[dict[str, Any]]) -> str:
    """Returns seconds of compiling a pass, and of one step of streaming."""
    body = []
    names = list(dict.fromkeys(row["system"] for row in rows))
    names.remove(FLOOR)
    for which, key, scale in (
        (INFERENCE, "compile_seconds", 1.0),
        (TRAINING, "compile_seconds", 1.0),
        (STEP, "median_seconds", 1e6),
    ):
        unit = f"compile {which}, s" if scale == 1 else "one step, B = 1, us"
        for group in groups(rows, which):
            shown = (group.get(name, {}).get(key) for name in names)
            cells = ("" if v is None else f"{scale * v:.3g}" for v in shown)
            body.append((f"{unit}: {label(group[OURS])}", *cells))
    return lab.format_table(("", *names), body)


def memory_table(usage: list[dict[str, Any]]) -> str:
    """Returns the mebibytes that a training step takes, each in its own process."""
    mib = lambda size: "" if size is None else f"{size / 2**20:.0f}"
    columns = {
        "MiB": label,
        "": lambda row: row["system"],
        "peak": lambda row: mib(row["peak_bytes"]),
        "planned by the compiler": lambda row: mib(row["planned_temporary_bytes"]),
    }
    return lab.table_of(usage, columns)


def summary(rows: list[dict[str, Any]], ours: str = OURS) -> list[str]:
    """Returns the geometric and the worst ratio to the fastest peers, in words."""
    lines = []
    for which in PASSES:
        found = [group for group in groups(rows, which) if ours in group]
        for what, jax_only in (("peer", False), ("JAX peer", True)):
            pairs = [(group, fastest_peer(group, jax_only)) for group in found]
            lines += _in_words(
                f"{ours}, {which}, to the fastest {what}",
                [ratio(group, ours, best) for group, best in pairs if best is not None],
            )
        beside = [group for group in found if LINEN in group]
        lines += _in_words(
            f"{ours}, {which}, compiling, to {LINEN}",
            [_compiling(group, ours) / _compiling(group, LINEN) for group in beside],
        )
        if ours != OURS:
            to_one = [ratio(group, ours, OURS) for group in found]
            lines += _in_words(f"{ours}, {which}, to {OURS}", to_one)
    steps = [group for group in groups(rows, STEP) if ours in group]
    pairs = [(group, fastest_peer(group)) for group in steps]
    lines += _in_words(
        f"{ours}, one step, to the fastest peer",
        [ratio(group, ours, best) for group, best in pairs if best is not None],
    )
    return lines


def _compiling(group: dict[str, dict[str, Any]], name: str) -> float:
    return group[name]["compile_seconds"]


def _in_words(what: str, ratios: list[float]) -> list[str]:
    if not ratios:
        return []
    return [
        f"{what}: {geometric_mean(ratios):.2f} in the geometric mean, "
        f"{max(ratios):.2f} at worst, "
        f"{sum(r <= 1 for r in ratios)} of {len(ratios)} at most 1."
    ]


def draw(rows: list[dict[str, Any]], path: Path, machine: str) -> None:
    """Draws each library's time as a ratio to jrnn's, one panel for a cell and pass."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    figure = figures.figure_of(11.0, 6.4)
    axes = figure.subplots(len(PASSES), len(cells), sharey=True, squeeze=False)
    names = [n for n in dict.fromkeys(row["system"] for row in rows) if n != OURS]
    drawn = [name for name in names if name != FLOOR]
    looks = figures.looks_of(drawn, markers=MARKERS)
    looks[FLOOR] = {"color": "black", "marker": "_"}
    handles: dict[str, Any] = {}
    for line, which in zip(axes, PASSES, strict=True):
        for axis, cell in zip(line, cells, strict=True):
            found = [g for g in groups(rows, which) if g[OURS]["cell"] == cell]
            for name in names:
                here = [(x, g) for x, g in enumerate(found) if name in g]
                ys = [ratio(g, name, OURS) for _, g in here]
                look: dict[str, Any] = {**looks[name], "linestyle": "none"}
                xs = [x for x, _ in here]
                (handles[name],) = axis.plot(xs, ys, alpha=0.8, **look)
            axis.axhline(1.0, color="black", linewidth=0.8)
            shapes = [str(Shape(*g[OURS]["shape"])) for g in found]
            axis.set_xticks(range(len(found)), shapes, rotation=60, fontsize=7)
            axis.set_yscale("log")
            axis.set_yticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
            axis.yaxis.set_minor_formatter(NullFormatter())
            figures.describe(axis, f"{cell}, {which}", size=9)
        line[0].set_ylabel("time / time of jrnn")
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=5, fontsize=8
    )
    figure.suptitle(
        f"Above the line jrnn is faster; (T, B, I, H); {machine}", fontsize=10
    )
    figures.save(figure, path)
