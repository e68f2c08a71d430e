r"""The head of the notes: a dense layer and a softmax over the vocabulary.

P(x_t = k | h_t) = softmax(h_t W_y + b_y)_k
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn._base import Key, check_size, memoize, spec_of
from jrnn._check import check_array, check_ids
from jrnn._guard import with_own_constants
from jrnn._integers import token_ids, widen_integers
from jrnn._parts import sample_symbols
from jrnn.heads._dense import check_shape, checked, functions, hide
from jrnn.heads._numbers import check_mask
from jrnn.likelihood import Distribution, Head


@memoize
def categorical(vocab_size: int) -> Head:
    """Makes the head of the notes: a dense layer, and a softmax over the vocabulary.

    Symbols are names, not numbers: `mean`, `variance`, `cdf` and `quantile` are
    refused, and what is missing from a sequence gets a token id of its own.

    Args:
      vocab_size: v, how many symbols there are; token ids are 0..v-1.

    Returns:
      A head with parameters `DenseParams(W_y, b_y)`. Ids out of range score NaN.

    Raises:
      TypeError: `vocab_size` is not an integer.
      ValueError: `vocab_size` is below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.categorical(3)
      >>> params = head.init(jax.random.key(0), 4)
      >>> bool(jnp.isclose(jnp.exp(head.predict(params, jnp.ones(4))).sum(), 1.0))
      True
    """
    check_size("vocab_size", vocab_size)

    def check(name: str, xs: Any, mask: Any = None) -> tuple[Array, Array | None]:
        return _check_ids(name, xs, mask, f"categorical({vocab_size})")

    def check_values(name: str, xs: Array, mask: Array | None = None) -> None:
        check_ids(name, hide(mask, xs), vocab_size)

    distribution = with_own_constants(
        checked(
            Distribution(
                _log_prob,
                _sample,
                _no_mean,
                _no_cdf,
                _no_quantile,
                _no_variance,
                _shape,
            )
        )
    )
    return Head(
        *functions("categorical", vocab_size, _log_softmax, distribution, check),
        check=check,
        check_values=check_values,
        symbols=_symbols,
        encode=_same,
        blank=_blank,
        seen=_seen,
        distribution=distribution,
        spec=spec_of("categorical", vocab_size, input_size=vocab_size)._replace(
            arguments=(("vocab_size", vocab_size),)
        ),
    )


def _log_softmax(raw: Array) -> Array:
    return jax.nn.log_softmax(raw, axis=-1)


def _shape(log_p: Array) -> tuple[int, ...]:
    if not log_p.ndim:
        raise TypeError(f"Expected log-probabilities (..., vocab_size), got {log_p}.")
    return log_p.shape[:-1]


def _check_ids(name: str, xs: Any, mask: Any, whose: str) -> tuple[Array, Array | None]:
    xs = check_array(name, xs)
    if not jnp.issubdtype(xs.dtype, jnp.integer):
        raise TypeError(
            f"Expected integer token ids of shape (T, *batch) as {name} of {whose}, "
            f"got {xs.dtype} of shape {xs.shape}."
        )
    xs = widen_integers(xs)
    return xs, check_mask(mask, xs, (), name)


def _log_prob(log_p: Array, ids: Array, mask: Array | None = None) -> Array:
    log_p = check_array("predicted", log_p)
    ids, mask = _check_ids("x", ids, mask, "this distribution")
    check_shape("x, the ids,", ids, _shape(log_p))
    known = (ids >= 0) & (ids < log_p.shape[-1])
    index = jnp.where(known, ids, 0)[..., None]
    picked = jnp.take_along_axis(log_p, index, axis=-1)[..., 0]
    return hide(mask, jnp.where(known, picked, jnp.nan))


def _sample(key: Key, log_p: Array, temperature: float | Array = 1.0) -> Array:
    return sample_symbols(key, log_p, jnp.asarray(temperature))


def _no_mean(log_p: Array) -> NoReturn:
    raise TypeError(
        f"Expected a head whose symbols are numbers, got one of {log_p.shape[-1]} "
        "categories, which have no mean; head.predict gives their log-probabilities."
    )


def _no_cdf(log_p: Array, ids: Array) -> NoReturn:
    del ids
    raise TypeError(
        f"Expected a head whose symbols are in order, got one of {log_p.shape[-1]} "
        "categories, which have no cdf; head.predict gives their log-probabilities."
    )


def _no_variance(log_p: Array) -> NoReturn:
    raise TypeError(
        f"Expected a head whose symbols are numbers, got one of {log_p.shape[-1]} "
        "categories, which have no variance; head.predict gives their "
        "log-probabilities."
    )


def _no_quantile(log_p: Array, p: Any) -> NoReturn:
    del p
    raise TypeError(
        f"Expected a head whose symbols are in order, got one of {log_p.shape[-1]} "
        "categories, which have no quantiles; head.predict gives their "
        "log-probabilities."
    )


def _symbols(ids: Array, mask: Array | None = None) -> Array:
    """Returns ids as int32; one below 0 leaves the range above, for -1 is `_blank`."""
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
