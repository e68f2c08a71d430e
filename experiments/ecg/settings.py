"""What the experiment on an electrocardiogram can be told."""

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments import lab
from experiments.ecg.networks import CELLS


@dataclasses.dataclass(frozen=True)
class Settings:
    """Predict the next sample of an electrocardiogram."""

    seeds: lab.Seeds = (0, 1, 2)
    """Of weights and of where windows start; the spread is over these."""
    cells: Annotated[tuple[str, ...], lab.among(CELLS)] = ("GRU", "LSTM")
    """GRU, LSTM, or both: the one that is better on validation is looked at closely."""
    hidden: lab.Count = 48
    """Units."""
    components: lab.Count = 5
    """Discretised logistics that are mixed."""
    steps: lab.Count = 1_200
    """Updates of each network."""
    streams: lab.Count = 32
    """Pieces of the training part that are read side by side."""
    window: lab.Count = 128
    """Samples that a gradient goes back; the state goes on."""
    rate: Annotated[float, lab.FINITE] = 1e-2
    """Learning rate of Adam at its highest."""
    warmup: Annotated[int, lab.at_least(0)] = 100
    """Updates in which the rate rises."""
    clip: Annotated[float, lab.FINITE] = 1.0
    """What the norm of a gradient is clipped to."""
    every: lab.Count = 100
    """Updates between two looks at the validation part, the best of which is kept."""
    block_seconds: Annotated[float, lab.FINITE] = 2.0
    """Length of the stretches that the bootstrap draws."""
    beats_in_stretch: lab.Count = 8
    """Beats that the bootstrap of the area draws in a row: they come in runs."""
    draws: lab.Count = 2_000
    """Draws, for intervals."""
    out: Path | None = None
    """The run folder; None takes the next runs/ecg/NUMBER."""

    def check(self) -> None:
        """Raises ValueError where settings do not go together."""
        if self.warmup >= self.steps:
            raise ValueError(
                f"Expected --warmup below --steps, {self.steps}, got {self.warmup}."
            )
