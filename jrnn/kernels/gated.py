"""A gated cell along a sequence, forwards and backwards: one launch each.

    v_t = h_{t-1} W + b,    s_t = pointwise(s_{t-1}, u_t, v_t)

for u_1..u_T that were worked out before, in one large product. Going back, the kernel
gives du_t and dv_t, and the large products of the parameters' gradients come after.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn._base import Gated, Saved, State
from jrnn.kernels import _gates, _resident, _streamed
from jrnn.kernels._pallas import Target, like
from jrnn.kernels._plan import Plan, make_plan, pad, pad_matrix, unpad


class Given(NamedTuple):
    """What a kernel walks along: n units, g gates, one axis of rows.

    Attributes:
      W: (n, g n).
      b: (g n,), or None.
      us: (T, rows, g n).
      start: The state before the first step, leaves (rows, n).
      fresh: What restarts put in its place; None without.
      active: At which steps a row moves on, (T, rows); None: all.
      restart: Before which it starts anew; None: none.
    """

    W: Array
    b: Array | None
    us: Array
    start: State
    fresh: State | None = None
    active: Bool[Array, "T rows"] | None = None
    restart: Bool[Array, "T rows"] | None = None


def forward(
    gated: Gated, target: Target, given: Given, save: bool
) -> tuple[State, State, Saved]:
    """Returns the final state, every state, and if `save` what `backward` needs."""
    plan = make_plan(gated, target, given.us.shape[0], given.W, given.start)
    start = _padded(plan, given.start)
    saved = _gates.saved_like(gated, start) if save else None
    run = _resident.forward if plan.tile is None else _streamed.forward
    b = given.b
    if b is not None:
        b = pad(b.astype(given.us.dtype)[None], plan, gated.gates, rows=False)
    results = run(
        plan,
        {
            "whole": {"W": pad_matrix(given.W, plan), "b": b},
            "timed": {
                "us": pad(given.us, plan, gated.gates),
                "flags": _flags(plan, given),
            },
            "rows": {"start": start, "fresh": _padded(plan, given.fresh)},
        },
        {
            "timed": {
                "states": jax.tree.map(plan.timed, start),
                "saved": jax.tree.map(plan.timed, saved),
            },
            "rows": {"final": _alike(start)},
        },
    )
    timed, final = results["timed"], results["rows"]["final"]
    return _cut(plan, final), _cut(plan, timed["states"]), _cut(plan, timed["saved"])


def backward(
    gated: Gated,
    target: Target,
    given: Given,
    states_tm1: State,
    states: State,
    saved: Saved,
    dfinal: State,
    direct: State,
) -> tuple[Array, Array, State, State | None]:
    """Returns du, dv (the identical array where they are the same), dstart, dfresh.

    Args:
      gated: The seam.
      target: The machine.
      given: What `forward` was given; us is not read.
      states_tm1: The state that each step read.
      states: The state after each step.
      saved: What `forward` saved.
      dfinal: The gradient of the final state.
      direct: That of each state, but for what comes from later ones.
    """
    plan = make_plan(gated, target, given.us.shape[0], given.W, given.start)
    dfinal = _padded(plan, dfinal)
    leaf = jax.tree.leaves(dfinal)[0]
    like_saved = _gates.saved_like(gated, dfinal)
    shared = _gates.shares_gates(gated, dfinal, like_saved)
    du = plan.timed(leaf, gated.gates)
    run = _resident.backward if plan.tile is None else _streamed.backward
    results = run(
        plan,
        {
            "whole": {"W": pad_matrix(given.W, plan)},
            "timed": {
                "flags": _flags(plan, given),
                "states_tm1": _padded(plan, states_tm1),
                "states": _padded(plan, states),
                "saved": _padded(plan, saved),
                "direct": _padded(plan, direct),
            },
            "rows": {"dfinal": dfinal},
        },
        {
            "timed": {"du": du, "dv": None if shared else du},
            "rows": {
                "dstart": _alike(dfinal),
                "dfresh": None if given.restart is None else _alike(dfinal),
            },
        },
    )
    timed, rows = results["timed"], _cut(plan, results["rows"])
    du = unpad(timed["du"], plan, gated.gates)
    dv = du if shared else unpad(timed["dv"], plan, gated.gates)
    return du, dv, rows["dstart"], rows["dfresh"]


def _flags(plan: Plan, given: Given) -> Array | None:
    """Returns both flags as one array (T, rows, 1); rows of padding do nothing."""
    flags = _gates.pack(given.active, given.restart)
    if flags is None:
        return None
    more = plan.rows[1] - plan.rows[0]
    return jnp.pad(flags, [(0, 0), (0, more)])[..., None]


def _padded(plan: Plan, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: pad(leaf, plan), tree)


def _cut(plan: Plan, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: unpad(leaf, plan), tree)


def _alike(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: like(*leaf.shape, dtype=leaf.dtype), tree)
