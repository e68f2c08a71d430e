"""What the experiment on an electrocardiogram can be told."""

import dataclasses
from pathlib import Path

from experiments.ecg.networks import CELLS


@dataclasses.dataclass(frozen=True)
class Settings:
    """Predict the next sample of an electrocardiogram."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights and of where windows start; the spread is over these."""
    cells: tuple[str, ...] = ("GRU", "LSTM")
    """GRU, LSTM, or both: the one that is better on validation is looked at closely."""
    hidden: int = 48
    """Units."""
    components: int = 5
    """Discretised logistics that are mixed."""
    steps: int = 1_200
    """Updates of each network."""
    streams: int = 32
    """Pieces of the training part that are read side by side."""
    window: int = 128
    """Samples that a gradient goes back; the state goes on."""
    rate: float = 1e-2
    """Learning rate of Adam at its highest."""
    warmup: int = 100
    """Updates in which the rate rises."""
    clip: float = 1.0
    """What the norm of a gradient is clipped to."""
    every: int = 100
    """Updates between two looks at the validation part, the best of which is kept."""
    block_seconds: float = 2.0
    """Length of the stretches that the bootstrap draws."""
    beats_in_stretch: int = 8
    """Beats that the bootstrap of the area draws in a row: they come in runs."""
    draws: int = 2_000
    """Draws, for intervals."""
    out: Path | None = None
    """The run folder; None takes the next runs/ecg/NUMBER."""


def check(settings: Settings) -> None:
    """Raises ValueError where settings make no sense."""
    unknown = set(settings.cells) - set(CELLS)
    if unknown or not settings.cells:
        raise ValueError(
            f"Expected --cells out of {', '.join(CELLS)}, got {settings.cells}."
        )
    if not settings.seeds:
        raise ValueError("Expected at least one of --seeds, got none.")
    for name in (
        "hidden",
        "components",
        "steps",
        "streams",
        "window",
        "every",
        "beats_in_stretch",
        "draws",
    ):
        if getattr(settings, name) < 1:
            raise ValueError(
                f"Expected --{name.replace('_', '-')} of 1 or more, got "
                f"{getattr(settings, name)}."
            )
    if not 0 <= settings.warmup < settings.steps:
        raise ValueError(
            f"Expected --warmup below --steps, {settings.steps}, got {settings.warmup}."
        )
    for name in ("rate", "clip", "block_seconds"):
        if not 0 < getattr(settings, name) < float("inf"):
            raise ValueError(
                f"Expected a finite --{name.replace('_', '-')} above 0, got "
                f"{getattr(settings, name)}."
            )
