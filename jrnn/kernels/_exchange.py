"""How programs that share a matrix exchange values, and wait for one another.

An exchanged array is initially filled with -1, the bits of a NaN that no program sends.
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
    """Returns the bits of h, with another NaN for the one that means "not arrived"."""
    bits = bits_of(h)
    return jnp.where(bits == -1, bits ^ 1, bits)


def floats(bits: Array, dtype: Any) -> Array:
    return jax.lax.bitcast_convert_type(bits, dtype)


def volatile(ref: Any) -> Array:
    """Reads values of other programs, bypassing this multiprocessor's own cache."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    if hasattr(triton, "load"):
        return triton.load(ref, volatile=True)
    # Only in jax 0.7; newer versions call it triton.load.
    load: Any = pallas.load  # pyright: ignore[reportAttributeAccessIssue]
    return load(ref, (slice(None),) * len(ref.shape), volatile=True)


def arrived(
    places: list[Any], missing: Callable[[Array], Array], patience: Array
) -> tuple[list[Array], Array]:
    """Reads repeatedly until nothing is missing.

    Args:
      places: References to read.
      missing: bits -> which of them have not arrived.
      patience: How often to read at most; 1 once a program has given up.

    Returns:
      The values, or the bits of NaN if the program gave up now or before, and the
      patience for the next call.
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
    # Triton's passes require that the whole carry is read after the loop.
    left, values = jax.lax.while_loop(again, ask, (patience, nothing))
    gave_up = (left == 0) | (patience == 1)
    nan = jnp.where(gave_up, jnp.int32(-1), jnp.int32(0))
    values = [value | nan.astype(value.dtype) for value in values]
    return values, jnp.where(gave_up, jnp.int32(1), patience)
