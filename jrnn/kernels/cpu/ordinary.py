"""The walks of `calls` in JAX: the same arguments, and equal results to rounding.

JAX differentiates these where the gradient of a gradient is wanted.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import State
from jrnn.core.chunks import shift
from jrnn.core.flags import renew, select, silence
from jrnn.core.products import contract, merge_gates, split_gates
from jrnn.kernels import _gates
from jrnn.kernels.cpu.calls import Code, Given, Gradients, Kept


def _us(given: Given) -> Array:
    if given.us is not None:
        return given.us
    assert given.xs is not None
    assert given.W_x is not None
    us = jnp.matmul(given.xs, given.W_x)
    return us if given.b_x is None else us + given.b_x[None, None]


def forward(
    code: Code, keep: tuple[bool, ...], save: bool, given: Given
) -> tuple[State, Kept]:
    """Does what `calls.forward` does."""
    gated = code.gated

    def step(state_tm1: State, timed: Any) -> tuple[State, Any]:
        u, active, restart = timed
        state_tm1 = renew(restart, given.fresh, state_tm1)
        v = jnp.matmul(jax.tree.leaves(state_tm1)[0], given.W)
        v = v if given.b is None else v + given.b[None]
        gates = split_gates(u, gated.gates), split_gates(v, gated.gates)
        state, saved = gated.pointwise(state_tm1, *gates)
        state = select(active, state, state_tm1)
        return state, (state, silence(active, saved))

    timed = _us(given), given.active, given.restart
    final, (states, saved) = jax.lax.scan(step, given.start, timed)
    kept = zip(keep, jax.tree.leaves(states), strict=True)
    leaves = tuple(leaf if yes else None for yes, leaf in kept)
    return final, Kept(leaves, tuple(jax.tree.leaves(saved)) if save else ())


def backward(
    code: Code, dxs: bool, given: Given, kept: Kept, arriving: Gradients
) -> Given:
    """Does what `calls.backward` does."""
    gated, structure = code.gated, code.structure
    states = jax.tree.unflatten(structure, kept.states)
    saved_like = jax.tree.structure(_gates.saved_like(gated, given.start))
    saved = jax.tree.unflatten(saved_like, kept.saved)
    states_tm1 = renew(
        given.restart, given.fresh, jax.tree.map(shift, given.start, states)
    )
    zero = lambda leaf, like: jnp.zeros_like(like) if leaf is None else leaf
    direct = jax.tree.unflatten(
        structure, list(map(zero, arriving.states, kept.states))
    )
    last = jax.tree.leaves(given.start)
    dfinal = jax.tree.unflatten(structure, list(map(zero, arriving.final, last)))

    def step(carry: tuple[State, State | None], timed: Any) -> Any:
        state_tm1, state, saved, direct, active, restart = timed
        dstate, dfresh = carry
        dstate = jax.tree.map(jnp.add, dstate, direct)
        dstate_tm1, du, dv = gated.pullback(state_tm1, state, saved, dstate)
        du, dv = silence(active, merge_gates(du)), silence(active, merge_gates(dv))
        dstate_tm1 = select(active, dstate_tm1, dstate)
        first, *rest = jax.tree.leaves(dstate_tm1)
        first = first + jnp.matmul(dv, given.W.T)
        dstate_tm1 = jax.tree.unflatten(structure, [first, *rest])
        if restart is None:
            return (dstate_tm1, None), (du, dv)
        here = silence(restart, dstate_tm1)
        dfresh = jax.tree.map(jnp.add, dfresh, here)
        return (silence(~restart, dstate_tm1), dfresh), (du, dv)

    dfresh = None
    if given.restart is not None:
        dfresh = jax.tree.map(jnp.zeros_like, given.fresh)
    timed = (states_tm1, states, saved, direct, given.active, given.restart)
    (dstart, dfresh), (du, dv) = jax.lax.scan(
        step, (dfinal, dfresh), timed, reverse=True
    )
    bias = lambda b, d: None if b is None else d.sum(axis=(0, 1))
    dW = contract(jax.tree.leaves(states_tm1)[0], dv)
    found = functools.partial(Given, dW, bias(given.b, dv), start=dstart, fresh=dfresh)
    if given.us is not None:
        return found(us=du, xs=None, W_x=None, b_x=None)
    assert given.xs is not None
    assert given.W_x is not None
    return found(
        us=None,
        xs=jnp.matmul(du, given.W_x.T) if dxs else None,
        W_x=contract(given.xs, du),
        b_x=bias(given.b_x, du),
    )
