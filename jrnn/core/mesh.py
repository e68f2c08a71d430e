"""Giving arrays on a mesh of devices the types that a loop's carry needs.

Inside `jax.shard_map`, and on a mesh with explicit axes, the type of an array includes
the mesh axes over which it varies or is split, and a loop may not change the type of
its carry. A state of zeros has no such axes, and parameters have others than inputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.dtypes import float_leaves


def align(
    xs: Array, batch: tuple[int, ...], params: Any, states: Any, timed: Any
) -> Any:
    """Gives floats the varying axes of all arguments, and states the split of `xs`.

    It adds a zero that has the wanted type: the sum takes that type, and no number
    changes. The derivative of the casts that JAX inserts is the sum over devices that a
    gradient needs.

    Args:
      xs: Inputs (T, *batch, ...).
      batch: The shape of the batch.
      params: A tree of parameters.
      states: A tree of arrays (*batch, ...).
      timed: A tree of arrays (T, *batch, ...): noise, flags, a guess.

    Returns:
      xs, params, states and timed; unchanged if no mesh is set.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return xs, params, states, timed
    given = [xs, *float_leaves((params, states, timed))]
    zeros = [jnp.zeros_like(leaf, jnp.float32).sum() for leaf in given]
    zero = sum(zeros[1:], zeros[0])
    step = jnp.zeros_like(xs[0], jnp.float32)
    split = zero + step.sum(axis=tuple(range(len(batch), step.ndim)))

    def add(zero: Array, leaf: Array) -> Array:
        zero = zero.reshape(zero.shape + (1,) * (leaf.ndim - zero.ndim))
        return (
            leaf ^ (zero > 0) if leaf.dtype == bool else leaf + zero.astype(leaf.dtype)
        )

    def each(zero: Array, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: add(zero, leaf), tree)

    if jnp.issubdtype(xs.dtype, jnp.inexact):
        xs = add(zero, xs)
    return xs, each(zero, params), each(split, states), each(split[None], timed)
