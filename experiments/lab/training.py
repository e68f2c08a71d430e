"""One training loop: steps over batches, and the parameters that did best kept.

And one for what is small and draws its data anew: `update` and `descend` are called
within a compiled function, so that many updates, and by `vmap` many runs, are one call.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jrnn.train import Loss, init_train_state, make_train_step


class Trained(NamedTuple):
    """What training came to.

    Attributes:
      params: Those that scored lowest; the last, where nothing is scored.
      score: Theirs; infinite where none was finite, and `params` is None.
      step: After how many steps they were kept.
      looks: (step, score) of every look.
    """

    params: Any
    score: float
    step: int
    looks: list[tuple[int, float]]


def train(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    params: Any,
    key: Array,
    batches: Iterable[tuple[bool, Any]],
    score: Callable[[Any], float] | None = None,
    looks: Collection[int] = (),
    carry: Any = (),
    on_step: Callable[[Any], object] = lambda _: None,
) -> Trained:
    """Takes a step for each batch, and looks at held-out data between some of them.

    Args:
      loss: As `jrnn.train.make_train_step` takes it.
      optimizer: Of the steps.
      params: To start from.
      key: Of what the loss draws.
      batches: (whether the state starts anew, what the loss is given), one a step.
      score: params -> what has to be low; None: the last parameters are kept.
      looks: Steps, counted from 1, after which `score` is asked.
      carry: The state that streams start from; (): there is none.
      on_step: Called after each step with its metrics.
    """
    step = make_train_step(loss, optimizer)
    state = init_train_state(params, optimizer, key, carry)
    course: list[tuple[int, float]] = []
    best, number = Trained(None, math.inf, 0, course), 0
    for number, (fresh, batch) in enumerate(batches, 1):
        if fresh:  # a copy: the step takes its memory
            state = state._replace(carry=jax.tree.map(jnp.copy, carry))
        state, metrics = step(state, batch)
        on_step(metrics)
        if score is not None and number in looks:
            found = float(score(state.params))
            course.append((number, found))
            if found < best.score:
                kept = jax.tree.map(jnp.copy, state.params)  # steps donate theirs
                best = Trained(kept, found, number, course)
    return (
        best if score is not None else Trained(state.params, math.nan, number, course)
    )


@functools.cache
def adam(
    rate: float, warmup: int, steps: int, clip: float, decay: float | None = None
) -> optax.GradientTransformation:
    """Returns Adam behind a clipped gradient.

    Args:
      rate: Its highest: it rises over `warmup` steps, and falls to 0 as a cosine.
      warmup: Steps, fewer than `steps`.
      steps: In all.
      clip: What the norm of a gradient is clipped to.
      decay: Of weights, times the rate; None: weights do not decay.
    """
    rates = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, steps)
    plain = decay is None
    adam = optax.adam(rates) if plain else optax.adamw(rates, weight_decay=decay)
    return optax.chain(optax.clip_by_global_norm(clip), adam)


def every(count: int, steps: int) -> set[int]:
    """Returns every `count`-th of the steps, and the last.

    >>> sorted(every(2, 5))
    [2, 4, 5]
    """
    return {*range(count, steps + 1, count), steps}


def update(
    loss: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    state: tuple[Any, Any],
    *given: Any,
    has_aux: bool = False,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Makes one update.

    Args:
      loss: (params, *given) -> the loss, or with `has_aux` a pair of it and more.
      optimizer: Of the update.
      state: Parameters, and the optimiser's own state.
      *given: What the loss is given beside the parameters.
      has_aux: As `jax.value_and_grad` has it.

    Returns:
      The state after it; and what the loss returned, with the gradient.
    """
    found, gradient = jax.value_and_grad(loss, has_aux=has_aux)(state[0], *given)
    updates, moments = optimizer.update(gradient, state[1], state[0])
    return (optax.apply_updates(state[0], updates), moments), (found, gradient)


def descend(
    loss: Callable[[Any, Any], Array],
    optimizer: optax.GradientTransformation,
    state: tuple[Any, Any],
    each: Any,
) -> tuple[tuple[Any, Any], tuple[Array, Array]]:
    """Makes updates one after the other, in a compiled loop.

    Args:
      loss: (params, one) -> the loss, on data that are drawn from it.
      optimizer: Of the updates.
      state: Parameters, and the optimiser's own state.
      each: What each update's loss is given, such as its key; stacked.

    Returns:
      The state after them; and each loss, with the norm of its gradient.
    """

    def one(state: tuple[Any, Any], given: Any) -> tuple[Any, tuple[Array, Array]]:
        state, (value, gradient) = update(loss, optimizer, state, given)
        return state, (value, optax.tree.norm(gradient))

    return jax.lax.scan(one, state, each)
