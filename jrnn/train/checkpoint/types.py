"""Names of leaf types: NumPy and JAX dtypes, PRNG keys, and Python numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Subclasses first: a bool is an int.
NUMBERS = {bool: "bool", int: "int", float: "float", complex: "complex"}
KINDS = {"bool": jnp.bool_, "int": jnp.integer}
KINDS |= {"float": jnp.floating, "complex": jnp.complexfloating}
PYTHON = "Python "


def python_type(leaf: Any) -> type | None:
    """Returns bool, int, float or complex for a Python number, None for others."""
    if isinstance(leaf, np.generic):  # np.float64 is a float
        return None
    return next((kind for kind in NUMBERS if isinstance(leaf, kind)), None)


def kind_of(name: str) -> str | None:
    """Returns "bool", "int", "float" or "complex"; None for keys and unknown types."""
    if name.startswith(PYTHON):
        return name.removeprefix(PYTHON)
    dtype = dtype_of(name)
    if dtype is None:
        return None
    return next((kind for kind in KINDS if jnp.issubdtype(dtype, KINDS[kind])), None)


def dtype_of(name: str) -> np.dtype | None:
    """Returns the dtype of a name; None for keys, Python numbers and unknown types."""
    try:
        return np.dtype(name) if hasattr(jnp, name) else None
    except TypeError:
        return None


def is_key(leaf: Any) -> bool:
    """Returns whether a leaf is an array of typed PRNG keys, or its placeholder."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def is_numeric(dtype: Any) -> bool:
    """Returns whether JAX supports a dtype: not longdouble, dates or objects."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        return False
    known = hasattr(jnp, dtype.name) and jnp.issubdtype(dtype, jnp.number)
    return known or dtype.name == "bool"


def is_narrow(dtype: np.dtype) -> bool:
    """Returns whether a dtype has one byte and is not NumPy's own, such as float8."""
    return dtype.itemsize == 1 and dtype.name not in {"bool", "int8", "uint8"}
