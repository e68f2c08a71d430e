"""The forward pass of backpropagation through time: chunk after chunk.

`shape` is (*segments, count, length) throughout: a sequence is cut into segments, these
into chunks, and chunks into steps. The fields of a sequence that have an axis of time
are cut to it.
"""

import math
from typing import Any, NamedTuple

import jax

from jrnn._base import Cell, Keep, Params, Saved, Sequence, State
from jrnn.methods._adjoint import adjoint_of
from jrnn.methods._steps import (
    Precision,
    advance_flagged,
    input_shares,
    renew,
    reshape_time,
    select,
)


class Static(NamedTuple):
    """What the custom rule knows before it is traced: hashable, and no arrays."""

    cell: Cell
    keep: Keep
    shape: tuple[int, ...]  # (*segments, count, length)
    precision: Precision
    inputs: bool = True  # whether the gradient of the inputs is asked for


class Kept(NamedTuple):
    """What a forward pass over chunks keeps of each."""

    start: State  # before the chunk's first step, (count, ...)
    states: State  # after each step, (count, length, ...)
    saved: Saved  # what the cell wants to see again, (count, length, ...)


def walk(
    static: Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, Any]:
    """Walks along, and returns what is shown, (*shape, ...)."""
    if len(shape) == 1:
        return _walk_chunk(static, params, state, sequence)

    def body(state: State, part: Sequence) -> tuple[State, Any]:
        part = part._replace(fresh=sequence.fresh)
        return walk(static, shape[1:], params, state, part)

    return jax.lax.scan(body, state, sequence._replace(fresh=None))


def _walk_chunk(
    static: Static, params: Params, state: State, sequence: Sequence
) -> tuple[State, Any]:
    xs, noise, active, restart, fresh, _ = sequence
    cell = static.cell

    def step(state: State, inputs: Any) -> tuple[State, State]:
        u, active, restart = inputs
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, state

    us = input_shares(cell, params, xs, noise)
    state, states = jax.lax.scan(step, state, (us, active, restart))
    return state, static.keep(params, states, xs)


def keep_states(
    static: Static, params: Params, state: State, sequence: Sequence
) -> tuple[State, Kept]:
    """Walks chunk after chunk, and keeps every state and what the cell saves."""
    cell, fresh = static.cell, sequence.fresh
    adjoint = adjoint_of(cell, params, state)

    def step(state: State, inputs: Any) -> tuple[State, Any]:
        u, active, restart = inputs
        state = renew(restart, fresh, state)
        new, saved = adjoint.advance(state, u)
        state = select(active, new, state)
        return state, (state, saved)

    def walk(start: State, part: Sequence) -> tuple[State, Kept]:
        xs, noise, active, restart, *_ = part
        us = input_shares(cell, params, xs, noise)
        state, kept = jax.lax.scan(step, start, (us, active, restart))
        return state, Kept(start, *kept)

    return jax.lax.scan(walk, state, sequence._replace(fresh=None))


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
