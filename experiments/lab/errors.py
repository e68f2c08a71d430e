"""How far numbers lie from those that are expected, normwise."""

import math
from typing import Any

import jax
import numpy as np


def normwise(got: Any, expected: Any) -> float:
    """Returns max|a - b| / max|b| of two arrays, in float64 or complex128.

    >>> normwise([1.0, 2.0], [1.0, 4.0])
    0.5
    """
    a, b = (np.asarray(leaf) for leaf in (got, expected))
    a, b = (leaf.astype(np.result_type(leaf.dtype, np.float64)) for leaf in (a, b))
    with np.errstate(all="ignore"):
        return float(np.abs(a - b).max() / np.abs(b).max())


def largest(got: Any, expected: Any) -> float:
    """Returns the largest normwise error over two trees; of a NaN it is infinite.

    >>> largest({"a": np.ones(2)}, {"a": np.full(2, np.nan)})
    inf
    """
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    found = [normwise(a, b) for a, b in pairs]
    return max((e if math.isfinite(e) else math.inf for e in found), default=0.0)
