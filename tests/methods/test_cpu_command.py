"""`python -m jrnn.kernels.cpu`: build, info, clear, and errors in one line."""

import pytest

from jrnn.kernels.cpu import store, targets
from jrnn.kernels.cpu.__main__ import main
from tests.cpu_kernel import double, forget, needs_cc
from tests.cpu_kernel import empty as empty


@pytest.fixture
def prepare():
    """Stands in for what makes a cell's kernel; refuses an RNN without gates."""
    sources = {}

    def prepare(cell, dtype):
        if cell.gated is None:
            raise ValueError(f"Expected a cell with gates, got {cell}.")
        source = sources.setdefault((cell, dtype), double())
        label = f"{cell.spec.name} in {dtype}"
        return targets.targets(source, ("Double",), label=label)

    return prepare


@needs_cc
def test_kernels_are_compiled_told_and_cleared(prepare, capsys, monkeypatch):
    assert main(["build"], prepare) == 0
    out, err = capsys.readouterr()
    assert err == ""
    compiler, *lines = out.splitlines()
    assert compiler.startswith("compiler: ")
    cells = [
        f"{c} in {d}" for c in ("elman", "lstm", "gru") for d in ("float32", "float64")
    ]
    assert [line.split(":")[0] for line in lines] == cells
    assert all(": compiled in " in line for line in lines)
    forget(monkeypatch)
    assert main(["build", "lstm", "--dtype", "float32"], prepare) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "lstm in float32: compiled before"
    ]
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    assert str(store.cache_folder()) in told
    assert "-O3" in told
    assert all(f"  {cell}: " in told for cell in cells)
    assert main(["clear"]) == 0
    assert str(store.cache_folder()) in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "lstm" not in capsys.readouterr().out


@needs_cc
def test_a_cell_that_fails_does_not_stop_the_others(prepare, capsys):
    assert main(["build", "min_gru", "dense", "Field", "nothing", "gru"], prepare) == 1
    out, err = capsys.readouterr()
    told = [line.split(":")[0] for line in err.splitlines()]
    assert told == [
        f"{cell} in {dtype}"
        for cell in ("min_gru", "dense", "Field", "nothing")
        for dtype in ("float32", "float64")
    ]
    assert "Expected a cell with gates" in err
    for name in ("dense", "Field", "nothing"):
        assert err.count(f"cells, such as elman, lstm, gru, got '{name}'.") == 2
    assert out.count("gru in float") == 2


def test_without_a_compiler_one_line_says_so(prepare, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["build"], prepare) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("Expected a C compiler")
    assert main(["info"]) == 0
    assert "compiler  none: Expected a C compiler" in capsys.readouterr().out


@needs_cc
def test_a_cache_that_cannot_be_written_is_told(prepare, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JRNN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert main(["build", "gru"], prepare) == 1
    assert capsys.readouterr().err.count("cannot be written: set JRNN_CACHE_DIR") == 2
    assert main(["info"]) == 0
    assert "/file/cache, which cannot be written" in capsys.readouterr().out


def test_an_unsafe_cache_is_told(capsys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    for command in ("build", "info", "clear"):
        assert main([command]) == 1
        assert "is a symbolic link; remove it" in capsys.readouterr().err


def test_the_command_says_what_it_takes(capsys):
    for wrong in ([], ["sell"], ["build", "--dtype", "int8"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "usage: python -m jrnn.kernels.cpu" in capsys.readouterr().err
