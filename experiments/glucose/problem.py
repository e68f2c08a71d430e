"""Pairs of a reading and the readings 30 and 60 minutes later; nothing interpolated.

A forecast is made at every reading t, from readings of the same segment up to t. It is
scored where the segment holds a reading exactly 30, or 60, minutes after t: the same
pairs (t, horizon) for every model. In training all that counts differences to the
current value; `Predicted` is in mg/dL again.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from experiments.data._scale import Scale, normalise, scale_of
from experiments.data.glucose import STEP_MINUTES, Segment

HORIZONS = (30, 60)  # minutes
STEPS = tuple(horizon // STEP_MINUTES for horizon in HORIZONS)
DAY_MINUTES = 1440


class Pairs(NamedTuple):
    """The N readings of a part, one segment after the other, and what follows each.

    Attributes:
      times: Of each reading, (N,), datetime64[m].
      now: Readings, mg/dL.
      later: Those 30 and 60 minutes after; 0 where there is none.
      due: Where there is one: these pairs are scored.
    """

    times: np.ndarray
    now: Float[np.ndarray, " N"]
    later: Float[np.ndarray, "N 2"]
    due: Bool[np.ndarray, "N 2"]


class Predicted(NamedTuple):
    """What a model says at each reading; of use where a pair is due.

    Attributes:
      mean: mg/dL.
      below: P(value <= the one that came): uniform if the model is right.
      log_density: Of the value that came, in nats, per mg/dL.
    """

    mean: Float[np.ndarray, "N 2"]
    below: Float[np.ndarray, "N 2"]
    log_density: Float[np.ndarray, "N 2"]


class Scales(NamedTuple):
    """Of the training part alone.

    Attributes:
      level: Mean and deviation of readings.
      step: Root mean square of the difference between neighbours.
      ahead: Root mean square of the difference to the readings 30 and 60 minutes later.
    """

    level: Scale
    step: float
    ahead: Float[np.ndarray, " 2"]


class Part(NamedTuple):
    """Segments that are read whole.

    Attributes:
      segments: In order of time.
      pairs: Their readings, and what is forecast at each.
      scales: Those of the training part.
    """

    segments: Sequence[Segment]
    pairs: Pairs
    scales: Scales


def places(segment: Segment) -> Int[np.ndarray, " n"]:
    """Returns the place of each reading on a grid of 5 minutes.

    A step of 10 minutes leaves a place empty; steps of 3, 4 and 6 minutes are taken
    for 5.

    Raises:
      ValueError: Two readings fall on one place.
    """
    found = np.rint(segment.minutes / STEP_MINUTES).astype(np.int64)
    if (np.diff(found) < 1).any():
        raise ValueError("Expected one reading in 5 minutes, got two; drop one.")
    return found


def on_grid(segment: Segment, columns: np.ndarray) -> np.ndarray:
    """Returns columns (n, ...) laid on the grid (length, ...), 0 where it is empty."""
    at = places(segment)
    grid = np.zeros((at[-1] + 1, *columns.shape[1:]), columns.dtype)
    grid[at] = columns
    return grid


def reading_at(
    segment: Segment, minutes: Int[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Returns readings exactly so many minutes after the first, and where they are."""
    own = segment.minutes
    found = np.minimum(np.searchsorted(own, minutes), len(own) - 1)
    return segment.glucose[found], own[found] == minutes


def ahead(segment: Segment) -> tuple[np.ndarray, np.ndarray]:
    """Returns the readings exactly 30 and 60 minutes after each, and where they are.

    >>> times = np.datetime64("2010-01-01T00:00", "m") + np.array([0, 5, 30, 61])
    >>> later, due = ahead(Segment(times, np.array([100.0, 101.0, 120.0, 90.0])))
    >>> later[:, 0].tolist(), due[:, 0].tolist()
    ([120.0, 0.0, 0.0, 0.0], [True, False, False, False])
    """
    later, due = reading_at(segment, segment.minutes[:, None] + np.array(HORIZONS))
    return np.where(due, later, 0.0), due


def pair(segments: Sequence[Segment]) -> Pairs:
    """Returns all pairs of a part."""
    later, due = zip(*map(ahead, segments), strict=True)
    return Pairs(
        np.concatenate([s.times for s in segments]),
        np.concatenate([s.glucose for s in segments]),
        np.concatenate(later),
        np.concatenate(due),
    )


def scales_of(train: Sequence[Segment]) -> Scales:
    """Returns the scales of the training part."""
    pairs = pair(train)
    steps = np.concatenate([recent(s) for s in train])
    changes = pairs.later - pairs.now[:, None]
    squares = np.where(pairs.due, np.square(changes), 0).sum(axis=0)
    return Scales(
        scale_of(pairs.now),
        math.sqrt(np.square(steps).mean()),
        np.sqrt(squares / pairs.due.sum(axis=0)),
    )


def part_of(segments: Sequence[Segment], scales: Scales) -> Part:
    """Returns a part with its pairs."""
    return Part(segments, pair(segments), scales)


def recent(segment: Segment) -> Float[np.ndarray, " n"]:
    """Returns the change since the reading 5 minutes before; 0 where there is none."""
    change = np.diff(segment.glucose, prepend=segment.glucose[:1])
    return np.where(np.diff(places(segment), prepend=-9) == 1, change, 0.0)


def features(segment: Segment, scales: Scales, clock: bool) -> np.ndarray:
    """Returns what a network reads, (n, 2), or (n, 4) with the time of day.

    The value, its change in the last 5 minutes, and sine and cosine of the time of day:
    all of them are known when the forecast is made.
    """
    level = normalise(scales.level, segment.glucose)
    columns = [level, recent(segment) / scales.step]
    if clock:
        day = segment.times.astype("datetime64[D]")
        minute = (segment.times - day).astype(np.int64)
        angle = 2 * math.pi * minute / DAY_MINUTES
        columns += [np.sin(angle), np.cos(angle)]
    return np.stack(columns, axis=1)


def normal(mean: np.ndarray, sd: np.ndarray, later: np.ndarray) -> Predicted:
    """Returns a Gaussian forecast, scored at what came; mg/dL, (N, 2)."""
    z = (later - mean) / sd
    log_density = -0.5 * (np.square(z) + math.log(2 * math.pi)) - np.log(sd)
    return Predicted(mean, ndtr(z), log_density)


def nats(predicted: Predicted, pairs: Pairs) -> float:
    """Returns the mean of -log density over the pairs: what all choices go by."""
    return -float(predicted.log_density[pairs.due].mean())
