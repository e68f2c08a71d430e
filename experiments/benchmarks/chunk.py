"""python -m experiments.benchmarks.chunk --help.

Which chunk length of `jrnn.bptt` is fastest? Times a training step (loss, gradients of
parameters and inputs) of each cell at each shape for each chunk length, in turn within
one process, and prints the time as a ratio to that of a chunk of 32 steps, the median
over rounds. The chunk that `jrnn.bptt()` takes by itself is marked; beside it stand the
bytes of one step's input share, of which the rule makes it.
"""

import dataclasses
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import jrnn
from experiments._report import environment, format_table, write_json
from experiments.benchmarks.turns import in_turn
from jrnn._base import Sequence
from jrnn.methods.bptt import default_chunk

CELLS = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm}
# Time, batch, input size, hidden size.
SHAPES = (
    (100, 32, 64, 128),
    (256, 64, 128, 256),
    (1000, 1, 32, 64),
    (1000, 16, 32, 64),
    (128, 64, 512, 512),
)
BASE = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time a training step for each chunk length."""

    chunks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Chunk lengths; those above T are left out."""
    rounds: int = 7
    """How often each is timed; the order is the same in every round."""
    cells: tuple[str, ...] = ("elman", "gru", "lstm")
    """Which cells."""
    out: Path = Path("runs/chunk.json")
    """Where the results go."""


def prepare(cell: jrnn.Cell, shape: tuple[int, ...], chunk: int) -> tuple[Any, int]:
    """Returns a compiled training step that takes nothing, and its temporary bytes."""
    steps, batch, size, _ = shape
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (steps, batch, size))
    weights = jax.random.normal(jax.random.key(2), (cell.spec.output_size,))

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        ys = jrnn.unroll(cell, params, xs, method=jrnn.bptt(chunk=chunk))[1]
        return jnp.tanh(ys @ weights).mean()

    step = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, xs).compile()
    memory = step.memory_analysis()
    run = lambda: jax.block_until_ready(step(params, xs))
    run()
    return run, 0 if memory is None else memory.temp_size_in_bytes


def choice(cell: jrnn.Cell, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the chunk that is taken by default, and the bytes of a step's share."""
    steps, batch, size, _ = shape
    xs = jax.ShapeDtypeStruct((steps, batch, size), "float32")
    params = jax.eval_shape(cell.init, jax.random.key(0))
    share = jax.eval_shape(cell.project, params, xs)
    return default_chunk(cell, params, Sequence(xs)), 4 * share.size // steps


def measure(runs: list[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Returns seconds of each run in each round."""
    calls = dict(enumerate(runs))
    return list(in_turn(calls, lambda done, _: done >= rounds).values())


def main(arguments: list[str]) -> int:
    """Measures, prints a table, writes the results."""
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    rows, table = [], []
    for name in settings.cells:
        for shape in SHAPES:
            chunks = [c for c in settings.chunks if c <= shape[0]]
            cell = CELLS[name](shape[2], shape[3])
            prepared = [prepare(cell, shape, chunk) for chunk in chunks]
            seconds = measure([run for run, _ in prepared], settings.rounds)
            base = seconds[chunks.index(BASE)]
            taken, size = choice(cell, shape)
            ratios = [
                statistics.median(a / b for a, b in zip(one, base, strict=True))
                for one in seconds
            ]
            rows.append(
                {
                    "cell": name,
                    "shape": shape,
                    "chunks": chunks,
                    "median_seconds": [statistics.median(one) for one in seconds],
                    "ratio_to_32": ratios,
                    "default": taken,
                    "bytes_of_one_step": size,
                    "temporary_bytes": [size for _, size in prepared],
                }
            )
            shown = dict(zip(chunks, ratios, strict=True))
            cells = [
                f"{shown[c]:.2f}{'*' if c == taken else ''}" if c in shown else ""
                for c in settings.chunks
            ]
            table.append((f"{name} {shape}", f"{size / 1024:.0f}", *cells))
            print(*table[-1], flush=True)
    header = ("cell (T, B, I, H)", "KiB", *(str(c) for c in settings.chunks))
    print(format_table(header, table))
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "experiment": "benchmarks.chunk",
        "environment": environment(),
        "rounds": settings.rounds,
        "rows": rows,
    }
    write_json(settings.out, content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
