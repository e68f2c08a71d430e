"""Three ways to read a digit in steps.

mnist1d    a curve of 40 points, a window of points around each
rows       an image of 28 rows, one after the other
pixels     the same image, one pixel after the other: 784 steps
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments._extras import Wheel
from experiments.data import mnist1d, pixel_digits
from experiments.data._parts import in_order
from experiments.data._scale import normalise, scale_of
from experiments.digits import warps

SIDE = 28


class Task(NamedTuple):
    """Examples and their parts.

    Attributes:
      name: One of `READERS`.
      examples: Curves (N, 40) or images (N, 28, 28), as they are stored.
      labels: Digits, (N,).
      parts: "train", "valid" and "test" -> indices.
      card: What a reader must know of the data.
    """

    name: str
    examples: np.ndarray
    labels: Int[np.ndarray, " N"]
    parts: dict[str, np.ndarray]
    card: dict[str, object]


class Reader(NamedTuple):
    """How a task's examples become sequences.

    Attributes:
      load: () -> Task.
      warp: (key, examples, strength) -> examples, moved a little.
      lay_out: (examples (B, ...), window) -> xs (T, B, k).
      inputs: window -> k.
      wanted: What has to be installed.
    """

    load: Callable[[], Task]
    warp: Callable[[Array, Array, float], Array]
    lay_out: Callable[[Array, int], Array]
    inputs: Callable[[int], int]
    wanted: str | Wheel = pixel_digits.WHEEL


def windows(xs: Float[Array, "B T"], window: int) -> Float[Array, "T B k"]:
    """Returns for each point those around it, the ends repeated beyond the ends.

    Raises:
      ValueError: A window without a middle.

    >>> windows(jnp.array([[1.0, 2.0, 3.0]]), 3)[:, 0].tolist()
    [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    if window % 2 == 0:
        raise ValueError(f"Expected an odd window, got {window}.")
    beside = window // 2
    padded = jnp.pad(xs, ((0, 0), (beside, beside)), mode="edge")
    around = np.arange(xs.shape[1])[:, None] + np.arange(window)
    return jnp.moveaxis(padded[:, around], 1, 0)


def rows(xs: Float[Array, "B H W"], window: int) -> Float[Array, "H B W"]:
    """Returns an image row by row; a window is of no use here."""
    del window
    return jnp.moveaxis(xs, 1, 0)


def pixels(xs: Float[Array, "B H W"], window: int) -> Float[Array, "T B 1"]:
    """Returns an image pixel by pixel, as it is written; without a window."""
    del window
    return xs.reshape(xs.shape[0], -1).T[:, :, None]


def load_curves() -> Task:
    """Returns MNIST-1D."""
    data = mnist1d.load()
    return Task("mnist1d", data.xs, data.labels, data.parts, data.card)


def load_images(name: str) -> Task:
    """Returns the 5,000 handwritten digits, in the parts of `pixel_digits`."""
    parts = pixel_digits.load_pixels(permuted=False)
    sizes = {part: len(own.labels) for part, own in parts.items()}
    images, labels = map(np.concatenate, zip(*parts.values(), strict=True))
    card = {
        "name": name,
        **pixel_digits.WHEEL.card(),
        "units": "grey values from 0 to 1",
        "length": len(labels),
        "split": "of each digit 400, 50 and 50, drawn once and for all",
        **sizes,
    }
    return Task(name, images.reshape(-1, SIDE, SIDE), labels, in_order(sizes), card)


READERS: dict[str, Reader] = {
    "mnist1d": Reader(load_curves, warps.curves, windows, lambda k: k, "mnist1d"),
    "rows": Reader(lambda: load_images("rows"), warps.images, rows, lambda _: SIDE),
    "pixels": Reader(lambda: load_images("pixels"), warps.images, pixels, lambda _: 1),
}


def scaled(task: Task, known: np.ndarray) -> np.ndarray:
    """Returns all examples in float32, by mean and deviation of those in `known`."""
    scale = scale_of(task.examples[known].ravel())
    return normalise(scale, task.examples).astype(np.float32)
