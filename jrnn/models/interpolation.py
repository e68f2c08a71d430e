r"""Probabilities of n-grams, each order interpolated with the one below it.

    P_m(s | c) = (n(c, s) + w d(c) P_{m-1}(s | c')) / (n(c) + w d(c))

`jrnn.models.markov_chain` defines the letters. These are the compiled functions of a
chain; its public functions check their arguments.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jrnn.core.caches import jitted
from jrnn.core.cell import Key
from jrnn.core.check import is_traced
from jrnn.heads.sampling import sample_symbols
from jrnn.models.generation import Sampled, Start, Step, draw_all, draw_until
from jrnn.models.ngram_counts import Levels, context_totals, find, later, occurring

# Texts are scored in pieces of at most this many symbols, so that memory stays bounded.
PIECE = 1 << 20


class Form(NamedTuple):
    """The static arguments of a chain."""

    vocab_size: int
    order: int
    smoothing: float


def _mix(n_cs: Array, n_c: Array, d_c: Array, below: Array, w: Any) -> Array:
    """Returns P_m from the counts and P_{m-1}; P_{m-1} itself for a new context."""
    lean = w * d_c.astype(below.dtype)
    whole = n_c.astype(below.dtype) + lean
    mixed = (n_cs.astype(below.dtype) + lean * below) / jnp.where(whole > 0, whole, 1)
    return jnp.where(whole > 0, mixed, below)


@jitted(("form",))
def _score(
    form: Form, params: Levels, state: Array, xs: Array
) -> Float[Array, "T *batch"]:
    vocab_size = form.vocab_size
    symbols = jnp.concatenate([state, xs])
    p = jnp.full(symbols.shape, 1 / vocab_size)
    context = jnp.zeros(symbols.shape, jnp.int32)
    for level in occurring(params):
        found = find(vocab_size, level, context, symbols)
        n_cs = jnp.where(found >= 0, level.counts[jnp.maximum(found, 0)], 0)
        p = _mix(n_cs, *context_totals(level, context), p, form.smoothing)
        context = later(found)[:-1]
    known = (symbols >= 0) & (symbols < vocab_size)
    return jnp.where(known, jnp.log(p), jnp.nan)[form.order :]


def score(
    form: Form, params: Levels, state: Array, xs: Array
) -> Float[Array, "T *batch"]:
    """Returns log P of each symbol, NaN where it is not in the vocabulary.

    A long text is scored in pieces of one length, so that one compilation serves all.
    """
    if is_traced(xs):
        return _score(form, params, state, xs)
    order, width = form.order, max(1, int(np.prod(xs.shape[1:])))
    size = _power_of_two(min(xs.shape[0], max(1, PIECE // width)))
    missing = -xs.shape[0] % size
    edge = [(0, missing)] + [(0, 0)] * (xs.ndim - 1)
    history = jnp.concatenate([state, jnp.pad(xs, edge, constant_values=-1)])
    pieces = [
        _score(form, params, *jnp.split(history[at : at + order + size], [order]))
        for at in range(0, xs.shape[0], size)
    ]
    return jnp.concatenate(pieces)[: xs.shape[0]]


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


@jitted(("form",))
def foresee(form: Form, params: Levels, state: Array) -> Float[Array, "*batch V"]:
    """Returns log P of every symbol of the vocabulary after each window of k."""
    vocab_size, batch = form.vocab_size, state.shape[1:]
    p = jnp.full((*batch, vocab_size), 1 / vocab_size)
    every = jnp.broadcast_to(
        jnp.arange(vocab_size, dtype=jnp.int32), (*batch, vocab_size)
    )
    contexts = jnp.zeros((state.shape[0] + 1, *batch), jnp.int32)
    for level in occurring(params):
        context = contexts[-1][..., None]
        found = find(vocab_size, level, context, every)
        n_cs = jnp.where(found >= 0, level.counts[jnp.maximum(found, 0)], 0)
        p = _mix(n_cs, *context_totals(level, context), p, form.smoothing)
        contexts = later(find(vocab_size, level, contexts[:-1], state))
    return jnp.log(p)


@jitted(("form", "length"))
def generate(form: Form, length: int, params: Levels, start: Start) -> Array:
    """Returns sampled symbols that follow a window of k, (length, *batch)."""
    return draw_all(_drawing(form, params, start), length, start, params)


@jitted(("form", "length"))
def generate_until(
    form: Form, length: int, params: Levels, start: Start, end: Array
) -> Sampled:
    """Returns sampled symbols that follow a window of k, up to an end symbol."""
    batch = start.state.shape[1:]
    step = _drawing(form, params, start)
    return draw_until(step, length, start, params, end, batch)


def _drawing(form: Form, params: Levels, start: Start) -> Step:
    """Returns a step that draws the next symbol."""

    def step(state: Array, given: tuple[Key, Array | None]) -> tuple[Array, Array]:
        log_p = foresee(form, params, state)
        symbol = sample_symbols(given[0], log_p, start.temperature, start.truncation)
        return jnp.concatenate([state, symbol[None]])[1:], symbol

    return step
