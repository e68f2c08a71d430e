"""What is kept between calls: bounded caches, and compiled programs, emptied together.

Functions made anew are unequal, and `jax.jit` would trace again for each of them: so
what was made is kept, and equal arguments find it.
"""

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# How many results of one function are kept: those that were asked for last. A cell is
# a dozen functions; few programs use hundreds of cells of one kind.
SIZE = 512

# Held while something is made and kept, so that two threads never get two. There is one
# for all factories, because factories call each other. Nothing is traced under it: JAX
# has locks of its own, and a function that is traced may call a factory.
LOCK = threading.RLock()

_caches: weakref.WeakSet[Any] = weakref.WeakSet()  # with a method `cache_clear`
_jitted: weakref.WeakSet[Any] = weakref.WeakSet()  # with a method `clear_cache`


def bounded(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps the last results of a function of hashable arguments."""
    kept = functools.lru_cache(SIZE)(function)
    register(kept)
    return kept  # pyright: ignore[reportReturnType] it takes what `function` takes


def jitted(
    static_argnames: tuple[str, ...] = (),
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Returns `jax.jit` as a decorator; `clear_caches` drops what it compiles."""

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        compiled = jax.jit(function, static_argnames=static_argnames)
        _jitted.add(compiled)
        return compiled

    return decorate


def register(cache: Any) -> None:
    """Makes `clear_caches` call `cache.cache_clear()`."""
    _caches.add(cache)


def clear_caches() -> None:
    """Empties every cache of jrnn.

    These are the cells, heads, models, methods and initialisers that equal arguments
    find again, and the functions that `jrnn.train` and `jrnn.diagnostics` compile for
    a loss or a metric; further, the programs that JAX compiled for jrnn's own jitted
    functions, such as `jrnn.unroll`. What you hold goes on working. But it is no longer
    what equal arguments give: `jrnn.gru(2, 3)` is then a new cell, for which `unroll`
    is traced anew.

    JAX keeps more, such as the static arguments of what it traced. Where a cell, head
    or model closes over an array, that array is freed once `jax.clear_caches()` was
    called too, which also drops the programs of functions that are not jrnn's.

    Example:
      >>> import jrnn
      >>> cell = jrnn.gru(2, 3)
      >>> jrnn.gru(2, 3) is cell
      True
      >>> jrnn.clear_caches()
      >>> jrnn.gru(2, 3) is cell
      False
    """
    with LOCK:
        for cache in list(_caches):
            cache.cache_clear()
    for function in list(_jitted):
        function.clear_cache()
