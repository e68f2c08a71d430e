"""C code for tests: compiled by the system's compiler, called by ctypes."""

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HEADERS = Path(__file__).parents[1] / "jrnn" / "kernels" / "cpu"
COMPILER = next(filter(None, map(shutil.which, ("cc", "clang", "gcc"))), None)
ARM = platform.machine() in ("arm64", "aarch64")
NATIVE = "-mcpu=native" if ARM else "-march=native"
FLAGS = (
    *("-std=c11", "-O3", NATIVE, "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-trapping-math", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"),
    *("-Wno-unused-parameter", "-Wno-unused-function"),
)

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="no C compiler: neither cc nor clang nor gcc is on PATH"
)


def compile_c(source: str, folder: Path, *flags: str) -> ctypes.CDLL:
    """Compiles C code that may include jrnn's headers and those of `folder`."""
    (folder / "code.c").write_text(source, encoding="utf-8")
    library = folder / "code.so"
    places = (f"-I{folder}", f"-I{HEADERS}")
    command = [COMPILER, *FLAGS, *flags, *places, folder / "code.c", "-o", library]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    assert run.returncode == 0, run.stderr[:4000]
    return ctypes.CDLL(str(library))


def call(function, *arguments: np.ndarray | int) -> None:
    """Calls a C function of pointers to numbers, and of longs."""
    converted = [
        ctypes.c_void_p(one.ctypes.data) if isinstance(one, np.ndarray) else one
        for one in arguments
    ]
    function.restype = None
    function.argtypes = [
        ctypes.c_void_p if isinstance(one, np.ndarray) else ctypes.c_long
        for one in arguments
    ]
    function(*converted)
