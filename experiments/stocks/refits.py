"""GARCH as it is used: estimated again every month, from all days before or the last.

Whoever forecasts does not keep the parameters of years ago: they are estimated again as
days come in. So here, every `every` days, from

    an expanding window   all days before
    a rolling window      the last `window` of them

and a day is forecast with the parameters that were estimated last before it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.stocks.forecasts import Forecast, fit_garch, garch_forecast


class Refit(NamedTuple):
    """One way to estimate again.

    Attributes:
      asymmetric: Whether it is GJR-GARCH.
      window: Days of a rolling window; None: an expanding one.
    """

    asymmetric: bool
    window: int | None = None


GARCH_REFIT = "GARCH(1,1), t, refitted"
GJR_REFIT = "GJR-GARCH(1,1), t, refitted"
GJR_ROLLING = "GJR-GARCH(1,1), t, refitted to 1,000 days"
REFITS = {
    GARCH_REFIT: Refit(asymmetric=False),
    GJR_REFIT: Refit(asymmetric=True),
    GJR_ROLLING: Refit(asymmetric=True, window=1_000),
}


def refit_days(first: int, end: int, every: int) -> range:
    """Returns the days before which a model is estimated again."""
    return range(first, end, every)


def refit_forecast(
    refit: Refit,
    returns: np.ndarray,
    first: int,
    every: int,
    done: Callable[[], Any] = lambda: None,
) -> Forecast:
    """Returns forecasts of all days, those from `first` on with parameters of late.

    No forecast knows of its own day or of a later one, but for those before `first`,
    which have the parameters estimated from the days before `first`.

    Args:
      refit: How the model is estimated.
      returns: In percent, (T, k).
      first: The first day that is forecast from earlier days alone, at least 1.
      every: Days between estimates.
      done: Called after each estimate.

    Raises:
      ModuleNotFoundError: The `arch` library is not installed.
      ValueError: The optimiser did not converge.
    """
    pieces = _pieces(refit, returns, first, every, done)
    return Forecast(*(np.concatenate(own) for own in zip(*pieces, strict=True)))


def _pieces(
    refit: Refit, returns: np.ndarray, first: int, every: int, done: Callable[[], Any]
) -> Iterator[Forecast]:
    """Yields forecasts of the days between two estimates, one stretch at a time."""
    for day in refit_days(first, len(returns), every):
        start = 0 if refit.window is None else max(0, day - refit.window)
        garch = fit_garch(returns[start:day], refit.asymmetric)
        if day == first and start > 0:  # the days before the window, to have them all
            start = 0
        found = garch_forecast(garch, returns[start : day + every])
        kept = 0 if day == first else day - start
        yield Forecast(*(field[kept:] for field in found))
        done()
