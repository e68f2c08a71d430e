"""Training, validation and test parts one after the other, with a gap between them.

A part is a slice, so that a window that is cut out of it touches no other part. The gap
keeps what stands on both sides of a cut from being nearly the same: it lies in no
part, and a model may read it, as all that came before, to warm up its state.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Parts(NamedTuple):
    """Where each part lies: slices of the first axis, in this order."""

    train: slice
    valid: slice
    test: slice


def cut(
    length: int, gap: int, percent: tuple[int, int, int], circular: bool = False
) -> Parts:
    """Returns parts in the order of time or position, `gap` entries apart.

    Args:
      length: Of the whole.
      gap: Entries between two parts that belong to neither.
      percent: Of what the gaps leave, for training, validation and test.
      circular: Whether the last entry has the first for a neighbour: then a third gap
        stands at the end.

    Raises:
      ValueError: Percentages that do not sum to 100, or a part without entries.

    >>> [(part.start, part.stop) for part in cut(104, 2, (80, 10, 10))]
    [(0, 80), (82, 92), (94, 104)]
    """
    if sum(percent) != 100:
        raise ValueError(f"Expected percentages that sum to 100, got {percent}.")
    usable = length - (3 if circular else 2) * gap
    train, valid = (usable * p // 100 for p in percent[:2])
    test = usable - train - valid
    if min(train, valid, test) < 1:
        raise ValueError(
            f"Expected entries for every part, got {length} in all and gaps of {gap}. "
            "Give a longer series or a shorter gap."
        )
    second = train + gap
    third = second + valid + gap
    return Parts(
        slice(0, train), slice(second, second + valid), slice(third, third + test)
    )


def lengths(parts: Parts) -> dict[str, int]:
    """Returns the number of entries of each part."""
    return {k: v.stop - v.start for k, v in parts._asdict().items()}


def in_words(percent: tuple[int, ...]) -> str:
    """Returns shares as a card has them.

    >>> in_words((80, 10, 10))
    '80/10/10'
    """
    return "/".join(map(str, percent))


def in_order(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns indices of parts that stand one after the other, without a gap.

    >>> {part: own.tolist() for part, own in in_order({"a": 2, "b": 1}).items()}
    {'a': [0, 1], 'b': [2]}
    """
    ends = np.cumsum(list(sizes.values()))
    pieces = np.split(np.arange(ends[-1]), ends[:-1])
    return dict(zip(sizes, pieces, strict=True))
