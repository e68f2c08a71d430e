r"""A small network around any cell, trained on a generated task, many runs at once.

    u_t = x_t W_e + x_{t-1} W_s        token ids take rows; W_s for recall alone
    y_t = cell(u_t)
    m_t = norm(y_t) * silu(u_t W_g + b_g)
    o_t = gelu(m_t W_1 + b_1) W_2 + b_2

norm(y) is y over the root of its mean square. The same for all cells: one layer, d = h
units. What follows the recurrence sees the state through nonlinear maps, so that a cell
is judged by what its state holds, and not by whether it can be read off linearly. W_s
stands for the short convolution without which, as ParaRNN reports
(https://arxiv.org/abs/2510.21450, appendix C.2), a single layer of its cells or of
Mamba2 learns no associative recall: a key and its value are two steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import jrnn
from experiments import tasks
from experiments.lab.training import descend
from experiments.parallel_in_time.cells import make_cell, method_of
from experiments.tasks import Batch

EPS = 1e-6  # under the root of the norm, as usual


class Task(NamedTuple):
    """A generated task, and how it is learned.

    Attributes:
      draw: (key, batch) -> Batch.
      inputs: Token ids, or features.
      outputs: Classes; or bits, each of which is two classes to itself.
      tokens: Whether the inputs are token ids.
      classes: Whether the outputs exclude each other.
      shift: Whether the network sees the input before.
      growth: For this share of training only the first steps count, ever more of them.
      chance: Accuracy of whoever has lost the state.
    """

    draw: Callable[[Array, int], Batch]
    inputs: int
    outputs: int
    tokens: bool
    classes: bool
    shift: bool
    growth: float
    chance: float


class Plan(NamedTuple):
    """How long and how a network is trained."""

    hidden: int
    steps: int
    batch: int
    clip: float
    warmup: float


class Params(NamedTuple):
    """Parameters: k inputs, d features, h units, v outputs; d = h."""

    W_e: Float[Array, "k d"]
    W_s: Float[Array, "k d"] | None
    cell: Any
    W_g: Float[Array, "d h"]
    b_g: Float[Array, " h"]
    W_1: Float[Array, "h h"]
    b_1: Float[Array, " h"]
    W_2: Float[Array, "h v"]
    b_2: Float[Array, " v"]


class Lane(NamedTuple):
    """One of the runs that are trained side by side."""

    params: Params
    opt_state: Any
    key: Array
    rate: Array
    step: Array


def parity_task(length: int, growth: float) -> Task:
    """Returns running parity over that many steps."""
    draw = functools.partial(tasks.parity, length=length)
    return Task(draw, 2, 1, True, False, False, growth, 1 / 2)


def recall_task(pairs: int, keys: int, values: int, fillers: int) -> Task:
    """Returns multi-query associative recall."""
    sizes = {"pairs": pairs, "keys": keys, "values": values, "fillers": fillers}
    draw = functools.partial(tasks.recall, **sizes)
    inputs = keys + values + fillers
    return Task(draw, inputs, values, True, True, True, 0.0, 1 / pairs)


def copy_task(pattern: int, bits: int, delay: int) -> Task:
    """Returns copying."""
    draw = functools.partial(tasks.copy, pattern=pattern, bits=bits, delay=delay)
    return Task(draw, bits + 1, bits, False, False, False, 0.0, 1 / 2)


def init(key: Array, cell: jrnn.Cell, task: Task) -> Params:
    """Draws parameters: variance 1 over the inputs of a sum, 1 for token ids."""
    keys = jax.random.split(key, 6)
    d, h = cell.spec.input_size, cell.spec.output_size

    def dense(key: Array, inputs: int, outputs: int, tokens: bool = False) -> Array:
        drawn = jax.random.normal(key, (inputs, outputs), jnp.float32)
        return drawn if tokens else drawn * inputs**-0.5

    return Params(
        W_e=dense(keys[0], task.inputs, d, task.tokens),
        W_s=dense(keys[1], task.inputs, d, task.tokens) if task.shift else None,
        cell=cell.init(keys[2]),
        W_g=dense(keys[3], d, h),
        b_g=jnp.ones(h, jnp.float32),
        W_1=dense(keys[4], h, h),
        b_1=jnp.zeros(h, jnp.float32),
        W_2=dense(keys[5], h, task.outputs),
        b_2=jnp.zeros(task.outputs, jnp.float32),
    )


def features(params: Params, task: Task, xs: Array) -> Float[Array, "T B d"]:
    """Returns u_t: what the cell reads."""
    read = lambda W: W[xs] if task.tokens else xs @ W
    us = read(params.W_e)
    if params.W_s is not None:
        before = read(params.W_s)
        us += jnp.concatenate([jnp.zeros_like(before[:1]), before[:-1]])
    return us


def predict(
    params: Params, cell: jrnn.Cell, method: jrnn.Method, task: Task, xs: Array
) -> Float[Array, "T B v"]:
    """Returns o_t: logits of the classes, or of each bit."""
    us = features(params, task, xs)
    ys = jrnn.unroll(cell, params.cell, us, method=method)[1]
    ys *= jax.lax.rsqrt(jnp.mean(jnp.square(ys), axis=-1, keepdims=True) + EPS)
    ms = ys * jax.nn.silu(_dense(us, params.W_g, params.b_g))
    return _dense(
        jax.nn.gelu(_dense(ms, params.W_1, params.b_1)), params.W_2, params.b_2
    )


def _dense(xs: Array, W: Array, b: Array) -> Array:
    return xs @ W + b[None, None]


def loss_of(task: Task, logits: Array, batch: Batch, counts: Array) -> Array:
    """Returns the mean of -log P(target) over the steps that count."""
    if task.classes:
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    else:
        bits = batch.targets.reshape(logits.shape).astype(logits.dtype)
        nats = optax.sigmoid_binary_cross_entropy(logits, bits).mean(axis=-1)
    return jnp.where(counts, nats, 0).sum() / counts.sum()


def right(task: Task, logits: Array, batch: Batch) -> Float[Array, "T B"]:
    """Returns which predictions are right; the share of the bits, where it is bits."""
    if task.classes:
        return (logits.argmax(axis=-1) == batch.targets).astype(jnp.float32)
    bits = batch.targets.reshape(logits.shape)
    return ((logits > 0) == (bits == 1)).astype(jnp.float32).mean(axis=-1)


def _optimizer(plan: Plan, rate: Any) -> optax.GradientTransformation:
    """Adam behind a clipped gradient, at a rate of each lane's own."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, 1.0, round(plan.warmup * plan.steps), plan.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(plan.clip),
        optax.scale_by_adam(),
        optax.scale_by_schedule(schedule),
        optax.scale(-rate),
    )


@functools.cache
def trainer(name: str, task: Task, plan: Plan) -> tuple[Callable, Callable]:
    """Returns compiled functions that start lanes, and train them for some steps.

    Args:
      name: Of the cell.
      task: Every batch of it is drawn anew.
      plan: How long and how.

    Returns:
      start(keys, rates) -> lanes, and advance(lanes, steps) -> (lanes, the mean loss of
      each over these steps). Lanes differ in their key and their learning rate alone.
    """
    cell = make_cell(name, plan.hidden)

    def start(key: Array, rate: Array) -> Lane:
        key_init, key_run = jax.random.split(key)
        params: Any = init(key_init, cell, task)
        moments = _optimizer(plan, rate).init(params)
        return Lane(params, moments, key_run, rate, jnp.zeros((), jnp.int32))

    def loss(params: Any, given: tuple[Array, Array]) -> Array:
        batch = task.draw(given[0], plan.batch)
        logits = predict(params, cell, method_of(name), task, batch.xs)
        counts = batch.asked & counted(task, plan, given[1], batch)
        return loss_of(task, logits, batch, counts)

    def advance(lane: Lane, steps: int) -> tuple[Lane, Array]:
        split = lambda key, _: tuple(jax.random.split(key))
        key, used = jax.lax.scan(split, lane.key, None, length=steps)
        numbers = lane.step + jnp.arange(steps, dtype=jnp.int32)
        optimizer = _optimizer(plan, lane.rate)
        state, (values, _) = descend(loss, optimizer, lane[:2], (used, numbers))
        return Lane(*state, key, lane.rate, lane.step + steps), values.mean()

    return jax.jit(jax.vmap(start)), jax.jit(
        lambda lanes, steps: jax.vmap(lambda lane: advance(lane, steps))(lanes),
        static_argnums=1,
        donate_argnums=0,
    )


def counted(task: Task, plan: Plan, step: Array, batch: Batch) -> Array:
    """Returns which steps count by now, (T, 1): all, where the task does not grow."""
    T = batch.xs.shape[0]
    grown = T * (step + 1) / max(1.0, task.growth * plan.steps)
    return (jnp.arange(T) < grown)[:, None]


@functools.partial(jax.jit, static_argnames=("name", "task", "method"))
def score(
    params: Params, name: str, task: Task, method: jrnn.Method, batch: Batch
) -> tuple[Array, Array]:
    """Returns which predictions are right, (T, B), and the logits."""
    cell = make_cell(name, params.W_e.shape[1])
    logits = predict(params, cell, method, task, batch.xs)
    return right(task, logits, batch), logits


@functools.partial(jax.jit, static_argnames=("name", "task"))
def solve(params: Params, name: str, task: Task, batch: Batch) -> jrnn.run.NewtonInfo:
    """Returns what becomes of each sequence under Newton's method."""
    cell = make_cell(name, params.W_e.shape[1])
    us = features(params, task, batch.xs)
    return jrnn.run.newton_trajectory(cell, params.cell, us)[1]
