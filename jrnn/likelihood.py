r"""Heads: from what a cell shows to the probability of what comes next.

The notes' output layer is some function of h; in language modelling a dense layer and a
softmax over the vocabulary:

    P(x_t = k | h_t) = softmax(h_t W_y + b_y)_k
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jrnn._base import Key, Params, Spec, check_size, memoize, spec_of
from jrnn._parts import expand, product, sample_symbols, state_dtype
from jrnn.cells._init import LECUN_NORMAL, ZEROS, draw


class Head(NamedTuple):
    """What a model shows of its features, and how it scores what it is to predict.

    Attributes:
      init: (key, feature_size, dtype=None) -> params.
      predict: (params, features) -> the distribution's parameters; for `categorical`
        the log-probability of each symbol, (..., vocab_size).
      log_prob: (params, features, targets) -> log-density of each target, nats.
      sample: (params, key, features, temperature) -> symbols.
      encode: symbols -> what the cell reads.
      blank: (batch_shape) -> what stands for "no symbol yet".
      seen: symbols -> bool, False where there is none yet.
      spec: What the head is; its `input_size` is that of the cell that reads symbols.
    """

    init: Callable[..., Params]
    predict: Callable[[Params, Array], Array]
    log_prob: Callable[[Params, Array, Array], Array]
    sample: Callable[[Params, Key, Array, Array], Array]
    encode: Callable[[Array], Array]
    blank: Callable[[tuple[int, ...]], Array]
    seen: Callable[[Array], Array]
    spec: Spec

    def __repr__(self) -> str:
        """Shows the call that made the head."""
        arguments = ", ".join(f"{name}={value}" for name, value in self.spec.arguments)
        return f"{self.spec.name}({arguments})"


class DenseParams(NamedTuple):
    """The output layer: h features, v outputs."""

    W_y: Float[Array, "h v"]
    b_y: Float[Array, " v"]


@memoize
def categorical(vocab_size: int) -> Head:
    """Makes the head of the notes: a dense layer, and a softmax over the vocabulary.

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
    return Head(
        init=lambda key, feature_size, dtype=None: _dense_init(
            key, feature_size, vocab_size, dtype
        ),
        predict=_log_softmax,
        log_prob=_categorical_log_prob,
        sample=_categorical_sample,
        encode=_same,
        blank=_blank_id,
        seen=_seen_id,
        spec=spec_of("categorical", vocab_size, input_size=vocab_size)._replace(
            arguments=(("vocab_size", vocab_size),)
        ),
    )


def _dense_init(
    key: Key, feature_size: int, outputs: int, dtype: DTypeLike | None
) -> DenseParams:
    key_W, key_b = jax.random.split(key)
    return DenseParams(
        W_y=draw(LECUN_NORMAL, key_W, (feature_size, outputs), dtype),
        b_y=draw(ZEROS, key_b, (outputs,), dtype),
    )


def _log_softmax(params: DenseParams, features: Array) -> Array:
    dtype = state_dtype(params, features)
    logits = product(features, params.W_y, dtype)
    logits = logits + expand(params.b_y.astype(dtype), logits.ndim)
    return jax.nn.log_softmax(logits, axis=-1)


def _categorical_log_prob(params: DenseParams, features: Array, ids: Array) -> Array:
    log_p = _log_softmax(params, features)
    known = (ids >= 0) & (ids < log_p.shape[-1])
    index = jnp.where(known, ids, 0)[..., None]
    picked = jnp.take_along_axis(log_p, index, axis=-1)[..., 0]
    return jnp.where(known, picked, jnp.nan)


def _categorical_sample(
    params: DenseParams, key: Key, features: Array, temperature: Array
) -> Array:
    return sample_symbols(key, _log_softmax(params, features), temperature)


def _same(ids: Array) -> Array:
    return ids


def _blank_id(batch_shape: tuple[int, ...]) -> Array:
    return jnp.full(batch_shape, -1, jnp.int32)


def _seen_id(ids: Array) -> Array:
    return ids >= 0


def mean_over_steps(
    values: Float[Array, "T *batch"],
    lengths: Int[Array, "*batch"] | None = None,
    *,
    mask: Bool[Array, "T *batch"] | None = None,
    per_sequence: bool = False,
) -> Float[Array, ""]:
    r"""Returns the sum over valid steps divided by the number of valid steps.

    .. math:: \frac{\sum_{t,n} m_{tn} v_{tn}}{\sum_{t,n} m_{tn}}

    Long sequences weigh more than short ones; with `per_sequence` each sequence is
    averaged over its own steps first (the notes' 1/T), and those without steps are
    left out.

    Args:
      values: One number per step, such as a loss.
      lengths: Steps that count; None: all.
      mask: Steps that count, True; with `lengths`, both must hold.
      per_sequence: Whether each sequence counts alike.

    Returns:
      A scalar; NaN where no step counts.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> values = jnp.array([[1.0, 4.0], [3.0, 9.0]])
      >>> float(jrnn.mean_over_steps(values, jnp.array([2, 1])))
      2.6666667461395264
    """
    valid = jnp.ones(values.shape, bool) if mask is None else mask
    if lengths is not None:
        t = jnp.arange(values.shape[0]).reshape(-1, *(1,) * lengths.ndim)
        valid = valid & (t < lengths.astype(t.dtype)[None])
    values = jnp.where(valid, values, 0)
    if not per_sequence:
        return values.sum() / valid.sum().astype(values.dtype)
    counts = valid.sum(axis=0).astype(values.dtype)
    means = values.sum(axis=0) / jnp.maximum(counts, 1)
    return means.sum() / (counts > 0).sum().astype(values.dtype)


def bits_per_symbol(
    log_probs: Float[Array, "T *batch"], lengths: Int[Array, "*batch"] | None = None
) -> Float[Array, ""]:
    """Returns the mean of -log2 P over valid steps, from log-probabilities in nats.

    Args:
      log_probs: ln P(x_t | x_<t), as a model's `log_prob` returns them.
      lengths: Steps that count; None: all.

    Returns:
      Bits per symbol, a scalar.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> float(jrnn.bits_per_symbol(jnp.log(jnp.array([0.5, 0.125]))))
      2.0
    """
    return -mean_over_steps(log_probs, lengths) / math.log(2)
