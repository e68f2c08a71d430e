"""The frame around an experiment: its folder, its exit status, what a run costs."""

import dataclasses
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments._report import CONFIG_FILE, claim_run_folder, write_json


def begin(settings: Any, name: str) -> tuple[Path, dict[str, Any]]:
    """Claims a new run's folder and writes its settings there.

    Args:
      settings: A dataclass; its `out` is the folder, or None for the next free number.
      name: The experiment's.

    Returns:
      The folder, and the settings as they are shown: where they went says nothing.

    Raises:
      ValueError: The folder holds a run, or cannot be written to.
    """
    folder = claim_run_folder(settings.out, name, resume=False)
    shown = {**dataclasses.asdict(settings), "out": None}
    write_json(folder / CONFIG_FILE, shown)
    return folder, shown


def exit_status(run: Callable[[], int]) -> int:
    """Returns what `run` returns; 2 after a mistake of the user's, which is printed."""
    try:
        return run()
    except (ModuleNotFoundError, ValueError) as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2


def load_average() -> float | None:
    """Returns how many processes wanted a core in the last minute; None: not known.

    Above the number of cores, other work was running beside this.
    """
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def parameter_count(params: Any) -> int:
    """Returns how many numbers a pytree of arrays, or of their shapes, holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
