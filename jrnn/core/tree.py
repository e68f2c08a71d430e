"""Cells inside cells: the one walk over `Cell.children`.

A cell with children is not run itself: its children are, each along the whole sequence.
`walk` passes inputs, outputs, noise and directions from one to the next. Whatever needs
this order (running a cell, a single step, statistics, names of layers) uses `walk`, and
nothing else reads `Cell.children`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jrnn.core.cell import Cell
from jrnn.core.claims import current


class Leaf(NamedTuple):
    """A cell that is run itself, and its place in the tree.

    Attributes:
      cells: The cells that contain it, from the outermost inwards, then the cell.
      path: Where its params and state are in those of the outermost cell: one index
        for each level of tuples.
      reverse: Whether it reads the sequence from its end.
      read: Whether another cell reads its outputs.
    """

    cells: tuple[Cell, ...]
    path: tuple[int, ...] = ()
    reverse: bool = False
    read: bool = False

    @property
    def cell(self) -> Cell:
        """The cell that is run."""
        return self.cells[-1]

    @property
    def name(self) -> str:
        """Its path as shown in an error: "[1][0]", or "" if nothing is nested."""
        return "".join(f"[{i}]" for i in self.path)

    def share(self, tree: Any) -> Any:
        """Returns its part of a tree nested like params and state; None for None."""
        if tree is None:
            return None
        return functools.reduce(lambda part, i: part[i], self.path, tree)


Visit = Callable[[Leaf, Any, Any], tuple[Any, ...]]


def runs_itself(cell: Cell) -> bool:
    """Returns whether a cell has no children, which would be run in its place."""
    return cell.children is None


def walk(
    cell: Cell,
    visit: Visit,
    xs: Any = None,
    noise: Any = None,
    *,
    reverse: bool = False,
    whole: Callable[[Cell], bool] = runs_itself,
) -> tuple[Any, ...]:
    """Visits the cells inside `cell` in the order in which they are run.

    Args:
      cell: Any cell; one without children is visited alone.
      visit: (leaf, xs, noise) -> (ys, *results): runs one cell on its own inputs and
        noise, both in the order of the sequence. ys may be None if nothing reads it.
      xs: The inputs of `cell`, with any leading axes; None if `visit` reads none.
      noise: Drawn by `cell.noise`; None: no noise.
      reverse: Whether `cell` reads the sequence from its end.
      whole: Which cells are visited as one; all others must have children.

    Returns:
      (ys, *results): the outputs of `cell`, and each result nested like its state.
    """
    return _walk(Leaf((current(cell),), reverse=reverse), visit, xs, noise, whole)


def _walk(
    leaf: Leaf, visit: Visit, xs: Any, noise: Any, whole: Callable[[Cell], bool]
) -> tuple[Any, ...]:
    if whole(leaf.cell):
        return visit(leaf, xs, noise)
    children = leaf.cell.children
    assert children is not None
    read = xs
    if children.inputs is not None and noise is not None:
        read, noise = children.inputs(xs, noise)
    found = []
    for i, inner in enumerate(_inside(leaf)):
        own = noise[i] if children.nested and noise is not None else noise
        found.append(_walk(inner, visit, read, own, whole))
        if not children.parallel:
            read = found[-1][0]
    shown, *results = zip(*found, strict=True)
    ys = shown[-1]
    if ys is not None:
        ys = jnp.concatenate(shown, axis=-1) if children.parallel else ys
        ys = ys if children.outputs is None else children.outputs(ys, xs)
    return ys, *(results if children.nested else (one for (one,) in results))


def _inside(leaf: Leaf) -> list[Leaf]:
    """Returns the children of a cell as leaves, with their paths and directions."""
    children = leaf.cell.children
    assert children is not None
    last = len(children.cells) - 1
    return [
        Leaf(
            cells=(*leaf.cells, current(cell)),
            path=(*leaf.path, i) if children.nested else leaf.path,
            reverse=leaf.reverse ^ (children.parallel and i % 2 == 1),
            read=leaf.read or (i < last and not children.parallel),
        )
        for i, cell in enumerate(children.cells)
    ]


def leaves(cell: Cell, reverse: bool = False) -> list[Leaf]:
    """Returns the cells that are run, in the order of running."""
    found: list[Leaf] = []

    def visit(leaf: Leaf, xs: None, noise: None) -> tuple[None]:
        del noise
        found.append(leaf)
        return (xs,)

    walk(cell, visit, reverse=reverse)
    return found


def reads_ahead(cell: Cell) -> bool:
    """Returns whether outputs depend on later inputs, so that there is no `step`."""
    return any(leaf.reverse for leaf in leaves(cell))
