"""A C compiler: what it is, its flags, and running it within a time limit.

    cc -std=c11 -O3 -march=native ... -shared -I jrnn/kernels/cpu -I FFI kernel.c

gcc, clang and `zig cc` take the same flags but for a few. The code keeps the meaning of
NaN, infinities and signed zeros (no -ffast-math); products and sums may be contracted
to fused multiply-adds. On Windows zig serves, and a gcc or clang on PATH; Microsoft's
compiler, cl, does not, and nothing has been tested there.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.ffi

from jrnn.kernels.cpu.errors import CompileError
from jrnn.kernels.cpu.machine import Machine, this_machine
from jrnn.kernels.cpu.store import SUFFIX, writable_folder

HEADERS = Path(__file__).parent
LIMIT = 120.0  # seconds for one run of a compiler
SHOWN = 20  # lines of a compiler's output in an error

PLAIN = ("-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno")
PLAIN += ("-fno-trapping-math", "-fvisibility=hidden", "-Wno-psabi")
SHARED = ("-shared",) if sys.platform == "win32" else ("-shared", "-fPIC")
LIBRARIES = () if sys.platform == "win32" else ("-lm",)  # sine and cosine
SANITIZED = ("-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")

INTEL = {"x86_64", "amd64", "i386", "i686"}
# Where gcc has no -march=native, or -mcpu=native alone also chooses the schedule.
ARM_AND_POWER = {"aarch64", "arm64", "ppc64le"}


class Compiler(NamedTuple):
    """A C compiler.

    Attributes:
      command: What is run before the flags, such as ("/usr/bin/cc",).
      family: "gcc", "clang" or "zig".
      path: The program that the command's first word leads to.
      version: What it says of itself, and the size of the program.
    """

    command: tuple[str, ...]
    family: str
    path: Path
    version: str


def describe(command: Sequence[str]) -> Compiler | None:
    """Returns the compiler that a command runs; None if it cannot be run.

    Args:
      command: The program, by its path or its name on PATH, and its first arguments.
    """
    found = shutil.which(command[0]) if command else None
    if found is None:
        return None
    found = os.path.abspath(found)  # it runs in another folder
    try:
        status, told = run([found, *command[1:], "--version"])
    except (OSError, subprocess.TimeoutExpired):
        return None
    family, path = _family(command, told), Path(found).resolve()
    lines = told.strip().splitlines() or [""]
    if family == "zig":
        lines = lines[:1]  # the next tell the version of the system's kernel
    version = "\n".join([*lines, f"{path.stat().st_size} bytes"])
    return None if status else Compiler((found, *command[1:]), family, path, version)


def build_flags(
    compiler: Compiler, machine: Machine | None = None, *, sanitize: str = ""
) -> tuple[str, ...]:
    """Returns the flags that make fast code, for a library or a program.

    Args:
      compiler: The one that gets them.
      machine: What the code will run on; None: this machine.
      sanitize: Checks for tests, as -fsanitize takes them: "address,undefined".
    """
    machine = machine or this_machine()
    flags = PLAIN
    if compiler.family == "zig" and sys.platform != "win32" and not sanitize:
        flags += ("-rtlib=none",)  # or zig first compiles its own, for 10 s; unused
    if compiler.family == "zig" or machine.architecture in ARM_AND_POWER:
        flags += ("-mcpu=native",)
    elif machine.architecture in INTEL:
        flags += ("-march=native",)
    if "avx512f" in machine.instructions:
        flags += ("-mprefer-vector-width=512",)  # compilers prefer 256 bits by default
    return (*flags, *SANITIZED, f"-fsanitize={sanitize}") if sanitize else flags


def include_folders() -> tuple[Path, Path]:
    """Returns where headers lie: jrnn's, and those of XLA's foreign functions."""
    return HEADERS, Path(jax.ffi.include_dir())


def compile_library(compiler: Compiler, source: str, flags: Sequence[str]) -> bytes:
    """Compiles C to a shared library, and returns the content of its file.

    Args:
      compiler: What compiles.
      source: A whole translation unit; it may include jrnn's and XLA's headers.
      flags: As `build_flags` returns them.

    Raises:
      CompileError: The compiler failed, or took more than `LIMIT` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="jrnn-") as folder:
        target = Path(folder, f"kernel{SUFFIX}")
        compile_program(compiler, source, target, (*flags, *SHARED))
        return target.read_bytes()


def compile_program(
    compiler: Compiler, source: str, path: Path, flags: Sequence[str]
) -> None:
    """Compiles C to a file: a program that a test runs, or with `SHARED` a library.

    Args:
      compiler: What compiles.
      source: A whole translation unit; it may include jrnn's and XLA's headers.
      path: Of the file to write.
      flags: As `build_flags` returns them, and others.

    Raises:
      CompileError: The compiler failed, or took more than `LIMIT` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="jrnn-") as folder:
        Path(folder, "kernel.c").write_text(source, encoding="utf-8")
        places = [f"-I{place}" for place in include_folders()]
        command = [*compiler.command, *flags, *places, "kernel.c", "-o"]
        command += [str(path.absolute()), *LIBRARIES]
        try:
            status, output = run(command, folder)
        except subprocess.TimeoutExpired:
            raise _failed(command, f"no end after {LIMIT:.0f} seconds", "") from None
        except OSError as error:
            raise _failed(command, str(error), "") from error
    if status or not path.exists():
        found = f"status {status}" if status else "no file"
        raise _failed(command, found, output)


def run(command: Sequence[str], folder: str | None = None) -> tuple[int, str]:
    """Runs a command; returns its status and what it printed.

    Past `LIMIT` it is killed, with all that it started.

    Args:
      command: The program and its arguments.
      folder: Where it runs, and writes its temporary files; None: here.

    Raises:
      subprocess.TimeoutExpired: It ran longer than `LIMIT`.
      OSError: It cannot be started.
    """
    # A file, because waiting for a pipe's end is waiting for all that inherited it.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )
        try:
            status = process.wait(LIMIT)
        except BaseException:  # such as an interrupt, which is not sent to it
            _kill(process)
            raise
        output.seek(0)
        return status, output.read().decode("utf-8", "replace")


def _family(command: Sequence[str], told: str) -> str:
    if any(Path(word).stem in ("zig", "ziglang") for word in command):
        return "zig"
    return "clang" if "clang" in told else "gcc"


def _environment(folder: str | None) -> dict[str, str]:
    environment = os.environ | {"LC_ALL": "C"}  # versions and errors in English
    if folder is None:
        return environment
    zig = str(writable_folder() / "zig")
    caches = {"ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig}
    return environment | caches | dict.fromkeys(("TMPDIR", "TMP", "TEMP"), folder)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failed(command: Sequence[str], found: str, output: str) -> CompileError:
    lines = output.splitlines()[:SHOWN]
    told = "\n  ".join([shlex.join(command), *lines])
    return CompileError(
        "Expected the C compiler to compile a kernel for this CPU, got "
        f"{found}; choose another compiler by JRNN_CC, or run it with jrnn.bptt():\n"
        f"  {told}"
    )
