"""Four models of spoken digits, and how each is trained and scored.

Three are networks around a GRU, one counts frames in no order; all are trained alike:
Adam on -log P(digit), and the parameters that did best on the validation part.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import jrnn
from experiments import lab
from experiments.data.spoken_digits import Digits, Split
from experiments.lab import training
from jrnn import train

LENGTHS, PADDED = "GRU both ways, lengths", "GRU both ways, padded"
FORWARD, BAG = "GRU forwards, lengths", "bag of frames"

# Where lengths are given, a batch is padded to the first of these that holds it, for
# speed alone; nineteen in twenty utterances have 27 frames or fewer.
BOUNDS = (16, 24, 40)
# Batches are cut from this many batches' worth of utterances in order of length.
SORTED_TOGETHER = 8
# Added to a variance, so that its root has a derivative where all frames are equal.
LEAST_VARIANCE = 1e-6


class Classifier(NamedTuple):
    """A model of digits.

    Attributes:
      init: key -> params.
      predict: (params, xs (T, B, k), lengths (B,)) -> log P(digit), (B, 10).
      padded: Whether it takes padding for sound, so that all batches need equal T.
      pace: Its learning rates are this many times the others'.
    """

    init: Callable[[Array], Any]
    predict: Callable[[Any, Array, Array], Array]
    padded: bool = False
    pace: float = 1.0


class Task(NamedTuple):
    """Normalised frames (N, T, k), what belongs to them, and the split."""

    frames: np.ndarray
    digits: Digits
    split: Split


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long and how a classifier is trained."""

    steps: lab.Count = 400
    """Training steps of each model."""
    batch: lab.Count = 64
    """Utterances per step."""
    clip: lab.Positive = 1.0
    """Largest norm of a gradient."""
    evaluations: lab.Count = 15
    """How often validation is looked at; the parameters that do best are kept."""


class Fitted(NamedTuple):
    """The parameters that did best on validation, and how they did there."""

    params: Any
    rate: float
    step: int
    nats: float
    accuracy: float


@functools.cache
def classifiers(inputs: int, hidden: int, digits: int = 10) -> dict[str, Classifier]:
    """Returns the models by name; equal arguments give the identical ones."""
    gru, head = jrnn.gru(inputs, hidden), jrnn.categorical(digits)
    pool, ways = jrnn.models.mean_pool, jrnn.bidirectional(gru, gru)
    both = jrnn.supervised_model(ways, head, pool)
    forward = jrnn.supervised_model(gru, head, pool)
    return {
        LENGTHS: Classifier(
            both.init, lambda p, xs, n: both.predict(p, xs, lengths=n).parameters
        ),
        PADDED: Classifier(
            both.init, lambda p, xs, _: both.predict(p, xs).parameters, padded=True
        ),
        FORWARD: Classifier(
            forward.init, lambda p, xs, n: forward.predict(p, xs, lengths=n).parameters
        ),
        BAG: Classifier(
            lambda key: head.init(key, 2 * inputs),
            lambda p, xs, n: head.predict(p, bag(xs, n)).parameters,
            pace=10.0,
        ),
    }


def bag(xs: Float[Array, "T B k"], lengths: Int[Array, " B"]) -> Float[Array, "B 2k"]:
    """Returns mean and deviation of each utterance's own frames, in no order."""
    steps = jnp.arange(xs.shape[0], dtype=lengths.dtype)
    own = (steps[:, None] < lengths[None])[..., None]
    count = lengths.astype(xs.dtype)[:, None]
    mean = jnp.where(own, xs, 0).sum(axis=0) / count
    variance = jnp.where(own, jnp.square(xs - mean[None]), 0).sum(axis=0) / count
    deviation = jnp.sqrt(variance + jnp.asarray(LEAST_VARIANCE, xs.dtype))
    return jnp.concatenate([mean, deviation], axis=1)


@functools.cache
def make_loss(classifier: Classifier) -> train.Loss:
    """Returns the mean over a batch of -log P(digit), in nats."""

    def loss(params: Any, batch: Any, carry: Any, key: Array) -> Any:
        del key
        xs, lengths, labels = batch
        log_p = classifier.predict(params, xs, lengths)
        return -jnp.take_along_axis(log_p, labels[:, None], 1).mean(), (carry, {})

    return loss


def batches(
    lengths: np.ndarray, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields indices without end, utterances of like lengths together."""
    size = min(size, len(lengths))
    together = SORTED_TOGETHER * size
    while True:
        order, cut = rng.permutation(len(lengths)), []
        for start in range(0, len(order), together):
            group = order[start : start + together]
            group = group[: len(group) // size * size]
            group = group[np.argsort(lengths[group], kind="stable")]
            cut += list(group.reshape(-1, size))
        yield from (cut[i] for i in rng.permutation(len(cut)))


def lay_out(frames: np.ndarray, steps: int) -> np.ndarray:
    """Returns frames (B, T, k) as (steps, B, k), cut or padded with zeros behind."""
    out = np.zeros((steps, len(frames), frames.shape[2]), frames.dtype)
    known = min(steps, frames.shape[1])
    out[:known] = frames[:, :known].swapaxes(0, 1)
    return out


def fit(
    classifier: Classifier,
    task: Task,
    rate: float,
    seed: int,
    recipe: Recipe,
    on_step: Callable[[], object] = lambda: None,
) -> Fitted:
    """Trains on the training part and stops by the validation part.

    Args:
      classifier: One of `classifiers`.
      task: Its test part is not touched.
      rate: Adam's, at the first step.
      seed: Of weights and batches.
      recipe: How long and how.
      on_step: Called after each step.
    """
    frames, digits, split = task
    key_init, key_run = jax.random.split(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    drawn = batches(digits.lengths[split.train], recipe.batch, rng)
    lots = (split.train[lot] for lot in itertools.islice(drawn, recipe.steps))

    def valid(params: Any) -> tuple[np.ndarray, float]:
        log_p = predict(classifier, params, task, split.valid)
        return score(log_p, digits.labels[split.valid])

    best = training.train(
        make_loss(classifier),
        _optimizer(rate, recipe.steps, recipe.clip),
        classifier.init(key_init),
        key_run,
        ((False, _batch(classifier, frames, digits, lot)) for lot in lots),
        lambda params: valid(params)[1],
        training.every(max(1, recipe.steps // recipe.evaluations), recipe.steps),
        on_step=lambda _: on_step(),
    )
    found = best.params is not None  # no step was good where every loss was NaN
    accuracy = float(valid(best.params)[0].mean()) if found else 0.0
    return Fitted(best.params, rate, best.step, best.score, accuracy)


@functools.cache
def _optimizer(rate: float, steps: int, clip: float) -> optax.GradientTransformation:
    """Returns Adam under a cosine that falls to 0, behind a clipped gradient."""
    schedule = optax.cosine_decay_schedule(rate, steps)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(schedule))


def _batch(
    classifier: Classifier, frames: np.ndarray, digits: Digits, chosen: np.ndarray
) -> Any:
    lengths, steps = digits.lengths[chosen], frames.shape[1]
    if not classifier.padded:
        steps = min(b for b in (*BOUNDS, steps) if b >= lengths.max())
    batch = (lay_out(frames[chosen], steps), lengths, digits.labels[chosen])
    return jax.tree.map(jnp.asarray, batch)


@functools.partial(jax.jit, static_argnames="classifier")
def _predict(classifier: Classifier, params: Any, xs: Array, lengths: Array) -> Array:
    return classifier.predict(params, xs, lengths)


def predict(
    classifier: Classifier,
    params: Any,
    task: Task,
    part: np.ndarray,
    padded_to: int | None = None,
) -> np.ndarray:
    """Returns log P(digit) of a part, (n, 10), padded to the longest or as told."""
    xs = lay_out(task.frames[part], padded_to or task.frames.shape[1])
    lengths = jnp.asarray(task.digits.lengths[part])
    return np.asarray(_predict(classifier, params, jnp.asarray(xs), lengths))


def score(log_p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns which predictions are right, and the mean of -log P(digit)."""
    nats = -float(log_p[np.arange(len(labels)), labels].mean())
    return log_p.argmax(axis=1) == labels, nats
