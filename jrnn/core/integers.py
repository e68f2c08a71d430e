"""Integers of users: widened before they are compared with anything.

Token ids, labels, lengths and positions come in any width; bytes are uint8. JAX would
cast the other side of a comparison to that width, where 300 is 44 and 256 is 0. Out of
range stays out of range: nothing here wraps.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Int32, Integer


def as_array(value: Any) -> Array:
    """Returns `jnp.asarray(value)`, but integers too large for it become its limits.

    Without `jax_enable_x64`, JAX keeps the lower 32 bits of a NumPy integer of 64: the
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
    """Returns integers as int32, or int64 where 32 bits do not hold their type.

    What is no integer is returned as it is. Where JAX has no int64, values of uint32
    above 2**31 - 1 become that number, which no vocabulary and no sequence reaches.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer) or x.dtype in (jnp.int32, jnp.int64):
        return x
    fits = jnp.iinfo(x.dtype).max <= jnp.iinfo(jnp.int32).max
    return saturate(x, jnp.int32 if fits else jnp.result_type(int))


def saturate(x: Integer[Array, "..."], dtype: DTypeLike) -> Integer[Array, "..."]:
    """Casts integers; what `dtype` does not hold becomes the nearest that it does."""
    given, wanted = jnp.iinfo(x.dtype), jnp.iinfo(dtype)
    if given.max > wanted.max:
        x = jnp.minimum(x, jnp.asarray(wanted.max, x.dtype))
    if given.min < wanted.min:
        x = jnp.maximum(x, jnp.asarray(wanted.min, x.dtype))
    return x.astype(dtype)


def token_ids(x: Integer[Array, "..."]) -> Int32[Array, "..."]:
    """Returns ids as int32, in which rows are looked up and models keep symbols."""
    return saturate(x, jnp.int32)
