"""Pools: one vector per sequence, from the cell's outputs at active steps."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jrnn.core.check import check_array
from jrnn.core.check_inputs import check_flags
from jrnn.core.constants import own_constants
from jrnn.core.countable import check_countable
from jrnn.core.dtypes import state_dtype
from jrnn.core.flags import silence

Pool = Callable[[Array, Bool[Array, "T *batch"]], Array]


@own_constants
def last_pool(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns the cell's output at the last active step of each sequence.

    Args:
      ys: Outputs, time first.
      active: Which steps are active.

    Returns:
      One vector per sequence; zeros for a sequence without active steps.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> ys = jnp.array([[1.0], [2.0], [0.0]])
      >>> jrnn.models.last_pool(ys, jnp.array([True, True, False])).tolist()
      [2.0]
    """
    ys, active = _check_pooled(ys, active)
    check_countable(ys.shape[0], "jrnn.models.last_pool")
    steps = jnp.arange(ys.shape[0]).reshape(-1, *(1,) * (active.ndim - 1))
    last = jnp.where(active, steps, 0).max(axis=0)
    picked = jnp.take_along_axis(ys, last[None, ..., None], axis=0)[0]
    return silence(active.any(axis=0), picked)


@own_constants
def mean_pool(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns the mean of the cell's outputs over active steps.

    Args:
      ys: Outputs, time first.
      active: Which steps are active.

    Returns:
      One vector per sequence, summed in float32 or wider and returned in the dtype of
      `ys`; zeros for a sequence without active steps.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> ys = jnp.array([[1.0], [2.0], [0.0]])
      >>> jrnn.models.mean_pool(ys, jnp.array([True, True, False])).tolist()
      [1.5]
    """
    ys, active = _check_pooled(ys, active)
    wide = state_dtype(ys)
    count = jnp.maximum(active.sum(axis=0), 1).astype(wide)
    mean = silence(active, ys).sum(axis=0, dtype=wide) / count[..., None]
    return mean.astype(ys.dtype if jnp.issubdtype(ys.dtype, jnp.inexact) else wide)


def _check_pooled(ys: Any, active: Any) -> tuple[Array, Array]:
    """Returns outputs and flags as arrays; raises unless their shapes agree."""
    ys, active = check_array("ys", ys), check_array("active", active)
    if not jnp.issubdtype(ys.dtype, jnp.floating):
        raise TypeError(f"Expected ys of a floating type, got {ys.dtype}.")
    if ys.ndim < 2:
        raise ValueError(f"Expected ys of shape (T, *batch, h), got {ys.shape}.")
    check_flags("active", active, ys.shape[0], ys.shape[1:-1])
    return ys, active
