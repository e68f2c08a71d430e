"""Bounded caches and compiled programs, which `clear_caches` empties together.

Two functions made by the same call are unequal, so `jax.jit` would trace again for
each. The caches return the first one whenever the arguments are equal.
"""

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# How many results of one function are kept: the most recently used. A cell is a dozen
# functions; few programs use hundreds of cells of one kind.
SIZE = 512

# Held while an object is made and cached, so that two threads never get two. All
# factories share it, because factories call each other. Of functions only the shapes of
# results are traced under it (`jax.eval_shape`), and nothing is compiled: JAX has its
# own locks, and a function that is being traced may call a factory.
LOCK = threading.RLock()

_caches: weakref.WeakSet[Any] = weakref.WeakSet()  # with a method `cache_clear`
_jitted: weakref.WeakSet[Any] = weakref.WeakSet()  # with a method `clear_cache`


def bounded(function: Callable[P, R]) -> Callable[P, R]:
    """Caches the last `SIZE` results of a function of hashable arguments."""
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
    """Has `clear_caches` call `cache.cache_clear()`."""
    _caches.add(cache)


def clear_caches() -> None:
    """Empties every cache of jrnn.

    They hold the cells, heads, models, methods and initialisers that factories return
    again for equal arguments, the functions that `jrnn.train` and `jrnn.diagnostics`
    compile for a loss or a metric, and the programs that JAX compiled for jrnn's own
    jitted functions, such as `jrnn.unroll`. Objects that you hold keep working, but
    factories no longer return them: `jrnn.gru(2, 3)` then makes a new cell, for which
    `unroll` is traced again.

    JAX has caches of its own, which hold the static arguments of traced functions. An
    array that a cell, head or model closes over is freed only after
    `jax.clear_caches()`, which also drops the programs of functions outside jrnn.

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
