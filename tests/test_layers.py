"""Imports run one way, read off the import statements without importing anything."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "jrnn").rglob("*.py"))

# Which layers each layer may import. Cells do not know each other, nor any method;
# neither the methods nor `_unroll` know a cell; nobody knows interop.
BELOW = {
    "_caches": set(),
    "_guard": set(),
    "_lazy": set(),
    "_base": set(),
    "_programs": set(),
    "_claims": {"_base", "core"},
    "_tree": {"_base"},
    "core": {"_base", "_lengths", "core"},
    "_lengths": set(),
    "_check": {"_base", "core", "_lengths", "_check"},
    "_guards": {"_base", "_check"},
    "_draw": {"_base", "_check", "core"},
    "_activations": {"_base", "_claims"},
    "_initializers": {"_base", "_check", "_draw"},
    "_parametrised": {"_base", "_claims", "core"},
    "_build": {"_base", "_claims", "_draw", "_parametrised", "core"},
    "_bounds": {"_base", "_claims", "core"},
    "cells": {
        "_activations",
        "_base",
        "_bounds",
        "_build",
        "_check",
        "_claims",
        "_draw",
        "_initializers",
        "_parametrised",
        "core",
    },
    "_every_cell": {"_base", "_build", "_draw", "cells"},
    "initializers": {"_base", "_draw", "_initializers"},
    "wrappers": {
        "_base",
        "_check",
        "_claims",
        "_draw",
        "_initializers",
        "_parametrised",
        "core",
        "_tree",
        "wrappers",
    },
    "kernels": {"_base", "core", "kernels"},
    "methods": {"_base", "core", "_lengths", "_check", "kernels", "methods"},
    "_walk": {"_base", "_claims", "core", "_tree", "methods"},
    "_mesh": {"_base", "core"},
    "_unroll": {
        "_lengths",
        "_base",
        "core",
        "_check",
        "_mesh",
        "_walk",
        "methods",
        "wrappers",
    },
    "_newton_trajectory": {
        "_base",
        "core",
        "_check",
        "_unroll",
        "_walk",
        "methods",
    },
    "_taps": {"_base", "core", "_tree", "methods"},
    "_non_finite": {
        "_lengths",
        "_base",
        "core",
        "_check",
        "_taps",
        "_tree",
        "_unroll",
        "_walk",
        "methods",
    },
    "batching": {"_base", "core"},
    "diagnostics": {
        "_base",
        "_claims",
        "_programs",
        "core",
        "_check",
        "_unroll",
        "_lengths",
        "diagnostics",
        "_tree",
        "methods",
    },
    "regularisers": {"_base", "core", "_check", "diagnostics"},
    "heads": {"_base", "_check", "_draw", "_initializers", "core", "heads"},
    "models": {
        "_lengths",
        "_base",
        "core",
        "_check",
        "_draw",
        "_initializers",
        "_tree",
        "_unroll",
        "_walk",
        "heads",
        "methods",
        "models",
    },
    "train": {
        "_lazy",
        "_programs",
        "_base",
        "core",
        "_check",
        "_unroll",
        "models",
        "train",
    },
}
BELOW["_integers"] = set()
ANYWHERE = {"_caches", "_guard", "_integers"}  # these know nothing of jrnn
for above in set(BELOW) - ANYWHERE - {"_lazy"}:
    BELOW[above] |= ANYWHERE
OF_CELLS = {"cells.__init__": "_every_cell", "cells._bounds": "_bounds"}
CORE = set(BELOW) - {"train"}
BELOW["__init__"] = CORE | {"interop", "train"}  # loaded when they are first used

# numpy comes with jax; all else beside the standard library has its few places.
FOREIGN = {"chex", "jax", "jaxtyping", "numpy"}
FOREIGN_BESIDES = {
    "train/step": {"optax"},
    "train/checkpoint/arrays": {"orbax"},
    "interop/flax": {"flax"},
    "interop/keras": {"keras"},
    "interop/torch": {"torch"},
}


def imported(path: Path) -> Iterator[str]:
    """The dotted name of every import, `from jrnn import x` as `jrnn.x`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            names = [alias.name for alias in node.names]
            bare = node.module == "jrnn"
            yield from (f"jrnn.{n}" for n in names) if bare else [str(node.module)]


def layer(module: str) -> str:
    """The layer of a module: its first name below jrnn, but for two among the cells.

    Checks are one layer: `_check`, and `_check_draws` and its like beside it.
    """
    name = module.removeprefix("jrnn.")
    first = name.split(".")[0]
    first = "_check" if first.startswith("_check_") else first
    return OF_CELLS.get(name, first)


def place(path: Path) -> str:
    return path.relative_to(ROOT / "jrnn").with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=place)
def test_each_layer_imports_only_what_lies_below(path: Path) -> None:
    here = layer(place(path).replace("/", "."))
    own = {layer(name) for name in imported(path) if name.startswith("jrnn")}
    if here != "interop":
        assert own <= BELOW[here], f"{place(path)} imports {own - BELOW[here]}"


@pytest.mark.parametrize("path", FILES, ids=place)
def test_other_libraries_have_their_places(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)} - {"jrnn"}
    foreign = roots - sys.stdlib_module_names
    allowed = FOREIGN | FOREIGN_BESIDES.get(place(path), set())
    assert foreign <= allowed, f"{place(path)} imports {foreign - allowed}"


@pytest.mark.parametrize(
    ("file", "allowed"), [("reference", set()), ("reference_long", {"tests"})]
)
def test_the_numpy_reference_shares_no_code(file: str, allowed: set) -> None:
    names = set(imported(ROOT / "tests" / f"{file}.py"))
    roots = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert roots <= {"numpy", "jaxtyping"} | allowed
    assert {name for name in names if name.startswith("tests")} <= {"tests.reference"}
