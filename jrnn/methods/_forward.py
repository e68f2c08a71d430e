"""The forward pass of backpropagation through time: chunk after chunk.

`shape` is (*segments, count, length) throughout: a sequence is cut into segments, these
into chunks, and chunks into steps. The fields of a sequence that have an axis of time
are cut to it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Cell, Keep, Params, Saved, Sequence, State
from jrnn._lengths import MOST_STEPS
from jrnn.methods._adjoint import adjoint_of
from jrnn.methods._steps import (
    Precision,
    advance_flagged,
    as_rows,
    merge_axes,
    renew,
    reshape_time,
    select,
    shares_of,
)


class Static(NamedTuple):
    """What the custom rule knows before it is traced: hashable, and no arrays."""

    cell: Cell
    keep: Keep
    shape: tuple[int, ...]  # (*segments, count, length)
    precision: Precision
    inputs: bool = True  # whether the gradient of the inputs is asked for


class Kept(NamedTuple):
    """What a forward pass over chunks keeps."""

    start: State  # before the first step
    states: State  # after each step, (count * length, ...)
    saved: Saved  # what the cell wants to see again, (count * length, ...)


def walk(
    static: Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, Any]:
    """Walks along, and returns what is shown, (*shape, ...)."""
    if len(shape) == 2 and _shows_states(static, params, state, sequence.xs):
        return _walk_showing(static, shape, params, state, sequence)
    if len(shape) == 1:
        return _walk_chunk(static, params, state, sequence)

    def body(state: State, part: Sequence) -> tuple[State, Any]:
        part = part._replace(fresh=sequence.fresh)
        return walk(static, shape[1:], params, state, part)

    return jax.lax.scan(body, state, sequence._replace(fresh=None))


def _shows_states(static: Static, params: Params, state: State, xs: Any) -> bool:
    """Whether what is shown is there already, so that many steps share no work."""
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), xs)
    return not jax.make_jaxpr(static.keep)(params, state, x).jaxpr.eqns


def _walk_showing(
    static: Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, Any]:
    cell, fresh = static.cell, sequence.fresh
    shares = shares_of(cell, params)

    def step(state: State, inputs: Any) -> tuple[State, Any]:
        x, u, active, restart = inputs
        u = shares.complete(u)
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, static.keep(params, state, x)

    def inputs(part: Sequence) -> Any:
        return part.xs, shares.project(part.xs, part.noise), part.active, part.restart

    timed = sequence._replace(fresh=None)
    state, shown = scan_chunks(step, inputs, state, timed, shape)
    return state, reshape_time(shown, 1, shape)


def _walk_chunk(
    static: Static, params: Params, state: State, sequence: Sequence
) -> tuple[State, Any]:
    xs, noise, active, restart, fresh, _ = sequence
    cell = static.cell
    shares = shares_of(cell, params)

    def step(state: State, inputs: Any) -> tuple[State, State]:
        u, active, restart = inputs
        u = shares.complete(u)
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, state

    us = shares.project(xs, noise)
    state, states = jax.lax.scan(step, state, (us, active, restart))
    return state, static.keep(params, states, xs)


def keep_states(
    static: Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, Kept]:
    """Walks chunk after chunk, and keeps every state and what the cell saves."""
    cell, fresh = static.cell, sequence.fresh
    shares = shares_of(cell, params)
    adjoint = adjoint_of(cell, params, state)

    def step(state: State, inputs: Any) -> tuple[State, Any]:
        u, active, restart = inputs
        state = renew(restart, fresh, state)
        new, saved = adjoint.advance(state, shares.complete(u))
        state = select(active, new, state)
        return state, (state, saved)

    def inputs(part: Sequence) -> Any:
        return shares.project(part.xs, part.noise), part.active, part.restart

    timed = sequence._replace(fresh=None)
    last, left = scan_chunks(step, inputs, state, timed, shape)
    return last, Kept(state, *left)


def scan_chunks(
    step: Callable[[State, Any], tuple[State, Any]],
    inputs: Callable[[Sequence], Any],
    state: State,
    sequence: Sequence,
    shape: tuple[int, ...],
) -> tuple[State, Any]:
    """Scans `step` over chunks, with what `inputs` makes of each as its inputs.

    What steps leave is written once, where it stays: a scan within a scan would gather
    it for each chunk and copy it from there.

    Returns:
      The last state, and what the steps have left, (count * length, ...).
    """
    count, length = shape

    def walk(carry: Any, part: Sequence) -> tuple[Any, None]:
        rows, shaped = as_rows(inputs(part))

        def move(carry: Any, row: Any) -> tuple[Any, None]:
            place, state, kept = carry
            state, left = step(state, shaped(row))
            put = lambda kept, leaf: jax.lax.dynamic_update_index_in_dim(
                kept, merge_axes(leaf, 0), place, 0
            )
            return (place + 1, state, jax.tree.map(put, kept, left)), None

        return jax.lax.scan(move, carry, rows)[0], None

    def first(state: State, sequence: Sequence) -> Any:
        given = inputs(jax.tree.map(lambda leaf: leaf[0], sequence))
        return step(state, jax.tree.map(lambda leaf: leaf[0], given))[1]

    def room(leaf: Array) -> Array:
        row = merge_axes(leaf, 0)
        return jnp.broadcast_to(row, (count * length, *row.shape))

    like = _zeros_like_results(first, state, sequence)
    counter = jnp.int32 if count * length <= MOST_STEPS else jnp.int64
    carry = jnp.zeros((), counter), state, jax.tree.map(room, like)
    _, state, kept = jax.lax.scan(walk, carry, sequence)[0]
    axes = lambda rows, leaf: rows.reshape(count * length, *leaf.shape)
    return state, jax.tree.map(axes, kept, like)


def _zeros_like_results(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns zeros of the types that `function` returns, without its work."""
    if jax.sharding.get_abstract_mesh().empty:
        shapes = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    # On a mesh a type tells how an array is split; compilers drop the numbers.
    return jax.tree.map(jnp.zeros_like, function(*arguments))


def keep_starts(
    static: Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, tuple[State, Any]]:
    """Walks segment after segment, and keeps the state before each, and what shows."""
    inner = shape[1:]
    chunks = (math.prod(inner[:-1]), inner[-1])  # inner segments end to end

    def body(start: State, part: Sequence) -> tuple[State, tuple[State, Any]]:
        part = reshape_time(part, len(inner), chunks)._replace(fresh=sequence.fresh)
        state, shown = walk(static, chunks, params, start, part)
        return state, (start, reshape_time(shown, len(chunks), inner))

    return jax.lax.scan(body, state, sequence._replace(fresh=None))
