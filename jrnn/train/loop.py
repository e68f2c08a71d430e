"""Loops over batches, for training and for evaluation."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jaxtyping import Array

from jrnn.core.arguments import check_function
from jrnn.core.cell import Params
from jrnn.core.programs import Arguments, Family
from jrnn.train.check import check_batches
from jrnn.train.step import Carry, Metrics, TrainState, check_train_state


def fit(
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    state: TrainState,
    batches: Iterable[Any],
    *,
    on_step: Callable[[TrainState, Metrics], bool | None] | None = None,
) -> TrainState:
    """Takes one step per batch.

    Args:
      step: Made by `make_train_step`.
      state: The initial state; its memory is donated.
      batches: One batch per step.
      on_step: Called after each step, to log or save; returning True stops the loop.

    Returns:
      The state after the last step.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from jrnn.train import fit, init_train_state, make_train_step
      >>> loss = lambda params, batch, carry, key: ((params - batch) ** 2, (carry, {}))
      >>> sgd = optax.sgd(0.5)
      >>> state = init_train_state(jnp.zeros(()), sgd, jax.random.key(0))
      >>> fit(make_train_step(loss, sgd), state, [1.0, 2.0]).params.item()
      2.0
    """
    check_function("step", step)
    check_train_state(state)
    check_batches(batches)
    if on_step is not None:
        check_function("on_step", on_step)
    for batch in batches:
        state, metrics = step(state, batch)
        if on_step is not None and on_step(state, metrics):
            break
    return state


def evaluate(
    metric: Callable[[Params, Any, Carry], tuple[Array, Array, Carry]],
    params: Params,
    batches: Iterable[Any],
    carry: Carry = (),
) -> float:
    """Returns the mean of a metric over all valid steps of all batches.

    This is not the mean of the batches' means, which would overweight short batches.

    Args:
      metric: (params, batch, carry) -> (sum over valid steps, their number, carry).
        Jitted here; equal functions are compiled once, as in `make_train_step`.
      params: The model's parameters.
      batches: The batches, in order.
      carry: The state before the first batch, passed from each batch to the next.

    Returns:
      The sum divided by the number of valid steps; NaN if there are none.

    Example:
      >>> import jax.numpy as jnp
      >>> from jrnn.train import evaluate
      >>> metric = lambda params, batch, carry: (batch.sum(), batch.size, carry)
      >>> evaluate(metric, None, [jnp.ones(3), jnp.zeros(1)])
      0.75
    """
    check_function("metric", metric)
    check_batches(batches)
    compiled = _metrics(metric)
    total, count = 0.0, 0.0
    for batch in batches:
        sum_, valid, carry = compiled(params, batch, carry)
        total, count = total + float(sum_), count + float(valid)
    return total / count if count else float("nan")


def _make_metric(arguments: Arguments) -> Callable[..., Any]:
    def metric(params: Params, batch: Any, carry: Carry) -> Any:
        return arguments()[0](params, batch, carry)

    return jax.jit(metric)


_metrics = Family("evaluate", _make_metric)
