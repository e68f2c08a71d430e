"""Merges: one output from those of the two directions of `jrnn.bidirectional`.

y_t = (f_t, b_t)           concat_merge
y_t = f_t + b_t            sum_merge
y_t = (f_t + b_t) / 2      mean_merge
y_t = f_t * b_t            product_merge, elementwise
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.check import check_array
from jrnn.core.constants import own_constants
from jrnn.core.tree import keeps_zeros

Merge = Callable[[Array, Array], Array]


@keeps_zeros
@own_constants
def concat_merge(
    y_f: Float[Array, "*lead f"], y_b: Float[Array, "*lead b"]
) -> Float[Array, "*lead n"]:
    """Returns the outputs of both directions side by side.

    Args:
      y_f: Outputs of the forward cell.
      y_b: Outputs of the backward cell, with the same leading axes.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> jrnn.wrappers.concat_merge(jnp.array([1.0, 2.0]), jnp.array([3.0])).tolist()
      [1.0, 2.0, 3.0]
    """
    y_f, y_b = _outputs(y_f, y_b)
    if y_f.shape[:-1] != y_b.shape[:-1]:
        raise ValueError(
            f"Expected y_f and y_b of equal leading axes, got {y_f.shape} and "
            f"{y_b.shape}."
        )
    return jnp.concatenate([y_f, y_b], axis=-1)


@keeps_zeros
@own_constants
def sum_merge(
    y_f: Float[Array, "*lead n"], y_b: Float[Array, "*lead n"]
) -> Float[Array, "*lead n"]:
    """Returns the sum of the outputs of both directions.

    Args:
      y_f: Outputs of the forward cell.
      y_b: Outputs of the backward cell, of the same shape.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> forward, backward = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      >>> jrnn.wrappers.sum_merge(forward, backward).tolist()
      [4.0, 6.0]
    """
    y_f, y_b = _alike(y_f, y_b)
    return y_f + y_b


@keeps_zeros
@own_constants
def mean_merge(
    y_f: Float[Array, "*lead n"], y_b: Float[Array, "*lead n"]
) -> Float[Array, "*lead n"]:
    """Returns the mean of the outputs of both directions.

    Args:
      y_f: Outputs of the forward cell.
      y_b: Outputs of the backward cell, of the same shape.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> forward, backward = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      >>> jrnn.wrappers.mean_merge(forward, backward).tolist()
      [2.0, 3.0]
    """
    y_f, y_b = _alike(y_f, y_b)
    return 0.5 * (y_f + y_b)


@keeps_zeros
@own_constants
def product_merge(
    y_f: Float[Array, "*lead n"], y_b: Float[Array, "*lead n"]
) -> Float[Array, "*lead n"]:
    """Returns the elementwise product of the outputs of both directions.

    Args:
      y_f: Outputs of the forward cell.
      y_b: Outputs of the backward cell, of the same shape.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> forward, backward = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      >>> jrnn.wrappers.product_merge(forward, backward).tolist()
      [3.0, 8.0]
    """
    y_f, y_b = _alike(y_f, y_b)
    return y_f * y_b


def _outputs(y_f: Any, y_b: Any) -> tuple[Array, Array]:
    """Returns two outputs as arrays; raises unless both are floating vectors."""
    arrays = check_array("y_f", y_f), check_array("y_b", y_b)
    for name, array in zip(("y_f", "y_b"), arrays, strict=True):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"Expected {name} of a floating type, got {array.dtype}.")
        if array.ndim < 1:
            raise ValueError(f"Expected {name} of shape (..., n), got a scalar.")
    return arrays


def _alike(y_f: Any, y_b: Any) -> tuple[Array, Array]:
    y_f, y_b = _outputs(y_f, y_b)
    if y_f.shape != y_b.shape:
        raise ValueError(
            f"Expected y_f and y_b of equal shape, got {y_f.shape} and {y_b.shape}; "
            "jrnn.wrappers.concat_merge takes cells of any output sizes."
        )
    return y_f, y_b
