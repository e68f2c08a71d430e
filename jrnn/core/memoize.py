"""Equal arguments give the identical object: cells, heads, models, initialisers."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from jrnn.core.arguments import annotated, check_kind, tell
from jrnn.core.caches import LOCK, bounded
from jrnn.core.constants import with_own_constants
from jrnn.core.pickling import note

P = ParamSpec("P")


R = TypeVar("R")


@functools.singledispatch
def guarded(made: Any) -> Any:
    """Adds checks to the functions of what a factory made (`jrnn.core.guards`)."""
    return made


GUARD = "_jrnn_guarded"  # marks a function that checks arguments and calls another


def unguarded(function: Any) -> Any:
    """Returns the function inside a guard; any other function unchanged."""
    return function.__wrapped__ if hasattr(function, GUARD) else function


def _plain(value: Any) -> Any:
    """Converts NumPy's numbers to Python's: 3 * np.uint8(100) would be 44."""
    if type(value) is tuple:
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _types(value: Any) -> Hashable:
    return tuple(map(_types, value)) if type(value) is tuple else type(value)


def memoize(
    factory: Callable[P, R], **casts: Callable[[str, Any], Any]
) -> Callable[P, R]:
    """Makes a factory return the identical object for equal arguments.

    Functions made by two calls are unequal, and `jax.jit` would trace again for each.
    Arguments annotated as numbers, switches or functions are checked and cast to the
    annotation. For other annotations, 1, 1.0 and True count as unequal.
    The last `jrnn.core.caches.SIZE` are kept, until `jrnn.clear_caches()`. Concurrent
    calls get one object, under a lock; so the factory must not compile
    (`jrnn.core.caches.LOCK`).

    Args:
      factory: Called when no equal arguments are cached.
      **casts: For arguments with special rules, (name, value) -> the value for the
        factory; these raise their own errors.

    Raises:
      TypeError: An argument is not hashable (an array, a list), or is of another kind
        than its annotation.
    """
    signature = annotated(factory)
    parameters = signature.parameters.items()
    each = {n: p.annotation for n, p in parameters if p.kind is not p.VAR_POSITIONAL}

    @bounded
    def make(
        args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...], types: Hashable
    ) -> R:
        del types  # only a part of the key, for equal values of different types
        made = factory(*args, **dict(kwargs))  # pyright: ignore[reportCallIssue] ParamSpec
        return guarded(with_own_constants(made))

    @functools.wraps(factory)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            value = casts[name](name, value) if name in casts else _plain(value)
            try:
                hash(value)
            except TypeError as error:
                raise TypeError(
                    f"Expected hashable arguments for {factory.__name__}, got "
                    f"{name}={tell(value)}; pass numbers and functions, and put arrays "
                    "into the parameters."
                ) from error
            bound.arguments[name] = check_kind(name, value, each.get(name))
        given = bound.args, tuple(bound.kwargs.items())
        with LOCK:
            made = make(*given, _types(given))
            note(made, factory, bound)
        return made

    return wrapper
