"""A lock that allows one writer per checkpoint, across threads and processes.

The operating system locks a file beside the checkpoint, and releases the lock when its
process ends, even if killed: a file left behind does not block the next writer.
"""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# The errors of flock on file systems without locks (on some clusters). There the lock
# only works between threads of one process.
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

# Paths that threads are writing. A fork copies the set, so entries include the pid.
_written: set[tuple[int, str]] = set()
_guard = threading.Lock()


class Busy(Exception):
    """Another thread or process holds the lock."""


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock of a checkpoint.

    Args:
      path: The checkpoint's folder; its parent exists.

    Raises:
      Busy: Another thread or process holds it.
      OSError: The lock file cannot be created.
    """
    entry = (os.getpid(), os.path.realpath(path))
    with _guard:
        if entry in _written:
            raise Busy(str(path))
        _written.add(entry)
    try:
        with _locked(path.with_name(f".{path.name}.lock")):
            yield
    finally:
        with _guard:
            _written.discard(entry)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    descriptor = _acquire(file)
    try:
        yield
    finally:
        try:
            if sys.platform != "win32":  # Windows cannot remove an open file
                file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):  # the next writer may have opened it
                file.unlink()


def _acquire(file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if _is_at(file, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed the file in the meantime


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise Busy(str(error)) from error
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(str(error)) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _is_at(file: Path, descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False
