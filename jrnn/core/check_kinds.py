"""The dtypes and shapes of the leaves of a tree, and how errors show them.

Leaves are whatever a user put into the tree: arrays, numbers, or anything else.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WORDS = {
    jnp.floating: ("floating", "cast it to the parameters' type"),
    jnp.complexfloating: ("floating or complex", "cast it to complex64"),
}


def dtype_of(leaf: Any) -> Any:
    """Returns the dtype of an array or a number; None for anything else."""
    if isinstance(leaf, str | bytes | type):  # which NumPy reads as names of dtypes
        return None
    try:
        return jnp.result_type(leaf)
    except (TypeError, ValueError, OverflowError):
        return None


def shape_of(leaf: Any) -> tuple[int, ...]:
    """Returns the shape of an array; () for anything else."""
    shape = getattr(leaf, "shape", None)
    return shape if isinstance(shape, tuple) else np.shape(leaf)


def told_type(leaf: Any) -> str:
    """Returns the dtype of an array or a number, else the class name, for an error."""
    dtype = dtype_of(leaf)
    return type(leaf).__name__ if dtype is None else str(dtype)


def fit_kind(name: str, leaf: Any, want: Any) -> Any:
    """Returns an array of the kind of `want`; a real one is made complex if needed.

    Raises:
      TypeError: `leaf` is complex and `want` real, or `leaf` is not of that kind.
    """
    got, kind = dtype_of(leaf), _kind(want)
    if got is not None and (_kind(got) is kind or want == got):
        return leaf
    if kind is jnp.complexfloating and _kind(got) is jnp.floating:
        wide = got if jnp.dtype(got).itemsize >= 4 else jnp.float32
        real = jnp.asarray(leaf, wide)
        return jax.lax.complex(real, jnp.zeros_like(real))
    words, remedy = _WORDS.get(kind, (str(want), f"cast it to {want}"))
    if _kind(got) is jnp.complexfloating:
        remedy = "the cell's state is real: pass its real part"
    raise TypeError(
        f"Expected a {words} state, got {name} of type {told_type(leaf)}; {remedy}."
    )


def _kind(dtype: Any) -> Any:
    if dtype is None:
        return None
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), None)


class _Leaf:
    """Prints as * in place of an array."""

    def __repr__(self) -> str:
        return "*"


def sketch(tree: Any) -> str:
    """Returns a tree as text, with * for each array: "LSTMState(h=*, c=*)"."""
    text = repr(jax.tree.map(lambda _: _Leaf(), tree))
    return text if text != "*" else "an array"
