"""The results, filled over many runs: one JSON file, one row for each case.

A row belongs to a task, a length, a cell and a seed, and holds the settings that it was
run with. A run leaves alone what is there at its own settings, and replaces what is
there at others; but what came to an end is never replaced by what was cut by its limit
of seconds. Several processes may fill one store: each holds its lock while it writes.
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments import lab
from experiments.long_memory.training import CUT, Case

EXPERIMENT = "long_memory"
NAME = ("task", "length", "cell", "seed")  # what a row is named by


def name_of(case: Case) -> str:
    """Returns the row's name.

    >>> import inspect
    >>> sizes = dict.fromkeys(inspect.signature(Case).parameters, 0)
    >>> name_of(Case(**{**sizes, "task": "copy", "length": 9, "cell": "gru"}))
    'copy/9/gru/0'
    """
    return "/".join(str(getattr(case, part)) for part in NAME)


def settings_of(case: Case) -> dict[str, Any]:
    """Returns all of a case that its name does not tell."""
    return {k: v for k, v in dataclasses.asdict(case).items() if k not in NAME}


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the rows by name; none if there is no such file yet.

    Raises:
      ValueError: The file holds something else.
    """
    if not path.exists():
        return {}
    content = lab.read_json(path)
    rows = content.get("rows")
    if content.get("experiment") != EXPERIMENT or not isinstance(rows, dict):
        raise ValueError(
            f"Expected results of {EXPERIMENT} in {path}, got another file. Choose "
            "another --store."
        )
    return rows


def is_done(row: Mapping[str, Any] | None, case: Case, seconds: float) -> bool:
    """Returns whether a row answers a case: equal settings, and no more time to give.

    A row that was cut by its limit of seconds is done again once there are more.
    """
    if row is None or row["settings"] != settings_of(case):
        return False
    return row["stopped"] != CUT or row["seconds_limit"] >= seconds


def keeps(row: Mapping[str, Any] | None, case: Case, found: Mapping[str, Any]) -> bool:
    """Returns whether a row stays where a case was run once more: the new one was cut.

    So stays what came to an end, at whatever settings, and what had as much time.
    """
    if row is None or found["stopped"] != CUT:
        return False
    return row["stopped"] != CUT or is_done(row, case, found["seconds_limit"])


def add(path: Path, case: Case, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Writes one more row, beside whatever the file holds by now; returns all rows.

    Writes nothing where the row that is there is one that `keeps` its place.

    Raises:
      ValueError: As `alone`.
    """
    row = {
        **{part: getattr(case, part) for part in NAME},
        "settings": settings_of(case),
        **found,
        "environment": lab.environment(),
    }
    with alone(path):
        rows = load(path)
        if not keeps(rows.get(name_of(case)), case, found):
            rows[name_of(case)] = row
            content = {"experiment": EXPERIMENT, "rows": dict(sorted(rows.items()))}
            lab.write_json(path, content)
    return rows


@contextmanager
def alone(path: Path, seconds: float = 60.0) -> Iterator[None]:
    """Keeps other processes from writing a store, for as long as the block takes.

    By a file beside it that only one process can make: the same on every system.

    Raises:
      ValueError: For so many seconds another process has held the lock, or has left it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, began = path.with_name(f".{path.name}.lock"), time.monotonic()
    while True:
        try:
            lock.touch(exist_ok=False)
            break
        except (FileExistsError, PermissionError) as error:
            # Windows denies a file that is just being removed.
            if isinstance(error, PermissionError) and os.name != "nt":
                raise
            if time.monotonic() - began > seconds:
                raise ValueError(
                    f"Expected to write {path} within {seconds:g} s, got the lock of "
                    f"another process, {lock}. If none is running, remove that file."
                ) from error
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink()
