"""The calls of a walk under `vmap`: more rows, or one call for each matrix.

The gradient of a shared matrix is one for each mapped sequence, so that XLA contracts
it, and not the call.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from jrnn.core.cell import State
from jrnn.core.chunks import shift
from jrnn.core.flags import renew
from jrnn.core.products import contract
from jrnn.kernels.cpu import calls, partitioned
from jrnn.kernels.cpu.calls import Code, Given, Gradients, Kept


def forward(
    code: Code, keep: tuple[bool, ...], save: bool, given: Given
) -> tuple[State, Kept]:
    """Does what `partitioned.forward` does, also under `vmap`."""
    run = functools.partial(partitioned.forward, code, keep, save)
    return _mappable(run, _fold_forward)(given)


def backward(
    code: Code, dxs: bool, given: Given, kept: Kept, arriving: Gradients
) -> Given:
    """Does what `partitioned.backward` does, also under `vmap`."""
    run = functools.partial(partitioned.backward, code, dxs)
    return _mappable(run, functools.partial(_fold_backward, code, dxs))(
        given, kept, arriving
    )


def _mappable(run: Callable[..., Any], fold: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `vmap` add rows, or call once for each matrix if these differ."""
    mapped = custom_vmap(run)

    def rule(size: int, batched: Any, *args: Any) -> Any:
        spread = _spread(size, args, tuple(batched))
        one, axes = args[0], batched[0]
        if any((axes.W, axes.b, axes.W_x, axes.b_x)):
            results = jax.lax.map(lambda args: mapped(*args), spread)
        else:
            matrices = {name: getattr(one, name) for name in ("W", "b", "W_x", "b_x")}
            results = fold(mapped, size, matrices, *spread)
        return results, jax.tree.map(lambda _: True, results)

    mapped.def_vmap(rule)
    return mapped


def _spread(size: int, args: Any, batched: Any) -> Any:
    """Repeats what is not mapped; on a mesh it is then split as what is mapped."""
    if jax.sharding.get_abstract_mesh().empty:
        wide = lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape))
    else:
        leaves = zip(jax.tree.leaves(args), jax.tree.leaves(batched), strict=True)
        mapped = next(leaf for leaf, yes in leaves if yes)
        zeros = jnp.zeros_like(mapped, jnp.float32).sum(axis=range(1, mapped.ndim))

        def wide(leaf: Array) -> Array:
            nothing = zeros.reshape(size, *(1,) * leaf.ndim)
            if leaf.dtype == bool:
                return leaf ^ (nothing > 0)
            return leaf + nothing.astype(leaf.dtype)

    return jax.tree.map(lambda leaf, yes: leaf if yes else wide(leaf), args, batched)


def _merge(tree: Any, axis: int) -> Any:
    """Merges the leading axis into the axis of rows."""

    def one(leaf: Array) -> Array:
        leaf = jnp.moveaxis(leaf, 0, axis)
        rows = leaf.shape[axis] * leaf.shape[axis + 1]
        return leaf.reshape(*leaf.shape[:axis], rows, *leaf.shape[axis + 2 :])

    return jax.tree.map(one, tree)


def _split(tree: Any, size: int, axis: int) -> Any:
    """Splits the axis of rows again, and returns the first of both in front."""

    def one(leaf: Array) -> Array:
        lead, rest = leaf.shape[:axis], leaf.shape[axis + 1 :]
        return jnp.moveaxis(leaf.reshape(*lead, size, -1, *rest), axis, 0)

    return jax.tree.map(one, tree)


def _merge_given(given: Given, matrices: dict[str, Array | None]) -> Given:
    rows = {
        name: _merge(getattr(given, name), axis) for name, axis in calls.ROWS.items()
    }
    return given._replace(**rows, **matrices)


def _fold_forward(run: Any, size: int, matrices: Any, given: Given) -> Any:
    final, kept = run(_merge_given(given, matrices))
    return _split(final, size, 0), _split(kept, size, 1)


def _fold_backward(
    code: Code,
    dxs: bool,
    run: Any,
    size: int,
    matrices: Any,
    given: Given,
    kept: Kept,
    arriving: Gradients,
) -> Given:
    """The gradients of matrices differ along the mapped axis: contracted by XLA."""
    del run
    merged = _merge_given(given, matrices)
    W_x, b_x = merged.W_x, merged.b_x
    if given.us is None:  # as if u were given
        nothing = jnp.zeros((), code.dtype)
        merged = merged._replace(us=nothing, xs=None, W_x=None, b_x=None)
    states = Gradients(_merge(arriving.states, 1), _merge(arriving.final, 0))
    kept_rows = _merge(kept, 1)
    left = iter(partitioned.walk_back(code, merged, kept_rows, states))
    dstart, dfresh = _split(calls.take_states(code, merged, left), size, 0)
    du = _split(next(left), size, 1)
    dv = du if calls.compiled(code).shared else _split(next(left), size, 1)
    states_tm1 = jax.vmap(_first_tm1)(given, kept)
    sums = jax.vmap(contract)
    bias = lambda b, d: None if b is None else d.sum(axis=(1, 2))
    found = Given(
        sums(states_tm1, dv), bias(given.b, dv), None, None, None, None, dstart, dfresh
    )
    if given.us is not None:
        return found._replace(us=du)
    assert W_x is not None
    assert given.xs is not None
    return found._replace(
        W_x=sums(given.xs, du),
        b_x=bias(b_x, du),
        xs=jnp.matmul(du, W_x.T) if dxs else None,
    )


def _first_tm1(given: Given, kept: Kept) -> Array:
    """Returns the first array of the state that each step read, (T, rows, n)."""
    start, states = jax.tree.leaves(given.start)[0], kept.states[0]
    assert states is not None
    fresh = None if given.restart is None else jax.tree.leaves(given.fresh)[0]
    return renew(given.restart, fresh, shift(start, states))
