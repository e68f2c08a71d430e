"""Errors, lags and coverage on the pairs, and one day of the test part.

Forecasts 5 minutes apart look at nearly the same hour, and their errors are nearly the
same: a binomial interval, which takes each for a trial of its own, is far too narrow.
So whole days are drawn with replacement (a block bootstrap; H. Kuensch, Annals of
Statistics 17 (1989), https://doi.org/10.1214/aos/1176347265), the same days for every
model; a day is that of the time at which the forecast is made.

A forecast of time u that is made at u - h may look good in a plot and only repeat the
reading it was made at: persistence does nothing else, and lags by all of h. So each
forecast of u is held against the readings at u, u - 5, ..., u - h minutes. The lag is
the shift with the least error; 0 is a forecast in time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from experiments import lab
from experiments.data.glucose import REPORTED, STEP_MINUTES, Segment
from experiments.glucose.models import Entrant, distributions, quantile
from experiments.glucose.problem import HORIZONS, Pairs, Part, Predicted, reading_at
from experiments.lab import intervals
from experiments.lab.intervals import Groups

CENTRAL = (0.5, 0.9)
LEVELS = tuple(i / 20 for i in range(1, 20))
# Which horizon of a day is shown, and the tails that a central 90% interval leaves.
SHOWN, TAILS = 0, (0.05, 0.95)
MINUTES_PER_HOUR = 60


def by_horizon(values: Iterable[Any]) -> dict[str, Any]:
    """Returns one value for each horizon, by its minutes."""
    return dict(zip(map(str, HORIZONS), values, strict=True))


def draw_days(pairs: Pairs, draws: int, seed: int) -> Groups:
    """Draws as many days as there are, `draws` times; equal seeds, equal draws."""
    dates = pairs.times.astype("datetime64[D]")
    names, day = np.unique(dates, return_inverse=True)
    rng, count = np.random.default_rng(seed), len(names)
    return Groups(day, rng.multinomial(count, np.full(count, 1 / count), size=draws))


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


def rmse(runs: list[Predicted], pairs: Pairs, h: int) -> list[float]:
    """Returns the root mean squared error of each seed."""
    squares = [squared_errors(run, pairs)[pairs.due[:, h], h].mean() for run in runs]
    return np.sqrt(squares).tolist()


def redrawn_rmse(
    runs: list[Predicted], pairs: Pairs, days: Groups, h: int
) -> Float[np.ndarray, " draws"]:
    """Returns the root mean squared error of each draw, the mean over seeds."""
    due = pairs.due[:, h]
    squares = [days.means(squared_errors(run, pairs)[:, h], due) for run in runs]
    return np.mean(np.sqrt(squares), axis=0)


def score(runs: list[Predicted], pairs: Pairs, days: Groups) -> dict[str, Any]:
    """Returns errors, coverage and nats of a model by horizon.

    Args:
      runs: The forecasts of one model, one for each seed.
      pairs: What they are scored on.
      days: For the intervals.
    """
    horizons = range(len(HORIZONS))
    return by_horizon(_score_horizon(runs, pairs, days, h) for h in horizons)


def _score_horizon(
    runs: list[Predicted], pairs: Pairs, days: Groups, h: int
) -> dict[str, Any]:
    due = pairs.due[:, h]
    below = np.stack([run.below[:, h] for run in runs])
    return {
        "pairs": int(due.sum()),
        "rmse": lab.mean_sd(rmse(runs, pairs, h)),
        "rmse_interval": intervals.middle(redrawn_rmse(runs, pairs, days, h)),
        "mard": lab.mean_sd([100 * mard(run, pairs, h) for run in runs]),
        "nats": lab.mean_sd([-float(run.log_density[due, h].mean()) for run in runs]),
        "coverage": {
            f"{100 * c:g}": _coverage(inside(below, c), due, days) for c in CENTRAL
        },
        "calibration": [float(inside(below[:, due], c).mean()) for c in LEVELS],
    }


def _coverage(
    held: Bool[np.ndarray, "seeds N"], due: Bool[np.ndarray, " N"], days: Groups
) -> dict[str, Any]:
    """Returns the share in the interval: by seed, as if independent, and by days."""
    shares = lab.mean_sd(held[:, due].mean(axis=1).tolist())
    count = int(due.sum())
    drawn = days.means(held.mean(axis=0), due)
    binomial = shares["mean"] * (1 - shares["mean"]) / count
    return {
        **shares,
        "binomial_interval": intervals.wilson(shares["mean"], count),
        "interval": intervals.middle(drawn),
        # How many pairs weigh as much as one independent trial.
        "pairs_per_trial": float(drawn.var() / binomial) if binomial else None,
    }


def compare(
    runs: list[Predicted], others: list[Predicted], pairs: Pairs, days: Groups
) -> dict[str, Any]:
    """Returns how much lower the error is than another model's, on the same days."""
    found = []
    for h in range(len(HORIZONS)):
        first, second = (np.mean(rmse(m, pairs, h)) for m in (others, runs))
        drawn = [redrawn_rmse(m, pairs, days, h) for m in (others, runs)]
        interval = intervals.middle(drawn[0] - drawn[1])
        found.append({"lower_by": float(first - second), "interval": interval})
    return by_horizon(found)


def readings_before(
    segments: Sequence[Segment], horizon: int
) -> tuple[Float[np.ndarray, "S N"], Bool[np.ndarray, " N"]]:
    """Returns readings 0, 5, ... minutes before what is forecast, and where all are.

    >>> times = np.datetime64("2010-01-01T00:00", "m") + np.array([0, 5, 10, 20])
    >>> found, known = readings_before([Segment(times, np.arange(4.0))], 10)
    >>> found[:, 0].tolist(), known.tolist()
    ([2.0, 1.0, 0.0], [True, False, False, False])
    """
    ahead = horizon - np.arange(0, horizon + 1, STEP_MINUTES)
    found = [reading_at(s, s.minutes + ahead[:, None]) for s in segments]
    columns, known = (np.concatenate(a, axis=1) for a in zip(*found, strict=True))
    return columns, np.all(known, axis=0)


def lags(runs: list[Predicted], segments: Sequence[Segment]) -> dict[str, Any]:
    """Returns by horizon each seed's lag in minutes, and the errors by shift, mg/dL.

    Args:
      runs: Forecasts of one model, one for each seed.
      segments: The part that they are of.
    """
    found = {}
    for h, horizon in enumerate(HORIZONS):
        before, known = readings_before(segments, horizon)
        errors = [
            np.sqrt(np.square(run.mean[known, h] - before[:, known]).mean(axis=1))
            for run in runs
        ]
        found[str(horizon)] = {
            "lag": lab.mean_sd([STEP_MINUTES * int(e.argmin()) for e in errors]),
            "rmse_by_shift": np.mean(errors, axis=0).tolist(),
        }
    return found


def fullest_day(times: np.ndarray) -> np.datetime64:
    """Returns the date with most readings, the first of them where there are several.

    >>> times = np.array(["2010-01-01T23:00", "2010-01-02T01:00", "2010-01-02T02:00"])
    >>> str(fullest_day(times.astype("datetime64[m]")))
    '2010-01-02'
    """
    dates, counts = np.unique(times.astype("datetime64[D]"), return_counts=True)
    return dates[counts.argmax()]


def show_day(entrant: Entrant, params: Any, part: Part) -> dict[str, Any]:
    """Returns readings and forecasts of a day, of the first seed.

    The monitor shows 40 for all that is lower, 400 for all that is higher: so ends of
    intervals beyond are drawn there.

    Args:
      entrant: The network.
      params: Its parameters, (seeds, ...) each leaf.
      part: The test part.
    """
    pairs = part.pairs
    date = fullest_day(pairs.times)
    own = pairs.times.astype("datetime64[D]") == date
    first = jax.tree.map(lambda a: a[:1], params)
    predicted = distributions(entrant, first, part)
    predicted = jax.tree.map(lambda a: a[0][own], predicted)
    now, scale = pairs.now[own], part.scales.ahead[SHOWN]
    in_units = lambda change: (now + scale * np.asarray(change)[:, SHOWN]).tolist()
    low, high = (quantile(predicted, p) for p in TAILS)
    minutes = (pairs.times[own] - date).astype("timedelta64[m]").astype(np.int64)
    return {
        "date": str(date),
        "horizon": HORIZONS[SHOWN],
        "hours": (minutes / MINUTES_PER_HOUR).tolist(),
        "now": now.tolist(),
        "mean": in_units(predicted.mean()),
        "low": np.clip(in_units(low), *REPORTED).tolist(),
        "high": np.clip(in_units(high), *REPORTED).tolist(),
    }
