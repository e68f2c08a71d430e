r"""What a network must beat: Markov chains of every order, their mixture, and lzma.

A chain counts both strands of the training part together. Over four letters a context
of 12 bases is seen too seldom for the smoothing that suits text, so each order takes
its own weight w of the orders below, by the validation part.

The mixture weighs chains anew at each base by how well they have done of late, as
compressors made for DNA do:

    P(x_t) = sum_k w_kt P_k(x_t),    w_{k,t+1} ~ w_kt^gamma P_k(x_t),    0 < gamma <= 1

The weights at t know x_1..x_{t-1} alone, so it is a code; gamma is chosen by the
validation part. Such mixtures of context models: M. Silva, D. Pratas and A. Pinho,
GigaScience 9 (2020), https://doi.org/10.1093/gigascience/giaa119.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jrnn
from experiments.data.genome import decode, reverse_complement
from experiments.dna.strands import BASES, both_strands, code_lengths
from experiments.lab import compressors


class Mixture(NamedTuple):
    """What a mixture remembers, and its bits per base on validation."""

    gamma: float
    valid: float


class Chain(NamedTuple):
    """A Markov chain, and the smoothing that validation chose."""

    order: int
    smoothing: float
    valid: float


def fit_chains(train: np.ndarray, largest: int) -> Any:
    """Returns the counts of every order up to `largest`, both strands together."""
    return jrnn.markov_chain(BASES, largest).fit(both_strands(train))


def chain_log_probs(
    levels: Any, order: int, smoothing: float, bases: np.ndarray
) -> Float[np.ndarray, "N 2"]:
    """Returns log P of every base on both strands, nats, by a chain of one order."""
    chain = jrnn.markov_chain(BASES, order, smoothing)
    strands = jnp.asarray(both_strands(bases))
    return np.asarray(chain.log_prob(levels[: order + 1], strands)[1])


def choose_smoothing(
    levels: Any,
    order: int,
    grid: Sequence[float],
    valid: np.ndarray,
    done: Callable[[], object],
) -> Chain:
    """Returns the chain that does best on validation."""
    tried = []
    for smoothing in grid:
        log_probs = chain_log_probs(levels, order, smoothing, valid)
        tried.append(Chain(order, smoothing, float(code_lengths(log_probs).mean())))
        done()
    return min(tried, key=lambda chain: chain.valid)


def mix(
    log_probs: Float[np.ndarray, "K N 2"], gamma: float
) -> Float[np.ndarray, "N 2"]:
    """Returns log P of the mixture of K models, each strand a sequence of its own."""
    by_base = jnp.moveaxis(jnp.asarray(log_probs), 0, -1)
    return np.asarray(_mix(by_base, jnp.asarray(gamma, by_base.dtype)))


@jax.jit
def _mix(log_probs: Float[Array, "N 2 K"], gamma: Array) -> Float[Array, "N 2"]:
    def step(log_w: Array, log_p: Array) -> tuple[Array, Array]:
        joint = log_w + log_p
        mixed = jax.nn.logsumexp(joint, axis=-1)
        # w^gamma P, scaled to sum to 1 before the next base is seen
        return jax.nn.log_softmax(gamma * log_w + log_p, axis=-1), mixed

    models = log_probs.shape[-1]
    even = jnp.full(log_probs.shape[1:], -np.log(models), log_probs.dtype)
    return jax.lax.scan(step, even, log_probs)[1]


def choose_gamma(
    log_probs: Float[np.ndarray, "K N 2"], grid: Sequence[float]
) -> Mixture:
    """Returns the mixture that does best on validation."""
    bits = lambda gamma: float(code_lengths(mix(log_probs, gamma)).mean())
    return min((Mixture(gamma, bits(gamma)) for gamma in grid), key=lambda m: m.valid)


def lzma_bits(train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Returns bits per base of LZMA2, one letter a byte.

    Returns:
      "alone": the test part by itself. "primed": what it adds once LZMA has read the
      training part and its other strand, as a chain has.
    """
    new, seen = decode(test), decode(train) + decode(reverse_complement(train))
    size = compressors.lzma_size
    primed = compressors.added(size, seen, new)
    return {"alone": 8 * size(new) / len(test), "primed": 8 * primed / len(test)}
