r"""Both strands of DNA: one code length per base, and intervals from blocks of bases.

The other strand of x is its reverse complement rc(x). A model P of one strand gives two
codes of the same stretch: it reads x, or it reads rc(x). Each is proper, for rc is
one to one, so that both P(x) and P(rc(x)) sum to 1 over all x of that length. So is
their even mixture, and by Jensen's inequality

    -log2 (P(x) + P(rc(x))) / 2  <=  (-log2 P(x) - log2 P(rc(x))) / 2

The right-hand side, the mean over both strands, is what is reported here for every
model: an upper bound of the length of a proper code, in which each base has a share.
It is above the mixture's own length by half the difference of the two strands, less
at most one bit for the whole stretch. (To average the two probabilities base by base
is no code: together they have read all bases but one.)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.genome import reverse_complement
from experiments.lab import intervals
from experiments.lab.intervals import Groups

BASES = 4
RESAMPLINGS = 2_000


class Interval(NamedTuple):
    """An estimate, and the 95% interval of a block bootstrap."""

    value: float
    low: float
    high: float


def both_strands(bases: np.ndarray) -> Int[np.ndarray, "N 2"]:
    """Returns each strand from its own 5' to its 3' end, side by side.

    >>> both_strands(np.array([0, 0, 1], np.int8)).T.tolist()
    [[0, 0, 1], [2, 3, 3]]
    """
    return np.stack([bases, reverse_complement(bases)], axis=1).astype(np.int32)


def in_place(by_strand: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """Returns numbers of both strands where their bases lie on the first.

    >>> in_place(np.array([[1.0, 4.0], [2.0, 5.0]])).tolist()
    [[1.0, 5.0], [2.0, 4.0]]
    """
    return np.stack([by_strand[:, 0], by_strand[::-1, 1]], axis=1)


def code_lengths(log_probs: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, " N"]:
    """Returns bits per base, the mean over both strands, from log P in nats."""
    return -in_place(np.asarray(log_probs, np.float64)).mean(axis=1) / np.log(2)


def blocks(length: int, block: int, seed: int = 0) -> Groups:
    """Returns draws of blocks of bases; a short one at the end joins the last.

    Blocks must be longer than neighbours resemble each other: here, than most genes.
    Equal seeds draw the same blocks, whatever the values.

    Raises:
      ValueError: Fewer than two blocks.

    >>> blocks(7, 3).of.tolist()
    [0, 0, 0, 1, 1, 1, 1]
    """
    if length < 2 * block:
        raise ValueError(
            f"Expected at least two blocks of {block} bases for an interval, got "
            f"{length} bases; choose a shorter --block."
        )
    count = length // block
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLINGS, count))
    times = np.stack([np.bincount(row, minlength=count) for row in drawn])
    return Groups(np.minimum(np.arange(length) // block, count - 1), times)


def mean_interval(
    values: Float[np.ndarray, " N"],
    drawn: Groups,
    among: Bool[np.ndarray, " N"] | None = None,
) -> Interval:
    """Returns the mean of what neighbours share, and its interval by resampling blocks.

    Args:
      values: One number per base, such as bits, or a difference of bits.
      drawn: Of `blocks`.
      among: Which values count, some in nearly every block; None: all.
    """
    own = np.ones(len(values), bool) if among is None else among
    return interval(float(values[own].mean()), drawn.means(values, own))


def interval(value: float, resampled: Float[np.ndarray, " R"]) -> Interval:
    """Returns the percentile interval of resampled estimates."""
    return Interval(value, *intervals.middle(resampled))
