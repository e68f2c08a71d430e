r"""Models: a cell and a head together are P(x_1..x_T), or labels for a sequence.

    P(x_1..x_T) = prod_t P(x_t | x_<t),   P(x_t | x_1..x_{t-1}) = P(x_t | h_t)

The state that predicts x_t has read x_1..x_{t-1} and not x_t: at step t the cell reads
x_{t-1}, and a learned start vector where t = 1. A model's state is (cell state, last
symbol), so that a sequence scored in chunks scores as the whole.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jrnn._base import Cell, Key, Method, Params, State, check_size, memoize
from jrnn._check import (
    check_ids,
    check_key,
    check_lengths,
    check_like,
    check_method,
    check_prompt,
    check_temperature,
    check_tokens,
)
from jrnn._parts import prepared
from jrnn._unroll import draw_noise, unroll, unroll_drawn
from jrnn._walk import active_steps
from jrnn.cells._init import ZEROS, draw
from jrnn.layers import reads_ahead
from jrnn.likelihood import Head
from jrnn.methods._steps import select, silence
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
      step: (params, state, x) -> (state, log P(x | what came before)).
      log_prob: (params, xs, state=None, lengths=None, method=None, key=None) ->
        (state, log_probs), with log P(x_t | x_<t) in nats, (T, *batch); 0 past a
        length. A key draws the cell's noise, as in `jrnn.unroll`.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=()) ->
        the `length` symbols that follow the prompt, (length, *batch).
      cell: The cell it was made of.
      head: The head it was made of.
    """

    init: Callable[..., SequenceParams]
    init_state: Callable[..., SequenceState]
    step: Callable[..., tuple[SequenceState, Array]]
    log_prob: Callable[..., tuple[SequenceState, Array]]
    sample: Callable[..., Array]
    cell: Cell
    head: Head


@memoize
def sequence_model(cell: Cell, head: Head) -> SequenceModel:
    """Makes a model of sequences: the cell reads what came, the head scores what comes.

    Args:
      cell: Reads the encoded symbols; its input size is the head's. Where they are
        token ids, make it with `input_init=jrnn.one_hot_normal`.
      head: Encodes symbols and scores them, such as `jrnn.categorical(vocab_size)`.

    Returns:
      A model; equal arguments give the identical one.

    Raises:
      ValueError: The cell's input size is not what the head encodes symbols to, or
        the cell reads ahead.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.gru(5, 8, input_init=jrnn.one_hot_normal)
      >>> model = jrnn.sequence_model(cell, jrnn.categorical(5))
      >>> params = model.init(jax.random.key(0))
      >>> state, log_probs = model.log_prob(params, jnp.array([3, 1, 4]))
      >>> log_probs.shape
      (3,)
    """
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
    return SequenceModel(
        init=functools.partial(_init, cell, head),
        init_state=functools.partial(_init_state, cell, head),
        step=functools.partial(_step, cell, head),
        log_prob=functools.partial(_log_prob, cell, head),
        sample=functools.partial(_sample, cell, head),
        cell=cell,
        head=head,
    )


def _init(
    cell: Cell, head: Head, key: Key, dtype: DTypeLike | None = None
) -> SequenceParams:
    key_cell, key_head, key_start = jax.random.split(key, 3)
    return SequenceParams(
        cell=cell.init(key_cell, dtype),
        head=head.init(key_head, cell.spec.output_size, dtype),
        start=draw(ZEROS, key_start, (cell.spec.input_size,), dtype),
    )


def _init_state(
    cell: Cell, head: Head, params: SequenceParams, batch_shape: tuple[int, ...] = ()
) -> SequenceState:
    return SequenceState(
        cell.init_state(params.cell, batch_shape), head.blank(batch_shape)
    )


def _step(
    cell: Cell, head: Head, params: SequenceParams, state: SequenceState, x: Array
) -> tuple[SequenceState, Array]:
    state, log_probs = _log_prob(cell, head, params, jnp.asarray(x)[None], state)
    return state, log_probs[0]


def _log_prob(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    xs: Array,
    state: SequenceState | None = None,
    lengths: Array | None = None,
    method: Method | None = None,
    key: Key | None = None,
) -> tuple[SequenceState, Array]:
    """Checks the symbols, and hands over to the compiled function."""
    xs = check_tokens(xs)
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        check_lengths(lengths, xs.shape[0], xs.shape[1:])
    active = active_steps(xs.shape[0], lengths, None)
    xs = silence(active, xs)
    check_ids("xs", xs, head.spec.input_size)
    _check_params(cell, head, params)
    if state is None:
        state = _init_state(cell, head, params, xs.shape[1:])
    else:
        start = lambda params: _init_state(cell, head, params, xs.shape[1:])
        like = jax.eval_shape(start, params)
        check_like("state", state, like, f"init_state(params, {xs.shape[1:]})")
    method = bptt() if method is None else method
    check_method(method)
    check_key(key)
    return _score(cell, head, method, params, xs, state, lengths, key)


@functools.cache
def _expected_params(cell: Cell, head: Head) -> SequenceParams:
    return jax.eval_shape(functools.partial(_init, cell, head), jax.random.key(0))


def _check_params(cell: Cell, head: Head, params: SequenceParams) -> None:
    """Raises ValueError unless `params` are those of this model."""
    source = f"sequence_model({cell}, {head}).init(key)"
    check_like("params", params, _expected_params(cell, head), source)


@functools.partial(jax.jit, static_argnames=("cell", "head", "method"))
def _score(
    cell: Cell,
    head: Head,
    method: Method,
    params: SequenceParams,
    xs: Array,
    state: SequenceState,
    lengths: Array | None,
    key: Key | None,
) -> tuple[SequenceState, Array]:
    steps, batch = xs.shape[0], xs.shape[1:]
    params = params._replace(cell=prepared(cell, params.cell))
    noise = None if key is None else draw_noise(cell, key, steps, batch)
    first, others = (jax.tree.map(lambda a, s=s: a[s], noise) for s in _FIRST_OTHERS)
    moved, y = _read_last(cell, head, params, state, first)
    inner, ys = moved, y[None]
    if steps > 1:
        rest = None if lengths is None else jnp.maximum(lengths - 1, 0)
        inner, ys = unroll_drawn(
            cell, params.cell, head.encode(xs[:-1]), moved, others, rest, method
        )
        ys = jnp.concatenate([y[None], ys])
    log_probs = head.log_prob(params.head, ys, xs)
    xs = xs.astype(state.last.dtype)
    if lengths is None:
        return SequenceState(inner, xs[-1]), log_probs
    index = jnp.maximum(lengths - 1, 0)[None]
    last = jnp.take_along_axis(xs, index, axis=0, mode="clip")[0]
    state = select(lengths > 0, SequenceState(inner, last), state)
    return state, silence(active_steps(xs.shape[0], lengths, None), log_probs)


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
    symbol = select(seen, state.last, jnp.zeros_like(state.last))
    start = jnp.broadcast_to(params.start, (*seen.shape, params.start.size))
    after_symbol = cell.step(params.cell, state.cell, head.encode(symbol), noise)
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
) -> Array:
    """Checks the arguments, reads the prompt, and hands over to the compiled loop."""
    length = check_size("length", length, least=0)
    check_temperature(temperature)
    _check_params(cell, head, params)
    state = _init_state(cell, head, params, batch_shape)
    if prompt is not None and jnp.size(prompt):
        prompt = check_prompt(prompt, batch_shape)
        state, _ = _log_prob(cell, head, params, prompt)
    return _generate(cell, head, length, params, key, state, jnp.asarray(temperature))


@functools.partial(jax.jit, static_argnames=("cell", "head", "length"))
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

    def step(state: SequenceState, key: Key) -> tuple[SequenceState, Array]:
        inner, y = _read_last(cell, head, params, state)
        symbol = head.sample(params.head, key, y, temperature)
        return SequenceState(inner, symbol), symbol

    return jax.lax.scan(step, state, jax.random.split(key, length))[1]


class SupervisedParams(NamedTuple):
    """The parameters of a cell and of a head."""

    cell: Params
    head: Params


class SupervisedModel(NamedTuple):
    """Labels for a sequence, one per step or one in all, as pure functions.

    Attributes:
      init: (key, dtype=None) -> params.
      predict: (params, xs, **keywords) -> what the head predicts, (T, *batch, ...) or
        (*batch, ...). Keywords are those of `jrnn.unroll`: lengths, resets, mask,
        reverse, key, method.
      log_prob: (params, xs, labels, **keywords) -> log P(label | xs) in nats, of the
        labels' shape; 0 at steps that do not count.
      cell: The cell it was made of.
      head: The head it was made of.
    """

    init: Callable[..., SupervisedParams]
    predict: Callable[..., Array]
    log_prob: Callable[..., Array]
    cell: Cell
    head: Head


Pool = Callable[[Array, Bool[Array, "T *batch"]], Array]


def last_step(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns what the cell showed at each sequence's own last active step.

    Args:
      ys: Outputs, time first.
      active: Which steps count.

    Returns:
      One vector per sequence; zeros for a sequence without active steps.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> ys = jnp.array([[1.0], [2.0], [0.0]])
      >>> jrnn.last_step(ys, jnp.array([True, True, False])).tolist()
      [2.0]
    """
    steps = jnp.arange(ys.shape[0]).reshape(-1, *(1,) * (active.ndim - 1))
    last = jnp.where(active, steps, 0).max(axis=0)
    picked = jnp.take_along_axis(ys, last[None, ..., None], axis=0)[0]
    return silence(active.any(axis=0), picked)


def mean_step(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns the mean over active steps of what the cell showed.

    Args:
      ys: Outputs, time first.
      active: Which steps count.

    Returns:
      One vector per sequence; zeros for a sequence without active steps.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> ys = jnp.array([[1.0], [2.0], [0.0]])
      >>> jrnn.mean_step(ys, jnp.array([True, True, False])).tolist()
      [1.5]
    """
    count = jnp.maximum(active.sum(axis=0), 1).astype(ys.dtype)
    return silence(active, ys).sum(axis=0) / count[..., None]


@memoize
def supervised_model(
    cell: Cell, head: Head, pool: Pool | None = None
) -> SupervisedModel:
    """Makes a model of labels: one per step, or one per sequence.

    Args:
      cell: Reads the inputs.
      head: Predicts labels from what the cell shows.
      pool: None labels each step; `jrnn.last_step`, `jrnn.mean_step` or any function
        (ys, active) -> features labels each sequence.

    Returns:
      A model; equal arguments give the identical one.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.categorical(2)
      >>> model = jrnn.supervised_model(jrnn.gru(3, 8), head, jrnn.mean_step)
      >>> params = model.init(jax.random.key(0))
      >>> model.predict(params, jnp.ones((7, 5, 3))).shape
      (5, 2)
    """

    def init(key: Key, dtype: DTypeLike | None = None) -> SupervisedParams:
        key_cell, key_head = jax.random.split(key)
        return SupervisedParams(
            cell.init(key_cell, dtype),
            head.init(key_head, cell.spec.output_size, dtype),
        )

    def features(
        params: SupervisedParams, xs: Array, keywords: dict[str, Any]
    ) -> tuple[Array, Array]:
        xs = jnp.asarray(xs)
        _, ys = unroll(cell, params.cell, xs, **keywords)
        lengths, mask = (keywords.get(name) for name in ("lengths", "mask"))
        active = active_steps(xs.shape[0], lengths, mask)
        active = jnp.ones(ys.shape[:-1], bool) if active is None else active
        return (ys if pool is None else pool(ys, active)), active

    def predict(params: SupervisedParams, xs: Array, **keywords: Any) -> Array:
        return head.predict(params.head, features(params, xs, keywords)[0])

    def log_prob(
        params: SupervisedParams, xs: Array, labels: Array, **keywords: Any
    ) -> Array:
        shown, active = features(params, xs, keywords)
        active = active if pool is None else active.any(axis=0)
        labels = silence(active, _check_labels(head, labels, active.shape))
        check_ids("labels", labels, head.spec.output_size)
        return silence(active, head.log_prob(params.head, shown, labels))

    return SupervisedModel(init, predict, log_prob, cell, head)


def _check_labels(head: Head, labels: Any, shape: tuple[int, ...]) -> Array:
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"Expected integer labels for {head}, got {labels.dtype}.")
    if labels.shape != shape:
        raise ValueError(f"Expected labels of shape {shape}, got {labels.shape}.")
    return labels
