"""Nats per sample, with intervals from a bootstrap of whole stretches of time.

Neighbouring samples belong to one beat, and are surprising together: so stretches of
seconds are drawn with replacement, the same for every model, from a record closed to a
ring, in which every sample is drawn as often.

Source: H. Kuensch 1989, https://doi.org/10.1214/aos/1176347265; D. Politis and J.
Romano 1992, A circular block-resampling procedure for stationary data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from experiments._intervals import middle
from experiments._report import mean_sd


def draw_blocks(
    samples: int, block: int, draws: int, seed: int
) -> Int[np.ndarray, "draws blocks"]:
    """Returns where stretches of `block` samples start, as many as fill the record."""
    rng = np.random.default_rng(seed)
    return rng.integers(samples, size=(draws, -(-samples // block)))


def redrawn(
    values: Float[np.ndarray, " T"], starts: Int[np.ndarray, "draws blocks"], block: int
) -> Float[np.ndarray, " draws"]:
    """Returns the mean over the drawn stretches, for each draw.

    >>> redrawn(np.array([1.0, 2.0, 6.0]), np.array([[0, 2]]), 2).tolist()
    [2.5]
    """
    ring = np.concatenate([[0.0], np.concatenate([values, values[:block]]).cumsum()])
    sums = ring[starts + block] - ring[starts]
    return sums.mean(axis=1) / block


def score(
    nats: Mapping[str, Sequence[Float[np.ndarray, " T"]]],
    reference: str,
    starts: Int[np.ndarray, "draws blocks"],
    block: int,
) -> dict[str, Any]:
    """Returns each model's nats per sample, and how many fewer than the reference's.

    Args:
      nats: Of each sample, one array for each seed of a model.
      reference: The name of the model to compare with.
      starts: Of `draw_blocks`.
      block: Their length.
    """
    mean = {name: np.mean(runs, axis=0) for name, runs in nats.items()}
    found = {}
    for name, runs in nats.items():
        fewer = mean[reference] - mean[name]
        found[name] = {
            "nats": mean_sd([float(run.mean()) for run in runs]),
            "interval": middle(redrawn(mean[name], starts, block)),
            "fewer": float(fewer.mean()),
            "fewer_interval": middle(redrawn(fewer, starts, block)),
        }
    return found


def smooth(nats: Float[np.ndarray, " T"], width: int) -> Float[np.ndarray, " T"]:
    """Returns means over `width` samples around each, fewer at the ends.

    >>> smooth(np.array([0.0, 3.0, 0.0, 0.0]), 3).tolist()
    [1.5, 1.0, 1.0, 0.0]
    """
    window = np.ones(width)
    weight = np.convolve(np.ones_like(nats), window, mode="same")
    return np.convolve(nats, window, mode="same") / weight
