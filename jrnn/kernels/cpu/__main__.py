"""Compiles the kernels of cells for this CPU ahead of their first use.

python -m jrnn.kernels.cpu build [CELL ...]   elman, lstm and gru, or other cells
python -m jrnn.kernels.cpu info               compiler, flags, CPU, what is compiled
python -m jrnn.kernels.cpu clear              removes what is compiled
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

import jrnn
from jrnn.kernels.cpu import calls, store
from jrnn.kernels.cpu.compilers import find_compiler
from jrnn.kernels.cpu.errors import KernelError
from jrnn.kernels.cpu.fingerprint import jaxlib_version
from jrnn.kernels.cpu.machine import name_of, this_machine
from jrnn.kernels.cpu.toolchain import build_flags

CELLS = ("elman", "lstm", "gru")
DTYPES = ("float32", "float64")
UNITS = 4  # any number: one library serves all sizes
TOLD = {"avx", "avx2", "avx512f", "fma", "neon", "asimd", "sve", "sve2"}

Prepare = Callable[[jrnn.Cell, Any], object]


def main(arguments: Sequence[str] | None = None, prepare: Prepare | None = None) -> int:
    """Runs the command; returns the status of the process.

    Args:
      arguments: Of the command line; None: those of this process.
      prepare: Compiles and loads the kernel of a cell for a dtype; None: jrnn's own.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "build":
            return _build(options.cells or CELLS, options.dtype or DTYPES, prepare)
        told = _info() if options.command == "info" else _clear()
        for line in told:
            print(line)
    except (KernelError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jrnn.kernels.cpu",
        description="Compiled kernels of cells for jrnn.fused() on this CPU.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="compile the kernels of cells")
    build.add_argument(
        "cells", nargs="*", metavar="CELL", help=f"of jrnn.cells; {' '.join(CELLS)}"
    )
    build.add_argument(
        "--dtype", action="append", choices=DTYPES, help="of the state; both"
    )
    commands.add_parser("info", help="tell the compiler, the CPU and what is compiled")
    commands.add_parser("clear", help="remove what is compiled")
    return parser


def _build(names: Sequence[str], dtypes: Sequence[str], prepare: Prepare | None) -> int:
    compiler = find_compiler()  # without one, say so once
    print(f"compiler: {shlex.join(compiler.command)}")
    run = prepare or calls.prepare
    jax.config.update("jax_enable_x64", True)
    failed = False
    for name in names:
        for dtype in dtypes:
            told, well = _built(name, dtype, run)
            failed |= not well
            line = f"{name} in {dtype}: {told}"
            print(line, file=sys.stdout if well else sys.stderr, flush=True)
    return int(failed)


def _built(name: str, dtype: str, prepare: Prepare) -> tuple[str, bool]:
    """Returns what came of compiling a kernel, and whether it went well."""
    begun, before = time.perf_counter(), _keys()
    try:
        prepare(_cell(name), jax.numpy.dtype(dtype))
    except (KernelError, TypeError, ValueError) as error:
        return str(error), False
    seconds = time.perf_counter() - begun
    if store.is_writable():
        new = _keys() - before
        return (f"compiled in {seconds:.1f} s" if new else "compiled before"), True
    return (
        f"compiled, but {store.cache_folder() or 'no folder'} cannot be written: set "
        "JRNN_CACHE_DIR to a folder that can",
        False,
    )


def _cell(name: str) -> jrnn.Cell:
    factory = getattr(jrnn.cells, name, None)
    try:
        made = factory(UNITS, UNITS) if callable(factory) else None
    except AttributeError:  # a tool for those who write cells
        made = None
    if not isinstance(made, jrnn.Cell):
        raise ValueError(
            f"Expected a cell of jrnn.cells, such as {', '.join(CELLS)}, got {name!r}."
        )
    return made


def _keys() -> set[str]:
    return {entry.path.name for entry in store.entries()}


def _info() -> Iterator[str]:
    machine = this_machine()
    known = " ".join(sorted(TOLD & set(machine.instructions)))
    yield f"CPU       {name_of(machine)}, {machine.architecture} {known}".rstrip()
    try:
        compiler = find_compiler()
    except KernelError as error:
        yield f"compiler  none: {error}"
    else:
        version = compiler.version.splitlines()[0]
        yield f"compiler  {shlex.join(compiler.command)}: {version}"
        yield f"flags     {' '.join(build_flags(compiler))}"
    yield f"jaxlib    {jaxlib_version()}"
    writes = "" if store.is_writable() else ", which cannot be written"
    yield f"cache     {store.cache_folder() or 'no folder'}{writes}"
    for path, about in store.entries():
        label = about.get("label") or "a trial of the compiler"
        size = path.stat().st_size / 1024
        spent, made = about.get("seconds"), about.get("made")
        yield f"  {label}: {size:.0f} KiB, compiled in {spent} s on {made}"


def _clear() -> Iterator[str]:
    yield f"{store.clear() / 1024:.0f} KiB removed from {store.cache_folder()}"


if __name__ == "__main__":
    sys.exit(main())
