r"""What is modelled: scaled values, and what is known before each of them.

    levels         z_t = (y_t - mean) / sd
    differences    z_t = (y_t - y_{t-1} - mean) / sd

Known beforehand, for every time at which a value is due, is the log of the time since
the value before it, in median steps; and where the series span several days, weeks or
years, sine and cosine of the time of day, week or year. Steps need not be equal, and
nothing is interpolated.

Values before 70% of all times are for training, those up to 85% for choosing, and the
rest is the test part.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.forecast.table import Columns, Series, Table
from jrnn.train.batching import padded_batches

SHARES = (0.70, 0.85)
DAY, WEEK, YEAR = 86_400.0, 604_800.0, 31_556_952.0  # seconds
# A period is read if training holds two of it, and it holds four steps.
PERIODS_NEEDED, STEPS_NEEDED = 2, 4
LEAST = {"training": 50, "validation": 10, "test": 10}


class Setup(NamedTuple):
    """All that a forecast needs beside the network; it is stored with it.

    Attributes:
      columns: Of the table.
      dated: Whether times are dates, in seconds; else numbers.
      step: The median time between neighbours.
      differences: Whether differences of neighbours are modelled.
      mean: Of what is modelled, before it is scaled.
      sd: Its standard deviation.
      periods: Whose phase is read, in the unit of times.
      horizon: How many values a forecast looks ahead.
      history: How many values it reads.
    """

    columns: Columns
    dated: bool
    step: float
    differences: bool
    mean: float
    sd: float
    periods: tuple[float, ...]
    horizon: int
    history: int

    @property
    def inputs(self) -> int:
        """How many numbers are known beforehand."""
        return 1 + 2 * len(self.periods)


class Track(NamedTuple):
    """A series as it is modelled.

    Attributes:
      times: Of each value.
      values: As measured.
      base: What z is added to: the mean level, or the value before.
      z: Scaled.
      inputs: Known beforehand.
    """

    times: Float[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    base: Float[np.ndarray, " n"]
    z: Float[np.ndarray, " n"]
    inputs: Float[np.ndarray, "n k"]


class Cuts(NamedTuple):
    """Where validation and test begin."""

    valid: float
    test: float


class Sheet(NamedTuple):
    """Pieces of tracks side by side, time first.

    Attributes:
      z: (T, N), float32; 0 past a length.
      inputs: (T, N, k), float32.
      counted: Which values count, (T, N).
      lengths: (N,), int32.
    """

    z: Float[Array, "T N"]
    inputs: Float[Array, "T N k"]
    counted: Bool[Array, "T N"]
    lengths: Int[Array, " N"]

    def some(self, index: Int[Array, " b"]) -> "Sheet":
        """Returns some of the pieces."""
        z, inputs, counted = (a[:, index] for a in self[:-1])
        return Sheet(z, inputs, counted, self.lengths[index])


class Origin(NamedTuple):
    """Where a forecast is made: after the value `at` of a track."""

    track: int
    at: int


def cuts_of(table: Table) -> Cuts:
    """Returns where the parts begin.

    Raises:
      ValueError: A part would hold too few values.
    """
    times = np.sort(np.concatenate([one.times for one in table.series]))
    cuts = Cuts(*(float(times[int(share * len(times))]) for share in SHARES))
    counts = np.diff([0, *np.searchsorted(times, cuts), len(times)])
    for (part, least), count in zip(LEAST.items(), counts, strict=True):
        if count < least:
            raise ValueError(
                f"Expected at least {least} values for {part}, got {count} of "
                f"{len(times)}; a table for training has some hundreds of rows."
            )
    return cuts


def setup_of(
    table: Table,
    columns: Columns,
    horizon: int,
    history: int,
    season: float | None,
    *,
    differences: bool,
) -> Setup:
    """Returns what the training part says about scale, steps and periods.

    Args:
      table: All of it; only the training part is looked at.
      columns: Its columns.
      horizon: As in `Setup`.
      history: As in `Setup`.
      season: A period to read, in the unit of times; None: days, weeks, years of dates.
      differences: As in `Setup`.

    Raises:
      ValueError: Too few values, or all are equal.
    """
    cuts = cuts_of(table)
    parts = [before(one, cuts.valid) for one in table.series]
    pairs = [(one.values[:-1], one.values[1:]) for one in parts if len(one.values) > 1]
    if not pairs:
        raise ValueError("Expected a series with two values for training, got none.")
    old, new = map(np.concatenate, zip(*pairs, strict=True))
    levels = np.concatenate([one.values for one in parts])
    if levels.std() == 0:
        raise ValueError(
            f"Expected values that vary in column {columns.value!r}, got only "
            f"{levels[0]:g} in the training part."
        )
    modelled = new - old if differences else levels
    step = float(np.median(table.steps()))
    span = max(one.times[-1] - one.times[0] for one in parts if len(one.times))
    known = (DAY, WEEK, YEAR) if table.dated and season is None else (season,)
    periods = tuple(
        period
        for period in known
        if period is not None
        and (season is not None or span >= PERIODS_NEEDED * period)
        and period >= STEPS_NEEDED * step
    )
    return Setup(
        columns,
        table.dated,
        step,
        differences,
        float(modelled.mean()),
        float(modelled.std()) or 1.0,
        periods,
        horizon,
        history,
    )


def before(series: Series, time: float) -> Series:
    """Returns the part of a series before a time."""
    count = int(np.searchsorted(series.times, time))
    return series._replace(times=series.times[:count], values=series.values[:count])


def inputs_at(
    setup: Setup, times: Float[np.ndarray, "*n"], since: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n k"]:
    """Returns what is known before the values at some times.

    Args:
      setup: Which periods are read.
      times: At which values are due.
      since: The time since the value before each.
    """
    phases = [2 * np.pi * times / period for period in setup.periods]
    columns = [np.log(since / setup.step)]
    columns += [wave(phase) for phase in phases for wave in (np.sin, np.cos)]
    return np.stack(columns, axis=-1)


def track_of(setup: Setup, series: Series) -> Track:
    """Returns a series as it is modelled; of differences the first value has none."""
    times, values = series.times, series.values
    if setup.differences:
        since, base = np.diff(times), values[:-1] + setup.mean
        times, values = times[1:], values[1:]
    else:
        since = np.diff(times, prepend=times[0] - setup.step)
        base = np.full_like(values, setup.mean)
    z = (values - base) / setup.sd
    return Track(times, values, base, z, inputs_at(setup, times, since))


def restored(
    setup: Setup, paths: Float[np.ndarray, "H *n"], last: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "H *n"]:
    """Returns values from paths of z that follow the values `last`."""
    moved = setup.mean + setup.sd * np.asarray(paths, np.float64)
    return last + moved.cumsum(axis=0) if setup.differences else moved


def sheet_of(
    tracks: Sequence[Track], pieces: Sequence[tuple[int, int, int, int]]
) -> Sheet:
    """Lays pieces side by side: (track, from, first that counts, end) each."""
    columns = []
    for which, start, counted, end in pieces:
        one = tracks[which]
        counts = np.arange(start, end) >= counted
        parts = [one.z[start:end, None], one.inputs[start:end], counts[:, None]]
        columns.append(np.concatenate(parts, axis=1))
    longest = max(len(piece) for piece in columns)
    (batch,) = padded_batches(columns, len(columns), (longest,))
    z, inputs, counts = np.split(np.asarray(batch.xs), [1, -1], axis=-1)
    return Sheet(
        jnp.asarray(z[..., 0], jnp.float32),
        jnp.asarray(inputs, jnp.float32),
        jnp.asarray(counts[..., 0] == 1),
        jnp.asarray(batch.lengths),
    )


def windows(
    tracks: Sequence[Track], start: float, end: float, length: int, history: int
) -> Sheet:
    """Cuts what lies between two times into windows.

    Args:
      tracks: All of each.
      start: Values from here on count.
      end: Up to here.
      length: How many values of a window count, at most.
      history: How many values before them it reads, at most.
    """
    pieces = []
    for which, one in enumerate(tracks):
        first, last = (int(np.searchsorted(one.times, time)) for time in (start, end))
        for at in range(first, last, length):
            to = min(at + length, last)
            pieces.append((which, max(0, at - history), at, to))
    return sheet_of(tracks, pieces)


def origins_of(
    setup: Setup, tracks: Sequence[Track], start: float, count: int
) -> list[Origin]:
    """Returns where forecasts are made: all that is forecast lies past `start`.

    Returns:
      At most `count`, evenly spread, in order of time within a track.

    Raises:
      ValueError: No track is long enough.
    """
    found = []
    for which, one in enumerate(tracks):
        first = max(int(np.searchsorted(one.times, start)), 1)
        found += [
            Origin(which, at - 1)
            for at in range(first, len(one.times) - setup.horizon + 1)
        ]
    if not found:
        raise ValueError(
            f"Expected a series with {setup.horizon} values in the test part, the "
            "horizon, got none; lower --horizon, or give more rows."
        )
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[i] for i in chosen]
