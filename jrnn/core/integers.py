"""Integers from users, widened before they are compared with anything.

Token ids, labels, lengths and positions come in any width; bytes are uint8. In a
comparison JAX would cast the other side to that width, which turns 300 into 44 and 256
into 0. Nothing here wraps: a value that is out of range stays out of range.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Int32, Integer


def as_array(value: Any) -> Array:
    """Returns `jnp.asarray(value)`, with integers that are too large clipped.

    Without `jax_enable_x64`, JAX keeps the lower 32 bits of a 64-bit NumPy integer: the
    id 2**32 + 3 would be read as 3.
    """
    if isinstance(value, jax.Array):
        return value
    narrow = jnp.result_type(int) == jnp.int32
    if narrow and isinstance(value, list | tuple):  # NumPy 1 would let some wrap
        numbers = jax.tree.leaves(value)
        value = np.asarray(value) if all(map(_is_python, numbers)) else value
    whole = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "iu"
    if whole and value.dtype.itemsize == 8 and narrow:
        least = max(int(jnp.iinfo(value.dtype).min), -(2**31))
        value = np.clip(value, least, 2**31 - 1)
    try:
        return jnp.asarray(value)
    except OverflowError:  # a list with such an integer
        return as_array(np.asarray(value))


def _is_python(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def widen_integers(x: Array) -> Array:
    """Casts integers to int32, or to int64 if 32 bits do not hold their type.

    Other types are returned unchanged. Without `jax_enable_x64`, uint32 values above
    2**31 - 1 become that number, which no vocabulary and no sequence reaches.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer) or x.dtype in (jnp.int32, jnp.int64):
        return x
    fits = jnp.iinfo(x.dtype).max <= jnp.iinfo(jnp.int32).max
    return saturate(x, jnp.int32 if fits else jnp.result_type(int))


def saturate(x: Integer[Array, "..."], dtype: DTypeLike) -> Integer[Array, "..."]:
    """Casts integers to `dtype`, and clips those that it cannot hold."""
    given, wanted = jnp.iinfo(x.dtype), jnp.iinfo(dtype)
    if given.max > wanted.max:
        x = jnp.minimum(x, jnp.asarray(wanted.max, x.dtype))
    if given.min < wanted.min:
        x = jnp.maximum(x, jnp.asarray(wanted.min, x.dtype))
    return x.astype(dtype)


def token_ids(x: Integer[Array, "..."]) -> Int32[Array, "..."]:
    """Returns ids as int32, the type in which rows are looked up and symbols stored."""
    return saturate(x, jnp.int32)
