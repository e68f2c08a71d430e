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

from jrnn._base import Key, Params, check_size, tell
from jrnn._check import check_array, check_floating, check_like
from jrnn._check_draws import check_given_key, check_temperature
from jrnn._check_kinds import dtype_of, sketch
from jrnn._parts import expand, product, state_dtype
from jrnn.cells._init import LECUN_NORMAL, ZEROS, draw
from jrnn.likelihood import Distribution, refuses


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
    name: str,
    outputs: int,
    shape: Callable[[Array], Any],
    distribution: Distribution,
    check: Callable[..., tuple[Array, Array | None]],
) -> Functions:
    """Returns a head's functions of (params, features).

    Args:
      name: The head's, for errors.
      outputs: v, how many numbers the dense layer shows.
      shape: raw (..., v) -> the distribution's parameters.
      distribution: The family.
      check: (name, targets, mask) -> both as arrays; raises on types and shapes.
    """

    def init(
        key: Key, feature_size: int, dtype: DTypeLike | None = None
    ) -> DenseParams:
        key = check_given_key(key)
        feature_size = check_size("feature_size", feature_size)
        key_W, key_b = jax.random.split(key)
        return DenseParams(
            W_y=draw(LECUN_NORMAL, key_W, (feature_size, outputs), dtype),
            b_y=draw(ZEROS, key_b, (outputs,), dtype),
        )

    def predict(params: DenseParams, features: Array) -> Any:
        features = check_array("features", features)
        _check_dense(name, outputs, params, features)
        return shape(dense(params, features))

    def log_prob(
        params: DenseParams, features: Array, targets: Array, mask: Array | None = None
    ) -> Array:
        targets, mask = check("targets", targets, mask)
        predicted = predict(params, features)
        check_shape("targets", targets, distribution.shape(predicted))
        return distribution.log_prob(predicted, targets, mask)

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
        predicted = predict(params, features)
        if not refuses(distribution.cdf):
            targets, _ = check("targets", targets, None)
            check_shape("targets", targets, distribution.shape(predicted))
        return distribution.cdf(predicted, targets)

    def quantile(
        params: DenseParams, features: Array, probability: float | Array
    ) -> Array:
        return distribution.quantile(predict(params, features), probability)

    def variance(params: DenseParams, features: Array) -> Array:
        return distribution.variance(predict(params, features))

    return Functions(init, predict, log_prob, sample, mean, cdf, quantile, variance)


def _check_dense(name: str, outputs: int, params: Any, features: Array) -> None:
    """Raises unless these are a head's parameters, and features that it reads."""
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise TypeError(
            f"Expected features of a floating type, got {features.dtype}; cast them "
            "with features.astype(jnp.float32)."
        )
    if features.ndim < 1:
        raise ValueError(
            "Expected features of shape (*batch, feature_size), got a scalar."
        )
    size = features.shape[-1]
    struct: Any = jax.ShapeDtypeStruct
    wanted = DenseParams(
        *(struct(s, jnp.float32) for s in ((size, outputs), (outputs,)))
    )
    shown = f"{name}(...).init(key, {size})"
    check_like(
        "params", params, wanted, f"for features of shape {features.shape} {shown}"
    )
    check_floating("params", params)


def check_shape(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError where `x` is not of the shape that is predicted."""
    if jnp.shape(x) != shape:
        raise ValueError(
            f"Expected {name} of shape {shape}, one for each predicted distribution, "
            f"got {jnp.shape(x)}; nothing is broadcast, jnp.broadcast_to does it."
        )


def checked(distribution: Distribution, event: tuple[int, ...] = ()) -> Distribution:
    """Returns a family whose functions check what they are given, but for values.

    Args:
      distribution: The family.
      event: The shape of one value.
    """

    def sample(key: Key, predicted: Any, temperature: float | Array = 1.0) -> Array:
        key = check_given_key(key)
        shape = shape_of(predicted)
        batch = shape[: len(shape) - len(event)]
        tau = check_temperature(temperature, batch)
        return distribution.sample(key, predicted, tau)

    def log_prob(predicted: Any, x: Array, mask: Array | None = None) -> Array:
        shape_of(predicted)
        return distribution.log_prob(predicted, x, mask)

    def mean(predicted: Any) -> Array:
        shape_of(predicted)
        return distribution.mean(_widened(predicted))

    def variance(predicted: Any) -> Array:
        shape_of(predicted)
        return distribution.variance(_widened(predicted))

    def shape_of(predicted: Any) -> tuple[int, ...]:
        try:
            shape = distribution.shape(predicted)
            floats = [dtype_of(leaf) for leaf in jax.tree.leaves(predicted)]
        except (AttributeError, TypeError, ValueError):
            shape, floats = (), []
        real = [d for d in floats if d is not None and jnp.issubdtype(d, jnp.floating)]
        if not floats or len(real) < len(floats) or len(shape) < len(event):
            raise TypeError(
                "Expected predicted to be what head.predict(params, features) returns, "
                f"of floats, got {_told(predicted)}."
            )
        return shape

    asked = {"mean": mean, "variance": variance}
    offered = {k: f for k, f in asked.items() if not refuses(getattr(distribution, k))}
    return distribution._replace(
        log_prob=log_prob, sample=sample, shape=shape_of, **offered
    )


def _widened(predicted: Any) -> Any:
    """Returns what was predicted in float32 or wider, to be summed in."""
    dtype = state_dtype(predicted)
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), predicted)


def _told(predicted: Any) -> str:
    leaves = jax.tree.leaves(predicted)
    return tell(predicted) if len(leaves) < 2 else sketch(predicted)


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
    return jnp.sqrt(per_sequence(temperature, like))


def per_sequence(temperature: float | Array, like: Array) -> Array:
    """Returns a temperature, or one for each sequence, to be multiplied with `like`."""
    tau = jnp.asarray(temperature).astype(like.dtype)
    return tau.reshape(tau.shape + (1,) * (like.ndim - tau.ndim)) if tau.ndim else tau


def hide(mask: Array | None, x: Array) -> Array:
    """Returns x with 0 in the place of what is missing."""
    return x if mask is None else jnp.where(mask, x, jnp.zeros_like(x))


def total(components: int | None, terms: Array, mask: Array | None) -> Array:
    """Sums over the axis of components, if there is one; what is missing adds 0."""
    terms = hide(mask, terms)
    return terms if components is None else terms.sum(axis=-1)
