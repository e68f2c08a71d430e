r"""Log-densities whose gradients are told by hand, finite at any finite number.

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
from jaxtyping import Array

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
    told = jax.custom_jvp(value)

    def jvp(
        primals: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        pairs = zip(slopes(*primals), tangents, strict=True)
        hold = lambda slope: jnp.clip(slope, -most(slope), most(slope))
        moved = [hold(slope) * tangent for slope, tangent in pairs]
        return told(*primals), sum(moved[1:], moved[0])

    told.defjvp(jvp)
    return told


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
    """Returns a number of which products of two have as much headroom as slopes."""
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
