"""The frame around an experiment: its command line, its folder, its results file.

A run folder is claimed before any long work starts, so that an unwritable disk is found
in the first seconds and not in the last.
"""

import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from experiments.lab.files import write_json
from experiments.lab.machine import environment
from experiments.lab.settings import check, resolve

CONFIG_FILE = "config.json"
RESULTS_FILE = "results.json"
S = TypeVar("S")


def command(
    kind: type[S],
    arguments: list[str] | None,
    description: str | None,
    run: Callable[[S], int],
    *,
    presets: Mapping[Any, Mapping[str, Any]] | None = None,
    prog: str | None = None,
) -> int:
    """Reads a command line, checks the settings and runs; returns the exit status.

    Args:
      kind: The settings, a dataclass.
      arguments: Of the command line; None: those of the process.
      description: What its help says first.
      run: settings -> exit status.
      presets: What `resolve` fills in; None: there is nothing to fill in.
      prog: What the help calls the program; None: as it was started.
    """
    settings = tyro.cli(kind, args=arguments, description=description, prog=prog)

    def checked() -> int:
        if presets is not None:
            return run(resolve(settings, presets))
        check(settings)
        return run(settings)

    return exit_status(checked)


def main_of(
    kind: type[S],
    description: str | None,
    run: Callable[[S], int],
    *,
    presets: Mapping[Any, Mapping[str, Any]] | None = None,
    prog: str | None = None,
) -> Callable[..., int]:
    """Returns a command's `main`: arguments -> exit status; the rest as for `command`.

    Without arguments it takes those of the process.
    """
    return lambda arguments=None: command(
        kind, arguments, description, run, presets=presets, prog=prog
    )


def exit_status(run: Callable[[], int]) -> int:
    """Returns what `run` returns; 2 after a mistake of the user's, which is printed."""
    try:
        return run()
    except (ModuleNotFoundError, ValueError) as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2


def shown(settings: Any) -> dict[str, Any]:
    """Returns settings as a results file has them: where they went says nothing."""
    plain = lambda value: str(value) if isinstance(value, Path) else value
    found = {name: plain(v) for name, v in dataclasses.asdict(settings).items()}
    return {**found, "out": None}


class Run(NamedTuple):
    """A run that has begun.

    Attributes:
      name: The experiment's, as its results file has it.
      folder: Where it writes.
      settings: As they are shown.
      began: When, by `time.perf_counter`.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    began: float

    def seconds(self) -> float:
        """Returns the seconds since the run began, to a tenth."""
        return round(time.perf_counter() - self.began, 1)

    def results(self, **found: Any) -> dict[str, Any]:
        """Returns what the results file holds: what was found, on what machine."""
        about = {"experiment": self.name, "settings": self.settings}
        return {**about, "environment": environment(), **found}

    def write(self, results: Mapping[str, Any]) -> None:
        """Writes the results file."""
        write_json(self.folder / RESULTS_FILE, results)

    def finish(
        self,
        results: Mapping[str, Any],
        draw: Callable[..., None],
        *more: Any,
        said: str,
    ) -> int:
        """Writes the results, draws the figure and prints; returns 0.

        Args:
          results: As the file has them.
          draw: (path, results, *more) -> None.
          *more: What the figure needs beside the results.
          said: What is printed before the folder.
        """
        self.write(results)
        draw(self.folder / f"{self.name.split('.')[-1]}.png", results, *more)
        print(f"{said}\nWritten to {self.folder}.")
        return 0


def begin(settings: Any, name: str, card: Mapping[str, Any] | None = None) -> Run:
    """Claims a new run's folder, writes its settings there, and prints the data's card.

    Args:
      settings: A dataclass; its `out` is the folder, or None for the next free number.
      name: The experiment's.
      card: What a reader must know of the data; None: nothing is printed.

    Raises:
      ValueError: The folder holds a run, or cannot be written to.
    """
    folder = claim_run_folder(settings.out, name.replace(".", "_"), resume=False)
    run = Run(name, folder, shown(settings), time.perf_counter())
    write_json(folder / CONFIG_FILE, run.settings)
    if card is not None:
        print("\n".join(f"{name}: {value}" for name, value in card.items()))
    return run


def write_results(
    settings: Any, experiment: str, about: Mapping[str, Any] | None = None, **found: Any
) -> None:
    """Writes the results of a command whose `settings.out` is a file.

    Args:
      settings: A dataclass.
      experiment: The command's name.
      about: The environment; None: `environment()`.
      **found: What was found.
    """
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "experiment": experiment,
        "environment": environment() if about is None else about,
        "settings": shown(settings),
        **found,
    }
    write_json(settings.out, content)


def claim_run_folder(out: Path | None, name: str, resume: bool) -> Path:
    """The folder this run writes to, proven writable.

    Args:
      out: the folder, or None for `runs/NAME/0001`, `0002`, ...: the next free
        number, or with `resume` the highest that holds a run.
      name: the experiment's name.
      resume: whether the folder holds a run to go on with.

    Returns:
      The folder, which exists.

    Raises:
      ValueError: nothing to resume, a folder that holds another run, or a folder in
        which no file can be made.
    """
    folder = _numbered_folder(Path("runs") / name, resume) if out is None else out
    taken = (folder / CONFIG_FILE).exists()
    if resume and not taken:
        raise ValueError(
            f"Expected a run to resume in {folder}, got no {CONFIG_FILE} there. "
            "Start without --resume, or name the run's folder with --out."
        )
    if taken and not resume:
        raise ValueError(
            f"{folder} already holds a run. Add --resume to go on with it, or choose "
            "another --out."
        )
    _prove_writable(folder)
    return folder


def _numbered_folder(parent: Path, resume: bool) -> Path:
    found = [p for p in parent.glob("[0-9]*") if p.name.isdigit()]
    if resume:  # the newest that holds a run
        held = [p for p in found if (p / CONFIG_FILE).exists()]
        return max(held, key=lambda p: int(p.name), default=parent)
    return parent / f"{max((int(p.name) for p in found), default=0) + 1:04d}"


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, deepest first."""
    return [p for p in (folder, *folder.parents) if not p.exists()]


@contextmanager
def new_run_folder(
    out: Path | None, name: str, worth_keeping: Callable[[Path], bool]
) -> Iterator[Path]:
    """`claim_run_folder` for a new run, which leaves nothing if the block fails early.

    Args:
      out: as for `claim_run_folder`.
      name: as for `claim_run_folder`.
      worth_keeping: asked of the folder when the block has failed; if it says no,
        what this run has put there goes, and the folders it made.

    Yields:
      The folder.

    Raises:
      ValueError: as `claim_run_folder`.
    """
    folder = _numbered_folder(Path("runs") / name, False) if out is None else out
    made = _missing(folder)
    before = set(folder.iterdir()) if folder.is_dir() else set()
    claim_run_folder(folder, name, resume=False)
    try:
        yield folder
    except BaseException:  # Ctrl-C is one
        if not worth_keeping(folder):
            for path in set(folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in made:
                with suppress(OSError):  # another run has begun beside this one
                    path.rmdir()
        raise


def _prove_writable(folder: Path) -> None:
    made = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        for path in made:  # deepest first; leave nothing half-made behind
            if path.is_dir():
                path.rmdir()
        raise ValueError(
            f"Expected a run folder that can be written to, got {folder}: "
            f"{error.strerror}. Choose another with --out."
        ) from error
