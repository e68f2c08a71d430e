"""python -m experiments.compare RUN... --help.

In which settings and results do runs of one experiment differ? Each RUN is a folder
with a results.json, or such a file. Prints the settings that differ, what differs in
the machine and the versions, and then every number of the results that all runs have
and that is not the same in all. Numbers over seeds are shown as mean and standard
deviation; curves are left out.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import lab

DIGITS = ".5g"
APART = ("experiment", "settings", "environment")  # these have tables of their own


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compare runs of one experiment."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, or their results files; two at least."""
    only: str = ""
    """Shows only numbers whose name contains this text, equal ones too."""

    def check(self) -> None:
        """Raises ValueError unless there are two runs."""
        if len(self.runs) < 2:
            raise ValueError(
                f"Expected two runs or more to compare, got {len(self.runs)}; name "
                "folders such as runs/stocks/0001, or results files."
            )


def read(path: Path) -> dict[str, Any]:
    """Returns the results of a run.

    Raises:
      ValueError: There is no results file of an experiment.
    """
    file = path / lab.RESULTS_FILE if path.is_dir() else path
    content: dict[str, Any] = lab.read_json(file)
    if not isinstance(content.get("experiment"), str):
        raise ValueError(f"Expected the results of an experiment in {file}, got none.")
    return content


def numbers(results: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yields the name and the text of every number in results.

    A dictionary with a mean and a deviation is one number. Rows of a list are named by
    their texts, and by their whole numbers too where texts do not tell them apart.
    Lists of numbers are left out.

    >>> dict(numbers({"test": {"mean": 1.0, "sd": 0.5, "values": [0.5, 1.5]}}))
    {'test': '1 ± 0.5'}
    >>> dict(numbers([{"cell": "gru", "steps": 8}, {"cell": "lstm", "steps": 9}]))
    {'gru steps': '8', 'lstm steps': '9'}
    """
    if isinstance(results, Mapping):
        if {"mean", "sd", "values"} <= results.keys() and results["mean"] is not None:
            yield name, f"{results['mean']:{DIGITS}} ± {results['sd']:{DIGITS}}"
            return
        for key, value in results.items():
            yield from numbers(value, f"{name} {key}".strip())
    elif isinstance(results, list):
        rows = [row for row in results if isinstance(row, Mapping)]
        for own, row in zip(_names(rows), rows, strict=True):
            measured = {k: v for k, v in row.items() if not isinstance(v, str)}
            yield from numbers(measured, f"{name} {own}".strip())
    elif isinstance(results, int | float) and not isinstance(results, bool):
        yield name, str(results) if isinstance(results, int) else f"{results:{DIGITS}}"


def _names(rows: list[Mapping[str, Any]]) -> list[str]:
    """Returns a name for each row: its texts, with its whole numbers if need be."""
    for kinds in (str, (str, int)):
        own = [[v for v in row.values() if isinstance(v, kinds)] for row in rows]
        names = [" ".join(map(str, values)) for values in own]
        if len(set(names)) == len(names):
            return names
    return [f"{i} {name}" for i, name in enumerate(names)]


def texts(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yields the name and the text of every leaf of nested dictionaries."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from texts(value, f"{name}.{key}".strip("."))
    else:
        yield name, str(settings)


def aligned(runs: list[dict[str, str]], *, equal: bool) -> list[tuple[str, ...]]:
    """Returns a row for each name that a run has: the name, and the text of each run.

    Args:
      runs: The texts of each run by name.
      equal: Whether to keep rows in which all runs agree.
    """
    names = dict.fromkeys(name for run in runs for name in run)
    rows = [(name, *(run.get(name, "") for run in runs)) for name in names]
    return [row for row in rows if equal or len(set(row[1:])) > 1]


def short(paths: tuple[Path, ...]) -> list[str]:
    """Returns the parts of paths in which they differ.

    >>> short((Path("runs/dna/0001/results.json"), Path("runs/dna/0002")))
    ['0001', '0002']
    """
    folders = [path.parent if path.name == lab.RESULTS_FILE else path for path in paths]
    common = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    names = [str(folder.resolve().relative_to(common)) for folder in folders]
    return names if "." not in names else list(map(str, paths))


def compare(settings: Settings) -> int:
    """Prints what differs between runs.

    Raises:
      ValueError: A file cannot be read, or the runs are of several experiments.
    """
    runs = list(map(read, settings.runs))
    kinds = dict.fromkeys(run["experiment"] for run in runs)
    if len(kinds) > 1:
        raise ValueError(
            f"Expected runs of one experiment, got {' and '.join(kinds)}; compare "
            "runs of each by themselves."
        )
    heads = short(settings.runs)
    for title in ("settings", "environment"):
        told = [dict(texts(run.get(title, {}))) for run in runs]
        rows = aligned(told, equal=False)
        _show(title, heads, rows, f"{title}: equal")
    found = [
        dict(numbers({k: v for k, v in run.items() if k not in APART})) for run in runs
    ]
    shared = set(found[0]).intersection(*found[1:])
    kept = [
        {n: t for n, t in run.items() if n in shared and settings.only in n}
        for run in found
    ]
    rows = aligned(kept, equal=bool(settings.only))
    _show("results", heads, rows, "results: equal")
    alone = len(set().union(*found)) - len(shared)
    if not settings.only:
        equal = len(kept[0]) - len(rows)
        print(f"{equal} more numbers are equal, {alone} are not in all of the runs.")
    return 0


def _show(
    title: str, heads: list[str], rows: list[tuple[str, ...]], otherwise: str
) -> None:
    """Prints a table and an empty line, or a sentence if it has no rows."""
    print(lab.format_table([title, *heads], rows) if rows else otherwise, end="\n\n")


main = lab.main_of(Settings, __doc__, compare)

if __name__ == "__main__":
    raise SystemExit(main())
