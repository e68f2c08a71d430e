"""Errors and coverage on the pairs, with intervals that know of autocorrelation.

Forecasts 5 minutes apart look at nearly the same hour, and their errors are nearly the
same: a binomial interval, which takes each for a trial of its own, is far too narrow.
So whole days are drawn with replacement (a block bootstrap; H. Kuensch, Annals of
Statistics 17 (1989), https://doi.org/10.1214/aos/1176347265), the same days for every
model; a day is that of the time at which the forecast is made.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments import lab
from experiments.glucose.problem import HORIZONS, Pairs, Predicted
from experiments.lab import intervals

CENTRAL = (0.5, 0.9)
LEVELS = tuple(i / 20 for i in range(1, 20))


class Days(NamedTuple):
    """Draws of days, as how often each is drawn.

    Attributes:
      day: Which day each reading belongs to, (N,), counted from 0.
      times: How often each day is drawn, (draws, days).
    """

    day: Int[np.ndarray, " N"]
    times: Int[np.ndarray, "draws days"]


def draw_days(pairs: Pairs, draws: int, seed: int) -> Days:
    """Draws as many days as there are, `draws` times; equal seeds, equal draws."""
    dates = pairs.times.astype("datetime64[D]")
    names, day = np.unique(dates, return_inverse=True)
    rng = np.random.default_rng(seed)
    count = len(names)
    times = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    return Days(day, times)


def by_day(
    days: Days, values: Float[np.ndarray, " N"], due: Bool[np.ndarray, " N"]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns sums over each day's pairs, and their numbers."""
    count = days.times.shape[1]
    sums = np.bincount(days.day[due], values[due], minlength=count)
    return sums, np.bincount(days.day[due], minlength=count)


def redrawn(
    days: Days, values: Float[np.ndarray, " N"], due: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, " draws"]:
    """Returns the mean over the pairs of the drawn days, for each draw."""
    sums, counts = by_day(days, values, due)
    return (days.times @ sums) / np.maximum(days.times @ counts, 1)


def inside(below: np.ndarray, central: float) -> Bool[np.ndarray, "..."]:
    """Returns whether the value that came lies in the central interval.

    >>> inside(np.array([0.04, 0.06, 0.95]), 0.9).tolist()
    [False, True, True]
    """
    tail = (1 - central) / 2
    return (below >= tail) & (below <= 1 - tail)


def squared_errors(predicted: Predicted, pairs: Pairs) -> Float[np.ndarray, "N 2"]:
    """Returns (mg/dL)^2 of each pair; 0 where none is due."""
    return np.where(pairs.due, np.square(predicted.mean - pairs.later), 0)


def mard(predicted: Predicted, pairs: Pairs, h: int) -> float:
    """Returns the mean absolute relative difference, |forecast - reading| / reading.

    The measure by which monitors themselves are compared with blood.
    """
    due = pairs.due[:, h]
    later = pairs.later[due, h]
    return float((np.abs(predicted.mean[due, h] - later) / later).mean())


def redrawn_rmse(
    runs: list[Predicted], pairs: Pairs, days: Days, h: int
) -> Float[np.ndarray, " draws"]:
    """Returns the root mean squared error of each draw, the mean over seeds."""
    due = pairs.due[:, h]
    found = [
        np.sqrt(redrawn(days, squared_errors(run, pairs)[:, h], due)) for run in runs
    ]
    return np.mean(found, axis=0)


def score(runs: list[Predicted], pairs: Pairs, days: Days) -> dict[str, Any]:
    """Returns errors, coverage and nats of a model by horizon.

    Args:
      runs: The forecasts of one model, one for each seed.
      pairs: What they are scored on.
      days: For the intervals.
    """
    return {
        str(horizon): _score_horizon(runs, pairs, days, h)
        for h, horizon in enumerate(HORIZONS)
    }


def _score_horizon(
    runs: list[Predicted], pairs: Pairs, days: Days, h: int
) -> dict[str, Any]:
    due = pairs.due[:, h]
    errors = [squared_errors(run, pairs)[due, h].mean() for run in runs]
    below = np.stack([run.below[:, h] for run in runs])
    drawn = redrawn_rmse(runs, pairs, days, h)
    return {
        "pairs": int(due.sum()),
        "rmse": lab.mean_sd(np.sqrt(errors).tolist()),
        "rmse_interval": intervals.middle(drawn),
        "mard": lab.mean_sd([100 * mard(run, pairs, h) for run in runs]),
        "nats": lab.mean_sd([-float(run.log_density[due, h].mean()) for run in runs]),
        "coverage": {
            f"{100 * c:g}": _coverage(inside(below, c), due, days) for c in CENTRAL
        },
        "calibration": [float(inside(below[:, due], c).mean()) for c in LEVELS],
    }


def _coverage(
    held: Bool[np.ndarray, "seeds N"], due: Bool[np.ndarray, " N"], days: Days
) -> dict[str, Any]:
    """Returns the share in the interval: by seed, as if independent, and by days."""
    shares = lab.mean_sd(held[:, due].mean(axis=1).tolist())
    count = int(due.sum())
    drawn = redrawn(days, held.mean(axis=0), due)
    binomial = shares["mean"] * (1 - shares["mean"]) / count
    return {
        **shares,
        "binomial_interval": intervals.wilson(shares["mean"], count),
        "interval": intervals.middle(drawn),
        # How many pairs weigh as much as one independent trial.
        "pairs_per_trial": float(drawn.var() / binomial) if binomial else None,
    }


def compare(
    runs: list[Predicted], others: list[Predicted], pairs: Pairs, days: Days
) -> dict[str, Any]:
    """Returns how much lower the error is than another model's, on the same days."""
    found = {}
    for h, horizon in enumerate(HORIZONS):
        due = pairs.due[:, h]
        rmse = lambda model, h=h, due=due: np.mean(
            [math.sqrt(squared_errors(run, pairs)[due, h].mean()) for run in model]
        )
        first, second = (redrawn_rmse(m, pairs, days, h) for m in (others, runs))
        found[str(horizon)] = {
            "lower_by": float(rmse(others) - rmse(runs)),
            "interval": intervals.middle(first - second),
        }
    return found
