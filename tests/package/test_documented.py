"""Only documented names of libraries are used: no private name, no equation parameter.

Private names and parameters change between minor versions, and jrnn runs on many.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("jrnn", "experiments", "tests")
FILES = sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))
OWN = {"experiments", "jrnn", "tests", "__future__"}
# Public by name alone: JAX promises nothing of what lies there.
UNDOCUMENTED = ("jax.core", "jax.extend", "jax.interpreters", "jaxlib")
DOCUMENTED = {"jax.core.Tracer"}
NAMED_TUPLES = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
# Of objects that JAX returns, whose class a syntax tree does not tell.
PRIVATE = {"_cache_miss", "_cache_size", "_clear_cache", "_fun", "_src", "_value"}


def private(name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and not dunder and name not in NAMED_TUPLES


def dotted(node: ast.expr, imported: dict[str, str]) -> str | None:
    """Returns the full name of `a.b.c` where `a` was imported."""
    if isinstance(node, ast.Name):
        return imported.get(node.id)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, imported)
        return before and f"{before}.{node.attr}"
    return None


def imports(nodes: list[ast.AST]) -> dict[str, str]:
    """Returns the full name of each name that an import binds."""
    found = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                found[alias.asname or root] = alias.name if alias.asname else root
                found[alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def names(nodes: list[ast.AST]) -> set[str]:
    """Returns the full names of what is used of other libraries."""
    imported = imports(nodes)
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    used = {dotted(node, imported) for node in attributes} | set(imported.values())
    return {name for name in used if name and name.split(".")[0] not in OWN}


def undocumented(name: str) -> bool:
    if any(map(private, name.split("."))):
        return True
    if any(name == known or name.startswith(f"{known}.") for known in DOCUMENTED):
        return False
    return any(name.startswith(f"{module}.") for module in UNDOCUMENTED)


def asks_by_name(node: ast.AST) -> bool:
    """Whether this is `equation.params["name"]`, or `.get("name")` of it."""
    if isinstance(node, ast.Subscript):
        owner, key = node.value, node.slice
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "pop", "setdefault")
        and node.args
    ):
        owner, key = node.func.value, node.args[0]
    else:
        return False
    text = isinstance(key, ast.Constant) and isinstance(key.value, str)
    return text and isinstance(owner, ast.Attribute) and owner.attr == "params"


def mistakes(source: str) -> list[str]:
    """Returns what ought not to be used, in words."""
    nodes = list(ast.walk(ast.parse(source)))
    found = sorted(filter(undocumented, names(nodes)))
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            found.append(f"line {node.lineno}: {node.attr}")
        if asks_by_name(node):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("folder", FOLDERS)
def test_only_what_is_documented_is_used(folder):
    found = {
        path.relative_to(ROOT).as_posix(): wrong
        for path in FILES
        if path.is_relative_to(ROOT / folder)
        and (wrong := mistakes(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "from jax._src import core",
        "import jax._src.core as core",
        "import jax\njax._src.core.Tracer",
        "from jax import core\ncore.jaxprs_in_params",
        "from jax.interpreters import mlir",
        "import jaxlib.xla_client",
        "import numpy as np\nnp._core",
        "import jax\njax.jit(f)._cache_size()",
        "step._cache_size()",
        'equation.params["num_consts"]',
        'eqn.params.get("is_volatile")',
    ],
)
def test_what_is_not_documented_is_seen(source):
    assert mistakes(source)


def test_what_is_documented_may_be_used():
    assert not mistakes(
        "from jax.core import Tracer\nimport jax\njax.core.Tracer\n"
        "from jrnn.core.check import check\nstate._replace(h=h)\neqn.params.values()\n"
    )
