r"""Parallel in time: for cells that are linear in their state.

    s_t = a_t * s_{t-1} + b_t

Neither a_t nor b_t depends on the state, so both are computed for all steps at once,
and the recurrence is evaluated in any grouping (`jrnn.linear_recurrence`): this is the
answer to the notes' question whether sequential processing can be avoided, for the
cells that gave up a state inside their gates.

A step that does not count has a = 1 and b = 0. A step that starts anew has a = 0 and
b = a * fresh + b.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn._base import (
    Cell,
    Keep,
    Method,
    Params,
    Sequence,
    State,
    check_size,
    expand,
    memoize,
    noisy_project,
)
from jrnn.methods._recurrence import recurrence
from jrnn.methods._steps import Precision, check_precision, products_at


@memoize
def associative(*, chunk: int | None = None, precision: Precision = None) -> Method:
    """Makes the method that evaluates a linear recurrence in parallel over time.

    The gradient is a linear recurrence run backwards, written by hand. Forward mode
    needs `jrnn.scan()`.

    Args:
      chunk: Steps per block: blocks are evaluated side by side, the steps in a block
        one after another. None takes all steps, one block, on a CPU, where that is
        fastest, and about sqrt(T) elsewhere.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None leaves it to JAX.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`. They raise ValueError for a
      cell that is not linear in its state: `jrnn.newton` takes any.

    Raises:
      TypeError: `chunk` is not an integer.
      ValueError: `chunk` is below 1.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.min_gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((1000, 3))
      >>> jrnn.unroll(cell, params, xs, method=jrnn.associative())[1].shape
      (1000, 4)
    """
    if chunk is not None:
        check_size("chunk", chunk)
    check_precision(precision)
    return Method(_run, (("chunk", chunk), ("precision", precision)))


def _run(
    cell: Cell,
    keep: Keep,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    chunk: int | None,
    precision: Precision,
) -> tuple[State, Any]:
    linear = cell.linear
    if linear is None:
        raise ValueError(
            f"Expected a cell that is linear in its state, such as jrnn.min_gru, for "
            f"jrnn.associative(), got {cell}; run it with jrnn.bptt(), or in parallel "
            "with jrnn.newton()."
        )

    def along(h0: Array, a: Array, b: Array, fresh: Array) -> Array:
        a = expand(a, b.ndim + linear.full)
        a, b = a.astype(h0.dtype), b.astype(h0.dtype)
        if sequence.active is not None:
            a, b = _pass_by(linear.full, sequence.active, a, b)
        if sequence.restart is not None:
            a, b = _start_anew(linear.full, sequence.restart, fresh, a, b)
        return recurrence(linear.full, chunk, a, b, h0)

    with products_at(precision):
        us = noisy_project(cell.project, params, sequence.xs, sequence.noise)
        a, b = linear.coefficients(params, us)
        fresh = state if sequence.fresh is None else sequence.fresh  # not read, if None
        states = jax.tree.map(along, state, a, b, fresh)
        final = jax.tree.map(lambda leaf: leaf[-1], states)
        return final, keep(params, states, sequence.xs)


def _pass_by(
    full: bool, active: Bool[Array, "T *batch"], a: Array, b: Array
) -> tuple[Array, Array]:
    """Steps that do not count leave the state as it is: a = 1, b = 0."""
    unit = jnp.eye(b.shape[-1], dtype=a.dtype) if full else jnp.ones((), a.dtype)
    b = jnp.where(active[..., None], b, jnp.zeros_like(b))
    return _where(active, a, expand(unit, a.ndim)), b


def _start_anew(
    full: bool, restart: Bool[Array, "T *batch"], fresh: Array, a: Array, b: Array
) -> tuple[Array, Array]:
    """Steps that start anew come from `fresh`: a = 0, b = a * fresh + b."""
    fresh = fresh.astype(b.dtype)[None]
    moved = jnp.matmul(fresh[..., None, :], a)[..., 0, :] if full else a * fresh
    b = jnp.where(restart[..., None], moved + b, b)
    return _where(restart, jnp.zeros((1,) * a.ndim, a.dtype), a), b


def _where(flags: Bool[Array, "T *batch"], yes: Array, no: Array) -> Array:
    """Chooses whole coefficients, whose axes of size 1 are repeated."""
    over = flags.reshape(flags.shape + (1,) * (yes.ndim - flags.ndim))
    return jnp.where(over, yes, no)
