"""Cells inside cells: the one walk over `Cell.children`.

A cell with children is not run itself: its children are, each along the whole sequence.
`walk` passes inputs, outputs, noise and directions from one to the next. Whatever needs
this order (running a cell, a single step, statistics, names of layers) uses `walk`, and
nothing else reads `Cell.children`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp

from jrnn.core.cell import Cell, Children
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
Function = TypeVar("Function", bound=Callable[..., Any])

_KEEPS_ZEROS = "_jrnn_keeps_zeros"  # marks a function


def keeps_zeros(function: Function) -> Function:
    """Marks a function of `Children` that maps zeros to zeros, and saves `silenced`."""
    setattr(function, _KEEPS_ZEROS, True)
    return function


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
    silenced: Callable[[Any], Any] | None = None,
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
      silenced: ys -> ys, 0 at inactive steps, as the outputs of the cells inside are
        already; None: there are no such steps.

    Returns:
      (ys, *results): the outputs of `cell`, and each result nested like its state.
    """
    rules = _Rules(visit, whole, silenced)
    return _walk(Leaf((current(cell),), reverse=reverse), xs, noise, rules)


class _Rules(NamedTuple):
    """The functions with which `walk` was called."""

    visit: Visit
    whole: Callable[[Cell], bool]
    silenced: Callable[[Any], Any] | None


def _walk(leaf: Leaf, xs: Any, noise: Any, rules: _Rules) -> tuple[Any, ...]:
    if rules.whole(leaf.cell):
        return rules.visit(leaf, xs, noise)
    children = leaf.cell.children
    assert children is not None
    read = xs
    if children.inputs is not None and noise is not None:
        read, noise = children.inputs(xs, noise)
    first, found = read, []
    for i, inner in enumerate(_inside(leaf)):
        own = noise[i] if children.nested and noise is not None else noise
        found.append(_walk(inner, read, own, rules))
        if not children.parallel:
            read = _next(children, first, found[-1][0])
    shown, *results = zip(*found, strict=True)
    ys = None if shown[-1] is None else _output(children, shown, xs, rules.silenced)
    return ys, *(results if children.nested else (one for (one,) in results))


def _next(children: Children, xs: Any, ys: Any) -> Any:
    """Returns the inputs of the next child; None if they are not wanted."""
    if children.between is None or ys is None:
        return ys
    return children.between(xs, ys)


def _output(
    children: Children,
    shown: tuple[Any, ...],
    xs: Any,
    silenced: Callable[[Any], Any] | None,
) -> Any:
    """Returns the output of a cell from those of its children."""
    ys = shown[-1]
    if children.merge is not None:
        ys = children.merge(*shown)
    elif children.parallel:
        ys = jnp.concatenate(shown, axis=-1)
    if children.outputs is not None:
        ys = children.outputs(ys, xs)
    own = [f for f in (children.merge, children.outputs) if f is not None]
    if silenced is None or all(hasattr(f, _KEEPS_ZEROS) for f in own):
        return ys
    return silenced(ys)


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
