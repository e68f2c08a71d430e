r"""The Gaussian head, with independent components or a full covariance.

    p(x_t | h_t) = N(x_t; mu_t, Sigma_t)

Independent: Sigma = diag(s^2). Full: components are told one after the other, each by a
regression on those before it,

    e_i = (x_i - mu_i) - sum_{j<i} phi_ij (x_j - mu_j),    e_i ~ N(0, s_i^2)

which is the Cholesky factor of Sigma, T Sigma T' = diag(s^2), T = I - phi: any phi and
any positive s give a covariance, and no system is solved to score a value. Where
components are missing, the mean m and covariance C of x - mu given the known ones so
far go from one component to the next, as in a Kalman filter: the marginal is exact.

Source: P. Williams, Neural Computation 8 (1996), https://doi.org/10.1162/neco.1996.8.4.843;
M. Pourahmadi, Biometrika 86 (1999), https://doi.org/10.1093/biomet/86.3.677.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn._base import Key, memoize
from jrnn._parts import expand
from jrnn.heads._arguments import (
    above_zero,
    casting,
    size_or_none,
    switch,
    whether_missing,
)
from jrnn.heads._dense import common, heat, positive, total
from jrnn.heads._numbers import number_head
from jrnn.heads._slopes import (
    deviation,
    most_multiplied,
    most_squared,
    standard,
    with_slopes,
)
from jrnn.likelihood import Distribution, Head

LOG_2_PI = math.log(2 * math.pi)


class Normal(NamedTuple):
    """Independent normal numbers; without a size, the last axis is not there.

    Attributes:
      mean: mu.
      scale: s, the standard deviation.
    """

    mean: Float[Array, "..."]
    scale: Float[Array, "..."]


class CorrelatedNormal(NamedTuple):
    """Normal numbers, each told by a regression on those before it.

    Attributes:
      mean: mu, (..., n).
      scale: s, the standard deviation of each given those before it, (..., n).
      weights: phi, (..., n, n), 0 on the diagonal and above.
    """

    mean: Float[Array, "... n"]
    scale: Float[Array, "... n"]
    weights: Float[Array, "... n n"]


@casting(
    size=size_or_none,
    full=switch,
    missing=whether_missing,
    least_scale=above_zero,
)
def gaussian(
    size: int | None = None,
    full: bool = False,
    missing: bool = False,
    least_scale: float = 1e-4,
) -> Head:
    """Makes a Gaussian head: the mean and the scale are functions of h.

    Args:
      size: n, how many components a value has, (T, *batch, n); None: it is one number,
        (T, *batch).
      full: Whether components are correlated given h; False: they are independent.
      missing: Whether values may be missing: the cell then reads n values and n flags
        that tell which are known, and has twice the input size.
      least_scale: What the scale stays above, in the units of x; at zero weights the
        scale is 1 more. The density of a value has no bound otherwise.

    Returns:
      A head whose `predict` is `Normal(mean, scale)`, or
      `CorrelatedNormal(mean, scale, weights)` where `full`. Samples of temperature tau
      have tau times the variance; 0 gives the mean.

      A log-density ends at minus half the largest float for each component, which is
      where |z| is about 2e19 in float32; its gradient is that of the end, finite, and
      points to the value. With `full` this holds of weights and deviations within 1e15
      (float32), which they are held to; and where components are missing, while the
      squares of weights and of ratios of scales stay within the range of a float.

    Raises:
      TypeError: An argument is of the wrong type.
      ValueError: `size` is below 1, or `least_scale` is not above 0; `full` without a
        size.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.gaussian()
      >>> params = head.init(jax.random.key(0), 4)
      >>> round(float(head.log_prob(params, jnp.zeros(4), jnp.array(0.0))), 3)
      -0.919
    """
    n = size or 1
    if full and size is None:
        raise ValueError(
            "Expected a size for full=True, got None: one number has no correlations."
        )
    arguments = (
        ("size", size),
        ("full", full),
        ("missing", missing),
        ("least_scale", least_scale),
    )
    if full:
        shape = functools.partial(_correlated, n, least_scale)
        return number_head(
            "gaussian", arguments, 2 * n + n * (n - 1) // 2, shape, CORRELATED
        )
    shape = functools.partial(_independent, size, least_scale)
    return number_head("gaussian", arguments, 2 * n, shape, independent(size))


def _independent(size: int | None, least: float, raw: Array) -> Normal:
    if size is None:
        return Normal(raw[..., 0], positive(raw[..., 1], least))
    return Normal(raw[..., :size], positive(raw[..., size:], least))


def _correlated(n: int, least: float, raw: Array) -> CorrelatedNormal:
    below = jnp.tril_indices(n, -1)
    phi = jnp.zeros((*raw.shape[:-1], n, n), raw.dtype)
    return CorrelatedNormal(
        raw[..., :n],
        positive(raw[..., n : 2 * n], least),
        phi.at[(..., *below)].set(raw[..., 2 * n :]),
    )


@memoize
def independent(size: int | None) -> Distribution:
    """Returns the family of `Normal`."""

    def log_prob(predicted: Normal, x: Array, mask: Array | None = None) -> Array:
        x, mean, scale = common(x, *predicted)
        return total(size, normal_log_prob(x, mean, scale), mask)

    return Distribution(
        log_prob, _sample, _mean, _cdf, _quantile, _variance, _mean_shape
    )


def _mean(predicted: Any) -> Array:
    return predicted.mean


def _mean_shape(predicted: Any) -> tuple[int, ...]:
    return jnp.shape(predicted.mean)


def _normal_value(x: Array, mean: Array, scale: Array) -> Array:
    z = standard(x, mean, scale, most_squared(x))
    return -0.5 * (jnp.square(z) + LOG_2_PI) - jnp.log(scale)


def _normal_slopes(x: Array, mean: Array, scale: Array) -> tuple[Array, ...]:
    z = standard(x, mean, scale, most_squared(x))
    return -z / scale, z / scale, (jnp.square(z) - 1) / scale


# (x, mean, scale) -> the log-density of each number.
normal_log_prob = with_slopes(_normal_value, _normal_slopes)
_to_be_weighed = with_slopes(_normal_value, _normal_slopes, most_multiplied)


def _sample(key: Key, predicted: Normal, temperature: float | Array = 1.0) -> Array:
    mean, scale = predicted
    e = jax.random.normal(key, mean.shape, mean.dtype)
    return mean + heat(temperature, mean) * scale * e


def _cdf(predicted: Normal, x: Array) -> Array:
    x, mean, scale = jax.lax.stop_gradient(common(x, *predicted))
    return jax.scipy.special.ndtr(standard(x, mean, scale))


def _quantile(predicted: Normal, p: Array) -> Array:
    p, mean, scale = jax.lax.stop_gradient(common(p, *predicted))
    return mean + scale * jax.scipy.special.ndtri(p)


def _variance(predicted: Normal) -> Array:
    return jnp.square(predicted.scale)


def _correlated_log_prob(
    predicted: CorrelatedNormal, x: Array, mask: Array | None = None
) -> Array:
    x, mean, scale, phi = common(x, *predicted)
    phi = jnp.clip(phi, -most_multiplied(phi), most_multiplied(phi))
    if mask is not None:
        return _marginal_log_prob(CorrelatedNormal(mean, scale, phi), x, mask)
    d = deviation(x, mean, jnp.ones_like(x))
    e = d - jnp.einsum("...ij,...j->...i", phi, d)
    return _to_be_weighed(e, jnp.zeros_like(e), scale).sum(axis=-1)


class _Belief(NamedTuple):
    """Mean and covariance of x - mu given the known components so far."""

    m: Array
    C: Array


def _marginal_log_prob(predicted: CorrelatedNormal, x: Array, mask: Array) -> Array:
    """Returns the log-density of the components that are known."""
    mean, scale, phi = predicted
    # In units of the largest scale, so that no variance leaves the range of a float.
    unit = jax.lax.stop_gradient(scale.max(axis=-1, keepdims=True))
    d = deviation(x, mean, jnp.broadcast_to(unit, x.shape))
    variance = jnp.maximum(jnp.square(scale / unit), jnp.finfo(scale.dtype).tiny)
    belief = _Belief(jnp.zeros_like(d), jnp.zeros_like(phi))
    log_p = jnp.zeros_like(d[..., 0])
    for i in range(d.shape[-1]):
        w, known, r = phi[..., i, :], mask[..., i], variance[..., i]
        # C is 0 beside what is known: no gradient may come through 1 / v from there.
        Cw = jnp.einsum("...ij,...j->...i", belief.C, jnp.where(mask, 0, w))
        Cw = jnp.where(mask, 0, Cw)
        v = (w * Cw).sum(axis=-1) + r
        e = d[..., i] - (w * belief.m).sum(axis=-1)
        term = _to_be_weighed(e, jnp.zeros_like(e), jnp.sqrt(v))
        log_p = log_p + jnp.where(known, term, 0)
        told = _tell(belief, i, w, Cw, v, r, e, d[..., i])
        joined = _join(belief, i, Cw, v, d[..., i] - e)
        belief = _Belief(
            jnp.where(known[..., None], told.m, joined.m),
            jnp.where(known[..., None, None], told.C, joined.C),
        )
    return log_p - mask.sum(axis=-1).astype(d.dtype) * jnp.log(unit[..., 0])


def _tell(
    belief: _Belief, i: int, w: Array, Cw: Array, v: Array, r: Array, e: Array, d: Array
) -> _Belief:
    """Returns the belief after component i is known; C stays positive (P. Joseph)."""
    gain = Cw / v[..., None]
    keep = _eye(w) - gain[..., :, None] * w[..., None, :]
    C = jnp.einsum("...ij,...jk,...lk->...il", keep, belief.C, keep)
    C = C + gain[..., :, None] * gain[..., None, :] * r[..., None, None]
    m = belief.m + gain * e[..., None]
    return _Belief(m.at[..., i].set(d), C)


def _join(belief: _Belief, i: int, Cw: Array, v: Array, foreseen: Array) -> _Belief:
    """Returns the belief after component i is missing."""
    C = belief.C.at[..., i, :].set(Cw).at[..., :, i].set(Cw)
    return _Belief(belief.m.at[..., i].set(foreseen), C.at[..., i, i].set(v))


def factor(predicted: CorrelatedNormal) -> Array:
    """Returns L, lower triangular, with L L' the covariance."""
    eye = _eye(predicted.scale)
    D = predicted.scale[..., None] * eye
    return jax.scipy.linalg.solve_triangular(eye - predicted.weights, D, lower=True)


def _eye(like: Array) -> Array:
    """Returns the identity of n rows, with the axes before the last of `like`."""
    eye = jnp.eye(like.shape[-1], dtype=like.dtype)
    return expand(eye, like.ndim + 1)


def _correlated_sample(
    key: Key, predicted: CorrelatedNormal, temperature: float | Array = 1.0
) -> Array:
    e = jax.random.normal(key, predicted.mean.shape, predicted.mean.dtype)
    deviation = jnp.einsum("...ij,...j->...i", factor(predicted), e)
    return predicted.mean + heat(temperature, e) * deviation


def _correlated_variance(predicted: CorrelatedNormal) -> Array:
    return jnp.square(factor(predicted)).sum(axis=-1)


def _alone(predicted: CorrelatedNormal) -> Normal:
    """Returns the distribution of each component on its own."""
    return Normal(predicted.mean, jnp.sqrt(_correlated_variance(predicted)))


CORRELATED = Distribution(
    _correlated_log_prob,
    _correlated_sample,
    _mean,
    lambda predicted, x: _cdf(_alone(predicted), x),
    lambda predicted, p: _quantile(_alone(predicted), p),
    _correlated_variance,
    _mean_shape,
)
