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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

import jrnn
from experiments import lab
from experiments.benchmarks import grid, turns
from experiments.benchmarks.peers import problems
from experiments.benchmarks.peers.jax_peers import arguments_of, jrnn_peer
from experiments.lab.errors import normwise

WIDE = {"xla_cpu_prefer_vector_width": 512}
AS_IS, VECTORS, TANH = "as it is", "512 bits", "sigmoid by tanh"
CHAIN, HALVES = "one chain", "two halves"
# Each beside what it is compared with.
PAIRS = {VECTORS: AS_IS, TANH: AS_IS, HALVES: CHAIN}
TOLERANCE = 1e-3  # of the same mathematics in float32, as in benchmarks.peers
FEWEST = 5  # rounds


@dataclasses.dataclass(frozen=True)
class Settings(grid.Grid):
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


def in_chains(
    problem: problems.Problem, count: int
) -> Callable[[Any, jax.Array], jax.Array]:
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


def compiled(problem: problems.Problem, which: str) -> dict[str, Callable[[], Any]]:
    """Returns warm calls of every variant of one pass, by name."""
    peer = jrnn_peer(problem)
    params, xs = arguments_of(problem, peer)
    function = problems.passes(peer.forward, jnp.asarray(problem.readout))[which]

    def compile_anew(function: Any, options: Mapping[str, Any] | None = None) -> Any:
        jax.clear_caches()  # of what was traced with another sigmoid
        return turns.prepare(function, params, xs, options=options).run

    runs = {AS_IS: compile_anew(function), VECTORS: compile_anew(function, WIDE)}
    with mock.patch.object(jax.nn, "sigmoid", by_tanh):
        runs[TANH] = compile_anew(function)
    if which == problems.INFERENCE and problem.shape.B % 2 == 0:
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


def measure(
    cell: str, shape: problems.Shape, settings: Settings
) -> Iterator[dict[str, Any]]:
    """Yields a row for each pass: ratios of each variant to what it varies."""
    problem = problems.make_problem(cell, shape)
    for which in problems.PASSES:
        off: dict[str, float] = {}

        def checked(which: str = which, off: dict[str, float] = off) -> dict[str, Any]:
            runs = compiled(problem, which)
            off.update(check(runs))
            return runs

        kept = turns.repeatedly(checked, settings.repeats, FEWEST, settings.seconds)
        yield {
            "cell": cell,
            "shape": list(shape),
            "pass": which,
            "seconds_per_round": {n: turns.rounded(s) for n, s in kept.items()},
            "ratios": {
                name: turns.median_ratio(kept[name], kept[base])
                for name, base in PAIRS.items()
                if name in kept
            },
            "difference": off,
        }


def table(rows: list[dict[str, Any]], which: str) -> str:
    """Returns the ratios of one pass, and their geometric means."""
    chosen = [row for row in rows if row["pass"] == which]
    names = [name for name in PAIRS if any(name in row["ratios"] for row in chosen)]
    own = lambda row: 1e3 * statistics.median(row["seconds_per_round"][AS_IS])
    lines = [
        [grid.label(r), f"{own(r):.3g}", *grid.ratio_line(r, names)] for r in chosen
    ]
    lines.append(["geometric mean", "", *grid.geometric_means(chosen, names, ".3f")])
    return lab.format_table([which, "ms", *names], lines)


def run(settings: Settings) -> int:
    """Measures, prints tables, writes the results."""
    rows = grid.measured(settings, measure)
    tables = [table(rows, which) for which in problems.PASSES]
    return grid.written(settings, "benchmarks.variants", rows, tables)


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
