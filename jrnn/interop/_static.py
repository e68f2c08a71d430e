"""A cell as one static attribute of another library's module."""

from typing import Any

from jrnn.core.cell import Cell
from jrnn.core.check import check_cell


class Static:
    """Holds a cell, which other libraries would take apart as the pytree that it is."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Static) and self.cell == other.cell

    def __hash__(self) -> int:
        return hash(self.cell)

    def __repr__(self) -> str:
        return repr(self.cell)


def hold(cell: Any) -> Static:
    """Returns a cell as a static attribute; raises TypeError for anything else."""
    if isinstance(cell, Static):
        return cell
    check_cell(cell)
    return Static(cell)
