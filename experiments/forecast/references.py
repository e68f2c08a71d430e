r"""What a practitioner compares with: persistence, seasonal naive, autoregressions.

    persistence      y_{t+h} ~ N(y_t, s_h^2)
    seasonal naive   y_{t+h} ~ N(y_u, s_h^2), u one period or more before t + h, u <= t
    AR(k)            z_t = b + sum_j a_j z_{t-j} + e_t, sampled on, steps taken as equal

s_h is the root mean square of the training part's own errors h values ahead. The order
k is chosen on the validation part.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

import jrnn
from experiments.forecast.networks import mean_nats
from experiments.forecast.problem import Origin, Setup, Sheet, Track

ORDERS = (1, 2, 3, 6, 12, 24)


class Autoregression(NamedTuple):
    """AR(k), and the mean nats on validation of every order that was tried."""

    order: int
    params: Any
    nats: dict[str, float]


def fit_autoregression(train: Sheet, valid: Sheet) -> Autoregression:
    """Fits each order that the windows allow, and chooses one on validation."""
    best, found = None, {}
    for order in (k for k in ORDERS if k < int(train.lengths.max())):
        model = jrnn.models.linear_gaussian_markov(order)
        params = model.fit(train.z, train.lengths)
        found[str(order)] = float(mean_nats(model, params, valid))
        if best is None or found[str(order)] < found[str(best[0])]:
            best = order, params
    if best is None:
        raise ValueError("Expected training windows of two values, got shorter ones.")
    return Autoregression(*best, found)


def model_of(line: Autoregression) -> jrnn.models.LinearGaussianMarkov:
    """Returns the model to which the parameters belong."""
    return jrnn.models.linear_gaussian_markov(line.order)


def latest(track: Track, at: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns the value at each place, whatever time is asked for: persistence."""
    return np.broadcast_to(track.values[at], times.shape)


def one_period_before(
    track: Track, at: np.ndarray, times: np.ndarray, period: float, step: float
) -> np.ndarray:
    """Returns the value that was measured whole periods before each time.

    Args:
      track: A series.
      at: The last known place, (n,).
      times: For which values are wanted, (H, n), after those places.
      period: In the unit of times.
      step: Within half of which the value must have been measured; where there is none,
        the latest value is returned.
    """
    now = track.times[at]
    wanted = times - period * np.ceil((times - now) / period)
    after = np.clip(np.searchsorted(track.times, wanted), 1, len(track.times) - 1)
    nearer = wanted - track.times[after - 1] < track.times[after] - wanted
    place = np.minimum(np.where(nearer, after - 1, after), at)
    close = np.abs(track.times[place] - wanted) <= step / 2
    return np.where(close, track.values[place], track.values[at])


def points(
    setup: Setup, track: Track, at: np.ndarray, times: np.ndarray, period: float | None
) -> Float[np.ndarray, "H n"]:
    """Returns point forecasts: seasonal ones, or for None the latest values."""
    if period is None:
        return latest(track, at, times)
    return one_period_before(track, at, times, period, setup.step)


def spread(
    setup: Setup, tracks: Sequence[Track], end: float, period: float | None
) -> Float[np.ndarray, " H"]:
    """Returns the root mean square of the errors before `end`, by horizon.

    A horizon at which nothing was forecast takes the error of the one before it.
    """
    totals, counts = np.zeros(setup.horizon), np.zeros(setup.horizon)
    for one in tracks:
        n = int(np.searchsorted(one.times, end))
        for h in range(1, min(setup.horizon, n - 1) + 1):
            at = np.arange(n - h)
            ahead = points(setup, one, at, one.times[None, h:n], period)[0]
            totals[h - 1] += np.square(one.values[h:n] - ahead).sum()
            counts[h - 1] += len(at)
    found = np.sqrt(totals / np.maximum(counts, 1))
    for h in np.flatnonzero(counts == 0):
        found[h] = found[h - 1] if h else setup.sd
    return np.maximum(found, 1e-9 * setup.sd)


def normal_paths(
    setup: Setup,
    tracks: Sequence[Track],
    origins: Sequence[Origin],
    times: Float[np.ndarray, "H O"],
    draws: int,
    end: float,
    period: float | None,
) -> Float[np.ndarray, "H O draws"]:
    """Returns equally likely values of each forecast, sorted.

    Args:
      setup: The horizon, and the median step.
      tracks: The series.
      origins: Where forecasts are made.
      times: At which values are due.
      draws: How many values.
      end: Errors before this time give the spread.
      period: Of a seasonal forecast; None: persistence.
    """
    quantiles = ndtri((np.arange(draws) + 0.5) / draws)
    sd = spread(setup, tracks, end, period)
    columns = [
        points(setup, tracks[o.track], np.array([o.at]), times[:, i : i + 1], period)
        for i, o in enumerate(origins)
    ]
    centre = np.concatenate(columns, axis=1)
    return centre[..., None] + sd[:, None, None] * quantiles
