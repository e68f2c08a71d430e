"""The results, filled over many runs: one JSON file, one row for each case.

A row belongs to a task, a length, a cell and a seed, and holds the settings that it was
run with. A run leaves alone what is there at its own settings, and replaces what is
there at others.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments._report import environment, read_json, write_json
from experiments.long_memory.training import CUT, Case

EXPERIMENT = "long_memory"


def name_of(case: Case) -> str:
    """Returns the row's name.

    >>> import inspect
    >>> sizes = dict.fromkeys(inspect.signature(Case).parameters, 0)
    >>> name_of(Case(**{**sizes, "task": "copy", "length": 9, "cell": "gru"}))
    'copy/9/gru/0'
    """
    return f"{case.task}/{case.length}/{case.cell}/{case.seed}"


def settings_of(case: Case) -> dict[str, Any]:
    """Returns all of a case that its name does not tell."""
    shown = dataclasses.asdict(case)
    return {
        k: v for k, v in shown.items() if k not in ("task", "length", "cell", "seed")
    }


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the rows by name; none if there is no such file yet.

    Raises:
      ValueError: The file holds something else.
    """
    if not path.exists():
        return {}
    content = read_json(path)
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


def add(path: Path, case: Case, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Writes one more row, beside whatever the file holds by now; returns all rows."""
    rows = load(path)
    rows[name_of(case)] = {
        "task": case.task,
        "length": case.length,
        "cell": case.cell,
        "seed": case.seed,
        "settings": settings_of(case),
        **found,
        "environment": environment(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"experiment": EXPERIMENT, "rows": dict(sorted(rows.items()))})
    return rows
