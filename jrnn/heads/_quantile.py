"""Where a distribution function reaches a probability, by bisection."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


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
