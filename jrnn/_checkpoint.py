"""Checkpoints: arrays by orbax, under a SHA-256 manifest of every file.

A checkpoint is a folder:

    arrays/         the leaves of the tree, as orbax writes them
    contents.json   path, shape and type of each leaf, and the caller's metadata
    MANIFEST.json   size and SHA-256 of every file; written last, checked first

Orbax alone restores most flipped bits in silence; the manifest is what notices. The
folder is written beside its place and then moved there, the old one kept until the new
one is complete: after a crash at any moment one of the two can be loaded.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array

ARRAYS, CONTENTS, MANIFEST = "arrays", "contents.json", "MANIFEST.json"
FORMAT = "jrnn checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign, or of another structure."""


def save_checkpoint(
    path: str | os.PathLike[str],
    tree: Any,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a tree of arrays to a folder, whole or not at all.

    Args:
      path: The folder; an older checkpoint there is replaced.
      tree: A pytree of arrays of any type, typed PRNG keys included.
      metadata: Anything that JSON can hold, such as settings and data position.

    Raises:
      ValueError: `path` holds something that is no checkpoint.
      TypeError: `metadata` is not JSON.
      OSError: The folder cannot be written.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from jrnn.train import load_checkpoint, save_checkpoint
      >>> path = tempfile.mkdtemp() + "/last"
      >>> save_checkpoint(path, {"W": jnp.eye(2)}, {"position": 7})
      >>> load_checkpoint(path, {"W": jnp.zeros((2, 2))})[1]
      {'position': 7}
    """
    path = Path(path)
    _refuse_foreign(path)
    leaves = _described(tree)
    contents = {
        "format": FORMAT,
        "leaves": [_describe(name, leaf) for name, leaf in leaves],
        "metadata": dict(metadata or {}),
    }
    text = json.dumps(contents, indent=1, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(prefix=_partial(path), dir=path.parent))
    try:
        _write_arrays(temporary / ARRAYS, [_plain(leaf) for _, leaf in leaves])
        _write_text(temporary / CONTENTS, text)
        _write_text(temporary / MANIFEST, json.dumps(_digests(temporary), indent=1))
        _move_into_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(
    path: str | os.PathLike[str], like: Any
) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint, after every file was found to be what it was.

    Args:
      path: The folder that `save_checkpoint` wrote.
      like: A tree of the structure, shapes and types that are expected.

    Returns:
      The tree, and the metadata.

    Raises:
      CheckpointError: There is no checkpoint, a file is missing, added or altered, or
        the tree is not like `like`; a ValueError.

    Example:
      >>> import tempfile
      >>> from jrnn.train import load_checkpoint
      >>> load_checkpoint(tempfile.mkdtemp(), {})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      jrnn._checkpoint.CheckpointError: Expected a checkpoint in ...
    """
    folder, contents = _read_contents(Path(path))
    expected = _described(like)
    _check_structure(folder, contents["leaves"], expected)
    arrays = _read_arrays(folder / ARRAYS, len(expected))
    leaves = [
        _restored(array, leaf)
        for array, (_, leaf) in zip(arrays, expected, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), contents["metadata"]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns a checkpoint's metadata alone, checked like the rest.

    Args:
      path: The folder that `save_checkpoint` wrote.

    Returns:
      What was passed as `metadata`.

    Raises:
      CheckpointError: As `load_checkpoint`.
    """
    return _read_contents(Path(path))[1]["metadata"]


def has_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Returns whether `load_checkpoint` has something to read, sound or damaged.

    `path.exists()` misses what a crash between two moves leaves under another name.

    Args:
      path: The folder that `save_checkpoint` wrote, or will write.

    Example:
      >>> import tempfile
      >>> from jrnn.train import has_checkpoint
      >>> has_checkpoint(tempfile.gettempdir() + "/nowhere")
      False
    """
    return Path(path).exists() or _old(Path(path)).exists()


def _partial(path: Path) -> str:
    return f".{path.name}.partial-"


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _refuse_foreign(path: Path) -> None:
    """Keeps `save_checkpoint` from replacing a folder that it never wrote."""
    if path.exists() and not (path / MANIFEST).is_file():
        raise CheckpointError(
            f"Expected a free place or a checkpoint to replace, got {path}, which "
            f"holds no {MANIFEST}; choose another path."
        )


def _remove_leftovers(path: Path) -> None:
    """Removes what a crash left; an old checkpoint only when there is a newer one."""
    for leftover in path.parent.glob(_partial(path) + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if _old(path).exists():
        if path.exists():
            shutil.rmtree(_old(path))
        else:
            os.replace(_old(path), path)


def _move_into_place(temporary: Path, path: Path) -> None:
    # A folder cannot be replaced by another in one step on every system. Between the
    # two moves the old one still stands under its other name, where loading finds it.
    if path.exists():
        os.replace(path, _old(path))
    os.replace(temporary, path)
    _sync(path.parent)
    shutil.rmtree(_old(path), ignore_errors=True)


def _existing(path: Path) -> Path:
    folder = path if path.exists() else _old(path)
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"Expected a checkpoint in {path}, found no {MANIFEST} there; give the "
            "folder that save_checkpoint wrote."
        )
    return folder


def _read_contents(path: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the checkpoint's folder and what `contents.json` says, both checked."""
    folder = _existing(path)
    _check_manifest(folder)
    contents = _read_json(folder / CONTENTS)
    if contents.get("format") != FORMAT or not {"leaves", "metadata"} <= set(contents):
        raise CheckpointError(
            f"Expected {FORMAT!r} with leaves and metadata in {folder / CONTENTS}, got "
            f"{contents.get('format')!r} with {sorted(contents)}; load it with the "
            "version of jrnn that wrote it, or use another checkpoint."
        )
    return folder, contents


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and file != folder / MANIFEST
    )


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns size and SHA-256 of every file, which is brought to the disk first."""
    found = {}
    for file in _files(folder):
        _sync(file)
        found[file.relative_to(folder).as_posix()] = _digest(file.read_bytes())
    return found


def _digest(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _check_manifest(folder: Path) -> None:
    listed = _read_json(folder / MANIFEST)
    present = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    _check_names(folder, set(listed), set(present))
    for name, entry in listed.items():
        found = _digest(present[name].read_bytes())
        if entry != found:
            raise CheckpointError(
                f"Expected {folder / name} as the manifest describes it, {entry}, got "
                f"{found}: the file was damaged; use an older checkpoint."
            )


def _check_names(folder: Path, listed: set[str], present: set[str]) -> None:
    if CONTENTS not in listed or listed != present:
        raise CheckpointError(
            f"Expected in {folder} exactly the files of its {MANIFEST}; missing: "
            f"{sorted(listed - present)}, not listed: {sorted(present - listed)}; use "
            "an older checkpoint, or remove what was added."
        )


def _check_structure(
    folder: Path, stored: list[dict[str, Any]], expected: list[tuple[str, Any]]
) -> None:
    wanted = [_describe(name, leaf) for name, leaf in expected]
    for have, want in zip(stored, wanted, strict=False):
        if have != want:
            raise CheckpointError(
                f"Expected {want} in {folder}, got {have}; load it with the settings "
                "it was saved with."
            )
    if len(stored) != len(wanted):
        raise CheckpointError(
            f"Expected {len(wanted)} arrays in {folder}, got {len(stored)}; load it "
            "with the settings it was saved with."
        )


def _described(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _describe(name: str, leaf: Any) -> dict[str, Any]:
    if _is_key(leaf):
        return {"path": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    shape, dtype = np.shape(leaf), jnp.result_type(leaf)
    return {"path": name, "shape": list(shape), "dtype": dtype.name}


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _restored(array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        impl = jax.random.key_impl(like)
        return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
    return jnp.asarray(array, dtype=jnp.result_type(like))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps orbax's progress reports and deprecations off the user's screen."""
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("absl").setLevel(level)


def _write_arrays(folder: Path, arrays: list[np.ndarray]) -> None:
    with _quietly(), ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(
            folder.absolute(), {str(i): array for i, array in enumerate(arrays)}
        )


def _read_arrays(folder: Path, count: int) -> list[np.ndarray]:
    names = [str(i) for i in range(count)]
    arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    with _quietly(), ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder.absolute(), restore_args=arguments)
    return [restored[name] for name in names]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _sync(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected JSON in {path}, got {error}: the file was damaged; use an older "
            "checkpoint."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected a JSON object in {path}, got {content!r}.")
    return content


def _sync(path: Path) -> None:
    """Brings a file, or a folder's names, to the disk, where the system can."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
