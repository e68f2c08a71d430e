"""Dropout of input features, with a new mask at each step.

    x'_t = d_t * x_t / (1 - rate),   d_t = 1 with probability 1 - rate, else 0

Noise is drawn before the loop, so that it is the same under every method.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.core.cell import Cell, Key
from jrnn.core.check import check_cell, check_rate
from jrnn.core.check_inputs import check_features
from jrnn.core.memoize import memoize
from jrnn.core.seams import noise_of
from jrnn.wrappers._wiring import around


@memoize
def dropout(cell: Cell, rate: float) -> Cell:
    """Makes a cell with dropout of its input features, with a new mask at each step.

    Around each child of a `stack` but the first, this is dropout between layers
    (Zaremba et al. 2014, https://arxiv.org/abs/1409.2329). Features that are kept are
    divided by 1 - rate. Without a `key` nothing is dropped, and elapsed time
    (`cell.elapsed`) never is.

    Args:
      cell: Any cell that reads floats.
      rate: Probability that a feature is dropped, in [0, 1).

    Returns:
      A cell with the params and state of `cell`; at rate 0, `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `rate` is outside [0, 1).

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.stack(jrnn.gru(3, 4), jrnn.dropout(jrnn.gru(4, 4), 0.5))
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs, key=jax.random.key(1))[1].shape
      (7, 4)
    """
    check_cell(cell)
    check_rate("rate", rate)
    if rate == 0:
        return cell

    def noise(key: Key, steps: int, batch_shape: tuple[int, ...]) -> Any:
        key_in, key_cell = jax.random.split(key)
        shape = (steps, *batch_shape, cell.spec.input_size)
        inner = noise_of(cell, key_cell, steps, batch_shape)
        return jax.random.bernoulli(key_in, 1 - rate, shape), inner

    def inputs(x: Array, noise: Any) -> tuple[Array, Any]:
        kept, inner = noise
        return drop_features(x, kept, rate, cell.elapsed), inner

    return around("dropout", cell, inputs=inputs, noise=noise, rate=rate)


def drop_features(
    x: Array, kept: Array, rate: float, elapsed: int | None = None
) -> Array:
    """Returns x / (1 - rate) where `kept`, 0 elsewhere; elapsed time unchanged."""
    check_features("dropout", x)
    scaled = x / jnp.asarray(1 - rate, x.dtype)
    dropped = jnp.where(kept, scaled, jnp.zeros_like(x))
    if elapsed is None:
        return dropped
    is_time = np.arange(x.shape[-1]) == elapsed % x.shape[-1]
    return jnp.where(is_time.reshape((1,) * (x.ndim - 1) + (-1,)), x, dropped)
