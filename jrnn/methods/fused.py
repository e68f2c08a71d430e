"""One kernel for a whole sequence, on a GPU or TPU, for cells with one product.

    u = project(params, xs)                            one large product before
    v_t = h_{t-1} W + b,  s_t = pointwise(s_{t-1}, u_t, v_t)          one launch
    y = output(params, s, xs)                          one large product after

In the backward pass one launch computes every du_t and dv_t with the cell's own
pullback; the gradients of W and b are then contractions over time and batch,

    dW = sum_t h_{t-1}^T dv_t,    db = sum_t dv_t

and JAX differentiates `project`. A loop in JAX launches several kernels for each step,
and each step reads W from memory; here W stays on chip if it fits, in one program or
shared among several.

The kernels (jrnn/kernels) trace `pointwise` and `pullback` of `Gated`, and get W and b;
they contain no code for any particular cell. Nothing here has been run on a GPU or TPU:
docs/kernels.md states what was checked, and what the counts predict.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from jrnn.core.cell import Cell, Gated, Params, State
from jrnn.core.chunks import shift
from jrnn.core.countable import check_countable
from jrnn.core.flags import renew
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Shown, Wanted, all_at_once, show_steps
from jrnn.core.products import Precision, check_precision, contract, products_at
from jrnn.core.seams import noisy_project, packed_product
from jrnn.kernels import gated as kernels
from jrnn.kernels._pallas import Target, check_target, find_target, refusal


@memoize
def fused(
    *,
    platform: str | None = None,
    interpret: bool = False,
    precision: Precision = None,
) -> Method:
    """Makes the method that runs a gated cell in one kernel, on a GPU or a TPU.

    For cells whose gates are elementwise in one product with the first field of their
    state (`Gated.product`). In float32, or with bfloat16 parameters and a float32
    state; unmeasured on any accelerator. First derivatives, in reverse mode; `vmap`
    works.

    Args:
      platform: "cuda" or "tpu"; None: the default backend at tracing, so name it when
        you export for another machine.
      interpret: Whether JAX itself runs the kernels step by step, on any machine and
        also in float64: for tests, and slow.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None: JAX's default.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`. They raise ValueError on a CPU,
      for a cell without such a product, for float64, and if the matrix does not fit a
      TPU's memory; `jrnn.bptt` has none of these limits.

    Raises:
      ValueError: `platform` or `precision` is not one of the allowed values.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((5, 2, 3))
      >>> jrnn.unroll(cell, params, xs, method=jrnn.fused(interpret=True))[1].shape
      (5, 2, 4)
    """
    check_target(platform, interpret, "jrnn.fused()")
    check_precision(precision)
    options = (("platform", platform), ("interpret", interpret))
    return Method(_run, (*options, ("precision", precision)))


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


def _run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    platform: str | None,
    interpret: bool,
    precision: Precision,
) -> tuple[State, Shown]:
    if not jax.tree.leaves(state):
        return all_at_once(cell, wanted, params, state, sequence, precision)
    packed = cell.gated and packed_product(cell.gated, params, state)
    if cell.gated is None or packed is None:
        raise ValueError(
            "Expected a cell whose gates are elementwise in one product with its "
            f"state, such as jrnn.lstm, for jrnn.fused(), got {cell}; run it with "
            "jrnn.bptt()."
        )
    check_countable(sequence.steps, "jrnn.fused()", wide=False)
    static = _Static(cell.gated, find_target(platform, interpret), precision)
    xs, noise, active, restart, fresh, _ = sequence
    batch = jax.tree.leaves(state)[0].shape[:-1]
    rows = functools.partial(_flatten, batch)
    with products_at(precision):
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


def _flatten(batch: tuple[int, ...], leaf: Array, lead: int = 0) -> Array:
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
