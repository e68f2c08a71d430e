r"""The arithmetic of families: slopes, casts, masks, and bisection.

The gradients of log-densities are derived by hand, finite at any finite number. Of

    z = (x - mu) / s,    d ln p / dx = (d ln p / dz) / s,    and so on

JAX would form z^2, 1 / s^2 and their products on the way, which leave the range of a
float long before the gradient does, and then 0 times infinity is NaN. Here

- z is formed from halves, so that x - mu does not overflow, and held within the range;
- each slope is a closed form, held within 2^-24 of the largest float, so that sums of
  millions of them are finite as well.

Slopes within that bound, and densities within the range, are what they would be.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jrnn.core.cell import Key
from jrnn.core.dtypes import state_dtype

HEADROOM = 2.0**-24


def with_slopes(
    value: Callable[..., Array],
    slopes: Callable[..., Sequence[Array]],
    most: Callable[[Array], float] | None = None,
) -> Callable[..., Array]:
    """Returns `value`, differentiated by its slopes.

    Args:
      value: Elementwise, of arrays of one type and rank.
      slopes: The same arguments -> its derivative by each, of the shape of the value.
      most: An array -> what slopes of its type are held within; None: 2^-24 of the
        largest float.
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
    """Returns (x - loc) / scale, held within `most`; None: the largest float."""
    most = largest(x) if most is None else most
    return jnp.clip(2 * ((x / 2 - loc / 2) / scale), -most, most)


def largest(like: Array) -> float:
    """Returns the largest number of a floating type."""
    return float(jnp.finfo(like.dtype).max)


def most_squared(like: Array) -> float:
    """Returns a number whose square is just within the range."""
    return math.sqrt(largest(like)) * (1 - 1e-6)


def most_multiplied(like: Array) -> float:
    """Returns the largest magnitude whose products of two are bounded as slopes."""
    return 2.0 ** (jnp.finfo(like.dtype).maxexp // 2 - 14)


def _with_headroom(like: Array) -> float:
    return largest(like) * HEADROOM


def _deviation_value(x: Array, loc: Array, unit: Array) -> Array:
    return standard(x, loc, unit, most_multiplied(x))


def _deviation_slopes(x: Array, loc: Array, unit: Array) -> tuple[Array, ...]:
    del loc
    slope = jnp.broadcast_to(1 / unit, x.shape)
    return slope, -slope, jnp.zeros_like(slope)


# (x, loc, unit) -> (x - loc) / unit, to be multiplied by others of its like; the unit
# is a constant.
deviation = with_slopes(_deviation_value, _deviation_slopes)


def positive(raw: Array, least: float) -> Array:
    """Returns least + softplus(raw + ln(e - 1)): 1 + least at raw = 0.

    Neither overflows nor reaches 0, and its slope is between 0 and 1.
    """
    # softplus(ln(e - 1)) = 1
    return jax.nn.softplus(raw + 0.5413248546129181) + least


def common(x: Array, *others: Array) -> tuple[Array, ...]:
    """Casts to one floating type: the widest, and float32 at least."""
    dtype = state_dtype(x, *others)
    return tuple(jnp.asarray(a, dtype) for a in (x, *others))


def heat(temperature: float | Array, like: Array) -> Array:
    """Returns what deviations are multiplied by: their variance by the temperature."""
    return jnp.sqrt(per_sequence(temperature, like))


def per_sequence(temperature: float | Array, like: Array) -> Array:
    """Returns a temperature, or one for each sequence, to be multiplied with `like`."""
    tau = jnp.asarray(temperature).astype(like.dtype)
    return tau.reshape(tau.shape + (1,) * (like.ndim - tau.ndim)) if tau.ndim else tau


def hide(mask: Array | None, x: Array) -> Array:
    """Returns x with 0 in the place of what is missing."""
    return x if mask is None else jnp.where(mask, x, jnp.zeros_like(x))


def total(components: int | None, terms: Array, mask: Array | None) -> Array:
    """Sums over the axis of components, if there is one; what is missing adds 0."""
    terms = hide(mask, terms)
    return terms if components is None else terms.sum(axis=-1)


def bisect(below: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Returns where an increasing function passes a value, elementwise.

    The bracket is halved 48 times in float32 and 80 times in float64, each element on
    its own: what is left of it is below the rounding of either of its ends.

    Args:
      below: x -> whether the function is below the value at x.
      low: Where it is, or a lower bound of what is sought.
      high: Where it is not, or an upper bound.
    """

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = low / 2 + high / 2
        under = below(middle)
        return jnp.where(under, middle, low), jnp.where(under, high, middle)

    steps = jnp.finfo(low.dtype).bits + 16
    return jax.lax.fori_loop(0, steps, halve, (low, high))[1]


def sample_symbols(
    key: Key, log_p: Float[Array, "*batch v"], temperature: Num[Array, "..."]
) -> Int[Array, "*batch"]:
    """Draws from softmax(log_p / temperature); at 0 the most probable symbol.

    The temperature is one number, or one for each sequence, of the batch shape.
    """
    below = log_p - log_p.max(axis=-1, keepdims=True)
    # At temperature 0 the most probable symbol keeps 0, all others fall to -inf.
    heat = jnp.maximum(temperature.astype(log_p.dtype), jnp.finfo(log_p.dtype).tiny)
    heat = heat[..., None] if heat.ndim else heat
    return jax.random.categorical(key, below / heat, axis=-1).astype(jnp.int32)
