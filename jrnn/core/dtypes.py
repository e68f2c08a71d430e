"""Dtypes of states and outputs, and which leaves of a tree have a derivative.

A state has the result type of parameters and inputs, or float32 where that is narrower;
an output has the type of the inputs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.cell import State


def float_leaves(tree: Any) -> list[Array]:
    """Returns the leaves of `tree` that have a floating or complex type."""
    leaves = jax.tree.leaves(tree)
    return [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]


def state_dtype(*trees: Any) -> DTypeLike:
    """Returns the dtype of a state for these parameters and inputs: float32 or float64.

    The widest floating type among the leaves, or float32 where that is narrower: a
    state kept in bfloat16 or float16 drifts. Integer leaves (token ids) are ignored.
    """
    bits = [jnp.finfo(x.dtype).bits for x in float_leaves(trees)]
    return jnp.float64 if max(bits, default=32) == 64 else jnp.float32


def cast_state(state: State, dtype: DTypeLike) -> State:
    """Casts floating leaves to `dtype`, complex ones to the matching complex type."""
    pair = jnp.complex128 if jnp.dtype(dtype) == jnp.float64 else jnp.complex64

    def cast(leaf: Array) -> Array:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return leaf.astype(pair)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf.astype(dtype)
        return leaf

    return jax.tree.map(cast, state)


def show(y: Array, x: Array, W_x: Array) -> Array:
    """Casts an output to the type of the inputs, or of the parameters for token ids."""
    integer = jnp.issubdtype(x.dtype, jnp.integer)
    return y.astype(W_x.dtype if integer else x.dtype)


def split_floats(tree: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Returns the differentiable leaves, and a function that puts leaves back."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]

    def merge(floats: list[Array]) -> Any:
        given = iter(floats)
        both = zip(leaves, floating, strict=True)
        merged = [next(given) if is_float else leaf for leaf, is_float in both]
        return jax.tree.unflatten(structure, merged)

    floats = [x for x, is_float in zip(leaves, floating, strict=True) if is_float]
    return floats, merge


def place_floats(xs: Any, floats: list[Array]) -> Any:
    """Returns the structure of `xs` with `floats` at its floating leaves, else None."""
    leaves, structure = jax.tree.flatten(xs)
    given = iter(floats)
    placed = [
        next(given) if jnp.issubdtype(leaf.dtype, jnp.inexact) else None
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, placed)
