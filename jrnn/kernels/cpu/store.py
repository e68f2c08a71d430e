"""The folder of compiled libraries: found by their hash, checked before each loading.

    KEY.json        what was compiled how, and the SHA-256 of the library; written last
    KEY-SHA.so      the library
    zig/            what the zig compiler keeps for itself

KEY is the hash of all that a library is made from (`fingerprint`), SHA the beginning of
its own. Files are written under another name and then renamed, so that each is whole;
two processes that compile at once write two libraries, and the record names one of
them. The folder is `$JRNN_CACHE_DIR`, or in the user's folder for caches; where it
cannot be written, a folder of this process, deleted when it exits.
"""

import atexit
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jrnn.kernels.cpu.trust import is_safe_folder, make_folder, read_safe

SUFFIX = ".dll" if sys.platform == "win32" else ".so"
RECORD = re.compile(r"[0-9a-f]{20}\.json")
OURS = re.compile(rf"[0-9a-f]{{20}}(\.json|-[0-9a-f]{{16}}{SUFFIX})|\.new-\w+|zig")


class Entry(NamedTuple):
    """A library of the cache.

    Attributes:
      path: Of the library.
      about: What its record says.
    """

    path: Path
    about: dict[str, Any]


def cache_folder() -> Path | None:
    """Returns the folder of compiled libraries, which may be missing; None: no home."""
    try:
        return _named_folder() or _users_folder() / "jrnn"
    except RuntimeError:  # from Path.home
        return None


def writable_folder() -> Path:
    """Returns a folder to write to: the cache, or one that this process deletes.

    Raises:
      UnsafeCache: Someone else may have written the cache.
    """
    folder = cache_folder()
    if folder is None:
        return _temporary_folder()
    try:
        make_folder(folder)
    except OSError:
        return _temporary_folder()
    return folder if os.access(folder, os.W_OK | os.X_OK) else _temporary_folder()


def is_writable() -> bool:
    """Returns whether libraries are kept for other processes.

    Raises:
      UnsafeCache: Someone else may have written the cache.
    """
    return writable_folder() == cache_folder()


def is_temporary(path: Path) -> bool:
    """Returns whether a folder or file is deleted when this process exits."""
    return any(path.is_relative_to(folder) for folder in _temporary)


def find(key: str) -> Path | None:
    """Returns a library of the cache; None if it is missing, or was altered.

    Raises:
      UnsafeCache: Someone else may have written the folder or its files.
    """
    folder = cache_folder()
    try:
        if folder is None or not is_safe_folder(folder):
            return None
        entry = _entry(folder, key)
        content = entry and read_safe(entry.path)
    except OSError:  # such as a home that this process may not read
        return None
    return entry.path if entry and content and _is_of(entry.about, content) else None


def keep(key: str, library: bytes, about: Mapping[str, Any]) -> Entry:
    """Writes a library and its record.

    Args:
      key: Of 20 hexadecimal digits.
      library: The content of the file.
      about: What `entries` is to tell, as JSON can hold it.

    Raises:
      UnsafeCache: Someone else may have written the folder.
      OSError: The folder cannot be written, nor a temporary one.
    """
    record = {**about, "sha256": hashlib.sha256(library).hexdigest()}
    folder = writable_folder()
    try:
        return _keep_in(folder, key, library, record)
    except OSError:  # such as a full disk
        if is_temporary(folder):
            raise
        return _keep_in(_temporary_folder(), key, library, record)


def entries() -> list[Entry]:
    """Returns what the cache holds, the last compiled first.

    Raises:
      UnsafeCache: Someone else may have written the folder or its files.
      OSError: The folder cannot be read.
    """
    folder = cache_folder()
    if folder is None or not is_safe_folder(folder):
        return []
    keys = [path.stem for path in folder.iterdir() if RECORD.fullmatch(path.name)]
    found = [entry for key in keys if (entry := _entry(folder, key))]
    kept = [entry for entry in found if entry.path.exists()]
    return sorted(kept, key=lambda entry: str(entry.about.get("made")), reverse=True)


def clear() -> int:
    """Removes what jrnn wrote to the cache, and nothing else; returns the bytes freed.

    Raises:
      UnsafeCache: Someone else may have written the folder.
      OSError: It cannot be read or written.
    """
    folder = cache_folder()
    if folder is None or not is_safe_folder(folder):
        return 0
    freed = 0
    for path in [path for path in folder.iterdir() if OURS.fullmatch(path.name)]:
        whole = path.is_dir() and not path.is_symlink()
        freed += sum(map(_size, path.rglob("*") if whole else [path]))
        if whole:
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return freed


def _size(path: Path) -> int:
    found = path.lstat()
    return 0 if stat.S_ISDIR(found.st_mode) else found.st_size


def _named_folder() -> Path | None:
    named = os.environ.get("JRNN_CACHE_DIR")
    return Path(named).expanduser().absolute() if named else None


def _users_folder() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = os.environ.get("XDG_CACHE_HOME", "")
    # https://specifications.freedesktop.org/basedir-spec: a relative path is invalid.
    return Path(named) if os.path.isabs(named) else Path.home() / ".cache"


_temporary: list[Path] = []  # the folder of this process, once it is needed


def _temporary_folder() -> Path:
    if _temporary:
        return _temporary[0]
    folder = Path(tempfile.mkdtemp(prefix="jrnn-"))  # of mode 0700
    maker = os.getpid()

    def remove() -> None:
        if os.getpid() == maker:  # a forked process shares it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    _temporary.append(folder)
    return folder


def _entry(folder: Path, key: str) -> Entry | None:
    """Returns the entry that a record describes; None if there is no sound record."""
    raw = read_safe(folder / f"{key}.json")
    try:
        about = json.loads(raw or b"null")
    except ValueError:
        return None
    sha = about.get("sha256") if isinstance(about, dict) else None
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{64}", sha):
        return None
    return Entry(_library(folder, key, sha), about)


def _library(folder: Path, key: str, sha: str) -> Path:
    return folder / f"{key}-{sha[:16]}{SUFFIX}"


def _is_of(about: Mapping[str, Any], content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == about["sha256"]


def _keep_in(
    folder: Path, key: str, library: bytes, record: Mapping[str, Any]
) -> Entry:
    path = _library(folder, key, record["sha256"])
    try:
        _write(path, library)
    except PermissionError:  # Windows: another process has loaded the same content
        if read_safe(path) != library:
            raise
    _write(folder / f"{key}.json", json.dumps(record, indent=1).encode())
    return Entry(path, dict(record))


def _write(path: Path, content: bytes) -> None:
    descriptor, new = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(new, path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
