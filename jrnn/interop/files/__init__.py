"""Files of a cell, head or model with its parameters: what it is, and its weights.

A file is in safetensors format (https://huggingface.co/docs/safetensors), so other
programs can read its arrays. Its metadata has these texts:

    jrnn      {"format": 1, "made": ...}: the call that makes the cell or model, in JSON
              (`jrnn.interop.files.calls`)
    metadata  what the caller added, in JSON
    sha256    of the arrays and the other texts

Loading calls only factories of jrnn that are in a fixed table
(`jrnn.interop.files.names`); no code in a file is executed, as there is none.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jrnn.core.cell import Params
from jrnn.core.disk import checked_metadata, resolve, shown, sync
from jrnn.interop.files.calls import made_by, stored_call
from jrnn.interop.files.container import metadata_of, pack, unpack
from jrnn.interop.files.errors import FileError
from jrnn.interop.files.tensors import MADE, numbers_of, to_params, to_tensors

__all__ = ["FileError", "load", "read_metadata", "save"]

FORMATS = (1,)  # those that are read; the last is written
CALL, METADATA = "jrnn", "metadata"
# The most characters of a call: a stack of a thousand cells takes a fifth of it. More
# would only cost time to reject.
LONGEST = 2**20


def save(
    path: str | os.PathLike[str],
    cell_or_model: Any,
    params: Params,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a cell, head or model and its parameters to one file, atomically.

    The file is in safetensors format, with arrays named by their paths, such as
    `0.W_h`, and with the call that made the cell or model in the metadata. `load`
    returns both again, and every value exactly.

    Args:
      path: The file; one that `save` wrote is replaced, an empty one is filled.
      cell_or_model: A cell, head, sequence model, supervised model or Markov model, as
        its factory returned it.
      params: Its parameters, JAX or NumPy arrays.
      metadata: Anything that JSON can hold, such as the units of the data, for
        `jrnn.interop.files.read_metadata`; tuples come back as lists.

    Raises:
      FileError: There is another file at `path`, or `load` would refuse this one. A
        ValueError.
      ModuleNotFoundError: safetensors is not installed.
      OSError: The file cannot be written, such as on a full disk. An older file there
        is kept.
      TypeError: `cell_or_model` is something else, was changed by `_replace`, or has a
        function among its arguments that a file cannot name, such as a lambda or
        `jax.nn.initializers.orthogonal()`: those that it can are in
        `jrnn.interop.files.names`; or `metadata` is not JSON.
      ValueError: `params` are not those of the cell or model.

    Example:
      >>> import jax, jrnn, tempfile
      >>> cell = jrnn.lstm(3, 4)
      >>> path = tempfile.mkdtemp() + "/lstm.safetensors"
      >>> jrnn.save(path, cell, cell.init(jax.random.key(0)))
      >>> again, params = jrnn.load(path)
      >>> again is cell, params.W_x.shape
      (True, (3, 16))
    """
    place = resolve(path, "file", FileError)
    tensors = to_tensors(cell_or_model, params)
    content = {"format": FORMATS[-1], "made": stored_call(cell_or_model)}
    text = json.dumps(content, allow_nan=False)
    if len(text) > LONGEST:
        raise ValueError(
            f"Expected a cell or model whose call takes at most {LONGEST} characters, "
            f"got one of {len(text)}; save its parts one by one."
        )
    made_by(json.loads(text)["made"], numbers_of(tensors))  # as `load` will do
    beside = json.dumps(checked_metadata(metadata))
    raw = pack(tensors, {CALL: text, METADATA: beside})
    _check_replaceable(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    _write(place, raw)


def load(path: str | os.PathLike[str]) -> tuple[Any, Params]:
    """Reads a cell, head or model and its parameters from a file.

    Args:
      path: A file that `jrnn.save` wrote, with this version of jrnn or an older one.

    Returns:
      The cell or model, the identical object that its factory returns, and its
      parameters, as JAX arrays in the types in which they were saved.

    Raises:
      FileError: The file is damaged, altered, newer, or was not written by `jrnn.save`;
        or it has 64-bit parameters and `jax_enable_x64` is off. A ValueError.
      ModuleNotFoundError: safetensors is not installed.
      OSError: The file cannot be read; there is none, for example.
      TypeError: `path` is not a path.

    Example:
      >>> import jrnn, tempfile
      >>> with tempfile.NamedTemporaryFile() as file:
      ...     jrnn.load(file.name)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      jrnn.interop.files.FileError: Expected a safetensors file as jrnn.save ...
    """
    place = resolve(path, "file", FileError)
    try:
        tensors, texts = unpack(place.read_bytes())
        described = _described(texts)
        made = made_by(described, numbers_of(tensors))
        if not isinstance(made, MADE):
            raise FileError(
                f"Expected a cell, head or model, got {shown(made)}: the file was "
                "altered."
            )
        return made, to_params(made, tensors)
    except FileError as error:
        raise FileError(f"{error} File: {place}") from error.__cause__


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the metadata that was passed to `jrnn.save`.

    Args:
      path: A file that `jrnn.save` wrote.

    Raises:
      FileError: As `load`; the call and the parameters are not checked.
      OSError: As `load`.
      TypeError: `path` is not a path.

    Example:
      >>> import jrnn, tempfile
      >>> path = tempfile.mkdtemp() + "/chain.safetensors"
      >>> chain = jrnn.markov_chain(2, order=0)
      >>> jrnn.save(path, chain, chain.fit([0, 1]), {"letters": "ab"})
      >>> jrnn.interop.files.read_metadata(path)
      {'letters': 'ab'}
    """
    place = resolve(path, "file", FileError)
    try:
        texts = unpack(place.read_bytes())[1]
        _described(texts)
        return _object(texts, METADATA)
    except FileError as error:
        raise FileError(f"{error} File: {place}") from error.__cause__


def _described(texts: Mapping[str, str]) -> Any:
    """Returns the call in a file, after checking the format."""
    text = texts.get(CALL, "")
    if not text or len(text) > LONGEST:
        raise FileError(
            f"Expected the call of a cell or model of at most {LONGEST} characters in "
            f"the metadata, got {len(text)}: jrnn did not write the file."
        )
    content = _object(texts, CALL)
    found = content.get("format")
    if type(found) is int and found > FORMATS[-1]:
        raise FileError(
            f"Expected a file of a format up to {FORMATS[-1]}, got {found}, which a "
            "newer version of jrnn wrote; upgrade jrnn."
        )
    if type(found) is not int or found not in FORMATS or "made" not in content:
        raise FileError(
            "Expected a format and what was made in the metadata, got "
            f"{shown(content)}: the file was altered."
        )
    return content["made"]


def _object(texts: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        content = json.loads(texts.get(key, ""))
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"Expected JSON under {key} in the metadata, got {shown(texts.get(key))} "
            f"({type(error).__name__}): the file was altered."
        ) from None
    if not isinstance(content, dict):
        raise FileError(
            f"Expected an object under {key} in the metadata, got {shown(content)}: "
            "the file was altered."
        )
    return content


def _check_replaceable(place: Path) -> None:
    """Raises FileError if there is something else than a file that `save` wrote."""
    if not place.exists() or (place.is_file() and not place.stat().st_size):
        return
    if not place.is_file() or CALL not in metadata_of(_header(place)):
        raise FileError(
            f"Expected a new path or a file of jrnn.save to replace, got {place}, "
            "which is something else; choose another path."
        )


def _header(place: Path) -> bytes:
    with place.open("rb") as file:
        size = file.read(8)
        return size + file.read(min(int.from_bytes(size, "little"), 10**8))


def _write(place: Path, raw: bytes) -> None:
    """Writes a file beside its place, and moves it there when it is complete."""
    partial = place.with_name(f".{place.name}.partial-{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            file.write(raw)
        sync(partial)
        os.replace(partial, place)
        sync(place.parent)
    finally:
        partial.unlink(missing_ok=True)
