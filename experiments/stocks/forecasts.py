"""One-step-ahead forecasts of returns, and what does the forecasting without a network.

Every forecast is a distribution of r_t given r_<t alone, in percent a day, with the
parameters that the training part has given. It is filtered through all later days, so
that the state of a model, its variance or its h, has read everything before day t.

GARCH(1,1) with Student-t errors, the field's own reference, for each stock:

    r_t = mu + e_t,    e_t = sigma_t z_t,    z_t ~ t_nu scaled to variance 1
    sigma_t^2 = omega + (alpha + gamma [e_{t-1} < 0]) e_{t-1}^2 + beta sigma_{t-1}^2

with gamma = 0 (T. Bollerslev 1987, https://doi.org/10.2307/1925546). With gamma it is
GJR-GARCH, in which a fall may raise volatility more than a rise (L. Glosten, R.
Jagannathan and D. Runkle 1993, https://doi.org/10.1111/j.1540-6261.1993.tb05128.x).
Both are fitted by the `arch` library, https://arch.readthedocs.io.
"""

import importlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

import jrnn
from experiments.data._scale import Scale, normalise, restore

ARCH = "arch==8.0.0"
GAUSSIAN, STUDENT_T, AR_1 = "iid Gaussian", "iid Student-t", "AR(1)"
GARCH, GJR = "GARCH(1,1), t", "GJR-GARCH(1,1), t"
GARCH_LATE = "GARCH(1,1), t, fitted to validation too"


class Forecast(NamedTuple):
    """Forecasts of each return from those before it, in percent, all (T, stocks).

    Attributes:
      log_density: Of the return that came, nats.
      pit: P(R_t <= r_t | r_<t), uniform where forecasts are right.
      mean: Of the return.
      sd: Its standard deviation, the volatility; infinite below two degrees of freedom.
    """

    log_density: Float[np.ndarray, "T k"]
    pit: Float[np.ndarray, "T k"]
    mean: Float[np.ndarray, "T k"]
    sd: Float[np.ndarray, "T k"]


def student_t_forecast(returns: np.ndarray, nu: Any, mean: Any, scale: Any) -> Forecast:
    """Returns the forecast that has these parameters, which broadcast to the returns.

    Args:
      returns: (T, k).
      nu: Degrees of freedom.
      mean: Location.
      scale: Of the t distribution: its variance is scale^2 nu / (nu - 2).
    """
    nu, mean, scale = (np.broadcast_to(a, returns.shape) for a in (nu, mean, scale))
    return Forecast(
        stats.t.logpdf(returns, nu, mean, scale),
        stats.t.cdf(returns, nu, mean, scale),
        np.array(mean),
        stats.t.std(nu, mean, scale),
    )


def fit_student_t(train: np.ndarray) -> np.ndarray:
    """Returns nu, mean and scale of each column by maximum likelihood, (3, k)."""
    return np.array([stats.t.fit(column) for column in train.T]).T


def fit_autoregression(order: int, scale: Scale, train: np.ndarray) -> list[Any]:
    """Returns each column's autoregression, by least squares on scaled returns.

    Order 0 has no past: independent Gaussian returns.
    """
    model = jrnn.models.linear_gaussian_markov(order)
    return [model.fit(jnp.asarray(own, float)) for own in normalise(scale, train).T]


def autoregression_forecast(
    order: int, scale: Scale, params: list[Any], returns: np.ndarray
) -> Forecast:
    """Returns forecasts with the parameters of `fit_autoregression`."""
    model, columns = jrnn.models.linear_gaussian_markov(order), []
    for own, fitted in zip(normalise(scale, returns).T, params, strict=True):
        xs = jnp.asarray(own, float)
        predicted = model.predictive(fitted, xs)[1]
        scored = predicted.log_prob(xs), predicted.cdf(xs)
        columns.append((*scored, *predicted.parameters))
    return in_percent(scale, *np.moveaxis(np.array(columns, np.float64), 0, -1))


def in_percent(
    scale: Scale, log_density: Any, pit: Any, mean: Any, sd: Any
) -> Forecast:
    """Returns a forecast of standardised returns as one of returns in percent."""
    log_density, pit, mean, sd = (
        np.asarray(a, np.float64) for a in (log_density, pit, mean, sd)
    )
    return Forecast(
        log_density - np.log(scale.sd), pit, restore(scale, mean), sd * scale.sd
    )


class Garch(NamedTuple):
    """GARCH(1,1) with Student-t errors, each field (k,), one number for each stock.

    Attributes:
      mu: The mean, percent.
      omega: What is added to the variance every day.
      alpha: The weight of yesterday's squared error.
      gamma: What that weight has in addition where the error was below 0; 0 in GARCH.
      beta: The weight of yesterday's variance.
      nu: Degrees of freedom.
      start: Error squared and variance of the day before the first.
    """

    mu: Float[np.ndarray, " k"]
    omega: Float[np.ndarray, " k"]
    alpha: Float[np.ndarray, " k"]
    gamma: Float[np.ndarray, " k"]
    beta: Float[np.ndarray, " k"]
    nu: Float[np.ndarray, " k"]
    start: Float[np.ndarray, " k"]


def fit_garch(train: np.ndarray, asymmetric: bool = False) -> Garch:
    """Returns each column's GARCH by maximum likelihood on what it is given.

    Args:
      train: Returns in percent, (T, k).
      asymmetric: Whether gamma is fitted: GJR-GARCH.

    Raises:
      ModuleNotFoundError: The `arch` library is not installed.
      ValueError: The optimiser did not converge.
    """
    columns = [_fit_column(load_arch(), own, asymmetric) for own in train.T]
    return Garch(*np.array(columns).T)


def load_arch() -> Any:
    """Returns arch.univariate, which takes seconds to import and is needed here alone.

    Raises:
      ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module("arch.univariate")
    except ModuleNotFoundError as error:
        if error.name not in ("arch", "arch.univariate"):
            raise  # something that arch itself needs
        raise ModuleNotFoundError(
            f"GARCH is fitted by a package that is not installed: pip install {ARCH}"
        ) from error


def _fit_column(arch: Any, own: np.ndarray, asymmetric: bool) -> list[float]:
    volatility = arch.GARCH(p=1, o=int(asymmetric), q=1)
    model = arch.ConstantMean(
        own, volatility=volatility, distribution=arch.StudentsT(), rescale=False
    )
    result = model.fit(disp="off", show_warning=False)
    if result.convergence_flag:
        raise ValueError(
            "Expected the fit of GARCH to converge, got "
            f"{result.optimization_result.message!r}. Give more training days."
        )
    mu, omega, alpha, *gamma, beta, nu = (float(x) for x in result.params)
    # As arch starts its own recursion: from the first days of what it is fitted to,
    # before it knows mu.
    start = float(volatility.backcast(own - own.mean()))
    return [mu, omega, alpha, *(gamma or [0.0]), beta, nu, start]


def garch_variance(garch: Garch, returns: np.ndarray) -> np.ndarray:
    """Returns sigma_t^2 for every day, which has read the returns before day t.

    This is arch's recursion, without the bounds that arch takes from the whole series
    that it is shown: those would know of later days.
    """
    # As arch has it, half of the days before the first were bad ones.
    pushed, variance = (garch.alpha + garch.gamma / 2) * garch.start, garch.start
    found = np.empty_like(returns)
    for t, r_t in enumerate(returns):
        variance = garch.omega + pushed + garch.beta * variance
        error = r_t - garch.mu
        pushed = (garch.alpha + garch.gamma * (error < 0)) * error**2
        found[t] = variance
    return found


def garch_forecast(garch: Garch, returns: np.ndarray) -> Forecast:
    """Returns one-step-ahead forecasts with these parameters, which stay fixed."""
    variance = garch_variance(garch, returns)
    scale = np.sqrt(variance * (garch.nu - 2) / garch.nu)
    return student_t_forecast(returns, garch.nu, garch.mu, scale)
