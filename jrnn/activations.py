"""The derivatives and bounds of common activations, and two additional activations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Params, StepBound
from jrnn.core.claims import UNIT, bound_by_params

__all__ = ["linear", "positive"]

Activation = Callable[[Array], Array]

SIGNED = (-1.0, 1.0)
STEEP = "proven: sup|phi'| s(W_h)"


def linear(a: Array) -> Array:
    """Returns its argument, the activation of a linear recurrent network."""
    return a


def positive(a: Array) -> Array:
    """Returns a + 1/2 where a >= 0, and sigmoid(a) elsewhere: smooth and positive.

    The candidate's activation in the log-space version of minGRU and minLSTM
    (Feng et al. 2024, appendix B, https://arxiv.org/abs/2410.01201).

    Args:
      a: Any array.

    Returns:
      An array of that shape and type.

    Example:
      >>> import jax, jrnn
      >>> jrnn.activations.positive(jax.numpy.array([0.0, 2.0])).tolist()
      [0.5, 2.5]
    """
    return jnp.where(a >= 0, a + 0.5, jax.nn.sigmoid(a))


# phi'(a) as a function of h = phi(a), so that only h needs to be saved.
SLOPE: dict[Any, Callable[[Array], Array]] = {
    jnp.tanh: lambda h: 1 - h * h,
    jax.nn.sigmoid: lambda h: h * (1 - h),
    jax.nn.relu: lambda h: (h > 0).astype(h.dtype),
    linear: jnp.ones_like,
}
# sup |phi'|.
STEEPEST: dict[Any, float] = {
    jnp.tanh: 1.0,
    jax.nn.sigmoid: 0.25,
    jax.nn.relu: 1.0,
    jax.lax.tanh: 1.0,
    jax.nn.relu6: 1.0,
    jax.nn.leaky_relu: 1.0,
    jax.nn.elu: 1.0,
    jax.nn.celu: 1.0,
    jax.nn.softplus: 1.0,
    jax.nn.log_sigmoid: 1.0,
    jax.nn.soft_sign: 1.0,
    jax.nn.hard_tanh: 1.0,
    jax.nn.hard_sigmoid: 1 / 6,
    jnp.sin: 1.0,
}
# (inf phi, sup phi).
RANGE: dict[Any, tuple[float, float]] = {
    jnp.tanh: SIGNED,
    jnp.sin: SIGNED,
    jax.nn.hard_tanh: SIGNED,
    jax.nn.soft_sign: SIGNED,
    jax.nn.sigmoid: UNIT,
    jax.nn.hard_sigmoid: UNIT,
}


def bounded_state(activation: Activation) -> dict[str, tuple[float, float]]:
    """Returns the bounds of h = activation(a); {} if it is not known to be bounded."""
    return {"h": RANGE[activation]} if activation in RANGE else {}


def steep_bound(
    activation: Activation, norm: Callable[[Params], Array]
) -> StepBound | None:
    """Returns the bound of h = phi(u + v), where v is linear in h_{t-1} with `norm`.

    None if sup |phi'| is not known.
    """
    if activation not in STEEPEST:
        return None
    steepest = STEEPEST[activation]
    return bound_by_params(STEEP, lambda params: steepest * norm(params))
