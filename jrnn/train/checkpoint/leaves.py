"""Describes the leaves of a tree for a checkpoint, and converts them to arrays.

A description is a leaf's path in the tree, its shape and its type: a NumPy dtype name,
`key<fry>` and the like for typed PRNG keys, or `Python int` for a Python number. For a
leaf without elements only the description is stored.
"""

from typing import Any

import jax
import numpy as np

from jrnn.core.disk import check_present, told_leaf
from jrnn.train.checkpoint.types import (
    NUMBERS,
    PYTHON,
    is_key,
    is_narrow,
    is_numeric,
    python_type,
)

Entry = dict[str, Any]


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Returns every leaf with its path."""
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def describe(path: str, leaf: Any) -> Entry:
    """Returns path, shape and type of an array, a placeholder, a key or a number.

    Raises:
      TypeError: The leaf is something else.
    """
    number = python_type(leaf)
    if number is not None:
        return {"path": path, "shape": [], "dtype": PYTHON + NUMBERS[number]}
    if not isinstance(leaf, np.ma.MaskedArray):
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if shape is not None and (is_key(leaf) or is_numeric(dtype)):
            name = str(dtype) if is_key(leaf) else np.dtype(dtype).name
            return {"path": path, "shape": [int(n) for n in shape], "dtype": name}
    raise TypeError(
        f"Expected arrays of numbers, PRNG keys and Python numbers in a checkpoint, "
        f"got {told_leaf(leaf)} at {path or 'the root'}; convert it, or put it into "
        "the metadata."
    )


def is_entry(entry: Any) -> bool:
    """Returns whether an object read from a file is a valid description."""
    return (
        isinstance(entry, dict)
        and set(entry) == {"path", "shape", "dtype"}
        and isinstance(entry["path"], str)
        and isinstance(entry["dtype"], str)
        and isinstance(entry["shape"], list)
        and all(type(size) is int for size in entry["shape"])
    )


def has_elements(entry: Entry) -> bool:
    """Returns whether a described leaf has elements."""
    return 0 not in entry["shape"]


def to_array(path: str, leaf: Any) -> np.ndarray:
    """Returns the values of a leaf as an array of a dtype that orbax supports.

    Raises:
      TypeError: The leaf has no value: it is traced or a placeholder.
      ValueError: Its value is not accessible, or cannot be stored exactly.
    """
    check_present(path, leaf)
    if python_type(leaf) is int:
        return _integer(path, leaf)
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    array = array.astype(np.dtype(array.dtype.name), copy=False)  # native byte order
    return array.view(np.uint8) if is_narrow(array.dtype) else array


def _integer(path: str, number: int) -> np.ndarray:
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
            return np.asarray(number, dtype)
    raise ValueError(
        f"Expected integers of at most 64 bits, got one of {number.bit_length()} at "
        f"{path}; put it into the metadata."
    )
