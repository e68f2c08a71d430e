"""Running a cell, or its children in order, along a sequence: direction and windows.

Direction, the order of children and truncation are handled here. A method gets one cell
without children, its inputs (zero where inactive) in the order of reading, flags for
active steps and restarts, and which results to keep.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core import tree as _tree
from jrnn.core.cell import Cell, Params, State
from jrnn.core.flags import silence
from jrnn.core.integers import widen_integers
from jrnn.core.method import Method, Sequence, Shown, Wanted
from jrnn.core.seams import prepared
from jrnn.core.tree import Leaf, reads_ahead, runs_itself
from jrnn.methods.truncated import by_windows

SHOW, KEEP = Wanted(ys=True, states=False), Wanted(ys=False, states=True)


class Reading(NamedTuple):
    """The static arguments of a run; `time_axis` is 1 for arrays batch first."""

    cell: Cell
    method: Method | None
    wanted: Wanted
    reverse: bool
    time_axis: int = 0


class Given(NamedTuple):
    """The array arguments of a run; each as in `unroll`.

    Attributes:
      params: Of the cell.
      xs: Inputs (T, *batch, ...), or (B, T, *batch, ...) if time is axis 1.
      state: The initial state; None takes `cell.init_state`.
      lengths: The length of each sequence; None: T.
      resets: True where segments begin; None: nowhere.
      mask: False where the state is kept; None: nowhere.
      key: Draws the noise; None: `noise` is used.
      noise: Noise that was drawn before, or None.
      guess: Initial trajectory for methods that iterate; None: the method's own.
    """

    params: Params
    xs: Any
    state: State | None = None
    lengths: Any = None
    resets: Any = None
    mask: Any = None
    key: Any = None
    noise: Any = None
    guess: State | None = None


def walk(
    reading: Reading,
    params: Params,
    state: State,
    sequence: Sequence,
    lengths: Array | None,
) -> tuple[State, Shown]:
    """Runs a cell, or the cells inside it one by one, along a sequence."""
    cell, method, wanted, reverse, _ = reading
    assert method is not None
    cut = method.truncation is not None
    run = _walk_windows if cut else _walk_cell

    def visit(leaf: Leaf, xs: Any, noise: Any) -> tuple[Any, ...]:
        shows = wanted._replace(ys=wanted.ys or leaf.read)
        own = sequence._replace(
            xs=xs,
            noise=noise,
            fresh=leaf.share(sequence.fresh),
            guess=leaf.share(sequence.guess),
        )
        if leaf.reverse:
            own = _reversed(lengths, own)
        one = Reading(leaf.cell, method, shows, reverse=False)
        last, shown = run(one, leaf.share(params), leaf.share(state), own)
        if leaf.reverse:
            timed = flip(lengths, own.steps, shown._replace(report=None))
            shown = timed._replace(report=shown.report)
        return shown.ys, last, shown.states, shown.report

    ys, last, states, report = _tree.walk(
        cell,
        visit,
        sequence.xs,
        sequence.noise,
        reverse=reverse,
        whole=_reads_forwards if cut else runs_itself,
        silenced=functools.partial(silence, sequence.active),
    )
    return last, Shown(ys, states if wanted.states else None, report)


def _reads_forwards(cell: Cell) -> bool:
    return not reads_ahead(cell)


def _walk_cell(
    reading: Reading, params: Params, state: State, sequence: Sequence
) -> tuple[State, Shown]:
    """Runs a cell without children along a sequence, in the order of reading."""
    cell, method = reading.cell, reading.method
    assert method is not None
    options = dict(method.options)
    params = prepared(cell, params)  # once, and differentiated outside of the method
    given = reading.wanted, params, state, sequence
    state, shown, *report = method.run(cell, *given, **options)
    shown = shown._replace(ys=silence(sequence.active, shown.ys))
    return state, shown._replace(report=report[0] if report else None)


def _walk_windows(
    reading: Reading, params: Params, state: State, sequence: Sequence
) -> tuple[State, Shown]:
    """Runs in windows, each of which reads forwards and ends the gradients."""
    method = reading.method
    assert method is not None
    plain = dataclasses.replace(method, truncation=None)
    forwards = reading._replace(method=plain)

    def run(params: Params, state: State, part: Sequence) -> tuple[State, Shown]:
        state, shown = walk(forwards, params, state, part, None)
        return state, shown._replace(report=None)  # windows keep no report

    def trace(params: Params, state: State, part: Sequence) -> tuple[State, State]:
        kept = forwards._replace(wanted=KEEP)
        state, shown = walk(kept, params, state, part, None)
        return state, shown.states

    assert method.truncation is not None
    return by_windows(method.truncation, run, trace, params, state, sequence)


def _reversed(lengths: Array | None, sequence: Sequence) -> Sequence:
    """Returns a sequence in the order of reading it from its end."""
    restart = sequence.restart
    if restart is not None:  # the state restarts before x_{t-1}, after x_t was read
        restart = jnp.concatenate([restart[1:], jnp.zeros_like(restart[:1])])
    timed = sequence._replace(restart=restart, fresh=None)
    flipped = flip(lengths, sequence.steps, timed)
    return flipped._replace(fresh=sequence.fresh)


def flip(lengths: Array | None, steps: int, tree: Any) -> Any:
    """Reverses each sequence within its own length; padding stays where it is."""
    if lengths is None:
        return jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), tree)
    t = jnp.arange(steps).reshape(steps, *(1,) * lengths.ndim)
    own = widen_integers(lengths).astype(t.dtype)[None]
    index = jnp.where(t < own, own - 1 - t, t)

    def one(leaf: Array) -> Array:
        places = index.reshape(index.shape + (1,) * (leaf.ndim - index.ndim))
        return jnp.take_along_axis(leaf, places, axis=0)

    return jax.tree.map(one, tree)
