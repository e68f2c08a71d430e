"""Beats, which of them are wide, and how surprising each is.

Nobody's labels: the file has none. A beat is a peak that stands out by 1 mV, and it is
called wide where its width at half that height is more than 1.5 times the median of the
training part's beats. Ventricular beats are wide because they spread through muscle and
not through the conduction system; fusion beats are in between. The rule knows neither
the models nor their surprise. How much of a beat is looked at is chosen on validation,
for each model by itself.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.signal import find_peaks, peak_widths
from scipy.stats import rankdata

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


def choose_window(
    nats: Sequence[Float[np.ndarray, " T"]], beats: Beats, wide: Bool[np.ndarray, " n"]
) -> Window:
    """Returns the window with the largest area, mean over seeds; the first of equals.

    Args:
      nats: Of each sample of the validation part, one array for each seed.
      beats: Of that part.
      wide: Which are wide; without both kinds it is the first window.
    """
    if not both_kinds(wide):
        return WINDOWS[0]
    areas = [
        np.mean([area(surprise(of, beats, window), wide) for of in nats])
        for window in WINDOWS
    ]
    return WINDOWS[int(np.argmax(areas))]


def both_kinds(wide: Bool[np.ndarray, " n"]) -> bool:
    """Returns whether there are wide beats and others."""
    return bool(wide.any() and not wide.all())


def area(scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> float:
    """Returns the probability that a labelled beat scores above one without.

    The area under the ROC curve, by ranks; equal scores count one half.

    >>> area(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    yes = int(labels.sum())
    above = rankdata(scores)[labels].sum() - yes * (yes + 1) / 2
    return float(above / (yes * (len(labels) - yes)))


def area_interval(
    scores: Float[np.ndarray, " n"],
    labels: Bool[np.ndarray, " n"],
    stretch: int,
    draws: int,
    seed: int,
) -> list[float]:
    """Returns the middle 95% of areas when stretches of beats are drawn.

    Wide beats come in runs, and so does what surprises: so `stretch` beats in a row are
    drawn at a time, as in `intervals.draw_places`.
    """
    drawn = intervals.draw_places(len(labels), stretch, draws, seed)
    found = [area(scores[i], labels[i]) for i in drawn if both_kinds(labels[i])]
    return intervals.middle(np.array(found))


def rank(
    nats: Sequence[Float[np.ndarray, " T"]],
    beats: Beats,
    wide: Bool[np.ndarray, " n"],
    window: Window,
    stretch: int,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Returns how well the surprise of a beat ranks wide ones above the others.

    Args:
      nats: Of each sample, one array for each seed; the areas of the seeds are
        averaged, the interval is of the surprise that is their mean.
      beats: Of the same part.
      wide: Which are wide; without both kinds there is no area.
      window: Of `choose_window`.
      stretch: Beats that are drawn in a row, for the interval.
      draws: Of as many beats, for the interval.
      seed: Of these.
    """
    if not both_kinds(wide):
        return {"window": window, "areas": [], "area": None, "interval": None}
    found = [surprise(of, beats, window) for of in nats]
    areas = [area(of, wide) for of in found]
    return {
        "window": window,
        "areas": areas,
        "area": float(np.mean(areas)),
        "interval": area_interval(np.mean(found, axis=0), wide, stretch, draws, seed),
    }
