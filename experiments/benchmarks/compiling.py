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
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from experiments import lab
from experiments._extras import require
from experiments.benchmarks.grid import Grid, measured, written
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers.jax_peers import (
    JAX_PEERS,
    OURS,
    PEER_MODULES,
    JaxPeer,
    arguments_of,
)
from experiments.benchmarks.peers.problems import (
    PASSES,
    Problem,
    Shape,
    make_problem,
    passes,
)
from experiments.benchmarks.turns import median_ratio, rounded

OTHERS = [name for name in JAX_PEERS if name != OURS]


@dataclasses.dataclass(frozen=True)
class Settings(Grid):
    """Time compiling beside other JAX libraries."""

    systems: Annotated[tuple[str, ...], lab.among(OTHERS)] = ("flax.linen",)
    """Which libraries beside jrnn."""
    rounds: lab.Count = 5
    """How often each is compiled."""
    out: Path = Path("runs/compiling.json")
    """Where the results go."""


def seconds_of(problem: Problem, peer: JaxPeer, which: str) -> tuple[float, float]:
    """Returns seconds of tracing and lowering, and of compiling, from a cold start."""
    params, xs = arguments_of(problem, peer)
    function = passes(peer.forward, jnp.asarray(problem.readout))[which]
    jax.clear_caches()
    with lab.compiled_anew():
        started = time.perf_counter()
        lowered = jax.jit(function).lower(params, xs)
        between = time.perf_counter()
        lowered.compile()
        return between - started, time.perf_counter() - between


def measure(cell: str, shape: Shape, settings: Settings) -> list[dict[str, Any]]:
    """Returns a row for each pass: seconds of every round, and ratios of jrnn's."""
    problem, rows = make_problem(cell, shape), []
    names = [OURS, *(name for name in settings.systems if cell in JAX_PEERS[name][1])]
    peers = {name: JAX_PEERS[name][0](problem) for name in names}
    for which in PASSES:
        traced: dict[str, list[float]] = {name: [] for name in names}
        whole: dict[str, list[float]] = {name: [] for name in names}
        for number in range(settings.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                tracing, compiling = seconds_of(problem, peers[name], which)
                traced[name].append(tracing)
                whole[name].append(tracing + compiling)
        rows.append(
            {
                "cell": cell,
                "shape": list(shape),
                "pass": which,
                "seconds_per_round": {n: rounded(s) for n, s in whole.items()},
                "of_it_tracing": {n: rounded(s) for n, s in traced.items()},
                "ratios": {n: median_ratio(whole[OURS], whole[n]) for n in names[1:]},
            }
        )
    return rows


def table(rows: list[dict[str, Any]], which: str, systems: tuple[str, ...]) -> str:
    """Returns jrnn's seconds and ratios in one pass, and their geometric means."""
    chosen = [row for row in rows if row["pass"] == which]
    lines = []
    for row in chosen:
        own = statistics.median(row["seconds_per_round"][OURS])
        ratios = [row["ratios"].get(name) for name in systems]
        shown = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append([f"{row['cell']} {Shape(*row['shape'])}", f"{own:.2f}", *shown])
    for cell in (*dict.fromkeys(row["cell"] for row in chosen), None):
        means = []
        for name in systems:
            found = [
                row["ratios"][name]
                for row in chosen
                if cell in (None, row["cell"]) and name in row["ratios"]
            ]
            means.append(f"{statistics.geometric_mean(found):.2f}" if found else "")
        lines.append([f"geometric mean, {cell or 'all'}", "", *means])
    return lab.format_table([which, "median seconds", *systems], lines)


def run(settings: Settings) -> int:
    """Measures, prints tables, writes the results."""
    require(*(PEER_MODULES[n] for n in settings.systems if n in PEER_MODULES))
    rows = measured(settings, measure)
    for which in PASSES:
        print("\n" + table(rows, which, settings.systems))
    return written(settings, "benchmarks.compiling", rows, environment_of_peers())


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the benchmark; returns the exit status."""
    return lab.command(Settings, arguments, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
