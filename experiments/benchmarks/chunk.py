"""python -m experiments.benchmarks.chunk --help.

Which chunk length of `jrnn.bptt` is fastest, and how many steps should one iteration
of `jrnn.scan` hold? Times a training step (loss, gradients of parameters and inputs)
of each cell at each shape for each of these choices and for what `jrnn.unroll` takes by
itself, in turn within one process, and prints the time as a ratio to that of the last,
the median over rounds. Beside it stand the chunk that was taken and the bytes of one
step's input share, of which the rule makes it.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax

import jrnn
from experiments import lab
from experiments.benchmarks.grid import Cells, Shapes
from experiments.benchmarks.peers.problems import CELLS, GRID, TRAINING, Shape, passes
from experiments.benchmarks.turns import in_turn, median_ratio, rounded
from jrnn.core.chunks import nested_shape
from jrnn.core.method import Sequence
from jrnn.methods.bptt import default_chunk

DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time a training step for each choice."""

    chunks: Annotated[tuple[int, ...], lab.at_least(1)] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Lengths of `jrnn.bptt`'s chunks; those above T are left out."""
    unrolls: Annotated[tuple[int, ...], lab.at_least(1)] = (1, 2, 4, 8)
    """How many steps one iteration of `jrnn.scan`'s loop holds."""
    rounds: lab.Count = 7
    """How often each is timed; the order is the same in every round."""
    cells: Cells = CELLS
    """Which cells."""
    shapes: Shapes = tuple(range(len(GRID)))
    """Which shapes of the grid, by number."""
    out: Path = Path("runs/chunk.json")
    """Where the results go."""


class Prepared(NamedTuple):
    """A training step that takes nothing and is warm.

    Attributes:
      run: Returns when the work is done.
      temporary_bytes: Of the compiled program, as the compiler plans them.
      compile_seconds: Of tracing and compiling.
    """

    run: Callable[[], Any]
    temporary_bytes: int
    compile_seconds: float


def prepare(cell: jrnn.Cell, shape: Shape, method: jrnn.Method | None) -> Prepared:
    """Compiles a training step by a method; None: by that of `jrnn.unroll`."""
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (shape.T, shape.B, shape.I))
    weights = jax.random.normal(jax.random.key(2), (cell.spec.output_size,))
    jax.block_until_ready((params, xs, weights))  # so that compiling is timed alone
    forward = lambda params, xs: jrnn.unroll(cell, params, xs, method=method)[1]
    train = passes(forward, weights)[TRAINING]
    with lab.compiled_anew():
        started = time.perf_counter()
        step = jax.jit(train).lower(params, xs).compile()
        seconds = time.perf_counter() - started
    memory = step.memory_analysis()
    run = lambda: jax.block_until_ready(step(params, xs))
    run()
    return Prepared(run, 0 if memory is None else memory.temp_size_in_bytes, seconds)


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


def compare(settings: Settings, name: str, shape: Shape) -> dict[str, Any]:
    """Returns one row: the times of every choice for one cell at one shape."""
    cell = getattr(jrnn.cells, name)(shape.I, shape.H)
    ready = {
        which: prepare(cell, shape, method)
        for which, method in methods(settings, shape.T).items()
    }
    calls = {which: one.run for which, one in ready.items()}
    enough = lambda rounds, _: rounds >= settings.rounds
    seconds = in_turn(calls, enough, settle=True)
    taken, size = choice(cell, shape)
    ratios = {
        which: median_ratio(times, seconds[DEFAULT]) for which, times in seconds.items()
    }
    return {
        "cell": name,
        "shape": list(shape),
        "default_chunk": taken,
        "bytes_of_one_step": size,
        "seconds_per_round": {
            which: rounded(times) for which, times in seconds.items()
        },
        "ratio_to_default": ratios,
        "temporary_bytes": {w: one.temporary_bytes for w, one in ready.items()},
        "compile_seconds": {w: one.compile_seconds for w, one in ready.items()},
    }


def line(settings: Settings, row: dict[str, Any]) -> list[str]:
    """Returns a row of the table: ratios to the default, empty where not timed."""
    ratios = row["ratio_to_default"]
    shown = [
        f"{ratios[which]:.2f}" if which in ratios else ""
        for which in header(settings)[4:]
    ]
    default = statistics.median(row["seconds_per_round"][DEFAULT])
    return [
        f"{row['cell']} {Shape(*row['shape'])}",
        f"{row['bytes_of_one_step'] / 1024:.0f}",
        f"{row['default_chunk']}",
        f"{1e3 * default:.3g}",
        *shown,
    ]


def header(settings: Settings) -> list[str]:
    """Returns what stands above the columns."""
    chunks = [f"chunk {c}" for c in settings.chunks]
    unrolls = [f"unroll {k}" for k in settings.unrolls]
    return ["cell (T, B, I, H)", "KiB", "default", "ms", *chunks, *unrolls]


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results."""
    rows = []
    for name in settings.cells:
        for number in settings.shapes:
            rows.append(compare(settings, name, GRID[number]))
            print(*line(settings, rows[-1]), flush=True)
            jax.clear_caches()
    print(lab.format_table(header(settings), [line(settings, row) for row in rows]))
    lab.write_results(settings, "benchmarks.chunk", rows=rows)
    return 0


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the benchmark; returns the exit status."""
    return lab.command(Settings, arguments, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
