"""Which C compiler is used: `$JRNN_CC`, the system's, or that of the ziglang wheel."""

import importlib.util
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from jrnn.core.caches import bounded
from jrnn.kernels.cpu.errors import CompileError, NoCompiler
from jrnn.kernels.cpu.library import library
from jrnn.kernels.cpu.toolchain import Compiler, build_flags, describe

NAMES = ("cc", "clang", "gcc")
REMEDY = (
    "install one (such as gcc by your system's package manager, or by "
    '`pip install "jrnn[cpu]"`, 411 MB unpacked), or run it with jrnn.bptt()'
)
# What kernels need: the C library, vectors, XLA's header, and a linker.
TRIAL = """
#include <stdlib.h>
#include <string.h>
#include "xla/ffi/api/c_api.h"
typedef float vec __attribute__((vector_size(16)));
__attribute__((visibility("default"))) float trial(const float *x) {
  vec loaded;
  memcpy(&loaded, x, sizeof(vec));
  return (loaded * loaded)[XLA_FFI_API_MAJOR];
}
"""


def find_compiler() -> Compiler:
    """Returns the first compiler that makes a shared library.

    A compiler that `$JRNN_CC` names is the only one tried. Otherwise these are:
    `cc`, `clang` and `gcc` on PATH, then `zig cc` of the package ziglang.

    Raises:
      NoCompiler: There is none.
      CompileError: The one that `$JRNN_CC` names fails.
      UnsafeCache: Someone else may have written the cache.
    """
    named = os.environ.get("JRNN_CC", "")
    return _find(named, os.environ.get("PATH", ""), _zig())


@bounded
def _find(named: str, path: str, zig: str | None) -> Compiler:
    del path  # only a part of the key: names are looked up on it
    if named.strip():
        return _named(named)
    tried = []
    for command in _candidates(zig):
        compiler = describe(command)
        if compiler is None:
            continue
        try:
            return _tried(compiler)
        except CompileError as error:
            tried.append(f"{shlex.join(compiler.command)} fails ({_reason(error)})")
    told = "; ".join(tried) or "none"
    raise NoCompiler(
        "Expected a C compiler, to make a kernel for this CPU: JRNN_CC (not set), "
        f"{', '.join(NAMES)} on PATH, or the package ziglang; got {told}; {REMEDY}."
    )


def _named(named: str) -> Compiler:
    try:
        # Backslashes part folders on Windows, and quotes stay there.
        words = shlex.split(named, posix=os.name != "nt")
    except ValueError as error:  # such as a quotation without its end
        raise NoCompiler(
            f"Expected JRNN_CC to be a command, got {named!r} ({error}); name a C "
            "compiler, such as gcc."
        ) from error
    compiler = describe([word.strip('"') for word in words])
    if compiler is None:
        raise NoCompiler(
            f"Expected JRNN_CC to name a C compiler, got {named!r}, which cannot be "
            f"run; unset it to use {', '.join(NAMES)} or ziglang, or {REMEDY}."
        )
    return _tried(compiler)


def _candidates(zig: str | None) -> Iterator[tuple[str, ...]]:
    yield from ((name,) for name in NAMES)
    if zig is not None:
        yield zig, "cc"


def _tried(compiler: Compiler) -> Compiler:
    """Returns a compiler that makes a library; raises CompileError otherwise."""
    label = "zig's own library" if compiler.family == "zig" else ""  # takes seconds
    library(TRIAL, compiler, build_flags(compiler), label)
    return compiler


def _zig() -> str | None:
    """Returns the program in the package ziglang, without importing it."""
    try:
        found = importlib.util.find_spec("ziglang")
    except (ImportError, ValueError):
        return None
    folders = (found and found.submodule_search_locations) or ()
    paths = [
        Path(folder, "zig.exe" if os.name == "nt" else "zig") for folder in folders
    ]
    return next((str(path) for path in paths if path.is_file()), None)


def _reason(error: CompileError) -> str:
    """Returns the compiler's first complaint."""
    lines = str(error).splitlines()
    told = [line.strip() for line in lines[2:] if "error" in line.lower()]
    return (told or [line.strip() for line in lines[2:]] or ["no output"])[0]
