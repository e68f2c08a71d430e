"""The recurrent networks: how they are trained, and how they forecast.

    P(z_t | z_<t, known_t) by a GRU, or by two layers of linear recurrent units (LRU),
    in front of a Student-t distribution or a mixture

A forecast is many sampled paths: a path's next value depends on the one that was drawn
before it, so that uncertainty grows as it should.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jrnn
from experiments import lab
from experiments.forecast.problem import (
    Origin,
    Setup,
    Sheet,
    Track,
    inputs_at,
    restored,
    sheet_of,
)
from experiments.lab import training

COMPONENTS = 3
HEADS = {
    "student_t": jrnn.heads.student_t,
    "mixture": functools.partial(jrnn.heads.mixture, COMPONENTS),
}
WARMUP = 0.05  # of the steps


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How networks are made and trained."""

    head: Annotated[str, lab.among(HEADS)] = "student_t"
    """What they predict: student_t or mixture."""
    hidden: lab.Count = 32
    """Hidden units."""
    seeds: lab.Seeds = (0, 1, 2)
    """Of weights and batches; the spread is over these."""
    steps: lab.Count = 600
    """Updates."""
    batch: lab.Count = 32
    """Windows of each update."""
    window: lab.Count = 96
    """Values of a training window."""
    rate: lab.Positive = 0.01
    """The highest learning rate of Adam."""
    clip: lab.Positive = 1.0
    """What the norm of a gradient is clipped to."""
    looks: lab.Count = 20
    """How often the validation part is looked at; the best look is kept."""


class Learned(NamedTuple):
    """A trained network.

    Attributes:
      params: Those that did best on validation.
      nats: -log density of a scaled value there, the mean.
      step: After which they were kept.
    """

    params: Any
    nats: float
    step: int


def entrants(recipe: Recipe, inputs: int) -> dict[str, jrnn.models.SequenceModel]:
    """Returns the networks by name."""
    head, h, k = HEADS[recipe.head](), recipe.hidden, 1 + inputs
    pointwise = jrnn.cells.feedforward(h, h, activation=jax.nn.gelu)
    # Linear units of unbounded inputs let one drawn outlier carry its whole path away:
    # the next value's scale would grow with it. Of bounded ones the state is bounded.
    layers = (jrnn.cells.lru(h, h), pointwise) * 2
    cells = {
        "GRU": jrnn.gru(k, h),
        "LRU": jrnn.stack(jrnn.cells.feedforward(k, h, activation=jnp.tanh), *layers),
    }
    make = lambda cell: jrnn.sequence_model(cell, head, inputs=inputs)
    return {name: make(cell) for name, cell in cells.items()}


def log_probs(model: Any, params: Any, sheet: Sheet) -> Float[Array, "T N"]:
    """Returns log densities of scaled values, 0 where none counts."""
    known = {"inputs": sheet.inputs} if getattr(model, "inputs", 0) else {}
    found = model.log_prob(params, sheet.z, lengths=sheet.lengths, **known)[1]
    return jnp.where(sheet.counted, found, 0)


@functools.partial(jax.jit, static_argnames="model")
def mean_nats(model: Any, params: Any, sheet: Sheet) -> Array:
    """Returns the mean of -log density over the values that count."""
    total = log_probs(model, params, sheet).sum()
    return -total / jnp.maximum(sheet.counted.sum(), 1).astype(total.dtype)


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def _updates(model: Any, optimizer: Any, state: Any, sheet: Sheet, index: Array) -> Any:
    loss = lambda params, chosen: mean_nats(model, params, sheet.some(chosen))
    return training.descend(loss, optimizer, state, index)[0]


def fit(
    model: jrnn.models.SequenceModel,
    recipe: Recipe,
    seed: int,
    train: Sheet,
    valid: Sheet,
    on_look: Callable[[], object] = lambda: None,
) -> Learned:
    """Trains a network; keeps what did best on validation.

    Raises:
      ValueError: No look found a finite density.
    """
    optimizer = training.adam(
        recipe.rate, int(WARMUP * recipe.steps), recipe.steps, recipe.clip
    )
    rng, count = np.random.default_rng(seed), len(train.lengths)
    params = model.init(jax.random.key(seed))
    state, best = (params, optimizer.init(params)), Learned(None, np.inf, 0)
    shares = np.array_split(np.arange(recipe.steps), min(recipe.looks, recipe.steps))
    for share in shares:
        index = rng.integers(count, size=(len(share), recipe.batch))
        state = _updates(model, optimizer, state, train, jnp.asarray(index))
        found = float(mean_nats(model, state[0], valid))
        if found < best.nats:
            best = Learned(state[0], found, int(share[-1]) + 1)
        on_look()
    if best.params is None:
        raise ValueError(
            "Expected finite densities in training, got none; lower --rate."
        )
    return best


def paths(
    setup: Setup,
    model: Any,
    params: Any,
    tracks: Sequence[Track],
    origins: Sequence[Origin],
    times: Float[np.ndarray, "H O"],
    draws: int,
    seed: int,
) -> Float[np.ndarray, "H O draws"]:
    """Returns sampled values after each origin, at the given times, sorted.

    Args:
      setup: How values are scaled, and how many a forecast reads.
      model: A sequence model, or a Markov model.
      params: Its parameters.
      tracks: The series.
      origins: Where forecasts are made.
      times: At which values are due, after each origin.
      draws: How many paths.
      seed: Of the paths.
    """
    pieces = [
        (o.track, max(0, o.at + 1 - setup.history), o.at + 1, o.at + 1) for o in origins
    ]
    sheet = sheet_of(tracks, pieces)
    now = np.array([tracks[o.track].times[o.at] for o in origins])
    last = np.array([tracks[o.track].values[o.at] for o in origins])
    since = np.diff(times, axis=0, prepend=now[None])
    inputs = jnp.asarray(inputs_at(setup, times, since), jnp.float32)
    z = _sample(model, draws, params, sheet, inputs, jax.random.key(seed))
    drawn = np.asarray(z).reshape(len(times), len(origins), draws)
    return np.sort(restored(setup, drawn, last[:, None]), axis=-1)


@functools.partial(jax.jit, static_argnames=("model", "draws"))
def _sample(
    model: Any, draws: int, params: Any, sheet: Sheet, inputs: Array, key: Array
) -> Float[Array, "H paths"]:
    reads = getattr(model, "inputs", 0)
    known = {"inputs": sheet.inputs} if reads else {}
    state, _ = model.log_prob(params, sheet.z, lengths=sheet.lengths, **known)
    batched = 1 if isinstance(model, jrnn.models.LinearGaussianMarkov) else 0
    each = jax.tree.map(lambda a: jnp.repeat(a, draws, axis=batched), state)
    ahead = {"inputs": jnp.repeat(inputs, draws, axis=1)} if reads else {}
    return model.sample(params, key, len(inputs), state=each, **ahead)
