"""Timing in turn: what is compared is run round after round, A B C A B C."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name")


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


def median_ratio(times: Sequence[float], to: Sequence[float]) -> float:
    """Returns the median over rounds of one's seconds over another's."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def rounded(times: Sequence[float]) -> list[float]:
    """Returns seconds to four digits, which is more than a round repeats."""
    return [float(f"{seconds:.4g}") for seconds in times]
