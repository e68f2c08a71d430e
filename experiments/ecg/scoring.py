"""Nats per sample, with intervals from a bootstrap of whole stretches of time.

Neighbouring samples belong to one beat, and are surprising together: so stretches of
seconds are drawn with replacement, the same for every model, as
`experiments.lab.intervals` draws them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from experiments import lab
from experiments.lab import intervals


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
      starts: Of `intervals.draw_starts`.
      block: Their length.
    """
    mean = {name: np.mean(runs, axis=0) for name, runs in nats.items()}
    found = {}
    for name, runs in nats.items():
        fewer = mean[reference] - mean[name]
        found[name] = {
            "nats": lab.mean_sd([float(run.mean()) for run in runs]),
            "interval": intervals.middle(redrawn(mean[name], starts, block)),
            "fewer": float(fewer.mean()),
            "fewer_interval": intervals.middle(redrawn(fewer, starts, block)),
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
