"""python -m experiments.benchmarks.peers --help.

How long does jrnn take beside PyTorch, flax.linen, flax.nnx, Haiku, Equinox and Keras?
Every library runs the same cells with the same weights, inputs and loss, after a check
that outputs and gradients agree; then they are timed in turn, round after round, in one
process; with `--repeats` all of this several times, each compiled anew. Beside them
stands the time of the matrix products alone, as a guide. Defaults are used
throughout. `pip install -e ".[peers]"` brings all but PyTorch, of which the build for
CPUs is meant: `pip install torch==2.13.0`.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import tyro
from tqdm import tqdm

from experiments._extras import require
from experiments._report import write_json
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers import memory, report
from experiments.benchmarks.peers.jax_peers import (
    DEVICES,
    JAX_PEERS,
    OURS,
    PEER_MODULES,
    RESET_BEFORE,
)
from experiments.benchmarks.peers.problems import (
    CELLS,
    GRID,
    PASSES,
    check_choice,
    make_problem,
)
from experiments.benchmarks.peers.running import (
    PLAIN_TORCH,
    SECONDS,
    TORCH,
    compare,
    merge,
)

# What has to be installed for a system, beside what jrnn needs.
MODULES = {**PEER_MODULES, TORCH: "torch", PLAIN_TORCH: "torch"}
EVERY = (*(name for name in JAX_PEERS if name != DEVICES), TORCH, PLAIN_TORCH)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time jrnn and its peers side by side."""

    cells: tuple[str, ...] = CELLS
    """Which cells."""
    shapes: tuple[int, ...] = tuple(range(len(GRID)))
    """Which shapes of the grid, by number."""
    systems: tuple[str, ...] = EVERY
    """Which libraries; jrnn must be among them."""
    seconds: float = SECONDS
    """For each comparison; at least five rounds are made."""
    repeats: int = 1
    """How often every comparison is compiled and timed anew, for from one compilation
    to the next the same program differs by a third and more."""
    devices: int = 1
    """Into how many devices a CPU is cut; above 1 jrnn also runs split over them."""
    memory: tuple[int, ...] = ()
    """At which shapes the memory of a training step is measured too, by number."""
    out: Path = Path("runs/peers.json")
    """Where the results go; the figure goes beside it."""


def check(settings: Settings) -> None:
    """Refuses what cannot be measured.

    Raises:
      ModuleNotFoundError: A library is not installed.
      ValueError: A setting names nothing.
    """
    check_choice("cells", settings.cells, CELLS)
    check_choice("systems", settings.systems, EVERY)
    check_choice("shapes", settings.shapes, range(len(GRID)))
    if settings.memory:
        check_choice("memory", settings.memory, range(len(GRID)))
    for name, number in (("devices", settings.devices), ("repeats", settings.repeats)):
        if number < 1:
            raise ValueError(f"Expected --{name} of 1 or more, got {number}.")
    if OURS not in settings.systems:
        raise ValueError(
            "Expected jrnn among --systems: the others are compared to it."
        )
    require(*(MODULES[name] for name in settings.systems if name in MODULES))


def run(settings: Settings) -> dict[str, Any]:
    """Measures, and returns what goes into the results file."""
    problems = [(c, GRID[s]) for c in settings.cells for s in settings.shapes]
    systems = settings.systems
    if settings.devices > 1:
        jax.config.update("jax_num_cpu_devices", settings.devices)
        systems = (OURS, DEVICES, *(name for name in systems if name != OURS))
    rows: list[dict[str, Any]] = []
    with tqdm(problems, unit="comparison") as bar:
        for cell, shape in bar:
            bar.set_description(f"{cell} {shape}")
            several = []
            for _ in range(settings.repeats):
                problem = make_problem(cell, shape)
                several.append(compare(problem, systems, settings.seconds))
                jax.clear_caches()
            rows += merge(several)
    alike = [n for n in settings.systems if n not in (RESET_BEFORE, PLAIN_TORCH)]
    usage = [
        memory.of_child(name, cell, GRID[shape])
        for shape in settings.memory
        for cell in settings.cells
        for name in alike
        if name not in JAX_PEERS or cell in JAX_PEERS[name][1]
    ]
    return {
        "experiment": "benchmarks.peers",
        "environment": environment_of_peers(),
        "settings": {**dataclasses.asdict(settings), "out": None},
        "rows": rows,
        "memory": usage,
    }


def main(arguments: list[str]) -> int:
    """Measures, prints tables, writes the results and a figure."""
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    try:
        check(settings)
        content = run(settings)
    except (ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = content["rows"]
    for which in PASSES:
        print("\n" + report.table(rows, which))
    print("\n" + report.small_table(rows))
    print("\n" + "\n".join(report.summary(rows)))
    if settings.devices > 1:
        print("\n" + "\n".join(report.summary(rows, DEVICES)))
    if content["memory"]:
        print("\n" + report.memory_table(content["memory"]))
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(settings.out, content)
    device = content["environment"]["device"]
    machine = f"{device}, {content['environment']['cores']} cores"
    report.draw(rows, settings.out.with_suffix(".png"), machine)
    print(f"Written to {settings.out}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
