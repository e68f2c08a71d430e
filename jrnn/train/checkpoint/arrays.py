"""Writes and reads arrays with orbax, without its side effects on the process."""

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

from jrnn.core.disk import first_line
from jrnn.core.lazy import needed_by
from jrnn.train.checkpoint.errors import CheckpointError

with needed_by("jrnn.train", "orbax-checkpoint"):
    import orbax.checkpoint as ocp

T = TypeVar("T")

# Seconds to wait for the other arrays when one has failed.
LINGER = 0.05

# Orbax 0.11 manages event loops in a way that is not thread-safe.
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
            f"Expected orbax arrays in {folder}, got {first_line(error)}; use an "
            "older checkpoint, or the version of orbax that wrote this one."
        ) from error


def _checkpointer() -> ocp.Checkpointer:
    """Returns a checkpointer that does not wait for other processes of the job."""
    if jax.process_count() == 1:
        return ocp.PyTreeCheckpointer()
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=str(here)
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _apart(task: Callable[[], T]) -> T:
    """Runs a task in a separate thread and returns its result.

    Orbax replaces the event loop of the calling thread, and fails if one is running, as
    in a notebook.
    """
    with _one_at_a_time, _without_reports(), _without_stragglers():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(task).result()


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Drops the log records of all orbax threads; errors are raised anyway.

    Each call adds and removes its own filter. Setting and restoring the log level
    instead could leave it changed when two threads overlap.
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
    """Drops the reports of unfinished arrays after another one has failed.

    Each would print a traceback, as the event loop that it reports to is closed.
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
    """Converts a tensorstore error, as on a full disk, to an OSError with its errno."""
    found = re.search(r"(?:OS error |os_error_code=')(\d+)", str(error))
    if found is None or os.name == "nt":  # Windows error codes are not errno values
        return OSError(errno.EIO, f"Arrays not written, {first_line(error)}")
    code = int(found[1])
    return OSError(code, f"{os.strerror(code)}, arrays not written", str(folder))
