"""What the three commands are told: train, predict, stream."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments import lab
from experiments.forecast.networks import Recipe


@dataclasses.dataclass(frozen=True)
class Settings(Recipe):
    """Train on a table, and compare forecasts on its latest part."""

    csv: Path | None = None
    """The table, with a header; None: the readings of a glucose monitor."""
    time: str | None = None
    """The column of times: numbers, or dates of ISO 8601."""
    value: str | None = None
    """The column of values."""
    id: str | None = None
    """The column that names the subject, if there are several series."""
    separator: str = ","
    """What stands between columns."""
    horizon: lab.Count = 24
    """How many values to look ahead."""
    season: Annotated[float, lab.ABOVE_0] | None = None
    """A period in the unit of times (seconds for dates); None: days, weeks, years."""
    differences: bool | None = None
    """Whether to model differences; None: what autoregressions do better with."""
    history: lab.Count = 256
    """How many values a forecast reads."""
    origins: lab.Count = 100
    """At how many places of the test part to forecast."""
    draws: lab.Count = 200
    """Paths of each forecast."""
    out: Path | None = None
    """The run folder; None takes the next runs/forecast/NUMBER."""

    def check(self) -> None:
        """Raises ValueError unless a table comes with the names of its columns."""
        named = self.time is not None and self.value is not None
        if self.csv is not None and not named:
            raise ValueError(
                "Expected the columns of the table, got no --time or no --value; add, "
                "for example, --time date --value price."
            )
        if self.csv is None and (self.time or self.value or self.id):
            raise ValueError("Expected a table, got only its columns; add --csv FILE.")


@dataclasses.dataclass(frozen=True)
class Predict:
    """Forecast the values that follow a table."""

    model: Annotated[Path, tyro.conf.Positional]
    """The folder of a run, such as runs/forecast/0001."""
    csv: Annotated[Path, tyro.conf.Positional]
    """A table with the columns that the run was trained on."""
    horizon: lab.Count | None = None
    """How many values to look ahead; None: as in training."""
    draws: lab.Count = 1000
    """Paths of each forecast."""
    separator: str = ","
    """What stands between columns."""
    seed: int = 0
    """Of the paths."""
    out: Path | None = None
    """A CSV file for the forecasts; None: they are only printed."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """Answer each row of standard input at once, as a line of JSON."""

    model: Annotated[Path, tyro.conf.Positional]
    """The folder of a run, such as runs/forecast/0001."""
    state: Path | None = None
    """Where the past is kept: read if the file exists, written at the end."""
    separator: str = ","
    """What stands between columns."""
