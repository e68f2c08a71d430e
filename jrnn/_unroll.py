"""Running a cell along a sequence: validation, lengths and masks, then a method.

`unroll` alone knows lengths and masks. A method sees which steps are active, silenced
inputs, and a function that says what to keep of each step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

from jrnn._base import Cell, Keep, Method, Params, State, cast_state, state_dtype
from jrnn._check import (
    check_cell,
    check_ids,
    check_inputs,
    check_lengths,
    check_mask,
    check_method,
    check_params,
    check_state,
)
from jrnn.methods._steps import silence
from jrnn.methods.bptt import bptt


def unroll(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    lengths: Int[Array, "*batch"] | None = None,
    mask: Bool[Array, "T *batch"] | None = None,
    method: Method | None = None,
) -> tuple[State, Array]:
    r"""Runs a cell along a sequence, and returns its final state and its outputs.

    .. math:: s_t, y_t = \mathrm{step}(\theta, s_{t-1}, x_t), \quad t = 1 \dots T

    Jitted, with `cell` and `method` static: equal cells and methods trace once. Every
    method gives the same outputs and gradients, to rounding.

    Args:
      cell: What is run, made by a factory such as `jrnn.lstm`.
      params: Its parameters.
      xs: Inputs, time first: floats (T, *batch, input_size), or token ids (T, *batch).
      state: Where the sequence starts; None takes `cell.init_state`.
      lengths: Steps that count, 0..T, of the batch shape. Outputs past a length are 0,
        the final state is that after the sequence's own last step, and what the
        padding holds has no effect. Clipped to that range under `jax.jit`.
      mask: Where False the state passes through the step, and the output is 0.
      method: How it is run, `jrnn.bptt()` by default.

    Returns:
      The final state, with leaves (*batch, ...), and the outputs
      (T, *batch, output_size), in the type of `xs` (of the parameters for token ids).
      A token id outside 0..input_size-1 gives NaN under `jax.jit`.

    Raises:
      TypeError: Something is of the wrong type: integers where floats belong, a
        method that was not called.
      ValueError: Something is of the wrong shape or structure, a concrete length or
        token id is out of range, or the sequence is empty.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.lstm(3, 4)
      >>> params = cell.init(jax.random.key(0))
      >>> state, ys = jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
      >>> state.c.shape, ys.shape
      ((2, 4), (7, 2, 4))
    """
    return _checked(cell, _output, params, xs, state, lengths, mask, method)


def trajectory(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    lengths: Int[Array, "*batch"] | None = None,
    mask: Bool[Array, "T *batch"] | None = None,
    method: Method | None = None,
) -> State:
    """Runs a cell along a sequence, and returns the state after every step.

    Args:
      cell: As in `unroll`.
      params: As in `unroll`.
      xs: As in `unroll`.
      state: As in `unroll`.
      lengths: As in `unroll`; past a length the state stays what it was.
      mask: As in `unroll`.
      method: As in `unroll`.

    Returns:
      The states, with leaves (T, *batch, ...).

    Raises:
      TypeError: As in `unroll`.
      ValueError: As in `unroll`.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.lstm(3, 4)
      >>> xs = jax.numpy.ones((7, 2, 3))
      >>> jrnn.trajectory(cell, cell.init(jax.random.key(0)), xs).c.shape
      (7, 2, 4)
    """
    return _checked(cell, _states, params, xs, state, lengths, mask, method)[1]


def _checked(
    cell: Cell,
    kept: Any,
    params: Params,
    xs: Any,
    state: State | None,
    lengths: Any,
    mask: Any,
    method: Method | None,
) -> tuple[State, Any]:
    """Raises on static mistakes, and hands over to the compiled function."""
    method = bptt() if method is None else method
    check_cell(cell)
    check_method(method)
    xs = jnp.asarray(xs)
    check_params(cell, params)
    batch = check_inputs(cell, xs)
    if state is not None:
        check_state(cell, params, state, batch)
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        check_lengths(lengths, xs.shape[0], batch)
    if mask is not None:
        mask = jnp.asarray(mask)
        check_mask(mask, xs.shape[0], batch)
    if jnp.issubdtype(xs.dtype, jnp.integer):
        active = active_steps(xs.shape[0], lengths, mask)
        check_ids("xs", silence(active, xs), cell.spec.input_size)
    return _unroll(cell, kept, method, params, xs, state, lengths, mask)


@functools.partial(jax.jit, static_argnames=("cell", "kept", "method"))
def _unroll(
    cell: Cell,
    kept: Any,
    method: Method,
    params: Params,
    xs: Array,
    state: State | None,
    lengths: Array | None,
    mask: Array | None,
) -> tuple[State, Any]:
    features = jnp.issubdtype(xs.dtype, jnp.inexact)
    batch = xs.shape[1:-1] if features else xs.shape[1:]
    state = cell.init_state(params, batch) if state is None else state
    state = cast_state(state, state_dtype(params, xs))
    active = active_steps(xs.shape[0], lengths, mask)
    state, shown = method.run(
        cell,
        kept(cell),
        params,
        silence(active, xs),
        state,
        active,
        **dict(method.options),
    )
    return state, silence(active, shown) if kept is _output else shown


def active_steps(
    steps: int, lengths: Array | None, mask: Array | None
) -> Bool[Array, "T *batch"] | None:
    """Returns at which steps the state moves on; None where it always does."""
    if lengths is None:
        return mask
    t = jnp.arange(steps).reshape(steps, *(1,) * lengths.ndim)
    within = t < lengths[None]
    return within if mask is None else within & mask


def _output(cell: Cell) -> Keep:
    return cell.output


def _states(cell: Cell) -> Keep:
    del cell
    return _keep_states


def _keep_states(params: Params, states: State, xs: Array) -> State:
    del params, xs
    return states
