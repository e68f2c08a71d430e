"""Checks of the arguments of draws: keys, dtypes, batch shapes and temperatures."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.caches import bounded


def check_key(key: Any, name: str = "key") -> Any:
    """Returns None or a typed key; raises TypeError unless given None or one key."""
    if key is not None and not _is_key(key):
        raise TypeError(
            f"Expected {name} to be one key, made by jax.random.key(seed), or None, "
            f"got {_told_key(key)}."
        )
    return typed(key)


def check_given_key(key: Any, name: str = "key") -> Any:
    """Returns a typed key; raises TypeError unless given one key."""
    if not _is_key(key):
        raise TypeError(
            f"Expected {name} to be one key, made by jax.random.key(seed), got "
            f"{_told_key(key)}."
        )
    return typed(key)


def typed(key: Any) -> Any:
    """Wraps a raw key as a typed one, whose dtype names its generator; None is kept."""
    if key is None or jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def _is_key(key: Any) -> bool:
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is None:
        return False
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return shape == ()
    default = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue] made when jax is imported
    return dtype == np.uint32 and shape == _raw_shape(default)


@bounded
def _raw_shape(implementation: str) -> tuple[int, ...]:
    """Returns the shape of a raw key, such as jax.random.PRNGKey returns."""
    make = lambda: jax.random.key_data(jax.random.key(0, impl=implementation))
    return jax.eval_shape(make).shape


def _told_key(key: Any) -> str:
    several = getattr(key, "ndim", 0) > 0
    remedy = "; take one of them, or jax.vmap over all" if several else ""
    return tell(key) + remedy


def check_dtype(dtype: DTypeLike | None, name: str = "dtype") -> jnp.dtype:
    """Returns the dtype of parameters, float32 for None; raises unless floating."""
    try:
        known = jnp.dtype(jnp.float32 if dtype is None else dtype)
    except TypeError:
        known = None
    if known is None or not jnp.issubdtype(known, jnp.floating):
        raise TypeError(
            f"Expected a floating {name} for parameters, got "
            f"{tell(dtype) if known is None else known.name}; pass one of float32, "
            "bfloat16, float16, float64."
        )
    return known


def check_batch_shape(batch_shape: Any, name: str = "batch_shape") -> tuple[int, ...]:
    """Returns a batch shape as a tuple; raises unless it consists of sizes."""
    if not isinstance(batch_shape, tuple | list):
        size = getattr(batch_shape, "ndim", 0) == 0 and hasattr(
            batch_shape, "__index__"
        )
        remedy = f"; a batch of one axis is ({batch_shape},)" if size else ""
        raise TypeError(
            f"Expected {name} to be a tuple of sizes such as (4,), got "
            f"{tell(batch_shape)}{remedy}."
        )
    return tuple(_size(name, size, batch_shape) for size in batch_shape)


def _size(name: str, size: Any, batch_shape: Any) -> Any:
    if type(size) is int and size >= 0 or jax.export.is_symbolic_dim(size):
        return size
    try:
        known = None if isinstance(size, bool | np.bool_) else operator.index(size)
    except TypeError:
        known = None
    if known is None:
        raise TypeError(
            f"Expected {name} to be a tuple of integers, got {tell(batch_shape)}."
        )
    if known < 0:
        raise ValueError(f"Expected {name} of sizes of at least 0, got {batch_shape}.")
    return known


def check_temperature(temperature: Any, batch: tuple[int, ...]) -> Array:
    """Returns a temperature as floats: one number, or one for each sequence.

    Of one dtype, whatever is given, so that no number needs a program of its own.

    Raises:
      TypeError: It is neither a real number nor an array of them.
      ValueError: Its shape is neither () nor the batch's, or a concrete value is
        negative or NaN.
    """
    dtype = getattr(temperature, "dtype", None)
    try:
        array = jnp.asarray(temperature)
    except (TypeError, ValueError, OverflowError):
        array = None
    real = array is not None and any(
        jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)
    )
    if array is None or not real:
        raise TypeError(
            "Expected temperature to be a number, or an array of one for each sequence,"
            f" got {tell(temperature if dtype is None else array)}."
        )
    if array.shape not in ((), batch):
        raise ValueError(
            "Expected temperature to be one number, or one for each sequence, of shape "
            f"{batch}, got shape {array.shape}."
        )
    if not isinstance(array, Tracer):
        _check_not_negative(temperature, np.asarray(array))
    return array.astype(jnp.result_type(float))


def _check_not_negative(temperature: Any, known: np.ndarray) -> None:
    wrong = ~(known.astype(np.float64) >= 0)
    if wrong.any():
        shown = temperature if known.ndim == 0 else known[wrong].flat[0]
        raise ValueError(
            f"Expected a temperature of at least 0, got {shown}; 0 takes the most "
            "probable symbol, 1 samples from the model."
        )
