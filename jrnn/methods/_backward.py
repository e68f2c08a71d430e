"""The backward pass of backpropagation through time: the last chunk comes first.

The adjoint of the state, lambda, goes back through a chunk step by step, alone in the
loop's carry; the chunk's share of every parameter's gradient is then one contraction
over its steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Params, Sequence, State
from jrnn._parts import noisy_project
from jrnn.methods._adjoint import Closed, split_floats
from jrnn.methods._forward import Kept, Static, keep_starts, keep_states
from jrnn.methods._steps import (
    as_rows,
    renew,
    reshape_time,
    select,
    shift,
    silence,
)


class Carry(NamedTuple):
    """What the backward pass carries from chunk to chunk, towards the first."""

    dstate: State  # the adjoint of the state, lambda
    dparams: Params  # sums over the chunks behind
    dfresh: State | None  # of the state that restarts put back


def pull(
    static: Static,
    shape: tuple[int, ...],
    params: Params,
    adjoint: Closed,
    kept: Any,
    sequence: Sequence,
    dshown: Any,
    carry: Carry,
) -> tuple[Carry, Any]:
    """Goes through segments, or chunks, from the last to the first."""
    if len(shape) == 2:
        kept = _cut_kept(kept, shape)
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)
    silent = static._replace(keep=_show_nothing)

    def body(carry: Carry, part: Any) -> tuple[Carry, Any]:
        kept, timed, dshown = part
        timed = timed._replace(fresh=fresh)
        if len(shape) == 2:
            return _pull_chunk(static, params, adjoint, kept, timed, dshown, carry)
        if len(shape) == 3:
            kept = keep_states(static, shape[1:], params, kept, timed)[1]
        else:
            kept = keep_starts(silent, shape[1:], params, kept, timed)[1][0]
        return pull(static, shape[1:], params, adjoint, kept, timed, dshown, carry)

    return jax.lax.scan(body, carry, (kept, timed, dshown), reverse=True)


def _cut_kept(kept: Kept, shape: tuple[int, ...]) -> Kept:
    """Returns (count, length, ...) of all that was kept, and each chunk's start."""
    states, saved = reshape_time(kept[1:], 1, shape)
    last = jax.tree.map(lambda states: states[:, -1], states)
    return Kept(jax.tree.map(shift, kept.start, last), states, saved)


def _pull_chunk(
    static: Static,
    params: Params,
    adjoint: Closed,
    kept: Kept,
    sequence: Sequence,
    dshown: Any,
    carry: Carry,
) -> tuple[Carry, Any]:
    """The adjoint through one chunk, and its share of every gradient."""
    xs, noise, active, restart, fresh, _ = sequence
    start, states, saved = kept
    states_tm1 = renew(restart, fresh, jax.tree.map(shift, start, states))
    floats, merge = split_floats(xs)
    floats = floats if static.inputs else []
    place = merge if static.inputs else lambda _: xs
    direct, shown = None, ()
    if dshown is not None:
        keep = lambda floats, params, states: static.keep(params, states, place(floats))
        *shown, direct = jax.vjp(keep, floats, params, states)[1](dshown)

    rows, shaped = as_rows((states_tm1, states, saved, direct))

    def step(dstate_t: State, inputs: Any) -> tuple[State, Any]:
        row, active, restart = inputs
        state_tm1, state_t, saved, direct = shaped(row)
        dstate_t = dstate_t if direct is None else _add(dstate_t, direct)
        dstate_tm1, du, deltas = adjoint.pullback(state_tm1, state_t, saved, dstate_t)
        dstate_tm1 = select(active, dstate_tm1, dstate_t)
        ended = None if restart is None else silence(restart, dstate_tm1)
        dstate_tm1 = silence(None if restart is None else ~restart, dstate_tm1)
        return dstate_tm1, (*silence(active, (du, deltas)), ended)

    dstate, (du, deltas, ended) = jax.lax.scan(
        step, carry.dstate, (rows, active, restart), reverse=True
    )
    du = adjoint.complete(du, deltas)
    project = lambda floats, params: split_floats(
        noisy_project(static.cell.project, params, place(floats), noise)
    )[0]
    dxs, dparams_u = jax.vjp(project, floats, params)[1](jax.tree.leaves(du))
    dparams_s = adjoint.gradient(states_tm1, states, saved, du, deltas)
    dparams = _accumulate(carry.dparams, dparams_u, dparams_s, *shown[1:])
    dfresh = carry.dfresh
    if ended is not None:
        dfresh = _accumulate(dfresh, jax.tree.map(lambda a: a.sum(axis=0), ended))
    dxs = _add(dxs, shown[0]) if shown else dxs
    return Carry(dstate, dparams, dfresh), dxs if static.inputs else None


def _show_nothing(params: Params, states: State, xs: Any) -> None:
    del params, states, xs


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def zero_sums(dstate: State, like: Any) -> Any:
    """Sums over chunks are kept in the state's type, the widest at hand."""
    bits = max(jnp.finfo(leaf.dtype).bits for leaf in jax.tree.leaves(dstate))
    dtype = jnp.float64 if bits == 64 else jnp.float32
    pair = jnp.complex128 if bits == 64 else jnp.complex64

    def zeros(leaf: Array) -> Array:
        complex_ = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        return jnp.zeros_like(leaf, pair if complex_ else dtype)

    return jax.tree.map(zeros, like)


def _accumulate(total: Any, *parts: Any) -> Any:
    def one(total: Array, *parts: Array) -> Array:
        return total + sum(part.astype(total.dtype) for part in parts)

    return jax.tree.map(one, total, *parts)
