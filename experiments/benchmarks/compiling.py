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
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from tqdm import tqdm

from experiments._compiled import compiled_anew
from experiments._extras import require
from experiments._report import format_table, write_results
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers.jax_peers import (
    JAX_PEERS,
    OURS,
    PEER_MODULES,
    JaxPeer,
    arguments_of,
)
from experiments.benchmarks.peers.problems import (
    CELLS,
    GRID,
    PASSES,
    Problem,
    Shape,
    check_choice,
    make_problem,
    passes,
)
from experiments.benchmarks.turns import median_ratio, rounded


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time compiling beside other JAX libraries."""

    cells: tuple[str, ...] = CELLS
    """Which cells."""
    shapes: tuple[int, ...] = tuple(range(len(GRID)))
    """Which shapes of the grid, by number."""
    systems: tuple[str, ...] = ("flax.linen",)
    """Which libraries beside jrnn."""
    rounds: int = 5
    """How often each is compiled."""
    out: Path = Path("runs/compiling.json")
    """Where the results go."""


def seconds_of(problem: Problem, peer: JaxPeer, which: str) -> tuple[float, float]:
    """Returns seconds of tracing and lowering, and of compiling, from a cold start."""
    params, xs = arguments_of(problem, peer)
    function = passes(peer.forward, jnp.asarray(problem.readout))[which]
    jax.clear_caches()
    with compiled_anew():
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
    return format_table([which, "median seconds", *systems], lines)


def main(arguments: list[str]) -> int:
    """Measures, prints tables, writes the results."""
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    try:
        check_choice("cells", settings.cells, CELLS)
        check_choice("shapes", settings.shapes, range(len(GRID)))
        check_choice("systems", settings.systems, [n for n in JAX_PEERS if n != OURS])
        if settings.rounds < 1:
            raise ValueError(f"Expected --rounds of 1 up, got {settings.rounds}.")
        require(*(PEER_MODULES[n] for n in settings.systems if n in PEER_MODULES))
    except (ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = []
    grid = [
        (cell, GRID[number]) for cell in settings.cells for number in settings.shapes
    ]
    for cell, shape in tqdm(grid, unit="comparison"):
        rows += measure(cell, shape, settings)
    for which in PASSES:
        print("\n" + table(rows, which, settings.systems))
    write_results(
        settings.out, "benchmarks.compiling", settings, rows, environment_of_peers()
    )
    print(f"Written to {settings.out}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
