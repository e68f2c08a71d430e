"""Arrays beside each other on a mesh of devices.

Inside `jax.shard_map`, and on a mesh with explicit axes, the type of an array says over
which axes of the mesh it varies or is split, and what a loop carries may not change its
type. A state of zeros knows nothing of this, and parameters differ from inputs in it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.dtypes import float_leaves


def align(
    xs: Array, batch: tuple[int, ...], params: Any, states: Any, timed: Any
) -> Any:
    """Gives floats the varying axes of all that is given, and states the split of `xs`.

    A sum has the type that its terms share, and a zero changes no number: what JAX
    inserts for it is differentiated to the sum over devices that a gradient needs.

    Args:
      xs: Inputs (T, *batch, ...).
      batch: The shape of the batch.
      params: A tree of parameters.
      states: A tree of arrays (*batch, ...).
      timed: A tree of arrays (T, *batch, ...): noise, flags, a guess.

    Returns:
      Inputs, parameters, states and what is timed; the very same where no mesh is set.
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
