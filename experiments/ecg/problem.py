"""The recorded integers, sample after sample, and what all models are asked of them.

P(x_t | x_<t) is the probability of the integer that was recorded, so that models of
integers and densities that are integrated over the integer's cell are comparable. The
networks read and predict d_t = x_t - x_{t-1}, which given x_{t-1} says the same:
P(x_t | x_<t) = P(d_t | x_<t). The database was kept as first differences of 8 bits
(https://archive.physionet.org/physiobank/database/html/mitdbdir/intro.htm), and its
samples as 11 bits: both bounds were known before any sample was.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

LEAST_DIFFERENCE, DIFFERENCES = -128, 256
# The recorder's numbers are 0..2047, and the file's 0 mV is its 1024.
LEAST_LEVEL, LEVELS = -1024, 2048


class Stretch(NamedTuple):
    """Samples in a row, of which the first are read and not scored.

    Attributes:
      units: As recorded.
      skip: How many come before those that are scored; 1 or more, so that each that is
        scored has a difference.
    """

    units: Int[np.ndarray, " T"]
    skip: int


class Entrant(NamedTuple):
    """A fitted model and how it scores.

    Attributes:
      fitted: All that was fitted.
      log_prob: (fitted, stretch) -> log P of each sample that is scored.
      chosen: What the validation part chose, by name.
      valid: Nats per sample there; NaN before it was asked.
    """

    fitted: Any
    log_prob: Callable[[Any, Stretch], Float[np.ndarray, " n"]]
    chosen: dict[str, float] = {}  # noqa: RUF012 never written to
    valid: float = math.nan

    def nats(self, part: Stretch) -> Float[np.ndarray, " n"]:
        """Returns the nats of each sample that is scored."""
        return -self.log_prob(self.fitted, part)


def stretch(units: Int[np.ndarray, " T"], part: slice, warm: int) -> Stretch:
    """Returns a part with the `warm` samples before it, from which models warm up."""
    return Stretch(units[part.start - warm : part.stop].astype(np.int64), warm)


def differences(units: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T-1"]:
    """Returns x_t - x_{t-1}.

    Raises:
      ValueError: One does not fit into 8 bits.

    >>> differences(np.array([3, 5, 4])).tolist()
    [2, -1]
    """
    found = np.diff(units.astype(np.int64))
    if found.size and (
        found.min() < LEAST_DIFFERENCE or found.max() >= LEAST_DIFFERENCE + DIFFERENCES
    ):
        raise ValueError(
            f"Expected differences of 8 bits, {LEAST_DIFFERENCE} to "
            f"{LEAST_DIFFERENCE + DIFFERENCES - 1}, as the database was kept, got "
            f"{found.min()} to {found.max()}; to such a step the networks would give "
            "probability 0."
        )
    return found


def scored(
    log_probs: Float[np.ndarray, " n"], part: Stretch
) -> Float[np.ndarray, " scored"]:
    """Returns the last log-probabilities, those of the samples that are scored."""
    return np.asarray(log_probs, np.float64)[-(len(part.units) - part.skip) :]
