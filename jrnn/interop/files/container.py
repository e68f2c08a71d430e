"""Arrays and text in one safetensors file, with a SHA-256 of both.

A safetensors file is the size of its header, the header in JSON, and the bytes of the
arrays (https://huggingface.co/docs/safetensors). It holds no code. It has no checksum,
so one is added to its metadata: a flipped bit would otherwise change a parameter
without an error.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jrnn.core.disk import first_line
from jrnn.core.lazy import needed_by
from jrnn.interop.files.errors import FileError
from jrnn.interop.files.tensors import DTYPES, Tensors

SHA256 = "sha256"  # the key of the digest in the metadata
# The names of DTYPES in a safetensors file.
CODES = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I32": "int32",
    "I64": "int64",
}


def _library() -> Any:
    with needed_by("jrnn.save and jrnn.load", "safetensors"):
        import safetensors.numpy
    return safetensors


def pack(tensors: Tensors, texts: Mapping[str, str]) -> bytes:
    """Returns the content of a file.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
    """
    metadata = {**texts, SHA256: _digest(tensors, texts)}
    return _library().numpy.save(tensors, metadata)


def unpack(raw: bytes) -> tuple[Tensors, dict[str, str]]:
    """Returns the arrays of a file, and its texts.

    Raises:
      FileError: The content is not that of `pack`.
      ModuleNotFoundError: safetensors is not installed.
    """
    library = _library()
    try:
        entries = library.deserialize(raw)
    except library.SafetensorError as error:
        raise FileError(
            "Expected a safetensors file as jrnn.save writes it, got "
            f"{first_line(error)}; the file was cut short, was altered, or is of "
            "another kind."
        ) from None
    tensors = {name: _array(name, entry) for name, entry in entries}
    texts = metadata_of(raw)
    known = texts.pop(SHA256, None)
    if known != _digest(tensors, texts):
        raise FileError(
            "Expected the SHA-256 that jrnn.save writes into a file, got "
            f"{'none' if known is None else 'another'}: the file was damaged or "
            "altered, or jrnn did not write it; for weights of other libraries see "
            "jrnn.interop."
        )
    return tensors, texts


def metadata_of(raw: bytes) -> dict[str, str]:
    """Returns the metadata of a safetensors file; {} if it has none or is none."""
    size = int.from_bytes(raw[:8], "little")
    try:
        found = json.loads(raw[8 : 8 + size])["__metadata__"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _array(name: str, entry: Mapping[str, Any]) -> np.ndarray:
    dtype = DTYPES.get(CODES.get(entry["dtype"], ""))
    if dtype is None:
        raise FileError(
            f"Expected arrays of the types {', '.join(CODES)} in a file, got "
            f"{entry['dtype']} for {name}: jrnn did not write it."
        )
    return np.frombuffer(entry["data"], dtype).reshape(entry["shape"])


def _digest(tensors: Tensors, texts: Mapping[str, str]) -> str:
    """Returns the SHA-256 of everything in a file, in the order of names."""
    sha256 = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, array in sorted(tensors.items()):
        sha256.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()
