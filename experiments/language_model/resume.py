"""Going on with a run: by its own settings, on its own text, with its clock."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import tyro

from experiments import lab
from experiments.data.text import Corpus, card
from experiments.lab.run import CONFIG_FILE
from experiments.lab.settings import flag
from experiments.language_model.settings import Settings, from_json, to_json

CLOCK_FILE = "clock.json"

# What may differ from the run's first start: it changes where, not what.
CHANGEABLE = ("out", "resume", "device")
# What of a corpus's card must not differ. The counts notice a file that was renamed,
# and so went to another part of an unchanged text.
IDENTITY = ("sha256", "fraction", "train_characters", "valid_characters")


def write_config(folder: Path, corpus: Corpus, settings: Settings) -> None:
    """Writes what `stored_settings` and `check_text` read."""
    content = {"settings": to_json(settings), "corpus": card(corpus)}
    lab.write_json(folder / CONFIG_FILE, content)


def stored_settings(out: Path | None, arguments: list[str]) -> Settings:
    """Returns the settings of the run to go on with.

    Args:
      out: Its folder; None for the newest.
      arguments: The command line's flags. Read once more on top of the stored
        settings: what then differs was given, and given differently.

    Raises:
      ValueError: There is no such run, or a flag differs from its settings.
    """
    folder = lab.claim_run_folder(out, "language_model", resume=True)
    stored = dataclasses.replace(
        from_json(_config(folder)["settings"]), out=folder, resume=True
    )
    given = tyro.cli(Settings, args=arguments, default=stored)
    differing = [
        f"{flag(field.name)} {getattr(given, field.name)} where it was started with "
        f"{getattr(stored, field.name)}"
        for field in dataclasses.fields(Settings)
        if field.name not in CHANGEABLE
        and getattr(given, field.name) != getattr(stored, field.name)
    ]
    if differing:
        raise ValueError(
            f"Expected --resume to go on with {folder} by its own settings, got "
            f"{', '.join(differing)}. Leave it out, or start a new run."
        )
    return dataclasses.replace(stored, device=given.device)


def check_text(folder: Path, corpus: Corpus) -> None:
    """Checks that the text is the one that the run began with.

    Raises:
      ValueError: It is another.
    """
    known, found = _config(folder)["corpus"], card(corpus)
    for name in IDENTITY:
        if known.get(name) != found[name]:
            raise ValueError(
                f"Expected the text that {folder} began with, of {name} "
                f"{known.get(name)}, got {name} {found[name]} from {corpus.source}. "
                "Put that text back, or start a new run without --resume."
            )


def _config(folder: Path) -> dict[str, Any]:
    content = lab.read_json(folder / CONFIG_FILE)
    if set(content) != {"settings", "corpus"}:
        raise ValueError(
            f"Expected settings and corpus in {folder / CONFIG_FILE}, got "
            f"{sorted(content)}; this run was written by another version. Start a new "
            "one."
        )
    return content


class Clock:
    """Seconds from a run's start to its end, summed over all its starts."""

    def __init__(self, folder: Path, began: float) -> None:
        """Goes on from what earlier starts left in the folder.

        Args:
          folder: The run's.
          began: When this start began, by `time.perf_counter`.
        """
        self._path, self._began, self._before = folder / CLOCK_FILE, began, 0.0
        if self._path.exists():
            self._before = float(str(lab.read_json(self._path)["wall_seconds"]))

    def seconds(self) -> float:
        """Returns the sum until now."""
        return self._before + time.perf_counter() - self._began

    def keep(self) -> None:
        """Writes the sum until now for the next start."""
        lab.write_json(self._path, {"wall_seconds": self.seconds()})
