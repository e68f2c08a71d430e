"""Means over seeds, 95% intervals, and the bootstraps that give them.

Neighbours in time resemble each other, so stretches are drawn and not single values,
from a record closed to a ring, in which every value is drawn as often: H. Kuensch 1989,
https://doi.org/10.1214/aos/1176347265; D. Politis and J. Romano 1992, A circular
block-resampling procedure for stationary data, in Exploring the Limits of Bootstrap,
263-270.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

COVER, MIDDLE = 0.95, (0.025, 0.975)
# Standard normal quantile of a 95% interval.
Z_95 = 1.959964


def middle(drawn: np.ndarray) -> list[float]:
    """Returns the middle 95% of bootstrap draws."""
    return np.quantile(drawn, MIDDLE).tolist()


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the interval of a share that was observed in `count` independent trials.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    >>> [round(x, 3) for x in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    z2 = Z_95**2 / count
    centre = (share + z2 / 2) / (1 + z2)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count)) / (1 + z2)
    return centre - half, centre + half


def clopper_pearson(count: float, trials: int) -> list[float]:
    """Returns Clopper and Pearson's 95% interval of a share: never too narrow.

    Between whole counts, which a mean over seeds may be, it is their interpolation by
    the same beta quantiles. https://doi.org/10.1093/biomet/26.4.404

    >>> [round(x, 3) for x in clopper_pearson(5, 100)]
    [0.016, 0.113]
    """
    tail, beta = (1 - COVER) / 2, stats.beta
    low = beta.ppf(tail, count, trials - count + 1) if count > 0 else 0.0
    high = beta.ppf(1 - tail, count + 1, trials - count) if count < trials else 1.0
    return [float(low), float(high)]


def draw_starts(
    count: int, block: int, draws: int, seed: int
) -> Int[np.ndarray, "draws blocks"]:
    """Returns where stretches of `block` values start, as many as fill the record."""
    rng = np.random.default_rng(seed)
    return rng.integers(count, size=(draws, -(-count // block)))


def draw_places(
    count: int, block: int, draws: int, seed: int
) -> Int[np.ndarray, "draws count"]:
    """Returns the places of stretches that start anywhere, wrapped at the end."""
    starts = draw_starts(count, block, draws, seed)
    places = (starts[..., None] + np.arange(block)) % count
    return places.reshape(draws, -1)[:, :count]


class Groups(NamedTuple):
    """Draws of groups of values, such as days or blocks, each whole.

    Attributes:
      of: Which group each value belongs to, (N,), counted from 0.
      times: How often each group is drawn, (draws, groups).
    """

    of: Int[np.ndarray, " N"]
    times: Int[np.ndarray, "draws groups"]

    def means(
        self, values: Float[np.ndarray, " N"], among: Bool[np.ndarray, " N"]
    ) -> Float[np.ndarray, " draws"]:
        """Returns the mean over those among the drawn values, for each draw."""
        own, groups = self.of[among], self.times.shape[1]
        sums = np.bincount(own, values[among], groups)
        counts = np.bincount(own, minlength=groups)
        return (self.times @ sums) / np.maximum(self.times @ counts, 1)


class Curve(NamedTuple):
    """Scores by their ranks, ready to be weighed, and which of them are labelled."""

    rank: Int[np.ndarray, " N"]
    labels: Bool[np.ndarray, " N"]


def both_kinds(labels: Bool[np.ndarray, " N"]) -> bool:
    """Returns whether there are values with a label and others."""
    return bool(labels.any() and not labels.all())


def curve(scores: Float[np.ndarray, " N"], labels: Bool[np.ndarray, " N"]) -> Curve:
    """Ranks scores, equal ones alike.

    Raises:
      ValueError: One of the two kinds is missing.
    """
    if not both_kinds(labels):
        raise ValueError("Expected positions of both kinds for a curve, got one kind.")
    return Curve(np.unique(scores, return_inverse=True)[1], labels)


def area(of: Curve, weights: np.ndarray | None = None) -> float:
    """Returns the area under the ROC curve: P(a labelled value scores above another).

    Args:
      of: The scores; equal ones count half.
      weights: How often each counts; None: once.

    >>> area(curve(np.array([1, 2, 2, 3.0]), np.array([False, False, True, True])))
    0.875
    """
    weights = np.ones(len(of.labels)) if weights is None else weights
    yes = np.bincount(of.rank, weights * of.labels)
    no = np.bincount(of.rank, weights * ~of.labels)
    below = np.cumsum(no) - no / 2
    return float(yes @ below / (yes.sum() * no.sum()))


def mean_sd(values: Sequence[Any]) -> dict[str, Any]:
    """Returns values with the mean and (n - 1) standard deviation of those not None.

    >>> mean_sd([1.0, None, 3.0])["mean"], mean_sd([0.5])["sd"]
    (2.0, 0.0)
    """
    numbers = [None if value is None else float(value) for value in values]
    known = [value for value in numbers if value is not None]
    return {
        "values": numbers,
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else 0.0,
    }
