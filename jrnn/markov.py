r"""Markov chains: the notes' baseline, well estimated, very simple, obviously wrong.

    P(x_1..x_T) = P(x_1) P(x_2|x_1) ... P(x_T|x_{T-1})            first order
    P(x_t | x_1..x_{t-1}) = P(x_t | x_{t-k}..x_{t-1})             order k

Most long contexts are seen seldom or never, so each order leans on the one below it, by
as much as its context has surprised before (Witten and Bell 1991). With n(c, s) how
often s followed the context c, d(c) how many different symbols did, w the smoothing,
and c' the context without its oldest symbol:

    P_m(s | c) = (n(c, s) + w d(c) P_{m-1}(s | c')) / (n(c) + w d(c))
    P_{-1}(s)  = 1 / V

Only strings that occur are kept, in the order that `jrnn._strings` tells of.

Source: I. Witten and T. Bell, IEEE Transactions on Information Theory 37 (1991),
https://doi.org/10.1109/18.87000; compared by S. Chen and J. Goodman, Computer Speech
and Language 13 (1999), https://doi.org/10.1006/csla.1999.0128.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from jrnn._base import Key, Spec, check_size, memoize, spec_of, tell
from jrnn._caches import jitted
from jrnn._check import (
    check_array,
    check_ids,
    check_lengths,
    check_prompt,
    check_tokens,
    is_traced,
)
from jrnn._check_draws import check_batch_shape, check_given_key, check_temperature
from jrnn._check_kinds import dtype_of, told_type
from jrnn._integers import as_array, token_ids, widen_integers
from jrnn._lengths import active_steps, check_countable
from jrnn._parts import sample_symbols
from jrnn._prompts import batch_of, spread, typed
from jrnn._strings import (
    Level,
    Levels,
    context_totals,
    count_strings,
    find,
    later,
    occurring,
)

# Texts are scored in pieces of at most this many symbols, so that memory stays bounded.
PIECE = 1 << 20


class MarkovChain(NamedTuple):
    """P(x_t | the k symbols before it), as pure functions.

    Attributes:
      fit: (xs, lengths=None) -> params, one `Level` per order from 0 to k; the first
        m + 1 of them are the parameters of the chain of order m.
      init_state: (params, batch_shape=()) -> the last k symbols, (k, *batch); -1 where
        there is none yet.
      predict: (params, state) -> log-probabilities of the next symbol, (*batch, V).
      log_prob: (params, xs, state=None, lengths=None) -> (state, log_probs), with
        log P(x_t | x_<t) in nats, (T, *batch); 0 past a length.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=(),
        state=None) -> the `length` symbols that follow the state and then the prompt,
        (length, *batch). The temperature is one number, or an array of the batch shape
        with one for each sequence. A state or a prompt without batch axes serves a
        whole batch.
      spec: What the chain is.
    """

    fit: Callable[..., Levels]
    init_state: Callable[..., Array]
    predict: Callable[[Levels, Array], Array]
    log_prob: Callable[..., tuple[Array, Array]]
    sample: Callable[..., Array]
    spec: Spec


class ContextCounts(NamedTuple):
    """How well the terms of one order are estimated."""

    contexts: int
    median: float


@memoize
def markov_chain(vocab_size: int, order: int, smoothing: float = 1.0) -> MarkovChain:
    """Makes a Markov chain of order k, smoothed by all orders below.

    Args:
      vocab_size: V, how many symbols there are; token ids are 0..V-1.
      order: k, how many symbols back the next one depends on; 0 or more.
      smoothing: w, how much an order leans on the one below; above 0.

    Returns:
      A model with the `log_prob` and `sample` of `jrnn.sequence_model`. Token ids out
      of range score NaN under `jax.jit`.

    Raises:
      TypeError: A number is of the wrong type.
      ValueError: A number is out of range.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> chain = jrnn.markov_chain(2, order=1)
      >>> params = chain.fit(jnp.array([0, 1, 0, 1, 0, 1]))
      >>> state, log_probs = chain.log_prob(params, jnp.array([0, 1]))
      >>> [round(p, 3) for p in jnp.exp(log_probs).tolist()]
      [0.5, 0.875]
    """
    check_size("vocab_size", vocab_size)
    check_size("order", order, least=0)
    if not 0 < smoothing < math.inf:
        raise ValueError(
            f"Expected a finite smoothing above 0, got {smoothing}: at 0 an unseen "
            "symbol has probability 0, at infinity the counts say nothing."
        )
    spec = spec_of("markov_chain", vocab_size, input_size=vocab_size)._replace(
        arguments=(
            ("vocab_size", vocab_size),
            ("order", order),
            ("smoothing", smoothing),
        )
    )
    return MarkovChain(
        fit=functools.partial(_fit, vocab_size, order),
        init_state=functools.partial(_init_state, order),
        predict=functools.partial(_predict, vocab_size, order, smoothing),
        log_prob=functools.partial(_log_prob, vocab_size, order, smoothing),
        sample=functools.partial(_sample, vocab_size, order, smoothing),
        spec=spec,
    )


def context_counts(params: Levels) -> list[ContextCounts]:
    """Returns, for each order, the contexts seen and the median of their counts.

    Whether "the terms will likely be well estimated" is a matter of these.

    Args:
      params: What `fit` returned.

    Returns:
      One entry per order, from 0.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> params = jrnn.markov_chain(2, order=1).fit(jnp.array([0, 1, 0, 1, 0]))
      >>> jrnn.context_counts(params)[1]
      ContextCounts(contexts=2, median=2.0)
    """
    _check_levels(params, len(params) - 1 if isinstance(params, tuple | list) else 0)
    counts = []
    for level in params:
        total = np.asarray(level.totals)
        seen = total[total > 0]
        median = float(np.median(seen)) if seen.size else 0.0
        counts.append(ContextCounts(int(seen.size), median))
    return counts


def _fit(vocab_size: int, order: int, xs: Any, lengths: Any = None) -> Levels:
    """Counts every string of length 1 to k + 1. Not under `jax.jit`: sizes are data."""
    if is_traced(xs) or is_traced(lengths):
        raise TypeError(
            "Expected a text whose symbols are known, got a traced one: how many "
            "strings occur depends on the text. Call fit outside jax.jit."
        )
    xs, valid = _checked(vocab_size, xs, lengths)
    if not valid.any():
        raise ValueError("Expected at least one symbol to count, got an empty text.")
    symbols = _flat(xs)
    if symbols.size >= np.iinfo(np.int32).max:
        raise ValueError(
            f"Expected fewer than 2**31 - 1 symbols, got {symbols.size}; count a part."
        )
    return count_strings(symbols, order)


def _init_state(
    order: int, params: Levels, batch_shape: tuple[int, ...] = ()
) -> Int[Array, "k *batch"]:
    _check_levels(params, order)
    return jnp.full((order, *check_batch_shape(batch_shape)), -1, jnp.int32)


def _mix(n_cs: Array, n_c: Array, d_c: Array, below: Array, w: Any) -> Array:
    """Returns P_m from the counts and P_{m-1}; P_{m-1} itself for a new context."""
    lean = w * d_c.astype(below.dtype)
    whole = n_c.astype(below.dtype) + lean
    mixed = (n_cs.astype(below.dtype) + lean * below) / jnp.where(whole > 0, whole, 1)
    return jnp.where(whole > 0, mixed, below)


@jitted(("vocab_size", "smoothing"))
def _score(
    vocab_size: int, smoothing: float, params: Levels, state: Array, xs: Array
) -> Float[Array, "T *batch"]:
    """Returns log P of each symbol, NaN where it is none of the vocabulary."""
    order = len(params) - 1
    symbols = jnp.concatenate([state, xs])
    p = jnp.full(symbols.shape, 1 / vocab_size)
    context = jnp.zeros(symbols.shape, jnp.int32)
    for level in occurring(params):
        found = find(vocab_size, level, context, symbols)
        n_cs = jnp.where(found >= 0, level.counts[jnp.maximum(found, 0)], 0)
        p = _mix(n_cs, *context_totals(level, context), p, smoothing)
        context = later(found)[:-1]
    known = (symbols >= 0) & (symbols < vocab_size)
    return jnp.where(known, jnp.log(p), jnp.nan)[order:]


def _log_prob(
    vocab_size: int,
    order: int,
    smoothing: float,
    params: Levels,
    xs: Any,
    state: Array | None = None,
    lengths: Any = None,
) -> tuple[Array, Array]:
    _check_levels(params, order)
    xs, valid = _checked(vocab_size, xs, lengths)
    batch = xs.shape[1:]
    state = _init_state(order, params, batch) if state is None else state
    state = _checked_state(vocab_size, state, (order, *batch))
    log_probs = _in_pieces(
        functools.partial(_score, vocab_size, smoothing, params), state, xs
    )
    log_probs = jnp.where(valid, log_probs, 0)
    history = jnp.concatenate([state, xs])
    if lengths is None:
        return history[xs.shape[0] :], log_probs
    last = jnp.clip(widen_integers(as_array(lengths)), 0, xs.shape[0])[None]
    steps = jnp.arange(order, dtype=last.dtype).reshape(order, *(1,) * len(batch))
    return jnp.take_along_axis(history, last + steps, axis=0), log_probs


def _in_pieces(
    score: Callable[[Array, Array], Array], state: Array, xs: Array
) -> Array:
    """Scores a long text piece by piece, each of a length that was compiled before."""
    if is_traced(xs):
        return score(state, xs)
    order, width = state.shape[0], max(1, int(np.prod(xs.shape[1:])))
    size = _power_of_two(min(xs.shape[0], max(1, PIECE // width)))
    missing = -xs.shape[0] % size
    edge = [(0, missing)] + [(0, 0)] * (xs.ndim - 1)
    history = jnp.concatenate([state, jnp.pad(xs, edge, constant_values=-1)])
    pieces = [
        score(history[at : at + order], history[at + order : at + order + size])
        for at in range(0, xs.shape[0], size)
    ]
    return jnp.concatenate(pieces)[: xs.shape[0]]


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _predict(
    vocab_size: int,
    order: int,
    smoothing: float,
    params: Levels,
    state: Integer[Array, "k *batch"],
) -> Float[Array, "*batch V"]:
    """Returns the log-probabilities of every next symbol."""
    _check_levels(params, order)
    state = check_array("state", state)
    state = _checked_state(vocab_size, state, (order, *state.shape[1:]))
    return _next(vocab_size, smoothing, params, state)


@jitted(("vocab_size", "smoothing"))
def _next(vocab_size: int, smoothing: float, params: Levels, state: Array) -> Array:
    batch = state.shape[1:]
    p = jnp.full((*batch, vocab_size), 1 / vocab_size)
    every = jnp.broadcast_to(
        jnp.arange(vocab_size, dtype=jnp.int32), (*batch, vocab_size)
    )
    contexts = jnp.zeros((state.shape[0] + 1, *batch), jnp.int32)
    for level in occurring(params):
        context = contexts[-1][..., None]
        found = find(vocab_size, level, context, every)
        n_cs = jnp.where(found >= 0, level.counts[jnp.maximum(found, 0)], 0)
        p = _mix(n_cs, *context_totals(level, context), p, smoothing)
        contexts = later(find(vocab_size, level, contexts[:-1], state))
    return jnp.log(p)


def _sample(
    vocab_size: int,
    order: int,
    smoothing: float,
    params: Levels,
    key: Key,
    length: int,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: Array | None = None,
) -> Array:
    _check_levels(params, order)
    key = check_given_key(key)
    length = check_size("length", length, least=0)
    check_countable(length, "sampling", name="symbols of length")
    init = functools.partial(_init_state, order, params)
    batch = check_batch_shape(batch_shape) or batch_of(init, state, axis=1)
    if prompt is not None:
        prompt = check_prompt(typed(prompt, jnp.int32), batch)
        batch = prompt.shape[1:]
    start = spread(init, state, batch, axis=1)
    start = _checked_state(vocab_size, start, (order, *batch))
    if prompt is not None and prompt.shape[0]:
        prompt, _ = _checked(vocab_size, prompt, None, "prompt")
        start = jnp.concatenate([start, prompt])[prompt.shape[0] :]
    temperature = check_temperature(temperature, start.shape[1:])
    return _generate(vocab_size, smoothing, length, params, key, start, temperature)


@jitted(("vocab_size", "smoothing", "length"))
def _generate(
    vocab_size: int,
    smoothing: float,
    length: int,
    params: Levels,
    key: Key,
    state: Array,
    temperature: Array,
) -> Array:
    def step(state: Array, key: Key) -> tuple[Array, Array]:
        log_p = _next(vocab_size, smoothing, params, state)
        symbol = sample_symbols(key, log_p, temperature)
        return jnp.concatenate([state, symbol[None]])[1:], symbol

    return jax.lax.scan(step, state, jax.random.split(key, length))[1]


def _checked(
    vocab_size: int, xs: Any, lengths: Any, name: str = "xs"
) -> tuple[Array, Array]:
    """Returns the symbols as int32, -1 where there is none, and which of them count."""
    xs = check_tokens(xs, name)
    if lengths is not None:
        lengths = check_lengths(lengths, xs.shape[0], xs.shape[1:])
    within = active_steps(xs.shape[0], lengths, None)
    valid = jnp.ones(xs.shape, bool) if within is None else within
    check_ids(name, jnp.where(valid, xs, 0), vocab_size)
    known = valid & (xs >= 0) & (xs < vocab_size)
    return jnp.where(known, jnp.where(known, xs, 0).astype(jnp.int32), -1), valid


def _flat(xs: Array) -> Int[Array, "T B"]:
    return xs.reshape(xs.shape[0], -1)


def _check_levels(params: Any, order: int) -> None:
    levels = isinstance(params, tuple | list) and all(
        isinstance(level, Level) for level in params
    )
    if not levels:
        raise TypeError(
            "Expected params to be what fit(xs) returned, a tuple of levels, got "
            f"{tell(params)}."
        )
    for m, level in enumerate(params):
        for name, leaf in zip(Level._fields, level, strict=True):
            dtype = dtype_of(leaf)
            if dtype is None or not jnp.issubdtype(dtype, jnp.integer):
                raise TypeError(
                    f"Expected params of counts, as fit(xs) returned them, got "
                    f"params[{m}].{name} of type {told_type(leaf)}."
                )
    if len(params) != order + 1:
        raise ValueError(
            f"Expected params to be the {order + 1} levels of a chain of order "
            f"{order}, got {len(params)}; pass what fit returned, or its first "
            f"{order + 1} levels."
        )


def _checked_state(vocab_size: int, state: Any, shape: tuple[int, ...]) -> Array:
    state = check_array("state", state)
    if state.shape != shape or not jnp.issubdtype(state.dtype, jnp.integer):
        raise ValueError(
            f"Expected an integer state of shape (order, *batch) = {shape}, got "
            f"{state.shape} of type {state.dtype}; start from init_state."
        )
    check_ids("state", jnp.maximum(widen_integers(state), 0), vocab_size)
    return token_ids(state)
