"""Supervised models: a cell and a head predict the labels of a sequence.

P(label_t | x_1..x_t) = P(label_t | h_t),    or one label from a pool of all h_t
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Key, Params, Spec, call_of
from jrnn.core.check import check_array, check_cell, check_floating, check_like
from jrnn.core.check_draws import check_given_key
from jrnn.core.check_inputs import (
    check_flags,
    check_inputs,
    check_lengths,
    check_time_axis,
)
from jrnn.core.flags import active_steps, expand_flags, silence
from jrnn.core.memoize import memoize
from jrnn.core.pickling import pickled_by_call
from jrnn.heads.distribution import Distribution
from jrnn.heads.head import Head, check_head
from jrnn.models.pools import Pool
from jrnn.run.unroll import unroll


class SupervisedParams(NamedTuple):
    """The parameters of a cell and of a head."""

    cell: Params
    head: Params


@pickled_by_call
class SupervisedModel(NamedTuple):
    """Predicts labels, one per step or one per sequence, as pure functions.

    Attributes:
      init: (key, dtype=None) -> params.
      predict: (params, xs, **keywords) -> the `Distribution` of each label, (T, *batch)
        or (*batch,); meaningless at inactive steps. Keywords are those of
        `jrnn.unroll`: lengths, resets, mask, reverse, time_axis, key, method. With
        `time_axis=1` the distributions, or the labels below, are batch first too.
        `distribution.cdf(labels, mask)` is 0 where the mask is False.
      log_prob: (params, xs, labels, labels_mask=None, **keywords) -> log P(label | xs)
        in nats, one for each label; 0 at inactive steps. Labels are the symbols of the
        head: token ids, or numbers (T, *batch) or (T, *batch, size). Where
        `labels_mask` is False a label, or a component of one, is missing and adds 0.
      cell: The cell.
      head: The head.
      spec: The factory call that made the model.
    """

    init: Callable[..., SupervisedParams]
    predict: Callable[..., Distribution]
    log_prob: Callable[..., Array]
    cell: Cell
    head: Head
    spec: Spec

    __repr__ = call_of


@memoize
def supervised_model(
    cell: Cell, head: Head, pool: Pool | None = None
) -> SupervisedModel:
    """Makes a model of labels: one per step, or one per sequence.

    Args:
      cell: Reads the inputs.
      head: Predicts labels from the cell's outputs.
      pool: None labels each step; `jrnn.models.last_pool`, `jrnn.models.mean_pool`
        or any function (ys, active) -> features labels each sequence.

    Returns:
      A model; equal arguments return the same object.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.categorical(2)
      >>> model = jrnn.supervised_model(jrnn.gru(3, 8), head, jrnn.models.mean_pool)
      >>> params = model.init(jax.random.key(0))
      >>> model.predict(params, jnp.ones((7, 5, 3))).parameters.shape
      (5, 2)
    """
    check_cell(cell)
    check_head(head)

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

    def checked(
        params: SupervisedParams, xs: Any, keywords: dict[str, Any]
    ) -> tuple[Array, Array]:
        """Returns inputs and active steps, laid out alike; raises on mistakes."""
        source = lambda: f"supervised_model({cell}, {head}).init(key)"
        check_like("params", params, like(), source)
        check_floating("params", params)
        xs = check_array("xs", xs)
        axis = check_time_axis(keywords.get("time_axis", 0))
        batch, steps = check_inputs(cell, xs, axis), xs.shape[axis]
        lengths, mask = (
            None if keywords.get(name) is None else check_array(name, keywords[name])
            for name in ("lengths", "mask")
        )
        if lengths is not None:
            lengths = check_lengths(lengths, steps, batch)
        check_flags("mask", mask, steps, batch, axis)
        mask = None if mask is None else jnp.swapaxes(mask, 0, axis)
        active = active_steps(steps, lengths, mask)
        active = jnp.ones((steps, *batch), bool) if active is None else active
        return xs, jnp.swapaxes(active, 0, axis)

    def features(
        params: SupervisedParams, xs: Array, active: Array, keywords: dict[str, Any]
    ) -> Array:
        _, ys = unroll(cell, params.cell, xs, **keywords)
        if pool is None:
            return ys
        axis = keywords.get("time_axis", 0)
        return pool(jnp.swapaxes(ys, 0, axis), jnp.swapaxes(active, 0, axis))

    def predict(params: SupervisedParams, xs: Any, **keywords: Any) -> Distribution:
        xs, active = checked(params, xs, keywords)
        return head.predict(params.head, features(params, xs, active, keywords))

    def log_prob(
        params: SupervisedParams,
        xs: Any,
        labels: Any,
        labels_mask: Any = None,
        **keywords: Any,
    ) -> Array:
        labels, mask = head.check("labels", labels, labels_mask)
        xs, active = checked(params, xs, keywords)
        axis = keywords.get("time_axis", 0)
        counts = active if pool is None else active.any(axis=axis)
        labels, mask = _check_labels(head, labels, mask, counts)
        shown = features(params, xs, active, keywords)
        return silence(counts, head.log_prob(params.head, shown, labels, mask))

    spec = Spec(
        "supervised_model",
        (("cell", cell), ("head", head), ("pool", pool)),
        cell.spec.input_size,
        head.spec.output_size,
    )
    return SupervisedModel(init, predict, log_prob, cell, head, spec)


def _check_labels(
    head: Head, labels: Array, mask: Array | None, active: Bool[Array, "..."]
) -> tuple[Array, Array | None]:
    """Returns labels, 0 at inactive steps, and which are known."""
    if labels.shape != (*active.shape, *head.event_shape):
        raise ValueError(
            f"Expected labels of shape {(*active.shape, *head.event_shape)}, got "
            f"{labels.shape}."
        )
    labels, mask = silence(active, labels), silence(active, mask)
    counted = expand_flags(active, labels) if mask is None else mask
    head.check_values("labels", labels, counted)
    return labels, mask
