r"""Markov chains, the notes' baseline: well estimated, very simple, obviously wrong.

    P(x_1..x_T) = P(x_1) P(x_2|x_1) ... P(x_T|x_{T-1})            first order
    P(x_t | x_1..x_{t-1}) = P(x_t | x_{t-k}..x_{t-1})             order k

Most long contexts are seen seldom or never, so each order is interpolated with the one
below it, whose weight grows with the number of different symbols that have followed the
context (Witten and Bell 1991). With n(c, s) the number of times that s followed the
context c, n(c) their sum over s, d(c) the number of different symbols that followed c,
w the smoothing, and c' the context without its oldest symbol:

    P_m(s | c) = (n(c, s) + w d(c) P_{m-1}(s | c')) / (n(c) + w d(c))
    P_{-1}(s)  = 1 / V

Only strings that occur are stored, in the order of `jrnn.models.ngram_counts`.

Source: I. Witten and T. Bell, IEEE Transactions on Information Theory 37 (1991),
https://doi.org/10.1109/18.87000; compared by S. Chen and J. Goodman, Computer Speech
and Language 13 (1999), https://doi.org/10.1006/csla.1999.0128.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer

from jrnn.core.arguments import check_size
from jrnn.core.cell import Key, Spec, call_of
from jrnn.core.check import check_array, is_traced
from jrnn.core.check_draws import check_batch_shape
from jrnn.core.check_inputs import check_ids, check_lengths, check_tokens
from jrnn.core.flags import active_steps
from jrnn.core.integers import as_array, token_ids, widen_integers
from jrnn.core.memoize import memoize
from jrnn.core.pickling import pickled_by_call
from jrnn.heads.categorical import CATEGORIES
from jrnn.heads.distribution import Distribution
from jrnn.models.generation import Sampled, Start
from jrnn.models.interpolation import Form, foresee, generate, generate_until, score
from jrnn.models.ngram_counts import Levels, check_levels, count_strings
from jrnn.models.prompts import Reader, Request, begin, check_end


@pickled_by_call
class MarkovChain(NamedTuple):
    """P(x_t | the k symbols before it), as pure functions.

    Attributes:
      fit: (xs, lengths=None) -> params, one `Level` per order from 0 to k; the first
        m + 1 of them are the parameters of the chain of order m.
      init_state: (params, batch_shape=()) -> the last k symbols, (k, *batch); -1 means
        no symbol yet.
      predict: (params, state) -> the `Distribution` of the next symbol, with
        log-probabilities (*batch, V) as its parameters.
      predictive: arguments as `log_prob` -> (state, distribution) of each x_t given
        x_<t, (T, *batch).
      log_prob: (params, xs, state=None, lengths=None) -> (state, log_probs), with
        log P(x_t | x_<t) in nats, (T, *batch); 0 past a length.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=(),
        state=None, top_k=None, top_p=None) -> the `length` symbols that follow the
        state and then the prompt, (length, *batch). The temperature, top_k and top_p
        (`jrnn.heads.sampling`) are one number each, or an array of the batch shape with
        one for each sequence. A state or a prompt without batch axes serves a whole
        batch.
      sample_until: (params, key, length, end, ...) -> `Sampled(tokens, lengths)`, the
        symbols that `sample` draws with the other arguments, up to the symbol `end`.
      spec: The factory call that made the chain.
    """

    fit: Callable[..., Levels]
    init_state: Callable[..., Array]
    predict: Callable[[Levels, Array], Distribution]
    predictive: Callable[..., tuple[Array, Distribution]]
    log_prob: Callable[..., tuple[Array, Array]]
    sample: Callable[..., Array]
    sample_until: Callable[..., Sampled]
    spec: Spec

    __repr__ = call_of


@memoize
def markov_chain(vocab_size: int, order: int, smoothing: float = 1.0) -> MarkovChain:
    """Makes a Markov chain of order k, interpolated with all lower orders.

    Args:
      vocab_size: V, the number of symbols; token ids are 0..V-1.
      order: k, the number of past symbols on which the next one depends; 0 or more.
      smoothing: w, the weight of the next lower order in each order; above 0.

    Returns:
      A model with the functions of `jrnn.sequence_model`. Token ids out of range score
      NaN under `jax.jit`.

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
            "symbol has probability 0, at infinity the counts have no effect."
        )
    form = Form(vocab_size, order, smoothing)
    return MarkovChain(
        fit=functools.partial(_fit, form),
        init_state=functools.partial(_init_state, form),
        predict=functools.partial(_predict, form),
        predictive=functools.partial(_predictive, form),
        log_prob=functools.partial(_log_prob, form),
        sample=functools.partial(_sample, form),
        sample_until=functools.partial(_sample_until, form),
        spec=Spec(
            "markov_chain", tuple(form._asdict().items()), vocab_size, vocab_size
        ),
    )


def _fit(form: Form, xs: Any, lengths: Any = None) -> Levels:
    """Counts all strings of length 1 to k + 1; not jittable: sizes depend on data."""
    if is_traced(xs) or is_traced(lengths):
        raise TypeError(
            "Expected concrete symbols, got traced ones: the number of different "
            "strings depends on them. Call fit outside jax.jit."
        )
    xs, valid = _checked(form, xs, lengths)
    if not valid.any():
        raise ValueError("Expected at least one symbol to count, got an empty text.")
    symbols = xs.reshape(xs.shape[0], -1)
    if symbols.size >= np.iinfo(np.int32).max:
        raise ValueError(
            f"Expected fewer than 2**31 - 1 symbols, got {symbols.size}; count a part."
        )
    return count_strings(symbols, form.order)


def _init_state(
    form: Form, params: Levels, batch_shape: tuple[int, ...] = ()
) -> Int[Array, "k *batch"]:
    check_levels(params, form.order)
    return jnp.full((form.order, *check_batch_shape(batch_shape)), -1, jnp.int32)


def _log_prob(
    form: Form, params: Levels, xs: Any, state: Any = None, lengths: Any = None
) -> tuple[Array, Array]:
    xs, valid, state = _prepared(form, params, xs, state, lengths)
    log_probs = jnp.where(valid, score(form, params, state, xs), 0)
    return _after(state, xs, lengths), log_probs


def _predictive(
    form: Form, params: Levels, xs: Any, state: Any = None, lengths: Any = None
) -> tuple[Array, Distribution]:
    xs, _, state = _prepared(form, params, xs, state, lengths)
    stretches = jnp.arange(form.order)[:, None] + jnp.arange(len(xs))[None]
    log_P = foresee(form, params, jnp.concatenate([state, xs])[stretches])
    return _after(state, xs, lengths), Distribution(CATEGORIES, log_P)


def _prepared(
    form: Form, params: Levels, xs: Any, state: Any, lengths: Any
) -> tuple[Array, Array, Array]:
    """Returns symbols, which are valid, and the state; raises on invalid arguments."""
    check_levels(params, form.order)
    xs, valid = _checked(form, xs, lengths)
    batch = xs.shape[1:]
    state = _init_state(form, params, batch) if state is None else state
    return xs, valid, _checked_state(form, state, (form.order, *batch))


def _after(state: Array, xs: Array, lengths: Any) -> Array:
    """Returns the last k symbols of each sequence."""
    history, order = jnp.concatenate([state, xs]), state.shape[0]
    if lengths is None:
        return history[xs.shape[0] :]
    last = jnp.clip(widen_integers(as_array(lengths)), 0, xs.shape[0])[None]
    steps = jnp.arange(order, dtype=last.dtype).reshape(order, *(1,) * (xs.ndim - 1))
    return jnp.take_along_axis(history, last + steps, axis=0)


def _predict(
    form: Form, params: Levels, state: Integer[Array, "k *batch"]
) -> Distribution:
    check_levels(params, form.order)
    state = check_array("state", state)
    state = _checked_state(form, state, (form.order, *state.shape[1:]))
    return Distribution(CATEGORIES, foresee(form, params, state))


def _sample(
    form: Form,
    params: Levels,
    key: Key,
    length: int,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: Array | None = None,
    top_k: int | Array | None = None,
    top_p: float | Array | None = None,
) -> Array:
    request = Request(
        *(key, length, prompt, temperature, batch_shape, state),
        top_k=top_k,
        top_p=top_p,
    )
    length, start = _begun(form, params, request)
    return generate(form, length, params, start)


def _sample_until(
    form: Form,
    params: Levels,
    key: Key,
    length: int,
    end: int | Array,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: Array | None = None,
    top_k: int | Array | None = None,
    top_p: float | Array | None = None,
) -> Sampled:
    end = check_end(end, form.vocab_size)
    request = Request(
        *(key, length, prompt, temperature, batch_shape, state),
        top_k=top_k,
        top_p=top_p,
    )
    length, start = _begun(form, params, request)
    return generate_until(form, length, params, start, end)


def _begun(form: Form, params: Levels, request: Request) -> tuple[int, Start]:
    """Checks the arguments of a sampling function, and reads the prompt."""
    check_levels(params, form.order)

    def checked(state: Array) -> Array:
        return _checked_state(form, state, (form.order, *state.shape[1:]))

    def read(prompt: Array, state: Array, mask: None, inputs: None) -> Array:
        del mask, inputs
        prompt, _ = _checked(form, prompt, None, "prompt")
        return _after(checked(state), prompt, None)

    init = functools.partial(_init_state, form, params)
    check = lambda _, prompt, mask: (prompt, mask)
    reader = Reader(init, read, check, lambda *_: None, jnp.int32, axis=1)
    length, start = begin(reader, request)
    return length, start._replace(state=checked(start.state))


def _checked(
    form: Form, xs: Any, lengths: Any, name: str = "xs"
) -> tuple[Array, Array]:
    """Returns the symbols as int32, -1 where there is none, and which are valid."""
    xs = check_tokens(xs, name)
    if lengths is not None:
        lengths = check_lengths(lengths, xs.shape[0], xs.shape[1:])
    within = active_steps(xs.shape[0], lengths, None)
    valid = jnp.ones(xs.shape, bool) if within is None else within
    check_ids(name, jnp.where(valid, xs, 0), form.vocab_size)
    known = valid & (xs >= 0) & (xs < form.vocab_size)
    return jnp.where(known, jnp.where(known, xs, 0).astype(jnp.int32), -1), valid


def _checked_state(form: Form, state: Any, shape: tuple[int, ...]) -> Array:
    state = check_array("state", state)
    if state.shape != shape or not jnp.issubdtype(state.dtype, jnp.integer):
        raise ValueError(
            f"Expected an integer state of shape (order, *batch) = {shape}, got "
            f"{state.shape} of type {state.dtype}; start from init_state."
        )
    check_ids("state", jnp.maximum(widen_integers(state), 0), form.vocab_size)
    return token_ids(state)
