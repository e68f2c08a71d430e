"""A continuous glucose monitor, one person, March to October 2010: mg/dL every 5 min.

The sensor was off 181 times for more than 10 minutes. There the series is cut, and
nothing is interpolated: what is left are segments of unequal length, each in order of
time. Three things about the clock, found in the file:

- Some 16 hours from 28 May, 21:59, on stand twice: a second stream of readings, of
  almost the same sensor current but another calibration, lies between those of the
  first. A reading is left out if it stands less than 5 minutes after one that is kept
  and another stands exactly 5 minutes after that one; and if its time stamp is that of
  the reading before it, as happens three times.
- What is left is 5 minutes apart within a segment, but for 6 steps of 10 minutes and a
  few from 3 to 6: whoever looks 30 minutes ahead should look at `minutes`, not count.
- The clock is never set back, and no hour is missing at the night of 28 March, when
  clocks changed in Europe; those of America did so before the first and after the last
  reading. So the times are those of one clock, whichever it was.

The monitor reports 40 to 400 mg/dL: what lies beyond is told as 40 or 400.
"""

import csv
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from experiments.data._parts import in_words
from experiments.data._wheel import WheelFile, unzipped

WHEEL = WheelFile(
    "The glucose readings",
    "bokeh_sampledata==2026.1",
    "bokeh_sampledata/_data/CGM.csv.gz",
    "91fdad8325541a4487d88cb59b2fc9f6ed821c7c01eaabed0606bbb7089be8de",
    "public domain (one anonymous donor), by the wheel's own list of licences",
)
STEP_MINUTES = 5
# Longer steps than this part two segments.
GAP_MINUTES = 10
REPORTED = (40, 400)
SPLIT_PERCENT = (70, 15, 15)
# 3 hours: a meal, or an injection, is over, and the longest look ahead is 1 hour.
BETWEEN_PARTS_MINUTES = 180
UNIX_EPOCH = np.datetime64("1970-01-01T00:00", "m")


class Segment(NamedTuple):
    """Readings without a gap.

    Attributes:
      times: Local time of each reading, (n,), datetime64[m], increasing.
      glucose: mg/dL, (n,).
    """

    times: np.ndarray
    glucose: Float64[np.ndarray, " n"]

    @property
    def minutes(self) -> np.ndarray:
        """Minutes since the first reading, (n,): mostly 0, 5, 10, ..."""
        return (self.times - self.times[0]).astype(np.int64)


class Glucose(NamedTuple):
    """Segments in order of time, in their parts.

    Attributes:
      train: Segments to fit to; `jrnn.train.batching.padded_batches` pads them.
      valid: Segments to choose by.
      test: Segments to report.
      card: What a reader must know of the data.
    """

    train: list[Segment]
    valid: list[Segment]
    test: list[Segment]
    card: dict[str, object]


def load() -> Glucose:
    """Returns the readings, the same on every run.

    Raises:
      ModuleNotFoundError: The package that holds them is not installed.
      ValueError: The file is missing, or is not the expected one.
    """
    return parse(unzipped(WHEEL).decode("utf-8"))


def parse(text: str) -> Glucose:
    """Reads a table with the columns datetime and glucose.

    Raises:
      ValueError: Times out of order, or readings that are none of the monitor's.
    """
    rows = list(csv.DictReader(text.splitlines()))
    times = np.array([row["datetime"].replace(" ", "T") for row in rows]).astype(
        "datetime64[m]"
    )
    glucose = np.array([row["glucose"] for row in rows], np.float64)
    low, high = REPORTED
    if not ((glucose >= low) & (glucose <= high)).all():
        raise ValueError(f"Expected readings from {low} to {high} mg/dL.")
    minutes = (times - UNIX_EPOCH).astype(np.int64)
    if (np.diff(minutes) < 0).any():
        raise ValueError("Expected times in order, got one before its predecessor.")
    kept = first_stream(minutes)
    segments = at_gaps(Segment(times[kept], glucose[kept]))
    parts = split(segments)
    return Glucose(*parts, _card(glucose, minutes, kept, segments, parts))


def first_stream(minutes: np.ndarray) -> np.ndarray:
    """Returns which readings to keep, (n,), without those of a second stream.

    >>> first_stream(np.array([0, 4, 5, 9, 10, 14, 19])).tolist()
    [True, False, True, False, True, True, True]
    """
    stamps = set(minutes.tolist())
    kept = np.ones(len(minutes), bool)
    last = minutes[0]
    for i in range(1, len(minutes)):
        following = last + STEP_MINUTES
        between = minutes[i] < following and following in stamps
        kept[i] = minutes[i] > last and not between
        last = minutes[i] if kept[i] else last
    return kept


def at_gaps(whole: Segment) -> list[Segment]:
    """Returns the pieces between steps of more than 10 minutes."""
    cuts = 1 + np.flatnonzero(np.diff(whole.times).astype(np.int64) > GAP_MINUTES)
    pieces = zip(*(np.split(column, cuts) for column in whole), strict=True)
    return [Segment(*piece) for piece in pieces]


def split(
    segments: list[Segment],
) -> tuple[list[Segment], list[Segment], list[Segment]]:
    """Returns whole segments for training, validation and test, one after the other.

    A part ends with the segment that brings it to its share of all readings. The next
    begins 3 hours after: what the monitor told in between belongs to no part.

    Raises:
      ValueError: Segments that are too few for that.
    """
    ends = np.cumsum([len(segment.times) for segment in segments])
    shares = np.cumsum(SPLIT_PERCENT[:2]) * ends[-1] / 100
    cuts = [1 + int(np.searchsorted(ends, share)) for share in shares]
    parts = [segments[: cuts[0]], segments[cuts[0] : cuts[1]], segments[cuts[1] :]]
    for before, part in zip(parts, parts[1:], strict=False):
        if before:
            first = before[-1].times[-1] + np.timedelta64(BETWEEN_PARTS_MINUTES, "m")
            late = [Segment(*(c[s.times >= first] for c in s)) for s in part]
            part[:] = [segment for segment in late if len(segment.times)]
    if not all(parts):
        raise ValueError(
            f"Expected segments for three parts, {BETWEEN_PARTS_MINUTES} minutes "
            f"apart, got {len(segments)} segments in all."
        )
    return parts[0], parts[1], parts[2]


def _card(
    glucose: np.ndarray,
    minutes: np.ndarray,
    kept: np.ndarray,
    segments: list[Segment],
    parts: tuple[list[Segment], ...],
) -> dict[str, object]:
    sizes = [len(segment.times) for segment in segments]
    steps = np.concatenate([np.diff(s.times).astype(np.int64) for s in segments])
    known, counts = np.unique(steps, return_counts=True)
    names = ("train", "valid", "test")
    return {
        "name": "glucose",
        **WHEEL.card(),
        "units": "mg/dL, whole numbers; 40 and 400 also stand for what lies beyond",
        "sampling": f"{STEP_MINUTES} minutes",
        "length": int(kept.sum()),
        "read": len(kept),
        "repeated_time": int((np.diff(minutes) == 0).sum()),
        "second_stream": int((~kept).sum() - (np.diff(minutes) == 0).sum()),
        "at_limits": int(np.isin(glucose[kept], REPORTED).sum()),
        "steps_by_minutes": {
            str(k): int(n) for k, n in zip(known, counts, strict=True)
        },
        "segments": len(segments),
        "shortest": min(sizes),
        "longest": max(sizes),
        "split": (
            f"by time, whole segments, {in_words(SPLIT_PERCENT)} percent of "
            f"readings, {BETWEEN_PARTS_MINUTES} minutes between parts left out"
        ),
        **{k: sum(len(s.times) for s in p) for k, p in zip(names, parts, strict=True)},
        "segments_by_part": {k: len(p) for k, p in zip(names, parts, strict=True)},
        "times": {
            k: f"{p[0].times[0]} to {p[-1].times[-1]}"
            for k, p in zip(names, parts, strict=True)
        },
    }
