"""What the methods share: selecting by activity, and cutting time into chunks."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Precision = str | None  # what `jax.default_matmul_precision` takes


def products_at(precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which every matrix product runs at `precision`."""
    if precision is None:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(precision)


def select(active: Bool[Array, "*lead"] | None, new: Any, old: Any) -> Any:
    """Returns `new` where active, `old` elsewhere, leaf by leaf; None: all active."""
    if active is None:
        return new

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(
            active.reshape(active.shape + (1,) * (a.ndim - active.ndim)), a, b
        )

    return jax.tree.map(choose, new, old)


def silence(active: Bool[Array, "*lead"] | None, tree: Any) -> Any:
    """Returns `tree` where active, zeros elsewhere."""
    if active is None:
        return tree
    return select(active, tree, jax.tree.map(jnp.zeros_like, tree))


def chunk_shape(steps: int, chunk: int) -> tuple[int, int]:
    """Returns (count, length) of the chunks that `steps` are cut into.

    A length that divides `steps` is preferred, from half of `chunk` on. Where there is
    none, the last chunk is filled up with inactive steps: count * length > steps.
    """
    if steps <= chunk:
        return 1, steps
    for length in range(chunk, chunk // 2, -1):
        if steps % length == 0:
            return steps // length, length
    count = -(-steps // chunk)
    return count, -(-steps // count)


def cut(tree: Any, count: int, length: int) -> Any:
    """Reshapes (T, ...) to (count, length, ...), filled up with zeros at the end."""

    def one(leaf: Array) -> Array:
        missing = count * length - leaf.shape[0]
        if missing:
            leaf = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return leaf.reshape(count, length, *leaf.shape[1:])

    return jax.tree.map(one, tree)


def join(tree: Any, steps: int) -> Any:
    """Reshapes (count, length, ...) to (T, ...), without what was filled up."""

    def one(leaf: Array) -> Array:
        return leaf.reshape(-1, *leaf.shape[2:])[:steps]

    return jax.tree.map(one, tree)


def fill_active(
    active: Bool[Array, "T *batch"] | None, steps: int, filled: int
) -> Bool[Array, "..."] | None:
    """Returns which steps are active where `steps` are filled up to `filled`."""
    if active is None and steps == filled:
        return None
    return jnp.arange(filled) < steps if active is None else active
