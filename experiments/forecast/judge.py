r"""Scores of forecasts that are samples, with intervals over stretches of time.

The continuous ranked probability score compares a whole distribution with the value
that came; of a single point it is the absolute error, and so has the values' own unit:

    CRPS = E|X - y| - E|X - X'| / 2

T. Gneiting and A. Raftery 2007, https://doi.org/10.1198/016214506000001437

Neighbouring forecasts look at the same values and fail together, so the bootstrap draws
stretches of neighbouring origins, the same ones for every model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments import lab
from experiments.lab import intervals

CENTRAL = (0.5, 0.9)


def crps(
    drawn: Float[np.ndarray, "*n draws"], y: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    """Returns the score of sorted samples.

    >>> crps(np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([2.0, 5.0])).tolist()
    [0.5, 3.0]
    """
    count = drawn.shape[-1]
    weights = (2 * np.arange(1, count + 1) - count - 1) / count**2
    return np.abs(drawn - y[..., None]).mean(axis=-1) - drawn @ weights


def middle_of(drawn: Float[np.ndarray, "*n draws"], central: float) -> np.ndarray:
    """Returns both ends of a central interval, (2, *n)."""
    tail = (1 - central) / 2
    return np.quantile(drawn, [tail, 1 - tail], axis=-1)


class Scores(dict[str, Float[np.ndarray, "seeds H O"]]):
    """What a model scored at each horizon and origin: crps, error, inside 50 and 90."""


def score(runs: list[np.ndarray], y: Float[np.ndarray, "H O"]) -> Scores:
    """Returns the scores of a model.

    Args:
      runs: Sorted samples of each seed, (H, O, draws).
      y: The values that came.
    """
    each: dict[str, list[np.ndarray]] = {}
    for drawn in runs:
        each.setdefault("crps", []).append(crps(drawn, y))
        each.setdefault("error", []).append(np.abs(np.median(drawn, axis=-1) - y))
        for central in CENTRAL:
            low, high = middle_of(drawn, central)
            inside = ((low <= y) & (y <= high)).astype(float)
            each.setdefault(f"inside {100 * central:g}", []).append(inside)
    return Scores({name: np.stack(found) for name, found in each.items()})


class Judge:
    """Means over origins, with intervals from the same draws for every model."""

    def __init__(self, origins: int, stretch: int, draws: int, seed: int) -> None:
        """Draws stretches of neighbouring origins."""
        stretch = min(stretch, origins)
        self.places = intervals.draw_places(origins, stretch, draws, seed)

    def interval(self, values: Float[np.ndarray, "seeds H O"]) -> list[float]:
        """Returns the 95% interval of the mean over seeds, horizons and origins."""
        by_origin = values.mean(axis=(0, 1))
        return intervals.middle(by_origin[self.places].mean(axis=1))

    def describe(self, scores: Scores) -> dict[str, Any]:
        """Returns the means of a model, over seeds, with their intervals."""
        by_seed = lambda name: lab.mean_sd(scores[name].mean(axis=(1, 2)).tolist())
        by_horizon = lambda name: scores[name].mean(axis=(0, 2)).tolist()
        return {
            "crps": by_seed("crps"),
            "crps_interval": self.interval(scores["crps"]),
            "crps_by_horizon": by_horizon("crps"),
            "error": by_seed("error"),
            "error_by_horizon": by_horizon("error"),
            "inside": {
                f"{100 * c:g}": {
                    "mean": float(scores[f"inside {100 * c:g}"].mean()),
                    "interval": self.interval(scores[f"inside {100 * c:g}"]),
                }
                for c in CENTRAL
            },
        }

    def lower(self, one: Scores, other: Scores) -> dict[str, Any]:
        """Returns by how much the CRPS of one model is below that of another."""
        gained = other["crps"].mean(axis=0) - one["crps"].mean(axis=0)
        return {
            "mean": float(gained.mean()),
            "interval": self.interval(gained[None]),
            "relative": float(gained.mean() / other["crps"].mean()),
        }


def judge_all(
    judge: Judge,
    drawn: Mapping[str, list[np.ndarray]],
    y: Float[np.ndarray, "H O"],
    networks: tuple[str, ...],
) -> dict[str, Any]:
    """Returns the scores of every model, and what networks gain on the others."""
    scores = {name: score(runs, y) for name, runs in drawn.items()}
    others = [name for name in scores if name not in networks]
    return {
        "test": {name: judge.describe(one) for name, one in scores.items()},
        "lower": {
            name: {other: judge.lower(scores[name], scores[other]) for other in others}
            for name in networks
        },
    }
