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

from jrnn._base import Cell, Keep, Params, Saved, Sequence, State
from jrnn.methods._adjoint import adjoint_of
from jrnn.methods._steps import (
    Precision,
    advance_flagged,
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

    def walk(carry: Any, numbered: Any) -> tuple[Any, None]:
        number, part = numbered

        def move(carry: Any, inputs: Any) -> tuple[Any, None]:
            (state, rows), (place, inputs) = carry, inputs
            state, left = step(state, inputs)
            put = jax.lax.dynamic_update_index_in_dim
            write = lambda rows, row: put(rows, row, number * length + place, 0)
            return (state, jax.tree.map(write, rows, left)), None

        given = (jnp.arange(length), inputs(part))
        return jax.lax.scan(move, carry, given)[0], None

    # One step, for the types of what it leaves; compilers drop its numbers.
    first = inputs(jax.tree.map(lambda leaf: leaf[0], sequence))
    left = step(state, jax.tree.map(lambda leaf: leaf[0], first))[1]
    room = lambda row: jnp.broadcast_to(
        jnp.zeros_like(row), (count * length, *row.shape)
    )
    rows = jax.tree.map(room, left)
    numbered = (jnp.arange(count), sequence)
    return jax.lax.scan(walk, (state, rows), numbered)[0]


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
