"""Imports go one way between folders, by the import statements, without importing."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jrnn").rglob("*.py"))

# What each folder or file of jrnn may import. Cells do not know each other, nor any
# method; no method, and no part of `run`, knows a cell; nobody knows interop.
BELOW = {
    "core": set(),
    "activations": {"core"},
    "initializers": {"core"},
    "cells": {"core", "activations", "initializers"},
    "wrappers": {"core", "initializers"},
    "kernels": {"core"},
    "methods": {"core", "kernels"},
    "run": {"core", "methods"},
    "diagnostics": {"core", "methods", "run"},
    "heads": {"core", "initializers"},
    "models": {"core", "heads", "initializers", "methods", "run"},
    "train": {"core", "diagnostics", "models"},
}
BELOW["__init__"] = {*BELOW, "interop"}
BELOW["__main__"] = {*BELOW}  # a program, which nothing imports
SHARED_BY_CELLS = {"jrnn.cells._jacobian_bounds"}

# numpy comes with jax; all else beside the standard library has its few places: files,
# or whole folders.
FOREIGN = {"chex", "jax", "jaxtyping", "numpy"}
FOREIGN_BESIDES = {
    "train/step": {"optax"},
    "train/checkpoint/arrays": {"orbax"},
    "interop/equinox": {"equinox"},
    "interop/flax": {"flax"},
    "interop/export/__init__": {"flatbuffers"},
    "interop/files/container": {"safetensors"},
    "interop/keras": {"keras"},
    "interop/torch": {"torch"},
}


def imported(path: Path) -> Iterator[str]:
    """The dotted name of every import, `from jrnn.x import y` as `jrnn.x.y`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            names = [alias.name for alias in node.names]
            source = str(node.module)
            own = source.split(".")[0] == "jrnn"
            yield from (f"{source}.{n}" for n in names) if own else [source]


def layer(module: str) -> str:
    """The folder or file that is a module's first name below jrnn, or a program."""
    if module.endswith(".__main__"):
        return "__main__"
    return module.removeprefix("jrnn").removeprefix(".").split(".")[0] or "__init__"


def place(path: Path) -> str:
    return path.relative_to(ROOT / "jrnn").with_suffix("").as_posix()


def module(path: Path) -> str:
    return f"jrnn.{place(path)}".replace("/", ".").removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def modules_imported(path: Path) -> set[str]:
    """The modules of jrnn that a file imports, without the packages they are in."""
    found = set()
    for name in imported(path):
        while name not in MODULES and "." in name:
            name = name.rpartition(".")[0]  # `from jrnn.x import y` names y in x
        found.add(name)
    return found & MODULES.keys()


@pytest.mark.parametrize("path", FILES, ids=place)
def test_each_layer_imports_only_what_lies_below(path: Path) -> None:
    here = layer(module(path))
    own = {layer(name) for name in imported(path) if name.startswith("jrnn")}
    if here != "interop":
        above = own - BELOW[here] - {here}
        assert not above, f"{place(path)} imports {above}"


def test_no_cell_knows_another() -> None:
    cells = {name for name in MODULES if name.startswith("jrnn.cells.")}
    for name in cells - SHARED_BY_CELLS:
        known = modules_imported(MODULES[name]) & cells
        assert known <= SHARED_BY_CELLS, f"{name} imports {known}"


def test_no_modules_import_each_other() -> None:
    """Removes modules that import none of the others until none is left."""
    left = {name: modules_imported(path) - {name} for name, path in MODULES.items()}
    while left:
        free = {name for name, others in left.items() if not others & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in free}


@pytest.mark.parametrize("path", FILES, ids=place)
def test_other_libraries_have_their_places(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)} - {"jrnn"}
    foreign = roots - sys.stdlib_module_names
    parents = [place(path), *map(str, PurePosixPath(place(path)).parents)]
    allowed = FOREIGN.union(*(FOREIGN_BESIDES.get(own, ()) for own in parents))
    assert foreign <= allowed, f"{place(path)} imports {foreign - allowed}"


@pytest.mark.parametrize(
    ("file", "allowed"), [("reference", set()), ("reference_long", {"tests"})]
)
def test_the_numpy_reference_shares_no_code(file: str, allowed: set) -> None:
    names = set(imported(ROOT / "tests" / f"{file}.py"))
    roots = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert roots <= {"numpy", "jaxtyping"} | allowed
    assert {name for name in names if name.startswith("tests")} <= {"tests.reference"}
