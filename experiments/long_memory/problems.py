"""The tasks, when each counts as solved, what a constant answer costs, what was said.

adding          a number at the end           solved: mean squared error < 0.01
copy            a class at each step          solved: loss < a tenth of the baseline
order_6a, 6b    a class at the own last step  solved: 2,000 right in a row
pixels, permuted_pixels    the same           no threshold: the share of errors
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from experiments import _long_tasks
from experiments._long_tasks import Sequences
from experiments.data import pixel_digits

NUMBER, LAST, EACH = "a number", "a class at the end", "a class at each step"
# Hochreiter and Schmidhuber's bound on every output of a sequence in order 6a and 6b.
OFF = 0.3


class Problem(NamedTuple):
    """A task of one length.

    Attributes:
      name: Of the task.
      length: T, as the task counts it.
      steps: How many steps its sequences have at most.
      inputs: Token ids, or features.
      outputs: Numbers or classes.
      tokens: Whether the inputs are token ids.
      asks: What is asked for: NUMBER, LAST or EACH.
      draw: (key, B, data) -> Sequences to train on.
      fresh: (key, i, B, data) -> the i-th batch of those to evaluate on.
      baseline: Loss of the best answer that knows nothing of the sequence.
      measure: What has to fall for success, "loss" or "wrong"; None: no threshold.
      threshold: Below which it has to be.
      data: Part -> arrays that are drawn from; none for what is generated.
    """

    name: str
    length: int
    steps: int
    inputs: int
    outputs: int
    tokens: bool
    asks: str
    draw: Callable[[Array, int, Any], Sequences]
    fresh: Callable[[Array, Array, int, Any], Sequences]
    baseline: float
    measure: str | None
    threshold: float
    data: Callable[[str], Any]


class Published(NamedTuple):
    """What others report; None: not told, or not in these units."""

    task: str
    length: int
    by: str
    sequences: int | None
    loss: float | None


_HS = "LSTM, Hochreiter & Schmidhuber 1997"
_TCN = "TCN, Bai et al. 2018"
# https://doi.org/10.1162/neco.1997.9.8.1735: means over their trials, by a stopping
# rule and a form of the adding problem that `_long_tasks` tells. Bai et al.,
# https://arxiv.org/abs/1803.01271: final losses of a convolutional network.
PUBLISHED = (
    Published("adding", 100, _HS, 74_000, None),
    Published("adding", 500, _HS, 209_000, None),
    Published("adding", 600, _TCN, None, 5.8e-5),
    Published("adding", 1000, _HS, 853_000, None),
    Published("copy", 1000, _TCN, None, 3.5e-5),
    Published("order_6a", 110, _HS, 31_390, None),
    Published("order_6b", 110, _HS, 571_100, None),
)
# Task -> the lengths of the full table.
LENGTHS = {
    "adding": (100, 500, 1000),
    "copy": (100, 200, 1000),
    "order_6a": (110,),
    "order_6b": (110,),
    "pixels": (784,),
    "permuted_pixels": (784,),
}


def problem(name: str, length: int) -> Problem:
    """Returns the task of that name and length.

    Raises:
      ValueError: There is no such task, or it has another length.
    """
    if name not in LENGTHS:
        raise ValueError(f"Expected a task of {', '.join(LENGTHS)}, got {name!r}.")
    fixed = LENGTHS[name][0]
    if name not in ("adding", "copy") and length != fixed:
        raise ValueError(f"Expected length {fixed} of {name}, got {length}.")
    if length < 2:
        raise ValueError(f"Expected a length of 2 or more, got {length}.")
    if name == "adding":
        return _adding(length)
    if name == "copy":
        return _copy(length)
    if name.startswith("order"):
        return _order(name, 2 if name == "order_6a" else 3)
    return _pixels(name)


def _generated(draw: Callable[[Array, int], Sequences]) -> tuple[Callable, Callable]:
    """Returns `draw` and `fresh` of a task that is nothing but a function of a key."""

    def of_key(key: Array, batch: int, data: tuple[()]) -> Sequences:
        del data
        return draw(key, batch)

    def fresh(key: Array, i: Array, batch: int, data: tuple[()]) -> Sequences:
        del data
        return draw(jax.random.fold_in(key, i), batch)

    return of_key, fresh


def _no_data(part: str) -> tuple[()]:
    del part
    return ()


def _adding(length: int) -> Problem:
    draws = _generated(lambda key, batch: _long_tasks.adding(key, batch, length))
    own = ("adding", length, length, 2, 1, False, NUMBER)
    return Problem(*own, *draws, 1 / 6, "loss", 0.01, _no_data)


def _copy(length: int) -> Problem:
    draws = _generated(lambda key, batch: _long_tasks.copy_symbols(key, batch, length))
    steps, level = length + 2 * _long_tasks.PATTERN, _long_tasks.copy_baseline(length)
    symbols = _long_tasks.SYMBOLS
    own = ("copy", length, steps, symbols + 2, symbols + 1, True, EACH)
    return Problem(*own, *draws, level, "loss", level / 10, _no_data)


def _order(name: str, relevant: int) -> Problem:
    draws = _generated(
        lambda key, batch: _long_tasks.temporal_order(key, batch, relevant)
    )
    steps, classes = _long_tasks.LENGTHS[1], 2**relevant
    own = (name, steps, steps, 8, classes, True, LAST)
    # None wrong: below any share that can be counted.
    return Problem(*own, *draws, math.log(classes), "wrong", 1e-9, _no_data)


def _pixels(name: str) -> Problem:
    steps = pixel_digits.PIXELS
    data = functools.partial(_pixel_part, name == "permuted_pixels")
    own = (name, steps, steps, 1, 10, False, LAST)
    return Problem(*own, _draw_pixels, _pixels_in_order, math.log(10), None, 0.0, data)


@functools.cache
def _parts(permuted: bool) -> dict[str, pixel_digits.Pixels]:
    return pixel_digits.load_pixels(permuted)


def _pixel_part(permuted: bool, part: str) -> Any:
    return jax.tree.map(jnp.asarray, _parts(permuted)[part])


def _draw_pixels(key: Array, batch: int, data: Any) -> Sequences:
    """Draws images of a part, with replacement."""
    rows = jax.random.randint(key, (batch,), 0, len(data.labels), jnp.int32)
    return _as_sequences(rows, data)


def _pixels_in_order(key: Array, i: Array, batch: int, data: Any) -> Sequences:
    """Returns the i-th images of a part, each once before the first comes again."""
    del key
    first = jnp.asarray(i, jnp.int32) * batch + jnp.arange(batch, dtype=jnp.int32)
    return _as_sequences(first % len(data.labels), data)


def _as_sequences(rows: Array, data: Any) -> Sequences:
    lengths = jnp.full(rows.shape, data.images.shape[1], jnp.int32)
    return Sequences(data.images[rows].T[..., None], data.labels[rows], lengths)


def scores(own: Problem, outputs: Array, batch: Sequences) -> tuple[Array, Array]:
    """Returns the loss, and the share that is wrong, of a batch.

    What is not a number is wrong.

    Args:
      own: The task.
      outputs: Numbers or logits, (B, v), or (T, B, v) where each step is asked.
      batch: What was asked.

    Returns:
      Mean squared error or mean cross-entropy in nats; and the share of the numbers off
      by more than 0.04, of the copied symbols that are wrong, of the sequences not
      processed correctly, or of the images called another digit.
    """
    if own.asks == NUMBER:
        error = outputs[..., 0] - batch.targets
        return jnp.mean(error**2), _share(~(jnp.abs(error) <= 0.04))
    logs = jax.nn.log_softmax(outputs)
    chosen = jnp.take_along_axis(logs, batch.targets[..., None], axis=-1)[..., 0]
    if own.asks == EACH:
        wrong = outputs.argmax(axis=-1).astype(jnp.int32) != batch.targets
        wrong = wrong[-_long_tasks.PATTERN :]
    elif own.measure == "wrong":
        ones = jax.nn.one_hot(batch.targets, own.outputs, dtype=jnp.float32)
        wrong = ~(jnp.max(jnp.abs(jnp.exp(logs) - ones), axis=-1) < OFF)
    else:
        wrong = outputs.argmax(axis=-1).astype(jnp.int32) != batch.targets
    return -jnp.mean(chosen), _share(wrong)


def _share(wrong: Array) -> Array:
    return jnp.mean(wrong, dtype=jnp.float32)
