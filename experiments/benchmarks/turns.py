"""What every benchmark does: compile, time in turn, compare.

In turn means round after round, A B C A B C: what slows the machine slows them all.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax

from experiments import lab

Name = TypeVar("Name")


class Prepared(NamedTuple):
    """A compiled function that takes nothing.

    Attributes:
      run: Returns when the work is done.
      temporary_bytes: As the compiler plans them; None: not known.
      compile_seconds: Of tracing and compiling.
      program: The compiled program.
    """

    run: Callable[[], Any]
    temporary_bytes: int | None
    compile_seconds: float
    program: Any


def prepare(
    function: Callable[..., Any],
    *given: Any,
    options: Mapping[str, Any] | None = None,
    warm: bool = True,
) -> Prepared:
    """Compiles a function anew, whatever lies in JAX's cache on disk.

    Args:
      function: What is compiled.
      *given: Its arguments, which are there before compiling is timed.
      options: Of the compiler.
      warm: Whether it is also run once.
    """
    jax.block_until_ready(given)
    with lab.compiled_anew():
        started = time.perf_counter()
        program = jax.jit(function).lower(*given).compile(dict(options or {}))
        seconds = time.perf_counter() - started
    memory = program.memory_analysis()
    run = lambda: jax.block_until_ready(program(*given))
    if warm:
        run()
    planned = None if memory is None else memory.temp_size_in_bytes
    return Prepared(run, planned, seconds, program)


def until(
    fewest: int, seconds: float = 0.0, most: float = math.inf
) -> Callable[[int, float], bool]:
    """Returns when to stop: after so many seconds, within these numbers of rounds."""
    return lambda rounds, spent: (
        rounds >= most or (rounds >= fewest and spent >= seconds)
    )


def in_turn(
    calls: Mapping[Name, Callable[[], Any]],
    enough: Callable[[int, float], bool],
    *,
    settle: bool = False,
) -> dict[Name, list[float]]:
    """Times calls in turn, so that what slows the machine slows them all.

    Args:
      calls: By name; each returns when its work is done.
      enough: (rounds, seconds since the first began) -> whether to stop.
      settle: Whether each is called once more before it is timed, for what the one
        before it has left: its data in the caches, and threads that still turn, as
        PyTorch's do for some milliseconds on a CPU.

    Returns:
      Seconds of each call in each round.
    """
    kept: dict[Name, list[float]] = {name: [] for name in calls}
    began, rounds = time.perf_counter(), 0
    while not enough(rounds, time.perf_counter() - began):
        for name, call in calls.items():
            if settle:
                call()
            started = time.perf_counter()
            call()
            kept[name].append(time.perf_counter() - started)
        rounds += 1
    return kept


def repeatedly(
    make: Callable[[], Mapping[str, Callable[[], Any]]],
    repeats: int,
    fewest: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Makes calls anew and times them in turn, so often; returns all seconds by name.

    Args:
      make: Returns the calls by name, compiled anew.
      repeats: How often.
      fewest: Rounds each time, at least.
      seconds: Of all repeats together.
    """
    kept: dict[str, list[float]] = {}
    for _ in range(repeats):
        enough = until(fewest, seconds / repeats)
        for name, times in in_turn(make(), enough, settle=True).items():
            kept.setdefault(name, []).extend(times)
        jax.clear_caches()
    return kept


def median_ratio(times: Sequence[float], to: Sequence[float]) -> float:
    """Returns the median over rounds of one's seconds over another's."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def rounded(times: Sequence[float]) -> list[float]:
    """Returns seconds to four digits, which is more than a round repeats."""
    return [float(f"{seconds:.4g}") for seconds in times]
