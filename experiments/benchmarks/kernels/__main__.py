"""python -m experiments.benchmarks.kernels --help.

Does every method give the numbers of a scan on a GPU? How long do the kernels of
`jrnn.fused` take beside `bptt`, `scan`, flax.linen, and cuDNN through PyTorch and
through `jax.experimental.rnn`, and how much memory? And how near does the kernel of
`jrnn.methods.linear_recurrence` come to the speed at which the card copies? All take
turns in one process, after a check that outputs and gradients agree. Cells of 16
sequences and 1,024 steps, which is the size in FlashRNN's figure, and below.

What fails is named in the results, the rest is measured, and the exit code is 1.
Without a GPU it says so, and measures nothing.
"""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from experiments import lab
from experiments.benchmarks.grid import Cells
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.kernels import agreement, report
from experiments.benchmarks.kernels.systems import Rows, guarded, prepare, ready
from experiments.benchmarks.kernels.timing import time_cell, time_linear
from experiments.benchmarks.peers.problems import CELLS, Shape


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time kernels on a GPU beside what else there is."""

    cells: Cells = CELLS
    """Which cells."""
    sizes: tuple[int, ...] = (128, 256, 512)
    """Their units and inputs, in float32."""
    narrow: tuple[int, ...] = (768,)
    """The same in bfloat16."""
    batch: int = 16
    """Sequences side by side."""
    steps: int = 1024
    """Steps of each."""
    lanes: tuple[int, int] = (8, 1536)
    """Batch and units of the linear recurrence."""
    linear_steps: int = 65536
    """Its steps."""
    seconds: float = 3.0
    """How long each group takes turns."""
    threads: int = 12
    """How many programs are compiled at the same time."""
    out: Path = Path("runs/kernels.json")
    """Where the results go; the figure goes beside it."""


def sizes(settings: Settings) -> list[tuple[Shape, str]]:
    """Returns the shapes and types at which every cell is timed."""
    at = lambda size: Shape(settings.steps, settings.batch, size, size)
    wide = [(at(size), "float32") for size in settings.sizes]
    return [*wide, *((at(size), "bfloat16") for size in settings.narrow)]


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results and a figure."""
    if jax.default_backend() != "gpu":
        raise SystemExit(
            f"Expected a GPU, got the backend {jax.default_backend()!r}: there is "
            "nothing to measure here. Run it on a machine with one, with jax[cuda12] "
            "and PyTorch installed; `python -m pytest tests/methods/test_fused.py` "
            "checks the kernels anywhere."
        )
    rows: Rows = []
    environment = environment_of_peers()

    def keep(more: Rows) -> None:
        rows.extend(more)
        lab.write_results(settings, "benchmarks.kernels", environment, rows=rows)

    with ThreadPoolExecutor(settings.threads) as pool:
        compared = {
            case: pool.submit(agreement.agree, case) for case in agreement.COMPARED
        }
        cases = [
            prepare(cell, shape, dtype, pool)
            for cell in settings.cells
            for shape, dtype in sizes(settings)
        ]
        for case, future in compared.items():
            keep(guarded(str(case), future.result))
        for case in cases:
            ready(case)  # nothing is timed beside a compiler
        for case in cases:
            timed = functools.partial(time_cell, case, settings.seconds)
            keep(guarded(case.what, timed))
        linear = settings.linear_steps, settings.lanes, settings.seconds
        keep(guarded("linear", functools.partial(time_linear, *linear)))
    code = report.show(rows)
    print("\n".join(report.bandwidths(rows)))
    machine = jax.devices()[0].device_kind
    report.draw(rows, settings.out.with_suffix(".png"), machine)
    return code


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
