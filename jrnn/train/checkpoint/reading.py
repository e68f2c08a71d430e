"""Finds the checkpoint to read, checks its contents, and reads its leaves."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jrnn.train.checkpoint import folder as _folder
from jrnn.train.checkpoint.arrays import read_arrays
from jrnn.train.checkpoint.errors import CheckpointError
from jrnn.train.checkpoint.leaves import Entry, has_elements, is_entry
from jrnn.train.checkpoint.restoring import fits, remedy, restore

FORMATS = ("jrnn checkpoint 1", "jrnn checkpoint 2")  # the last is written
# Attempts to read a checkpoint that is being replaced.
READINGS = 10

T = TypeVar("T")


class Found(NamedTuple):
    """A checkpoint whose files match its manifest.

    Attributes:
      folder: Its folder.
      contents: Its `contents.json`.
      damage: The error of the newer checkpoint, if this is the older one.
    """

    folder: Path
    contents: dict[str, Any]
    damage: Exception | None


def read_sound(place: Path, read: Callable[[Found], T]) -> tuple[dict[str, Any], T]:
    """Returns the contents of an intact checkpoint, and the result of `read`.

    Warns of damage. Reads again if another process replaces the checkpoint meanwhile.

    Raises:
      CheckpointError: There is no intact checkpoint, or `read` raises it.
    """
    for _ in range(READINGS):
        before = _identity(place)
        try:
            found = _find(place)
            result = read(found)
        except (CheckpointError, OSError) as error:
            if _identity(place) != before:
                continue
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"Expected a checkpoint to read in {place}, got {error}."
            ) from error
        if _identity(place) != before:  # may mix contents and arrays of two checkpoints
            continue
        if found.damage is not None:
            warnings.warn(
                f"{found.damage} The checkpoint before it, {found.folder}, is read.",
                UserWarning,
                stacklevel=3,
            )
        return found.contents, result
    raise CheckpointError(
        f"Expected a checkpoint in {place} that is not replaced while it is read, got "
        f"{READINGS} that were; save less often, or read a copy."
    )


def _identity(place: Path) -> tuple[int, ...] | None:
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _find(place: Path) -> Found:
    """Chooses between the checkpoint in a place and the older one beside it."""
    before = _folder.older(place)
    if _folder.is_vacant(place) and before.exists():
        _folder.check_manifest(before)
        return _contents(before, None)
    try:
        _folder.check_manifest(place)
    except (CheckpointError, OSError) as damage:
        if not _folder.is_sound(before):
            raise
        return _contents(before, damage)
    return _contents(place, None)


def _contents(folder: Path, damage: Exception | None) -> Found:
    file = folder / _folder.CONTENTS
    contents = _folder.read_json(file)
    known = contents.get("format") in FORMATS
    if not known or not {"leaves", "metadata"} <= set(contents):
        raise CheckpointError(
            f"Expected {FORMATS[-1]!r} with leaves and metadata in {file}, got "
            f"{_folder.shown(contents.get('format'))} with "
            f"{_folder.shown(sorted(contents))}; load it with the version of jrnn that "
            "wrote it, or use another checkpoint."
        )
    leaves, metadata = contents["leaves"], contents["metadata"]
    described = isinstance(leaves, list) and all(map(is_entry, leaves))
    if not described or not isinstance(metadata, dict):
        raise CheckpointError(
            f"Expected descriptions of leaves and an object as metadata in {file}, got "
            f"{_folder.shown(leaves)} and {_folder.shown(metadata)}: the file was "
            "altered; use an older checkpoint."
        )
    return Found(folder, contents, damage)


def check_structure(found: Found, wanted: list[Entry]) -> None:
    """Compares the descriptions of the leaves with those of `like`.

    Raises:
      CheckpointError: One differs.
    """
    stored, oldest = found.contents["leaves"], found.contents["format"] == FORMATS[0]
    for have, want in zip(stored, wanted, strict=False):
        if not fits(have, want, oldest):
            raise CheckpointError(
                f"Expected {want} in {found.folder}, got {_folder.shown(have)}; "
                f"{remedy(have, want)}."
            )
    if len(stored) != len(wanted):
        raise CheckpointError(
            f"Expected {len(wanted)} arrays in {found.folder}, got {len(stored)}; load "
            "it with the settings it was saved with."
        )


def read_leaves(found: Found, like: list[Any]) -> list[Any]:
    """Returns the leaves, each as the kind of number or array that `like` has.

    Raises:
      CheckpointError: An array is not as described, or `like` cannot hold its values.
    """
    entries = found.contents["leaves"]
    names = [str(i) for i, entry in enumerate(entries) if has_elements(entry)]
    arrays: dict[str, Any] = {}
    if names:
        read = read_arrays(found.folder / _folder.ARRAYS, names)
        arrays = dict(zip(names, read, strict=True))
    return [
        restore(arrays.get(str(i)), entry, leaf)
        for i, (entry, leaf) in enumerate(zip(entries, like, strict=True))
    ]
