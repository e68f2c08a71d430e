"""One day of the test part: readings, and forecasts of 30 minutes before."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.data.glucose import REPORTED, Segment
from experiments.glucose.networks import Entrant, distributions, quantile
from experiments.glucose.problem import HORIZONS, Scales, pair

# Which horizon, and the tails that a central 90% interval leaves.
SHOWN, TAILS = 0, (0.05, 0.95)
MINUTES_PER_HOUR = 60


def fullest_day(times: np.ndarray) -> np.datetime64:
    """Returns the date with most readings, the first of them where there are several.

    >>> times = np.array(["2010-01-01T23:00", "2010-01-02T01:00", "2010-01-02T02:00"])
    >>> str(fullest_day(times.astype("datetime64[m]")))
    '2010-01-02'
    """
    dates, counts = np.unique(times.astype("datetime64[D]"), return_counts=True)
    return dates[counts.argmax()]


def show_day(
    entrant: Entrant, params: Any, scales: Scales, segments: Sequence[Segment]
) -> dict[str, Any]:
    """Returns readings and forecasts of a day, of the first seed.

    The monitor shows 40 for all that is lower, 400 for all that is higher: so ends of
    intervals beyond are drawn there.

    Args:
      entrant: The network.
      params: Its parameters, (seeds, ...) each leaf.
      scales: Of the training part.
      segments: The test part.
    """
    pairs = pair(segments)
    date = fullest_day(pairs.times)
    own = pairs.times.astype("datetime64[D]") == date
    first = jax.tree.map(lambda a: a[:1], params)
    predicted = distributions(entrant, first, scales, segments)
    predicted = jax.tree.map(lambda a: a[0][own], predicted)
    now, scale = pairs.now[own], scales.ahead[SHOWN]
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
