"""Cutting time into segments and chunks of steps, and joining them again.

A number of steps may be a symbol (`jax.export.symbolic_shape`); chunks then have a
fixed length, and their number is a symbol.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.layout import merge_axes
from jrnn.core.method import Sequence, Size

# How many chunks are a segment, and segments a longer one, for a symbolic number of
# steps, which has no known root. Sequences are padded to whole segments.
GROUP = 8


def chunk_shape(steps: Size, chunk: int) -> tuple[Size, int]:
    """Returns (count, length) of the chunks that `steps` are cut into.

    Prefers a length between chunk / 2 and 3 chunk / 2 that divides `steps`. If there is
    none, the last chunk is padded with inactive steps: count * length > steps. If
    `steps` is a symbol, the length is `chunk`.
    """
    if not isinstance(steps, int):
        return (steps + chunk - 1) // chunk, chunk
    if steps <= chunk:
        return 1, steps
    for length in (*range(chunk, chunk // 2, -1), *range(chunk + 1, 3 * chunk // 2)):
        if steps % length == 0:
            return steps // length, length
    count = -(-steps // chunk)
    return count, -(-steps // count)


def nested_shape(steps: Size, chunk: int, levels: int) -> tuple[Size, ...]:
    """Returns (*segments, count, length): time cut `levels` times, then into chunks.

    Each level makes about the same number of cuts, so that with one level both the
    number of segments and the steps in each grow as the square root of T. With as many
    levels as possible, each halves time, until about one chunk is left. If `steps` is a
    symbol, each level joins `GROUP` parts of the level below.
    """
    if not isinstance(steps, int):
        within = (GROUP,) * levels
        return (chunk_shape(steps, math.prod(within) * chunk)[0], *within, chunk)
    halvings = max(0, round(math.log2(steps / chunk)))
    if levels > 0 and levels >= halvings:
        return (2,) * (halvings - 1) + (min(halvings, 1) + 1, -(-steps // 2**halvings))
    segments = []
    for level in range(levels, 0, -1):
        within = max(round(steps ** (level / (level + 1))), min(chunk, steps))
        count = -(-steps // within)
        segments.append(count)
        steps = -(-steps // count)
    return (*segments, *chunk_shape(steps, chunk))


def cut(tree: Any, shape: tuple[Size, ...]) -> Any:
    """Reshapes (T, ...) to (*shape, ...), padded with zeros at the end."""

    def one(leaf: Array) -> Array:
        missing = math.prod(shape) - leaf.shape[0]
        if missing != 0:
            leaf = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return leaf.reshape(*shape, *leaf.shape[1:])

    return jax.tree.map(one, tree)


def join(tree: Any, shape: tuple[Size, ...], steps: Size) -> Any:
    """Reshapes (*shape, ...) to (T, ...), and drops the padding."""

    def one(leaf: Array) -> Array:
        filled = math.prod(shape)
        return leaf.reshape(filled, *leaf.shape[len(shape) :])[:steps]

    return jax.tree.map(one, tree)


def reshape_time(tree: Any, axes: int, shape: tuple[Size, ...]) -> Any:
    """Reshapes the leading `axes` of each leaf, which together are time, to `shape`."""
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[axes:]), tree)


def cut_sequence(sequence: Sequence, shape: tuple[Size, ...]) -> Sequence:
    """Cuts a sequence; the steps that pad it are inactive."""
    steps, filled = sequence.steps, math.prod(shape)
    active = sequence.active
    if active is None and steps != filled:
        active = jnp.concatenate(
            [jnp.ones(steps, bool), jnp.zeros(filled - steps, bool)]
        )
    xs, noise, active, restart = cut(
        (sequence.xs, sequence.noise, active, sequence.restart), shape
    )
    return Sequence(xs, noise, active, restart, sequence.fresh)


def shift(start: Array, states: Array) -> Array:
    """Returns the states before each step, given the states after each step."""
    rows = merge_axes(states, 1)
    moved = jnp.concatenate([merge_axes(start, 0)[None], rows[:-1]])
    return moved.reshape(states.shape)
