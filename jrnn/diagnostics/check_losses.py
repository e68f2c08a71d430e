"""Checks losses: functions of the final state and the outputs, returning a scalar."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import check_function
from jrnn.core.cell import Cell, Params, State

Loss = Callable[[State, Array], Array]  # (final state, outputs) -> scalar


def check_loss(loss: Any, cell: Cell, params: Params, xs: Array, state: State) -> None:
    """Raises TypeError unless `loss` is a function that returns one number.

    The loss is traced with abstract values of the final state and the outputs; nothing
    is executed.
    """
    check_function("loss", loss)
    batch = xs.shape[:-1] if jnp.issubdtype(xs.dtype, jnp.inexact) else xs.shape
    floats = jnp.issubdtype(xs.dtype, jnp.floating)
    dtype = xs.dtype if floats else jax.tree.leaves(params)[0].dtype
    ys = jax.ShapeDtypeStruct((*batch, cell.spec.output_size), dtype)
    value = jax.eval_shape(loss, state, ys)
    got = jax.tree.leaves(value)
    if len(got) != 1 or got[0].shape or not jnp.issubdtype(got[0].dtype, jnp.floating):
        told = [f"{leaf.dtype} of shape {leaf.shape}" for leaf in got]
        raise TypeError(
            "Expected loss to return one real number, such as ys.sum(), got "
            f"{', '.join(told) or 'nothing'}."
        )
