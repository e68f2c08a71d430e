r"""The compiled functions of a linear-Gaussian Markov model, given its regressions.

The regression of order m predicts the next value, where m is the number of known values
right before it. Forecasts carry z, the mean of the last k values, and P, their
covariance, from step to step:

    x_t = b_m + sum_j z_j A_{m,j},    Cov(x_t) = Q_m + A_m' P A_m
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jrnn.core.caches import jitted
from jrnn.core.cell import Key, Spec
from jrnn.core.dtypes import state_dtype
from jrnn.core.products import expand
from jrnn.heads.correlated_normal import CorrelatedNormal, correlated
from jrnn.heads.distribution import Distribution
from jrnn.heads.normal import Normal, independent
from jrnn.models.generation import Start, draw_all
from jrnn.models.regressions import Regressions


class Lags(NamedTuple):
    """The last k values, the latest last.

    Attributes:
      x: (k, *batch, n), with n = 1 if there is no size; 0 where unknown.
      known: (k, *batch), whether all components are known.
    """

    x: Float[Array, "k *batch n"]
    known: Bool[Array, "k *batch"]


class Forecast(NamedTuple):
    """Mean and variance of the values 1, 2, ... steps ahead.

    Attributes:
      mean: (steps, *batch), or (steps, *batch, n) with a size.
      variance: (steps, *batch), or covariances (steps, *batch, n, n) with a size.
    """

    mean: Array
    variance: Array


class Values(NamedTuple):
    """Values (T, *batch, n), 0 where unknown, and which components are known."""

    x: Array
    known: Array
    lengths: Array | None


class Form(NamedTuple):
    """The static arguments of a model."""

    order: int
    size: int | None

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of one value."""
        return () if self.size is None else (self.size,)

    @property
    def spec(self) -> Spec:
        """The call that makes the model."""
        n = self.size or 1
        arguments = (("order", self.order), ("size", self.size))
        return Spec("linear_gaussian_markov", arguments, n, n)


def known_lags(known: Bool[Array, "k *batch"]) -> Int[Array, "*batch"]:
    """Returns the number of known values before the next, up to the first gap."""
    run = jnp.cumprod(known[::-1].astype(jnp.int32), axis=0)
    return run.sum(axis=0, dtype=jnp.int32)


def _around(form: Form, params: Regressions, mean: Array, m: Array) -> Distribution:
    """Returns distributions with the given means and the noise of order m."""
    L = jnp.linalg.cholesky(params.Q)
    s = jnp.diagonal(L, axis1=-2, axis2=-1)
    if form.size is None:
        return Distribution(independent(None), Normal(mean[..., 0], s[m][..., 0]))
    eye = expand(jnp.eye(form.size, dtype=L.dtype), 3)
    D = s[..., None] * eye
    T = jax.scipy.linalg.solve_triangular(L, D, trans=1, lower=True)  # T' = D L^-1
    phi = jnp.tril(eye - jnp.swapaxes(T, -1, -2), -1)
    parameters = CorrelatedNormal(mean, s[m], phi[m])
    return Distribution(correlated(form.size), parameters)


def foresee(form: Form, params: Regressions, lags: Lags) -> Distribution:
    """Returns the distribution of the value after each window of k."""
    m = known_lags(lags.known)
    mean = params.b[m]
    for j in range(form.order):
        mean = mean + jnp.einsum("...i,...ij->...j", lags.x[-1 - j], params.A[m, j])
    return _around(form, params, mean, m)


@jitted(("form",))
def run(
    form: Form, params: Regressions, values: Values, state: Lags
) -> tuple[Lags, Distribution]:
    """Returns the lags after the values, and the distribution of each."""
    dtype = state_dtype(params, values.x, state.x)
    params = jax.tree.map(lambda a: a.astype(dtype), params)
    k, T = form.order, len(values.x)
    x = jnp.concatenate([state.x.astype(dtype), values.x.astype(dtype)])
    known = jnp.concatenate([state.known, values.known.all(axis=-1)])
    stretches = jnp.arange(k)[:, None] + jnp.arange(T)[None]
    predicted = foresee(form, params, Lags(x[stretches], known[stretches]))
    if values.lengths is None:
        return Lags(x[T:], known[T:]), predicted
    own = jnp.arange(k, dtype=values.lengths.dtype).reshape(k, *(1,) * (known.ndim - 1))
    index = values.lengths[None] + own
    pick = functools.partial(jnp.take_along_axis, axis=0)
    return Lags(pick(x, index[..., None]), pick(known, index)), predicted


@jitted(("form", "masked"))
def score(
    form: Form, masked: bool, params: Regressions, values: Values, state: Lags
) -> tuple[Lags, Float[Array, "T *batch"]]:
    """Returns the lags after the values, and the log-density of each."""
    state, predicted = run(form, params, values, state)
    x, known = values.x, values.known
    if not form.event:
        x, known = x[..., 0], known[..., 0]
    # Without a mask no marginals are needed: steps past a length hold complete zeros.
    log_p = predicted.log_prob(x, known if masked else None)
    return state, jnp.where(values.known.any(axis=-1), log_p, 0)


@jitted(("form", "length"))
def generate(form: Form, length: int, params: Regressions, start: Start) -> Array:
    """Returns samples that follow the lags, (length, *batch) or (..., size)."""
    lags = start.state
    dtype = state_dtype(params, lags.x)
    params = jax.tree.map(lambda a: a.astype(dtype), params)

    def step(state: Lags, given: tuple[Key, Array | None]) -> tuple[Lags, Array]:
        x = foresee(form, params, state).sample(given[0], start.temperature)
        values = x if form.event else x[..., None]
        return _push(state, values), x

    lags = lags._replace(x=lags.x.astype(dtype))
    return draw_all(step, length, start._replace(state=lags), params)


def _push(state: Lags, x: Float[Array, "*batch n"]) -> Lags:
    """Returns the lags after one more known value."""
    known = jnp.ones((1, *x.shape[:-1]), bool)
    return Lags(
        jnp.concatenate([state.x, x[None]])[1:],
        jnp.concatenate([state.known, known])[1:],
    )


@jitted(("form", "steps"))
def propagate(form: Form, steps: int, params: Regressions, state: Lags) -> Forecast:
    """Returns the forecast, carrying the mean and covariance of the last k values."""
    dtype = state_dtype(params, state.x)
    A, b, Q = (a.astype(dtype) for a in params)
    k, n, batch = form.order, form.size or 1, state.known.shape[1:]
    z = jnp.moveaxis(state.x.astype(dtype)[::-1], 0, -2)  # the latest first
    P = jnp.zeros((*batch, k, n, k, n), dtype)

    def step(carry: tuple[Array, Array, Array], _: None) -> tuple[Any, Forecast]:
        z, P, m = carry
        mean = b[m] + jnp.einsum("...jp,...jpq->...q", z, A[m])
        cross = jnp.einsum("...jpq,...jpir->...qir", A[m], P)  # Cov(x_t, x_{t-i})
        variance = Q[m] + jnp.einsum("...qir,...irs->...qs", cross, A[m])
        z = jnp.concatenate([mean[..., None, :], z], axis=-2)[..., :k, :]
        above = jnp.concatenate([variance[..., None, :], cross], axis=-2)
        below = jnp.concatenate([jnp.moveaxis(cross, -3, -1)[..., None, :], P], axis=-2)
        P = jnp.concatenate([above[..., None, :, :, :], below], axis=-4)
        P = P[..., :k, :, :k, :]
        return (z, P, jnp.minimum(m + 1, k)), Forecast(mean, variance)

    carry = (z, P, known_lags(state.known))
    forecast = jax.lax.scan(step, carry, None, length=steps)[1]
    if form.event:
        return forecast
    return Forecast(forecast.mean[..., 0], forecast.variance[..., 0, 0])
