"""python -m experiments.benchmarks.peers --help.

How long does jrnn take beside PyTorch, Flax, Haiku, Equinox and Keras? Every library
runs the same cells with the same weights, inputs and loss, after a check that outputs
and gradients agree; then they are timed in turn, round after round, in one process;
with `--repeats` all of this several times, each compiled anew. Beside them stands the
time of the matrix products alone, as a guide. Defaults are used throughout. `pip
install -e ".[peers]"` brings all but PyTorch, of which the build for CPUs is meant:
`pip install torch==2.13.0`.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax

from experiments import lab
from experiments._extras import require
from experiments.benchmarks.grid import Grid, measured
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers import memory, report
from experiments.benchmarks.peers.jax_peers import (
    DEVICES,
    FUSED,
    HAIKU,
    JAX_PEERS,
    OURS,
    PEER_MODULES,
    RESET_BEFORE,
)
from experiments.benchmarks.peers.problems import GRID, PASSES, Shape, make_problem
from experiments.benchmarks.peers.running import (
    PLAIN_TORCH,
    SECONDS,
    TORCH,
    compare,
    merge,
)

# What has to be installed for a system, beside what jrnn needs.
MODULES = {**PEER_MODULES, TORCH: "torch", PLAIN_TORCH: "torch"}
NAME = "benchmarks.peers"
EVERY = (*(name for name in JAX_PEERS if name != DEVICES), TORCH, PLAIN_TORCH)


@dataclasses.dataclass(frozen=True)
class Settings(Grid):
    """Time jrnn and its peers side by side."""

    systems: Annotated[tuple[str, ...], lab.among(EVERY)] = EVERY
    """Which libraries; jrnn must be among them."""
    seconds: float = SECONDS
    """For each comparison; at least five rounds are made."""
    repeats: lab.Count = 1
    """How often every comparison is compiled and timed anew, for from one compilation
    to the next the same program differs by a third and more."""
    devices: lab.Count = 1
    """Into how many devices a CPU is cut; above 1 jrnn also runs split over them."""
    memory: Annotated[tuple[int, ...], lab.within(0, len(GRID) - 1)] = ()
    """At which shapes the memory of a training step is measured too, by number."""
    out: Path = Path("runs/peers.json")
    """Where the results go; the figure goes beside it."""

    def check(self) -> None:
        """Raises ValueError where there is nothing to compare with."""
        if OURS not in self.systems:
            raise ValueError(
                "Expected jrnn among --systems: the others are compared to it."
            )


def measure_one(cell: str, shape: Shape, settings: Settings) -> Iterator[Any]:
    """Yields the rows of times of one cell at one shape, compiled so often anew."""
    systems, several = settings.systems, []
    if cell == "gru" and HAIKU in systems:  # which resets before the product
        systems = tuple(dict.fromkeys((*systems, RESET_BEFORE)))
    if settings.devices > 1:
        systems = (OURS, DEVICES, *(name for name in systems if name != OURS))
    for _ in range(settings.repeats):
        problem = make_problem(cell, shape)
        several.append(compare(problem, systems, settings.seconds))
        jax.clear_caches()
    yield from merge(several)


def measure(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of times and those of memory."""
    if settings.devices > 1:
        jax.config.update("jax_num_cpu_devices", settings.devices)
    about = environment_of_peers()
    save = lambda rows: lab.write_results(settings, NAME, about, rows=rows, memory=[])
    rows = measured(
        settings, measure_one, save
    )  # a long run that is stopped keeps some
    alike = [n for n in settings.systems if n not in (RESET_BEFORE, PLAIN_TORCH)]
    usage = [
        memory.of_child(name, cell, GRID[shape])
        for shape in settings.memory
        for cell in settings.cells
        for name in alike
        if name not in JAX_PEERS or cell in JAX_PEERS[name][1]
    ]
    return rows, usage


def run(settings: Settings) -> int:
    """Measures, prints tables, writes the results and a figure."""
    require(*(MODULES[name] for name in settings.systems if name in MODULES))
    rows, usage = measure(settings)
    shown = [report.table(rows, which) for which in PASSES]
    shown += [report.small_table(rows), "\n".join(report.summary(rows))]
    if FUSED in settings.systems:
        shown.append("\n".join(report.summary(rows, FUSED)))
    if settings.devices > 1:
        shown.append("\n".join(report.summary(rows, DEVICES)))
    if usage:
        shown.append(report.memory_table(usage))
    print("\n" + "\n\n".join(shown))
    about = environment_of_peers()
    lab.write_results(settings, NAME, about, rows=rows, memory=usage)
    machine = f"{about['device']}, {about['cores']} cores"
    report.draw(rows, settings.out.with_suffix(".png"), machine)
    print(f"Written to {settings.out}.")
    return 0


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
