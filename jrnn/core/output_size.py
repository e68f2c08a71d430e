"""The output size of a user's function of vectors, asked of the function itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LEAD = (2, 3)  # axes of time and batch: any function of the last axis takes any


def output_size(name: str, function: Callable[..., Any], *sizes: int) -> int:
    """Returns n, where a function maps arrays (..., size) to one array (..., n).

    It is traced once, and computes nothing.

    Args:
      name: Of the argument that holds the function.
      function: Of one array for each of `sizes`.
      *sizes: Of their last axes.

    Raises:
      ValueError: The function raises, or returns anything else, or another type.
    """
    given = [jax.ShapeDtypeStruct((*LEAD, size), jnp.float32) for size in sizes]
    shapes = " and ".join(f"(..., {size})" for size in sizes)
    told = getattr(function, "__name__", repr(function))
    words = (
        f"Expected {name} to take floats of shape {shapes}, and to return floats (..., "
        f"n) of their type, for any leading axes, got {told}, which"
    )
    try:
        y = jax.eval_shape(function, *given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{words} raised: {error}") from error
    shape, dtype = getattr(y, "shape", None), getattr(y, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(f"{words} returned a {type(y).__name__}.")
    if dtype != jnp.float32 or shape[:-1] != LEAD or not shape[-1]:
        raise ValueError(
            f"{words} returned {dtype} of shape {shape} for float32 with leading axes "
            f"{LEAD}."
        )
    return shape[-1]
