"""One step of a gated cell, forwards and backwards, shared by all kernels.

Flags apply to the rows of a batch: an inactive row keeps its state, and in a row that
restarts `fresh` replaces the state before the step. The kernels compute the products;
they differ in where the matrix is stored:

    s_{t-1} = begin(s_{t-1});    v_t = h_{t-1} W + b;    s_t, saved_t = finish(...)
    ds_{t-1}, du_t, dv_t = pull(...);    dh_{t-1} += dv_t W^T;    end(...)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int

from jrnn.core.cell import Gated, Gates, Saved, State

ACTIVE, RESTART = 1, 2  # bits of a flag


class Rows(NamedTuple):
    """The flags of the rows of a block, (rows, 1); None: all active, none restarts."""

    active: Bool[Array, "rows 1"] | None = None
    restart: Bool[Array, "rows 1"] | None = None


def pack(active: Array | None, restart: Array | None) -> Int[Array, "T rows"] | None:
    """Packs both flags into one integer; None without either."""
    if active is None and restart is None:
        return None
    bits = [jnp.int32(ACTIVE) if active is None else active.astype(jnp.int32)]
    if restart is not None:
        bits.append(restart.astype(jnp.int32) * RESTART)
    return sum(bits[1:], bits[0])


def unpack(flags: Array | None, restarts: bool) -> Rows:
    """Unpacks the flags of one step; without `restarts`, only the active ones."""
    if flags is None:
        return Rows()
    restart = (flags & jnp.int32(RESTART)) != 0 if restarts else None
    return Rows((flags & jnp.int32(ACTIVE)) != 0, restart)


def choose(flags: Array | None, yes: Any, no: Any) -> Any:
    """Returns `yes` in rows whose flag is True, `no` elsewhere; no flags: `yes`."""
    if flags is None:
        return yes
    return jax.tree.map(lambda a, b: jnp.where(flags, a, b), yes, no)


def zeros(tree: Any) -> Any:
    """Returns zeros like `tree`."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def begin(rows: Rows, fresh: State | None, state: State) -> State:
    """Returns the state that the step reads, after restarts."""
    return state if rows.restart is None else choose(rows.restart, fresh, state)


def finish(
    gated: Gated, rows: Rows, real: Array | None, state_tm1: State, u: Gates, v: Gates
) -> tuple[State, Saved]:
    """Returns the state after the step, and what the backward step needs.

    `real` is False for padding units. These are kept at 0, so that they cannot affect
    the others even if the cell makes them infinite.
    """
    state, saved = gated.pointwise(state_tm1, u, v)
    state = choose(rows.active, state, state_tm1)
    return (state if real is None else choose(real, state, zeros(state))), saved


def pull(
    gated: Gated,
    rows: Rows,
    real: Array | None,
    state_tm1: State,
    state: State,
    saved: Saved,
    dstate: State,
) -> tuple[State, Gates, Gates]:
    """Returns ds_{t-1} without the part through the product, du_t and dv_t."""
    direct, du, dv = gated.pullback(state_tm1, state, saved, dstate)
    shared = shares(du, dv)

    def silence(gates: Gates) -> Gates:
        gates = choose(rows.active, gates, zeros(gates))
        return gates if real is None else choose(real, gates, zeros(gates))

    direct = choose(rows.active, direct, dstate)
    direct = direct if real is None else choose(real, direct, zeros(direct))
    du = silence(du)
    return direct, du, du if shared else silence(dv)


def end(rows: Rows, dstate: State) -> tuple[State, State | None]:
    """Splits dstate into the parts of the earlier state and of `fresh` (or None)."""
    if rows.restart is None:
        return dstate, None
    none = zeros(dstate)
    return choose(~rows.restart, dstate, none), choose(rows.restart, dstate, none)


def shares(du: Gates, dv: Gates) -> bool:
    """Returns whether du and dv are the same objects, so that one is enough."""
    return all(a is b for a, b in zip(du, dv, strict=True))


def saved_like(gated: Gated, state: State) -> Saved:
    """Returns the shapes of what a step saves, for a state of these shapes."""
    gates = (jax.tree.leaves(state)[0],) * gated.gates
    return jax.eval_shape(gated.pointwise, state, gates, gates)[1]


def shares_gates(gated: Gated, state: State, saved: Saved) -> bool:
    """Returns whether the pullback's du and dv are the same objects."""
    found = []

    def run(state: State, saved: Saved) -> State:
        dstate, du, dv = gated.pullback(state, state, saved, state)
        found.append(shares(du, dv))
        return dstate

    jax.eval_shape(run, state, saved)
    return found[0]


def product(x: Array, W: Array, dtype: DTypeLike) -> Array:
    """Returns x W, computed in the type of W, accumulated in `dtype`."""
    return jnp.dot(x.astype(W.dtype), W, preferred_element_type=jnp.dtype(dtype))


def product_t(x: Array, W: Array, dtype: DTypeLike) -> Array:
    """Returns x W^T, computed in the type of W, accumulated in `dtype`."""
    return jax.lax.dot_general(
        x.astype(W.dtype),
        W,
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.dtype(dtype),
    )
