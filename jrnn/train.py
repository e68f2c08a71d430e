r"""Training: one jitted step, truncated backpropagation through time, checkpoints.

A loss is a pure function of the parameters, a batch, the state carried over from the
window before, and a key:

    loss(params, batch, carry, key) -> (scalar, (carry, metrics))

Truncated backpropagation through time cuts a long sequence into windows: the state is
handed on from one to the next, the gradient is not. Clipping and schedules are optax's:

    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, 2000)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from jrnn._base import (
    Key,
    Params,
    check_function,
    check_size,
    check_switch,
    tell,
)
from jrnn._check_draws import check_given_key
from jrnn._check_training import (
    check_arrays,
    check_batches,
    check_long,
    check_optimizer,
)
from jrnn._checkpoint import CheckpointError as CheckpointError
from jrnn._checkpoint import has_checkpoint as has_checkpoint
from jrnn._checkpoint import load_checkpoint as load_checkpoint
from jrnn._checkpoint import read_metadata as read_metadata
from jrnn._checkpoint import save_checkpoint as save_checkpoint
from jrnn._guard import own_constants
from jrnn._lazy import needed_by
from jrnn._parts import cast_state, state_dtype
from jrnn._programs import Arguments, Family, Program
from jrnn._step import Donating, cloned_keys, copied, update
from jrnn.likelihood import mean_over_steps
from jrnn.model import SequenceModel

with needed_by("jrnn.train", "optax"):
    import optax

Carry = Any
Optimizer = optax.GradientTransformation | optax.MultiSteps
Metrics = dict[str, Array]
Loss = Callable[[Params, Any, Carry, Key], tuple[Array, tuple[Carry, Metrics]]]


class TrainState(NamedTuple):
    """All that training goes on from.

    Attributes:
      params: What is trained.
      opt_state: The optimiser's.
      carry: The recurrent state after the last window; () if there is none.
      key: Split at each step, never used twice.
      step: Steps taken, int32.
    """

    params: Params
    opt_state: Any
    carry: Carry
    key: Key
    step: Int[Array, ""]


if TYPE_CHECKING:
    Step = Program[[TrainState, Any], tuple[TrainState, Metrics]]
else:  # old releases of beartype cannot check what a ParamSpec stands for
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
      params: Initial parameters; copied, for the first step takes the state's memory.
      optimizer: Any of optax, with `init` and `update`.
      key: Of the run.
      carry: The recurrent state that the first window starts from; copied.

    Returns:
      The state. No array in it is the caller's, the optimiser's, or stands there twice.

    Raises:
      TypeError: `optimizer` is none.

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
    """Makes a jitted step of training; equal arguments give the identical one.

    What is compiled is kept as long as the loss and the optimiser are, and no longer,
    nor is anything that they close over: so define the loss once, and not anew for
    each step. A bound method lives as long as its object. A loss that Python cannot
    refer to weakly (an instance whose `__slots__` lack `__weakref__`) is kept, with
    what was compiled for it, as long as the step is held.

    Args:
      loss: (params, batch, carry, key) -> (scalar, (carry, metrics)); hashable.
      optimizer: Any of optax, but those of single examples' gradients
        (`optax.contrib.dpsgd`). Where its `update` wants `value`, `grad`, `value_fn`,
        `obj_fn` or `grad_fn`, it is given them: the loss, its gradient, and both as
        functions of the parameters, for the same batch, carry and key.

    Returns:
      step(state, batch) -> (state, metrics), with `lower` as `jax.jit` has it. The old
      state's memory is donated: it must not be used again. `metrics` are the loss's
      own, with `loss`, and with `gradient_norm`, the global norm of the gradient before
      the optimiser saw it, in float32 or wider. A loss that is not finite shows there;
      nothing is hidden.

    Raises:
      TypeError: `loss` is no function, `optimizer` is none, or one is not hashable.

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
        # Under `optax.lookahead` there are two sets of parameters, and one is trained.
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

    return Donating(step)


_steps = Family("make_train_step", _make_step)


def sequence_loss(model: SequenceModel) -> Loss:
    """Makes the loss of a sequence model on windows of symbols.

    The mean of -log P(x_t | x_<t) over the window's symbols, in nats. The carry is the
    model's state, so that consecutive windows are read as one sequence. Equal models
    give the identical loss, which is kept no longer than the model.

    Args:
      model: Made by `jrnn.sequence_model`.

    Returns:
      A loss for `make_train_step`; a batch is what the model's `log_prob` takes:
        token ids or numbers, (T, *batch) or (T, *batch, size).

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.train import sequence_loss
      >>> model = jrnn.sequence_model(jrnn.gru(2, 3), jrnn.categorical(2))
      >>> key = jax.random.key(0)
      >>> params, xs = model.init(key), jnp.array([[0], [1]])
      >>> carry = model.init_state(params, (1,))
      >>> sequence_loss(model)(params, xs, carry, key)[0].shape
      ()
    """
    if not isinstance(model, SequenceModel):
        raise TypeError(
            "Expected model to be one made by jrnn.sequence_model(cell, head), got "
            f"{tell(model)}."
        )
    return _sequence_losses(model)


def _make_sequence_loss(arguments: Arguments) -> Loss:
    def loss(
        params: Params, batch: Array, carry: Carry, key: Key
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        (model,) = arguments()
        noise = None if model.cell.noise is None else key
        carry, log_probs = model.log_prob(params, batch, carry, key=noise)
        return -mean_over_steps(log_probs), (carry, {})

    return loss


_sequence_losses = Family("sequence_loss", _make_sequence_loss)


@own_constants
def streams(tokens: Num[Array, " N"], batch_size: int) -> Num[Array, "T B"]:
    """Lays one long sequence out as `batch_size` consecutive pieces, side by side.

    Args:
      tokens: The sequence.
      batch_size: How many pieces; what is left over at the end is dropped.

    Returns:
      An array (T, B), T = N // B: column b holds piece b, time first.

    Raises:
      ValueError: The sequence is shorter than `batch_size`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jrnn.train import streams
      >>> streams(jnp.arange(7), 2).tolist()
      [[0, 3], [1, 4], [2, 5]]
    """
    batch_size = check_size("batch_size", batch_size)
    tokens = check_long("tokens", tokens)
    steps = tokens.shape[0] // batch_size
    if steps == 0:
        raise ValueError(
            f"Expected at least {batch_size} tokens, one per stream, got "
            f"{tokens.shape[0]}; take fewer streams."
        )
    return tokens[: steps * batch_size].reshape(batch_size, steps).T


def windows(
    xs: Array, length: int, *, start: int = 0, keep_last: bool = False
) -> Iterator[Array]:
    """Yields consecutive windows of a long sequence, for truncated backpropagation.

    Args:
      xs: (T, ...), time first.
      length: Steps per window; T or more gives one window, which is no truncation.
      start: How many windows are left out first: where a resumed run goes on.
      keep_last: Whether a shorter window at the end is yielded too; it compiles a
        second time.

    Yields:
      xs[0:length], xs[length:2 * length], ...

    Example:
      >>> import jax.numpy as jnp
      >>> from jrnn.train import windows
      >>> [w.tolist() for w in windows(jnp.arange(5), 2, keep_last=True)]
      [[0, 1], [2, 3], [4]]
    """
    length = check_size("length", length)
    start = check_size("start", start, least=0)
    check_switch("keep_last", keep_last)
    xs = check_long("xs", xs)
    for first in range(start * length, xs.shape[0], length):
        window = xs[first : first + length]
        if keep_last or window.shape[0] == length or first == 0:
            yield window


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
      state: Where training starts; its memory is donated.
      batches: One batch per step.
      on_step: Called after each step, to log, to save, and to stop by returning True.

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
    if not isinstance(state, TrainState):
        raise TypeError(
            "Expected state to be a TrainState, made by init_train_state, got "
            f"{tell(state)}."
        )
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
    """Returns a sum over all valid steps divided by their number.

    Not a mean of the batches' means, in which a short batch would weigh too much.

    Args:
      metric: (params, batch, carry) -> (sum over valid steps, their number, carry).
        Jitted here; equal functions are compiled once, as those of `make_train_step`.
      params: Of the model.
      batches: What it is evaluated on, in order.
      carry: The state before the first batch, handed on from each to the next.

    Returns:
      The quotient; NaN where no step was valid.

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
