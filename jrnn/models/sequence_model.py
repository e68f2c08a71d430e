r"""Models of sequences: a cell and a head define P(x_1..x_T).

    P(x_1..x_T) = prod_t P(x_t | x_<t),   P(x_t | x_1..x_{t-1}) = P(x_t | h_t)

The state that predicts x_t has read x_1..x_{t-1} and not x_t: at step t the cell reads
x_{t-1}, or a learned start vector at t = 1. A model's state is (cell state, last
symbol), so that a sequence scored in chunks scores the same as in one piece.

The head defines the symbols: token ids (T, *batch), numbers (T, *batch), or numbers of
several components (T, *batch, size).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Key, Spec, call_of
from jrnn.core.check import (
    check_cell,
    check_floating,
    check_like,
    check_no_elapsed,
    fit_state,
)
from jrnn.core.check_draws import check_batch_shape, check_given_key, check_key
from jrnn.core.check_inputs import check_lengths, check_steps
from jrnn.core.draw import draw
from jrnn.core.dtypes import state_dtype
from jrnn.core.flags import active_steps, expand_flags, silence
from jrnn.core.memoize import memoize
from jrnn.core.method import Method
from jrnn.core.pickling import pickled_by_call
from jrnn.core.tree import reads_ahead
from jrnn.heads.distribution import Distribution
from jrnn.heads.head import Head, check_head
from jrnn.initializers.defaults import ZEROS
from jrnn.models.prompts import Reader, begin, check_single
from jrnn.models.reading import (
    SequenceParams,
    SequenceState,
    Symbols,
    foresee,
    generate,
    read_last,
    score,
)
from jrnn.run.unroll import chosen


@pickled_by_call
class SequenceModel(NamedTuple):
    """P(x_1..x_T) by a recurrent network, as pure functions.

    Attributes:
      init: (key, dtype=None) -> params.
      init_state: (params, batch_shape=()) -> state, before the first symbol.
      step: (params, state, x, mask=None) -> (state, log P(x | the symbols before x)).
      log_prob: (params, xs, state=None, lengths=None, method=None, key=None, mask=None)
        -> (state, log_probs), with log P(x_t | x_<t) in nats, (T, *batch); 0 past a
        length. A key draws the cell's noise, as in `jrnn.unroll`. Where the mask, of
        the shape of xs or (T, *batch), is False, a value or a component of it is
        missing: it adds exactly 0, whatever its value, and the cell still takes a step,
        reading a flag that says the value is missing. A mask requires a head made with
        `missing=True`.
      predict: (params, state) -> the `Distribution` of the next symbol.
      predictive: arguments as `log_prob` -> (state, distribution) of each x_t given
        x_<t, (T, *batch); meaningless past a length. `distribution.cdf(xs, mask)` is 0
        where the mask is False, and `jnp.arange(len(xs))[:, None] < lengths[None]` is
        the mask of the steps within lengths.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=(),
        state=None, prompt_mask=None) -> the `length` symbols that follow the state and
        then the prompt, (length, *batch). The temperature is one number, or an array of
        the batch shape with one for each sequence. A state or a prompt without batch
        axes serves a whole batch. `prompt_mask` is the mask of the prompt.
      cell: The cell.
      head: The head.
      spec: The factory call that made the model.
    """

    init: Callable[..., SequenceParams]
    init_state: Callable[..., SequenceState]
    step: Callable[..., tuple[SequenceState, Array]]
    log_prob: Callable[..., tuple[SequenceState, Array]]
    predict: Callable[..., Distribution]
    predictive: Callable[..., tuple[SequenceState, Distribution]]
    sample: Callable[..., Array]
    cell: Cell
    head: Head
    spec: Spec

    __repr__ = call_of


@memoize
def sequence_model(cell: Cell, head: Head) -> SequenceModel:
    """Makes a sequence model: the cell reads past symbols, the head scores the next.

    Args:
      cell: Reads the encoded symbols; its input size is `head.spec.input_size`. For
        token ids, make it with `input_init=jrnn.initializers.embedding`.
      head: Encodes symbols and scores them, such as `jrnn.categorical(vocab_size)`, or
        `jrnn.gaussian()` for numbers. For a head without a size, every axis after time
        is a batch axis: (T, B, 1) is a batch of shape (B, 1), scored as (T, B, 1), not
        B sequences of one component.

    Returns:
      A model; equal arguments return the same object.

    Raises:
      TypeError: `cell` is not a cell, or `head` is not a head.
      ValueError: The cell's input size differs from the head's, the cell reads ahead,
        or it reads elapsed time from one of its input features.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.gru(5, 8, input_init=jrnn.initializers.embedding)
      >>> model = jrnn.sequence_model(cell, jrnn.categorical(5))
      >>> params = model.init(jax.random.key(0))
      >>> state, log_probs = model.log_prob(params, jnp.array([3, 1, 4]))
      >>> log_probs.shape
      (3,)
    """
    check_cell(cell)
    check_head(head)
    if reads_ahead(cell):
        raise ValueError(
            f"Expected a cell that reads only forwards, got {cell}: its outputs have "
            "seen the symbols they would predict."
        )
    if cell.spec.input_size != head.spec.input_size:
        raise ValueError(
            f"Expected a cell with input_size={head.spec.input_size}, the size to "
            f"which {head} encodes symbols, got {cell}."
        )
    check_no_elapsed(
        "sequence_model", cell, f"it reads only the symbols that {head} encodes"
    )
    return SequenceModel(
        init=functools.partial(_init, cell, head),
        init_state=functools.partial(_init_state, cell, head),
        step=functools.partial(_step, cell, head),
        log_prob=functools.partial(_through, score, cell, head),
        predict=functools.partial(_predict, cell, head),
        predictive=functools.partial(_through, foresee, cell, head),
        sample=functools.partial(_sample, cell, head),
        cell=cell,
        head=head,
        spec=head.spec._replace(
            name="sequence_model", arguments=(("cell", cell), ("head", head))
        ),
    )


def _init(
    cell: Cell, head: Head, key: Key, dtype: DTypeLike | None = None
) -> SequenceParams:
    key = check_given_key(key)
    key_cell, key_head, key_start = jax.random.split(key, 3)
    return SequenceParams(
        cell=cell.init(key_cell, dtype),
        head=head.init(key_head, cell.spec.output_size, dtype),
        start=draw(ZEROS, key_start, (cell.spec.input_size,), dtype),
    )


def _init_state(
    cell: Cell, head: Head, params: SequenceParams, batch_shape: tuple[int, ...] = ()
) -> SequenceState:
    _check_params(cell, head, params)
    return _start(cell, head, params, check_batch_shape(batch_shape))


def _start(
    cell: Cell, head: Head, params: SequenceParams, batch_shape: tuple[int, ...] = ()
) -> SequenceState:
    dtype = state_dtype(params.head)
    return SequenceState(
        cell.init_state(params.cell, batch_shape), head.blank(batch_shape, dtype)
    )


def _step(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    state: SequenceState,
    x: Array,
    mask: Array | None = None,
) -> tuple[SequenceState, Array]:
    x, mask = head.check("x", x, mask)
    head.check_values("x", x, mask)
    xs, mask = x[None], None if mask is None else mask[None]
    state, log_probs = _through(score, cell, head, params, xs, state, mask=mask)
    return state, log_probs[0]


def _through(
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
) -> tuple[SequenceState, Any]:
    """Checks the arguments and calls a compiled function."""
    xs, mask = head.check("xs", xs, mask)
    batch = check_steps(xs, head.event_shape)
    if mask is not None and not head.missing:
        raise ValueError(
            f"Expected a head that reads missing values, got a mask for {head}: make a "
            "head of numbers with missing=True; for token ids, use an extra id for "
            "missing symbols."
        )
    if lengths is not None:
        lengths = check_lengths(lengths, xs.shape[0], batch)
    active = active_steps(xs.shape[0], lengths, None)
    xs, mask = silence(active, xs), silence(active, mask)
    counted = expand_flags(active, xs) if mask is None else mask
    head.check_values("xs", xs, counted)
    _check_params(cell, head, params)
    if state is None:
        start: SequenceState = _start(cell, head, params, batch)
    else:
        like = jax.eval_shape(lambda: _start(cell, head, params, batch))
        source = lambda: f"init_state(params, {batch})"
        start = fit_state("state", state, like, (), source)
    method, key = chosen(method), check_key(key)
    given = Symbols(xs, mask, start, lengths, key)
    return compiled(cell, head, method, params, given)


def _predict(
    cell: Cell, head: Head, params: SequenceParams, state: SequenceState
) -> Distribution:
    _check_params(cell, head, params)
    state = check_single(functools.partial(_start, cell, head, params), state)
    y = read_last(cell, head, params, state)[1]
    return head.predict(params.head, y)


@bounded
def _expected_params(cell: Cell, head: Head) -> SequenceParams:
    return jax.eval_shape(lambda: _init(cell, head, jax.random.key(0)))


def _check_params(cell: Cell, head: Head, params: SequenceParams) -> None:
    """Raises ValueError unless `params` are those of this model."""
    source = lambda: f"sequence_model({cell}, {head}).init(key)"
    check_like("params", params, _expected_params(cell, head), source)
    check_floating("params", params)


def _sample(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    key: Key,
    length: int,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: SequenceState | None = None,
    prompt_mask: Any = None,
) -> Array:
    """Checks the arguments, reads the prompt, and calls the compiled loop."""
    _check_params(cell, head, params)

    def read(prompt: Array, state: SequenceState, mask: Array | None) -> SequenceState:
        return _through(score, cell, head, params, prompt, state, mask=mask)[0]

    reader = Reader(
        functools.partial(_start, cell, head, params),
        read,
        head.check,
        head.check_values,
        jax.tree.leaves(head.blank((), state_dtype(params.head)))[0].dtype,
        head.event_shape,
    )
    prompted = prompt, prompt_mask, state, batch_shape
    length, *start = begin(reader, key, length, temperature, *prompted)
    return generate(cell, head, length, params, *start)
