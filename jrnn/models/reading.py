"""How a cell reads symbols, one step behind the symbol that its output predicts.

At step t the cell reads x_{t-1}, or the learned start vector if there is none, beside
the known inputs of step t, and its output predicts x_t. These are the compiled
functions of a sequence model; `jrnn.models.checked_reading` and `checked_sampling`
check their arguments.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.caches import jitted
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.flags import active_steps, select, silence
from jrnn.core.integers import saturate
from jrnn.core.method import Method
from jrnn.core.seams import noise_of, prepared
from jrnn.heads.distribution import Distribution
from jrnn.heads.head import Head
from jrnn.models.generation import Sampled, Start, Step, draw_all, draw_until
from jrnn.models.known_inputs import beside
from jrnn.run.order import SHOW, Reading
from jrnn.run.unroll import Given, run


class SequenceParams(NamedTuple):
    """The parameters of a cell, of a head, and the learned start vector.

    The start vector is read in place of an encoded symbol, of n features.
    """

    cell: Params
    head: Params
    start: Float[Array, " n"]


class SequenceState(NamedTuple):
    """The last symbol, and the cell's state before it reads that symbol."""

    cell: State
    last: Array


class Symbols(NamedTuple):
    """The checked arguments with which a sequence is read."""

    xs: Array
    mask: Array | None
    state: SequenceState
    lengths: Array | None
    key: Key | None
    inputs: Array | None = None


@jitted(("cell", "head", "method"))
def score(
    cell: Cell, head: Head, method: Method, params: SequenceParams, given: Symbols
) -> tuple[SequenceState, Array]:
    """Returns the state after a sequence, and log P of each symbol; 0 past a length."""
    steps = given.xs.shape[0]
    state, ys = _read(cell, head, method, params, given)
    log_probs = head.log_prob(params.head, ys, given.xs, given.mask)
    return state, silence(active_steps(steps, given.lengths, None), log_probs)


@jitted(("cell", "head", "method"))
def foresee(
    cell: Cell, head: Head, method: Method, params: SequenceParams, given: Symbols
) -> tuple[SequenceState, Distribution]:
    """Returns the state after a sequence, and the distribution of each symbol."""
    state, ys = _read(cell, head, method, params, given)
    return state, head.predict(params.head, ys)


def _read(
    cell: Cell, head: Head, method: Method, params: SequenceParams, given: Symbols
) -> tuple[SequenceState, Array]:
    """Returns the state after a sequence, and the outputs that predict each symbol."""
    xs, mask, state, lengths, key, inputs = given
    batch = xs.shape[1 : xs.ndim - len(head.event_shape)]
    params = params._replace(cell=prepared(cell, params.cell))
    noise = None if key is None else noise_of(cell, key, xs.shape[0], batch)
    first = jax.tree.map(lambda a: a[0], noise)
    others = jax.tree.map(lambda a: a[1:], noise)
    now = None if inputs is None else inputs[0]
    moved, y = read_last(cell, head, params, state, now, first)
    inner, ys = moved, y[None]
    symbols = head.symbols(xs, mask)
    if xs.shape[0] > 1:
        rest = None if lengths is None else jnp.maximum(lengths - 1, 0)
        read = head.encode(jax.tree.map(lambda a: a[:-1], symbols))
        later = None if inputs is None else inputs[1:]
        read = beside(head, read, later, params.start.dtype)
        others_read = Given(params.cell, read, moved, rest, noise=others)
        reading = Reading(cell, method, SHOW, reverse=False)
        inner, shown = run(reading, others_read)
        ys = jnp.concatenate([y.astype(shown.ys.dtype)[None], shown.ys])
    return _after(state, inner, symbols, lengths), ys


def _after(
    state: SequenceState, inner: State, symbols: Any, lengths: Array | None
) -> SequenceState:
    """Returns the state after the last symbol of each sequence, still to be read."""
    before = jax.tree.map(_widen, state.last, symbols)
    symbols = jax.tree.map(lambda a, b: a.astype(b.dtype), symbols, before)
    if lengths is None:
        return SequenceState(inner, jax.tree.map(lambda a: a[-1], symbols))
    index = jnp.maximum(lengths - 1, 0)[None]

    def pick(a: Array) -> Array:
        places = index.reshape(index.shape + (1,) * (a.ndim - index.ndim))
        return jnp.take_along_axis(a, places, axis=0, mode="clip")[0]

    after = SequenceState(inner, jax.tree.map(pick, symbols))
    return select(lengths > 0, after, SequenceState(state.cell, before))


def _widen(last: Array, xs: Array) -> Array:
    """Casts numbers to the wider dtype of both, token ids and flags to the head's."""
    if jnp.issubdtype(last.dtype, jnp.integer):
        return saturate(last, xs.dtype)
    return last.astype(state_dtype(last, xs))


def read_last(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    state: SequenceState,
    inputs: Array | None = None,
    noise: Any = None,
) -> tuple[State, Array]:
    """Returns the cell's step on the last symbol, or on the start vector.

    Args:
      cell: The cell of the model.
      head: The head of the model.
      params: The parameters of the model.
      state: The state of the model.
      inputs: The known inputs of the next symbol, (*batch, k); None: there are none.
      noise: The noise of this step; None: there is none.
    """
    seen = head.seen(state.last)
    read = head.encode(silence(seen, state.last))
    start = params.start.astype(state_dtype(params.start))  # its gradient is a sum
    start = jnp.broadcast_to(start, (*seen.shape, start.size))
    floating = jnp.issubdtype(read.dtype, jnp.floating)
    start = start.astype(read.dtype if floating else params.start.dtype)
    step = lambda x: cell.step(params.cell, state.cell, x, noise)
    if inputs is None:  # token ids and the start vector are read in two ways
        return select(seen, step(read), step(start))
    put = functools.partial(beside, head, inputs=inputs, dtype=params.start.dtype)
    return step(select(seen, put(read), put(start)))


@jitted(("cell", "head", "length"))
def generate(
    cell: Cell, head: Head, length: int, params: SequenceParams, start: Start
) -> Array:
    """Returns the symbols that follow a state, (length, *batch)."""
    step, state = _drawing(cell, head, params, start)
    return draw_all(step, length, start._replace(state=state), params)


@jitted(("cell", "head", "length"))
def generate_until(
    cell: Cell,
    head: Head,
    length: int,
    params: SequenceParams,
    start: Start,
    end: Array,
) -> Sampled:
    """Returns the token ids that follow a state, up to an end symbol."""
    step, state = _drawing(cell, head, params, start)
    batch = head.seen(state.last).shape
    start = start._replace(state=state)
    return draw_until(step, length, start, params, end, batch)


def _drawing(
    cell: Cell, head: Head, params: SequenceParams, start: Start
) -> tuple[Step, SequenceState]:
    """Returns a step that draws the next symbol, and the state in its dtypes."""
    params = params._replace(cell=prepared(cell, params.cell))
    blank = head.blank((), state_dtype(params.head))
    last = jax.tree.map(_widen, start.state.last, blank)
    dtype = state_dtype(params.cell, last, start.inputs)
    state = SequenceState(cast_state(start.state.cell, dtype), last)

    def step(
        state: SequenceState, given: tuple[Key, Array | None]
    ) -> tuple[SequenceState, Array]:
        key, inputs = given
        inner, y = read_last(cell, head, params, state, inputs)
        predicted = head.predict(params.head, y)
        x = predicted.sample(key, start.temperature, *start.truncation)
        last = jax.tree.map(lambda a, b: a.astype(b.dtype), head.symbols(x), state.last)
        return SequenceState(inner, last), x

    return step, state
