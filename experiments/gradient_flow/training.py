"""Cells on the adding problem: what training does to the way back of gradients.

Two features, numbers in [0, 1) and marks; two numbers are marked, one in each half of
the sequence, and after the last step their sum is asked: the form of Le et al. 2015, as
`experiments._long_tasks.adding` tells. Always answering 1 has a mean squared error of
1/6.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

import jrnn
from experiments import _long_tasks
from experiments.lab import training as lab_training
from jrnn.diagnostics import gradient_by_lag

FEATURES, CHANCE = 2, 1 / 6
# Parts of a folded key: no batch of one is ever a batch of another.
TRAINING, TEST = 1, 2
TEST_BATCH = 500


# With relu and W_h = I the IRNN of Le et al. 2015, https://arxiv.org/abs/1504.00941,
# where all other weights have a deviation of 0.001.
TINY_NORMAL = jrnn.initializers.normal(1e-3)
# What the LRU's matrices started from when the committed results were made; by now
# `jrnn.cells.lru` draws them as its authors do.
UNIT = jax.nn.initializers.lecun_normal()


CELLS: dict[str, Callable[[int], jrnn.Cell]] = {
    "elman": lambda hidden: jrnn.elman(FEATURES, hidden),
    "irnn": lambda hidden: jrnn.elman(
        FEATURES,
        hidden,
        activation=jax.nn.relu,
        input_init=TINY_NORMAL,
        recurrent_init=jrnn.initializers.identity(),
    ),
    "gru": lambda hidden: jrnn.gru(FEATURES, hidden),
    "lstm": lambda hidden: jrnn.lstm(FEATURES, hidden),
    "lru": lambda hidden: jrnn.cells.lru(
        FEATURES,
        hidden,
        output_size=hidden,
        input_init=UNIT,
        output_init=UNIT,
        skip_init=UNIT,
    ),
}


# Learning rates of Adam, chosen by hand, not searched.
RATES = {"elman": 3e-3, "irnn": 1e-4, "gru": 1e-2, "lstm": 1e-2, "lru": 1e-2}


class Learned(NamedTuple):
    """What is trained: a cell, and a readout of its last output."""

    cell: Any
    W_y: Array
    b_y: Array


def adding(key: Array, steps: int, batch: int) -> tuple[Array, Array]:
    """Draws sequences (T, B, 2) and their sums (B,), float32."""
    # int, the default: int64 here, where x64 is on. int32 would draw other sequences
    # than those of the committed results.
    drawn = _long_tasks.adding(key, batch, steps, places=int)
    return drawn.xs, drawn.targets


def init(cell: jrnn.Cell, seed: int) -> Learned:
    """Draws what is trained; the readout starts at the mean sum of 1, and noise."""
    params = cell.init(jax.random.key(seed), jnp.float32)
    key = jax.random.fold_in(jax.random.key(seed), TRAINING)
    size = cell.spec.output_size
    W_y = jax.random.normal(key, (size,), jnp.float32) / size**0.5
    return Learned(params, W_y, jnp.ones((), jnp.float32))


def squared_error(learned: Learned, ys: Array, targets: Array) -> Array:
    """Returns the mean squared error of the readout of the last outputs."""
    answers = jnp.matmul(ys[-1], learned.W_y) + learned.b_y[None]
    return jnp.square(answers - targets).mean()


def loss(cell: jrnn.Cell, learned: Learned, xs: Array, targets: Array) -> Array:
    """Returns the mean squared error of a cell."""
    return squared_error(learned, jrnn.unroll(cell, learned.cell, xs)[1], targets)


class Plan(NamedTuple):
    """How is trained; hashable.

    Attributes:
      optimiser: By name and learning rate: "adam" or "sgd".
      rate: The learning rate.
      clip: "none", "norm" or "value".
      limit: What is clipped to.
      steps: T.
      batch: Sequences of each update.
    """

    optimiser: str
    rate: float
    clip: str
    limit: float
    steps: int
    batch: int

    def make(self) -> optax.GradientTransformation:
        """Returns the optimiser behind the clipping."""
        clips = {
            "none": optax.identity,
            "norm": lambda: optax.clip_by_global_norm(self.limit),
            "value": lambda: optax.clip(self.limit),
        }
        makers = {"adam": optax.adam, "sgd": optax.sgd}
        return optax.chain(clips[self.clip](), makers[self.optimiser](self.rate))


@functools.partial(jax.jit, static_argnames=("cell", "plan"))
def train(cell: jrnn.Cell, state: Any, keys: Array, plan: Plan) -> Any:
    """Makes an update with each key: see `lab.training.descend`."""
    on = lambda learned, key: loss(cell, learned, *adding(key, plan.steps, plan.batch))
    return lab_training.descend(on, plan.make(), state, keys)


def fit(
    cell: jrnn.Cell,
    learned: Learned,
    plan: Plan,
    updates: int,
    seed: int,
    tell: Callable[[int], object],
    chunk: int = 50,
) -> tuple[Learned, np.ndarray, np.ndarray]:
    """Trains, and tells how many updates were made after each chunk of them.

    Returns:
      What was learned; losses and norms of gradients, before they were clipped, of each
      update.
    """
    state, found = (learned, plan.make().init(learned)), []
    key = jax.random.fold_in(jax.random.key(seed), TRAINING)
    for start in range(0, updates, chunk):
        count = min(chunk, updates - start)
        keys = jax.random.split(jax.random.fold_in(key, start), count)
        state, losses_and_norms = train(cell, state, keys, plan)
        found.append(np.asarray(losses_and_norms, np.float64))
        tell(count)
    return state[0], *np.concatenate(found, axis=1)


def test_error(cell: jrnn.Cell, learned: Learned, steps: int, seed: int) -> float:
    """Returns the mean squared error on sequences that training has not seen."""
    key = jax.random.fold_in(jax.random.key(seed), TEST)
    return float(_jitted_loss(cell, learned, *adding(key, steps, TEST_BATCH)))


_jitted_loss = jax.jit(loss, static_argnames="cell")


@functools.partial(jax.jit, static_argnames="cell")
def by_lag(cell: jrnn.Cell, learned: Learned, xs: Array, targets: Array) -> Array:
    """Returns the norm of the gradient from each distance back, (T,)."""
    error = lambda _, ys: squared_error(learned, ys, targets)
    return gradient_by_lag(cell, learned.cell, xs, error).norms


def share_beyond(norms: ArrayLike, lag: int) -> float | None:
    """Returns the share of the gradient that comes from further back than `lag`.

    None where there is no gradient at all, as where every unit of an IRNN has died.

    >>> share_beyond(jnp.array([1.0, 1.0, 1.0, 1.0]), 2)
    0.25
    """
    sizes = np.asarray(norms, np.float64)
    total = sizes.sum()
    return float(sizes[lag + 1 :].sum() / total) if total > 0 else None
