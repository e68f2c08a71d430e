"""Supervised models: a cell and a head together tell labels of a sequence.

P(label_t | x_1..x_t) = P(label_t | h_t),    or one label from a pool of all h_t
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jrnn._base import Cell, Key, Params, check_function, memoize
from jrnn._caches import bounded
from jrnn._check import (
    check_array,
    check_cell,
    check_flags,
    check_floating,
    check_inputs,
    check_lengths,
    check_like,
)
from jrnn._check_draws import check_given_key
from jrnn._guard import own_constants
from jrnn._lengths import active_steps, check_countable
from jrnn._parts import state_dtype
from jrnn._unroll import unroll
from jrnn.heads._dense import check_shape
from jrnn.heads._numbers import check_probability
from jrnn.likelihood import Head, check_head, check_offered
from jrnn.methods._steps import expand_flags, silence


class SupervisedParams(NamedTuple):
    """The parameters of a cell and of a head."""

    cell: Params
    head: Params


class SupervisedModel(NamedTuple):
    """Labels for a sequence, one per step or one in all, as pure functions.

    Attributes:
      init: (key, dtype=None) -> params.
      predict: (params, xs, **keywords) -> what the head predicts, (T, *batch, ...) or
        (*batch, ...). Keywords are those of `jrnn.unroll`: lengths, resets, mask,
        reverse, key, method.
      log_prob: (params, xs, labels, labels_mask=None, **keywords) -> log P(label | xs)
        in nats, one for each label; 0 at steps that do not count. Labels are token ids,
        or numbers (T, *batch) or (T, *batch, size), as the head has it; where
        `labels_mask` is False a label, or a component of one, is missing and adds 0.
      mean: (params, xs, **keywords) -> the expectation of each label; without meaning,
        as what follows is but for the cdf, at steps that do not count.
      variance: (params, xs, **keywords) -> the variance of each label, each component
        on its own.
      quantile: (params, xs, probability, **keywords) -> the least label with at least
        that probability at or below it, each component on its own; the probability is
        a number, or an array of the labels' shape. Without gradients.
      cdf: (params, xs, labels, labels_mask=None, **keywords) -> P(label' <= label),
        each component on its own, for probability integral transforms; 0 at steps that
        do not count and for what is missing; without gradients.
      cell: The cell it was made of.
      head: The head it was made of.
    """

    init: Callable[..., SupervisedParams]
    predict: Callable[..., Any]
    log_prob: Callable[..., Array]
    mean: Callable[..., Array]
    variance: Callable[..., Array]
    quantile: Callable[..., Array]
    cdf: Callable[..., Array]
    cell: Cell
    head: Head


Pool = Callable[[Array, Bool[Array, "T *batch"]], Array]


@own_constants
def last_step(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns what the cell showed at each sequence's own last active step.

    Args:
      ys: Outputs, time first.
      active: Which steps count.

    Returns:
      One vector per sequence; zeros for a sequence without active steps.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> ys = jnp.array([[1.0], [2.0], [0.0]])
      >>> jrnn.last_step(ys, jnp.array([True, True, False])).tolist()
      [2.0]
    """
    ys, active = _check_pooled(ys, active)
    check_countable(ys.shape[0], "jrnn.last_step")
    steps = jnp.arange(ys.shape[0]).reshape(-1, *(1,) * (active.ndim - 1))
    last = jnp.where(active, steps, 0).max(axis=0)
    picked = jnp.take_along_axis(ys, last[None, ..., None], axis=0)[0]
    return silence(active.any(axis=0), picked)


@own_constants
def mean_step(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns the mean over active steps of what the cell showed.

    Args:
      ys: Outputs, time first.
      active: Which steps count.

    Returns:
      One vector per sequence, summed in float32 or wider and returned in the type of
      `ys`; zeros for a sequence without active steps.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> ys = jnp.array([[1.0], [2.0], [0.0]])
      >>> jrnn.mean_step(ys, jnp.array([True, True, False])).tolist()
      [1.5]
    """
    ys, active = _check_pooled(ys, active)
    wide = state_dtype(ys)
    count = jnp.maximum(active.sum(axis=0), 1).astype(wide)
    mean = silence(active, ys).sum(axis=0, dtype=wide) / count[..., None]
    return mean.astype(ys.dtype if jnp.issubdtype(ys.dtype, jnp.inexact) else wide)


def _check_pooled(ys: Any, active: Any) -> tuple[Array, Array]:
    """Returns outputs and flags as arrays, or raises where they do not go together."""
    ys, active = check_array("ys", ys), check_array("active", active)
    if not jnp.issubdtype(ys.dtype, jnp.floating):
        raise TypeError(f"Expected ys of a floating type, got {ys.dtype}.")
    if ys.ndim < 2:
        raise ValueError(f"Expected ys of shape (T, *batch, h), got {ys.shape}.")
    check_flags("active", active, ys.shape[0], ys.shape[1:-1])
    return ys, active


@memoize
def supervised_model(
    cell: Cell, head: Head, pool: Pool | None = None
) -> SupervisedModel:
    """Makes a model of labels: one per step, or one per sequence.

    Args:
      cell: Reads the inputs.
      head: Predicts labels from what the cell shows.
      pool: None labels each step; `jrnn.last_step`, `jrnn.mean_step` or any function
        (ys, active) -> features labels each sequence.

    Returns:
      A model; equal arguments give the identical one.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.categorical(2)
      >>> model = jrnn.supervised_model(jrnn.gru(3, 8), head, jrnn.mean_step)
      >>> params = model.init(jax.random.key(0))
      >>> model.predict(params, jnp.ones((7, 5, 3))).shape
      (5, 2)
    """
    check_cell(cell)
    check_head(head)
    if pool is not None:
        check_function("pool", pool)

    def init(key: Key, dtype: DTypeLike | None = None) -> SupervisedParams:
        key = check_given_key(key)
        key_cell, key_head = jax.random.split(key)
        return SupervisedParams(
            cell.init(key_cell, dtype),
            head.init(key_head, cell.spec.output_size, dtype),
        )

    @bounded
    def like() -> SupervisedParams:
        return jax.eval_shape(lambda: init(jax.random.key(0)))

    def active_of(xs: Array, keywords: dict[str, Any]) -> Array:
        """Returns which steps count, (T, *batch)."""
        batch, steps = check_inputs(cell, xs), xs.shape[0]
        given = {name: keywords.get(name) for name in ("lengths", "mask")}
        for name, value in given.items():
            given[name] = None if value is None else check_array(name, value)
        lengths, mask = given.values()
        if lengths is not None:
            lengths = check_lengths(lengths, steps, batch)
        check_flags("mask", mask, steps, batch)
        active = active_steps(steps, lengths, mask)
        return jnp.ones((steps, *batch), bool) if active is None else active

    def checked(params: SupervisedParams, xs: Any) -> Array:
        """Returns inputs as an array, or raises on them and on parameters."""
        source = lambda: f"supervised_model({cell}, {head}).init(key)"
        check_like("params", params, like(), source)
        check_floating("params", params)
        return check_array("xs", xs)

    def features(
        params: SupervisedParams, xs: Array, keywords: dict[str, Any]
    ) -> Array:
        xs = checked(params, xs)
        active = active_of(xs, keywords)
        _, ys = unroll(cell, params.cell, xs, **keywords)
        return ys if pool is None else pool(ys, active)

    def labelled(
        params: SupervisedParams,
        xs: Array,
        labels: Any,
        labels_mask: Any,
        keywords: dict[str, Any],
    ) -> tuple[Array, Array, Array | None]:
        """Returns where a label counts, the labels, and which are known."""
        labels, mask = head.check("labels", labels, labels_mask)
        active = active_of(checked(params, xs), keywords)
        active = active if pool is None else active.any(axis=0)
        return active, *_check_labels(head, labels, mask, active)

    def predict(params: SupervisedParams, xs: Array, **keywords: Any) -> Any:
        shown = features(params, xs, keywords)
        return head.predict(params.head, shown)

    def log_prob(
        params: SupervisedParams,
        xs: Array,
        labels: Array,
        labels_mask: Array | None = None,
        **keywords: Any,
    ) -> Array:
        active, *told = labelled(params, xs, labels, labels_mask, keywords)
        shown = features(params, xs, keywords)
        return silence(active, head.log_prob(params.head, shown, *told))

    def mean(params: SupervisedParams, xs: Array, **keywords: Any) -> Array:
        check_offered(head, "mean")
        shown = features(params, xs, keywords)
        return head.mean(params.head, shown)

    def variance(params: SupervisedParams, xs: Array, **keywords: Any) -> Array:
        check_offered(head, "variance")
        shown = features(params, xs, keywords)
        return head.variance(params.head, shown)

    def quantile(
        params: SupervisedParams,
        xs: Array,
        probability: float | Array,
        **keywords: Any,
    ) -> Array:
        check_offered(head, "quantile")
        probability = check_probability(probability)
        if probability.shape:
            active = active_of(checked(params, xs), keywords)
            batch = active.shape if pool is None else active.shape[1:]
            check_shape("probability", probability, batch + head.event_shape)
        shown = features(params, xs, keywords)
        return head.quantile(params.head, shown, probability)

    def cdf(
        params: SupervisedParams,
        xs: Array,
        labels: Array,
        labels_mask: Array | None = None,
        **keywords: Any,
    ) -> Array:
        check_offered(head, "cdf")
        active, labels, mask = labelled(params, xs, labels, labels_mask, keywords)
        shown = features(params, xs, keywords)
        below = silence(active, head.cdf(params.head, shown, labels))
        return below if mask is None else jnp.where(mask, below, 0)

    return SupervisedModel(
        init, predict, log_prob, mean, variance, quantile, cdf, cell, head
    )


def _check_labels(
    head: Head, labels: Array, mask: Array | None, active: Bool[Array, "..."]
) -> tuple[Array, Array | None]:
    """Returns labels, 0 where no step counts, and which are known."""
    if labels.shape != (*active.shape, *head.event_shape):
        raise ValueError(
            f"Expected labels of shape {(*active.shape, *head.event_shape)}, got "
            f"{labels.shape}."
        )
    labels, mask = silence(active, labels), silence(active, mask)
    counted = expand_flags(active, labels) if mask is None else mask
    head.check_values("labels", labels, counted)
    return labels, mask
