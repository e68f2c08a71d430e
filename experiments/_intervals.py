"""95% intervals that more than one experiment gives."""

import math

import numpy as np

MIDDLE = (0.025, 0.975)
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
