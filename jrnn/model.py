r"""Models of sequences: a cell and a head together are P(x_1..x_T).

    P(x_1..x_T) = prod_t P(x_t | x_<t),   P(x_t | x_1..x_{t-1}) = P(x_t | h_t)

The state that predicts x_t has read x_1..x_{t-1} and not x_t: at step t the cell reads
x_{t-1}, and a learned start vector where t = 1. A model's state is (cell state, last
symbol), so that a sequence scored in chunks scores as the whole.

Symbols are what the head makes them: token ids (T, *batch), numbers (T, *batch), or
numbers of several components (T, *batch, size).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn._base import Cell, Key, Method, Params, State, check_size, memoize
from jrnn._caches import bounded, jitted
from jrnn._check import (
    check_cell,
    check_floating,
    check_lengths,
    check_like,
    check_method,
    check_no_elapsed,
    check_prompt,
    check_steps,
    fit_state,
)
from jrnn._check_draws import (
    check_batch_shape,
    check_given_key,
    check_key,
    check_temperature,
)
from jrnn._integers import saturate
from jrnn._lengths import active_steps, check_countable
from jrnn._parts import prepared, state_dtype
from jrnn._prompts import batch_of, check_prompt_mask, check_single, spread, typed
from jrnn._tree import reads_ahead
from jrnn._unroll import draw_noise, unroll_drawn
from jrnn.cells._init import ZEROS, draw
from jrnn.heads._dense import check_shape
from jrnn.heads._numbers import check_probability
from jrnn.likelihood import Head, check_head, check_offered
from jrnn.methods._steps import expand_flags, select, silence
from jrnn.methods.bptt import bptt


class SequenceParams(NamedTuple):
    """The parameters of a cell, of a head, and the learned start vector."""

    cell: Params
    head: Params
    start: Float[Array, " k"]


class SequenceState(NamedTuple):
    """The cell's state before it reads `last`, the symbol that came last."""

    cell: State
    last: Array


class SequenceModel(NamedTuple):
    """P(x_1..x_T) by a recurrent network, as pure functions.

    Attributes:
      init: (key, dtype=None) -> params.
      init_state: (params, batch_shape=()) -> state, before the first symbol.
      step: (params, state, x, mask=None) -> (state, log P(x | what came before)).
      log_prob: (params, xs, state=None, lengths=None, method=None, key=None, mask=None)
        -> (state, log_probs), with log P(x_t | x_<t) in nats, (T, *batch); 0 past a
        length. A key draws the cell's noise, as in `jrnn.unroll`. Where the mask, of
        the shape of xs or (T, *batch), is False, a value or a component of it is
        missing: it adds exactly 0, whatever stands in its place, and the cell goes on
        by a step in which it reads that nothing was known. The head is then made with
        `missing=True`.
      predict: (params, state) -> the distribution of the next symbol, as the parameters
        that `head.distribution` takes.
      predictive: arguments as `log_prob` -> (state, predicted), with the distribution
        of each x_t given x_<t, (T, *batch, ...); without meaning past a length.
      mean, variance: arguments as `log_prob` -> (state, values), the expectation and
        the variance of each x_t given x_<t, of the shape of xs, each component on its
        own; without meaning past a length.
      quantile: (params, xs, probability, ...) and the others of `log_prob` -> (state,
        values), the least x_t with at least that probability at or below it given
        x_<t; the probability is a number, or an array of the shape of xs. Without
        gradients, and without meaning past a length.
      cdf: arguments as `log_prob` -> (state, values), P(X_t <= x_t | x_<t), each
        component on its own, for probability integral transforms; 0 past a length and
        for what is missing; without gradients.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=(),
        state=None, prompt_mask=None) -> the `length` symbols that follow the state and
        then the prompt, (length, *batch). The temperature is one number, or an array of
        the batch shape with one for each sequence. A state or a prompt without batch
        axes serves a whole batch. `prompt_mask` says of the prompt what `mask` does of
        xs.
      cell: The cell it was made of.
      head: The head it was made of.
    """

    init: Callable[..., SequenceParams]
    init_state: Callable[..., SequenceState]
    step: Callable[..., tuple[SequenceState, Array]]
    log_prob: Callable[..., tuple[SequenceState, Array]]
    predict: Callable[..., Any]
    predictive: Callable[..., tuple[SequenceState, Any]]
    mean: Callable[..., tuple[SequenceState, Array]]
    variance: Callable[..., tuple[SequenceState, Array]]
    quantile: Callable[..., tuple[SequenceState, Array]]
    cdf: Callable[..., tuple[SequenceState, Array]]
    sample: Callable[..., Array]
    cell: Cell
    head: Head


@memoize
def sequence_model(cell: Cell, head: Head) -> SequenceModel:
    """Makes a model of sequences: the cell reads what came, the head scores what comes.

    Args:
      cell: Reads the encoded symbols; its input size is `head.spec.input_size`. Where
        they are token ids, make it with `input_init=jrnn.one_hot_normal`.
      head: Encodes symbols and scores them, such as `jrnn.categorical(vocab_size)`, or
        `jrnn.gaussian()` for numbers. A head without a size reads every axis behind
        time as one of the batch: (T, B, 1) is a batch of shape (B, 1), scored as
        (T, B, 1), and not B sequences of one component.

    Returns:
      A model; equal arguments give the identical one.

    Raises:
      TypeError: `cell` is not a cell, or `head` is not a head.
      ValueError: The cell's input size is not what the head encodes symbols to, the
        cell reads ahead, or it takes one of its input features for elapsed time.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.gru(5, 8, input_init=jrnn.one_hot_normal)
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
            f"Expected a cell that reads forwards alone, got {cell}: its outputs have "
            "seen the symbols they would predict."
        )
    if cell.spec.input_size != head.spec.input_size:
        raise ValueError(
            f"Expected a cell with input_size={head.spec.input_size}, which is what "
            f"{head} encodes symbols to, got {cell}."
        )
    check_no_elapsed(
        "sequence_model", cell, f"all that it reads here is what {head} encodes"
    )
    return SequenceModel(
        init=functools.partial(_init, cell, head),
        init_state=functools.partial(_init_state, cell, head),
        step=functools.partial(_step, cell, head),
        log_prob=functools.partial(_through, _score, cell, head),
        predict=functools.partial(_predict, cell, head),
        predictive=functools.partial(_through, _foresee, cell, head),
        mean=functools.partial(_ask, "mean", _mean, cell, head),
        variance=functools.partial(_ask, "variance", _variance, cell, head),
        quantile=functools.partial(_quantile, cell, head),
        cdf=functools.partial(_ask, "cdf", _below, cell, head),
        sample=functools.partial(_sample, cell, head),
        cell=cell,
        head=head,
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
    state, log_probs = _through(_score, cell, head, params, xs, state, mask=mask)
    return state, log_probs[0]


class _Run(NamedTuple):
    """What a sequence is scored with, checked."""

    xs: Array
    mask: Array | None
    state: SequenceState
    lengths: Array | None
    key: Key | None


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
    """Checks the symbols, and hands over to a compiled function."""
    method, run = _checked(cell, head, params, xs, state, lengths, method, key, mask)
    return compiled(cell, head, method, params, run)


def _ask(
    name: str,
    compiled: Callable[..., Any],
    cell: Cell,
    head: Head,
    *args: Any,
    **keywords: Any,
) -> Any:
    """As `_through`, for what not every head knows: refused before anything is run."""
    check_offered(head, name)
    return _through(compiled, cell, head, *args, **keywords)


def _predict(
    cell: Cell, head: Head, params: SequenceParams, state: SequenceState
) -> Any:
    _check_params(cell, head, params)
    state = check_single(functools.partial(_start, cell, head, params), state)
    y = _read_last(cell, head, params, state)[1]
    return head.predict(params.head, y)


def _checked(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    xs: Any,
    state: SequenceState | None,
    lengths: Any,
    method: Method | None,
    key: Key | None,
    mask: Any,
) -> tuple[Method, _Run]:
    """Returns what was given, or raises on the first mistake."""
    xs, mask = head.check("xs", xs, mask)
    batch = check_steps(xs, head.event_shape)
    if mask is not None and not head.missing:
        raise ValueError(
            f"Expected a head that knows missing values, got a mask for {head}: make a "
            "head of numbers with missing=True, and give a missing token id one of its "
            "own."
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
    method = bptt() if method is None else method
    check_method(method)
    key = check_key(key)
    return method, _Run(xs, mask, start, lengths, key)


@bounded
def _expected_params(cell: Cell, head: Head) -> SequenceParams:
    return jax.eval_shape(lambda: _init(cell, head, jax.random.key(0)))


def _check_params(cell: Cell, head: Head, params: SequenceParams) -> None:
    """Raises ValueError unless `params` are those of this model."""
    source = lambda: f"sequence_model({cell}, {head}).init(key)"
    check_like("params", params, _expected_params(cell, head), source)
    check_floating("params", params)


@jitted(("cell", "head", "method"))
def _score(
    cell: Cell, head: Head, method: Method, params: SequenceParams, run: _Run
) -> tuple[SequenceState, Array]:
    state, ys = _read(cell, head, method, params, run)
    log_probs = head.log_prob(params.head, ys, run.xs, run.mask)
    return state, silence(active_steps(run.xs.shape[0], run.lengths, None), log_probs)


@jitted(("cell", "head", "method"))
def _below(
    cell: Cell, head: Head, method: Method, params: SequenceParams, run: _Run
) -> tuple[SequenceState, Array]:
    state, ys = _read(cell, head, method, params, run)
    below = head.cdf(params.head, ys, run.xs)
    below = below if run.mask is None else jnp.where(run.mask, below, 0)
    return state, silence(active_steps(run.xs.shape[0], run.lengths, None), below)


@jitted(("cell", "head", "method"))
def _mean(
    cell: Cell, head: Head, method: Method, params: SequenceParams, run: _Run
) -> tuple[SequenceState, Array]:
    state, ys = _read(cell, head, method, params, run)
    return state, head.mean(params.head, ys)


@jitted(("cell", "head", "method"))
def _variance(
    cell: Cell, head: Head, method: Method, params: SequenceParams, run: _Run
) -> tuple[SequenceState, Array]:
    state, ys = _read(cell, head, method, params, run)
    return state, head.variance(params.head, ys)


def _quantile(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    xs: Array,
    probability: float | Array,
    *others: Any,
    **keywords: Any,
) -> tuple[SequenceState, Array]:
    check_offered(head, "quantile")
    probability = check_probability(probability)
    if probability.shape:
        check_shape("probability", probability, jnp.shape(xs))
    state, predicted = _through(_foresee, cell, head, params, xs, *others, **keywords)
    return state, head.distribution.quantile(predicted, probability)


@jitted(("cell", "head", "method"))
def _foresee(
    cell: Cell, head: Head, method: Method, params: SequenceParams, run: _Run
) -> tuple[SequenceState, Any]:
    state, ys = _read(cell, head, method, params, run)
    return state, head.predict(params.head, ys)


def _read(
    cell: Cell, head: Head, method: Method, params: SequenceParams, run: _Run
) -> tuple[SequenceState, Array]:
    """Returns the state after a sequence, and what the cell shows before each step."""
    xs, mask, state, lengths, key = run
    batch = xs.shape[1 : xs.ndim - len(head.event_shape)]
    params = params._replace(cell=prepared(cell, params.cell))
    noise = None if key is None else draw_noise(cell, key, xs.shape[0], batch)
    first, others = (jax.tree.map(lambda a, s=s: a[s], noise) for s in _FIRST_OTHERS)
    moved, y = _read_last(cell, head, params, state, first)
    inner, ys = moved, y[None]
    symbols = head.symbols(xs, mask)
    if xs.shape[0] > 1:
        rest = None if lengths is None else jnp.maximum(lengths - 1, 0)
        read = head.encode(jax.tree.map(lambda a: a[:-1], symbols))
        inner, ys = unroll_drawn(cell, params.cell, read, moved, others, rest, method)
        ys = jnp.concatenate([y.astype(ys.dtype)[None], ys])
    return _after(state, inner, symbols, lengths), ys


def _after(
    state: SequenceState, inner: State, symbols: Any, lengths: Array | None
) -> SequenceState:
    """Returns the state after a sequence's own last symbol, not read yet."""
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
    """Casts numbers to the wider type of both, token ids and flags to the head's."""
    if jnp.issubdtype(last.dtype, jnp.integer):
        return saturate(last, xs.dtype)
    return last.astype(state_dtype(last, xs))


_FIRST_OTHERS = (0, slice(1, None))


def _read_last(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    state: SequenceState,
    noise: Any = None,
) -> tuple[State, Array]:
    """Lets the cell read the last symbol, or the start vector where there is none."""
    seen = head.seen(state.last)
    read = head.encode(silence(seen, state.last))
    start = params.start.astype(state_dtype(params.start))  # its gradient is a sum
    start = jnp.broadcast_to(start, (*seen.shape, start.size))
    floating = jnp.issubdtype(read.dtype, jnp.floating)
    start = start.astype(read.dtype if floating else params.start.dtype)
    after_symbol = cell.step(params.cell, state.cell, read, noise)
    after_start = cell.step(params.cell, state.cell, start, noise)
    return select(seen, after_symbol, after_start)


def _sample(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    key: Key,
    length: int,
    prompt: Array | None = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: SequenceState | None = None,
    prompt_mask: Array | None = None,
) -> Array:
    """Checks the arguments, reads the prompt, and hands over to the compiled loop."""
    key = check_given_key(key)
    length = check_size("length", length, least=0)
    check_countable(length, "sampling", name="symbols of length")
    _check_params(cell, head, params)
    check_prompt_mask(prompt, prompt_mask)
    init = functools.partial(_start, cell, head, params)
    batch = check_batch_shape(batch_shape) or batch_of(init, state)
    if prompt is None:
        state = spread(init, state, batch)
        temperature = check_temperature(temperature, batch)
    else:
        event = head.event_shape
        kind = jax.tree.leaves(head.blank((), state_dtype(params.head)))[0].dtype
        prompt = typed(prompt, kind, event)
        prompt, mask = head.check("prompt", prompt, prompt_mask)
        prompt = check_prompt(prompt, batch, event)
        if mask is not None:
            mask = check_prompt(mask, batch, event)
        head.check_values("prompt", prompt, mask)
        batch = prompt.shape[1 : prompt.ndim - len(event)]
        temperature = check_temperature(temperature, batch)
        state = spread(init, state, batch)
        if prompt.shape[0]:
            state, _ = _through(_score, cell, head, params, prompt, state, mask=mask)
    return _generate(cell, head, length, params, key, state, temperature)


@jitted(("cell", "head", "length"))
def _generate(
    cell: Cell,
    head: Head,
    length: int,
    params: SequenceParams,
    key: Key,
    state: SequenceState,
    temperature: Array,
) -> Array:
    params = params._replace(cell=prepared(cell, params.cell))
    blank = head.blank((), state_dtype(params.head))
    state = state._replace(last=jax.tree.map(_widen, state.last, blank))

    def step(state: SequenceState, key: Key) -> tuple[SequenceState, Array]:
        inner, y = _read_last(cell, head, params, state)
        x = head.sample(params.head, key, y, temperature)
        last = jax.tree.map(lambda a, b: a.astype(b.dtype), head.symbols(x), state.last)
        return SequenceState(inner, last), x

    return jax.lax.scan(step, state, jax.random.split(key, length))[1]
