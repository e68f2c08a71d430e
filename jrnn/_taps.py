"""Cells whose every array can be looked at, and whose every gradient can.

Every cell inside is tapped: its state is widened by what it showed, and a zero is added
to each array of both at each step. The trajectory of the tapped cell is then all that
the cell computed, and the gradient with respect to those zeros all that flows back.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Cell, Params, State, memoize
from jrnn._parts import compose_step, noisy_project
from jrnn.layers import bidirectional, dropout, residual, stack


class Tapped(NamedTuple):
    """The state of a cell, and what it showed last."""

    state: State
    y: Array


class Leaf(NamedTuple):
    """A cell that has no children, and how to come to it."""

    path: tuple[int, ...]
    cell: Cell
    reverse: bool


@memoize
def tap(cell: Cell, noisy: bool) -> Cell:
    """Returns `cell` with each cell inside tapped; its noise is (the cell's, zeros)."""
    if cell.around is not None:
        inner = tap(cell.around.cell, noisy)
        if cell.around.skip:
            return residual(inner)
        return dropout(inner, cell.around.rate) if noisy else inner
    if cell.layers is not None:
        inner = [tap(child, noisy) for child in cell.layers.cells]
        return bidirectional(*inner) if cell.layers.parallel else stack(*inner)
    return _tap_one(cell)


def _tap_one(cell: Cell) -> Cell:
    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> Tapped:
        return widen(cell, cell.init_state(params, batch_shape), batch_shape)

    def project(params: Params, x: Array, noise: Any) -> Any:
        inner, zeros = noise
        return noisy_project(cell.project, params, x, inner), x, zeros

    def advance(params: Params, state: Tapped, u: Any) -> Tapped:
        u, x, zeros = u
        moved = cell.advance(params, state.state, u)
        moved = jax.tree.map(jnp.add, moved, zeros.state)
        y = cell.output(params, moved, x)
        return Tapped(moved, y.astype(zeros.y.dtype) + zeros.y)

    def output(params: Params, state: Tapped, x: Array) -> Array:
        like = jax.eval_shape(cell.output, params, state.state, x)
        return state.y.astype(like.dtype)

    return cell._replace(
        init_state=init_state,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        gated=None,
        adjoint=None,
        linear=None,
        noise=None,
    )


def widen(cell: Cell, state: State, batch: tuple[int, ...]) -> Any:
    """Returns a state of the tapped cell, from one of the cell."""
    if cell.around is not None:
        return widen(cell.around.cell, state, batch)
    if cell.layers is not None:
        pairs = zip(cell.layers.cells, state, strict=True)
        return tuple(widen(child, part, batch) for child, part in pairs)
    dtype = jnp.finfo(jax.tree.leaves(state)[0].dtype).dtype  # of the real part
    return Tapped(state, jnp.zeros((*batch, cell.spec.output_size), dtype))


def narrow(cell: Cell, state: Any) -> State:
    """Returns the cell's share of a state of the tapped cell."""
    if cell.around is not None:
        return narrow(cell.around.cell, state)
    if cell.layers is not None:
        pairs = zip(cell.layers.cells, state, strict=True)
        return tuple(narrow(child, part) for child, part in pairs)
    return state.state


def join(cell: Cell, noise: Any, zeros: Any) -> Any:
    """Returns the noise of the tapped cell: its own, and what is added."""
    if cell.around is not None:
        if cell.around.rate and noise is not None:
            kept, inner = noise
            return kept, join(cell.around.cell, inner, zeros)
        return join(cell.around.cell, noise, zeros)
    if cell.layers is not None:
        children = cell.layers.cells
        parts = (None,) * len(children) if noise is None else noise
        each = zip(children, parts, zeros, strict=True)
        return tuple(join(child, part, zero) for child, part, zero in each)
    return noise, zeros


def leaves_of(cell: Cell, reverse: bool, path: tuple[int, ...] = ()) -> Iterator[Leaf]:
    """Yields the cells without children, in the order in which they are run."""
    if cell.around is not None:
        yield from leaves_of(cell.around.cell, reverse, path)
    elif cell.layers is not None:
        for i, child in enumerate(cell.layers.cells):
            turned = reverse ^ (cell.layers.parallel and i % 2 == 1)
            yield from leaves_of(child, turned, (*path, i))
    else:
        yield Leaf(path, cell, reverse)
