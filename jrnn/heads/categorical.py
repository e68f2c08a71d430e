r"""The head of the notes: a dense layer and a softmax over the vocabulary.

P(x_t = k | h_t) = softmax(h_t W_y + b_y)_k
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Spec
from jrnn.core.check import check_array
from jrnn.core.check_inputs import check_ids
from jrnn.core.integers import token_ids, widen_integers
from jrnn.core.memoize import memoize
from jrnn.heads.dense import dense_head
from jrnn.heads.distribution import Family
from jrnn.heads.head import Head
from jrnn.heads.number_head import check_mask
from jrnn.heads.numerics import hide
from jrnn.heads.sampling import sample_symbols


@memoize
def categorical(vocab_size: int) -> Head:
    """Makes the head of the notes: a dense layer, and a softmax over the vocabulary.

    Symbols are names, not numbers: `mean`, `variance`, `cdf` and `quantile` raise
    TypeError, and missing symbols need a token id of their own.

    Args:
      vocab_size: v, the number of symbols; token ids are 0..v-1.

    Returns:
      A head with parameters `DenseParams(W_y, b_y)`. Ids out of range score NaN.

    Raises:
      TypeError: `vocab_size` is not an integer.
      ValueError: `vocab_size` is below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.categorical(3)
      >>> params = head.init(jax.random.key(0), 4)
      >>> log_p = head.predict(params, jnp.ones(4)).parameters
      >>> bool(jnp.isclose(jnp.exp(log_p).sum(), 1.0))
      True
    """
    check_size("vocab_size", vocab_size)

    def check_values(name: str, xs: Array, mask: Array | None = None) -> None:
        check_ids(name, hide(mask, xs), vocab_size)

    return dense_head(
        Spec("categorical", (("vocab_size", vocab_size),), vocab_size, vocab_size),
        jax.nn.log_softmax,
        CATEGORIES,
        functools.partial(_check_ids, f"categorical({vocab_size})"),
        check_values=check_values,
        symbols=_symbols,
        encode=_same,
        blank=_blank,
        seen=_seen,
    )


def _shape(log_p: Array) -> tuple[int, ...]:
    if not log_p.ndim:
        raise TypeError(f"Expected log-probabilities (..., vocab_size), got {log_p}.")
    return log_p.shape[:-1]


def _check_ids(
    whose: str, name: str, xs: Any, mask: Any = None
) -> tuple[Array, Array | None]:
    xs = check_array(name, xs)
    if not jnp.issubdtype(xs.dtype, jnp.integer):
        raise TypeError(
            f"Expected integer token ids of shape (T, *batch) as {name} of {whose}, "
            f"got {xs.dtype} of shape {xs.shape}."
        )
    xs = widen_integers(xs)
    return xs, check_mask(mask, xs, (), name)


def _log_prob(log_p: Array, ids: Array, mask: Array | None = None) -> Array:
    known = (ids >= 0) & (ids < log_p.shape[-1])
    index = jnp.where(known, ids, 0)[..., None]
    picked = jnp.take_along_axis(log_p, index, axis=-1)[..., 0]
    return hide(mask, jnp.where(known, picked, jnp.nan))


def _none(what: str, symbols: str) -> Callable[..., NoReturn]:
    """Returns a function that raises TypeError, for what categories do not have."""

    def refuse(log_p: Array, *_: Array) -> NoReturn:
        raise TypeError(
            f"Expected a head whose symbols are {symbols}, got one of "
            f"{log_p.shape[-1]} categories, which have no {what}; head.predict gives "
            "their log-probabilities."
        )

    return refuse


CATEGORIES = Family(
    _log_prob,
    sample_symbols,
    _none("mean", "numbers"),
    _none("cdf", "in order"),
    _none("quantiles", "in order"),
    _none("variance", "numbers"),
    _shape,
    functools.partial(_check_ids, "this distribution"),
    values="ids",
    truncates=True,
)


def _symbols(ids: Array, mask: Array | None = None) -> Array:
    """Returns ids as int32; negative ids become too large, as -1 means `_blank`."""
    del mask
    ids = token_ids(ids)
    return jnp.where(ids < 0, jnp.iinfo(jnp.int32).max, ids)


def _same(ids: Array) -> Array:
    return ids


def _blank(batch_shape: tuple[int, ...], dtype: DTypeLike | None = None) -> Array:
    del dtype
    return jnp.full(batch_shape, -1, jnp.int32)


def _seen(ids: Array) -> Array:
    return widen_integers(ids) >= 0
