"""Checkpoints: arrays written by orbax, with a SHA-256 manifest of every file.

A checkpoint is a folder:

    arrays/         the leaves of the tree, written by orbax
    contents.json   path, shape and type of each leaf, and the caller's metadata
    MANIFEST.json   size and SHA-256 of every file; written last, checked first

Orbax alone restores most flipped bits silently; the manifest detects them. There is no
`arrays` if no leaf has elements.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jrnn.core.disk import checked_metadata
from jrnn.train.checkpoint import folder as _folder
from jrnn.train.checkpoint import leaves as _leaves
from jrnn.train.checkpoint.arrays import write_arrays
from jrnn.train.checkpoint.errors import CheckpointError as CheckpointError
from jrnn.train.checkpoint.lock import Busy, exclusive
from jrnn.train.checkpoint.reading import (
    FORMATS,
    Found,
    check_structure,
    read_leaves,
    read_sound,
)


def save_checkpoint(
    path: str | os.PathLike[str],
    tree: Any,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a tree of arrays to a folder, atomically.

    All values are stored exactly, with 64-bit types on or off. The permissions of the
    folder follow the umask. In a job of several processes only the first one saves,
    without waiting for the others; all of them may load.

    Args:
      path: The folder; an older checkpoint there is replaced, an empty folder filled.
      tree: A pytree of JAX or NumPy arrays of any numeric dtype, typed PRNG keys, and
        Python numbers, integers of up to 64 bits. The tree and its arrays may be empty.
      metadata: Anything that JSON can hold, such as settings and data position; tuples
        come back as lists, and keys as strings.

    Raises:
      CheckpointError: `path` holds something other than a checkpoint, or another thread
        or process is saving there; a ValueError.
      TypeError: `metadata` is not JSON, or a leaf is something else, such as a string.
      ValueError: A leaf is a deleted array, is spread over processes, or is an integer
        of more than 64 bits; or this is not the first process of its job.
      OSError: The folder cannot be written, such as on a full disk. An older checkpoint
        there is kept.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from jrnn.train import load_checkpoint, save_checkpoint
      >>> path = tempfile.mkdtemp() + "/last"
      >>> save_checkpoint(path, {"W": jnp.eye(2)}, {"position": 7})
      >>> load_checkpoint(path, {"W": jnp.zeros((2, 2))})[1]
      {'position': 7}
    """
    _check_process()
    place = _folder.resolve(path)
    named = _leaves.named_leaves(tree)
    entries = [_leaves.describe(name, leaf) for name, leaf in named]
    contents = {
        "format": FORMATS[-1],
        "leaves": entries,
        "metadata": checked_metadata(metadata),
    }
    arrays = {
        str(i): _leaves.to_array(*named[i])
        for i, entry in enumerate(entries)
        if _leaves.has_elements(entry)
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(place):
            _write(place, contents, arrays)
    except Busy as error:
        raise CheckpointError(
            f"Expected one writer of {place}, got a second while another thread or "
            "process is saving there; save from one of them, or to another path."
        ) from error


def load_checkpoint(
    path: str | os.PathLike[str], like: Any
) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint, after checking every file against the manifest.

    A crash while saving can leave two checkpoints: the newer in its place, and the
    older under another name. If files of the newer are damaged, the older is read, with
    a UserWarning.

    Args:
      path: The folder that `save_checkpoint` wrote.
      like: A tree with the expected structure, shapes and types: arrays, or
        placeholders from `jax.eval_shape`. Where it has a NumPy array, a NumPy scalar
        or a Python number, so has the result; all other leaves are JAX arrays.

    Returns:
      The tree, and the metadata.

    Raises:
      CheckpointError: There is no checkpoint; a file is missing, added or altered; the
        tree differs from `like`; or `like` cannot hold a value exactly. A ValueError.
      TypeError: A leaf of `like` is not an array, a key or a number.

    Example:
      >>> import tempfile
      >>> from jrnn.train import load_checkpoint
      >>> load_checkpoint(tempfile.mkdtemp(), {})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      jrnn.train.CheckpointError: Expected a checkpoint in ...
    """
    wanted = [
        (_leaves.describe(n, leaf), leaf) for n, leaf in _leaves.named_leaves(like)
    ]

    def read(found: Found) -> list[Any]:
        check_structure(found, [entry for entry, _ in wanted])
        return read_leaves(found, [leaf for _, leaf in wanted])

    contents, leaves = read_sound(_folder.resolve(path), read)
    return jax.tree.unflatten(jax.tree.structure(like), leaves), contents["metadata"]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns only a checkpoint's metadata, after checking every file.

    Args:
      path: The folder that `save_checkpoint` wrote.

    Returns:
      The `metadata` that was saved.

    Raises:
      CheckpointError: As `load_checkpoint`; warnings too are the same.
    """
    return read_sound(_folder.resolve(path), lambda _: None)[0]["metadata"]


def has_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Returns whether a checkpoint exists, intact or damaged.

    `path.exists()` would miss a checkpoint that a crash left under another name, and
    count an empty folder as one.

    Args:
      path: The folder that `save_checkpoint` wrote, or will write.

    Example:
      >>> import tempfile
      >>> from jrnn.train import has_checkpoint
      >>> has_checkpoint(tempfile.gettempdir() + "/nowhere")
      False
    """
    place = _folder.resolve(path)
    return not _folder.is_vacant(place) or _folder.older(place).exists()


def _check_process() -> None:
    # Orbax writes NumPy arrays only in the first process, and ignores others silently.
    here = jax.process_index()
    if here != 0:
        raise ValueError(
            f"Expected process 0 of the job to save, got process {here}; save where "
            "jax.process_index() is 0."
        )


def _write(place: Path, contents: dict[str, Any], arrays: dict[str, Any]) -> None:
    _folder.check_replaceable(place)
    _folder.tidy(place)
    temporary = _folder.new_folder(place)
    try:
        if arrays:
            write_arrays(temporary / _folder.ARRAYS, arrays)
        _folder.write_json(temporary / _folder.CONTENTS, contents)
        _folder.write_manifest(temporary)
        _folder.move_into_place(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
