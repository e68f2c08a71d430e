"""By how much forecasts come late: the shift at which they fit the readings best.

A forecast of time u that is made at u - h may look good in a plot and only repeat the
reading it was made at: persistence does nothing else, and lags by all of h. So each
forecast of u is held against the readings at u, u - 5, ..., u - h minutes. The lag is
the shift with the least error; 0 is a forecast in time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from experiments import lab
from experiments.data.glucose import STEP_MINUTES, Segment
from experiments.glucose.problem import HORIZONS, Predicted


def readings_before(
    segments: Sequence[Segment], horizon: int
) -> tuple[Float[np.ndarray, "S N"], Bool[np.ndarray, " N"]]:
    """Returns readings 0, 5, ... minutes before what is forecast, and where all are.

    >>> times = np.datetime64("2010-01-01T00:00", "m") + np.array([0, 5, 10, 20])
    >>> found, known = readings_before([Segment(times, np.arange(4.0))], 10)
    >>> found[:, 0].tolist(), known.tolist()
    ([2.0, 1.0, 0.0], [True, False, False, False])
    """
    shifts = np.arange(0, horizon + 1, STEP_MINUTES)
    columns, known = [], []
    for segment in segments:
        minutes = segment.minutes
        wanted = minutes + horizon - shifts[:, None]
        at = np.minimum(np.searchsorted(minutes, wanted), len(minutes) - 1)
        columns.append(segment.glucose[at])
        known.append((minutes[at] == wanted).all(axis=0))
    return np.concatenate(columns, axis=1), np.concatenate(known)


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
