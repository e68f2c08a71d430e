"""Means over seeds, 95% intervals, and the bootstraps that give them.

Neighbours in time resemble each other, so stretches are drawn and not single values,
from a record closed to a ring, in which every value is drawn as often: H. Kuensch 1989,
https://doi.org/10.1214/aos/1176347265; D. Politis and J. Romano 1992, A circular
block-resampling procedure for stationary data, in Exploring the Limits of Bootstrap,
263-270.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
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
