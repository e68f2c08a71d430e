"""How good forecasts are: nats, intervals, calibration, and whether a mean is forecast.

Days follow each other in calm and in storm, and the stocks fall together: so intervals
are those of a circular block bootstrap, which draws whole stretches of days with all
stocks on them, as `experiments.lab.intervals` has it. Differences are paired: both
models are scored on the same drawn days.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from experiments import lab
from experiments.data._scale import Scale, normalise
from experiments.lab import intervals
from experiments.stocks.forecasts import Forecast

LEVELS = (0.01, 0.05)
BINS = 20


def daily(forecasts: Sequence[Forecast], part: slice) -> Float[np.ndarray, " days"]:
    """Returns nats of each day, mean over stocks and seeds."""
    return -np.mean([f.log_density[part] for f in forecasts], axis=(0, 2))


def likelihood(
    forecasts: Sequence[Forecast],
    references: Mapping[str, Forecast],
    part: slice,
    drawn: Int[np.ndarray, "draws days"],
) -> dict[str, Any]:
    """Returns nats per stock and day, over seeds, and less those of each reference.

    Args:
      forecasts: One for each seed.
      references: What they are compared with: less is below 0 where they are better.
      part: The days that count.
      drawn: Of `intervals.draw_places`, counted from the first of them.
    """
    own, less = daily(forecasts, part), {}
    for name, reference in references.items():
        gap = own - daily([reference], part)
        drawn_gaps = gap[drawn].mean(axis=1)
        less[name] = {
            "mean": float(gap.mean()),
            "interval": intervals.middle(drawn_gaps),
        }
    return {
        "nats": lab.mean_sd([-f.log_density[part].mean() for f in forecasts]),
        "nats_interval": intervals.middle(own[drawn].mean(axis=1)),
        "nats_by_stock": np.mean(
            [-f.log_density[part].mean(axis=0) for f in forecasts], axis=0
        ).tolist(),
        "less": less,
    }


def calibration(forecasts: Sequence[Forecast], part: slice) -> dict[str, Any]:
    """Returns how the probability integral transform is spread, over seeds.

    A return is below the value-at-risk of level p, the forecast's p-quantile, exactly
    where its transform is below p.

    Returns:
      For each level the share of such returns and its binomial interval, in which the
      level should lie; the histogram, its mean count in each bin; and the largest
      distance of the transform's distribution from the uniform one.
    """
    pits = [f.pit[part].ravel() for f in forecasts]
    trials, risk = pits[0].size, {}
    for level in LEVELS:
        counts = [int((pit < level).sum()) for pit in pits]
        low, high = intervals.clopper_pearson(float(np.mean(counts)), trials)
        risk[f"{level:g}"] = {
            "counts": counts,
            "share": float(np.mean(counts)) / trials,
            "interval": [low, high],
            "covered": bool(low <= level <= high),
        }
    bins = [np.histogram(pit, BINS, (0.0, 1.0))[0] for pit in pits]
    distances = [stats.kstest(pit, "uniform").statistic for pit in pits]
    return {
        "trials": trials,
        "value_at_risk": risk,
        "pit_histogram": np.mean(bins, axis=0).tolist(),
        "distance_from_uniform": lab.mean_sd(distances),
    }


def mean_forecast(
    forecasts: Sequence[Forecast],
    returns: np.ndarray,
    scale: Scale,
    part: slice,
    drawn: Int[np.ndarray, "draws days"],
) -> dict[str, Any]:
    """Returns whether the mean is forecast: out-of-sample R^2 against no forecast.

    R^2 = 1 - sum (r_t - m_t)^2 / sum (r_t - mean of training)^2, in deviations of each
    stock, so that the calmer stocks count as much. Below 0 the forecast does harm.
    J. Campbell and S. Thompson 2008, https://doi.org/10.1093/rfs/hhm055

    With it, to compare, how the size of returns is forecast: the correlation of the
    forecast deviation with |r_t|, the mean over stocks.
    """
    none = np.square(normalise(scale, returns[part])).sum(axis=1)
    errors = [np.square((returns - f.mean)[part] / scale.sd) for f in forecasts]
    own = np.mean(errors, axis=0).sum(axis=1)
    return {
        "r2": float(1 - own.sum() / none.sum()),
        "r2_interval": intervals.middle(
            1 - own[drawn].sum(axis=1) / none[drawn].sum(axis=1)
        ),
        "size_correlation": lab.mean_sd([_size(f, returns, part) for f in forecasts]),
    }


def _size(forecast: Forecast, returns: np.ndarray, part: slice) -> float | None:
    pairs = zip(forecast.sd[part].T, np.abs(returns[part]).T, strict=True)
    found = [np.corrcoef(sd, size)[0, 1] for sd, size in pairs if np.ptp(sd) > 0]
    return float(np.mean(found)) if found else None


def r2_of_yesterdays_price(returns: np.ndarray, part: slice) -> list[float]:
    """Returns each stock's R^2 of the log price, "forecast" to be what it was before.

    It is near 1 and says nothing: a curve of prices that is forecast so lags the true
    one by a day.
    """
    prices = np.cumsum(returns[part], axis=0)
    moved = prices - prices.mean(axis=0)
    lost = np.square(returns[part]).sum(axis=0) / np.square(moved).sum(axis=0)
    return (1 - lost).tolist()
