"""python -m experiments.benchmarks.variants --help.

What would make `jrnn.unroll` faster on a CPU, and by how much? Times forward passes and
training steps (loss, gradients of parameters and inputs) as they are, and

- compiled for vectors of 512 bits, of which XLA takes half by itself: an option of
  `jax.jit` that users may give;
- with sigmoid(a) = (1 + tanh(a / 2)) / 2, which XLA has as a polynomial;
- forward passes with the batch in two halves, two chains side by side in one loop,
  beside one chain in the same loop.

All take turns in one process, after a check that they compute the same numbers, and
with `--repeats` they are compiled anew, for from one compilation to the next the same
program differs by a third and more. Printed are ratios, the median over rounds.
"""

import dataclasses
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

import jrnn
from experiments import lab
from experiments.benchmarks.grid import Grid, measured, written
from experiments.benchmarks.peers.jax_peers import arguments_of, jrnn_peer
from experiments.benchmarks.peers.problems import (
    INFERENCE,
    PASSES,
    Problem,
    Shape,
    make_problem,
    normwise,
    passes,
)
from experiments.benchmarks.turns import in_turn, median_ratio, rounded

WIDE = {"xla_cpu_prefer_vector_width": 512}
AS_IS, VECTORS, TANH = "as it is", "512 bits", "sigmoid by tanh"
CHAIN, HALVES = "one chain", "two halves"
# Each beside what it is compared with.
PAIRS = {VECTORS: AS_IS, TANH: AS_IS, HALVES: CHAIN}
TOLERANCE = 1e-3  # of the same mathematics in float32, as in benchmarks.peers
FEWEST = 5  # rounds


@dataclasses.dataclass(frozen=True)
class Settings(Grid):
    """Time variants of a pass beside the pass."""

    seconds: float = 3.0
    """For each comparison; at least five rounds are made."""
    repeats: lab.Count = 2
    """How often every comparison is compiled and timed anew."""
    out: Path = Path("runs/variants.json")
    """Where the results go."""


def by_tanh(a: jax.Array) -> jax.Array:
    """The logistic function by way of tanh; a nearly shut gate loses its digits."""
    return 0.5 * jnp.tanh(0.5 * a) + 0.5


def in_chains(problem: Problem, count: int) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns a forward pass of the batch in `count` parts, all of them in one loop."""
    cell = getattr(jrnn.cells, problem.cell)(problem.shape.I, problem.shape.H)

    def forward(params: Any, xs: jax.Array) -> jax.Array:
        us = [cell.project(params, part) for part in jnp.split(xs, count, axis=1)]
        states = [cell.init_state(params, (xs.shape[1] // count,))] * count

        def step(states: Any, us: Any) -> Any:
            pairs = zip(states, us, strict=True)
            states = [cell.advance(params, state, u) for state, u in pairs]
            return states, [state.h for state in states]

        return jnp.concatenate(jax.lax.scan(step, states, us)[1], axis=1)

    return forward


def compiled(problem: Problem, which: str) -> dict[str, Callable[[], Any]]:
    """Returns warm calls of every variant of one pass, by name."""
    peer = jrnn_peer(problem)
    params, xs = arguments_of(problem, peer)
    function = passes(peer.forward, jnp.asarray(problem.readout))[which]

    def compile_anew(function: Any, options: Mapping[str, Any] | None = None) -> Any:
        jax.clear_caches()  # of what was traced with another sigmoid
        program = jax.jit(function).lower(params, xs).compile(dict(options or {}))
        run = lambda: jax.block_until_ready(program(params, xs))
        run()
        return run

    runs = {AS_IS: compile_anew(function), VECTORS: compile_anew(function, WIDE)}
    with mock.patch.object(jax.nn, "sigmoid", by_tanh):
        runs[TANH] = compile_anew(function)
    if which == INFERENCE and problem.shape.B % 2 == 0:
        runs[CHAIN] = compile_anew(in_chains(problem, 1))
        runs[HALVES] = compile_anew(in_chains(problem, 2))
    jax.clear_caches()
    return runs


def check(runs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns how far each is from the first; raises if it is another function."""
    expected, off = jax.tree.leaves(next(iter(runs.values()))()), {}
    for name, run in runs.items():
        off[name] = max(map(normwise, jax.tree.leaves(run()), expected))
        if not off[name] <= TOLERANCE:
            raise ValueError(f"Expected {name} to compute the same, got {off[name]}.")
    return off


def measure(cell: str, shape: Shape, settings: Settings) -> list[dict[str, Any]]:
    """Returns a row for each pass: ratios of each variant to what it varies."""
    problem, rows = make_problem(cell, shape), []
    for which in PASSES:
        kept: dict[str, list[float]] = {}
        off: dict[str, float] = {}
        for _ in range(settings.repeats):
            runs = compiled(problem, which)
            off = check(runs)
            limit = settings.seconds / settings.repeats
            enough = lambda done, spent, limit=limit: done >= FEWEST and spent >= limit
            for name, seconds in in_turn(runs, enough, settle=True).items():
                kept.setdefault(name, []).extend(seconds)
        ratios = {
            name: median_ratio(kept[name], kept[base])
            for name, base in PAIRS.items()
            if name in kept
        }
        rows.append(
            {
                "cell": cell,
                "shape": list(shape),
                "pass": which,
                "seconds_per_round": {
                    name: rounded(times) for name, times in kept.items()
                },
                "ratios": ratios,
                "difference": off,
            }
        )
    return rows


def table(rows: list[dict[str, Any]], which: str) -> str:
    """Returns the ratios of one pass, and their geometric means."""
    chosen = [row for row in rows if row["pass"] == which]
    names = [name for name in PAIRS if any(name in row["ratios"] for row in chosen)]
    lines = []
    for row in chosen:
        median = statistics.median(row["seconds_per_round"][AS_IS])
        ratios = [row["ratios"].get(name) for name in names]
        shown = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        label = f"{row['cell']} {Shape(*row['shape'])}"
        lines.append([label, f"{1e3 * median:.3g}", *shown])
    means = []
    for name in names:
        found = [row["ratios"][name] for row in chosen if name in row["ratios"]]
        means.append(f"{statistics.geometric_mean(found):.3f}")
    lines.append(["geometric mean", "", *means])
    return lab.format_table([which, "ms", *names], lines)


def run(settings: Settings) -> int:
    """Measures, prints tables, writes the results."""
    rows = measured(settings, measure)
    for which in PASSES:
        print("\n" + table(rows, which))
    return written(settings, "benchmarks.variants", rows)


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the benchmark; returns the exit status."""
    return lab.command(Settings, arguments, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
