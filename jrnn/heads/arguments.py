"""Casts and checks the arguments of head factories before they are cache keys.

3, 3.0, True and np.float32(3) are equal and have equal hashes, so a cache would treat
them as one key.
"""

import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jrnn.core.arguments import check_kind, check_real, check_size, check_switch, tell
from jrnn.core.memoize import memoize

P = ParamSpec("P")
R = TypeVar("R")


def casting(
    **casts: Callable[[str, Any], Any],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator that casts or rejects arguments, then memoises the factory.

    Args:
      **casts: For each argument to cast, (name, value) -> the value that the factory
        receives.
    """
    return lambda factory: memoize(factory, **casts)


def size_or_none(name: str, value: Any) -> int | None:
    """Returns the number of components; None means that a symbol is one number."""
    return None if value is None else check_size(name, value)


def whether_missing(name: str, value: Any) -> bool:
    """Returns `value`, or raises TypeError unless it is True or False."""
    try:
        return check_switch(name, value)
    except TypeError as error:
        raise TypeError(
            f"Expected {name} to be True or False, whether values may be missing, got "
            f"{tell(value)}; log_prob takes the mask that says which ones are."
        ) from error


def finite(name: str, value: Any) -> float:
    """Returns a real number as a float; raises unless it is finite."""
    return check_kind(name, value, float)


def above_zero(name: str, value: Any) -> float:
    """Returns a real number as a float; raises unless it is finite and above 0."""
    number = check_real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(
            f"Expected {name} to be finite and above 0, got {tell(value)}."
        )
    return number
