"""The shared library of a C source: from the cache, or compiled."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jrnn.kernels.cpu import store
from jrnn.kernels.cpu.fingerprint import fingerprint, jaxlib_version
from jrnn.kernels.cpu.machine import name_of, this_machine
from jrnn.kernels.cpu.toolchain import Compiler, compile_library


def library(
    source: str, compiler: Compiler, flags: Sequence[str], label: str = ""
) -> tuple[str, Path]:
    """Returns the hash and the path of the library, and compiles it if need be.

    Args:
      source: A whole translation unit of C.
      compiler: What compiles it.
      flags: As `toolchain.build_flags` returns them.
      label: What the source is, such as "the CPU kernel of lstm in float32", for a line
        on the terminal and for `python -m jrnn.kernels.cpu info`; "": no line.

    Raises:
      CompileError: The compiler failed.
      UnsafeCache: Someone else may have written the cache.
    """
    key = fingerprint(source, compiler, flags)
    found = store.find(key)
    if found is not None:
        return key, found
    if label and sys.stderr is not None and sys.stderr.isatty():
        line = f"jrnn: compiling {label} for this machine (once) ..."
        print(line, file=sys.stderr, flush=True)
    begun = time.perf_counter()
    content = compile_library(compiler, source, flags)
    about = {
        "label": label,
        "seconds": round(time.perf_counter() - begun, 2),
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "compiler": compiler.version.splitlines()[0],
        "flags": " ".join(flags),
        "cpu": name_of(this_machine()),
        "jaxlib": jaxlib_version(),
    }
    return key, store.keep(key, content, about).path
