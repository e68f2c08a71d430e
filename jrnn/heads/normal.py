r"""Normal numbers, independent given h: N(x; mu, s^2).

ln p(x) = -(z^2 + ln 2 pi) / 2 - ln s,    z = (x - mu) / s
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.cell import Key
from jrnn.core.memoize import memoize
from jrnn.heads.distribution import Family
from jrnn.heads.number_head import family_of_numbers
from jrnn.heads.numerics import (
    common,
    heat,
    most_multiplied,
    most_squared,
    standard,
    total,
    with_slopes,
)

LOG_2_PI = math.log(2 * math.pi)


class Normal(NamedTuple):
    """Parameters of independent normal numbers, (..., n), or (...) without a size.

    Attributes:
      mean: mu.
      scale: s, the standard deviation.
    """

    mean: Float[Array, "..."]
    scale: Float[Array, "..."]


@memoize
def independent(size: int | None) -> Family:
    """Returns the family of `Normal`."""

    def log_prob(predicted: Normal, x: Array, mask: Array | None = None) -> Array:
        x, mean, scale = common(x, *predicted)
        return total(size, normal_log_prob(x, mean, scale), mask)

    return family_of_numbers(
        log_prob, _sample, mean, cdf, quantile, _variance, mean_shape, size=size
    )


def mean(predicted: Any) -> Array:
    """Returns mu."""
    return predicted.mean


def mean_shape(predicted: Any) -> tuple[int, ...]:
    """Returns the shape of mu, which equals the shape of x."""
    return jnp.shape(predicted.mean)


def _normal_value(x: Array, mean: Array, scale: Array) -> Array:
    z = standard(x, mean, scale, most_squared(x))
    return -0.5 * (jnp.square(z) + LOG_2_PI) - jnp.log(scale)


def _normal_slopes(x: Array, mean: Array, scale: Array) -> tuple[Array, ...]:
    z = standard(x, mean, scale, most_squared(x))
    return -z / scale, z / scale, (jnp.square(z) - 1) / scale


# (x, mean, scale) -> the log-density of each number.
normal_log_prob = with_slopes(_normal_value, _normal_slopes)
bounded_log_prob = with_slopes(_normal_value, _normal_slopes, most_multiplied)


def _sample(key: Key, predicted: Normal, temperature: float | Array = 1.0) -> Array:
    mean, scale = predicted
    e = jax.random.normal(key, mean.shape, mean.dtype)
    return mean + heat(temperature, mean) * scale * e


def cdf(predicted: Normal, x: Array) -> Array:
    """Returns P(X <= x) of each number, without gradients."""
    x, mean, scale = jax.lax.stop_gradient(common(x, *predicted))
    return jax.scipy.special.ndtr(standard(x, mean, scale))


def quantile(predicted: Normal, p: Array) -> Array:
    """Returns the x with P(X <= x) = p, without gradients."""
    p, mean, scale = jax.lax.stop_gradient(common(p, *predicted))
    return mean + scale * jax.scipy.special.ndtri(p)


def _variance(predicted: Normal) -> Array:
    return jnp.square(predicted.scale)
