"""A gated cell along a sequence, forwards and backwards: one launch each.

    v_t = h_{t-1} W + b,    s_t = pointwise(s_{t-1}, u_t, v_t)

for u_1..u_T that were computed before, in one large product. The backward kernel
returns du_t and dv_t; the large products of the parameters' gradients come after it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool

from jrnn.core.cell import Gated, Saved, State
from jrnn.kernels import _gates, _resident, _shared, _streamed
from jrnn.kernels._pallas import Target, like
from jrnn.kernels._plan import Plan, make_plan, pad, pad_matrix, unpad

# The axis of the rows in each argument of `backward`.
BACK = 1, 1, 1, 0, 1


class Given(NamedTuple):
    """The arguments of a kernel: n units, g gates, one axis of rows.

    Attributes:
      W: (n, g n).
      b: (g n,), or None.
      us: (T, rows, g n).
      start: The state before the first step, leaves (rows, n).
      fresh: The state that replaces it at restarts; None without.
      active: True at steps that update a row, (T, rows); None: all do.
      restart: True at steps before which a row restarts; None: none.
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
    """Returns the final state, every state, and, if `save`, the saved values."""
    run = _with_vmap(lambda given: _forward(gated, target, given, save), (), (0, 1, 1))
    return run(given)


def _forward(
    gated: Gated, target: Target, given: Given, save: bool
) -> tuple[State, State, Saved]:
    plan = make_plan(gated, target, given.us.shape[0], given.W, given.start)
    start = _padded(plan, given.start)
    saved = _gates.saved_like(gated, start) if save else None
    run = _resident.forward if plan.tile is None else _streamed.forward
    run = _shared.forward if plan.programs > 1 else run
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
    """Returns du, dv (the identical array if they are the same), dstart, dfresh.

    Args:
      gated: The seam.
      target: The machine.
      given: The arguments of `forward`; us is not read.
      states_tm1: The state that each step read.
      states: The state after each step.
      saved: The values that `forward` saved.
      dfinal: The gradient of the final state.
      direct: The gradient of each state, except through later states.
    """
    run = _with_vmap(functools.partial(_backward, gated, target), BACK, (1, 1, 0, 0))
    return run(given, states_tm1, states, saved, dfinal, direct)


def _backward(
    gated: Gated,
    target: Target,
    given: Given,
    states_tm1: State,
    states: State,
    saved: Saved,
    dfinal: State,
    direct: State,
) -> tuple[Array, Array, State, State | None]:
    plan = make_plan(gated, target, given.us.shape[0], given.W, given.start)
    dfinal = _padded(plan, dfinal)
    leaf = jax.tree.leaves(dfinal)[0]
    like_saved = _gates.saved_like(gated, dfinal)
    shared = _gates.shares_gates(gated, dfinal, like_saved)
    du = plan.timed(leaf, gated.gates)
    run = _resident.backward if plan.tile is None else _streamed.backward
    run = _shared.backward if plan.programs > 1 else run
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


def _with_vmap(
    run: Callable[..., Any], given: tuple[int, ...], found: tuple[int, ...]
) -> Callable[..., Any]:
    """Makes `vmap` add rows, or launch once for each matrix if these differ.

    By default Pallas would make one grid of all launches, where programs that wait for
    one another might not run at the same time.

    Args:
      run: (Given, *trees) -> trees.
      given: The axis of the rows in each of these trees.
      found: The axis of the rows in each result.
    """
    mapped = custom_vmap(run)

    def rule(size: int, batched: Any, first: Given, *others: Any) -> Any:
        def spread(tree: Any, is_batched: Any) -> Any:
            wide = lambda leaf, yes: (
                leaf if yes else jnp.broadcast_to(leaf, (size, *leaf.shape))
            )
            return jax.tree.map(wide, tree, is_batched)

        def fold(tree: Any, is_batched: Any, axis: int) -> Any:
            def one(leaf: Array) -> Array:
                leaf = jnp.moveaxis(leaf, 0, axis)
                rows = size * leaf.shape[axis + 1]
                return leaf.reshape(*leaf.shape[:axis], rows, *leaf.shape[axis + 2 :])

            return jax.tree.map(one, spread(tree, is_batched))

        def unfold(tree: Any, axis: int) -> Any:
            def one(leaf: Array) -> Array:
                lead, rest = leaf.shape[:axis], leaf.shape[axis + 1 :]
                return jnp.moveaxis(leaf.reshape(*lead, size, -1, *rest), axis, 0)

            return jax.tree.map(one, tree)

        if batched[0].W or batched[0].b:
            everything = spread((first, *others), tuple(batched))
            results = jax.lax.map(lambda args: mapped(*args), everything)
        else:
            axes = {"us": 1, "active": 1, "restart": 1, "start": 0, "fresh": 0}
            folded = {
                name: fold(getattr(first, name), getattr(batched[0], name), axis)
                for name, axis in axes.items()
            }
            rest = map(fold, others, batched[1:], given)
            results = mapped(first._replace(**folded), *rest)
            results = tuple(map(unfold, results, found))
        return results, jax.tree.map(lambda _: True, results)

    mapped.def_vmap(rule)
    return mapped


def _flags(plan: Plan, given: Given) -> Array | None:
    """Returns both flags as one array (T, rows, 1); padding rows are inactive."""
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
