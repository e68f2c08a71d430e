"""Runs a few quick tests in a patched copy of the package, away from the real one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("jrnn", "tests")
TIMEOUT = 480  # seconds; a mutant that hangs counts as not noticed


class Mutation(NamedTuple):
    """One possible mistake in the source.

    Attributes:
      name: A description of the mistake.
      file: The source file to change, relative to the root.
      old: A piece of it that occurs exactly once.
      new: Its replacement.
      tests: The quick tests that should notice, as pytest's arguments.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Outcome(NamedTuple):
    """The result of the tests.

    Attributes:
      passed: The number of tests that passed.
      failed: The tests that failed an assertion, because numbers differed.
      broken: Errors of collection, imports and setup, and tests that crashed.
      output: The printed output.
    """

    passed: int
    failed: list[str]
    broken: list[str]
    output: str


def make_copy(folder: Path, mutation: Mutation | None = None) -> None:
    """Copies package and tests to `folder`, and inserts the mistake.

    Raises:
      ValueError: The mistake does not fit the source.
    """
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mutation is None:
        return
    path = folder / mutation.file
    changed = mistaken(path.read_text(encoding="utf-8"), mutation)
    path.write_text(changed, encoding="utf-8")


def mistaken(source: str, mutation: Mutation) -> str:
    """Returns the text of a file with the mistake in it.

    Raises:
      ValueError: The piece to replace does not occur exactly once: the source has
        changed, and the mutation must be updated.
    """
    if source.count(mutation.old) != 1:
        raise ValueError(
            f"Expected the text to replace exactly once in {mutation.file}, found it "
            f"{source.count(mutation.old)} times; bring the mutation up to date:\n"
            f"{mutation.old}"
        )
    return source.replace(mutation.old, mutation.new)


def run_tests(folder: Path, tests: tuple[str, ...]) -> Outcome:
    """Runs pytest in the copy, up to the first failure.

    Raises:
      RuntimeError: The tests did not import the copied jrnn, or wrote no report.
    """
    report = folder / "witness.json"
    # Without the type checker of pyproject.toml's addopts: numbers should notice.
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutations.witness"]
    selection = ["-o", "addopts=", "-m", "not slow and not nightly"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *selection, *tests],
        cwd=folder,
        env=_environment(folder, report),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    if not report.exists():
        raise RuntimeError(f"Expected a report of the tests, got:\n{run.stdout}")
    told = json.loads(report.read_text(encoding="utf-8"))
    if folder.resolve() not in Path(told["jrnn"]).resolve().parents:
        raise RuntimeError(f"Expected the copy in {folder}, tested {told['jrnn']}.")
    return Outcome(told["passed"], told["failed"], told["broken"], run.stdout)


def _environment(folder: Path, report: Path) -> dict[str, str]:
    """Returns the environment without pytest's variables, with the copy first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return kept | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "WITNESS": str(report),
    }
