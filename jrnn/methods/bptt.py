r"""Backpropagation through time, written by hand: the notes' derivation, for any cell.

With row vectors, lambda_t = dL/ds_t over the whole state and J_{t+1} = ds_{t+1}/ds_t:

  1. forward: a scan over the steps that keeps what the backward pass needs, no more;
  2. adjoint: a scan from the last step to the first,
         lambda_t = (direct dL/ds_t) + lambda_{t+1} J_{t+1},
     whose carry is lambda and nothing else;
  3. parameters: one contraction over time and batch for each, such as
         dL/dW_h = sum_t h_{t-1}^T delta_t.

`jax.grad` of a scan would add a weight-shaped array to its carry at every step instead.

The sequence is walked in chunks. A chunk's input products, and the contractions of
step 3, are large enough to run at full speed and small enough to stay in the cache.

With checkpoints along time (`remat`) chunks are gathered into segments, and of each
segment the forward pass keeps the state before it and nothing else; the backward pass
walks a segment once more when it comes to it. With one level the states kept grow as
the square root of T; with more levels segments consist of segments (A. Griewank and
A. Walther, ACM TOMS 26 (2000), https://doi.org/10.1145/347837.347846, place them
better still, in an order that no compiled loop can follow).
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import (
    Cell,
    Keep,
    Method,
    Params,
    Saved,
    Sequence,
    State,
    check_size,
    float_leaves,
    memoize,
    noisy_project,
)
from jrnn.methods._adjoint import adjoint_of, place_floats, split_floats
from jrnn.methods._steps import (
    Precision,
    advance_flagged,
    check_precision,
    cut,
    cut_sequence,
    join,
    nested_shape,
    products_at,
    renew,
    reshape_time,
    select,
    shift,
    silence,
)

# How much of the input's share u a chunk may hold on a CPU: a core's second-level
# cache, where experiments/benchmarks/results/chunk.json was measured. Shorter chunks
# have little work each; the gates of longer ones go through memory on every pass.
CHUNK_BYTES = 2**20
# On accelerators products want to be large and memory is fast. Not measured.
ACCELERATOR_CHUNK = 128
LEAST_CHUNK, MOST_CHUNK = 4, 128


@memoize
def bptt(
    *, chunk: int | None = None, remat: int = 0, precision: Precision = None
) -> Method:
    """Makes the default method: a scan with a hand-written backward pass.

    Reverse mode, also over reverse mode, hessians (forward over reverse), `vmap`,
    outer scans and `jax.checkpoint` work through it. Pure forward mode (`jax.jvp`,
    `jax.jacfwd`) does not: use `jrnn.scan()` for that.

    Args:
      chunk: How many steps share one product with W_x and one contraction for each
        parameter's gradient. None takes as many as keep project(xs) of a chunk within
        a megabyte on a CPU, from 4 to 128, and 128 elsewhere.
      remat: Levels of checkpoints along time. 0 keeps every state for the backward
        pass; 1 keeps of the order of sqrt(T) and walks forward once more; k keeps
        k T^(1/(k+1)) and walks forward k times more; beyond log2(T / chunk) levels
        every segment is halved down to one chunk.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None leaves it to JAX.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`.

    Raises:
      TypeError: `chunk` or `remat` is not an integer.
      ValueError: `chunk` is below 1, or `remat` below 0.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((5, 3))
      >>> loss = lambda p: jrnn.unroll(cell, p, xs, method=jrnn.bptt())[1].sum()
      >>> jax.grad(loss)(params).W_h.shape
      (4, 12)
    """
    if chunk is not None:
        check_size("chunk", chunk)
    remat = check_size("remat", remat, least=0)
    check_precision(precision)
    options = (("chunk", chunk), ("remat", remat), ("precision", precision))
    return Method(_run, options)


class _Static(NamedTuple):
    """What the custom rule knows before it is traced: hashable, and no arrays."""

    cell: Cell
    keep: Keep
    shape: tuple[int, ...]  # (*segments, count, length)
    precision: Precision
    inputs: bool = True  # whether the gradient of the inputs is asked for


class _Inputs(NamedTuple):
    """The arguments of the custom rule that are arrays."""

    params: Params
    state: State
    sequence: Sequence


class _Kept(NamedTuple):
    """What a forward pass over chunks keeps of each."""

    start: State  # before the chunk's first step, (count, ...)
    states: State  # after each step, (count, length, ...)
    saved: Saved  # what the cell wants to see again, (count, length, ...)


class _Carry(NamedTuple):
    """What the backward pass carries from chunk to chunk, towards the first."""

    dstate: State  # the adjoint of the state, lambda
    dparams: Params  # sums over the chunks behind
    dfresh: State | None  # of the state that restarts put back


def _run(
    cell: Cell,
    keep: Keep,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    chunk: int | None,
    remat: int,
    precision: Precision,
) -> tuple[State, Any]:
    length = chunk or default_chunk(cell, params, sequence)
    shape = nested_shape(sequence.steps, length, remat)
    static = _Static(cell, keep, shape, precision)
    return _bptt(static, _Inputs(params, state, sequence))


def default_chunk(cell: Cell, params: Params, sequence: Sequence) -> int:
    """Returns the power of two whose chunk fits the cache, for this cell and batch."""
    if jax.default_backend() != "cpu":
        return ACCELERATOR_CHUNK
    project = functools.partial(noisy_project, cell.project)
    us = jax.eval_shape(project, params, sequence.xs, sequence.noise)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(us))
    fitting = CHUNK_BYTES * sequence.steps // max(size, 1)
    return min(max(2 ** int(math.log2(max(fitting, 1))), LEAST_CHUNK), MOST_CHUNK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bptt(static: _Static, inputs: _Inputs) -> tuple[State, Any]:
    """The forward pass when nobody differentiates: no state outlives its chunk."""
    params, state, sequence = inputs
    cut_up = cut_sequence(sequence, static.shape)
    with products_at(static.precision):
        state, shown = _walk(static, static.shape, params, state, cut_up)
        return state, join(shown, static.shape, sequence.steps)


def _forward(
    static: _Static, primals: Any
) -> tuple[tuple[State, Any], tuple[_Inputs, Any, tuple[()] | None]]:
    """The forward pass that keeps what the backward pass needs."""
    inputs = jax.tree.map(lambda leaf: leaf.value, primals)
    wanted = any(leaf.perturbed for leaf in jax.tree.leaves(primals.sequence.xs))
    params, state, sequence = inputs
    shape, cut_up = static.shape, cut_sequence(sequence, static.shape)
    with products_at(static.precision):
        if len(shape) == 2:
            state, kept = _keep_states(static, params, state, cut_up)
            states = join(kept.states, shape, sequence.steps)
            shown = static.keep(params, states, sequence.xs)
        else:
            state, (kept, shown) = _keep_starts(static, shape, params, state, cut_up)
            shown = join(shown, shape, sequence.steps)
    # Residuals are arrays: that nobody asks for dxs is told by a None among them.
    return (state, shown), (inputs, kept, () if wanted else None)


def _backward(
    static: _Static, residuals: tuple[_Inputs, Any, Any], cotangents: tuple[State, Any]
) -> tuple[_Inputs]:
    """The adjoint of the state, backwards in time, and the contractions per chunk."""
    (params, _, sequence), kept, wanted = residuals
    static = static._replace(inputs=wanted is not None)
    dstate, dshown = cotangents
    if all(map(_is_zero, jax.tree.leaves(dshown))):
        dshown = None  # the loss is on the final state alone
    dstate, dshown = jax.tree.map(_instantiate, (dstate, dshown))
    shape, cut_up = static.shape, cut_sequence(sequence, static.shape)
    zeros = _zero_sums(dstate, (params, sequence.fresh))
    with products_at(static.precision):
        carry, dxs = _pull(
            static,
            shape,
            params,
            kept,
            cut_up,
            cut(dshown, shape),
            _Carry(dstate, *zeros),
        )
    if static.inputs:
        dxs = join(dxs, shape, sequence.steps)
    else:  # nobody reads them, but jax 0.7 wants one structure whoever asks
        dxs = [jnp.zeros_like(x) for x in float_leaves(sequence.xs)]
    dparams, dfresh = jax.tree.map(
        lambda like, total: total.astype(like.dtype),
        (params, sequence.fresh),
        (carry.dparams, carry.dfresh),
    )
    # Noise, activity and restarts have no derivative: None.
    dsequence = Sequence(place_floats(sequence.xs, dxs), fresh=dfresh)
    return (_Inputs(dparams, carry.dstate, dsequence),)


_bptt.defvjp(_forward, _backward, symbolic_zeros=True)


# Forwards. `shape` is (*segments, count, length); the fields of a sequence that have an
# axis of time are cut to it.


def _walk(
    static: _Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, Any]:
    """Walks along, and returns what is shown, (*shape, ...)."""
    if len(shape) == 1:
        return _walk_chunk(static, params, state, sequence)

    def body(state: State, part: Sequence) -> tuple[State, Any]:
        part = part._replace(fresh=sequence.fresh)
        return _walk(static, shape[1:], params, state, part)

    return jax.lax.scan(body, state, sequence._replace(fresh=None))


def _walk_chunk(
    static: _Static, params: Params, state: State, sequence: Sequence
) -> tuple[State, Any]:
    xs, noise, active, restart, fresh, _ = sequence
    cell = static.cell

    def step(state: State, inputs: Any) -> tuple[State, State]:
        u, active, restart = inputs
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, state

    us = noisy_project(cell.project, params, xs, noise)
    state, states = jax.lax.scan(step, state, (us, active, restart))
    return state, static.keep(params, states, xs)


def _keep_states(
    static: _Static, params: Params, state: State, sequence: Sequence
) -> tuple[State, _Kept]:
    """Walks chunk after chunk, and keeps every state and what the cell saves."""
    cell, fresh = static.cell, sequence.fresh
    adjoint = adjoint_of(cell, params, state)

    def step(state: State, inputs: Any) -> tuple[State, Any]:
        u, active, restart = inputs
        state = renew(restart, fresh, state)
        new, saved = adjoint.advance(state, u)
        state = select(active, new, state)
        return state, (state, saved)

    def walk(start: State, part: Sequence) -> tuple[State, _Kept]:
        xs, noise, active, restart, *_ = part
        us = noisy_project(cell.project, params, xs, noise)
        state, kept = jax.lax.scan(step, start, (us, active, restart))
        return state, _Kept(start, *kept)

    return jax.lax.scan(walk, state, sequence._replace(fresh=None))


def _keep_starts(
    static: _Static,
    shape: tuple[int, ...],
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, tuple[State, Any]]:
    """Walks segment after segment, and keeps the state before each, and what shows."""
    inner = shape[1:]
    chunks = (math.prod(inner[:-1]), inner[-1])  # inner segments end to end

    def body(start: State, part: Sequence) -> tuple[State, tuple[State, Any]]:
        part = reshape_time(part, len(inner), chunks)._replace(fresh=sequence.fresh)
        state, shown = _walk(static, chunks, params, start, part)
        return state, (start, reshape_time(shown, len(chunks), inner))

    return jax.lax.scan(body, state, sequence._replace(fresh=None))


# Backwards.


def _pull(
    static: _Static,
    shape: tuple[int, ...],
    params: Params,
    kept: Any,
    sequence: Sequence,
    dshown: Any,
    carry: _Carry,
) -> tuple[_Carry, Any]:
    """Goes through segments, or chunks, from the last to the first."""
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)
    if len(shape) == 2:
        adjoint = adjoint_of(static.cell, params, carry.dstate)

        def body(carry: _Carry, part: Any) -> tuple[_Carry, Any]:
            kept, timed, dshown = part
            timed = timed._replace(fresh=fresh)
            return _pull_chunk(static, adjoint, params, kept, timed, dshown, carry)

    else:
        silent = static._replace(keep=_show_nothing)

        def body(carry: _Carry, part: Any) -> tuple[_Carry, Any]:
            start, timed, dshown = part
            timed = timed._replace(fresh=fresh)
            if len(shape) == 3:
                kept = _keep_states(static, params, start, timed)[1]
            else:
                kept = _keep_starts(silent, shape[1:], params, start, timed)[1][0]
            return _pull(static, shape[1:], params, kept, timed, dshown, carry)

    return jax.lax.scan(body, carry, (kept, timed, dshown), reverse=True)


def _pull_chunk(
    static: _Static,
    adjoint: Any,
    params: Params,
    kept: _Kept,
    sequence: Sequence,
    dshown: Any,
    carry: _Carry,
) -> tuple[_Carry, Any]:
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

    def step(dstate_t: State, inputs: Any) -> tuple[State, Any]:
        state_tm1, state_t, saved, direct, active, restart = inputs
        dstate_t = dstate_t if direct is None else _add(dstate_t, direct)
        dstate_tm1, du, deltas = adjoint.pullback(state_tm1, state_t, saved, dstate_t)
        dstate_tm1 = select(active, dstate_tm1, dstate_t)
        ended = None if restart is None else silence(restart, dstate_tm1)
        dstate_tm1 = silence(None if restart is None else ~restart, dstate_tm1)
        return dstate_tm1, (*silence(active, (du, deltas)), ended)

    dstate, (du, deltas, ended) = jax.lax.scan(
        step,
        carry.dstate,
        (states_tm1, states, saved, direct, active, restart),
        reverse=True,
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
    return _Carry(dstate, dparams, dfresh), dxs if static.inputs else None


def _is_zero(cotangent: Any) -> bool:
    return isinstance(cotangent, jax.custom_derivatives.SymbolicZero)


def _instantiate(cotangent: Any) -> Array:
    if _is_zero(cotangent):
        return jnp.zeros(cotangent.shape, cotangent.dtype)
    return cotangent


def _show_nothing(params: Params, states: State, xs: Any) -> None:
    del params, states, xs


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _zero_sums(dstate: State, like: Any) -> Any:
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
