"""The backward pass of backpropagation through time: the last chunk comes first.

The adjoint of the state, lambda, goes back through a chunk step by step, alone in the
loop's carry; the chunk's share of every parameter's gradient is then one contraction
over its steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Params, Saved, Sequence, State
from jrnn._parts import noisy_project
from jrnn.methods._adjoint import adjoint_of, split_floats
from jrnn.methods._forward import Kept, Static, keep_starts, keep_states
from jrnn.methods._steps import (
    products_at,
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
    kept: Any,
    sequence: Sequence,
    dshown: Any,
    carry: Carry,
) -> tuple[Carry, Any]:
    """Goes through segments, or chunks, from the last to the first."""
    if len(shape) == 2:
        # `_pull_chunks` reads in place and is faster, but gradients came out wrong
        # of the compiler inside one more loop: off until the cause is known.
        rest = params, kept, sequence, dshown, carry
        return _pull_each(static, shape, False, *rest)
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)
    silent = static._replace(keep=_show_nothing)

    def body(carry: Carry, part: Any) -> tuple[Carry, Any]:
        start, timed, dshown = part
        timed = timed._replace(fresh=fresh)
        if len(shape) == 3:
            kept = keep_states(static, shape[1:], params, start, timed)[1]
        else:
            kept = keep_starts(silent, shape[1:], params, start, timed)[1][0]
        if len(shape) == 3:
            # Read in place here, gradients of one cell under a mask came out wrong.
            return _pull_each(
                static, shape[1:], False, params, kept, timed, dshown, carry
            )
        return pull(static, shape[1:], params, kept, timed, dshown, carry)

    return jax.lax.scan(body, carry, (kept, timed, dshown), reverse=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _pull_chunks(static: Static, shape: tuple[int, ...], *arrays: Any) -> Any:
    """Goes through chunks, and reads what was kept where it lies."""
    return _pull_each(static, shape, True, *arrays)


@_pull_chunks.defjvp
def _differentiate_pull_chunks(
    static: Static, shape: tuple[int, ...], primals: Any, tangents: Any
) -> tuple[Any, Any]:
    # The derivative of a row read from a whole array is a whole array, at each step:
    # where JAX differentiates the backward pass, chunks are cut out first.
    pull = functools.partial(_pull_each, static, shape, False)
    return jax.jvp(pull, primals, tangents)


def _pull_each(
    static: Static,
    shape: tuple[int, ...],
    in_place: bool,
    params: Params,
    kept: Kept,
    sequence: Sequence,
    dshown: Any,
    carry: Carry,
) -> tuple[Carry, Any]:
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)
    numbers = jnp.arange(shape[0])
    parts = None if in_place else _cut_kept(kept, shape)

    def body(carry: Carry, part: Any) -> tuple[Carry, Any]:
        number, part, timed, dshown = part
        timed = timed._replace(fresh=fresh)
        rows = Rows(kept, number * shape[1], shape[1])
        part, rows = (rows.chunk(), rows) if in_place else (part, None)
        return _pull_chunk(static, params, part, rows, timed, dshown, carry)

    with products_at(static.precision):
        numbered = (numbers, parts, timed, dshown)
        return jax.lax.scan(body, carry, numbered, reverse=True)


def _cut_kept(kept: Kept, shape: tuple[int, ...]) -> Kept:
    """Returns (count, length, ...) of all that was kept, and each chunk's start."""
    states, saved = reshape_time(kept[1:], 1, shape)
    last = jax.tree.map(lambda states: states[:, -1], states)
    return Kept(jax.tree.map(shift, kept.start, last), states, saved)


class Rows(NamedTuple):
    """The rows of a chunk in the arrays of the whole sequence."""

    kept: Kept
    first: Array  # the place of the chunk's first row
    length: int

    def at(self, place: Array) -> tuple[State, State, Saved]:
        """Returns the state before a step of the chunk, that after it, and saved."""
        row = self.first + place
        return self._before(row), *_read(self.kept[1:], row)

    def chunk(self) -> Kept:
        """Returns all of the chunk, a copy."""
        cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, self.first, self.length)
        states, saved = jax.tree.map(cut, self.kept[1:])
        return Kept(self._before(self.first), states, saved)

    def _before(self, row: Array) -> State:
        before = _read(self.kept.states, jnp.maximum(row - 1, 0))
        choose = functools.partial(jnp.where, row > 0)
        return jax.tree.map(choose, before, self.kept.start)


def _read(tree: Any, row: Array) -> Any:
    read = functools.partial(jax.lax.dynamic_index_in_dim, index=row, keepdims=False)
    return jax.tree.map(read, tree)


def _pull_chunk(
    static: Static,
    params: Params,
    kept: Kept,
    rows: Rows | None,
    sequence: Sequence,
    dshown: Any,
    carry: Carry,
) -> tuple[Carry, Any]:
    """The adjoint through one chunk, and its share of every gradient."""
    xs, noise, active, restart, fresh, _ = sequence
    start, states, saved = kept
    adjoint = adjoint_of(static.cell, params, carry.dstate)
    states_tm1 = renew(restart, fresh, jax.tree.map(shift, start, states))
    sources: Any = (states_tm1, states, saved)
    look: Callable[[Any], Any] = lambda source: source
    if rows is not None:
        sources, look = jnp.arange(rows.length), rows.at
    floats, merge = split_floats(xs)
    floats = floats if static.inputs else []
    place = merge if static.inputs else lambda _: xs
    direct, shown = None, ()
    if dshown is not None:
        keep = lambda floats, params, states: static.keep(params, states, place(floats))
        *shown, direct = jax.vjp(keep, floats, params, states)[1](dshown)

    def step(dstate_t: State, inputs: Any) -> tuple[State, Any]:
        source, direct, active, restart = inputs
        state_tm1, state_t, saved = look(source)
        state_tm1 = renew(restart, fresh, state_tm1)
        dstate_t = dstate_t if direct is None else _add(dstate_t, direct)
        dstate_tm1, du, deltas = adjoint.pullback(state_tm1, state_t, saved, dstate_t)
        dstate_tm1 = select(active, dstate_tm1, dstate_t)
        ended = None if restart is None else silence(restart, dstate_tm1)
        dstate_tm1 = silence(None if restart is None else ~restart, dstate_tm1)
        return dstate_tm1, (*silence(active, (du, deltas)), ended)

    dstate, (du, deltas, ended) = jax.lax.scan(
        step, carry.dstate, (sources, direct, active, restart), reverse=True
    )
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
