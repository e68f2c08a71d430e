"""Every command reports missing packages at once, and its help works."""

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from experiments import _extras
from experiments.data import (
    ecg,
    glucose,
    pixel_digits,
    spoken_digits,
    stocks,
    text,
)

ROOT = Path(__file__).parents[2]
GUARD = 'if __name__ == "__main__":'
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]

# What each command wants beside `COMMON`, with arguments that ask for it.
WANTED = {
    "benchmarks.bitwise": ([], []),
    "benchmarks.chunk": ([], []),
    "benchmarks.compiling": (
        ["--systems", "haiku", "equinox", "keras"],
        ["haiku", "equinox", "keras"],
    ),
    "benchmarks.eager": ([], []),
    "benchmarks.kernels": ([], []),
    "benchmarks.peers": ([], ["haiku", "equinox", "keras", "torch"]),
    "benchmarks.products": ([], []),
    "benchmarks.profiles": ([], ["torch"]),
    "benchmarks.remat": ([], []),
    "benchmarks.variants": ([], []),
    "benchmarks.walks": ([], []),
    "compare": (["one", "two"], []),
    "digits": (
        ["--tasks", "mnist1d", "rows"],
        ["mnist1d", pixel_digits.WHEEL],
    ),
    "dna": ([], ["pyrodigal"]),
    "ecg": ([], [ecg.WHEEL]),
    "forecast": (
        ["--csv", "a.csv", "--time", "t", "--value", "y"],
        ["pandas", "safetensors"],
    ),
    "forecast ": ([], [glucose.WHEEL, "safetensors"]),
    "glucose": ([], [glucose.WHEEL]),
    "gradient_check": ([], []),
    "gradient_flow": ([], []),
    "language_model": ([], ["pyppmd", text.KJV]),
    "long_memory": (["--only", "pixels", "--lengths", "784"], [pixel_digits.WHEEL]),
    "parallel_in_time": ([], []),
    "parallel_in_time.learning": ([], []),
    "stocks": ([], [stocks.WHEEL]),
    "stocks ": ([], ["arch"]),
    "variable_lengths": ([], [spoken_digits.WHEEL]),
}
ASKING = {name: given for name, given in WANTED.items() if given[1]}
# Processes that a command starts.
CHILDREN = {"benchmarks.bitwise.cells", "benchmarks.peers.memory"}


class Absent:
    """Finds no module of those names, as where they are not installed."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, *_):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


BLOCKER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def commands():
    """Every file that runs as a command, as `python -m` calls it."""
    found = []
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        if GUARD in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT / "experiments").with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return [name for name in found if name and name not in CHILDREN]


def main_of(name):
    path = ROOT.joinpath("experiments", *name.split("."))
    module = f"experiments.{name}.__main__" if path.is_dir() else f"experiments.{name}"
    return importlib.import_module(module).main


@pytest.fixture
def without_extras(monkeypatch, tmp_path):
    """Nothing is installed but what jrnn and every command need."""
    names = set(_extras.INSTALL) - set(_extras.COMMON)
    for name in [n for n in sys.modules if n.split(".")[0] in names]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(names), *sys.meta_path])
    wheels = {wheel for _, given in WANTED.values() for wheel in given}
    packages = {w.package.split("==")[0] for w in wheels if not isinstance(w, str)}
    found = importlib.metadata.Distribution.from_name

    def from_name(name):
        if name in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", from_name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_is_known():
    assert commands() == sorted({name.strip() for name in WANTED})
    asked = {one for _, given in WANTED.values() for one in given}
    modules = {one for one in asked if isinstance(one, str)}
    assert modules == set(_extras.INSTALL) - set(_extras.COMMON)


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize("name", commands())
def test_help_works_without_extras(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main_of(name)(["--help"])
    assert caught.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize("name", ASKING)
def test_what_is_missing_is_told_before_any_work(
    name, without_extras, capsys, monkeypatch
):
    arguments, wanted = ASKING[name]
    if name == "stocks ":  # arch, where there are prices
        monkeypatch.setattr(stocks, "load", lambda: None)
    assert main_of(name.strip())(arguments) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    for one in wanted:
        command = _extras.INSTALL[one] if isinstance(one, str) else one.pip()
        assert command in told
    assert list(without_extras.iterdir()) == []


@pytest.mark.parametrize("name", commands())
def test_what_every_command_needs_is_told_before_anything_is_imported(name, tmp_path):
    blocked = _extras.COMMON if name == commands()[0] else _extras.COMMON[-1:]
    (tmp_path / "sitecustomize.py").write_text(
        BLOCKER.format(names=set(blocked)), encoding="utf-8"
    )
    run = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    verb = "are" if len(blocked) > 1 else "is"
    assert run.stderr == (
        f"error: {', '.join(blocked)} {verb} not installed. "
        'Run: pip install -e ".[experiments]"\n'
    )
    assert run.returncode == 2


def third_party():
    """The packages that experiments import anywhere."""
    found = set()
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"experiments", "jrnn", "tests"}


def test_every_import_is_a_dependency_or_is_asked_for():
    needed = {re.split(r"[><=\[]", line)[0] for line in PROJECT["dependencies"]}
    needed |= {"scipy"}  # of jax
    unknown = third_party() - {name.replace("-", "_") for name in needed}
    assert unknown <= set(_extras.INSTALL)


def test_the_commands_install_what_the_project_says():
    extras = PROJECT["optional-dependencies"]
    pinned = {str(Requirement(line)) for lines in extras.values() for line in lines}
    pinned.add("torch==2.13.0")  # from README: no extra brings it
    assert "pip install torch==2.13.0" in (ROOT / "README.md").read_text("utf-8")
    packages = {"haiku": "dm-haiku"}
    for module, command in _extras.INSTALL.items():
        extra = re.fullmatch(r'pip install -e "\.\[(\w+)\]"', command)
        name = packages.get(module, module)
        if extra is None:
            assert command.removeprefix("pip install ") in pinned
            assert command.startswith(f"pip install {name}==")
        else:
            assert name in {Requirement(line).name for line in extras[extra[1]]}
