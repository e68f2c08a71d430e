"""The functions of a sequence model that read symbols: they check, then run."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Key
from jrnn.core.check import check_floating, check_like, fit_state
from jrnn.core.check_draws import check_batch_shape, check_given_key, check_key
from jrnn.core.check_inputs import check_lengths, check_steps
from jrnn.core.draw import draw
from jrnn.core.dtypes import state_dtype
from jrnn.core.flags import active_steps, expand_flags, silence
from jrnn.core.method import Method
from jrnn.heads.distribution import Distribution
from jrnn.heads.head import Head
from jrnn.initializers.defaults import ZEROS
from jrnn.models.known_inputs import check_known, check_known_times
from jrnn.models.prompts import check_single
from jrnn.models.reading import (
    SequenceParams,
    SequenceState,
    Symbols,
    read_last,
    score,
)
from jrnn.run.unroll import chosen


def init(
    cell: Cell, head: Head, key: Key, dtype: DTypeLike | None = None
) -> SequenceParams:
    """Draws the parameters of a model; the start vector is 0."""
    key = check_given_key(key)
    key_cell, key_head, key_start = jax.random.split(key, 3)
    return SequenceParams(
        cell=cell.init(key_cell, dtype),
        head=head.init(key_head, cell.spec.output_size, dtype),
        start=draw(ZEROS, key_start, (head.spec.input_size,), dtype),
    )


def init_state(
    cell: Cell, head: Head, params: SequenceParams, batch_shape: tuple[int, ...] = ()
) -> SequenceState:
    """Returns the state before the first symbol."""
    check_own_params(cell, head, params)
    return start_state(cell, head, params, check_batch_shape(batch_shape))


def start_state(
    cell: Cell, head: Head, params: SequenceParams, batch_shape: tuple[int, ...] = ()
) -> SequenceState:
    """Returns the state before the first symbol, without checks."""
    dtype = state_dtype(params.head)
    return SequenceState(
        cell.init_state(params.cell, batch_shape), head.blank(batch_shape, dtype)
    )


def step(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    state: SequenceState,
    x: Array,
    mask: Array | None = None,
    inputs: Array | None = None,
) -> tuple[SequenceState, Array]:
    """Scores one symbol, and returns the state after it."""
    x, mask = head.check("x", x, mask)
    head.check_values("x", x, mask)
    batch = x.shape[: x.ndim - len(head.event_shape)]
    inputs = check_known(cell, head, "inputs", inputs, batch)
    check_known_times(cell, head, inputs)
    xs, mask, inputs = jax.tree.map(lambda a: a[None], (x, mask, inputs))
    given = functools.partial(through, score, cell, head, params, xs, state)
    state, log_probs = given(mask=mask, inputs=inputs)
    return state, log_probs[0]


def through(
    compiled: Callable[..., tuple[SequenceState, Any]],
    cell: Cell,
    head: Head,
    params: SequenceParams,
    xs: Array,
    state: SequenceState | None = None,
    lengths: Array | None = None,
    method: Method | None = None,
    key: Key | None = None,
    mask: Array | None = None,
    inputs: Array | None = None,
) -> tuple[SequenceState, Any]:
    """Checks the arguments and calls a compiled function, `score` or `foresee`."""
    xs, mask = head.check("xs", xs, mask)
    batch = check_steps(xs, head.event_shape)
    if mask is not None and not head.missing:
        raise ValueError(
            f"Expected a head that reads missing values, got a mask for {head}: make a "
            "head of numbers with missing=True; for token ids, use an extra id for "
            "missing symbols."
        )
    inputs = check_known(cell, head, "inputs", inputs, (xs.shape[0], *batch))
    if lengths is not None:
        lengths = check_lengths(lengths, xs.shape[0], batch)
    active = active_steps(xs.shape[0], lengths, None)
    xs, mask, inputs = (silence(active, a) for a in (xs, mask, inputs))
    counted = expand_flags(active, xs) if mask is None else mask
    head.check_values("xs", xs, counted)
    check_known_times(cell, head, inputs)
    check_own_params(cell, head, params)
    if state is None:
        start: SequenceState = start_state(cell, head, params, batch)
    else:
        like = jax.eval_shape(lambda: start_state(cell, head, params, batch))
        source = lambda: f"init_state(params, {batch})"
        start = fit_state("state", state, like, (), source)
    method, key = chosen(method), check_key(key)
    given = Symbols(xs, mask, start, lengths, key, inputs)
    return compiled(cell, head, method, params, given)


def predict(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    state: SequenceState,
    inputs: Array | None = None,
) -> Distribution:
    """Returns the distribution of the next symbol."""
    check_own_params(cell, head, params)
    state = check_single(functools.partial(start_state, cell, head, params), state)
    batch = head.seen(state.last).shape
    inputs = check_known(cell, head, "inputs", inputs, batch)
    check_known_times(cell, head, inputs)
    y = read_last(cell, head, params, state, inputs)[1]
    return head.predict(params.head, y)


@bounded
def _expected_params(cell: Cell, head: Head) -> SequenceParams:
    return jax.eval_shape(lambda: init(cell, head, jax.random.key(0)))


def check_own_params(cell: Cell, head: Head, params: SequenceParams) -> None:
    """Raises ValueError unless `params` are those of this model."""
    source = lambda: f"sequence_model({cell}, {head}).init(key)"
    check_like("params", params, _expected_params(cell, head), source)
    check_floating("params", params)
