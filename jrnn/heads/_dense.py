"""What heads share: the dense layer, and how a family of distributions becomes a head.

    raw_t = h_t W_y + b_y
    P(x_t | h_t) = p(x_t; predicted_t),    predicted_t = shape(raw_t)

`shape` makes scales positive, and so on: what a family's parameters have to be.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn._base import Key, Params
from jrnn._parts import expand, product, state_dtype
from jrnn.cells._init import LECUN_NORMAL, ZEROS, draw
from jrnn.likelihood import Distribution


class DenseParams(NamedTuple):
    """The output layer: h features, v outputs."""

    W_y: Float[Array, "h v"]
    b_y: Float[Array, " v"]


class Functions(NamedTuple):
    """The functions of a head that stand on its dense layer."""

    init: Callable[..., Params]
    predict: Callable[[Params, Array], Any]
    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    mean: Callable[[Params, Array], Array]
    cdf: Callable[[Params, Array, Array], Array]
    quantile: Callable[[Params, Array, float | Array], Array]
    variance: Callable[[Params, Array], Array]


def dense(params: DenseParams, features: Array) -> Array:
    """Returns h W_y + b_y, in the type of a state."""
    dtype = state_dtype(params, features)
    raw = product(features, params.W_y, dtype)
    return raw + expand(params.b_y.astype(dtype), raw.ndim)


def functions(
    outputs: int, shape: Callable[[Array], Any], distribution: Distribution
) -> Functions:
    """Returns a head's functions of (params, features).

    Args:
      outputs: v, how many numbers the dense layer shows.
      shape: raw (..., v) -> the distribution's parameters.
      distribution: The family.
    """

    def init(
        key: Key, feature_size: int, dtype: DTypeLike | None = None
    ) -> DenseParams:
        key_W, key_b = jax.random.split(key)
        return DenseParams(
            W_y=draw(LECUN_NORMAL, key_W, (feature_size, outputs), dtype),
            b_y=draw(ZEROS, key_b, (outputs,), dtype),
        )

    def predict(params: DenseParams, features: Array) -> Any:
        return shape(dense(params, features))

    def log_prob(
        params: DenseParams, features: Array, targets: Array, mask: Array | None = None
    ) -> Array:
        return distribution.log_prob(predict(params, features), targets, mask)

    def sample(
        params: DenseParams,
        key: Key,
        features: Array,
        temperature: float | Array = 1.0,
    ) -> Array:
        return distribution.sample(key, predict(params, features), temperature)

    def mean(params: DenseParams, features: Array) -> Array:
        return distribution.mean(predict(params, features))

    def cdf(params: DenseParams, features: Array, targets: Array) -> Array:
        return distribution.cdf(predict(params, features), targets)

    def quantile(
        params: DenseParams, features: Array, probability: float | Array
    ) -> Array:
        return distribution.quantile(predict(params, features), probability)

    def variance(params: DenseParams, features: Array) -> Array:
        return distribution.variance(predict(params, features))

    return Functions(init, predict, log_prob, sample, mean, cdf, quantile, variance)


def positive(raw: Array, least: float) -> Array:
    """Returns least + softplus(raw + ln(e - 1)): 1 + least at raw = 0.

    Neither overflows nor reaches 0, and its slope is between 0 and 1.
    """
    # softplus(ln(e - 1)) = 1
    return jax.nn.softplus(raw + 0.5413248546129181) + least


def common(x: Array, *others: Array) -> tuple[Array, ...]:
    """Casts to one floating type: the widest, and float32 at least."""
    dtype = state_dtype(x, *others)
    return tuple(jnp.asarray(a, dtype) for a in (x, *others))


def heat(temperature: float | Array, like: Array) -> Array:
    """Returns what deviations are multiplied by: their variance by the temperature."""
    return jnp.sqrt(jnp.asarray(temperature, like.dtype))


def hide(mask: Array | None, x: Array) -> Array:
    """Returns x with 0 in the place of what is missing."""
    return x if mask is None else jnp.where(mask, x, jnp.zeros_like(x))


def total(components: int | None, terms: Array, mask: Array | None) -> Array:
    """Sums over the axis of components, if there is one; what is missing adds 0."""
    terms = hide(mask, terms)
    return terms if components is None else terms.sum(axis=-1)
