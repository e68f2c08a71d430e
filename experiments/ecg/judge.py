"""Nats per sample, and how well the surprise of a beat tells wide ones from others.

Neighbouring samples belong to one beat, and are surprising together: so stretches of
seconds are drawn with replacement, the same for every model, as
`experiments.lab.intervals` draws them.

Nobody's labels: the file has none. A beat is a peak that stands out by 1 mV, and it is
called wide where its width at half that height is more than 1.5 times the median of the
training part's beats. Ventricular beats are wide because they spread through muscle and
not through the conduction system; fusion beats are in between. The rule knows neither
the models nor their surprise. How much of a beat is looked at is chosen on validation,
for each model by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.signal import find_peaks, peak_widths

from experiments import lab
from experiments.data.ecg import HERTZ, UNITS_PER_MV
from experiments.lab import intervals

PROMINENCE = 1.0  # mV: T waves stay below, in the training part as well
REFRACTORY = 0.25  # seconds in which no second beat starts
WIDE = 1.5  # times the median width of training
# Seconds before and after the peak that a beat may be taken to last: its fast part,
# until a wide one is over, until a wide one's T wave is, and with what goes before.
WINDOWS = ((0.1, 0.1), (0.1, 0.25), (0.1, 0.4), (0.25, 0.25))
LONGEST_BEFORE, LONGEST_AFTER = (max(side) for side in zip(*WINDOWS, strict=True))

Window = tuple[float, float]
Runs = Sequence[Float[np.ndarray, " T"]]


def redrawn(
    values: Float[np.ndarray, " T"], starts: Int[np.ndarray, "draws blocks"], block: int
) -> Float[np.ndarray, " draws"]:
    """Returns the mean over the drawn stretches, for each draw.

    >>> redrawn(np.array([1.0, 2.0, 6.0]), np.array([[0, 2]]), 2).tolist()
    [2.5]
    """
    ring = np.concatenate([[0.0], np.concatenate([values, values[:block]]).cumsum()])
    sums = ring[starts + block] - ring[starts]
    return sums.mean(axis=1) / block


def score(
    nats: Mapping[str, Runs],
    reference: str,
    starts: Int[np.ndarray, "draws blocks"],
    block: int,
) -> dict[str, Any]:
    """Returns each model's nats per sample, and how many fewer than the reference's.

    Args:
      nats: Of each sample, one array for each seed of a model.
      reference: The name of the model to compare with.
      starts: Of `intervals.draw_starts`.
      block: Their length.
    """
    mean = {name: np.mean(runs, axis=0) for name, runs in nats.items()}
    found = {}
    for name, runs in nats.items():
        fewer = mean[reference] - mean[name]
        found[name] = {
            "nats": lab.mean_sd([float(run.mean()) for run in runs]),
            "interval": intervals.middle(redrawn(mean[name], starts, block)),
            "fewer": float(fewer.mean()),
            "fewer_interval": intervals.middle(redrawn(fewer, starts, block)),
        }
    return found


def smooth(nats: Float[np.ndarray, " T"], width: int) -> Float[np.ndarray, " T"]:
    """Returns means over `width` samples around each, fewer at the ends.

    >>> smooth(np.array([0.0, 3.0, 0.0, 0.0]), 3).tolist()
    [1.5, 1.0, 1.0, 0.0]
    """
    window = np.ones(width)
    weight = np.convolve(np.ones_like(nats), window, mode="same")
    return np.convolve(nats, window, mode="same") / weight


class Beats(NamedTuple):
    """Beats of a part.

    Attributes:
      at: Index of each peak.
      width: Of the peak at half its prominence, seconds.
    """

    at: Int[np.ndarray, " n"]
    width: Float[np.ndarray, " n"]


def find_beats(units: Int[np.ndarray, " T"]) -> Beats:
    """Returns the peaks that stand out by 1 mV and can be looked at whole."""
    mv = units / UNITS_PER_MV
    at, _ = find_peaks(mv, prominence=PROMINENCE, distance=round(REFRACTORY * HERTZ))
    width = peak_widths(mv, at, rel_height=0.5)[0] / HERTZ
    first = round(LONGEST_BEFORE * HERTZ)
    last = len(mv) - round(LONGEST_AFTER * HERTZ)
    whole = (at >= first) & (at < last)
    return Beats(at[whole], width[whole])


def least_wide(train: Beats) -> float:
    """Returns the width above which a beat is called wide, seconds."""
    if not len(train.width):
        raise ValueError("Expected beats in the training part, found none.")
    return WIDE * float(np.median(train.width))


def surprise(
    nats: Float[np.ndarray, " T"], beats: Beats, window: Window
) -> Float[np.ndarray, " n"]:
    """Returns the mean nats per sample of each beat, seconds around its peak."""
    before, after = (round(side * HERTZ) for side in window)
    return nats[beats.at[:, None] + np.arange(-before, after)].mean(axis=1)


def areas(
    nats: Runs, beats: Beats, wide: Bool[np.ndarray, " n"], window: Window
) -> list[float]:
    """Returns each seed's area: P(a wide beat surprises more than another)."""
    told = [surprise(of, beats, window) for of in nats]
    return [intervals.area(intervals.curve(of_beats, wide)) for of_beats in told]


def choose_window(nats: Runs, beats: Beats, wide: Bool[np.ndarray, " n"]) -> Window:
    """Returns the window with the largest area, mean over seeds; the first of equals.

    Args:
      nats: Of each sample of the validation part, one array for each seed.
      beats: Of that part.
      wide: Which are wide; without both kinds it is the first window.
    """
    if not intervals.both_kinds(wide):
        return WINDOWS[0]
    found = [np.mean(areas(nats, beats, wide, window)) for window in WINDOWS]
    return WINDOWS[int(np.argmax(found))]


def area_interval(
    scores: Float[np.ndarray, " n"],
    wide: Bool[np.ndarray, " n"],
    drawn: Int[np.ndarray, "draws n"],
) -> list[float]:
    """Returns the middle 95% of areas when stretches of beats are drawn.

    Wide beats come in runs, and so does what surprises: so beats in a row are drawn at
    a time.

    Args:
      scores: Of each beat.
      wide: Which are wide.
      drawn: Of `intervals.draw_places`.
    """
    of = intervals.curve(scores, wide)
    both = [i for i in drawn if intervals.both_kinds(wide[i])]
    times = [np.bincount(i, minlength=len(wide)) for i in both]
    return intervals.middle(np.array([intervals.area(of, n) for n in times]))


def rank(
    nats: Runs,
    beats: Beats,
    wide: Bool[np.ndarray, " n"],
    window: Window,
    drawn: Int[np.ndarray, "draws n"],
) -> dict[str, Any]:
    """Returns how well the surprise of a beat ranks wide ones above the others.

    Args:
      nats: Of each sample, one array for each seed; the areas of the seeds are
        averaged, the interval is of the surprise that is their mean.
      beats: Of the same part.
      wide: Which are wide; without both kinds there is no area.
      window: Of `choose_window`.
      drawn: Beats, of `intervals.draw_places`, for the interval.
    """
    if not intervals.both_kinds(wide):
        return {"window": window, "areas": [], "area": None, "interval": None}
    told = np.mean([surprise(of, beats, window) for of in nats], axis=0)
    by_seed = areas(nats, beats, wide, window)
    return {
        "window": window,
        "areas": by_seed,
        "area": float(np.mean(by_seed)),
        "interval": area_interval(told, wide, drawn),
    }
