"""One step backwards, for any cell: by its gates, by its own rule, or by JAX.

A closed adjoint has the parameters filled in:

    advance:  s_{t-1}, u_t -> s_t, saved_t
    pullback: s_{t-1}, s_t, saved_t, ds_t -> ds_{t-1}, du_t, deltas_t
    complete: du and deltas of many steps -> du, with what a step left out put back
    gradient: all of it, over many steps -> dparams
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Cell, Gated, Params, Saved, State
from jrnn._parts import (
    gated_advance_saving,
    merge_gates,
    packed_product,
    product,
    recur,
)


class Closed(NamedTuple):
    """An `Adjoint` with the parameters filled in."""

    advance: Callable[..., tuple[State, Saved]]
    pullback: Callable[..., tuple[State, Any, Saved]]
    gradient: Callable[..., Params]
    complete: Callable[[Any, Saved], Any] = lambda du, _: du


def adjoint_of(cell: Cell, params: Params, state: State) -> Closed:
    """Returns the cell's own backward pass, that of its gates, or JAX's.

    To be called outside of every loop, so that matrices are transposed once.
    """
    if cell.adjoint is not None:
        advance, pullback, gradient = cell.adjoint
        return Closed(
            functools.partial(advance, params),
            _matrices_turned(pullback, params, state),
            functools.partial(gradient, params),
        )
    if cell.gated is not None:
        return _gated_adjoint(cell.gated, params, state)
    return _generic_adjoint(cell, params)


def _lie_transposed(state: State) -> bool:
    """Whether matrices are to lie in memory as a step backwards reads them.

    It multiplies by W_h^T, and on a CPU XLA's product of eight rows takes up to 2.1
    times as long where the rows of W_h^T lie scattered. That of a single row does not.
    """
    rows = max(math.prod(leaf.shape[:-1]) for leaf in jax.tree.leaves(state))
    return jax.default_backend() == "cpu" and rows > 1


def _transpose(leaf: Array) -> Array:
    """Returns a matrix transposed, which no compiler turns back; others as they are."""
    return jax.lax.optimization_barrier(leaf.T) if leaf.ndim == 2 else leaf


def _matrices_turned(
    pullback: Callable[..., Any], params: Params, state: State
) -> Callable[..., Any]:
    """Returns `pullback` with its parameters filled in."""
    if not _lie_transposed(state):
        return functools.partial(pullback, params)
    turned = jax.tree.map(_transpose, params)
    # Turned back inside the loop: in front of it, they would lie as before.
    back = lambda leaf: leaf.T if leaf.ndim == 2 else leaf
    return lambda *steps: pullback(jax.tree.map(back, turned), *steps)


def _through_recur(
    gated: Gated, params: Params, state: State
) -> Callable[[Array], State]:
    """Returns dv_t -> what flows back through v_t = h_{t-1} W + b: dv_t W^T.

    v is affine in the state, so its transpose is the same at each step: made once,
    outside of the loop, it brings no second forward product.
    """
    packed = packed_product(gated, params, state)
    if packed is None or not _lie_transposed(state):
        pull = jax.vjp(functools.partial(recur, gated, params), state)[1]
        return lambda dv: pull(dv)[0]
    first, *rest = jax.tree.leaves(state)
    W_T = _transpose(packed[0].astype(first.dtype))
    others = list(map(jnp.zeros_like, rest))
    like = jax.tree.structure(state)
    return lambda dv: jax.tree.unflatten(like, [product(dv, W_T, first.dtype), *others])


def _gated_adjoint(gated: Gated, params: Params, state: State) -> Closed:
    through_recur = _through_recur(gated, params, state)

    def pullback(
        state_tm1: State, state: State, saved: Saved, dstate: State
    ) -> tuple[State, tuple[Array | None, ...], Array]:
        direct, du, dv = gated.pullback(state_tm1, state, saved, dstate)
        merged = merge_gates(dv)
        dstate_tm1 = jax.tree.map(jnp.add, direct, through_recur(merged))
        # A gate that a cell gives to both as one array is left once, in dv.
        others = tuple(None if a is b else a for a, b in zip(du, dv, strict=True))
        return dstate_tm1, others, merged

    def complete(others: tuple[Array | None, ...], dv: Array) -> Array:
        """Puts the gates whose du is not dv in their places among those of dv."""
        own = [other for other in others if other is not None]
        if len(own) == len(others):
            return merge_gates(tuple(own))
        du, size = dv, dv.shape[-1] // gated.gates
        for gate, other in enumerate(others):
            if other is not None:
                other = other.astype(du.dtype)
                du = jax.lax.dynamic_update_slice_in_dim(du, other, gate * size, -1)
        return du

    def gradient(
        states_tm1: State, states: State, saved: Saved, du: Array, dv: Array
    ) -> Params:
        del states, saved, du
        share = lambda params: recur(gated, params, states_tm1)
        return jax.vjp(share, params)[1](dv)[0]

    advance = functools.partial(gated_advance_saving, gated, params)
    return Closed(advance, pullback, gradient, complete)


def _generic_adjoint(cell: Cell, params: Params) -> Closed:
    """For a cell without hand-derived derivatives: `advance` is run once more.

    Integers and booleans in u, such as masks, have no derivative: theirs is None.
    """

    def advance(state: State, u: Any) -> tuple[State, Saved]:
        return cell.advance(params, state, u), u

    def pullback(
        state_tm1: State, state: State, u: Any, dstate: State
    ) -> tuple[State, Any, State]:
        del state
        floats, merge = split_floats(u)
        run = lambda state, floats: cell.advance(params, state, merge(floats))
        dstate_tm1, du = jax.vjp(run, state_tm1, floats)[1](dstate)
        return dstate_tm1, du, dstate

    def gradient(
        states_tm1: State, states: State, us: Any, du: Any, dstates: State
    ) -> Params:
        del states, du
        along = jax.vmap(cell.advance, in_axes=(None, 0, 0))
        pull = jax.vjp(lambda params: along(params, states_tm1, us), params)[1]
        return pull(dstates)[0]

    return Closed(advance, pullback, gradient)


def split_floats(tree: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Returns the leaves that have a derivative, and what puts them back in place."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]

    def merge(floats: list[Array]) -> Any:
        given = iter(floats)
        both = zip(leaves, floating, strict=True)
        merged = [next(given) if is_float else leaf for leaf, is_float in both]
        return jax.tree.unflatten(structure, merged)

    floats = [x for x, is_float in zip(leaves, floating, strict=True) if is_float]
    return floats, merge


def place_floats(xs: Any, floats: list[Array]) -> Any:
    """Returns the structure of `xs` with gradients at its floats, None at the rest."""
    leaves, structure = jax.tree.flatten(xs)
    given = iter(floats)
    placed = [
        next(given) if jnp.issubdtype(leaf.dtype, jnp.inexact) else None
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, placed)
