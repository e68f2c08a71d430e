"""Counts of the n-grams that occur in a text: the parameters of a Markov chain.

Only strings that occur are stored. Level m holds the strings of length m + 1, in order:
a string's id is its rank among the pairs (id of the string without its last symbol,
last symbol), so that the symbols that followed a context are adjacent and binary search
finds one of them. No number exceeds the length of the text.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jrnn.core.arguments import tell
from jrnn.core.caches import jitted
from jrnn.core.check_kinds import dtype_of, told_type


class Level(NamedTuple):
    """The strings of one length that occur, sorted by context, then by last symbol.

    Attributes:
      start: The index of each context's first symbol, then the number of strings.
      symbols: The last symbol of each string.
      counts: How often each string occurs.
      totals: How often any symbol follows each context, n(c).
    """

    start: Int[Array, " contexts_plus_1"]
    symbols: Int[Array, " strings"]
    counts: Int[Array, " strings"]
    totals: Int[Array, " contexts"]


Levels = tuple[Level, ...]


class ContextCounts(NamedTuple):
    """The number of contexts of one order, and the median of their counts."""

    contexts: int
    median: float


def count_strings(symbols: Int[Array, "T B"], order: int) -> Levels:
    """Counts strings of length 1 to `order` + 1, except those with negative ids."""
    context = jnp.where(symbols >= 0, 0, -1)
    levels, contexts = [], 1
    for _ in range(order + 1):
        ranked = _rank(context, symbols)
        levels.append(_trim(ranked, contexts))
        contexts = levels[-1].symbols.size
        context = jnp.where(symbols >= 0, later(ranked.ids)[:-1], -1)
    return tuple(levels)


class _Ranked(NamedTuple):
    context: Array  # sorted
    symbol: Array  # sorted within a context
    first: Array  # where a new pair begins
    ids: Array  # the rank of each position's pair, -1 where there is none


@jitted()
def _rank(context: Int[Array, "T B"], symbol: Int[Array, "T B"]) -> _Ranked:
    """Sorts the pairs (context, symbol) and numbers the different ones."""
    absent = jnp.iinfo(jnp.int32).max
    place = jnp.arange(context.size, dtype=jnp.int32)
    keys = jnp.where(context < 0, absent, context).reshape(-1)
    keys, symbols, place = jax.lax.sort((keys, symbol.reshape(-1), place), num_keys=2)
    changed = (keys[1:] != keys[:-1]) | (symbols[1:] != symbols[:-1])
    present = keys != absent
    first = jnp.concatenate([jnp.ones(1, bool), changed]) & present
    rank = jnp.where(present, jnp.cumsum(first, dtype=jnp.int32) - 1, -1)
    ids = jnp.zeros_like(rank).at[place].set(rank, unique_indices=True)
    return _Ranked(keys, symbols, first, ids.reshape(context.shape))


def _trim(ranked: _Ranked, contexts: int) -> Level:
    """Drops the padding; not jittable, as the number of strings depends on the text."""
    first = np.flatnonzero(np.asarray(ranked.first))
    context = np.asarray(ranked.context)
    present = int(np.searchsorted(context, np.iinfo(np.int32).max))
    count = np.diff(np.append(first, present))
    start = np.searchsorted(context[first], np.arange(contexts + 1))
    ends = np.concatenate([[0], np.cumsum(count)])
    return Level(
        start=jnp.asarray(start, jnp.int32),
        symbols=ranked.symbol[first],
        counts=jnp.asarray(count, jnp.int32),
        totals=jnp.asarray(np.diff(ends[start]), jnp.int32),
    )


def find(vocab_size: int, level: Level, context: Array, symbol: Array) -> Array:
    """Returns the id of each string (context, symbol), -1 if it never occurred.

    Searches by bisection among the symbols that followed the context, at most V.
    """
    known = jnp.maximum(context, 0)
    last = level.symbols.size - 1
    low, end = level.start[known], level.start[known + 1]

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2
        open_ = low < high
        below = open_ & (level.symbols[jnp.minimum(middle, last)] < symbol)
        above = open_ & ~below
        return jnp.where(below, middle + 1, low), jnp.where(above, middle, high)

    shape = jnp.broadcast_shapes(low.shape, symbol.shape)
    low, end = jnp.broadcast_to(low, shape), jnp.broadcast_to(end, shape)
    low, _ = jax.lax.fori_loop(0, vocab_size.bit_length(), halve, (low, end))
    hit = (low < end) & (level.symbols[jnp.minimum(low, last)] == symbol)
    return jnp.where(hit & (context >= 0), low, -1)


def occurring(params: Levels) -> Levels:
    """Drops empty levels, of strings longer than the text: gathers need an element."""
    return tuple(level for level in params if level.symbols.size)


def later(ids: Array) -> Array:
    """Shifts the ids of strings by one step, to where they are contexts."""
    edge = [(1, 0)] + [(0, 0)] * (ids.ndim - 1)
    return jnp.pad(ids, edge, constant_values=-1)


def context_totals(level: Level, context: Array) -> tuple[Array, Array]:
    """Returns n(c) and d(c); zeros for a context that never occurred."""
    known = jnp.maximum(context, 0)
    different = level.start[known + 1] - level.start[known]
    seen = context >= 0
    return jnp.where(seen, level.totals[known], 0), jnp.where(seen, different, 0)


def context_counts(params: Levels) -> list[ContextCounts]:
    """Returns, for each order, the number of contexts and the median of their counts.

    They show whether "the terms will likely be well estimated".

    Args:
      params: The parameters that `fit` returned.

    Returns:
      One entry per order, from 0.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> params = jrnn.markov_chain(2, order=1).fit(jnp.array([0, 1, 0, 1, 0]))
      >>> jrnn.models.context_counts(params)[1]
      ContextCounts(contexts=2, median=2.0)
    """
    check_levels(params, len(params) - 1 if isinstance(params, tuple | list) else 0)
    counts = []
    for level in params:
        total = np.asarray(level.totals)
        seen = total[total > 0]
        median = float(np.median(seen)) if seen.size else 0.0
        counts.append(ContextCounts(int(seen.size), median))
    return counts


def check_levels(params: Any, order: int) -> None:
    """Raises unless `params` are the counts of a chain of that order."""
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
