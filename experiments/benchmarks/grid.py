"""Commands that measure every cell at every shape of the grid."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from tqdm import tqdm

from experiments import lab
from experiments.benchmarks.peers.problems import CELLS, GRID, Shape

Rows = list[dict[str, Any]]
Cells = Annotated[tuple[str, ...], lab.among(CELLS)]
Shapes = Annotated[tuple[int, ...], lab.among(range(len(GRID)))]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Settings that begin with the cells and the shapes."""

    cells: Cells = CELLS
    """Which cells."""
    shapes: Shapes = tuple(range(len(GRID)))
    """Which shapes of the grid, by number."""


def measured(
    settings: Any,
    measure: Callable[[str, Shape, Any], Iterable[dict[str, Any]]],
    keep: Callable[[Rows], None] | None = None,
) -> Rows:
    """Returns the rows of all cells and shapes that the settings name.

    Args:
      settings: Of the command.
      measure: Yields the rows of one cell and shape.
      keep: Called with all rows so far after each comparison, to save them.
    """
    grid = [
        (cell, GRID[number]) for cell in settings.cells for number in settings.shapes
    ]
    found = (measure(*one, settings) for one in tqdm(grid, unit="comparison"))
    rows: Rows = []
    for some in found:
        rows += some
        if keep is not None:
            keep(rows)
    return rows


def written(
    settings: Any,
    name: str,
    rows: Rows,
    tables: Iterable[str] = (),
    about: Mapping[str, Any] | None = None,
) -> int:
    """Prints tables, writes the results and says where; returns 0."""
    for table in tables:
        print("\n" + table)
    lab.write_results(settings, name, about, rows=rows)
    print(f"Written to {settings.out}.")
    return 0


def label(row: Mapping[str, Any]) -> str:
    """Returns a row's cell and shape, as they stand in a table."""
    return f"{row['cell']} {Shape(*row['shape'])}"


def ratio_line(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Returns a row's ratios, empty where there is none."""
    return [f"{row['ratios'][n]:.2f}" if n in row["ratios"] else "" for n in names]


def geometric_means(rows: Rows, names: Sequence[str], digits: str) -> list[str]:
    """Returns the geometric means of the rows' ratios, empty where there is none."""
    found = ([r["ratios"][n] for r in rows if n in r["ratios"]] for n in names)
    mean = lambda ratios: format(statistics.geometric_mean(ratios), digits)
    return [mean(ratios) if ratios else "" for ratios in found]
