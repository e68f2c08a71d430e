"""Checks of single arguments, and how an error shows what came."""

import inspect
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jrnn.core.caches import bounded


def tell(value: Any) -> str:
    """Returns what an error says of a value that came: short, and of no array's type.

    What is traced is told from what is known, for a remedy may depend on it.
    """
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or not isinstance(shape, tuple):
        text = repr(value)
        plain = len(text) <= 80 and "Tracer" not in text and "Traced<" not in text
        return text if plain else f"a {type(value).__name__}"
    if isinstance(value, Tracer):
        return f"traced {dtype} of shape {shape}"
    if shape == () and not jnp.issubdtype(dtype, jax.dtypes.extended):
        return f"{value} of type {dtype}"
    return f"{dtype} of shape {shape}"


def check_kind(name: str, value: Any, annotation: Any) -> None:
    """Raises TypeError where a value is no number, switch or function as annotated."""
    kinds = _kinds_of(annotation)
    if kinds is None:
        return
    if any(fits(value) for fits, _ in kinds):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"Expected {name} to be finite, got {value}.")
        return
    words = " or ".join(words for _, words in kinds)
    remedy = "; pass the function itself" if "function" in words else ""
    raise TypeError(f"Expected {name} to be {words}, got {tell(value)}{remedy}.")


@bounded
def _kinds_of(annotation: Any) -> list[tuple[Callable[[Any], bool], str]] | None:
    """Returns what an annotation admits; None where it is left to the factory."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if union else (annotation,)
    options = [typing.get_origin(option) or option for option in options]
    others = [option for option in options if option not in _KINDS]
    if others and (Callable not in options or not all(map(inspect.isclass, others))):
        return None
    return [
        _KINDS.get(option)
        or (lambda value, kind=option: isinstance(value, kind), f"an {option.__name__}")
        for option in options
    ]


def _is_integer(value: Any) -> bool:
    return not _is_switch(value) and hasattr(value, "__index__")


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not _is_switch(value)


# Which values an annotation admits, and its words in an error.
_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_integer, "an integer"),
    float: (_is_real, "a number"),
    bool: (_is_switch, "True or False"),
    str: (lambda value: isinstance(value, str), "a string"),
    type(None): (lambda value: value is None, "None"),
    Callable: (callable, "a function such as jnp.tanh"),
}


def check_size(name: str, value: Any, least: int = 1) -> int:
    """Returns `value` as an int, at least `least`; raises a clear error otherwise."""
    try:
        size = None if _is_switch(value) else operator.index(value)
    except TypeError:  # of floats, and of what jax.jit traces
        size = None
    if size is None:
        raise TypeError(f"Expected {name} to be an integer, got {tell(value)}.")
    if size < least:
        raise ValueError(f"Expected {name} to be at least {least}, got {tell(value)}.")
    return size


def check_real(name: str, value: Any) -> float:
    """Returns `value`, a real number, as a float; raises a clear error otherwise."""
    if not _is_real(value):
        raise TypeError(f"Expected {name} to be a number, got {tell(value)}.")
    return float(value)


def check_switch(name: str, value: Any) -> bool:
    """Returns `value`, or raises TypeError unless it is True or False."""
    if not _is_switch(value):
        raise TypeError(
            f"Expected {name} to be True or False, got {tell(value)}; it is static, "
            "and no array can stand for it."
        )
    return bool(value)


def check_function(name: str, value: Any) -> None:
    """Raises TypeError unless `value` can be called."""
    if not callable(value):
        raise TypeError(
            f"Expected {name} to be a function such as jnp.tanh, got {tell(value)}; "
            "pass the function itself."
        )
