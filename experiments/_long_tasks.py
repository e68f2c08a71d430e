r"""Generated tasks that ask for a long memory: adding, copying symbols, temporal order.

Each is a pure function of a key: equal keys give equal batches, and a new key gives
data that nobody has seen. Time is axis 0. `experiments.tasks` has another kind of
copying, of bits, whose steps between pattern and answer are few.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Num

SYMBOLS = 8  # of the copying task: ids 0..7
PATTERN = 10  # symbols to be copied
BLANK, DELIMITER = SYMBOLS, SYMBOLS + 1
# Temporal order: the sequence begins with E and ends with B, a to d distract.
START, END, X, Y, DISTRACTORS = 0, 1, 2, 3, (4, 8)
# Where the relevant symbols stand (first, last step that is possible), for two
# (experiment 6a) and for three of them (6b); the length lies in the same closed way.
PLACES = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}
LENGTHS = (100, 110)


class Sequences(NamedTuple):
    """One batch of B sequences.

    Attributes:
      xs: Token ids (T, B), int32, or features (T, B, k), float32.
      targets: A number or a class per sequence, (B,), or a class per step, (T, B).
      lengths: Steps of each sequence, (B,); what stands behind them is padding.
    """

    xs: Num[Array, "T B ..."]
    targets: Num[Array, "... B"]
    lengths: Int[Array, " B"]


def adding(
    key: Array, batch: int, length: int, places: DTypeLike = jnp.int32
) -> Sequences:
    """Draws numbers, two of which are marked; the target is the sum of these two.

    The form of Le et al. (2015) and Arjovsky et al. (2016): numbers uniform in [0, 1),
    one marker in the first half and one in the second, anywhere, all lengths equal. The
    best constant answer is 1, whose mean squared error is the variance of the sum,
    2 / 12 = 1/6; solved is called a mean squared error below 0.01.

    The older form of Hochreiter and Schmidhuber (1997, experiment 4) has numbers in
    [-1, 1], a first marker among the first ten steps and a second before T / 2, lengths
    from T to 1.1 T, and the target 1/2 + (X_1 + X_2) / 4; it calls the task solved when
    2,000 sequences in a row err by less than 0.04.

    Args:
      key: Of the draw.
      batch: B, the number of sequences.
      length: T, at least 2.
      places: The integers that markers are drawn as: int64 takes other bits of the key
        than int32, and so draws other places.

    Returns:
      Features (T, B, 2), a number and its marker 0 or 1; and sums (B,).

    Source: https://arxiv.org/abs/1504.00941, section 4.1;
    https://arxiv.org/abs/1511.06464, section 5.2.
    """
    key_x, key_1, key_2 = jax.random.split(key, 3)
    half = length // 2
    numbers = jax.random.uniform(key_x, (length, batch), jnp.float32)
    first = jax.random.randint(key_1, (batch,), 0, half, places)
    second = jax.random.randint(key_2, (batch,), half, length, places)
    steps = jnp.arange(length, dtype=places)[:, None]
    marked = (steps == first[None]) | (steps == second[None])
    marks = marked.astype(jnp.float32)
    return Sequences(
        xs=jnp.stack([numbers, marks], axis=-1),
        targets=(numbers * marks).sum(axis=0),
        lengths=jnp.full((batch,), length, jnp.int32),
    )


def copy_symbols(key: Array, batch: int, delay: int) -> Sequences:
    """Draws ten symbols out of eight, to be shown again after a delay.

    The form of Arjovsky et al. (2016): ten symbols, T - 1 blanks, a delimiter, ten
    blanks, T + 20 steps in all; the target is blank for the first T + 10 steps, then
    the ten symbols. Whoever has lost them answers blank and then guesses among eight:
    the mean cross-entropy over all steps is 10 ln 8 / (T + 20), `copy_baseline`.

    Args:
      key: Of the draw.
      batch: B, the number of sequences.
      delay: T, at least 1.

    Returns:
      Token ids (T + 20, B), of ten kinds, and classes (T + 20, B), of nine.

    Source: https://arxiv.org/abs/1511.06464, section 5.1.
    """
    symbols = jax.random.randint(key, (PATTERN, batch), 0, SYMBOLS, jnp.int32)
    blanks = lambda steps: jnp.full((steps, batch), BLANK, jnp.int32)
    cue = jnp.full((1, batch), DELIMITER, jnp.int32)
    return Sequences(
        xs=jnp.concatenate([symbols, blanks(delay - 1), cue, blanks(PATTERN)]),
        targets=jnp.concatenate([blanks(delay + PATTERN), symbols]),
        lengths=jnp.full((batch,), delay + 2 * PATTERN, jnp.int32),
    )


def copy_baseline(delay: int) -> float:
    """Returns 10 ln 8 / (T + 20), in nats: the loss of a memoryless copier.

    >>> round(copy_baseline(1000), 5)
    0.02039
    """
    return PATTERN * math.log(SYMBOLS) / (delay + 2 * PATTERN)


def temporal_order(key: Array, batch: int, relevant: int) -> Sequences:
    """Draws symbols, two or three of which are X or Y; the class is which, in order.

    Experiments 6a (two, four classes) and 6b (three, eight classes) of Hochreiter and
    Schmidhuber (1997). A sequence begins with E, ends with B, has 100 to 110 steps, and
    holds a, b, c or d at all other steps. Of two, the relevant symbols stand at a step
    from 10 to 20 and at one from 50 to 60; of three at 10 to 20, 33 to 43, 66 to 76.
    The class is read at B. A sequence is processed correctly when no output is off by
    0.3 or more; solved is called a network that does so 2,000 times in a row.

    Args:
      key: Of the draw.
      batch: B, the number of sequences.
      relevant: 2 or 3.

    Returns:
      Token ids (110, B), of eight kinds; and classes (B,), X counting 0 and Y 1, the
      first symbol most.

    Source: https://doi.org/10.1162/neco.1997.9.8.1735, section 5.6.
    """
    key_l, key_d, key_s, key_p = jax.random.split(key, 4)
    low, high = LENGTHS
    lengths = jax.random.randint(key_l, (batch,), low, high + 1, jnp.int32)
    steps = jnp.arange(high, dtype=jnp.int32)[:, None]
    xs = jax.random.randint(key_d, (high, batch), *DISTRACTORS, jnp.int32)
    which = jax.random.bernoulli(key_s, shape=(relevant, batch)).astype(jnp.int32)
    classes = jnp.zeros((batch,), jnp.int32)
    keys = jax.random.split(key_p, relevant)
    for drawn, chosen, (first, last) in zip(keys, which, PLACES[relevant], strict=True):
        # Steps are counted from 1, as in the paper.
        at = jax.random.randint(drawn, (batch,), first, last + 1, jnp.int32) - 1
        xs = jnp.where(steps == at[None], jnp.where(chosen == 0, X, Y)[None], xs)
        classes = 2 * classes + chosen
    xs = xs.at[0].set(START)
    ends = steps == lengths[None] - 1
    return Sequences(jnp.where(ends, END, xs).astype(jnp.int32), classes, lengths)
