"""Compiling anew, whatever JAX keeps on disk."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextlib.contextmanager
def compiled_anew() -> Iterator[None]:
    """Neither reads nor writes JAX's cache of programs on disk.

    Seconds of compiling would otherwise be those of reading a file for everyone who has
    set `JAX_COMPILATION_CACHE_DIR`.
    """
    # JAX defines its settings when it is imported.
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX remembers whether there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
