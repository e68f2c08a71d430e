"""A method that returns every array of a run and allows gradients for each.

It adds zeros to each array of the state at each step, and to the outputs. The sums are
everything a cell computes, and the gradients of the zeros are everything that flows
back.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Params, State
from jrnn.core.dtypes import state_dtype
from jrnn.core.flags import silence
from jrnn.core.method import Method, Sequence, Shown, Wanted
from jrnn.core.seams import noisy_project
from jrnn.core.tree import Leaf, walk
from jrnn.methods.scan import scan


class Taps(NamedTuple):
    """A cell's states after each step and its outputs, or the zeros added to them."""

    state: State
    y: Array


def tapped() -> Method:
    """Returns a `jrnn.scan()` that adds `Sequence.guess`, each cell's `Taps`, to a run.

    Its report is `Taps` of the computed arrays, in the order of reading.
    """
    return Method(_run)


def zero_taps(cell: Cell, params: Params, state: State, xs: Array) -> Any:
    """Returns `Taps` of zeros for each cell inside, nested like the state."""
    dtype = state_dtype(params, xs)
    lead = xs.shape[:-1] if jnp.issubdtype(xs.dtype, jnp.inexact) else xs.shape

    def visit(leaf: Leaf, xs: None, noise: None) -> tuple[None, Taps]:
        del noise
        own = leaf.share(state)
        zeros = jax.tree.map(lambda a: jnp.zeros((*lead[:1], *a.shape), a.dtype), own)
        return xs, Taps(zeros, jnp.zeros((*lead, leaf.cell.spec.output_size), dtype))

    return walk(cell, visit)[1]


def _run(
    cell: Cell, wanted: Wanted, params: Params, state: State, sequence: Sequence
) -> tuple[State, Shown, Taps]:
    zeros, method = sequence.guess, scan()
    assert isinstance(zeros, Taps)
    both = sequence._replace(noise=(sequence.noise, zeros.state), guess=None)
    final, shown = method.run(
        _tap(cell), Wanted(True, True), params, state, both, **dict(method.options)
    )
    states = shown.states
    ys = silence(sequence.active, shown.ys.astype(zeros.y.dtype) + zeros.y)
    shown = Shown(
        ys=ys.astype(shown.ys.dtype) if wanted.ys else None,
        states=states if wanted.states else None,
    )
    return final, shown, Taps(states, ys)


def _tap(cell: Cell) -> Cell:
    """Returns a cell whose noise is (noise, zeros); it adds zeros to its state."""

    def project(params: Params, x: Array, noise: Any) -> Any:
        inner, zeros = noise
        return noisy_project(cell.project, params, x, inner), zeros

    def advance(params: Params, state: State, u: Any) -> State:
        u, zeros = u
        return jax.tree.map(jnp.add, cell.advance(params, state, u), zeros)

    return cell._replace(project=project, advance=advance, gated=None)
