r"""Means over valid steps, for losses and scores of sequences."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from jrnn.core.arguments import check_switch
from jrnn.core.check_inputs import check_counted
from jrnn.core.constants import own_constants
from jrnn.core.dtypes import state_dtype
from jrnn.core.flags import active_steps


@own_constants
def mean_over_steps(
    values: Shaped[Array, "T *batch"],
    lengths: Integer[Array, "*batch"] | None = None,
    *,
    mask: Bool[Array, "T *batch"] | None = None,
    per_sequence: bool = False,
) -> Float[Array, ""]:
    r"""Returns the sum over valid steps divided by the number of valid steps.

    .. math:: \frac{\sum_{t,n} m_{tn} v_{tn}}{\sum_{t,n} m_{tn}}

    Long sequences weigh more than short ones; with `per_sequence` each sequence is
    averaged over its own steps first (the notes' 1/T), and sequences without valid
    steps are left out. Sums are float32, or float64 for float64 values; steps are
    counted in integers.

    Args:
      values: One number per step, such as a loss: of any floating dtype, integers, or
        booleans such as hits.
      lengths: The number of valid steps, integers of any width; None: all.
      mask: True at valid steps; with `lengths`, a step must be valid by both.
      per_sequence: Whether all sequences have equal weight.

    Returns:
      A scalar, float32, or float64 for float64 values; NaN if no step is valid.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> values = jnp.array([[1.0, 4.0], [3.0, 9.0]])
      >>> float(jrnn.models.mean_over_steps(values, jnp.array([2, 1])))
      2.6666667461395264
    """
    check_switch("per_sequence", per_sequence)
    values, lengths, mask = check_counted("values", values, lengths, mask)
    valid = active_steps(values.shape[0], lengths, mask)
    valid = jnp.ones(values.shape, bool) if valid is None else valid
    values = jnp.where(valid, values.astype(state_dtype(values)), 0)
    if not per_sequence:
        return values.sum() / valid.sum().astype(values.dtype)
    counts = valid.sum(axis=0).astype(values.dtype)
    means = values.sum(axis=0) / jnp.maximum(counts, 1)
    return means.sum() / (counts > 0).sum().astype(values.dtype)


@own_constants
def bits_per_symbol(
    log_probs: Float[Array, "T *batch"], lengths: Integer[Array, "*batch"] | None = None
) -> Float[Array, ""]:
    """Returns the mean of -log2 P over valid steps, from log-probabilities in nats.

    Args:
      log_probs: ln P(x_t | x_<t), as returned by a model's `log_prob`.
      lengths: The number of valid steps, integers of any width; None: all.

    Returns:
      Bits per symbol, a scalar of the dtype that `mean_over_steps` returns.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> float(jrnn.models.bits_per_symbol(jnp.log(jnp.array([0.5, 0.125]))))
      2.0
    """
    log_probs, lengths, _ = check_counted("log_probs", log_probs, lengths, None)
    return -mean_over_steps(log_probs, lengths) / math.log(2)
