"""The installed package: bare imports, public names, and one version everywhere."""

import ast
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import jrnn
from jrnn.core.draw import OfGates

ROOT = Path(__file__).parents[2]

# Accelerator hosts are often bare: these must not be needed, not even lazily.
BARE_IMPORT = """
import sys

class Refuse:
    blocked = (
        "flatbuffers flax hypothesis matplotlib optax orbax safetensors tqdm tyro"
    ).split()

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Refuse())
import jax
import jrnn
assert not any(name.startswith("jax.experimental.pallas") for name in sys.modules)
model = jrnn.sequence_model(jrnn.gru(3, 4), jrnn.categorical(3))
params = model.init(jax.random.key(0))
print(model.log_prob(params, jax.numpy.array([0, 1, 2]))[1].shape)
"""

# Functions whose whole behaviour is their first line, and those that make cells: their
# examples are docs/your_own_cell.md.
WITHOUT_EXAMPLE = {"linear", "adjoint_of", "dense"}


def toml() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.longer
def test_importing_needs_jax_chex_and_jaxtyping_alone() -> None:
    run = subprocess.run(
        [sys.executable, "-c", BARE_IMPORT],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(3,)"


def public_names() -> dict[str, object]:
    """What a user may name: what is flat, and what the submodules show."""
    found = {f"jrnn.{name}": getattr(jrnn, name) for name in jrnn.__all__}
    for name, module in list(found.items()):
        if isinstance(module, types.ModuleType):
            shown = getattr(module, "__all__", None) or vars(module)
            mine = {own: getattr(module, own) for own in shown if own[0] != "_"}
            found |= {f"{name}.{own}": thing for own, thing in mine.items()}
    home = lambda thing: getattr(thing, "__module__", getattr(thing, "__name__", ""))
    return {name: thing for name, thing in found.items() if "jrnn" in home(thing)}


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_is_documented(name: str) -> None:
    thing = public_names()[name]
    text = thing.__doc__ or ""
    assert text.strip()
    if isinstance(thing, type | types.ModuleType | jrnn.heads.Kernel | OfGates):
        return  # an instance has the documentation of its type
    if name.rpartition(".")[2] not in WITHOUT_EXAMPLE:
        assert ">>>" in text


def test_few_names_are_flat() -> None:
    flat = [
        n for n in jrnn.__all__ if not isinstance(getattr(jrnn, n), types.ModuleType)
    ]
    assert len(flat) <= 28


def test_all_is_sorted_and_is_what_is_reexported() -> None:
    source = Path(jrnn.__file__).read_text(encoding="utf-8")
    # Not what is loaded when it is used, nor what __init__ itself needs.
    imports = [n for n in ast.parse(source).body if isinstance(n, ast.ImportFrom)]
    names = [alias for node in imports for alias in node.names]
    names = [alias for alias in names if not (alias.asname or "").startswith("_")]
    assert all(alias.asname == alias.name for alias in names)
    assert sorted(jrnn.__all__) == jrnn.__all__
    assert {alias.name for alias in names} == set(jrnn.__all__)


def test_one_version_everywhere() -> None:
    assert toml()["project"]["version"] == jrnn.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {jrnn.__version__}\n" in citation


def lower_bounds() -> dict[str, Version]:
    """What pyproject.toml promises to run with, by normalised name."""
    project = toml()["project"]
    extras = project["optional-dependencies"]
    optional = [*extras["experiments"], *extras["files"], *extras["test"]]
    lines = [*project["dependencies"], *optional]
    bounds = {}
    for wanted in map(Requirement, lines):
        for specifier in wanted.specifier:
            if specifier.operator in (">=", "=="):
                bounds[wanted.name.lower()] = Version(specifier.version)
    return bounds


def test_the_oldest_set_is_the_lower_bounds() -> None:
    text = (ROOT / "constraints" / "oldest.txt").read_text(encoding="utf-8")
    pairs = re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)
    pinned = {name.lower(): Version(version) for name, version in pairs}
    bounds = lower_bounds()
    assert {name: pinned.get(name) for name in bounds} == bounds
