"""python -m experiments.benchmarks.remat --help.

What do checkpoints along time cost, and what do they save? Times the gradient of a loss
on the final state with `jrnn.bptt(remat=...)` at several lengths, in turn within one
process, and prints time as a ratio to `remat=0` (the median over rounds), and temporary
memory as the compiler plans it.
"""

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

import jrnn
from experiments import lab
from experiments.benchmarks.grid import Cells
from experiments.benchmarks.turns import Prepared, in_turn, prepare, until


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time a gradient for each number of levels of checkpoints."""

    levels: tuple[int, ...] = (0, 1, 2, 99)
    """Levels; 0 must be the first. 99 halves every segment down to one chunk."""
    steps: tuple[int, ...] = (1024, 4096, 16384)
    """Lengths T of the sequence."""
    cells: Cells = ("gru", "lstm")
    """Which cells."""
    batch: int = 8
    """Sequences side by side."""
    size: int = 64
    """Inputs, and hidden units."""
    rounds: int = 7
    """How often each is timed; the order is the same in every round."""
    out: Path = Path("runs/remat.json")
    """Where the results go."""

    def check(self) -> None:
        """Raises SystemExit where there is nothing to compare with."""
        if not self.levels or self.levels[0] != 0:
            raise SystemExit(
                "Expected --levels to begin with 0, the run compared with."
            )


def gradient(settings: Settings, cell: jrnn.Cell, steps: int, levels: int) -> Prepared:
    """Compiles the gradient of a loss on the final state."""
    params = cell.init(jax.random.key(0))
    shape = (steps, settings.batch, settings.size)
    xs = jax.random.normal(jax.random.key(1), shape)

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        method = jrnn.bptt(remat=levels)
        return jrnn.unroll(cell, params, xs, method=method)[0].h.sum()

    return prepare(jax.grad(loss), params, xs)


def compare(settings: Settings, name: str, steps: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of levels, of one cell at one length."""
    cell = getattr(jrnn.cells, name)(settings.size, settings.size)
    ready = [gradient(settings, cell, steps, levels) for levels in settings.levels]
    calls = dict(enumerate(one.run for one in ready))
    seconds = in_turn(calls, until(settings.rounds))
    for i, levels in enumerate(settings.levels):
        ratios = [a / b for a, b in zip(seconds[i], seconds[0], strict=True)]
        yield {
            "cell": name,
            "steps": steps,
            "remat": levels,
            "median_seconds": statistics.median(seconds[i]),
            "ratio": statistics.median(ratios),
            "least_ratio": min(ratios),
            "greatest_ratio": max(ratios),
            "temporary_bytes": ready[i].temporary_bytes or 0,
        }


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results."""
    rows = []
    for name in settings.cells:
        for steps in settings.steps:
            for row in compare(settings, name, steps):
                rows.append(row)
                print(row, flush=True)
    columns = {
        "cell": lambda row: row["cell"],
        "T": lambda row: str(row["steps"]),
        "remat": lambda row: str(row["remat"]),
        "time": lambda row: f"{row['ratio']:.2f}",
        "temporary MiB": lambda row: f"{row['temporary_bytes'] / 2**20:.2f}",
    }
    print(lab.table_of(rows, columns))
    lab.write_results(settings, "benchmarks.remat", rows=rows)
    return 0


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
