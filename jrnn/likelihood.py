r"""What a head is, and the means over steps that models are judged by.

The notes' output layer is some function of h; a head is that function together with the
distribution whose parameters it gives: P(x_t | h_t). The heads are in `jrnn.heads`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from jrnn._base import Params, Spec, check_switch, describe, tell
from jrnn._check import check_counted
from jrnn._guard import own_constants
from jrnn._lengths import active_steps
from jrnn._parts import state_dtype


class Distribution(NamedTuple):
    """A family of distributions, as pure functions of its parameters.

    `predicted` is what `Head.predict` returns, with any leading axes; x and mask have
    the same leading axes, and an axis of components behind them where there are some.

    Attributes:
      log_prob: (predicted, x, mask=None) -> log-density or log-probability in nats, of
        all components together. Where the mask is False a component is missing: it adds
        exactly 0, whatever stands in its place.
      sample: (key, predicted, temperature=1.0) -> x; the temperature is one number, or
        an array of one for each distribution.
      mean: predicted -> the expectation of x.
      cdf: (predicted, x) -> P(X <= x), each component on its own. Gradients end here.
      quantile: (predicted, probability) -> the least x with P(X <= x) at least the
        probability, each component on its own: a value-at-risk. The probability is a
        number, or an array of the shape of x. Gradients end here.
      variance: predicted -> the variance of x, each component on its own.
      shape: predicted -> the shape of x.
    """

    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    mean: Callable[[Any], Array]
    cdf: Callable[[Any, Array], Array]
    quantile: Callable[..., Array]
    variance: Callable[[Any], Array]
    shape: Callable[[Any], tuple[int, ...]]


class Head(NamedTuple):
    """What a model shows of its features, and how it scores what it is to predict.

    Symbols are token ids or numbers: `event_shape` is () where a symbol is one number,
    so that xs is (T, *batch), and (size,) where it has components, (T, *batch, size).

    Attributes:
      init: (key, feature_size, dtype=None) -> params.
      predict: (params, features) -> the distribution's parameters; for `categorical`
        the log-probability of each symbol, (..., vocab_size).
      log_prob: (params, features, targets, mask=None) -> log-density of each target,
        nats; where the mask is False a component is missing and adds exactly 0.
      sample: (params, key, features, temperature=1.0) -> symbols.
      mean: (params, features) -> the expectation of the symbol.
      cdf: (params, features, targets) -> P(X <= target), each component on its own, for
        probability integral transforms. Gradients end here.
      quantile: (params, features, probability) -> the least symbol with at least that
        probability at or below it, each component on its own. Gradients end here.
      variance: (params, features) -> the variance of the symbol, each component on its
        own.
      check: (name, xs, mask=None) -> xs and mask as arrays, the mask of the shape of
        xs; raises where shapes or types are wrong.
      check_values: (name, xs, mask=None) -> None; raises where a concrete value is none
        that the head can score. Under `jax.jit` such a value scores NaN.
      symbols: (xs, mask=None) -> symbols, a pytree: what a model's state keeps of them.
      encode: symbols -> what the cell reads.
      blank: (batch_shape, dtype) -> what stands for "no symbol yet".
      seen: symbols -> bool, False where there is none yet.
      distribution: The family, as functions of what `predict` returns.
      spec: What the head is; its `input_size` is that of the cell that reads symbols.
      event_shape: The shape of one symbol.
      missing: Whether what the cell reads says which values are missing.
    """

    init: Callable[..., Params]
    predict: Callable[[Params, Array], Any]
    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    mean: Callable[[Params, Array], Array]
    cdf: Callable[[Params, Array, Array], Array]
    quantile: Callable[[Params, Array, float | Array], Array]
    variance: Callable[[Params, Array], Array]
    check: Callable[..., tuple[Array, Array | None]]
    check_values: Callable[..., None]
    symbols: Callable[..., Any]
    encode: Callable[[Any], Array]
    blank: Callable[..., Any]
    seen: Callable[[Any], Array]
    distribution: Distribution
    spec: Spec
    event_shape: tuple[int, ...] = ()
    missing: bool = False

    def __repr__(self) -> str:
        """Shows the call that made the head."""
        return describe(self.spec)


def check_head(head: Any) -> None:
    """Raises TypeError unless `head` is a head."""
    if not isinstance(head, Head):
        raise TypeError(
            "Expected head to be a Head, made by a factory such as "
            f"jrnn.categorical(5), got {tell(head)}."
        )


def check_offered(head: Head, name: str) -> None:
    """Raises TypeError where a head has no such function, as categories have no mean.

    No sequence is run before.
    """
    if refuses(getattr(head.distribution, name)):
        _refuse(head, name)


def refuses(function: Callable[..., Any]) -> bool:
    """Returns whether a function of a distribution does nothing but raise."""
    return getattr(function, "__annotations__", {}).get("return") is NoReturn


def _refuse(head: Head, name: str) -> None:
    def one() -> None:
        predicted = head.predict(head.init(jax.random.key(0), 1), jnp.zeros(1))
        given = () if name in ("mean", "variance") else (None,)
        getattr(head.distribution, name)(predicted, *given)

    jax.eval_shape(one)


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
    averaged over its own steps first (the notes' 1/T), and those without steps are
    left out. Sums are float32, or float64 where the values are; steps are counted in
    integers.

    Args:
      values: One number per step, such as a loss: of any floating type, integers, or
        booleans such as hits.
      lengths: Steps that count, integers of any width; None: all.
      mask: Steps that count, True; with `lengths`, both must hold.
      per_sequence: Whether each sequence counts alike.

    Returns:
      A scalar, float32, or float64 for values of float64; NaN where no step counts.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> values = jnp.array([[1.0, 4.0], [3.0, 9.0]])
      >>> float(jrnn.mean_over_steps(values, jnp.array([2, 1])))
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
      log_probs: ln P(x_t | x_<t), as a model's `log_prob` returns them.
      lengths: Steps that count, integers of any width; None: all.

    Returns:
      Bits per symbol, a scalar of the type that `mean_over_steps` returns.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> float(jrnn.bits_per_symbol(jnp.log(jnp.array([0.5, 0.125]))))
      2.0
    """
    log_probs, lengths, _ = check_counted("log_probs", log_probs, lengths, None)
    return -mean_over_steps(log_probs, lengths) / math.log(2)
