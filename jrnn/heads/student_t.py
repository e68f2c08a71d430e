r"""The Student-t head: heavy tails, such as those of returns.

    p(x) = r(nu / 2) / sqrt(pi nu) / s (1 + z^2 / nu)^(-(nu + 1) / 2)
    z = (x - mu) / s

    r(a) = Gamma(a + 1/2) / Gamma(a)

The difference of two log-gammas loses all its digits where nu is large. Here r is taken
from a series in 1 / a (NIST, https://dlmf.nist.gov/5.11, for a ratio of gammas), eight
steps above a, and brought down by r(a) = r(a + 1) a / (a + 1/2).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn._base import Key, memoize
from jrnn.heads._dense import common, heat, positive, total
from jrnn.heads._numbers import check_event, check_least, number_head
from jrnn.likelihood import Distribution, Head

# softplus(4) + 2: about six degrees of freedom at zero weights, as daily returns have.
DOF_OFFSET = 4.0
# ln r(a) - ln(a) / 2 = sum_k c_k a^(1 - 2k), from Stirling's series.
SERIES = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)
STEPS_ABOVE = 8


class StudentT(NamedTuple):
    """Independent Student-t numbers; without a size, the last axis is not there.

    Attributes:
      loc: mu, the mean.
      scale: s; the standard deviation is s sqrt(nu / (nu - 2)).
      dof: nu, above 2.
    """

    loc: Float[Array, "..."]
    scale: Float[Array, "..."]
    dof: Float[Array, "..."]


@memoize
def student_t(
    size: int | None = None, missing: bool = False, least_scale: float = 1e-4
) -> Head:
    """Makes a Student-t head: location, scale and degrees of freedom depend on h.

    There are more than 2 degrees of freedom, so that mean and variance exist.
    Components are independent given h, each with degrees of freedom of its own.

    Args:
      size: n, how many components a value has, (T, *batch, n); None: it is one number,
        (T, *batch).
      missing: Whether values may be missing: the cell then reads n values and n flags
        that tell which are known, and has twice the input size.
      least_scale: What the scale stays above, in the units of x; at zero weights the
        scale is 1 more.

    Returns:
      A head whose `predict` is `StudentT(loc, scale, dof)`. Samples of temperature tau
      have tau times the variance; 0 gives the location.

    Raises:
      TypeError: An argument is of the wrong type.
      ValueError: `size` is below 1, or `least_scale` is not above 0.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.student_t()
      >>> predicted = head.predict(head.init(jax.random.key(0), 4), jnp.zeros(4))
      >>> round(float(predicted.dof), 2)
      6.02
    """
    n = check_event(size, missing)
    check_least("least_scale", least_scale)
    arguments = (("size", size), ("missing", missing), ("least_scale", least_scale))
    shape = functools.partial(_shape, size, least_scale)
    return number_head("student_t", arguments, 3 * n, shape, independent(size))


def _shape(size: int | None, least: float, raw: Array) -> StudentT:
    loc, scale, dof = jnp.split(raw, 3, axis=-1)
    dof = 2 + jax.nn.softplus(dof + DOF_OFFSET)
    # Where softplus is less than the gap between numbers at 2, it is that gap.
    dof = jnp.maximum(dof, 2 * (1 + jnp.finfo(raw.dtype).eps))
    predicted = StudentT(loc, positive(scale, least), dof)
    return predicted if size is not None else StudentT(*(p[..., 0] for p in predicted))


@memoize
def independent(size: int | None) -> Distribution:
    """Returns the family of `StudentT`."""

    def log_prob(predicted: StudentT, x: Array, mask: Array | None = None) -> Array:
        x, loc, scale, dof = common(x, *predicted)
        return total(size, student_t_log_prob((x - loc) / scale, scale, dof), mask)

    return Distribution(log_prob, _sample, lambda predicted: predicted.loc, _cdf)


def student_t_log_prob(z: Array, scale: Array, dof: Array) -> Array:
    """Returns the log-density of each number loc + scale z."""
    tail = (dof + 1) / 2 * jnp.log1p(jnp.square(z) / dof)
    return _log_ratio(dof / 2) - 0.5 * math.log(2 * math.pi) - jnp.log(scale) - tail


def _log_ratio(a: Array) -> Array:
    """Returns ln(r(a) / sqrt(a)), for a of at least 1."""
    above = a + STEPS_ABOVE
    inverse = 1 / above
    square = jnp.square(inverse)
    series = jnp.zeros_like(a)
    for c in reversed(SERIES):
        series = series * square + c
    down = sum(jnp.log1p(0.5 / (a + j)) for j in range(STEPS_ABOVE))
    return 0.5 * jnp.log1p(STEPS_ABOVE / a) + series * inverse - down


def _sample(key: Key, predicted: StudentT, temperature: float | Array = 1.0) -> Array:
    loc, scale, dof = predicted
    z = jax.random.t(key, dof, loc.shape, loc.dtype)
    return loc + heat(temperature, loc) * scale * z


def _cdf(predicted: StudentT, x: Array) -> Array:
    x, loc, scale, dof = jax.lax.stop_gradient(common(x, *predicted))
    z = (x - loc) / scale
    square = jnp.square(z)
    half = jnp.full_like(dof, 0.5)
    # Each of both is accurate where the other is the difference of near equals.
    middle = jax.scipy.special.betainc(half, dof / 2, square / (dof + square))
    tail = jax.scipy.special.betainc(dof / 2, half, dof / (dof + square))
    near = 0.5 + 0.5 * jnp.sign(z) * middle
    far = jnp.where(z < 0, 0.5 * tail, 1 - 0.5 * tail)
    return jnp.where(square < dof, near, far)
