"""Checks arguments of training: optimisers, trees of arrays, sequences, batches."""

import inspect
from collections.abc import Iterable
from typing import Any

import jax
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.check import check_array
from jrnn.core.check_kinds import dtype_of, told_type


def check_optimizer(optimizer: Any) -> None:
    """Raises TypeError unless `optimizer` is an optax optimiser, not a factory."""
    parts = (getattr(optimizer, name, None) for name in ("init", "update"))
    if inspect.isclass(optimizer) or not all(map(callable, parts)):
        shown = getattr(optimizer, "__name__", tell(optimizer))
        raise TypeError(
            "Expected optimizer to be an optax optimizer, made by a factory such as "
            f"optax.adam(1e-3), got {shown}; a factory must be called."
        )


def check_arrays(name: str, tree: Any) -> None:
    """Raises TypeError unless every leaf of a tree is an array or a number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keyed = hasattr(leaf, "dtype")
        if not keyed and dtype_of(leaf) is None:
            raise TypeError(
                f"Expected {name} to be a tree of arrays, got {told_type(leaf)} at "
                f"{name}{jax.tree_util.keystr(path)}."
            )


def check_long(name: str, xs: Any) -> Any:
    """Returns a sequence unchanged; raises unless it has a time axis."""
    array: Array = check_array(name, xs)
    if array.ndim < 1:
        raise ValueError(f"Expected {name} of shape (T, ...), got a scalar.")
    return xs if hasattr(xs, "shape") else array


def check_batches(batches: Any) -> None:
    """Raises TypeError unless `batches` is iterable."""
    if not isinstance(batches, Iterable) or isinstance(batches, str):
        raise TypeError(
            "Expected batches to be an iterable, one batch per step, got "
            f"{tell(batches)}."
        )
