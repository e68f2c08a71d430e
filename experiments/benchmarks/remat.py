"""python -m experiments.benchmarks.remat --help.

What do checkpoints along time cost, and what do they save? Times the gradient of a loss
on the final state with `jrnn.bptt(remat=...)` at several lengths, in turn within one
process, and prints time as a ratio to `remat=0` (the median over rounds), and temporary
memory as the compiler plans it.
"""

import dataclasses
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import jrnn
from experiments import lab
from experiments.benchmarks.grid import Cells
from experiments.benchmarks.turns import in_turn


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


def prepare(
    settings: Settings, cell: jrnn.Cell, steps: int, levels: int
) -> tuple[Callable[[], Any], int]:
    """Returns a compiled gradient that takes nothing, and its temporary bytes."""
    params = cell.init(jax.random.key(0))
    shape = (steps, settings.batch, settings.size)
    xs = jax.random.normal(jax.random.key(1), shape)

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        method = jrnn.bptt(remat=levels)
        return jrnn.unroll(cell, params, xs, method=method)[0].h.sum()

    step = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    memory = step.memory_analysis()
    run = lambda: jax.block_until_ready(step(params, xs))
    run()
    return run, 0 if memory is None else memory.temp_size_in_bytes


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results."""
    rows = []
    for name in settings.cells:
        for steps in settings.steps:
            cell = getattr(jrnn.cells, name)(settings.size, settings.size)
            ready = [prepare(settings, cell, steps, one) for one in settings.levels]
            calls = dict(enumerate(run for run, _ in ready))
            enough = lambda rounds, _: rounds >= settings.rounds
            seconds = list(in_turn(calls, enough).values())
            for levels, (_, size), times in zip(
                settings.levels, ready, seconds, strict=True
            ):
                ratios = [a / b for a, b in zip(times, seconds[0], strict=True)]
                rows.append(
                    {
                        "cell": name,
                        "steps": steps,
                        "remat": levels,
                        "median_seconds": statistics.median(times),
                        "ratio": statistics.median(ratios),
                        "least_ratio": min(ratios),
                        "greatest_ratio": max(ratios),
                        "temporary_bytes": size,
                    }
                )
                print(rows[-1], flush=True)
    header = ("cell", "T", "remat", "time", "temporary MiB")
    table = [
        (
            row["cell"],
            str(row["steps"]),
            str(row["remat"]),
            f"{row['ratio']:.2f}",
            f"{row['temporary_bytes'] / 2**20:.2f}",
        )
        for row in rows
    ]
    print(lab.format_table(header, table))
    lab.write_results(settings, "benchmarks.remat", rows=rows)
    return 0


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the benchmark; returns the exit status."""
    return lab.command(Settings, arguments, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
