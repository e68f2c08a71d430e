"""What the comparison looks like: tables, and a figure of ratios."""

from itertools import cycle
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from matplotlib.ticker import NullFormatter

from experiments import lab
from experiments.benchmarks.peers.jax_peers import DEVICES, OURS, RESET_BEFORE
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

LINEN = "flax.linen"
OWN = (OURS, "jrnn, scan", RESET_BEFORE, DEVICES)
MARKERS = ("s", "o", "^", "D", "v", "P", "X", "<", ">")
RATIOS = (0.3, 0.5, 1, 2, 5, 10, 20)


def groups(rows: list[dict[str, Any]], which: str) -> list[dict[str, dict[str, Any]]]:
    """Returns for each cell and shape the rows of one pass, by system."""
    found: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["pass"] == which:
            key = (row["cell"], *row["shape"])
            found.setdefault(key, {})[row["system"]] = row
    return list(found.values())


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
    body = []
    for group in found:
        ours, best = group[OURS], fastest_peer(group)
        body.append(
            (
                f"{ours['cell']} {Shape(*ours['shape'])}",
                f"{1e3 * ours['median_seconds']:.3g}",
                *(f"{ratio(group, n, OURS):.2f}" if n in group else "" for n in names),
                "" if best is None else f"{ratio(group, OURS, best):.2f} of {best}",
            )
        )
    return lab.format_table((which, "jrnn, ms", *names, "jrnn to the fastest"), body)


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
            ours = group[OURS]
            body.append((f"{unit}: {ours['cell']} {Shape(*ours['shape'])}", *cells))
    return lab.format_table(("", *names), body)


def memory_table(usage: list[dict[str, Any]]) -> str:
    """Returns the mebibytes that a training step takes, each in its own process."""
    body = []
    for row in usage:
        planned = row["planned_temporary_bytes"]
        plan = "" if planned is None else f"{planned / 2**20:.0f}"
        what = f"{row['cell']} {Shape(*row['shape'])}", row["system"]
        body.append((*what, f"{row['peak_bytes'] / 2**20:.0f}", plan))
    return lab.format_table(("MiB", "", "peak", "planned by the compiler"), body)


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
    looks = dict(zip(drawn, zip(cycle(figures.COLOURS), cycle(MARKERS)), strict=False))
    for line, which in zip(axes, PASSES, strict=True):
        for axis, cell in zip(line, cells, strict=True):
            found = [g for g in groups(rows, which) if g[OURS]["cell"] == cell]
            for name in names:
                here = [(x, g) for x, g in enumerate(found) if name in g]
                ys = [ratio(g, name, OURS) for _, g in here]
                label = name if axis is axes[0][-1] else None
                colour, marker = ("black", "_") if name == FLOOR else looks[name]
                look = {"color": colour, "marker": marker, "linestyle": "none"}
                axis.plot([x for x, _ in here], ys, label=label, alpha=0.8, **look)
            axis.axhline(1.0, color="black", linewidth=0.8)
            shapes = [str(Shape(*g[OURS]["shape"])) for g in found]
            axis.set_xticks(range(len(found)), shapes, rotation=60, fontsize=7)
            axis.set_yscale("log")
            axis.set_yticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(f"{cell}, {which}", fontsize=9)
        line[0].set_ylabel("time / time of jrnn")
    handles, labels = [], []
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(
        f"Above the line jrnn is faster; (T, B, I, H); {machine}", fontsize=10
    )
    figures.save(figure, path)
