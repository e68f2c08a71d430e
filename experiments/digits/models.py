"""One network on one task from one seed: GRUs, a pool over the steps, a softmax.

    h_t = GRUs, one above the other, each from both ends or forwards alone
    P(digit) = softmax(pool_t(h_t) W + b),   pool: the maximum over t, or the last step

Adam with decoupled weight decay, a rate that rises over the first epoch and falls as a
cosine, smoothed labels, dropout between layers, examples that are moved a little. The
last parameters are kept: nothing is stopped early, so nothing is chosen by it.

MNIST-1D and rows were chosen by the validation part alone, with `--search`: the
candidates are trained on the training part with the first seed, and the one that is
right most often on the validation part is taken (of two alike, the one with the smaller
loss). experiments/results/digits_search.json holds what was tried. For pixels nothing
was searched: one pass takes too long.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

import jrnn
from experiments.digits.tasks import READERS, Task, scaled
from experiments.lab import training
from jrnn import train

DIGITS = 10
# Examples that are predicted at once.
AT_ONCE = 250


@dataclasses.dataclass(frozen=True)
class Plan:
    """A network and how it is trained; equal plans are compiled once."""

    hidden: int = 32
    """Units of each GRU, in each direction."""
    layers: int = 2
    """GRUs above each other."""
    both_ways: bool = True
    """Whether each reads from both ends."""
    pool: Literal["max", "last"] = "max"
    """Over the steps."""
    window: int = 1
    """Points of a curve that one step reads, an odd number."""
    dropout: float = 0.2
    """Share of features that are dropped between layers."""
    warp: float = 1.0
    """How far training examples are moved; 0: not at all."""
    smoothing: float = 0.05
    """Share of a label that is spread over all digits."""
    rate: float = 5e-3
    """Of Adam, the highest."""
    decay: float = 1e-3
    """Of weights, times the rate."""
    epochs: int = 50
    """Times that all examples are seen."""
    batch: int = 100
    """Examples per step."""
    clip: float = 1.0
    """Largest norm of a gradient."""


# Accuracy on the 1,000 test examples of MNIST-1D, in percent: Greydanus and Kobak,
# https://arxiv.org/abs/2011.14439
PUBLISHED = {
    "logistic regression": 32,
    "multilayer perceptron": 68,
    "GRU": 91,
    "convolutional network": 94,
}

CHOSEN = {
    "mnist1d": Plan(window=5, hidden=48, epochs=40),
    "rows": Plan(epochs=30, dropout=0.4),
    "pixels": Plan(layers=1, epochs=20, warp=0.5),
}

# Before anything is chosen; what a candidate changes of it.
BASE = {
    "mnist1d": Plan(window=5, epochs=40),
    "rows": Plan(epochs=30),
    "pixels": Plan(layers=1, epochs=20, warp=0.5),
}
CHANGES: dict[str, list[dict[str, float]]] = {
    "mnist1d": [
        {},
        {"hidden": 48},
        {"warp": 2.0},
        {"window": 1},
        {"window": 9},
        {"dropout": 0.4},
        {"rate": 1e-2},
        {"hidden": 48, "warp": 2.0, "window": 9},
    ],
    "rows": [{}, {"hidden": 48}, {"dropout": 0.4}, {"warp": 0.5}],
    "pixels": [],
}

# What each part is worth: the plan that was chosen, less one thing at a time, down to
# the network that was published, a GRU that reads forwards and answers at the end.
LESS: dict[str, dict[str, object]] = {
    "one point per step": {"window": 1},
    "examples not moved": {"warp": 0.0},
    "forwards alone": {"both_ways": False},
    "answer at the last step": {"pool": "last"},
}
_every = {name: value for change in LESS.values() for name, value in change.items()}
LESS["plain GRU"] = {**_every, "layers": 1, "smoothing": 0.0}


def candidates(task: str) -> list[Plan]:
    """Returns the plans that `--search` chooses from; the chosen one where none is."""
    changed = [dataclasses.replace(BASE[task], **c) for c in CHANGES[task]]
    return changed or [CHOSEN[task]]


def ablations(plan: Plan) -> dict[str, Plan]:
    """Returns a plan less one thing at a time, by what is missing."""
    changed = {name: dataclasses.replace(plan, **c) for name, c in LESS.items()}
    return {name: other for name, other in changed.items() if other != plan}


class Fitted(NamedTuple):
    """The last parameters, and the mean training loss of each epoch, in nats."""

    params: Any
    losses: list[float]


def max_step(
    ys: Float[Array, "T *batch h"], active: Bool[Array, "T *batch"]
) -> Float[Array, "*batch h"]:
    """Returns the largest value over active steps of each feature."""
    return jnp.where(active[..., None], ys, -jnp.inf).max(axis=0)


POOLS = {"max": max_step, "last": jrnn.models.last_pool}


@functools.cache
def network(task: str, plan: Plan) -> jrnn.models.SupervisedModel:
    """Returns the model that a plan asks for."""
    cells, inputs = [], READERS[task].inputs(plan.window)
    for _ in range(plan.layers):
        cell = jrnn.gru(inputs, plan.hidden)
        cell = jrnn.bidirectional(cell, cell) if plan.both_ways else cell
        cells.append(jrnn.dropout(cell, plan.dropout) if cells else cell)
        inputs = cell.spec.output_size
    cell = cells[0] if plan.layers == 1 else jrnn.stack(*cells)
    return jrnn.supervised_model(cell, jrnn.categorical(DIGITS), POOLS[plan.pool])


@functools.cache
def make_loss(task: str, plan: Plan) -> train.Loss:
    """Returns the mean over a batch of -log P(digit), labels smoothed, in nats."""
    model, reader = network(task, plan), READERS[task]

    def loss(params: Any, batch: Any, carry: Any, key: Array) -> Any:
        examples, labels = batch
        key_warp, key_drop = jax.random.split(key)
        if plan.warp:
            examples = reader.warp(key_warp, examples, plan.warp)
        xs = reader.lay_out(examples, plan.window)
        noise = {} if model.cell.noise is None else {"key": key_drop}
        log_p = model.predict(params, xs, **noise).parameters
        own = jnp.take_along_axis(log_p, labels[:, None], 1).mean()
        return -(1 - plan.smoothing) * own - plan.smoothing * log_p.mean(), (carry, {})

    return loss


def fit(
    task: Task,
    plan: Plan,
    known: np.ndarray,
    seed: int,
    on_epoch: Callable[[], object] = lambda: None,
) -> Fitted:
    """Trains on the examples in `known`, and looks at no other.

    Args:
      task: What is learnt.
      plan: How.
      known: Indices of examples; their scale is taken, too.
      seed: Of weights, batches and everything else that is drawn.
      on_epoch: Called after each epoch.
    """
    examples = scaled(task, known)
    per_epoch = max(1, len(known) // plan.batch)
    steps = per_epoch * plan.epochs
    key_init, key_run = jax.random.split(jax.random.key(seed))
    rng, found, losses = np.random.default_rng(seed), [], []

    def batches() -> Iterator[Any]:
        for _ in range(plan.epochs):
            found.clear()
            for chosen in _batches(known, plan.batch, rng):
                batch = (examples[chosen], task.labels[chosen].astype(np.int32))
                yield False, jax.tree.map(jnp.asarray, batch)
            losses.append(float(np.mean([float(value) for value in found])))
            on_epoch()

    trained = training.train(
        make_loss(task.name, plan),
        training.adam(plan.rate, per_epoch, steps + 1, plan.clip, plan.decay),
        network(task.name, plan).init(key_init),
        key_run,
        batches(),
        on_step=lambda metrics: found.append(metrics["loss"]),
    )
    return Fitted(trained.params, losses)


def _batches(
    known: np.ndarray, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields all of `known` in a random order, but for what fills no batch."""
    order, size = rng.permutation(known), min(size, len(known))
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def predict(
    task: Task, plan: Plan, params: Any, known: np.ndarray, asked: np.ndarray
) -> Float[np.ndarray, "n 10"]:
    """Returns log P(digit) of the examples in `asked`, scaled by those in `known`."""
    examples = scaled(task, known)[asked]
    pieces = np.split(examples, range(AT_ONCE, len(examples), AT_ONCE))
    of = lambda piece: _log_p(task.name, plan, params, jnp.asarray(piece))
    return np.concatenate([np.asarray(of(piece)) for piece in pieces])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_p(task: str, plan: Plan, params: Any, examples: Array) -> Array:
    xs = READERS[task].lay_out(examples, plan.window)
    return network(task, plan).predict(params, xs).parameters


def attempt(
    task: Task,
    plan: Plan,
    seed: int,
    known: np.ndarray,
    asked: np.ndarray,
    on_epoch: Callable[[], object],
) -> tuple[Fitted, np.ndarray, tuple[float, float]]:
    """Returns what was fitted to `known`, and log P(digit) and `score` of `asked`."""
    fitted = fit(task, plan, known, seed, on_epoch)
    log_p = predict(task, plan, fitted.params, known, asked)
    return fitted, log_p, score(log_p, task.labels[asked])


def score(log_p: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the share that is right, and the mean of -log P(digit) in nats.

    >>> score(np.log([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]), np.array([0, 1]))[0]
    0.5
    """
    own = log_p[np.arange(len(labels)), labels]
    return float((log_p.argmax(1) == labels).mean()), float(-own.mean())
