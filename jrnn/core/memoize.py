"""Equal arguments give the identical object: cells, heads, models, initialisers."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from jrnn.core.arguments import check_kind, tell
from jrnn.core.caches import LOCK, bounded
from jrnn.core.constants import with_own_constants
from jrnn.core.pickling import note

P = ParamSpec("P")


R = TypeVar("R")


@functools.singledispatch
def guarded(made: Any) -> Any:
    """Returns what a factory made with its functions checked (`jrnn.core.guards`)."""
    return made


GUARD = "_jrnn_guarded"  # marks a function that checks, and then calls another


def unguarded(function: Any) -> Any:
    """Returns the function that a guard checks for, or what is no guard itself."""
    return function.__wrapped__ if hasattr(function, GUARD) else function


def memoize(factory: Callable[P, R]) -> Callable[P, R]:
    """Makes equal arguments, however they are passed, give the identical object.

    Functions made anew are unequal, and `jax.jit` would trace again for each of them.
    Arguments annotated as numbers, switches or functions are checked to be such: 3.0
    and True equal 3 and 1, and a cache takes them for those.
    The last `jrnn.core.caches.SIZE` are kept, until `jrnn.clear_caches()`. Threads that
    ask at once get one object; so the factory must not trace
    (`jrnn.core.caches.LOCK`).

    Raises:
      TypeError: An argument is not hashable (an array, a list), or is of another kind
        than its annotation.
    """
    signature = inspect.signature(factory)
    expected = {name: p.annotation for name, p in signature.parameters.items()}

    @bounded
    def make(args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> R:
        made = factory(*args, **dict(kwargs))  # pyright: ignore[reportCallIssue] ParamSpec
        return guarded(with_own_constants(made))

    @functools.wraps(factory)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if isinstance(value, np.integer):  # 3 * np.uint8(100) would be 44
                bound.arguments[name] = int(value)
            try:
                hash(value)
            except TypeError as error:
                raise TypeError(
                    f"Expected hashable arguments for {factory.__name__}, got "
                    f"{name}={tell(value)}; pass numbers and functions, and put arrays "
                    "into the parameters."
                ) from error
            check_kind(name, value, expected[name])
        with LOCK:
            made = make(bound.args, tuple(bound.kwargs.items()))
            note(made, factory, bound)
        return made

    return wrapper
