r"""The Bernoulli head: values that are 0 or 1.

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
    """Makes a head for values that are 0 or 1, with logits that are functions of h.

    Components are independent given h. Symbols may be floats, integers or booleans;
    the cell reads floats, and samples are floats.

    Args:
      size: n, the number of components of a value, (T, *batch, n); None: a value is one
        number, (T, *batch).
      missing: Whether values may be missing. The cell then reads n values and n flags,
        1 where a value is known, so its input size doubles.

    Returns:
      A head that predicts distributions whose parameters are the logits, and whose
      `mean` is P(x = 1). A value other than 0 or 1 scores NaN. Sampling at temperature
      tau divides the logits by tau; at 0 it returns the more probable value.

    Raises:
      TypeError: An argument is of the wrong type, or `cdf` or `quantile` is called.
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
    """Returns the Bernoulli family, whose parameters are the logits."""

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
    # logits / tau + noise > 0, without the quotient; at tau = 0 only the logit's sign.
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
