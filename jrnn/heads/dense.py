"""The dense layer that every head has in front of its family of distributions.

    raw_t = h_t W_y + b_y
    P(x_t | h_t) = p(x_t; predicted_t),    predicted_t = shape(raw_t)

`shape` maps the outputs to valid parameters of the family; it makes scales positive,
for example.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn.core.arguments import check_size
from jrnn.core.cell import Key, Spec
from jrnn.core.check import check_array, check_floating, check_like
from jrnn.core.check_draws import check_given_key
from jrnn.core.draw import draw
from jrnn.core.dtypes import state_dtype
from jrnn.core.products import expand, product
from jrnn.heads.distribution import Distribution, Family
from jrnn.heads.head import Head
from jrnn.initializers.defaults import LECUN_NORMAL, ZEROS


class DenseParams(NamedTuple):
    """The output layer: h features, v outputs."""

    W_y: Float[Array, "h v"]
    b_y: Float[Array, " v"]


def dense(params: DenseParams, features: Array) -> Array:
    """Returns h W_y + b_y, in the dtype of a state."""
    dtype = state_dtype(params, features)
    raw = product(features, params.W_y, dtype)
    return raw + expand(params.b_y.astype(dtype), raw.ndim)


def dense_head(
    spec: Spec,
    shape: Callable[[Array], Any],
    family: Family,
    check: Callable[..., tuple[Array, Array | None]],
    **symbols: Any,
) -> Head:
    """Returns a head with a dense layer of `spec.output_size` outputs.

    Args:
      spec: The factory call that made the head.
      shape: The outputs (..., v) -> the parameters of the family.
      family: The family of the predicted distributions.
      check: (name, targets, mask) -> both as arrays; raises on wrong types or shapes.
      **symbols: The other fields of a head: how symbols are read.
    """

    def init(
        key: Key, feature_size: int, dtype: DTypeLike | None = None
    ) -> DenseParams:
        key = check_given_key(key)
        feature_size = check_size("feature_size", feature_size)
        key_W, key_b = jax.random.split(key)
        return DenseParams(
            W_y=draw(LECUN_NORMAL, key_W, (feature_size, spec.output_size), dtype),
            b_y=draw(ZEROS, key_b, (spec.output_size,), dtype),
        )

    def predict(params: DenseParams, features: Array) -> Distribution:
        features = check_array("features", features)
        _check_dense(spec, params, features)
        return Distribution(family, shape(dense(params, features)))

    return Head(init, predict, check=check, family=family, spec=spec, **symbols)


def _check_dense(spec: Spec, params: Any, features: Array) -> None:
    """Raises unless the parameters and the features fit the head."""
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise TypeError(
            f"Expected features of a floating type, got {features.dtype}; cast them "
            "with features.astype(jnp.float32)."
        )
    if features.ndim < 1:
        raise ValueError(
            "Expected features of shape (*batch, feature_size), got a scalar."
        )
    size, outputs = features.shape[-1], spec.output_size
    struct: Any = jax.ShapeDtypeStruct
    wanted = DenseParams(
        *(struct(s, jnp.float32) for s in ((size, outputs), (outputs,)))
    )
    shown = f"{spec.name}(...).init(key, {size})"
    source = f"{shown}, for features of shape {features.shape},"
    check_like("params", params, wanted, source)
    check_floating("params", params)
