"""The forward pass: a loop over the steps that saves what the backward pass needs.

A sequence is cut into chunks of steps, and with checkpoints along time (`remat`) the
chunks are grouped into segments; `shape` is (*segments, count, length) throughout, and
the arrays of a cut sequence have these axes in place of time.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jrnn.core.cell import Cell, Params, Saved, State
from jrnn.core.chunks import reshape_time
from jrnn.core.flags import renew, select
from jrnn.core.layout import scan_in_place
from jrnn.core.method import Sequence, Shown, Size, Wanted, show_steps
from jrnn.core.products import Precision
from jrnn.core.seams import advance_saving, shares_of


class Settings(NamedTuple):
    """The static arguments of the custom rule: hashable, without arrays."""

    cell: Cell
    wanted: Wanted
    shape: tuple[Size, ...]  # (*segments, count, length)
    precision: Precision
    inputs: bool = True  # whether the gradient of the inputs is wanted


class Kept(NamedTuple):
    """The residuals of the steps of chunks, for the backward pass."""

    start: State  # before the first step
    states: State  # after each step, (count * length, ...)
    saved: Saved  # of each step, by the cell's `advance`, (count * length, ...)


def keep_states(
    settings: Settings, params: Params, state: State, sequence: Sequence
) -> tuple[State, Kept]:
    """Runs forward, and keeps every state and what the cell saves of each step."""
    leave = lambda state, saved, x: (state, saved)  # noqa: ARG005 one form for all
    last, left = _walk(settings.cell, params, state, sequence, leave)
    return last, Kept(state, *left)


def keep_shown(
    settings: Settings, params: Params, state: State, sequence: Sequence
) -> tuple[State, Shown]:
    """Runs forward, and keeps only the wanted results of each step.

    An output that is the state itself is written at each step; one that needs work is
    computed for all steps of a chunk at once.
    """
    cell, wanted = settings.cell, settings.wanted
    show = functools.partial(show_steps, cell, wanted, params)
    if cell.shows_state or not wanted.ys:
        leave = lambda state, saved, x: show(state, x)  # noqa: ARG005 as above
        return _walk(cell, params, state, sequence, leave, reads_xs=wanted.ys)
    leave = lambda state, saved, x: state  # noqa: ARG005 as above
    return _walk(cell, params, state, sequence, leave, finish=show)


def keep_starts(
    settings: Settings,
    shape: tuple[Size, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, tuple[State, Shown]]:
    """Runs forward by segments, and keeps the state before each and wanted results.

    Returns:
      The last state, then the states before segments and the results (*shape, ...).
    """
    segments, inner = shape[0], shape[1:]

    def along_segment(start: State, part: Sequence) -> tuple[State, Any]:
        part = merge_segments(part._replace(fresh=sequence.fresh), inner)
        state, shown = keep_shown(settings, params, start, part)
        return state, (start, shown)

    timed = sequence._replace(fresh=None)
    state, (starts, shown) = jax.lax.scan(along_segment, state, timed)
    return state, (starts, reshape_time(shown, 2, (segments, *inner)))


def merge_segments(sequence: Sequence, shape: tuple[Size, ...]) -> Sequence:
    """Joins segments: (*segments, count, length, ...) to (chunks, length, ...)."""
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)
    merged = reshape_time(timed, len(shape), (math.prod(shape[:-1]), shape[-1]))
    return merged._replace(fresh=fresh)


def _walk(
    cell: Cell,
    params: Params,
    state: State,
    sequence: Sequence,
    leave: Callable[[State, Saved, Any], Any],
    finish: Callable[[Any, Any], Any] | None = None,
    reads_xs: bool = False,
) -> tuple[State, Any]:
    """Runs along a sequence chunk by chunk: first u_t of the chunk, then its steps.

    Args:
      cell: Any cell.
      params: Its parameters.
      state: Before the first step.
      sequence: Cut into chunks, (count, length, ...).
      leave: (s_t, saved_t, x_t) -> results of a step.
      finish: (results of a chunk, its xs) -> results to keep; None: keeps all.
      reads_xs: Whether `leave` reads x_t; otherwise x_t is None.

    Returns:
      The last state, and the results kept of each step, (count * length, ...).
    """
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)
    shares = shares_of(cell, params)
    advance = functools.partial(advance_saving(cell), params)

    def inputs(part: Sequence) -> Any:
        u = shares.project(part.xs, part.noise)
        return part.xs if reads_xs else None, u, part.active, part.restart

    def step(state_tm1: State, inputs: Any) -> tuple[State, Any]:
        x, u, active, restart = inputs
        state_tm1 = renew(restart, fresh, state_tm1)
        state, saved = advance(state_tm1, shares.complete(u))
        state = select(active, state, state_tm1)
        return state, leave(state, saved, x)

    if finish is None:
        return scan_in_place(step, inputs, state, timed)

    def along_chunk(state: State, part: Sequence) -> tuple[State, Any]:
        state, left = jax.lax.scan(step, state, inputs(part))
        return state, finish(left, part.xs)

    count, length = jax.tree.leaves(sequence.xs)[0].shape[:2]
    state, kept = jax.lax.scan(along_chunk, state, timed)
    return state, reshape_time(kept, 2, (count * length,))
