"""One kernel for a whole sequence, on a GPU or TPU, for cells with one product.

In the backward pass one launch computes every du_t and dv_t with the cell's own
pullback; the gradients of W and b are then contractions over time and batch,

    dW = sum_t h_{t-1}^T dv_t,    db = sum_t dv_t

and JAX differentiates `project`. A loop in JAX launches several kernels for each step,
and each step reads W from memory; here W stays on chip if it fits, in one program or
shared among several.

Nothing here has been run on a GPU or TPU: docs/kernels.md states what was checked, and
what the counts predict.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from jrnn.core.cell import Cell, Gated, Params, State
from jrnn.core.chunks import shift
from jrnn.core.flags import renew
from jrnn.core.method import Sequence, Shown, Wanted, show_steps
from jrnn.core.products import Precision, contract, products_at
from jrnn.core.seams import noisy_project
from jrnn.kernels import gated as kernels
from jrnn.kernels._pallas import Target, refusal


class _Static(NamedTuple):
    """The static arguments of the custom rules."""

    gated: Gated
    target: Target
    precision: Precision


class _Kept(NamedTuple):
    """The residuals of the forward pass, for the backward pass."""

    given: kernels.Given
    states: State
    saved: Any


def run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    packed: tuple[Array, Array | None],
    target: Target,
    precision: Precision,
) -> tuple[State, Shown]:
    """Runs a gated cell; `packed` is W and b of its product with the state."""
    assert cell.gated is not None
    static = _Static(cell.gated, target, precision)
    xs, noise, active, restart, fresh, _ = sequence
    batch = jax.tree.leaves(state)[0].shape[:-1]
    rows = functools.partial(merge_batch, batch)
    us = noisy_project(cell.project, params, xs, noise)
    W, b = packed
    given = kernels.Given(
        W=W,
        b=b,
        us=rows(us.astype(jax.tree.leaves(state)[0].dtype), 1),
        start=jax.tree.map(rows, state),
        fresh=jax.tree.map(rows, fresh),
        active=None if active is None else rows(active, 1),
        restart=None if restart is None else rows(restart, 1),
    )
    walked: Any = _walk(static, given)
    final, states = jax.tree.map(
        lambda leaf: leaf.reshape(*leaf.shape[:-2], *batch, leaf.shape[-1]),
        walked,
    )
    return final, show_steps(cell, wanted, params, states, xs)


def merge_batch(batch: tuple[int, ...], leaf: Array, lead: int = 0) -> Array:
    """Merges the axes of the batch, which begin at `lead`, into one."""
    rest = leaf.shape[lead + len(batch) :]
    return leaf.reshape(*leaf.shape[:lead], math.prod(batch), *rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _walk(static: _Static, given: kernels.Given) -> tuple[State, State]:
    """Returns the final state and every state."""
    results: Any = _forward_kernel(static, False, given)
    return results[:2]


def _forward(
    static: _Static, given: kernels.Given
) -> tuple[tuple[State, State], _Kept]:
    results: Any = _forward_kernel(static, True, given)
    final, states, saved = results
    return (final, states), _Kept(given, states, saved)


def _backward(
    static: _Static, kept: _Kept, cotangents: tuple[State, State]
) -> tuple[kernels.Given]:
    given = kept.given
    states_tm1 = jax.tree.map(shift, given.start, kept.states)
    states_tm1 = renew(given.restart, given.fresh, states_tm1)
    results: Any = _backward_kernel(static, kept, states_tm1, cotangents)
    du, dv, dstart, dfresh = results
    with products_at(static.precision):
        dW = contract(states_tm1[0], dv).astype(given.W.dtype)
    db = None if given.b is None else dv.sum(axis=(0, 1)).astype(given.b.dtype)
    # Flags have no derivative: None.
    return (kernels.Given(dW, db, du, dstart, dfresh),)


_walk.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _forward_kernel(
    static: _Static, save: bool, given: kernels.Given
) -> tuple[State, State, Any]:
    with products_at(static.precision):
        return kernels.forward(static.gated, static.target, given, save)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _backward_kernel(
    static: _Static, kept: _Kept, states_tm1: State, cotangents: tuple[State, State]
) -> tuple[Array, Array, State, State | None]:
    given, states, saved = kept
    with products_at(static.precision):
        return kernels.backward(
            static.gated, static.target, given, states_tm1, states, saved, *cotangents
        )


_RULES = refusal("jrnn.fused()", "take jrnn.bptt()")
_forward_kernel.defvjp(*_RULES)
_backward_kernel.defvjp(*_RULES)
