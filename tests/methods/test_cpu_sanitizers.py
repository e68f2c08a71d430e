"""Kernels for CPUs under sanitizers: memory, undefined behaviour and threads."""

import subprocess
from pathlib import Path

import jax
import pytest

import jrnn
from jrnn.kernels.cpu import compilers, errors, toolchain
from jrnn.kernels.cpu.generate import cell_source

DRIVER = Path(__file__).with_name("drive_walk.c")
CELLS = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm}


def program(tmp_path, name, dtype, sanitize, teams):
    """Compiles the walks of a cell and what drives them; skips where it cannot."""
    try:
        compiler = compilers.find_compiler()
    except errors.NoCompiler:
        pytest.skip("there is no C compiler")
    cell = CELLS[name](3, 4)
    state = jax.eval_shape(
        lambda key: cell.init_state(cell.init(key, dtype), (1,)), jax.random.key(0)
    )
    source = "#define _GNU_SOURCE\n"
    source += "#define JRNN_BARRIER -1e9\n#define JRNN_ALONE 0\n" if teams else ""
    source += cell_source(cell.gated, state)
    flags = (*toolchain.build_flags(compiler, sanitize=sanitize), "-pthread")
    empty = tmp_path / "empty"
    try:
        toolchain.compile_program(compiler, "int main() { return 0; }", empty, flags)
        subprocess.run([empty], check=True, capture_output=True)
    except (errors.CompileError, subprocess.CalledProcessError, OSError):
        pytest.skip(f"the compiler has no sanitizer for {sanitize}")
    path = tmp_path / "walk"
    toolchain.compile_program(
        compiler, source + DRIVER.read_text(encoding="utf-8"), path, flags
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sanitize", ["address,undefined", "thread"])
@pytest.mark.parametrize(
    ("name", "dtype", "teams"),
    [
        ("lstm", "float32", False),
        ("gru", "float64", False),
        ("elman", "float32", False),
        ("lstm", "float64", True),
        ("gru", "float32", True),
        ("elman", "float32", True),
    ],
)
def test_walks_are_clean(tmp_path, name, dtype, teams, sanitize):
    """On one thread and on four, with tasks that start when the call has ended.

    With `teams` the units are divided whatever the cost.
    """
    path = program(tmp_path, name, dtype, sanitize, teams)
    for threads in (1, 4):
        found = subprocess.run(
            [path, str(threads)], capture_output=True, text=True, timeout=300
        )
        assert found.returncode == 0, found.stderr[-3000:]
        assert found.stdout == "walked\n"
