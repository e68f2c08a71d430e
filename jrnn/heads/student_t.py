r"""The Student-t head: heavy tails, such as those of returns.

    p(x) = r(nu / 2) / sqrt(pi nu) / s (1 + z^2 / nu)^(-(nu + 1) / 2)
    z = (x - mu) / s

    r(a) = Gamma(a + 1/2) / Gamma(a)

For large nu the difference of two log-gammas loses all its digits. Here r comes from a
series in 1 / a (NIST, https://dlmf.nist.gov/5.11, for a ratio of gammas), evaluated at
a + 8 and carried down by r(a) = r(a + 1) a / (a + 1/2). Where z^2 would overflow,
ln(1 + z^2 / nu) is computed as 2 ln |x - mu| - 2 ln s - ln nu.

A quantile lies between those of the normal and of two degrees of freedom, which both
have closed forms, and is found between them by bisection of asinh z.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.cell import Key
from jrnn.core.memoize import memoize
from jrnn.heads.arguments import above_zero, casting, size_or_none, whether_missing
from jrnn.heads.distribution import Family
from jrnn.heads.head import Head
from jrnn.heads.number_head import family_of_numbers, number_head
from jrnn.heads.numerics import (
    bisect,
    common,
    heat,
    largest,
    positive,
    standard,
    total,
    with_slopes,
)

# softplus(4) + 2: about six degrees of freedom at zero weights, like daily returns.
DOF_OFFSET = 4.0
# ln r(a) - ln(a) / 2 = sum_k c_k a^(1 - 2k), from Stirling's series.
SERIES = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)
STEPS_ABOVE = 8
# Where |z| / sqrt(nu) is above this, 1 + z^2 / nu equals z^2 / nu within 1e-12 of it.
FAR = 2.0**20


class StudentT(NamedTuple):
    """Parameters of independent Student-t numbers, (..., n), or (...) without a size.

    Attributes:
      loc: mu, the mean.
      scale: s; the standard deviation is s sqrt(nu / (nu - 2)).
      dof: nu, above 2.
    """

    loc: Float[Array, "..."]
    scale: Float[Array, "..."]
    dof: Float[Array, "..."]


@casting(size=size_or_none, missing=whether_missing, least_scale=above_zero)
def student_t(
    size: int | None = None, missing: bool = False, least_scale: float = 1e-4
) -> Head:
    """Makes a Student-t head: location, scale and degrees of freedom depend on h.

    There are more than 2 degrees of freedom, so that mean and variance exist.
    Components are independent given h, each with its own degrees of freedom.

    Args:
      size: n, the number of components of a value, (T, *batch, n); None: a value is one
        number, (T, *batch).
      missing: Whether values may be missing. The cell then reads n values and n flags,
        1 where a value is known, so its input size doubles.
      least_scale: The lower bound of the scale, in the units of x; at zero weights the
        scale is 1 + least_scale.

    Returns:
      A head that predicts distributions with parameters `StudentT(loc, scale, dof)`.
      Sampling at temperature tau multiplies the variance by tau; at 0 it returns the
      location.

      Any finite number has a log-density, exact up to rounding, and a finite gradient.
      `quantile` and `cdf` are as accurate as JAX's incomplete beta function, which in
      float32 loses digits for many degrees of freedom. For parameters constructed
      directly, the variance is infinite for 1 < dof <= 2, and NaN for dof <= 1.

    Raises:
      TypeError: An argument is of the wrong type.
      ValueError: `size` is below 1, or `least_scale` is not above 0.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.heads.student_t()
      >>> predicted = head.predict(head.init(jax.random.key(0), 4), jnp.zeros(4))
      >>> round(float(predicted.parameters.dof), 2)
      6.02
    """
    return number_head(
        "student_t",
        3 * (size or 1),
        functools.partial(_shape, size, least_scale),
        independent(size),
        size=size,
        missing=missing,
        least_scale=least_scale,
    )


def _shape(size: int | None, least: float, raw: Array) -> StudentT:
    loc, scale, dof = jnp.split(raw, 3, axis=-1)
    dof = 2 + jax.nn.softplus(dof + DOF_OFFSET)
    # 2 + softplus may round to 2: keep dof at least one rounding step above 2.
    dof = jnp.maximum(dof, 2 * (1 + float(jnp.finfo(raw.dtype).eps)))
    predicted = StudentT(loc, positive(scale, least), dof)
    return predicted if size is not None else StudentT(*(p[..., 0] for p in predicted))


@memoize
def independent(size: int | None) -> Family:
    """Returns the family of `StudentT`."""

    def log_prob(predicted: StudentT, x: Array, mask: Array | None = None) -> Array:
        x, loc, scale, dof = common(x, *predicted)
        return total(size, student_t_log_prob(x, loc, scale, dof), mask)

    return family_of_numbers(
        log_prob,
        _sample,
        lambda predicted: predicted.loc,
        _cdf,
        _quantile,
        _variance,
        lambda predicted: jnp.shape(predicted.loc),
        size=size,
    )


def student_t_log_prob(x: Array, loc: Array, scale: Array, dof: Array) -> Array:
    """Returns the log-density of each number."""
    tail = _tail(x, loc, scale, dof)
    return _log_ratio(dof / 2) - 0.5 * math.log(2 * math.pi) - tail


def _ratio(x: Array, loc: Array, scale: Array, dof: Array) -> tuple[Array, ...]:
    """Returns z, whether |z| / sqrt(nu) is above FAR, and z^2 / nu, 0 if it is."""
    z = standard(x, loc, scale)
    far = jnp.abs(z) / jnp.sqrt(dof) > FAR
    near = jnp.where(far, 0, z)
    return z, far, near * (near / dof)


def _log_growth(x: Array, loc: Array, scale: Array, dof: Array) -> Array:
    """Returns ln(1 + z^2 / nu)."""
    z, far, square = _ratio(x, loc, scale, dof)
    away = jnp.where(far, jnp.abs(x / 2 - loc / 2), 1)
    out = 2 * (jnp.log(away) + math.log(2) - jnp.log(scale)) - jnp.log(dof)
    inverse = jnp.sqrt(dof) / jnp.where(far, z, 1)
    return jnp.where(far, out + jnp.square(inverse), jnp.log1p(square))


def _tail_value(x: Array, loc: Array, scale: Array, dof: Array) -> Array:
    """Returns ln s + (nu + 1) / 2 ln(1 + z^2 / nu)."""
    log = _log_growth(x, loc, scale, dof)
    return jnp.log(scale) + jnp.minimum((dof + 1) / 2 * log, largest(log) / 2)


def _tail_slopes(x: Array, loc: Array, scale: Array, dof: Array) -> tuple[Array, ...]:
    z, far, square = _ratio(x, loc, scale, dof)
    away = jnp.where(far, x / 2 - loc / 2, 1)
    share = jnp.where(far, 1, square / (1 + square))  # z^2 / (nu + z^2)
    near = (jnp.where(far, 0, z) / dof) / (1 + square) / scale
    by_x = (dof + 1) * jnp.where(far, 0.5 / away, near)
    by_scale = (1 - (dof + 1) * share) / scale
    by_dof = 0.5 * _log_growth(x, loc, scale, dof) - (dof + 1) / dof * share / 2
    return by_x, -by_x, by_scale, by_dof


_tail = with_slopes(_tail_value, _tail_slopes)


def _log_ratio(a: Array) -> Array:
    """Returns ln(r(a) / sqrt(a)), for a >= 1."""
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
    z, dof = _standard(predicted, x)
    middle, tail = _within(z, dof)
    near = 0.5 + 0.5 * jnp.sign(z) * middle
    far = jnp.where(z < 0, 0.5 * tail, 1 - 0.5 * tail)
    return jnp.where(jnp.square(z) < dof, near, far)


def _standard(predicted: StudentT, x: Array) -> tuple[Array, Array]:
    x, loc, scale, dof = jax.lax.stop_gradient(common(x, *predicted))
    return standard(x, loc, scale), dof


def _within(z: Array, dof: Array) -> tuple[Array, Array]:
    """Returns P(|Z| < |z|) and P(|Z| > |z|).

    Each is accurate where 1 minus the other would cancel.
    """
    square = jnp.square(z)
    half = jnp.full_like(dof, 0.5)
    inside = jax.scipy.special.betainc(half, dof / 2, square / (dof + square))
    outside = jax.scipy.special.betainc(dof / 2, half, dof / (dof + square))
    return inside, outside


def _quantile(predicted: StudentT, p: Array) -> Array:
    p, loc, scale, dof = jax.lax.stop_gradient(common(p, *predicted))
    q = jnp.minimum(p, 1 - p)  # the probability of the tail beyond z
    light = -jax.scipy.special.ndtri(q)
    heavy = (1 - 2 * q) / jnp.sqrt(2 * q * (1 - q))

    def below(u: Array) -> Array:
        z = jnp.sinh(u)
        inside, outside = _within(z, dof)
        return jnp.where(jnp.square(z) < dof, inside < 1 - 2 * q, outside > 2 * q)

    z = jnp.sinh(bisect(below, jnp.arcsinh(light), jnp.arcsinh(heavy)))
    return loc + scale * jnp.where(p < 0.5, -z, z)


def _variance(predicted: StudentT) -> Array:
    _, scale, dof = predicted
    exists = dof > 2
    ratio = jnp.where(exists, dof, 4) / (jnp.where(exists, dof, 4) - 2)
    none = jnp.where(dof > 1, jnp.inf, jnp.nan)
    return jnp.where(exists, jnp.square(scale * jnp.sqrt(ratio)), none)
