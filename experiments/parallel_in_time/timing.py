"""python -m experiments.parallel_in_time [timing | deer | min | pararnn] --help.

When is it faster to evaluate a recurrence in parallel over time? Times each method of
`jrnn.unroll` that a cell takes, forward and with the gradient of parameters and inputs,
in turn within one process. A method that is parallel in time either beats the methods
that go step by step on the machine at hand, or the table says by how much it loses.
What would need too much memory or time is skipped, and the table says that too.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn
from experiments import lab
from experiments.benchmarks import turns
from experiments.parallel_in_time import timing_report as report
from experiments.parallel_in_time.timing_report import FORWARD, MEASURED, NO_TIME

PASSES = (FORWARD, report.GRADIENT)
# Short runs are repeated until this much time has passed, at most MORE times as often;
# long ones are not begun again after that much.
LEAST_SECONDS, MORE, MOST_SECONDS = 0.2, 10, 4.0
GPU_UNMEASURED = "No GPU was at hand: GPU figures of jrnn are unmeasured here."


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a single measurement may take."""

    rounds: int = 5
    """How often each method is timed, short runs more often; the order is the same in
    every round, and long runs are timed less often."""
    seconds: float = 20.0
    """A run that would take longer is skipped."""
    memory: float = 4.0
    """GiB of temporary arrays; a run that would need more is skipped."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time every method against T and H."""

    cells: tuple[str, ...] = ("min_gru", "lru", "gru", "elman", "diagonal_gru")
    """Which cells."""
    hidden: tuple[int, ...] = (16, 64)
    """Hidden units."""
    steps: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    """Lengths T, from short to long."""
    batch: int = 1
    """Sequences side by side."""
    inputs: int = 16
    """Inputs per step."""
    limits: Limits = Limits()
    """What a single measurement may take."""
    out: Path = Path("runs/parallel_in_time.json")
    """Where the results go; the figure goes beside it."""


@dataclasses.dataclass(frozen=True)
class Deer:
    """The setting of DEER's demonstration: a GRU, 16 sequences of 10,000 steps."""

    hidden: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Hidden units."""
    steps: tuple[int, ...] = (10_000,)
    """Lengths T."""
    batch: int = 16
    """Sequences side by side."""
    inputs: int = 2
    """Inputs per step."""
    limits: Limits = Limits()
    """What a single measurement may take."""
    out: Path = Path("runs/parallel_in_time_deer.json")
    """Where the results go."""


@dataclasses.dataclass(frozen=True)
class Min(Deer):
    """The setting of minGRU and minLSTM: 64 sequences, beside a GRU and an LSTM."""

    hidden: tuple[int, ...] = (64,)
    steps: tuple[int, ...] = (512, 4096)
    batch: int = 64
    inputs: int = 64
    out: Path = Path("runs/parallel_in_time_min.json")


@dataclasses.dataclass(frozen=True)
class Pararnn(Deer):
    """The length of ParaRNN's figures, for cells with a diagonal Jacobian."""

    hidden: tuple[int, ...] = (64, 256)
    steps: tuple[int, ...] = (512,)
    batch: int = 8
    inputs: int = 64
    out: Path = Path("runs/parallel_in_time_pararnn.json")


CELLS = {
    Deer: ("gru",),
    Min: ("min_gru", "gru", "min_lstm", "lstm"),
    Pararnn: ("diagonal_gru", "diagonal_lstm"),
}
LINEAR = ("min_gru", "min_lstm", "lru")


class Prepared(NamedTuple):
    """A compiled run, or why there is none."""

    status: str
    run: Callable[[], Any] | None = None
    compile_seconds: float | None = None
    temporary_bytes: int | None = None


def methods(cell: str, steps: int) -> dict[str, jrnn.Method]:
    """Returns the methods that a cell takes, those that go step by step first."""
    found = {"scan": jrnn.scan(), "bptt": jrnn.bptt()}
    if cell in LINEAR:
        blocks = jrnn.associative(chunk=math.isqrt(steps - 1) + 1)
        return {**found, "associative": jrnn.associative(), report.BLOCKS: blocks}
    if cell in CELLS[Min]:  # the cells that min_gru and min_lstm are compared with
        return found if cell == "lstm" else {**found, "newton": jrnn.newton()}
    return {**found, "newton": jrnn.newton()}


def prepare(
    cell: jrnn.Cell, method: jrnn.Method, which: str, given: Any, limits: Limits
) -> Prepared:
    """Compiles one run.

    Args:
      cell: The cell.
      method: How it is run.
      which: `FORWARD`, all outputs, or `GRADIENT`, of the mean of their tanh.
      given: Parameters and inputs.
      limits: What it may take.

    Returns:
      The compiled run, warm, unless its temporary arrays are too large, or its first
      run took too long.
    """
    show = lambda params, xs: jrnn.unroll(cell, params, xs, method=method)[1]
    loss = lambda params, xs: jnp.tanh(show(params, xs)).mean()
    function = show if which == FORWARD else jax.value_and_grad(loss, (0, 1))
    one = turns.prepare(function, *given, warm=False)
    known = one.compile_seconds, one.temporary_bytes
    if (one.temporary_bytes or 0) > limits.memory * 2**30:
        return Prepared(report.NO_MEMORY, None, *known)
    started = time.perf_counter()
    one.run()
    late = time.perf_counter() - started > limits.seconds
    return Prepared(*((NO_TIME, None) if late else (MEASURED, one.run)), *known)


def measure(
    runs: dict[str, Callable[[], Any]], limits: Limits
) -> list[dict[str, float]]:
    """Returns seconds of every run in each round."""

    def enough(rounds: int, seconds: float) -> bool:
        if rounds and seconds > MOST_SECONDS:
            return True
        many = rounds >= MORE * limits.rounds or seconds >= LEAST_SECONDS
        return rounds >= limits.rounds and many

    kept = turns.in_turn(runs, enough)
    each = zip(*kept.values(), strict=True)
    return [dict(zip(kept, one, strict=True)) for one in each]


def compare(
    cell_name: str, hidden: int, steps: int, settings: Any, expected: dict
) -> list[dict[str, Any]]:
    """Returns the rows of one cell at one size and length.

    Args:
      cell_name: Of `jrnn`'s factory.
      hidden: Hidden units.
      steps: T.
      settings: Of any of this module's commands.
      expected: Seconds per step at shorter lengths, by cell, size, pass and method;
        what was too slow there is infinite. Filled in.
    """
    cell = getattr(jrnn.cells, cell_name)(settings.inputs, hidden)
    shape = (steps, settings.batch, settings.inputs)
    xs = jax.random.normal(jax.random.key(1), shape, jnp.float32)
    given = cell.init(jax.random.key(0), jnp.float32), xs
    rows = []
    for which in PASSES:
        prepared = {}
        for name, method in methods(cell_name, steps).items():
            key = (cell_name, hidden, which, name)
            if expected.get(key, 0.0) * steps > settings.limits.seconds:
                prepared[name] = Prepared(NO_TIME)
            else:
                prepared[name] = prepare(cell, method, which, given, settings.limits)
            if prepared[name].status == NO_TIME:
                expected[key] = math.inf
        runs = {name: p.run for name, p in prepared.items() if p.run is not None}
        rounds = measure(runs, settings.limits) if runs else []
        for name, found in prepared.items():
            row = {"cell": cell_name, "hidden": hidden, "steps": steps, "pass": which}
            rows.append({**row, "method": name, **found._asdict()})
            if rows[-1].pop("run") is not None:
                rows[-1] |= report.summary(name, rounds)
                per_step = rows[-1]["median_seconds"] / steps
                expected[(cell_name, hidden, which, name)] = per_step
    return rows


def run(settings: Any) -> int:
    """Measures, prints tables, writes the results, and for the grid a figure."""
    grid = isinstance(settings, Settings)
    cells = settings.cells if isinstance(settings, Settings) else CELLS[type(settings)]
    preset = "timing" if grid else type(settings).__name__.lower()
    rows: list[dict[str, Any]] = []
    expected: dict[Any, float] = {}
    for cell in cells:
        for hidden in settings.hidden:
            for steps in settings.steps:
                rows += compare(cell, hidden, steps, settings, expected)
                for group in list(report.groups(rows))[-len(PASSES) :]:
                    print(report.progress(group), flush=True)
    for which in PASSES:
        print("\n" + report.table(rows, which))
    found: dict[str, Any] = {"rows": rows}
    if not grid:
        ours = gains(rows, settings)
        found["speed_ups"] = ours
        found["published"] = [p._asdict() for p in report.PUBLISHED[preset]]
        print("\n" + report.published_table(ours, report.PUBLISHED[preset]))
    if report.on_cpu():
        found["note"] = GPU_UNMEASURED
        print(f"\n{GPU_UNMEASURED}")
    lab.write_results(settings, f"parallel_in_time.{preset}", **found)
    if grid:
        report.draw(settings.out.with_suffix(".png"), rows, settings.batch)
    print(f"Written to {settings.out}.")
    return 0


def gains(rows: list[dict[str, Any]], settings: Any) -> list[dict[str, Any]]:
    """Returns speed-ups in the terms of the preset's paper.

    Of `min`, the time of the plain scan of a GRU or an LSTM over that of the fastest
    method of min_gru or min_lstm; elsewhere the time of the plain scan over that of
    Newton's method, of the same cell.
    """
    key = ("cell", "hidden", "steps", "pass", "method")
    measured = [row for row in rows if row["status"] == MEASURED]
    seconds = {tuple(r[k] for k in key): r["median_seconds"] for r in measured}
    found = []
    for own, fast in seconds.items():
        cell, *size, method = own
        minimal, base = cell.startswith("min_"), cell.removeprefix("min_")
        parallel = method in (
            ("associative", report.BLOCKS) if minimal else ("newton",)
        )
        slow = seconds.get((base, *size, "scan"))
        if parallel and slow is not None and (minimal or not isinstance(settings, Min)):
            known = {"against": f"{base}, scan", "speed_up": slow / fast}
            found.append({**dict(zip(key, own, strict=True)), **known})
    return found
