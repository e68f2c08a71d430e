"""python -m experiments.benchmarks.profiles --help.

Where does a training step spend its time on a CPU, in jrnn and in PyTorch? The step
computes a loss and the gradients of parameters and inputs. Each runs under its own
profiler, `jax.profiler` and `torch.profiler`, and what an operation takes by itself,
without those inside it, is added up over all threads. Printed are shares of that sum:
for PyTorch of its operations by name, for jrnn of matrix products, of loops themselves,
and of everything else.

A profiler costs something at each operation, most where they are short: read shares of
long operations, and times in benchmarks.peers.
"""

import collections
import dataclasses
import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from experiments import lab
from experiments._extras import require
from experiments.benchmarks import grid
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers import problems
from experiments.benchmarks.peers.jax_peers import arguments_of, jrnn_peer
from experiments.benchmarks.peers.torch_peer import torch_peer
from experiments.benchmarks.turns import prepare

SYSTEMS = ("jrnn", "torch")
KINDS = PRODUCTS, LOOPS, REST = "products", "loops", "everything else"
LEAST = 0.01  # share of a named operation; what takes less is counted as the rest


@dataclasses.dataclass(frozen=True)
class Settings(grid.Grid):
    """Profile a training step."""

    cells: grid.Cells = ("lstm",)
    shapes: grid.Shapes = (0, 1, 2, 4, 5, 6)
    systems: Annotated[tuple[str, ...], lab.among(SYSTEMS)] = SYSTEMS
    """Which libraries."""
    steps: lab.Count = 5
    """Training steps under the profiler."""
    out: Path = Path("runs/profiles.json")
    """Where the results go."""


def of_torch(problem: problems.Problem, steps: int) -> dict[str, float]:
    """Returns microseconds of PyTorch's operations by themselves, by name."""
    from torch.profiler import (  # pyright: ignore[reportMissingImports] optional
        ProfilerActivity,
        profile,
    )

    peer = torch_peer(problem)
    peer.train()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            peer.train()
    return {
        event.key: float(event.self_cpu_time_total)
        for event in profiler.key_averages()
        if event.self_cpu_time_total > 0
    }


def of_jrnn(problem: problems.Problem, steps: int) -> dict[str, float]:
    """Returns microseconds of a compiled step's operations by themselves, by kind."""
    peer = jrnn_peer(problem)
    params, xs = arguments_of(problem, peer)
    function = problems.passes(peer.forward, jnp.asarray(problem.readout))[
        problems.TRAINING
    ]
    ready = prepare(function, params, xs)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                ready.run()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    kinds = kinds_of(ready.program.as_text() or "")
    found: dict[str, float] = collections.defaultdict(float)
    for name, own in own_times(event for event in events if "hlo_op" in args(event)):
        found[kinds[name]] += own
    return dict(found)


def args(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what an event of a trace says beside its name."""
    return event.get("args", {})


def own_times(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Returns (operation, microseconds without the operations inside it) of each."""
    threads: dict[Any, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    found: list[tuple[str, float]] = []
    for thread in threads.values():
        around: list[tuple[float, int]] = []  # (end, place in found) of what is open
        for event in sorted(thread, key=lambda event: (event["ts"], -event["dur"])):
            while around and around[-1][0] <= event["ts"]:
                around.pop()
            if around:
                place = around[-1][1]
                found[place] = found[place][0], found[place][1] - event["dur"]
            around.append((event["ts"] + event["dur"], len(found)))
            found.append((args(event)["hlo_op"], event["dur"]))
    return found


def kinds_of(text: str) -> dict[str, str]:
    """Returns the kind of every operation of a compiled program, by name."""
    bodies = {
        name: body
        for name, body in re.findall(r"^%(\S+) \([^\n]*\{\n(.*?)^\}", text, re.M | re.S)
    }
    found = {}
    for name, operation, rest in re.findall(
        r"^\s*(?:ROOT )?%(\S+) = .*? ([\w\-]+)\((.*)$", text, re.M
    ):
        called = re.search(r"calls=%(\S+?)[,\s]", rest + " ")
        inside = bodies.get(called[1], "") if called else ""
        found[name] = _kind(operation, inside)
    return found


def _kind(operation: str, inside: str) -> str:
    if operation == "while":
        return LOOPS
    return PRODUCTS if operation == "dot" or " dot(" in inside else REST


def shares(times: Mapping[str, float]) -> dict[str, float]:
    """Returns the share of each in the sum, the largest first; small ones as the rest.

    >>> shares({"a": 90.0, "b": 9.5, "c": 0.5})
    {'a': 0.9, 'b': 0.095, 'rest': 0.005}
    """
    whole = sum(times.values())
    named = {
        name: time / whole
        for name, time in times.items()
        if time >= LEAST * whole or name in KINDS
    }
    ordered = dict(sorted(named.items(), key=lambda item: -item[1]))
    rest = sum(time for name, time in times.items() if name not in named) / whole
    found = {**ordered, **({"rest": rest} if rest else {})}
    return {name: round(share, 4) for name, share in found.items()}


RUNS: dict[str, Callable[[problems.Problem, int], dict[str, float]]] = {
    "jrnn": of_jrnn,
    "torch": of_torch,
}


def measure(
    cell: str, shape: problems.Shape, settings: Settings
) -> Iterator[dict[str, Any]]:
    """Yields a row for each library."""
    for system in settings.systems:
        times = RUNS[system](problems.make_problem(cell, shape), settings.steps)
        seconds = sum(times.values()) / 1e6
        yield {
            "cell": cell,
            "shape": list(shape),
            "system": system,
            "operation_seconds_per_step": seconds / settings.steps,
            "shares": shares(times),
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the shares, the largest first."""
    own = lambda row: row["operation_seconds_per_step"]
    shown = lambda row: ", ".join(f"{n} {s:.1%}" for n, s in row["shares"].items())
    columns = {
        "training step": lambda row: f"{grid.label(row)} {row['system']}",
        "ms of operations": lambda row: f"{1e3 * own(row):.3g}",
        "share of it": shown,
    }
    return lab.table_of(rows, columns)


def run(settings: Settings) -> int:
    """Profiles, prints a table, writes the results."""
    require(*(name for name in settings.systems if name == "torch"))
    rows, about = grid.measured(settings, measure), environment_of_peers()
    return grid.written(settings, "benchmarks.profiles", rows, [table(rows)], about)


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
