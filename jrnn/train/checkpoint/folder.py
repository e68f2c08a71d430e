"""The folder of a checkpoint: file names, manifest, and atomic replacement.

A folder is written beside its place and then moved there; the old one is kept until the
new one is complete. After a crash at any moment one of the two can be loaded.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from jrnn.core.disk import SHOWN as SHOWN
from jrnn.core.disk import resolve as _resolve
from jrnn.core.disk import shown as shown
from jrnn.core.disk import sync as _sync
from jrnn.train.checkpoint.errors import CheckpointError

ARRAYS, CONTENTS, MANIFEST = "arrays", "contents.json", "MANIFEST.json"


def resolve(path: str | os.PathLike[str]) -> Path:
    """Returns a path as the place of a checkpoint; follows a symbolic link.

    Raises:
      CheckpointError: The path does not end in the name of a folder.
      TypeError: `path` is not a path.
    """
    return _resolve(path, "folder", CheckpointError)


def older(place: Path) -> Path:
    """Returns where the old checkpoint is kept until the new one is in its place."""
    return place.with_name(f".{place.name}.old")


def is_vacant(place: Path) -> bool:
    """Returns whether the place does not exist or is an empty folder."""
    return not place.exists() or (place.is_dir() and not any(place.iterdir()))


def check_replaceable(place: Path) -> None:
    """Raises unless the place is free or holds a checkpoint.

    Raises:
      CheckpointError: It holds something else.
    """
    if is_vacant(place):
        return
    # List names: a case-insensitive file system would accept manifest.json.
    names = set(os.listdir(place)) if place.is_dir() else set()
    if MANIFEST not in names:
        raise CheckpointError(
            f"Expected a new path or a checkpoint to replace, got {place}, which has "
            f"no {MANIFEST}; choose another path."
        )


def tidy(place: Path) -> None:
    """Removes what a crash left; an old checkpoint only if the newer one is intact.

    Only the writer that holds the lock calls it.
    """
    for name in os.listdir(place.parent):
        if name.startswith(_partial(place)):
            shutil.rmtree(place.parent / name, ignore_errors=True)
    before = older(place)
    if not before.exists():
        return
    if is_vacant(place) or (not is_sound(place) and is_sound(before)):
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, _beside(place))
        os.replace(before, place)
        tidy(place)
    else:
        shutil.rmtree(before)


def new_folder(place: Path) -> Path:
    """Makes an empty folder beside a place, with permissions from the user's umask.

    `tempfile` would make it readable only for the user.
    """
    folder = _beside(place)
    folder.mkdir()
    return folder


def move_into_place(folder: Path, place: Path) -> None:
    """Moves a complete folder to its place."""
    # Not every system can replace a folder in one step. Between the two moves the old
    # one has its other name, under which loading finds it.
    if is_vacant(place):
        with contextlib.suppress(FileNotFoundError):
            place.rmdir()
    else:
        os.replace(place, older(place))
    os.replace(folder, place)
    _sync(place.parent)
    shutil.rmtree(older(place), ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON and syncs it to the disk."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    _sync(path)


def write_manifest(folder: Path) -> None:
    """Syncs every file to the disk, and writes the manifest of sizes and SHA-256."""
    for path in folder.rglob("*"):
        _sync(path)
    write_json(folder / MANIFEST, digests(folder))
    _sync(folder)


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns size and SHA-256 of every file except the manifest, by relative path."""
    return {name: _digest(path) for name, path in _files(folder).items()}


def is_sound(folder: Path) -> bool:
    """Returns whether every file matches the manifest."""
    try:
        check_manifest(folder)
    except (CheckpointError, OSError):
        return False
    return True


def check_manifest(folder: Path) -> None:
    """Compares every file with the manifest.

    Raises:
      CheckpointError: There is no manifest, or a file is missing, added or altered.
      OSError: A file cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"Expected a checkpoint in {folder}, found no {MANIFEST} there; give the "
            "folder that save_checkpoint wrote."
        )
    listed = read_json(folder / MANIFEST)
    found = digests(folder)
    missing, added = sorted(set(listed) - set(found)), sorted(set(found) - set(listed))
    if CONTENTS not in listed or missing or added:
        raise CheckpointError(
            f"Expected in {folder} exactly the files of its {MANIFEST}; missing: "
            f"{shown(missing)}, not listed: {shown(added)}; use an older checkpoint, "
            "or remove what was added."
        )
    for name, entry in listed.items():
        if entry != found[name]:
            raise CheckpointError(
                f"Expected {folder / name} as the manifest describes it, "
                f"{shown(entry)}, got {found[name]}: the file was damaged; use an "
                "older checkpoint."
            )


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      CheckpointError: The file is unreadable, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Expected JSON in {path}, got {error}: the file was damaged; use an older "
            "checkpoint."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected an object in {path}, got {shown(content)}.")
    return content


def _partial(place: Path) -> str:
    return f".{place.name}.partial-"


def _beside(place: Path) -> Path:
    return place.with_name(_partial(place) + secrets.token_hex(4))


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": sha256}
