"""C code becomes call targets of XLA: names, threads, processes, compilers, errors."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrnn.kernels.cpu import compilers, fingerprint, library, targets, toolchain
from jrnn.kernels.cpu.errors import CompileError, NoCompiler
from jrnn.kernels.cpu.toolchain import build_flags, compile_program
from tests.cpu_kernel import compiled, counting, double, forget, needs_cc, script
from tests.cpu_kernel import empty as empty

ROOT = Path(__file__).parents[2]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def counted(monkeypatch, tmp_path):
    path = counting(tmp_path / "bin" / "counting cc")
    monkeypatch.setenv("JRNN_CC", f"'{path}'")
    return path


def call(name):
    like = jax.ShapeDtypeStruct(X.shape, X.dtype)
    return jax.ffi.ffi_call(name, like)(jnp.asarray(X))


@needs_cc
def test_a_function_written_in_c_is_called(counted, monkeypatch):
    source = double()
    names = targets.targets(source, ("Double",))
    (name,) = names.values()
    assert name.startswith("jrnn_Double_")
    assert len(name) == len("jrnn_Double_") + fingerprint.DIGITS
    np.testing.assert_array_equal(call(name), 2 * X)
    assert compiled(counted) == 2  # the trial, and the kernel
    assert targets.targets(source, ("Double",)) == names
    forget(monkeypatch)  # as the next process
    assert targets.targets(source, ("Double",)) == names
    assert compiled(counted) == 2
    assert targets.targets(source, ("Double",), flags=("-O1",)) != names
    assert compiled(counted) == 3


@needs_cc
def test_eight_threads_compile_and_load_once(counted, monkeypatch):
    source, loaded = double(), []
    load = targets._load
    monkeypatch.setattr(targets, "_load", lambda p: loaded.append(p) or load(p))
    with ThreadPoolExecutor(8) as pool:
        ask = lambda _: targets.targets(source, ("Double",))
        answers = list(pool.map(ask, range(8)))
    assert len({answer["Double"] for answer in answers}) == 1
    assert compiled(counted) == 2
    assert len(loaded) == 1


PROCESS = """
import os, signal, sys
from jrnn.kernels.cpu import targets
source = sys.stdin.read()
names = targets.targets(source, ("Double",))
locks = [targets._guard, *(loaded.lock for loaded in targets._loaded.values())]
for lock in locks:
    lock.acquire()  # as another thread may at the time of the fork
child = os.fork()
if child == 0:
    signal.alarm(30)  # ends a process that waits for ever
    os._exit(targets.targets(source, ("Double",)) != names)
assert os.waitpid(child, 0)[1] == 0
print(names["Double"])
"""


@pytest.mark.longer
@needs_cc
def test_two_processes_at_once_and_a_fork_agree(counted):
    source = double()
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    options = {"cwd": ROOT, "encoding": "utf-8", "stdin": -1, "stdout": -1}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ask = lambda process: process.communicate(source, timeout=120)[0].strip()
        told = list(pool.map(ask, both))
    assert [process.returncode for process in both] == [0, 0]
    before = compiled(counted)
    assert told == 2 * [targets.targets(source, ("Double",))["Double"]]
    assert compiled(counted) == before


@needs_cc
def test_a_sanitizer_of_a_program_sees_what_it_is_for(tmp_path):
    source = "int main(int n, char **v) { int a[2] = {0}; return a[n + 1] + !v; }\n"
    compiler, path = compilers.find_compiler(), tmp_path / "program"
    compile_program(compiler, source, path, build_flags(compiler, sanitize="undefined"))
    run = subprocess.run([path], capture_output=True, encoding="utf-8", check=False)
    assert run.returncode
    assert "index 2 out of bounds" in run.stderr


# Compilers.


def only(monkeypatch, folder):
    """Leaves one folder on PATH."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", str(folder))


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch, tmp_path):
    only(monkeypatch, tmp_path / "bin")
    with pytest.raises(NoCompiler, match=r"cc, clang, gcc on PATH, or the package zig"):
        targets.targets(double(), ("Double",))
    with pytest.raises(NoCompiler, match=r"got none; .*jrnn\[cpu\]\".*jrnn.bptt\(\)"):
        targets.targets(double(), ("Double",))


@pytest.mark.parametrize("named", ["/no/such/cc -m64", "'unfinished"])
def test_a_compiler_that_is_named_must_be_there(monkeypatch, named):
    monkeypatch.setenv("JRNN_CC", named)
    with pytest.raises(NoCompiler, match=r"Expected JRNN_CC to .*got .*(cc -m|unfin)"):
        compilers.find_compiler()


@needs_cc
def test_a_compiler_that_makes_no_library_is_passed_over(monkeypatch, tmp_path):
    real, folder = shutil.which("cc"), tmp_path / "bin"
    script(
        folder / "cc", "test $1 = --version && exit", "echo error: no crti.o", "exit 1"
    )
    script(folder / "gcc", f'exec {real} "$@"')
    zig = script(tmp_path / "zig", "exit 1")
    monkeypatch.setenv("PATH", f"{folder}:/nowhere")
    monkeypatch.setattr(compilers, "_zig", lambda: str(zig))
    script(folder / "clang", "exit 1")  # not even its version
    with monkeypatch.context() as patch:
        # gcc calls its own parts by absolute paths, but for as and ld.
        tools = {
            Path(str(shutil.which(name, path="/usr/bin:/bin"))) for name in ("as", "ld")
        }
        for tool in tools:
            (folder / tool.name).symlink_to(tool)
        patch.setattr(compilers, "_zig", lambda: None)
        assert compilers.find_compiler().command == (str(folder / "gcc"),)
    (folder / "gcc").unlink()
    with pytest.raises(NoCompiler, match=r"got .*/cc fails \(error: no crti.o\); inst"):
        compilers.find_compiler()


@needs_cc
def test_the_compiler_of_the_ziglang_package_is_the_last(monkeypatch, tmp_path):
    zig = script(
        tmp_path / "zig",
        'test "$1" = cc && shift',
        "for a; do",
        '  shift; case $a in -mcpu=native|-rtlib=none);; *) set -- "$@" "$a";; esac',
        "done",
        f'exec {shutil.which("cc")} "$@"',
    )
    monkeypatch.setattr(compilers, "_zig", lambda: str(zig))
    assert compilers.find_compiler().family != "zig"
    monkeypatch.setattr(compilers, "NAMES", ())
    forget(monkeypatch)
    found = compilers.find_compiler()
    assert (found.family, found.command) == ("zig", (str(zig), "cc"))
    assert "-mcpu=native" in build_flags(found)


@needs_cc
def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    complain = "for n in $(seq 30); do echo complaint $n; done; exit 3"
    path = script(tmp_path / "cc", "test $1 = --version && exit", complain)
    monkeypatch.setenv("JRNN_CC", str(path))
    with pytest.raises(CompileError, match="got status 3") as caught:
        targets.targets(double(), ("Double",))
    lines = str(caught.value).splitlines()
    assert f"{path} -std=c11 " in lines[1]
    assert lines[2].strip() == "complaint 1"
    assert lines[-1].strip() == f"complaint {toolchain.SHOWN}"
    script(path, "exit 0")  # and says nothing
    with pytest.raises(CompileError, match="got no file"):
        targets.targets(double(), ("Double",))
    script(path, 'for last; do :; done; echo > "$last"; exit 1')  # it was killed
    with pytest.raises(CompileError, match="got status 1"):
        toolchain.compile_library(
            toolchain.Compiler((str(path),), "", path, ""), "", ()
        )


@needs_cc
def test_code_that_does_not_compile_is_told_and_not_kept(tmp_path):
    for _ in range(2):
        with pytest.raises(CompileError, match="nonsense"):
            targets.targets("nonsense !", ("Double",))
    compilers.find_compiler()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # of the trial


@needs_cc
def test_a_compiler_that_hangs_is_killed_with_its_children(monkeypatch, tmp_path):
    alive = tmp_path / "alive"
    child = f"(for n in $(seq 300); do echo >> {alive}; sleep 0.1; done) &"
    path = script(tmp_path / "cc", "test $1 = --version && exit", child, "wait")
    compiler = toolchain.describe([str(path)])
    monkeypatch.setattr(toolchain, "LIMIT", 0.2)
    begun = time.perf_counter()
    with pytest.raises(CompileError, match="no end after 0 seconds"):
        toolchain.compile_library(compiler, double(), ())
    assert time.perf_counter() - begun < 20  # it does not wait for the child
    written = alive.exists() and alive.stat().st_size
    time.sleep(0.3)
    assert written == (alive.exists() and alive.stat().st_size)


@needs_cc
def test_a_symbol_that_is_not_visible_is_named():
    with pytest.raises(CompileError, match="a function 'Hidden', got none that is vis"):
        targets.targets(double(), ("Double", "Hidden"))


@needs_cc
def test_a_line_on_a_terminal_alone(monkeypatch, capsys):
    compiler = compilers.find_compiler()
    flags = build_flags(compiler)
    compile = lambda source: library.library(
        source, compiler, flags, "the CPU kernel of lstm"
    )
    compile(double())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    source = double()
    compile(source)
    told = "jrnn: compiling the CPU kernel of lstm for this machine (once)"
    assert capsys.readouterr() == ("", f"{told} ...\n")
    compile(source)
    assert capsys.readouterr() == ("", "")
