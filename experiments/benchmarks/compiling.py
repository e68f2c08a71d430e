"""python -m experiments.benchmarks.compiling --help.

How long does it take until a pass can run for the first time? Traces, lowers and
compiles forward passes and training steps (loss, gradients of parameters and inputs) of
jrnn and of other JAX libraries, in turn in one process. Before each, all that JAX
remembers is cleared: whoever came second would find much of it traced already. Every
other round goes the other way about. Printed are medians over rounds: of jrnn's
seconds, and of its ratio to each of the others.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from experiments import lab
from experiments._extras import require
from experiments.benchmarks import grid, turns
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers import jax_peers, problems

OURS = jax_peers.OURS
OTHERS = [name for name in jax_peers.JAX_PEERS if name != OURS]


@dataclasses.dataclass(frozen=True)
class Settings(grid.Grid):
    """Time compiling beside other JAX libraries."""

    systems: Annotated[tuple[str, ...], lab.among(OTHERS)] = ("flax.linen",)
    """Which libraries beside jrnn."""
    rounds: lab.Count = 5
    """How often each is compiled."""
    out: Path = Path("runs/compiling.json")
    """Where the results go."""


def seconds_of(
    problem: problems.Problem, peer: jax_peers.JaxPeer, which: str
) -> tuple[float, float]:
    """Returns seconds of tracing and lowering, and of compiling, from a cold start."""
    params, xs = jax_peers.arguments_of(problem, peer)
    function = problems.passes(peer.forward, jnp.asarray(problem.readout))[which]
    jax.clear_caches()
    with lab.compiled_anew():
        started = time.perf_counter()
        lowered = jax.jit(function).lower(params, xs)
        between = time.perf_counter()
        lowered.compile()
        return between - started, time.perf_counter() - between


def measure(
    cell: str, shape: problems.Shape, settings: Settings
) -> Iterator[dict[str, Any]]:
    """Yields a row for each pass: seconds of every round, and ratios of jrnn's."""
    problem = problems.make_problem(cell, shape)
    peers = {
        name: make(problem)
        for name, (make, cells) in jax_peers.JAX_PEERS.items()
        if name in (OURS, *settings.systems) and cell in cells
    }
    for which in problems.PASSES:
        traced: dict[str, list[float]] = {name: [] for name in peers}
        whole: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(settings.rounds):
            for name in peers if number % 2 == 0 else reversed(peers):
                tracing, compiling = seconds_of(problem, peers[name], which)
                traced[name].append(tracing)
                whole[name].append(tracing + compiling)
        own, others = whole[OURS], [name for name in peers if name != OURS]
        yield {
            "cell": cell,
            "shape": list(shape),
            "pass": which,
            "seconds_per_round": {n: turns.rounded(s) for n, s in whole.items()},
            "of_it_tracing": {n: turns.rounded(s) for n, s in traced.items()},
            "ratios": {n: turns.median_ratio(own, whole[n]) for n in others},
        }


def table(rows: list[dict[str, Any]], which: str, systems: tuple[str, ...]) -> str:
    """Returns jrnn's seconds and ratios in one pass, and their geometric means."""
    chosen = [row for row in rows if row["pass"] == which]
    own = lambda row: statistics.median(row["seconds_per_round"][OURS])
    lines = [
        [grid.label(r), f"{own(r):.2f}", *grid.ratio_line(r, systems)] for r in chosen
    ]
    for cell in (*dict.fromkeys(row["cell"] for row in chosen), None):
        these = [row for row in chosen if cell in (None, row["cell"])]
        means = grid.geometric_means(these, systems, ".2f")
        lines.append([f"geometric mean, {cell or 'all'}", "", *means])
    return lab.format_table([which, "median seconds", *systems], lines)


def run(settings: Settings) -> int:
    """Measures, prints tables, writes the results."""
    modules = jax_peers.PEER_MODULES
    require(*(modules[n] for n in settings.systems if n in modules))
    rows, about = grid.measured(settings, measure), environment_of_peers()
    tables = [table(rows, which, settings.systems) for which in problems.PASSES]
    return grid.written(settings, "benchmarks.compiling", rows, tables, about)


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
