"""Arrays to files and back, by orbax, which leaves the process as it found it."""

import contextlib
import errno
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jrnn.core.lazy import needed_by
from jrnn.train.checkpoint.errors import CheckpointError

with needed_by("jrnn.train", "orbax-checkpoint"):
    import orbax.checkpoint as ocp

T = TypeVar("T")

# Seconds that the other arrays are given to end when one has failed.
LINGER = 0.05

# Orbax 0.11 starts and ends event loops in a way that two threads cannot share.
_one_at_a_time = threading.Lock()


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays to a folder that does not exist.

    Raises:
      OSError: They cannot be written.
    """

    def write() -> None:
        with _checkpointer() as checkpointer:
            checkpointer.save(folder.absolute(), arrays)

    try:
        _apart(write)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise _as_os_error(error, folder) from None


def read_arrays(folder: Path, names: list[str]) -> list[np.ndarray]:
    """Returns the arrays of those names.

    Raises:
      CheckpointError: Orbax cannot read them.
    """

    def read() -> list[np.ndarray]:
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        with _checkpointer() as checkpointer:
            found = checkpointer.restore(folder.absolute(), restore_args=arguments)
        return [np.asarray(found[name]) for name in names]

    try:
        return _apart(read)
    except Exception as error:
        raise CheckpointError(
            f"Expected arrays of orbax in {folder}, got {_first_line(error)}; use an "
            "older checkpoint, or the version of orbax that wrote this one."
        ) from error


def _checkpointer() -> ocp.Checkpointer:
    """Orbax, told not to wait for the other processes of a job, which do not save."""
    if jax.process_count() == 1:
        return ocp.PyTreeCheckpointer()
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=str(here)
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _apart(task: Callable[[], T]) -> T:
    """Runs a task in a thread of its own and returns its result.

    Orbax replaces the event loop of the thread that calls it, and fails where one is
    running, as in a notebook.
    """
    with _one_at_a_time, _without_reports(), _without_stragglers():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(task).result()


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Drops orbax's log records, whatever its threads: errors are raised as well.

    Each call adds and removes a filter of its own. A level that is set and put back
    would stay changed where two threads overlap.
    """
    drop = lambda record: "orbax" not in record.pathname
    logger = logging.getLogger("absl")
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


@contextlib.contextmanager
def _without_stragglers() -> Iterator[None]:
    """Drops what arrays report that are still under way when another one has failed.

    Each would print a traceback, for the event loop that they report to is closed.
    """
    before = sys.unraisablehook

    def hook(report: Any) -> None:
        if report.object is not None or str(report.exc_value) != "Event loop is closed":
            before(report)

    sys.unraisablehook = hook
    try:
        yield
    except BaseException:
        time.sleep(LINGER)
        raise
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def _as_os_error(error: Exception, folder: Path) -> OSError:
    """Finds the system's number in what tensorstore raises of a full disk."""
    found = re.search(r"(?:OS error |os_error_code=')(\d+)", str(error))
    if found is None or os.name == "nt":  # whose numbers are not C's
        return OSError(errno.EIO, f"Arrays not written, {_first_line(error)}")
    code = int(found[1])
    return OSError(code, f"{os.strerror(code)}, arrays not written", str(folder))


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
