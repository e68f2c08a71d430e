r"""Generated tasks that tell recurrent cells apart: parity, recall, copying.

Each is a pure function of a key: equal keys give equal batches, and a new key gives
data that nobody has seen. Time is axis 0, as everywhere in jrnn.

What each asks of a state:

- Parity, one bit that every 1 turns over. A diagonal recurrence that is linear in its
  state, h_t = a(x_t) * h_{t-1} + b(x_t), keeps it over any length only where a(x_t) may
  be negative for one input and positive for another (R. Grazzi et al. 2024, Unlocking
  state-tracking in linear RNNs through negative eigenvalues,
  https://arxiv.org/abs/2411.12537; Y. Sarrof et al. 2024, The expressive capacity of
  state space models, https://arxiv.org/abs/2405.17394). It can still count the ones, up
  to a length, and leave the rest to the output layer.
- Recall: an association of what stands side by side, and a lookup.
- Copying: as many bits as there are, for as long as is asked.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num


class Batch(NamedTuple):
    """One batch of B sequences of T steps.

    Attributes:
      xs: Token ids (T, B), int32, or features (T, B, k), float32.
      targets: Classes (T, B), or bits (T, B, m), int32; 0 where nothing is asked.
      asked: Whether the step has a target.
    """

    xs: Num[Array, "T B ..."]
    targets: Int[Array, "T B ..."]
    asked: Bool[Array, "T B"]


def parity(key: Array, batch: int, length: int = 40) -> Batch:
    """Draws bits x_t, fair and independent; the target is their sum so far, modulo 2.

    Whoever has lost the state is right half of the time: chance is 1/2, at every step
    but the first.

    Args:
      key: Of the draw.
      batch: B, the number of sequences.
      length: T, the number of steps, all of them asked.

    Returns:
      Token ids 0 and 1, (T, B), and targets 0 and 1, (T, B).
    """
    xs = jax.random.bernoulli(key, shape=(length, batch)).astype(jnp.int32)
    asked = jnp.ones((length, batch), bool)
    return Batch(xs, jnp.cumsum(xs, axis=0, dtype=jnp.int32) % 2, asked)


def recall(
    key: Array,
    batch: int,
    *,
    pairs: int = 4,
    keys: int = 8,
    values: int = 8,
    fillers: int = 4,
) -> Batch:
    """Draws key-value pairs, and then asks for the value of every key.

    Multi-query associative recall (S. Arora et al. 2023, Zoology,
    https://arxiv.org/abs/2312.04927), as ParaRNN has it: the pairs come first, key and
    value by turns; in as many steps again each of these keys stands once, in any order,
    among fillers that mean nothing. Where a key stands again, the target is its value.

    A guess among all values is right one time in `values`; a guess among the sequence's
    own, by one who has lost whose they are, one time in `pairs`: that is chance.

    Args:
      key: Of the draw.
      batch: B, the number of sequences.
      pairs: How many are to be kept, with distinct keys and distinct values.
      keys: How many keys there are; ids 0 and up.
      values: How many values there are; ids `keys` and up, classes 0 and up.
      fillers: How many fillers there are; ids `keys + values` and up.

    Returns:
      Token ids (4 pairs, B), and classes (4 pairs, B).

    Raises:
      ValueError: There are fewer keys or values than pairs.
    """
    if min(keys, values) < pairs:
        raise ValueError(
            f"Expected at least {pairs} keys and values, for all of a sequence's are "
            f"distinct, got {keys} and {values}."
        )
    key_k, key_v, key_f, key_q = jax.random.split(key, 4)
    own_keys = _distinct(key_k, batch, keys)[:pairs]
    own_values = _distinct(key_v, batch, values)[:pairs]
    stored = jnp.stack([own_keys, own_values + keys], axis=1).reshape(2 * pairs, batch)
    first = keys + values
    noise = jax.random.randint(
        key_f, (pairs, batch), first, first + fillers, dtype=jnp.int32
    )
    # The second half is the own keys and the noise, in an order drawn anew.
    order = _distinct(key_q, batch, 2 * pairs)
    later = jnp.take_along_axis(jnp.concatenate([own_keys, noise]), order, axis=0)
    padded = jnp.concatenate([own_values, jnp.zeros_like(own_values)])
    answers = jnp.take_along_axis(padded, order, axis=0)
    return Batch(
        xs=jnp.concatenate([stored, later]),
        targets=jnp.concatenate([jnp.zeros_like(stored), answers]),
        asked=jnp.concatenate([jnp.zeros_like(stored, bool), order < pairs]),
    )


def copy(
    key: Array, batch: int, *, pattern: int = 20, bits: int = 7, delay: int = 8
) -> Batch:
    """Draws a pattern of fair bits, to be shown again after a delay.

    The pattern, the delay, and a cue at the first of as many steps as the pattern has:
    at these the targets are its bits, in order. The sizes are those of minimal-LRU
    (https://github.com/NicolasZucchet/minimal-LRU) and of the copy task of N. Zucchet
    et al. 2023, Online learning of long-range dependencies,
    https://arxiv.org/abs/2305.15947.

    Chance is 1/2, for every bit.

    Args:
      key: Of the draw.
      batch: B, the number of sequences.
      pattern: How many steps are to be copied.
      bits: How many bits each has.
      delay: How many empty steps come between.

    Returns:
      Features (2 pattern + delay, B, bits + 1): a bit is -1 or 1, the last feature is
      the cue; all are 0 where there is nothing. And the bits, 0 and 1, as targets
      (2 pattern + delay, B, bits).
    """
    drawn = jax.random.bernoulli(key, shape=(pattern, batch, bits)).astype(jnp.int32)
    empty = jnp.zeros((delay + pattern, batch, bits), jnp.int32)
    shown = jnp.concatenate([2 * drawn - 1, empty]).astype(jnp.float32)
    steps = jnp.arange(2 * pattern + delay, dtype=jnp.int32)
    cue = (steps == pattern + delay).astype(jnp.float32)
    cue = jnp.broadcast_to(cue[:, None, None], (*shown.shape[:2], 1))
    asked = jnp.broadcast_to((steps >= pattern + delay)[:, None], shown.shape[:2])
    return Batch(
        xs=jnp.concatenate([shown, cue], axis=-1),
        targets=jnp.concatenate([empty, drawn]),
        asked=asked,
    )


def _distinct(key: Array, batch: int, size: int) -> Int[Array, "size B"]:
    """Returns for each sequence an order of 0..size-1, all equally likely."""
    return jnp.argsort(
        jax.random.uniform(key, (size, batch), jnp.float32), axis=0
    ).astype(jnp.int32)
