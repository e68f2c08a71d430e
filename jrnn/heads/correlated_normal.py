r"""Normal numbers with a covariance: N(x; mu, Sigma).

Components are generated in order, each by a regression on those before it,

    e_i = (x_i - mu_i) - sum_{j<i} phi_ij (x_j - mu_j),    e_i ~ N(0, s_i^2)

which is a Cholesky factorisation of Sigma: T Sigma T' = diag(s^2), T = I - phi. Any phi
and any positive s give a covariance, and scoring a value solves no linear system. Where
components are missing, a loop over the components carries the mean m and covariance C
of x - mu given the known ones so far, as in a Kalman filter: the marginal is exact.

Source: P. Williams, Neural Computation 8 (1996), https://doi.org/10.1162/neco.1996.8.4.843;
M. Pourahmadi, Biometrika 86 (1999), https://doi.org/10.1093/biomet/86.3.677.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.cell import Key
from jrnn.core.memoize import memoize
from jrnn.core.products import expand
from jrnn.heads.distribution import Family
from jrnn.heads.normal import (
    Normal,
    bounded_log_prob,
    cdf,
    mean,
    mean_shape,
    quantile,
)
from jrnn.heads.number_head import family_of_numbers
from jrnn.heads.numerics import common, deviation, heat, most_multiplied


class CorrelatedNormal(NamedTuple):
    """Parameters of normal numbers, each a regression on the components before it.

    Attributes:
      mean: mu, (..., n).
      scale: s, each component's standard deviation given those before it, (..., n).
      weights: phi, (..., n, n), 0 on and above the diagonal.
    """

    mean: Float[Array, "... n"]
    scale: Float[Array, "... n"]
    weights: Float[Array, "... n n"]


def _log_prob(
    predicted: CorrelatedNormal, x: Array, mask: Array | None = None
) -> Array:
    x, mean, scale, phi = common(x, *predicted)
    phi = jnp.clip(phi, -most_multiplied(phi), most_multiplied(phi))
    if mask is not None:
        return _marginal_log_prob(CorrelatedNormal(mean, scale, phi), x, mask)
    d = deviation(x, mean, jnp.ones_like(x))
    e = d - jnp.einsum("...ij,...j->...i", phi, d)
    return bounded_log_prob(e, jnp.zeros_like(e), scale).sum(axis=-1)


class _Belief(NamedTuple):
    """Mean and covariance of x - mu given the known components so far."""

    m: Array
    C: Array


def _marginal_log_prob(predicted: CorrelatedNormal, x: Array, mask: Array) -> Array:
    """Returns the log-density of the known components."""
    mean, scale, phi = predicted
    # In units of the largest scale, so that no variance overflows.
    unit = jax.lax.stop_gradient(scale.max(axis=-1, keepdims=True))
    d = deviation(x, mean, jnp.broadcast_to(unit, x.shape))
    variance = jnp.maximum(jnp.square(scale / unit), jnp.finfo(scale.dtype).tiny)
    belief = _Belief(jnp.zeros_like(d), jnp.zeros_like(phi))
    log_p = jnp.zeros_like(d[..., 0])
    for i in range(d.shape[-1]):
        w, known, r = phi[..., i, :], mask[..., i], variance[..., i]
        # C is 0 in the rows and columns of known components; the masks keep gradients
        # from reaching those through 1 / v.
        Cw = jnp.einsum("...ij,...j->...i", belief.C, jnp.where(mask, 0, w))
        Cw = jnp.where(mask, 0, Cw)
        v = (w * Cw).sum(axis=-1) + r
        e = d[..., i] - (w * belief.m).sum(axis=-1)
        term = bounded_log_prob(e, jnp.zeros_like(e), jnp.sqrt(v))
        log_p = log_p + jnp.where(known, term, 0)
        observed = _observe(belief, i, w, Cw, v, r, e, d[..., i])
        joined = _join(belief, i, Cw, v, d[..., i] - e)
        belief = _Belief(
            jnp.where(known[..., None], observed.m, joined.m),
            jnp.where(known[..., None, None], observed.C, joined.C),
        )
    return log_p - mask.sum(axis=-1).astype(d.dtype) * jnp.log(unit[..., 0])


def _observe(
    belief: _Belief, i: int, w: Array, Cw: Array, v: Array, r: Array, e: Array, d: Array
) -> _Belief:
    """Returns the belief after observing component i; C stays positive (P. Joseph)."""
    gain = Cw / v[..., None]
    keep = _eye(w) - gain[..., :, None] * w[..., None, :]
    C = jnp.einsum("...ij,...jk,...lk->...il", keep, belief.C, keep)
    C = C + gain[..., :, None] * gain[..., None, :] * r[..., None, None]
    m = belief.m + gain * e[..., None]
    return _Belief(m.at[..., i].set(d), C)


def _join(belief: _Belief, i: int, Cw: Array, v: Array, foreseen: Array) -> _Belief:
    """Returns the belief that includes component i, which is missing."""
    C = belief.C.at[..., i, :].set(Cw).at[..., :, i].set(Cw)
    return _Belief(belief.m.at[..., i].set(foreseen), C.at[..., i, i].set(v))


def factor(predicted: CorrelatedNormal) -> Array:
    """Returns the lower triangular L, where L L' is the covariance."""
    eye = _eye(predicted.scale)
    D = predicted.scale[..., None] * eye
    return jax.scipy.linalg.solve_triangular(eye - predicted.weights, D, lower=True)


def _eye(like: Array) -> Array:
    """Returns the n x n identity, with leading axes that broadcast against `like`."""
    eye = jnp.eye(like.shape[-1], dtype=like.dtype)
    return expand(eye, like.ndim + 1)


def _sample(
    key: Key, predicted: CorrelatedNormal, temperature: float | Array = 1.0
) -> Array:
    e = jax.random.normal(key, predicted.mean.shape, predicted.mean.dtype)
    deviation = jnp.einsum("...ij,...j->...i", factor(predicted), e)
    return predicted.mean + heat(temperature, e) * deviation


def _variance(predicted: CorrelatedNormal) -> Array:
    return jnp.square(factor(predicted)).sum(axis=-1)


def _alone(predicted: CorrelatedNormal) -> Normal:
    """Returns the marginal distribution of each component."""
    return Normal(predicted.mean, jnp.sqrt(_variance(predicted)))


@memoize
def correlated(size: int) -> Family:
    """Returns the family of `CorrelatedNormal`."""
    return family_of_numbers(
        _log_prob,
        _sample,
        mean,
        lambda predicted, x: cdf(_alone(predicted), x),
        lambda predicted, p: quantile(_alone(predicted), p),
        _variance,
        mean_shape,
        size=size,
    )
