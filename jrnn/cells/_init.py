"""Initialisers shared by the cells: one constant for each default.

`jax.nn.initializers.orthogonal()` returns a new, unequal function at each call, so the
defaults are made once, here: equal arguments then give the identical cell.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn._base import Key

Initializer = Callable[..., Array]

# Variance 1 / input_size (LeCun et al. 1998, Efficient BackProp, section 4.6).
LECUN_NORMAL: Initializer = jax.nn.initializers.lecun_normal()
# All singular values 1: a step neither shrinks nor stretches (Saxe et al. 2014).
ORTHOGONAL: Initializer = jax.nn.initializers.orthogonal()
ZEROS: Initializer = jax.nn.initializers.zeros


def one_hot_normal(
    key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Draws a W_x for token ids: independent standard normal numbers.

    Of k inputs exactly one is 1, so one row of W_x is all that a unit sums, and the
    variance that keeps the sum's at 1 is 1, where the default, meant for k features,
    takes 1 / k and lets the symbols whisper (LeCun et al. 1998, Efficient BackProp,
    section 4.6, for one term).

    Args:
      key: Of the draw.
      shape: (k, h) for each gate.
      dtype: Of the result.

    Returns:
      An array of that shape and type.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(69, 128, input_init=jrnn.one_hot_normal)
      >>> round(float(cell.init(jax.random.key(0)).W_x.std()), 1)
      1.0
    """
    return jax.random.normal(key, shape, dtype)


def small_normal(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Normal with variance 4 / 5h, as ParaRNN draws the recurrent weights of a gate."""
    return jax.random.normal(key, shape, dtype) * (0.8 / shape[-1]) ** 0.5


def draw(
    initializer: Initializer,
    key: Key,
    shape: tuple[int, ...],
    dtype: DTypeLike | None,
    gates: int = 1,
) -> Array:
    """Draws one array of `shape` per gate and puts them side by side.

    Each gate is drawn on its own, for an orthogonal matrix over (H, 4H) would leave
    the gates nearly singular, and in at least float32, for not every initialiser
    knows the narrow types.

    Raises:
      TypeError: `dtype` is not a floating type.
    """
    dtype = jnp.dtype(jnp.float32 if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"Expected a floating dtype for parameters, got {dtype.name}; pass one of "
            "float32, bfloat16, float16, float64."
        )
    wide = jnp.float32 if dtype.itemsize < 4 else dtype
    keys = jax.random.split(key, gates)
    drawn = [initializer(keys[gate], shape, wide) for gate in range(gates)]
    return jnp.concatenate(drawn, axis=-1).astype(dtype)
