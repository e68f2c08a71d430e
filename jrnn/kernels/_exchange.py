"""What programs that share a matrix write to each other, and how one waits for another.

An array of the exchange begins filled with -1, the bits of a NaN that no program sends.
A program reads a place until these bits are gone (`arrived`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

PATIENCE = 2**20  # how often a program reads one place: about a second


def integer(dtype: Any) -> Any:
    return {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}[jnp.dtype(dtype).itemsize]


def bits_of(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, integer(x.dtype))


def sendable(h: Array) -> Array:
    """Returns bits of h, another NaN for the one that stands for nothing."""
    bits = bits_of(h)
    return jnp.where(bits == -1, bits ^ 1, bits)


def floats(bits: Array, dtype: Any) -> Array:
    return jax.lax.bitcast_convert_type(bits, dtype)


def volatile(ref: Any) -> Array:
    """Reads what other programs write: not from this multiprocessor's own cache."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    if hasattr(triton, "load"):
        return triton.load(ref, volatile=True)
    # In jax 0.7 alone; what newer ones call triton.load.
    load: Any = pallas.load  # pyright: ignore[reportAttributeAccessIssue]
    return load(ref, (slice(None),) * len(ref.shape), volatile=True)


def arrived(
    places: list[Any], missing: Callable[[Array], Array], patience: Array
) -> tuple[list[Array], Array]:
    """Reads again and again until nothing is missing.

    Args:
      places: References to what is read.
      missing: bits -> which have not arrived.
      patience: How often to ask; 1 once a program has given up.

    Returns:
      What was read, the bits of NaN if it gave up now or before, and the patience that
      is left for the next.
    """

    def again(carry: Any) -> Array:
        return carry[0] > 0

    def ask(carry: Any) -> Any:
        left, _ = carry
        values = [volatile(place) for place in places]
        absent = [jnp.max(missing(value).astype(jnp.int32)) for value in values]
        absent = functools.reduce(jnp.bitwise_or, absent)
        return jnp.where(absent > 0, left - 1, jnp.int32(-1)), values

    nothing = [jnp.zeros(place.shape, place.dtype) for place in places]
    # All that the loop carries is read after it: Triton's passes want it so.
    left, values = jax.lax.while_loop(again, ask, (patience, nothing))
    gave_up = (left == 0) | (patience == 1)
    nan = jnp.where(gave_up, jnp.int32(-1), jnp.int32(0))
    values = [value | nan.astype(value.dtype) for value in values]
    return values, jnp.where(gave_up, jnp.int32(1), patience)
