"""Restores leaves as the kinds of numbers and arrays in `like`, never inexactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.train.checkpoint.errors import CheckpointError
from jrnn.train.checkpoint.leaves import Entry
from jrnn.train.checkpoint.types import (
    NUMBERS,
    PYTHON,
    dtype_of,
    is_key,
    is_narrow,
    kind_of,
    python_type,
)

# The types that "jrnn checkpoint 1" recorded for NumPy arrays with x64 off.
NARROW = {"int64": "int32", "uint64": "uint32", "float64": "float32"}
NARROW |= {"complex128": "complex64"}


def fits(stored: Entry, wanted: Entry, oldest: bool) -> bool:
    """Returns whether a stored leaf may be restored as the leaf of `like`.

    Args:
      stored: Description in the checkpoint.
      wanted: Description of the leaf of `like`.
      oldest: Whether the file is a "jrnn checkpoint 1", which described numbers and
        NumPy arrays by the types that JAX converts them to.
    """
    if stored == wanted:
        return True
    if stored["path"] != wanted["path"] or stored["shape"] != wanted["shape"]:
        return False
    have, want = stored["dtype"], wanted["dtype"]
    if PYTHON in have + want:
        return kind_of(want) is not None and kind_of(have) == kind_of(want)
    return oldest and NARROW.get(want) == have


def remedy(stored: Entry, wanted: Entry) -> str:
    """Returns the advice for a leaf that does not fit."""
    keys = [entry["dtype"].startswith("key<") for entry in (stored, wanted)]
    if all(keys) and stored["dtype"] != wanted["dtype"]:
        return (
            "make the key in `like` of the same implementation, with "
            "jax.random.key(seed, impl=...)"
        )
    if any(keys) and not all(keys):
        return (
            "give a typed key (jax.random.key) in `like` for a typed key, an array "
            "for an array (jax.random.PRNGKey)"
        )
    return "load it with the settings it was saved with"


def restore(array: np.ndarray | None, stored: Entry, leaf: Any) -> Any:
    """Returns a stored leaf as the same kind of number or array as that of `like`.

    Args:
      array: The stored array, made by `to_array`; None for a leaf without elements.
      stored: Its description in the checkpoint, which fits.
      leaf: The leaf of `like`: a JAX or NumPy array, a placeholder, a key or a number.

    Raises:
      CheckpointError: The array is not as described, or `leaf` cannot hold its values.
    """
    if is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        array = np.zeros(data.shape, data.dtype) if array is None else array
        if array.shape != data.shape or array.dtype != data.dtype:
            raise _not_as_described(array, stored)
        return jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(leaf))
    shape = tuple(stored["shape"])
    number = python_type(leaf) or _weak_type(leaf, stored)
    if array is not None:
        array = _unpacked(array, stored["dtype"])
        if array.shape != shape or not _is_of_type(array, stored["dtype"]):
            raise _not_as_described(array, stored)
        if number is not None:
            return number(array.item())
    dtype = np.dtype(leaf.dtype)
    array = np.zeros(shape, dtype) if array is None else array
    array = _exactly(array, stored, dtype)
    if isinstance(leaf, np.generic):
        return array[()]
    return array if isinstance(leaf, np.ndarray) else _on_device(array, stored)


def _weak_type(leaf: Any, stored: Entry) -> type | None:
    """Returns the type of a Python number, for a placeholder from `jax.eval_shape`."""
    name = stored["dtype"].removeprefix(PYTHON)
    if name == stored["dtype"] or not isinstance(leaf, jax.ShapeDtypeStruct):
        return None
    weak = getattr(leaf, "weak_type", False) or name == "bool"  # never weak
    return next(kind for kind in NUMBERS if NUMBERS[kind] == name) if weak else None


def _unpacked(array: np.ndarray, name: str) -> np.ndarray:
    """Reverts the view as uint8 that `to_array` takes of dtypes unknown to orbax."""
    dtype = dtype_of(name)
    if dtype is None or not is_narrow(dtype) or array.dtype != np.uint8:
        return array
    return array.view(dtype)


def _implementation(leaf: Any) -> Any:
    """Returns the PRNG implementation of a key, or of a key's placeholder."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]


def _exactly(array: np.ndarray, stored: Entry, dtype: np.dtype) -> np.ndarray:
    """Converts values to a dtype; raises if a value would change."""
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        same = converted.astype(array.dtype).tobytes() == array.tobytes()
    # -1 becomes the largest unsigned integer, which converts back to -1.
    signed = kind_of(dtype.name) == "int" and np.any((array < 0) != (converted < 0))
    if not same or signed:
        raise CheckpointError(
            f"Expected values at {stored['path']} that {dtype} holds, as `like` has "
            f"it, got {array.dtype} values that it rounds; give a Python number or a "
            f"NumPy array of {array.dtype} in `like`."
        )
    return converted


def _is_of_type(array: np.ndarray, described: str) -> bool:
    name = array.dtype.name
    if described.startswith(PYTHON):
        return kind_of(name) == kind_of(described)
    return described in (name, NARROW.get(name))


def _not_as_described(array: np.ndarray, stored: Entry) -> CheckpointError:
    return CheckpointError(
        f"Expected an array as described, {stored}, got {array.dtype} of shape "
        f"{array.shape}: the checkpoint was altered; use an older one."
    )


def _on_device(array: np.ndarray, stored: Entry) -> Array:
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise CheckpointError(
            f"Expected 64-bit types to be on for {stored}, which JAX would narrow; set "
            "jax_enable_x64, or give a NumPy array in `like`."
        )
    return jnp.asarray(array)
