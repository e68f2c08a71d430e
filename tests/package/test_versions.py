"""CI tests the versions in pyproject.toml, and all extras can be installed."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
EXTRAS = PROJECT["optional-dependencies"]
ACCELERATORS = ("cuda12", "cuda13", "tpu")
WORKFLOWS = ROOT / ".github" / "workflows"


def bounds(name: str) -> SpecifierSet:
    (found,) = [
        wanted.specifier
        for wanted in map(Requirement, PROJECT["dependencies"])
        if wanted.name == name
    ]
    return found


def listed(workflow: str, name: str) -> list[Version]:
    """Returns the values of an axis of a workflow's matrix."""
    text = (WORKFLOWS / workflow).read_text(encoding="utf-8")
    (values,) = re.findall(rf"^ +{name}: \[(\"\d.*)\]$", text, flags=re.MULTILINE)
    return [Version(value) for value in re.findall(r"[\d.]+", values)]


def test_the_workflow_tries_every_minor_version_of_jax():
    assert bounds("jax") == bounds("jaxlib")
    minors = [Version(f"0.{minor}") for minor in range(100)]
    assert listed("ci.yml", "jax") == [v for v in minors if v in bounds("jax")]


def test_the_workflow_tries_every_python_that_the_wheel_names():
    name = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    named = [Version(m[1]) for m in map(name.fullmatch, PROJECT["classifiers"]) if m]
    assert listed("ci.yml", "python") == named
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in named)
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_installed_jax_is_supported():
    # Beyond the upper bound is what the nightly workflow tries.
    (lower,) = [s for s in bounds("jax") if s.operator == ">="]
    assert lower.contains(importlib.metadata.version("jax"), prereleases=True)


def test_the_wheel_tells_whose_it_is_and_what_for():
    assert PROJECT["license"] == "Apache-2.0"  # and no classifier besides: PEP 639
    assert not [c for c in PROJECT["classifiers"] if c.startswith("License")]
    assert "Typing :: Typed" in PROJECT["classifiers"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for author in PROJECT["authors"]:
        assert f'- name: "{author["name"]}"' in citation


@pytest.mark.parametrize("extra", ACCELERATORS)
def test_extras_for_accelerators_are_jaxs_own(extra):
    """pip passes over an extra that there is not, and installs jax for CPUs alone."""
    (wanted,) = map(Requirement, EXTRAS[extra])
    assert wanted.name == "jax"
    assert wanted.extras == {extra}
    about = importlib.metadata.metadata("jax")
    if wanted.specifier.contains(about["Version"], prereleases=True):
        assert extra in about.get_all("Provides-Extra", [])


def resolve(extras):
    """Lets pip find versions that go together."""
    wanted = f"{ROOT}[{','.join(extras)}]"
    options = ["--dry-run", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, wanted],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "does not provide the extra" not in run.stdout + run.stderr


@pytest.mark.slow
def test_every_extra_without_an_accelerator_resolves():
    resolve(sorted(EXTRAS.keys() - set(ACCELERATORS)))


@pytest.mark.nightly  # gigabytes, for pip fetches whole wheels
@pytest.mark.parametrize("extra", ACCELERATORS)
def test_extras_for_accelerators_resolve(extra):
    resolve([extra])
