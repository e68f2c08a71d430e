r"""The arithmetic of families: derivatives, casts, masks, and bisection.

The gradients of log-densities are derived by hand and finite at any finite number. For

    z = (x - mu) / s,    d ln p / dx = (d ln p / dz) / s,    and so on

JAX would compute z^2, 1 / s^2 and their products, which overflow long before the
gradient does, and then 0 times infinity is NaN. Here

- z is computed from halves, so that x - mu does not overflow, and clipped to the range
  of a float;
- each derivative is a closed form, clipped to 2^-24 times the largest float, so that
  sums of millions of them are finite as well.

Derivatives and densities within these bounds are unchanged.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.dtypes import state_dtype

HEADROOM = 2.0**-24


def with_slopes(
    value: Callable[..., Array],
    slopes: Callable[..., Sequence[Array]],
    most: Callable[[Array], float] | None = None,
) -> Callable[..., Array]:
    """Returns `value` with a custom JVP: its derivatives are `slopes`, clipped.

    Args:
      value: An elementwise function of arrays of one dtype and rank.
      slopes: The same arguments -> the derivative with respect to each, of the shape of
        the value.
      most: An array -> the bound to which slopes of its dtype are clipped; None: 2^-24
        times the largest float.
    """
    most = _with_headroom if most is None else most
    function = jax.custom_jvp(value)

    def jvp(
        primals: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        pairs = zip(slopes(*primals), tangents, strict=True)
        hold = lambda slope: jnp.clip(slope, -most(slope), most(slope))
        moved = [hold(slope) * tangent for slope, tangent in pairs]
        return function(*primals), sum(moved[1:], moved[0])

    function.defjvp(jvp)
    return function


def standard(x: Array, loc: Array, scale: Array, most: float | None = None) -> Array:
    """Returns (x - loc) / scale, clipped to `most`; None: to the largest float."""
    most = largest(x) if most is None else most
    return jnp.clip(2 * ((x / 2 - loc / 2) / scale), -most, most)


def largest(like: Array) -> float:
    """Returns the largest number of a floating type."""
    return float(jnp.finfo(like.dtype).max)


def most_squared(like: Array) -> float:
    """Returns the largest number, nearly, whose square does not overflow."""
    return math.sqrt(largest(like)) * (1 - 1e-6)


def most_multiplied(like: Array) -> float:
    """Returns the largest magnitude whose pairwise products obey the slope bound."""
    return 2.0 ** (jnp.finfo(like.dtype).maxexp // 2 - 14)


def _with_headroom(like: Array) -> float:
    return largest(like) * HEADROOM


def _deviation_value(x: Array, loc: Array, unit: Array) -> Array:
    return standard(x, loc, unit, most_multiplied(x))


def _deviation_slopes(x: Array, loc: Array, unit: Array) -> tuple[Array, ...]:
    del loc
    slope = jnp.broadcast_to(1 / unit, x.shape)
    return slope, -slope, jnp.zeros_like(slope)


# (x, loc, unit) -> (x - loc) / unit, clipped so that products of two do not overflow;
# the unit is a constant.
deviation = with_slopes(_deviation_value, _deviation_slopes)


def positive(raw: Array, least: float) -> Array:
    """Returns least + softplus(raw + ln(e - 1)), which is 1 + least at raw = 0.

    It does not overflow and stays above 0, and its slope is between 0 and 1.
    """
    # softplus(ln(e - 1)) = 1
    return jax.nn.softplus(raw + 0.5413248546129181) + least


def common(x: Array, *others: Array) -> tuple[Array, ...]:
    """Casts to one floating dtype: the widest, at least float32."""
    dtype = state_dtype(x, *others)
    return tuple(jnp.asarray(a, dtype) for a in (x, *others))


def heat(temperature: float | Array, like: Array) -> Array:
    """Returns sqrt(temperature), the factor for deviations from the mean."""
    return jnp.sqrt(per_sequence(temperature, like))


def per_sequence(temperature: float | Array, like: Array) -> Array:
    """Returns the temperature, shaped to broadcast against `like`."""
    tau = jnp.asarray(temperature).astype(like.dtype)
    return tau.reshape(tau.shape + (1,) * (like.ndim - tau.ndim)) if tau.ndim else tau


def hide(mask: Array | None, x: Array) -> Array:
    """Returns x with 0 where the mask is False."""
    return x if mask is None else jnp.where(mask, x, jnp.zeros_like(x))


def total(components: int | None, terms: Array, mask: Array | None) -> Array:
    """Sums over the axis of components, if there is one; masked terms add 0."""
    terms = hide(mask, terms)
    return terms if components is None else terms.sum(axis=-1)


def bisect(below: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Finds where an increasing function crosses a value, elementwise.

    Each element's bracket is halved 48 times in float32 and 80 times in float64, after
    which its width is below the rounding error of its ends.

    Args:
      below: x -> whether the function is below the value at x.
      low: A lower bound of the result.
      high: An upper bound of the result.
    """

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = low / 2 + high / 2
        under = below(middle)
        return jnp.where(under, middle, low), jnp.where(under, high, middle)

    steps = jnp.finfo(low.dtype).bits + 16
    return jax.lax.fori_loop(0, steps, halve, (low, high))[1]
