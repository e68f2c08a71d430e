"""Which files and folders may be loaded from: those that only this user can write.

The owner and the permissions are checked, and that the name is no symbolic link, but
not the folders above: others must not be able to rename those. Windows has neither
owners as numbers nor these permissions; the user's folder for application data is
private there.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from jrnn.kernels.cpu.errors import UnsafeCache

FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_safe_folder(path: Path) -> bool:
    """Returns whether a folder exists; raises UnsafeCache unless only its owner writes.

    Raises:
      UnsafeCache: It is a symbolic link or not a folder, belongs to another user, or
        others may write to it.
    """
    return _is_safe(path, stat.S_ISDIR, "a folder")


def read_safe(path: Path) -> bytes | None:
    """Returns the content of a file that only its owner can write; None: no such file.

    Raises:
      UnsafeCache: It is a symbolic link or not a file, belongs to another user, or
        others may write to it.
      OSError: It cannot be read.
    """
    try:
        return path.read_bytes() if _is_safe(path, stat.S_ISREG, "a file") else None
    except FileNotFoundError:  # removed since the check
        return None


def make_folder(path: Path) -> None:
    """Makes a folder of mode 0700, and likewise those above it that are missing.

    Raises:
      UnsafeCache: It exists, and is not safe.
      OSError: It cannot be made.
    """
    if is_safe_folder(path):
        return
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)  # another process may be first
    is_safe_folder(path)


def _is_safe(path: Path, is_kind: Callable[[int], bool], kind: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:  # missing, or in a folder that is closed to this user
        return False
    fault = _fault(found, is_kind, kind)
    if fault:
        raise UnsafeCache(
            f"Expected the cache of compiled kernels to be {kind} that only you can "
            f"write, got {path}, which {fault}; remove it, or set JRNN_CACHE_DIR to a "
            "folder of your own of mode 700."
        )
    return True


def _fault(found: os.stat_result, is_kind: Callable[[int], bool], kind: str) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if not is_kind(found.st_mode):
        return f"is not {kind}"
    if os.name == "nt":
        return ""
    if found.st_uid != os.geteuid():
        return f"belongs to the user {found.st_uid}, and you are {os.geteuid()}"
    if found.st_mode & FOR_OTHERS:
        return f"others may write to (its mode is {stat.S_IMODE(found.st_mode):o})"
    return ""
