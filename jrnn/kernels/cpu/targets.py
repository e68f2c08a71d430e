"""Call targets of XLA: the functions of a compiled library, under names of their own.

A name holds the hash of its library. A program that JAX's persistent cache kept calls
by name; were the name the same, it would call a function that was compiled from other
code, with arguments that it does not expect.
"""

import ctypes
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import jax.ffi

from jrnn.kernels.cpu.compilers import find_compiler
from jrnn.kernels.cpu.errors import CompileError
from jrnn.kernels.cpu.library import library
from jrnn.kernels.cpu.toolchain import build_flags


class _Loaded:
    """The library of one source; the lock is held while it is compiled and loaded."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.key = ""
        self.handle: ctypes.CDLL | None = None
        self.names: dict[str, str] = {}


# For ever: a library cannot be unloaded while a program of JAX may call it.
_loaded: dict[tuple[str, tuple[str, ...]], _Loaded] = {}
_guard = threading.Lock()  # of the table, never held for long


def targets(
    source: str,
    symbols: Sequence[str],
    *,
    label: str = "a CPU kernel",
    flags: Sequence[str] = (),
) -> dict[str, str]:
    """Returns the names by which `jax.ffi.ffi_call` calls functions written in C.

    Each source is compiled once on a machine, and loaded once in a process, whatever
    the number of threads that ask.

    Args:
      source: A whole translation unit of C; it may include jrnn's headers and
        "xla/ffi/api/c_api.h".
      symbols: Its functions, of type `XLA_FFI_Handler` and visible outside.
      label: What the source is, such as "the CPU kernel of lstm in float32", for a line
        on the terminal when it is compiled.
      flags: For the compiler, after its own, such as ("-ffp-contract=off",).

    Returns:
      The name of the target of each symbol, `jrnn_SYMBOL_HASH`.

    Raises:
      NoCompiler: There is no C compiler.
      CompileError: The compiler failed, took too long, or left out a symbol.
      UnsafeCache: Someone else may have written the cache.
    """
    with _guard:
        loaded = _loaded.setdefault((source, tuple(flags)), _Loaded())
    with loaded.lock:
        if loaded.handle is None:
            compiler = find_compiler()
            every = (*build_flags(compiler), *flags)
            loaded.key, path = library(source, compiler, every, label)
            loaded.handle = _load(path)
        return {symbol: _register(loaded, loaded.handle, symbol) for symbol in symbols}


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompileError(
            f"Expected to load {path}, got {error}; if its file system forbids to "
            "execute files, set JRNN_CACHE_DIR to a folder on another."
        ) from error


def _register(loaded: _Loaded, handle: ctypes.CDLL, symbol: str) -> str:
    if symbol not in loaded.names:
        name = f"jrnn_{symbol}_{loaded.key}"
        try:
            function = getattr(handle, symbol)
        except AttributeError as error:
            raise CompileError(
                f"Expected the kernel to have a function {symbol!r}, got none that is "
                'visible; declare it with __attribute__((visibility("default"))).'
            ) from error
        capsule = jax.ffi.pycapsule(function)
        jax.ffi.register_ffi_target(name, capsule, platform="cpu", api_version=1)
        loaded.names[symbol] = name
    return loaded.names[symbol]


def _renew_locks() -> None:
    """Frees what a thread held that a forked process does not have."""
    global _guard
    _guard = threading.Lock()
    for loaded in _loaded.values():
        loaded.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
