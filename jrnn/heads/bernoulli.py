r"""The Bernoulli head: what is 0 or 1.

P(x = 1 | h) = sigmoid(l),    ln P(x | h) = -softplus((1 - 2 x) l)
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Key
from jrnn.core.memoize import memoize
from jrnn.heads.arguments import casting, size_or_none, whether_missing
from jrnn.heads.distribution import Family
from jrnn.heads.head import Head
from jrnn.heads.number_head import Support, family_of_numbers, number_head
from jrnn.heads.numerics import common, per_sequence, total

BINARY = Support(lambda x: (x == 0) | (x == 1), "zeros and ones", whole=True)


@casting(size=size_or_none, missing=whether_missing)
def bernoulli(size: int | None = None, missing: bool = False) -> Head:
    """Makes a head of zeros and ones, each with a logit that is a function of h.

    Components are independent given h. Symbols are 0 or 1: floats,
    integers or booleans; a cell reads, and samples are, floats.

    Args:
      size: n, how many components a value has, (T, *batch, n); None: it is one number,
        (T, *batch).
      missing: Whether values may be missing: the cell then reads n values and n flags
        that tell which are known, and has twice the input size.

    Returns:
      A head that predicts distributions whose parameters are the logits, and whose
      `mean` is P(x = 1). What is neither 0 nor 1 scores NaN. Samples of temperature
      tau divide the logits by it; 0 gives the likelier one.

    Raises:
      TypeError: An argument is of the wrong type, or a `cdf` or a `quantile` is asked
        for.
      ValueError: `size` is below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.heads.bernoulli()
      >>> params = head.init(jax.random.key(0), 4)
      >>> float(head.predict(params, jnp.zeros(4)).mean())
      0.5
    """
    return number_head(
        "bernoulli",
        size or 1,
        _only if size is None else _same,
        independent(size),
        BINARY,
        size=size,
        missing=missing,
    )


def _only(raw: Array) -> Array:
    return raw[..., 0]


def _same(raw: Array) -> Array:
    return raw


@memoize
def independent(size: int | None) -> Family:
    """Returns the family of logits."""

    def log_prob(logits: Array, x: Array, mask: Array | None = None) -> Array:
        x, logits = common(x, logits)
        return total(size, jax.nn.log_sigmoid((2 * x - 1) * logits), mask)

    functions = _sample, jax.nn.sigmoid, _no_cdf, _no_quantile, _variance, jnp.shape
    return family_of_numbers(log_prob, *functions, size=size, support=BINARY)


def _variance(logits: Array) -> Array:
    return jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)


def _sample(key: Key, logits: Array, temperature: float | Array = 1.0) -> Array:
    tiny = jnp.finfo(logits.dtype).tiny
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    # logits / tau + noise > 0, without the quotient; at 0 the sign of the logit alone.
    tau = jnp.maximum(per_sequence(temperature, logits), tiny)
    return (logits + tau * noise > 0).astype(logits.dtype)


def _no_cdf(logits: Any, x: Any) -> NoReturn:
    del logits, x
    raise TypeError(
        "Expected a head of a continuous or ordered quantity, got bernoulli, whose cdf "
        "says no more than its mean: P(X <= 0) = 1 - mean."
    )


def _no_quantile(logits: Any, p: Any) -> NoReturn:
    del logits, p
    raise TypeError(
        "Expected a head of a continuous or ordered quantity, got bernoulli, whose "
        "quantiles say no more than its mean: 0 up to a probability of 1 - mean, 1 "
        "above."
    )
