"""At most one writer of a checkpoint, over the threads and processes of a machine.

The lock is the operating system's, on a file beside the checkpoint. It ends with the
process that holds it, killed or not, so that a file left behind blocks nobody.
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

# What flock says where a file system has no locks (some of clusters). There only the
# threads of one process are told apart.
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

# What threads are writing. A fork copies the set, hence the process's number in it.
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
      OSError: The lock's file cannot be made.
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
            if sys.platform != "win32":  # where an open file cannot be removed
                file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):  # the next writer has opened it
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
        os.close(descriptor)  # its holder removed it since it was opened


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
