r"""Pads sequences of unequal length into batches of few shapes (bucketing).

Every new shape costs a compilation, and every padded step a useless computation; a few
lengths to pad to (buckets) keep both small. This runs on the host, in NumPy, before
anything is jitted.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from jrnn.core.arguments import check_size, tell


class PaddedBatch(NamedTuple):
    """A batch of sequences, time first, padded with zeros.

    Attributes:
      xs: (T, B, ...), T one of the bounds.
      lengths: (B,), int32; 0 for an empty column.
      members: (B,), int32: the index of each column's sequence; -1 for an empty column.
    """

    xs: Shaped[np.ndarray, "T B ..."]
    lengths: Int[np.ndarray, " B"]
    members: Int[np.ndarray, " B"]


def bucket_bounds(lengths: Sequence[int], count: int) -> tuple[int, ...]:
    r"""Returns the `count` lengths to pad to that waste the fewest steps.

    .. math:: \min_{b_1 < \dots < b_k} \sum_i \min \{ b_j : b_j \ge l_i \} - l_i

    The minimum is exact, by dynamic programming over the distinct lengths, in
    O(count * distinct^2).

    Args:
      lengths: The lengths of the sequences, each at least 0.
      count: The maximum number of bounds.

    Returns:
      The bounds, ascending; the last is the maximum length (at least 1).

    Raises:
      TypeError: A length is not an integer.
      ValueError: There are no lengths, one is negative, or `count` is below 1.

    Example:
      >>> from jrnn.train.batching import bucket_bounds
      >>> bucket_bounds([3, 4, 4, 9, 10, 30], 3)
      (4, 10, 30)
    """
    count = check_size("count", count)
    known = _check_lengths(lengths)
    at, weights = np.unique(np.maximum(known, 1), return_counts=True)
    seen = np.concatenate([[0], np.cumsum(weights)])
    # cost[i, j]: total steps of the distinct lengths i..j, all padded to the last one.
    # It includes the unpadded steps, whose number is the same for every choice.
    n = len(at)
    cost = (seen[None, 1:] - seen[:, None]) * at[None].astype(float)
    cost[np.arange(n + 1)[:, None] > np.arange(n)[None]] = np.inf
    best, cuts = np.full(n + 1, np.inf), []
    best[0] = 0  # nothing to pad, and no bound so far
    for _ in range(min(count, n)):
        totals = best[:, None] + cost
        cuts.append(totals.argmin(axis=0))
        best = np.concatenate([[np.inf], totals.min(axis=0)])
    return _walk_back(at, cuts)


def _walk_back(at: np.ndarray, cuts: list[np.ndarray]) -> tuple[int, ...]:
    """Recovers the bounds from the cuts, starting at the maximum length."""
    bounds, end = [], len(at)
    for cut in reversed(cuts):
        bounds.append(int(at[end - 1]))
        end = int(cut[end - 1])
        if end == 0:
            break
    return tuple(reversed(bounds))


def padded_batches(
    sequences: Sequence[np.ndarray],
    batch_size: int,
    bounds: Sequence[int],
    *,
    seed: int | None = None,
) -> Iterator[PaddedBatch]:
    """Returns every sequence once, in batches of at most `len(bounds)` shapes.

    A sequence is padded to the smallest bound that fits. The last batch of a bucket is
    filled up with empty columns, of length 0, which do not change outputs, gradients or
    `jrnn.models.mean_over_steps`.

    Args:
      sequences: Each (length, ...), of equal dtype and trailing axes: features
        (length, k), or token ids (length,).
      batch_size: B, the number of columns of each batch.
      bounds: Lengths to pad to, ascending, such as `bucket_bounds` returns.
      seed: Shuffles sequences and batches; equal seeds give equal batches. None keeps
        the order, bucket by bucket.

    Returns:
      An iterator of batches; pass `batch.xs` and `batch.lengths` to `jrnn.unroll`.

    Raises:
      ValueError: A sequence is longer than the last bound, the sequences differ in
        dtype or trailing axes, or the bounds do not ascend.

    Example:
      >>> import numpy as np
      >>> from jrnn.train.batching import padded_batches
      >>> sequences = [np.ones((n, 2)) for n in (3, 9, 4)]
      >>> for batch in padded_batches(sequences, 2, (4, 10)):
      ...     print(batch.xs.shape, batch.lengths, batch.members)
      (4, 2, 2) [3 4] [0 2]
      (10, 2, 2) [9 0] [ 1 -1]
    """
    batch_size = check_size("batch_size", batch_size)
    if isinstance(sequences, str) or not isinstance(sequences, Iterable):
        raise TypeError(f"Expected sequences to be a list, got {tell(sequences)}.")
    if seed is not None:
        check_size("seed", seed, least=0)
    bounds = np.asarray(bounds).tolist()  # Python integers, which do not overflow
    arrays = [np.asarray(sequence) for sequence in sequences]
    known = _check_bounds(arrays, bounds)
    rng = None if seed is None else np.random.default_rng(seed)
    order = np.arange(len(arrays)) if rng is None else rng.permutation(len(arrays))
    bucket = np.searchsorted(np.asarray(bounds), known)
    groups = []
    for i, bound in enumerate(bounds):
        members = order[bucket[order] == i]
        for first in range(0, len(members), batch_size):
            groups.append((bound, members[first : first + batch_size]))
    places = range(len(groups)) if rng is None else rng.permutation(len(groups))
    chosen = (groups[place] for place in places)
    return (_pad(arrays, members, bound, batch_size) for bound, members in chosen)


def _pad(
    arrays: list[np.ndarray], members: np.ndarray, bound: int, batch_size: int
) -> PaddedBatch:
    like = arrays[members[0]]
    xs = np.zeros((bound, batch_size, *like.shape[1:]), like.dtype)
    lengths = np.zeros(batch_size, np.int32)
    places = np.full(batch_size, -1, np.int32)
    for column, member in enumerate(members):
        sequence = arrays[member]
        xs[: len(sequence), column] = sequence
        lengths[column], places[column] = len(sequence), member
    return PaddedBatch(xs, lengths, places)


def _check_lengths(lengths: Sequence[int]) -> np.ndarray:
    known = np.asarray(lengths)
    if known.size == 0:
        raise ValueError("Expected the lengths of at least one sequence, got none.")
    if known.ndim != 1 or known.dtype.kind not in "iu":
        raise TypeError(
            f"Expected a list of integer lengths, got {known.dtype} of shape "
            f"{known.shape}."
        )
    if known.min() < 0:
        raise ValueError(f"Expected lengths of at least 0, got {known.min()}.")
    return known.astype(np.int64)


def _check_bounds(arrays: list[np.ndarray], bounds: Sequence[int]) -> np.ndarray:
    """Returns the sequences' lengths; raises unless sequences and bounds fit."""
    kinds = {(array.shape[1:], array.dtype.name) for array in arrays if array.ndim}
    if len(kinds) != 1 or not all(array.ndim for array in arrays):
        raise ValueError(
            "Expected sequences (length, ...) of one type and equal trailing axes, got "
            f"{sorted(kinds, key=repr)}."
        )
    if isinstance(bounds, str) or not isinstance(bounds, Iterable):
        raise TypeError(f"Expected bounds to be a list of lengths, got {tell(bounds)}.")
    bounds = [check_size("each of bounds", bound, least=0) for bound in bounds]
    if not len(bounds) or list(bounds) != sorted(set(bounds)) or bounds[0] < 1:
        raise ValueError(
            f"Expected ascending bounds of at least 1, got {tuple(bounds)}; "
            "jrnn.train.batching.bucket_bounds makes them."
        )
    known = np.array([len(array) for array in arrays])
    if known.max() > bounds[-1]:
        raise ValueError(
            f"Expected sequences no longer than the last bound, {bounds[-1]}, got one "
            f"of {known.max()} steps; cut it, or add a bound."
        )
    return known
