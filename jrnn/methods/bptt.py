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
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn._base import (
    Cell,
    Gated,
    Keep,
    Method,
    Params,
    Saved,
    State,
    check_size,
    memoize,
    merge_gates,
    split_gates,
)
from jrnn.methods._steps import (
    Precision,
    chunk_shape,
    cut,
    fill_active,
    join,
    products_at,
    select,
    silence,
)

# Short enough that a chunk's gates stay in the cache, long enough that its products run
# at full speed.
DEFAULT_CHUNK = 32


@memoize
def bptt(*, chunk: int | None = None, precision: Precision = None) -> Method:
    """Makes the default method: a scan with a hand-written backward pass.

    Reverse mode, also over reverse mode, hessians (forward over reverse), `vmap`,
    outer scans and `jax.checkpoint` work through it. Pure forward mode (`jax.jvp`,
    `jax.jacfwd`) does not: use `jrnn.scan()` for that.

    Args:
      chunk: How many steps share one product with W_x and one contraction for each
        parameter's gradient; None takes 32.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None leaves it to JAX.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`.

    Raises:
      ValueError: `chunk` is below 1.

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
    return Method(_run, (("chunk", chunk), ("precision", precision)))


class _Static(NamedTuple):
    """What the custom rule knows before it is traced: hashable, and no arrays."""

    cell: Cell
    keep: Keep
    chunk: int
    precision: Precision


class _Sequence(NamedTuple):
    """The arguments of the custom rule that are arrays; also its residuals."""

    params: Params
    xs: Array
    state: State
    active: Bool[Array, "T *batch"] | None


class _Kept(NamedTuple):
    """What the forward pass keeps, chunk by chunk."""

    start: State  # before the chunk's first step, (count, ...)
    states: State  # after each step, (count, length, ...)
    saved: Saved  # what the cell wants to see again, (count, length, ...)


def _run(
    cell: Cell,
    keep: Keep,
    params: Params,
    xs: Array,
    state: State,
    active: Bool[Array, "T *batch"] | None,
    *,
    chunk: int | None,
    precision: Precision,
) -> tuple[State, Any]:
    static = _Static(cell, keep, chunk or DEFAULT_CHUNK, precision)
    return _bptt(static, _Sequence(params, xs, state, active))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bptt(static: _Static, sequence: _Sequence) -> tuple[State, Any]:
    """The forward pass when nobody differentiates: nothing is kept between chunks."""
    cell, params = static.cell, sequence.params
    steps = sequence.xs.shape[0]
    xs, active, shape = _cut_inputs(static, sequence)

    def step(state: State, inputs: tuple[Array, Array | None]) -> tuple[State, State]:
        u, active = inputs
        state = select(active, cell.advance(params, state, u), state)
        return state, state

    def walk(state: State, inputs: tuple[Array, Array | None]) -> tuple[State, Any]:
        xs, active = inputs
        us = cell.project(params, xs)
        state, states = jax.lax.scan(step, state, (us, active), length=shape[1])
        return state, static.keep(params, states, xs)

    with products_at(static.precision):
        state, kept = jax.lax.scan(walk, sequence.state, (xs, active))
        return state, join(kept, steps)


def _forward(
    static: _Static, sequence: _Sequence
) -> tuple[tuple[State, Any], tuple[_Sequence, _Kept]]:
    """The forward pass that keeps every state, and what the cell saves beside it."""
    cell, params = static.cell, sequence.params
    xs, active, _ = _cut_inputs(static, sequence)
    adjoint = _adjoint_of(cell, params, sequence.state)

    def step(state: State, inputs: tuple[Array, Array | None]) -> tuple[State, Any]:
        u, active = inputs
        new, saved = adjoint.advance(state, u)
        state = select(active, new, state)
        return state, (state, saved)

    def walk(start: State, inputs: tuple[Array, Array | None]) -> tuple[State, _Kept]:
        xs, active = inputs
        state, kept = jax.lax.scan(step, start, (cell.project(params, xs), active))
        return state, _Kept(start, *kept)

    with products_at(static.precision):
        state, kept = jax.lax.scan(walk, sequence.state, (xs, active))
        states = join(kept.states, sequence.xs.shape[0])
        shown = static.keep(params, states, sequence.xs)
    return (state, shown), (sequence, kept)


def _backward(
    static: _Static,
    residuals: tuple[_Sequence, _Kept],
    cotangents: tuple[State, Any],
) -> tuple[_Sequence]:
    """The adjoint of the state, backwards in time, and the contractions per chunk."""
    sequence, kept = residuals
    dstate, dshown = cotangents
    cell, params = static.cell, sequence.params
    xs, active, shape = _cut_inputs(static, sequence)
    adjoint = _adjoint_of(cell, params, sequence.state)

    def step(dstate_t: State, inputs: Any) -> tuple[State, Any]:
        state_tm1, state_t, saved, direct, active = inputs
        dstate_t = _add(dstate_t, direct)
        dstate_tm1, du, deltas = adjoint.pullback(state_tm1, state_t, saved, dstate_t)
        dstate_tm1 = select(active, dstate_tm1, dstate_t)
        return dstate_tm1, silence(active, (du, deltas))

    def walk(carry: tuple[State, Params], inputs: Any) -> tuple[Any, Array | None]:
        dstate, total = carry
        xs, active, (start, states, saved), dshown = inputs
        states_tm1 = jax.tree.map(_shift, start, states)
        dparams, direct, dxs = _pull_keep(static.keep, params, states, xs, dshown)
        dstate, (du, deltas) = jax.lax.scan(
            step, dstate, (states_tm1, states, saved, direct, active), reverse=True
        )
        dparams_u, dxs_u = _pull_project(cell.project, params, xs, du)
        dparams_s = adjoint.gradient(states_tm1, states, saved, du, deltas)
        total = _accumulate(total, dparams, dparams_u, dparams_s)
        return (dstate, total), _add(dxs, dxs_u)

    with products_at(static.precision):
        dshown = cut(dshown, *shape)
        carry = dstate, _zero_totals(params, dstate)
        (dstate, total), dxs = jax.lax.scan(
            walk, carry, (xs, active, kept, dshown), reverse=True
        )
    dparams = jax.tree.map(lambda like, sum_: sum_.astype(like.dtype), params, total)
    return (_Sequence(dparams, join(dxs, sequence.xs.shape[0]), dstate, None),)


_bptt.defvjp(_forward, _backward)


class _Closed(NamedTuple):
    """An `Adjoint` with the parameters filled in."""

    advance: Callable[..., tuple[State, Saved]]
    pullback: Callable[..., tuple[State, Array, Saved]]
    gradient: Callable[..., Params]


def _adjoint_of(cell: Cell, params: Params, state: State) -> _Closed:
    """Returns the cell's own backward pass, that of its gates, or JAX's."""
    if cell.adjoint is not None:
        return _Closed(*(functools.partial(part, params) for part in cell.adjoint))
    if cell.gated is not None:
        return _gated_adjoint(cell.gated, params, state)
    return _generic_adjoint(cell, params)


def _gated_adjoint(gated: Gated, params: Params, state: State) -> _Closed:
    # `recur` is affine in the state, so its transpose is the same at each step: made
    # once, out here, it brings one product with W_h^T, and no second forward product.
    pull_state = jax.vjp(functools.partial(gated.recur, params), state)[1]

    def advance(state: State, u: Array) -> tuple[State, Saved]:
        v = gated.recur(params, state)
        gates = split_gates(u, gated.gates), split_gates(v, gated.gates)
        return gated.pointwise(state, *gates)

    def pullback(
        state_tm1: State, state: State, saved: Saved, dstate: State
    ) -> tuple[State, Array, Array | None]:
        direct, du, dv = gated.pullback(state_tm1, state, saved, dstate)
        same = all(a is b for a, b in zip(du, dv, strict=True))
        merged = merge_gates(dv)
        dstate_tm1 = _add(direct, pull_state(merged)[0])
        if same:
            return dstate_tm1, merged, None
        return dstate_tm1, merge_gates(du), merged

    def gradient(
        states_tm1: State, states: State, saved: Saved, du: Array, dv: Array | None
    ) -> Params:
        del states, saved
        pull = jax.vjp(lambda params: gated.recur(params, states_tm1), params)[1]
        return pull(du if dv is None else dv)[0]

    return _Closed(advance, pullback, gradient)


def _generic_adjoint(cell: Cell, params: Params) -> _Closed:
    """For a cell without hand-derived derivatives: `advance` is run once more."""

    def advance(state: State, u: Array) -> tuple[State, Saved]:
        return cell.advance(params, state, u), u

    def pullback(
        state_tm1: State, state: State, u: Array, dstate: State
    ) -> tuple[State, Array, State]:
        del state
        pull = jax.vjp(functools.partial(cell.advance, params), state_tm1, u)[1]
        return *pull(dstate), dstate

    def gradient(
        states_tm1: State, states: State, us: Array, du: Array, dstates: State
    ) -> Params:
        del states, du
        along = jax.vmap(cell.advance, in_axes=(None, 0, 0))
        return jax.vjp(lambda params: along(params, states_tm1, us), params)[1](
            dstates
        )[0]

    return _Closed(advance, pullback, gradient)


def _cut_inputs(
    static: _Static, sequence: _Sequence
) -> tuple[Array, Array | None, tuple[int, int]]:
    """Returns inputs and activity cut into chunks, and the chunks' (count, length)."""
    steps = sequence.xs.shape[0]
    shape = chunk_shape(steps, static.chunk)
    active = fill_active(sequence.active, steps, shape[0] * shape[1])
    return cut(sequence.xs, *shape), cut(active, *shape), shape


def _pull_keep(
    keep: Keep, params: Params, states: State, xs: Array, dshown: Any
) -> tuple[Params, State, Array | None]:
    if jnp.issubdtype(xs.dtype, jnp.inexact):
        return jax.vjp(keep, params, states, xs)[1](dshown)
    pull = jax.vjp(lambda params, states: keep(params, states, xs), params, states)[1]
    return *pull(dshown), None


def _pull_project(
    project: Callable[[Params, Array], Array], params: Params, xs: Array, du: Array
) -> tuple[Params, Array | None]:
    if jnp.issubdtype(xs.dtype, jnp.inexact):
        return jax.vjp(project, params, xs)[1](du)
    return jax.vjp(lambda params: project(params, xs), params)[1](du)[0], None


def _shift(start: Array, states: Array) -> Array:
    """Returns the states before each step, from those after each step."""
    return jnp.concatenate([start[None], states[:-1]])


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _zero_totals(params: Params, dstate: State) -> Params:
    """Sums over chunks are kept in the state's type, the widest at hand."""
    bits = max(jnp.finfo(leaf.dtype).bits for leaf in jax.tree.leaves(dstate))
    dtype = jnp.float64 if bits == 64 else jnp.float32
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), params)


def _accumulate(total: Params, *parts: Params) -> Params:
    def one(total: Array, *parts: Array) -> Array:
        return total + sum(part.astype(total.dtype) for part in parts)

    return jax.tree.map(one, total, *parts)
