"""What checkpoints and files share: paths, syncing, messages, and values to store."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.core import Tracer
from jaxtyping import Array

from jrnn.core.arguments import tell

SHOWN = 300  # characters of a value in a message


def resolve(
    path: str | os.PathLike[str], kind: str, error: type[ValueError] = ValueError
) -> Path:
    """Returns a path to write to or to read; follows a symbolic link.

    Args:
      path: Of a file or a folder.
      kind: "file" or "folder".
      error: Raised if the path does not end in a name.

    Raises:
      TypeError: `path` is not a path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"Expected path to be a string or a pathlib.Path, got {tell(path)}."
        )
    place = Path(path)
    place = Path(os.path.realpath(place)) if place.is_symlink() else place
    if place.name in {"", ".."}:
        raise error(
            f"Expected a path that ends in the name of a {kind}, got {str(path)!r}; "
            f"name a {kind} in it."
        )
    return place


def sync(path: Path) -> None:
    """Syncs a file, or a folder's entries, to the disk, if the system can."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(value: Any) -> str:
    """Returns a value as text for a message, shortened."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply; an integer of many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def first_line(error: Exception) -> str:
    """Returns the type and the first line of another library's error, shortened."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:SHOWN]}"


def told_leaf(leaf: Any) -> str:
    """Returns the type of a leaf, and the dtype of an array."""
    kind = f"{type(leaf).__module__}.{type(leaf).__name__}".removeprefix("builtins.")
    dtype = getattr(leaf, "dtype", None)
    return kind if dtype is None else f"{kind} of type {dtype}"


def check_present(path: str, leaf: Any) -> None:
    """Raises unless this process has the values of a leaf.

    Raises:
      TypeError: The leaf is traced or a placeholder.
      ValueError: It is a deleted array, or is spread over processes.
    """
    if isinstance(leaf, Tracer | jax.ShapeDtypeStruct):
        raise TypeError(
            f"Expected values to save, got {told_leaf(leaf)} at {path}, which has "
            "none; save outside of jit."
        )
    if not isinstance(leaf, Array):
        return
    if leaf.is_deleted():
        raise ValueError(
            f"Expected values to save, got an array at {path} that was deleted, as a "
            "training step deletes its state; save the state that it returned."
        )
    if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        raise ValueError(
            f"Expected values to save, got an array at {path} that is spread over "
            "processes; gather it first (jax.experimental.multihost_utils)."
        )


def checked_metadata(metadata: Any) -> dict[str, Any]:
    """Returns a caller's metadata as a dict; raises TypeError if JSON cannot hold it.

    None becomes {}.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(
            f"Expected metadata that JSON can hold, a dict, got {tell(metadata)}; put "
            "it under a name."
        )
    try:
        content = dict(metadata or {})
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"Expected metadata that JSON can hold, got what it cannot: {error}."
        ) from error
    return content
