"""python -m experiments.benchmarks.chunk --help.

Which chunk length of `jrnn.bptt` is fastest? And how many steps should one iteration
of `jrnn.scan` hold? Times a training step (loss, gradients of parameters and inputs)
of each cell at each shape for each of these choices and for what `jrnn.unroll` takes by
itself, in turn within one process, and prints the time as a ratio to that of the last,
the median over rounds. Beside it stand the chunk that was taken and the bytes of one
step's input share, of which the rule makes it.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jax

import jrnn
from experiments import lab
from experiments.benchmarks import turns
from experiments.benchmarks.grid import Grid, label, measured, written
from experiments.benchmarks.peers.problems import TRAINING, Shape, passes
from jrnn.core.chunks import nested_shape
from jrnn.core.method import Sequence
from jrnn.methods.bptt import default_chunk

DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Settings(Grid):
    """Time a training step for each choice."""

    chunks: Annotated[tuple[int, ...], lab.at_least(1)] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Lengths of `jrnn.bptt`'s chunks; those above T are left out."""
    unrolls: Annotated[tuple[int, ...], lab.at_least(1)] = (1, 2, 4, 8)
    """How many steps one iteration of `jrnn.scan`'s loop holds."""
    rounds: lab.Count = 7
    """How often each is timed; the order is the same in every round."""
    out: Path = Path("runs/chunk.json")
    """Where the results go."""


def training_step(
    cell: jrnn.Cell, shape: Shape, method: jrnn.Method | None
) -> turns.Prepared:
    """Compiles a training step by a method; None: by that of `jrnn.unroll`."""
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (shape.T, shape.B, shape.I))
    weights = jax.random.normal(jax.random.key(2), (cell.spec.output_size,))
    jax.block_until_ready(weights)  # so that compiling is timed alone
    forward = lambda params, xs: jrnn.unroll(cell, params, xs, method=method)[1]
    return turns.prepare(passes(forward, weights)[TRAINING], params, xs)


def choice(cell: jrnn.Cell, shape: Shape) -> tuple[int, int]:
    """Returns the chunk that runs by default, and the bytes of a step's share."""
    xs = jax.ShapeDtypeStruct((shape.T, shape.B, shape.I), "float32")
    params = jax.eval_shape(cell.init, jax.random.key(0))
    share = jax.eval_shape(cell.project, params, xs)
    size = sum(leaf.size for leaf in jax.tree.leaves(share))
    asked = default_chunk(cell, params, Sequence(xs))
    return nested_shape(shape.T, asked, 0)[-1], 4 * size // shape.T


def methods(settings: Settings, steps: int) -> dict[str, jrnn.Method | None]:
    """Returns what is compared, by name."""
    chunks = {f"chunk {c}": jrnn.bptt(chunk=c) for c in settings.chunks if c <= steps}
    unrolls = {f"unroll {k}": jrnn.scan(unroll=k) for k in settings.unrolls}
    return {DEFAULT: None, **chunks, **unrolls}


def measure(cell: str, shape: Shape, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields one row: the times of every choice for one cell at one shape."""
    made = getattr(jrnn.cells, cell)(shape.I, shape.H)
    found = methods(settings, shape.T).items()
    ready = {which: training_step(made, shape, method) for which, method in found}
    calls = {which: one.run for which, one in ready.items()}
    seconds = turns.in_turn(calls, turns.until(settings.rounds), settle=True)
    taken, size = choice(made, shape)
    to = seconds[DEFAULT]
    yield {
        "cell": cell,
        "shape": list(shape),
        "default_chunk": taken,
        "bytes_of_one_step": size,
        "seconds_per_round": {w: turns.rounded(times) for w, times in seconds.items()},
        "ratio_to_default": {w: turns.median_ratio(s, to) for w, s in seconds.items()},
        "temporary_bytes": {w: one.temporary_bytes or 0 for w, one in ready.items()},
        "compile_seconds": {w: one.compile_seconds for w, one in ready.items()},
    }
    jax.clear_caches()


def table(settings: Settings, rows: list[dict[str, Any]]) -> str:
    """Returns ratios to the default, empty where a choice was not timed."""
    default = lambda row: statistics.median(row["seconds_per_round"][DEFAULT])
    columns: dict[str, Callable[[Any], str]] = {
        "cell (T, B, I, H)": label,
        "KiB": lambda row: f"{row['bytes_of_one_step'] / 1024:.0f}",
        "default": lambda row: f"{row['default_chunk']}",
        "ms": lambda row: f"{1e3 * default(row):.3g}",
    }
    longest = max(row["shape"][0] for row in rows)
    for name in [n for n in methods(settings, longest) if n != DEFAULT]:
        columns[name] = lambda row, name=name: (
            f"{row['ratio_to_default'][name]:.2f}"
            if name in row["ratio_to_default"]
            else ""
        )
    return lab.table_of(rows, columns)


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results."""
    rows = measured(settings, measure)
    return written(settings, "benchmarks.chunk", rows, [table(settings, rows)])


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
