"""Checks of single arguments, and how errors show the value received."""

import functools
import inspect
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jrnn.core.caches import bounded

P = ParamSpec("P")
R = TypeVar("R")


def tell(value: Any) -> str:
    """Returns a short description of a value, for an error.

    For arrays: the dtype and shape, not the class; and whether the array is traced,
    because the remedy may depend on it.
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


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function check its arguments against their annotations.

    Numbers, switches, functions and classes are checked, and so are the fields of a
    NamedTuple; `check_kind` casts and raises.
    """
    signature = annotated(function)

    @functools.wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            cast = functools.partial(check_kind, annotation=parameter.annotation)
            if parameter.kind is parameter.VAR_KEYWORD:
                each = {n: cast(n, one, classes=True) for n, one in value.items()}
                bound.arguments[name] = each
            else:
                bound.arguments[name] = cast(name, value, classes=True)
        return function(*bound.args, **bound.kwargs)

    return checking


def annotated(function: Callable[..., Any]) -> inspect.Signature:
    """Returns the signature of a function, with annotations that are no strings.

    Raises:
      TypeError: It is a type or builtin without a signature.
    """
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # imported for a type checker alone
        return inspect.signature(function)
    except ValueError as error:
        raise TypeError(
            f"Expected a function with a signature, got {tell(function)}."
        ) from error


def check_kind(name: str, value: Any, annotation: Any, *, classes: bool = False) -> Any:
    """Casts a value to its annotation, such as 1 to 1.0 for a float, or raises.

    Args:
      name: Of the argument.
      value: Of the argument.
      annotation: Of the argument.
      classes: Whether to check classes too, not only numbers, switches and functions.

    Raises:
      TypeError: The value does not match the annotation.
      ValueError: The value is an infinite number or NaN.
    """
    kinds = _kinds_of(annotation, classes)
    if kinds is None:
        return value
    for kind in kinds:
        if kind.fits(value):
            if kind.cast is float and not _is_finite(value):
                raise ValueError(f"Expected {name} to be finite, got {tell(value)}.")
            if classes and _is_named_tuple(value):
                hints = inspect.get_annotations(type(value)).items()
                own = [(n, getattr(value, n), hint) for n, hint in hints]
                cast = {n: check_kind(f"{name}.{n}", *o, classes=True) for n, *o in own}
                value = value._replace(**cast)
            return kind.cast(value)
    words = " or ".join(kind.words for kind in kinds)
    remedy = "; pass the function itself" if "function" in words else ""
    raise TypeError(f"Expected {name} to be {words}, got {tell(value)}{remedy}.")


class _Kind(NamedTuple):
    """Which values an annotation admits, its name in an error, and the cast."""

    fits: Callable[[Any], bool]
    words: str
    cast: Callable[[Any], Any] = lambda value: value


@bounded
def _kinds_of(annotation: Any, classes: bool) -> list[_Kind] | None:
    """Returns the kinds that an annotation admits; None: the function checks itself."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if union else (annotation,)
    kinds = [_kind_of(option) for option in options]
    known = [kind for kind in kinds if kind is not None]
    plain = classes or _KINDS[Callable] in known or set(known) <= set(_KINDS.values())
    return known if plain and len(known) == len(kinds) else None


def _kind_of(option: Any) -> _Kind | None:
    origin, parts = typing.get_origin(option) or option, typing.get_args(option)
    known = _KINDS.get(option) or _KINDS.get(origin)
    if known is not None or not inspect.isclass(origin) or origin is Any:
        return known
    inner = list(map(_kind_of, parts)) if origin is tuple else []
    if not inner or None in inner:
        return _Kind(lambda value: isinstance(value, origin), _with_article(origin))

    def fits(value: Any) -> bool:
        alike = isinstance(value, tuple) and len(value) == len(inner)
        pairs = zip(inner, value, strict=True) if alike else ()
        return alike and all(kind is not None and kind.fits(x) for kind, x in pairs)

    def cast(value: Any) -> Any:
        pairs = zip(inner, value, strict=True)
        return tuple(kind.cast(x) for kind, x in pairs if kind is not None)

    return _Kind(fits, f"a {option}", cast)


def _with_article(kind: type) -> str:
    return f"a{'n' if kind.__name__[0] in 'AEIOU' else ''} {kind.__name__}"


def _is_integer(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:  # raised by floats and by traced arrays
        return False
    return not _is_switch(value)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not _is_switch(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _is_shape(value: Any) -> bool:
    whole = isinstance(value, tuple) and all(map(_is_integer, value))
    return whole and all(size >= 0 for size in value)


_KINDS: dict[Any, _Kind] = {
    int: _Kind(_is_integer, "an integer", operator.index),
    float: _Kind(_is_real, "a number", float),
    bool: _Kind(_is_switch, "True or False", bool),
    str: _Kind(lambda value: isinstance(value, str), "a string"),
    type(None): _Kind(lambda value: value is None, "None"),
    tuple[int, ...]: _Kind(
        _is_shape,
        "a tuple of sizes such as (3, 4)",
        lambda shape: tuple(map(operator.index, shape)),
    ),
    Callable: _Kind(callable, "a function such as jnp.tanh"),
}


def check_size(name: str, value: Any, least: int = 1) -> int:
    """Returns `value` as an int; raises unless it is an integer of at least `least`."""
    if not _is_integer(value):
        raise TypeError(f"Expected {name} to be an integer, got {tell(value)}.")
    size = operator.index(value)
    if size < least:
        raise ValueError(f"Expected {name} to be at least {least}, got {tell(value)}.")
    return size


def check_real(name: str, value: Any) -> float:
    """Returns `value` as a float; raises TypeError unless it is a real number."""
    if not _is_real(value):
        raise TypeError(f"Expected {name} to be a number, got {tell(value)}.")
    return float(value)


def check_switch(name: str, value: Any) -> bool:
    """Returns `value`, or raises TypeError unless it is True or False."""
    if not _is_switch(value):
        raise TypeError(
            f"Expected {name} to be True or False, got {tell(value)}; it is static, "
            "so it cannot be an array."
        )
    return bool(value)


def check_function(name: str, value: Any) -> None:
    """Raises TypeError unless `value` can be called."""
    check_kind(name, value, Callable)
