"""One jitted training step: the loss, its gradient, the optimiser's update."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jrnn.core.arguments import check_function, tell
from jrnn.core.cell import Key, Params
from jrnn.core.check_draws import check_given_key
from jrnn.core.constants import own_constants
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.lazy import needed_by
from jrnn.core.programs import Arguments, Family, Program
from jrnn.train.check import check_arrays, check_optimizer
from jrnn.train.memory import Donating, cloned_keys, copied
from jrnn.train.optimizers import update

with needed_by("jrnn.train", "optax"):
    import optax

Carry = Any
Optimizer = optax.GradientTransformation | optax.MultiSteps
Metrics = dict[str, Array]
Loss = Callable[[Params, Any, Carry, Key], tuple[Array, tuple[Carry, Metrics]]]


class TrainState(NamedTuple):
    """The state of training between steps.

    Attributes:
      params: The parameters.
      opt_state: The state of the optimiser.
      carry: The recurrent state after the last window; () if there is none.
      key: The PRNG key, split at each step and never used twice.
      step: The number of steps taken, int32.
    """

    params: Params
    opt_state: Any
    carry: Carry
    key: Key
    step: Int[Array, ""]


def check_train_state(state: Any) -> None:
    """Raises TypeError unless `state` is a `TrainState`."""
    if not isinstance(state, TrainState):
        raise TypeError(
            "Expected state to be a TrainState, made by init_train_state, got "
            f"{tell(state)}."
        )


if TYPE_CHECKING:
    Step = Program[[TrainState, Any], tuple[TrainState, Metrics]]
else:  # old releases of beartype cannot check a ParamSpec
    Step = Program


@own_constants
def init_train_state(
    params: Params,
    optimizer: Optimizer,
    key: Key,
    carry: Carry = (),
) -> TrainState:
    """Makes the state before the first step.

    Args:
      params: Initial parameters; copied, as the first step donates the state's memory.
      optimizer: Any optax optimiser, with `init` and `update`.
      key: The PRNG key of the run.
      carry: The recurrent state before the first window; copied.

    Returns:
      The state. It shares no array with the caller or the optimiser, and no array
      occurs in it twice.

    Raises:
      TypeError: `optimizer` is not an optax optimiser.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from jrnn.train import init_train_state
      >>> init_train_state(jnp.ones(3), optax.sgd(0.1), jax.random.key(0)).step.item()
      0
    """
    check_arrays("params", params)
    check_optimizer(optimizer)
    check_given_key(key)
    check_arrays("carry", carry)
    params, carry, key = jax.tree.map(jnp.copy, (params, carry, key))
    opt_state = copied(optimizer.init(params))
    return TrainState(params, opt_state, carry, key, jnp.zeros((), jnp.int32))


def make_train_step(loss: Loss, optimizer: Optimizer) -> Step:
    """Makes a jitted training step; equal arguments return the same object.

    Compiled code, and everything that the loss and the optimiser close over, is freed
    together with them: define the loss once, not for each step. A bound method lives as
    long as its object. A loss without weak references (an instance whose `__slots__`
    lack `__weakref__`) is kept, with its compiled code, as long as the step is.

    Args:
      loss: (params, batch, carry, key) -> (scalar, (carry, metrics)); hashable.
      optimizer: Any optax optimiser, except those for per-example gradients
        (`optax.contrib.dpsgd`). If its `update` takes `value`, `grad`, `value_fn`,
        `obj_fn` or `grad_fn`, these are passed: the loss, its gradient, and both as
        functions of the parameters, for the same batch, carry and key.

    Returns:
      step(state, batch) -> (state, metrics), with `lower` as in `jax.jit`. The old
      state's memory is donated: do not use it again. `metrics` are those of the loss,
      plus `loss` and `gradient_norm`, the global norm of the gradient before the
      optimiser's update, in float32 or wider. A non-finite loss shows there.

    Raises:
      TypeError: `loss` is not a function, `optimizer` is not an optax optimiser, or one
        of them is not hashable.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from jrnn.train import init_train_state, make_train_step
      >>> loss = lambda params, batch, carry, key: ((params**2).sum(), (carry, {}))
      >>> sgd = optax.sgd(0.25)
      >>> state = init_train_state(jnp.ones(2), sgd, jax.random.key(0))
      >>> make_train_step(loss, sgd)(state, None)[0].params.tolist()
      [0.5, 0.5]
    """
    check_function("loss", loss)
    check_optimizer(optimizer)
    return _steps(loss, optimizer)


def _make_step(
    arguments: Arguments,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        loss, optimizer = arguments()
        key, used = jax.random.split(state.key)
        # `optax.lookahead` has two sets of parameters; the fast ones are trained.
        both = isinstance(state.params, optax.LookaheadParams)
        params = state.params.fast if both else state.params
        (value, (carry, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, batch, state.carry, used
        )
        same = batch, state.carry, used
        value_fn = lambda params: loss(params, *cloned_keys(same))[0]
        updates, opt_state = update(
            optimizer, gradient, state.opt_state, state.params, value, value_fn
        )
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(cast_state(gradient, state_dtype(gradient)))
        metrics = {**metrics, "loss": value, "gradient_norm": norm}
        return TrainState(params, opt_state, carry, key, state.step + 1), metrics

    return Donating(step, check_train_state)


_steps = Family("make_train_step", _make_step)
