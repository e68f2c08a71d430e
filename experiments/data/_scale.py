"""Mean 0, deviation 1, as the training part has them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64


class Scale(NamedTuple):
    """Mean and deviation over the first axis of a training part."""

    mean: Float64[np.ndarray, "*k"]
    sd: Float64[np.ndarray, "*k"]


def scale_of(train: np.ndarray) -> Scale:
    """Returns the scale of what it is given, which should be training data alone.

    Raises:
      ValueError: Fewer than two entries, something that is not finite, or no spread.

    >>> [float(x) for x in scale_of(np.array([1.0, 3.0]))]
    [2.0, 1.0]
    """
    # In one order of memory: sums in another differ in their last bits.
    values = np.ascontiguousarray(train, np.float64)
    if values.shape[:1] < (2,) or not np.isfinite(values).all():
        raise ValueError(
            f"Expected at least two finite entries to scale by, got {values.shape}."
        )
    scale = Scale(values.mean(0), values.std(0))
    if not (scale.sd > 0).all():
        raise ValueError("Expected training data that vary, got a constant.")
    return scale


def normalise(scale: Scale, xs: np.ndarray) -> np.ndarray:
    """Returns `(xs - mean) / sd`, in float64."""
    return (np.asarray(xs, np.float64) - scale.mean) / scale.sd


def restore(scale: Scale, xs: np.ndarray) -> np.ndarray:
    """Returns what `normalise` was given: `xs * sd + mean`."""
    return np.asarray(xs, np.float64) * scale.sd + scale.mean
