"""What the methods share: selecting by activity, and cutting time into chunks."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn._base import Cell, Gates, Params, Sequence, State, tell
from jrnn._parts import (
    axes_merge,
    expand,
    gated_advance,
    noisy_project,
    project_dense,
    split_gates,
)

Precision = str | None  # what `jax.default_matmul_precision` takes


def check_precision(precision: Any) -> None:
    """Raises ValueError unless JAX knows the precision."""
    try:
        with products_at(precision):
            pass
    except (TypeError, ValueError) as error:
        raise ValueError(
            'Expected precision to be None, "default", "high", "highest" or another '
            f"that jax.default_matmul_precision takes, got {tell(precision)}."
        ) from error


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


def renew(restart: Bool[Array, "*lead"] | None, fresh: Any, state: Any) -> Any:
    """Returns `fresh` where a step starts anew, `state` elsewhere."""
    if restart is None:
        return state

    def choose(a: Array, b: Array) -> Array:
        over = restart.reshape(restart.shape + (1,) * (b.ndim - restart.ndim))
        return jnp.where(over, a.astype(b.dtype), b)

    return jax.tree.map(choose, fresh, state)


def shift(start: Array, states: Array) -> Array:
    """Returns the states before each step, from those after each step."""
    rows = merge_axes(states, 1)
    moved = jnp.concatenate([merge_axes(start, 0)[None], rows[:-1]])
    return moved.reshape(states.shape)


def merge_axes(leaf: Array, lead: int) -> Array:
    """Makes one axis of all after the first `lead`, where `axes_merge` says so.

    What a step reads or writes is then one run of numbers.
    """
    merge = leaf.ndim > lead + 1 and axes_merge()
    return leaf.reshape(*leaf.shape[:lead], -1) if merge else leaf


def as_rows(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns (T, ...) as rows of one axis, and what gives a row its axes back."""

    def shaped(rows: Any) -> Any:
        one = lambda row, leaf: row.reshape(leaf.shape[1:])
        return jax.tree.map(one, rows, tree)

    return jax.tree.map(lambda leaf: merge_axes(leaf, 1), tree), shaped


class Shares(NamedTuple):
    """How u, the input's share of a step, is made: of many steps, then in the loop.

    Attributes:
      project: (xs, noise) -> what needs no state, cut into gates where there are some.
      complete: What `project` returned, at one step -> u.
    """

    project: Callable[[Any, Any], Any]
    complete: Callable[[Any], Any]


def shares_of(cell: Cell, params: Params) -> Shares:
    """Returns how a cell's u is made.

    Gates that lie side by side would have to be sliced out of u inside the loop over
    time, and there a CPU's compiler gives up vector instructions for all that follows;
    to cut them out before it, or to add a bias there, is one more pass over u. So each
    gate has a product of its own, and the loop adds the bias, where the cell tells how.
    """
    gated = cell.gated
    project = functools.partial(noisy_project, cell.project)
    if gated is None:
        return Shares(functools.partial(project, params), lambda u: u)
    if gated.inputs is None or cell.noise is not None:
        whole = lambda *inputs: split_gates(project(params, *inputs), gated.gates)
        return Shares(whole, lambda u: u)
    W_x, b = gated.inputs(params)
    columns = split_gates(W_x, gated.gates)
    biases = None if b is None else split_gates(b, gated.gates)

    def complete(u: Gates) -> Gates:
        if biases is None:
            return u
        return tuple(
            a + expand(bias.astype(a.dtype), a.ndim)
            for a, bias in zip(u, biases, strict=True)
        )

    def each(xs: Array, noise: None) -> Gates:
        del noise
        return tuple(project_dense(W, None, xs) for W in columns)

    return Shares(each, complete)


def advance_flagged(
    cell: Cell,
    params: Params,
    state: State,
    u: Any,
    active: Bool[Array, "..."] | None,
    restart: Bool[Array, "..."] | None,
    fresh: State | None,
) -> State:
    """Returns the state after a step: put back before it, or passing through it.

    Flags may lack the last axes of the batch: a step that fills up a chunk counts for
    no sequence.
    """
    state = renew(restart, fresh, state)
    advance = cell.advance if cell.gated is None else gated_advance(cell.gated)
    return select(active, advance(params, state, u), state)


def silence(active: Bool[Array, "*lead"] | None, tree: Any) -> Any:
    """Returns `tree` where active, zeros elsewhere."""
    if active is None:
        return tree
    return select(active, tree, jax.tree.map(jnp.zeros_like, tree))


def expand_flags(
    active: Bool[Array, "*lead"] | None, like: Array
) -> Bool[Array, "..."] | None:
    """Returns flags of the shape of `like`, from those of its leading axes."""
    if active is None:
        return None
    places = active.reshape(active.shape + (1,) * (like.ndim - active.ndim))
    return jnp.broadcast_to(places, like.shape)


def chunk_shape(steps: int, chunk: int) -> tuple[int, int]:
    """Returns (count, length) of the chunks that `steps` are cut into.

    A length that divides `steps` is preferred, from half of `chunk` to half as much
    again. Where there is none, the last chunk is filled up with inactive steps:
    count * length > steps.
    """
    if steps <= chunk:
        return 1, steps
    for length in (*range(chunk, chunk // 2, -1), *range(chunk + 1, 3 * chunk // 2)):
        if steps % length == 0:
            return steps // length, length
    count = -(-steps // chunk)
    return count, -(-steps // count)


def nested_shape(steps: int, chunk: int, levels: int) -> tuple[int, ...]:
    """Returns (*segments, count, length): time cut `levels` times, then into chunks.

    The cuts are of about equal number at each level, so that with one level both the
    segments and the steps in each grow as the square root of T. As many levels as
    there is room for halve time until about a chunk is left.
    """
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


def cut(tree: Any, shape: tuple[int, ...]) -> Any:
    """Reshapes (T, ...) to (*shape, ...), filled up with zeros at the end."""

    def one(leaf: Array) -> Array:
        missing = math.prod(shape) - leaf.shape[0]
        if missing:
            leaf = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return leaf.reshape(*shape, *leaf.shape[1:])

    return jax.tree.map(one, tree)


def join(tree: Any, shape: tuple[int, ...], steps: int) -> Any:
    """Reshapes (*shape, ...) to (T, ...), without what was filled up."""

    def one(leaf: Array) -> Array:
        filled = math.prod(shape)
        return leaf.reshape(filled, *leaf.shape[len(shape) :])[:steps]

    return jax.tree.map(one, tree)


def reshape_time(tree: Any, axes: int, shape: tuple[int, ...]) -> Any:
    """Reshapes the leading `axes` of every leaf, which are time cut up, to `shape`."""
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[axes:]), tree)


def cut_sequence(sequence: Sequence, shape: tuple[int, ...]) -> Sequence:
    """Cuts a sequence; steps that fill it up are inactive."""
    steps, filled = sequence.steps, math.prod(shape)
    active = sequence.active
    if active is None and steps < filled:
        active = jnp.concatenate(
            [jnp.ones(steps, bool), jnp.zeros(filled - steps, bool)]
        )
    xs, noise, active, restart = cut(
        (sequence.xs, sequence.noise, active, sequence.restart), shape
    )
    return Sequence(xs, noise, active, restart, sequence.fresh)
