"""python -m experiments.benchmarks.bitwise OLD NEW --help.

Do two commits compute the same, bit for bit? Either is laid out in a folder of its own
and run there, with the same Python and flags: every cell of the tests' registry by
every method that takes it, in two shapes, in float32 and float64 (initial parameters,
outputs, final states, gradients of parameters, inputs and starting state), and one
short run of each experiment (all numbers of its results that no clock has set). What
differs is printed, in units in the last place; then the status is 1. Bits differ
between machines and numbers of cores: both commits run on this one, a commit that
--cache has met before excepted.
"""

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import jax
import tyro
from tqdm import tqdm

from experiments import lab
from experiments.benchmarks.bitwise import cells, commands
from experiments.benchmarks.bitwise.arrays import compare_folders

DTYPES = ("float32", "float64")
SHARE = 14  # cells in a process; the compiler's memory is freed between processes
MANY = 56  # cells, of a registry that is not known here
ALL, NONE = "all", "none"
METHODS = tuple(cells.METHODS)
EVERY = (ALL, NONE, *commands.COMMANDS)
CELLS, EXPERIMENTS = "cells", "experiments"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compare two commits bit for bit."""

    old: tyro.conf.Positional[str]
    """A commit, a branch, or a folder with a working tree."""
    new: tyro.conf.Positional[str]
    """Another, such as the folder "."."""
    cells: tuple[str, ...] = ()
    """Names of the registry; none: all of either commit."""
    methods: Annotated[tuple[str, ...], lab.among(METHODS)] = METHODS
    """Names of methods."""
    dtypes: Annotated[tuple[str, ...], lab.among(DTYPES)] = DTYPES
    """Types."""
    experiments: Annotated[tuple[str, ...], lab.among(EVERY)] = (ALL,)
    """Which experiments: all, none, or names."""
    skip_cells: bool = False
    """Compare experiments alone."""
    ulps: Annotated[float, lab.at_least(0)] = 0.0
    """Largest difference that is let pass, in units in the last place."""
    jobs: lab.Count = 2
    """Processes at a time."""
    cache: Path | None = None
    """A folder that keeps the results of commits (not of folders) for another time."""

    def chosen(self) -> list[str]:
        """Returns the names of the chosen experiments."""
        every = [] if NONE in self.experiments else list(commands.COMMANDS)
        return every if {ALL, NONE} & set(self.experiments) else list(self.experiments)


def git(*words: str) -> bytes:
    """Returns what git prints."""
    command = ["git", *words]
    return subprocess.run(command, capture_output=True, check=True).stdout


def commit_of(name: str) -> str | None:
    """Returns the hash of a commit, None for a folder with a working tree.

    Raises:
      ValueError: It is neither.
    """
    if (Path(name) / "jrnn").is_dir():
        return None
    try:
        found = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise ValueError(
            f"Expected a commit or a folder with jrnn, got {name!r}."
        ) from error
    return found.decode().strip()


def lay_out(commit: str, folder: Path) -> Path:
    """Writes the files of a commit to a folder and returns it."""
    root = git("rev-parse", "--show-toplevel").decode().strip()
    packed = git("-C", root, "archive", commit)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def surroundings(root: Path, dtype: str = DTYPES[0]) -> dict[str, str]:
    """Returns the environment of a run; the settings of JAX's cache stay."""
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "agg",
        "XLA_FLAGS": "",
        "JAX_ENABLE_X64": str(int(dtype == DTYPES[1])),
    }


def run_share(job: dict[str, object], environment: dict[str, str]) -> None:
    """Runs some cells within a commit.

    Raises:
      ValueError: It did not come to its end.
    """
    command = [sys.executable, "-P", cells.__file__, json.dumps(job)]
    root = str(job["root"])
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(f"The cells of {root} did not run:\n{done.stderr[-3000:]}")


def jobs_of(root: Path, results: Path, settings: Settings) -> list:
    """Returns what is to be run in one commit, as functions without arguments."""
    found = []
    shares = -(-(len(settings.cells) or MANY) // SHARE)
    for dtype in () if settings.skip_cells else settings.dtypes:
        job = {"root": str(root), "folder": str(results / CELLS), "dtype": dtype}
        job |= {"cells": settings.cells, "methods": settings.methods}
        for start in range(shares):
            own = {**job, "share": (start, shares)}
            found.append((run_share, own, surroundings(root, dtype)))
    (results / EXPERIMENTS).mkdir(parents=True, exist_ok=True)
    for name in settings.chosen():
        path = results / EXPERIMENTS / f"{name}.json"
        if not path.exists():
            found.append((commands.run, name, path, root, surroundings(root)))
    return found


def names_of(folder: Path, settings: Settings) -> list[str]:
    """Returns the chosen files of results in a folder, by their names within."""
    found = [f"{EXPERIMENTS}/{name}.json" for name in settings.chosen()]
    dtypes = () if settings.skip_cells else settings.dtypes
    for path in sorted((folder / CELLS).rglob("*.npz")):
        cell, method, dtype = path.relative_to(folder / CELLS).with_suffix("").parts
        chosen = method in settings.methods and dtype in dtypes
        if chosen and cell in (settings.cells or (cell,)):
            found.append(path.relative_to(folder).as_posix())
    return found


def kept_in(settings: Settings, commit: str | None, temporary: Path) -> Path:
    """Returns where results go: a cache by commit and by what decides on the bits."""
    if settings.cache is None or commit is None:
        return temporary
    files = [Path(cells.__file__), Path(commands.__file__)]
    decides = [path.read_text(encoding="utf-8") for path in files]
    decides += [jax.__version__, str(os.cpu_count()), sys.version]
    key = hashlib.sha256("\n".join(decides).encode()).hexdigest()[:12]
    return settings.cache.resolve() / f"{commit[:12]}-{key}"


def run(settings: Settings, temporary: Path) -> int:
    """Runs both commits, prints what differs, returns the status."""
    started = time.monotonic()
    results, jobs = [], []
    for side, name in (("old", settings.old), ("new", settings.new)):
        commit = commit_of(name)
        root = temporary / f"{side} tree"
        root = Path(name).resolve() if commit is None else lay_out(commit, root)
        results.append(kept_in(settings, commit, temporary / side))
        jobs += jobs_of(root, results[-1], settings)
    with ThreadPoolExecutor(settings.jobs) as pool:
        waiting = [pool.submit(function, *given) for function, *given in jobs]
        for one in tqdm(waiting, unit="process"):
            one.result()
    names = dict.fromkeys(n for folder in results for n in names_of(folder, settings))
    shared, found = compare_folders(results[0], results[1], list(names))
    beyond = [one for one in found if one.ulps > settings.ulps]
    columns = {
        "differs": lambda one: one.name,
        "units in the last place": lambda one: one.why or f"{one.ulps:,.0f}",
    }
    if found:
        print("\n" + lab.table_of(found, columns))
    print(
        f"Compared {shared:,} arrays and numbers in {len(names):,} files; "
        f"{len(found):,} differ, {len(beyond):,} by more than {settings.ulps:g} units "
        f"in the last place. It took {time.monotonic() - started:,.0f} seconds."
    )
    return int(bool(beyond) or not shared)


def run_apart(settings: Settings) -> int:
    """Runs both commits, with a folder that goes afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        return run(settings, Path(temporary))


main = lab.main_of(Settings, __doc__, run_apart)

if __name__ == "__main__":
    raise SystemExit(main())
