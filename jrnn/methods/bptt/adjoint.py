"""One backward step, for any cell: by its gates, by its own rule, or by JAX.

With lambda_t = dL/ds_t and row vectors, a backward step is

    lambda_{t-1} = lambda_t J_t,    J_t = ds_t/ds_{t-1}

and it also returns delta_t, from which the parameters' gradients are computed for many
steps at once. The functions here have the parameters bound.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Gated, Params, Saved, State
from jrnn.core.dtypes import split_floats
from jrnn.core.layout import (
    reads_transposed,
    transposed,
    unshared,
    with_shared,
    with_transposed,
)
from jrnn.core.products import merge_gates, product
from jrnn.core.seams import packed_product, recur


class Backwards(NamedTuple):
    """The backward pass of a cell's `advance`.

    Attributes:
      pullback: (s_{t-1}, s_t, saved_t, ds_t) -> (ds_{t-1}, du_t, deltas_t).
      gradient: (states_tm1, states, saved, du, deltas) of many steps -> dparams, the
        contribution of `advance` alone.
      complete: (du, deltas) of many steps -> the whole du, if `pullback` omits a part.
    """

    pullback: Callable[..., tuple[State, Any, Saved]]
    gradient: Callable[..., Params]
    complete: Callable[[Any, Saved], Any] = lambda du, _: du


def backwards_of(cell: Cell, params: Params, state: State) -> Backwards:
    """Returns the cell's own backward pass, that of its gates, or JAX's.

    Call it outside of every loop, so that matrices are transposed only once.
    """
    if cell.adjoint is not None:
        return Backwards(
            with_transposed(cell.adjoint.pullback, params, state),
            functools.partial(cell.adjoint.gradient, params),
        )
    if cell.gated is not None:
        return _by_gates(cell.gated, params, state)
    return _by_jax(cell, params)


def _by_gates(gated: Gated, params: Params, state: State) -> Backwards:
    """The gates' pullback, then dv_t W^T; dW = sum_t h_{t-1}^T dv_t."""
    through_product = _through_product(gated, params, state)

    def pullback(
        state_tm1: State, state: State, saved: Saved, dstate: State
    ) -> tuple[State, tuple[Array | None, ...], Array]:
        direct, du_gates, dv_gates = gated.pullback(state_tm1, state, saved, dstate)
        dv = merge_gates(dv_gates)
        dstate_tm1 = jax.tree.map(jnp.add, direct, through_product(dv))
        return dstate_tm1, unshared(du_gates, dv_gates), dv

    def gradient(
        states_tm1: State, states: State, saved: Saved, du: Array, dv: Array
    ) -> Params:
        del states, saved, du
        share = lambda params: recur(gated, params, states_tm1)
        return jax.vjp(share, params)[1](dv)[0]

    return Backwards(pullback, gradient, with_shared)


def _through_product(
    gated: Gated, params: Params, state: State
) -> Callable[[Array], State]:
    """Returns the transpose of v_t = h_{t-1} W + b: dv_t -> dv_t W^T.

    v is affine in the state, so its transpose is the same at each step. It is made
    once, outside of the loop, so that no step repeats the forward product.
    """
    packed = packed_product(gated, params, state)
    if packed is None or not reads_transposed(state):
        pull = jax.vjp(functools.partial(recur, gated, params), state)[1]
        return lambda dv: pull(dv)[0]
    first, *rest = jax.tree.leaves(state)
    W_T = transposed(packed[0].astype(first.dtype))
    others = list(map(jnp.zeros_like, rest))
    like = jax.tree.structure(state)
    return lambda dv: jax.tree.unflatten(like, [product(dv, W_T, first.dtype), *others])


def _by_jax(cell: Cell, params: Params) -> Backwards:
    """Differentiates `advance` by JAX, which runs it once more.

    Integers and booleans in u, such as masks, have no derivative.
    """

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

    return Backwards(pullback, gradient)
