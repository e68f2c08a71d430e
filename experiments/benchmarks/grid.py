"""Commands that measure every cell at every shape of the grid."""

import dataclasses
from collections.abc import Callable, Mapping
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


def measured(settings: Any, measure: Callable[[str, Shape, Any], Rows]) -> Rows:
    """Returns the rows of all cells and shapes that the settings name."""
    grid = [
        (cell, GRID[number]) for cell in settings.cells for number in settings.shapes
    ]
    found = (measure(*one, settings) for one in tqdm(grid, unit="comparison"))
    return [row for rows in found for row in rows]


def written(
    settings: Any, name: str, rows: Rows, about: Mapping[str, Any] | None = None
) -> int:
    """Writes the results and says where; returns 0."""
    lab.write_results(settings, name, about, rows=rows)
    print(f"Written to {settings.out}.")
    return 0
