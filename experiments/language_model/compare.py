"""Several runs side by side: over seeds, or over sizes of the training text."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments import lab
from experiments.language_model import figures


@dataclasses.dataclass(frozen=True)
class Compare:
    """Put the results of several runs side by side, in bits per character of test."""

    results: tuple[Path, ...]
    """Files results.json, of runs that differ in --seed, --fraction or --data."""
    figure: Path | None = None
    """Where to draw bits per character against training characters, as PNG."""


def compare(command: Compare) -> int:
    """Prints one table, and the spread over runs of equal training text.

    Raises:
      ValueError: A file is not of this experiment, or a figure was asked of one size.
    """
    runs = [_read(path) for path in command.results]
    runs.sort(key=lambda run: (_size(run), run["settings"]["seed"]))
    names = list(dict.fromkeys(name for run in runs for name in _bits(run)))
    header = ("training characters", *(f"{_size(run):,}" for run in runs))
    seeds = ("seed", *(str(run["settings"]["seed"]) for run in runs))
    bits = list(map(_bits, runs))
    shown = lambda name: (f"{b[name]:.3f}" if name in b else "" for b in bits)
    lines = [(name, *shown(name)) for name in names]
    tqdm.write(lab.format_table(header, [seeds, *lines]))
    for line in spreads(runs):
        tqdm.write(line)
    if command.figure is not None:
        _draw(command.figure, runs, names)
    return 0


def spreads(runs: list[dict[str, Any]]) -> list[str]:
    """Returns, for models whose runs differ in the seed alone, mean and deviation."""
    groups: dict[tuple[int, str], list[float]] = {}
    for run in runs:
        for name, bits in _bits(run).items():
            groups.setdefault((_size(run), name), []).append(bits)
    return [
        f"{name}, {size:,} characters: {statistics.mean(bits):.3f}, "
        f"standard deviation {statistics.stdev(bits):.3f} over {len(bits)} runs"
        for (size, name), bits in groups.items()
        if len(bits) > 1 and max(bits) > min(bits)
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content["experiment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a results file of language_model, got {path}: {error}."
        ) from error
    if kind != "language_model":
        raise ValueError(f"Expected a results file of language_model, {path} is {kind}")
    return content


def _size(run: dict[str, Any]) -> int:
    return int(run["corpus"]["train_characters"])


def _bits(run: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: float(row["test"]) for row in run["rows"]}


def _draw(path: Path, runs: list[dict[str, Any]], names: list[str]) -> None:
    sizes = sorted({_size(run) for run in runs})
    if len(sizes) < 2:
        raise ValueError(
            f"Expected runs of several --fraction for a figure, all have {sizes[0]:,} "
            "training characters."
        )
    learners = [name for name in names if len(name.split()) == 1 and name != "uniform"]
    chains = [name for name in names if name.startswith("markov ")]
    points = lambda name: [(size, _mean(runs, size, name)) for size in sizes]
    curves = {name: points(name) for name in (*learners, *chains)}
    title = f"What data buys ({runs[0]['corpus']['name']}, held-out text)"
    figures.data_sizes(path, curves, title)


def _mean(runs: list[dict[str, Any]], size: int, name: str) -> float:
    return statistics.mean(_bits(run)[name] for run in runs if _size(run) == size)
