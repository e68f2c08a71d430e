"""Where a sequence repeats another exactly: there a model need only copy.

A few long repeats, such as the genes of ribosomes and what moves about in a genome, can
move the mean over a whole part; so bits are told apart for them and for the rest.
"""

import numpy as np
from jaxtyping import Bool, Int

from experiments.data.genome import reverse_complement
from experiments.dna.strands import BASES

# Of 2 bits each, in a number of 64 bits.
LONGEST = 31


def in_repeats(
    known: Int[np.ndarray, " M"], bases: Int[np.ndarray, " N"], length: int
) -> Bool[np.ndarray, " N"]:
    """Returns which positions stand beside `length` bases that `known` holds, too.

    Bases before a position are what a model has read that reads this strand, those
    after it what it has read on the other; either will do, and so will either strand
    of `known`. The position's own base is not looked at. By chance a string of 24 bases
    is one of the 4 million that a training part holds with a probability of 1e-8.

    Args:
      known: What is repeated, codes 0 to 3.
      bases: Where repeats are looked for.
      length: Bases of the shortest repeat.

    Raises:
      ValueError: A length beyond 1 to 31.

    >>> in_repeats(np.array([0, 0, 1, 2]), np.array([3, 0, 1, 2, 2, 3]), 3).tolist()
    [True, False, False, False, True, False]
    """
    if not 1 <= length <= LONGEST:
        raise ValueError(f"Expected a length of 1 to {LONGEST}, got {length}.")
    both = [_strings(strand, length) for strand in (known, reverse_complement(known))]
    held = np.isin(_strings(bases, length), np.concatenate(both))
    beside = np.zeros(len(bases), bool)
    starts = np.flatnonzero(held)
    beside[(starts + length)[starts + length < len(bases)]] = True
    beside[starts[starts > 0] - 1] = True
    return beside


def _strings(bases: np.ndarray, length: int) -> np.ndarray:
    """Returns each string of `length` bases as a number, by where it starts."""
    count = max(len(bases) - length + 1, 0)
    found = np.zeros(count, np.uint64)
    for offset in range(length):
        new = bases[offset : offset + count].astype(np.uint64)
        found = found * np.uint64(BASES) + new
    return found
