r"""Shared by all diagnostics: argument checks, a run of the cell, and a flat state.

The flat state is one real vector of all the state's arrays: (h, c) for an LSTM, the
arrays of all layers for a stack; a complex array is its real part, then its imaginary
part. With row vectors, the Jacobian of a step is

.. math:: J_t[i, j] = \partial s_t[j] / \partial s_{t-1}[i],
  \quad ds_t = ds_{t-1} J_t.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.caches import jitted
from jrnn.core.cell import Cell, Params, State
from jrnn.core.check import (
    check_array,
    check_cell,
    check_params,
    check_state,
    expected_state,
)
from jrnn.core.check_inputs import check_elapsed, check_inputs, known_values
from jrnn.core.countable import check_countable
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.integers import widen_integers
from jrnn.core.programs import Arguments, Family
from jrnn.core.seams import prepared
from jrnn.core.tree import leaves, reads_ahead

P = ParamSpec("P")
R = TypeVar("R")


class Run(NamedTuple):
    """A run of a cell: the state before each step, the projected inputs, the end."""

    states_tm1: State
    us: Any
    final: State


def compiled(*static: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Jits a function, with `cell` and `static` static, at full matmul precision.

    TensorFloat-32 or bfloat16 products, an accelerator's default, are too coarse for
    these measurements. A function compiled for a `loss` is freed with that loss.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def precisely(*args: P.args, **kwargs: P.kwargs) -> R:
            with jax.default_matmul_precision("highest"):
                return function(*args, **kwargs)

        if "loss" in static:
            return _for_each_loss(precisely, static)
        return jitted(("cell", *static))(precisely)

    return decorate


def _for_each_loss(function: Callable[..., R], static: tuple[str, ...]) -> Any:
    others = tuple(name for name in static if name != "loss")

    def make(arguments: Arguments) -> Callable[..., R]:
        def run(cell: Cell, *args: Any, **kwargs: Any) -> R:
            return function(cell, *args, loss=arguments()[0], **kwargs)

        return jax.jit(run, static_argnums=0, static_argnames=others)

    programs = Family(function.__name__.lstrip("_"), make)

    @functools.wraps(function)
    def call(*args: Any, loss: Callable[..., Array], **kwargs: Any) -> R:
        return programs(loss)(*args, **kwargs)

    return call


def prepare(
    cell: Cell, params: Params, xs: Any, state: State | None
) -> tuple[Array, State]:
    """Returns checked inputs and the initial state.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; or the cell reads in both directions, or has no
        state.
    """
    check_cell(cell)
    if reads_ahead(cell):
        raise ValueError(
            f"Expected a cell that reads only forwards, got {cell}, which has no "
            "single state per step and therefore no product of Jacobians; pass each "
            "direction's cell separately, the second with its inputs reversed."
        )
    if not jax.tree.leaves(expected_state(cell)):
        raise ValueError(
            f"Expected a cell with a state, got {cell}, in which nothing recurs, so "
            "that there is no Jacobian of a step."
        )
    return begin(cell, params, xs, state)


def begin(
    cell: Cell, params: Params, xs: Any, state: State | None
) -> tuple[Array, State]:
    """Returns checked inputs and the initial state, whichever way the cell reads.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`.
    """
    xs = widen_integers(check_array("xs", xs))
    check_params(cell, params)
    batch = check_inputs(cell, xs)
    check_elapsed(cell, known_values(xs))
    check_countable(xs.shape[0], "diagnostics")
    if state is None:
        state = cell.init_state(params, batch)
    else:
        state = check_state(cell, state, batch)
    return xs, cast_state(state, state_dtype(params, xs))


def batch_shape(xs: Array) -> tuple[int, ...]:
    """Returns the batch shape of inputs: the axes between time and features."""
    return xs.shape[1:-1] if jnp.issubdtype(xs.dtype, jnp.inexact) else xs.shape[1:]


def run(cell: Cell, params: Params, xs: Array, state: State) -> Run:
    """Runs a cell along a sequence and returns what Jacobians are computed from."""
    params = prepared(cell, params)  # once, not at each step
    us = cell.project(params, xs)

    def step(state: State, u: Any) -> tuple[State, State]:
        return cell.advance(params, state, u), state

    final, states_tm1 = jax.lax.scan(step, state, us)
    return Run(states_tm1, us, final)


def after(states_tm1: State, final: State) -> State:
    """Returns the state after each step, from those before each and the final one."""
    join = lambda old, last: jnp.concatenate([old[1:], last[None]])
    return jax.tree.map(join, states_tm1, final)


def flatten(state: State, lead: int) -> Array:
    """Returns a state as real vectors (*lead axes, n).

    Args:
      state: Any state.
      lead: The number of leading time and batch axes.
    """
    parts = []
    for leaf in jax.tree.leaves(state):
        flat = leaf.reshape(*leaf.shape[:lead], math.prod(leaf.shape[lead:]))
        is_complex = jnp.issubdtype(flat.dtype, jnp.complexfloating)
        parts += [flat.real, flat.imag] if is_complex else [flat]
    return jnp.concatenate(parts, axis=-1)


def unflatten(vector: Array, like: State, lead: int) -> State:
    """Inverts `flatten`; returns a state with the structure of `like`."""
    leaves, structure = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape[lead:])
        shape = (*vector.shape[:-1], *leaf.shape[lead:])
        part = vector[..., start : start + size].reshape(shape)
        start += size
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            imaginary = vector[..., start : start + size].reshape(shape)
            part = jax.lax.complex(part, imaginary)
            start += size
        parts.append(part)
    return jax.tree.unflatten(structure, parts)


def fields(state: State, lead: int) -> dict[str, slice]:
    """Returns the slice of each array in the flat state, by name: "h" or "[0].h"."""
    found, start = {}, 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        size = math.prod(leaf.shape[lead:]) * (2 if is_complex else 1)
        name = jax.tree_util.keystr(path).removeprefix(".")
        found[name] = slice(start, start + size)
        start += size
    return found


def field(name: str | None, state: State, lead: int, argument: str = "field") -> slice:
    """Returns the slice of a field in the flat state; None is the whole state.

    Raises:
      ValueError: The state has no such field.
    """
    if name is None:
        return slice(None)
    known = fields(state, lead)
    if not isinstance(name, str) or name not in known:
        raise ValueError(
            f"Expected {argument} to be a field of the state, one of "
            f"{', '.join(known)}, or None for the whole, got {tell(name)}."
        )
    return known[name]


def step_jacobian(
    cell: Cell, params: Params, state_tm1: State, u: Any, lead: int
) -> Array:
    """Returns J (*lead axes, n, n) of one or several steps."""
    vector = flatten(state_tm1, lead)

    def moved(vector: Array) -> Array:
        state = cell.advance(params, unflatten(vector, state_tm1, lead), u)
        return flatten(state, lead)

    def row(unit: Array) -> Array:
        tangent = jnp.broadcast_to(unit, vector.shape)
        return jax.jvp(moved, (vector,), (tangent,))[1]

    units = jnp.eye(vector.shape[-1], dtype=vector.dtype)
    units = units.reshape(units.shape[:1] + (1,) * lead + units.shape[1:])
    return jax.vmap(row, out_axes=-2)(units)


def layer_slices(cell: Cell, state: State, lead: int) -> list[slice]:
    """Returns the slice of each layer in the flat state, from the bottom to the top.

    A layer reads only those below it; a cell that is not a stack is one layer.
    """
    slices, start = [], 0
    for leaf in leaves(cell):
        places = fields(leaf.share(state), lead).values()
        size = max((place.stop for place in places), default=0)
        slices.append(slice(start, start + size))
        start += size
    return slices


def euclidean_norm(array: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Returns the Euclidean norm over `axis`; its squares do not over- or underflow.

    Its gradient at 0 is defined as 0. NaN gives NaN.
    """
    largest = jax.lax.stop_gradient(jnp.abs(array).max(axis, keepdims=True))
    scale = jnp.where((largest == 0) | jnp.isinf(largest), 1, largest)
    square = jnp.square(array / scale).sum(axis)
    root = jnp.sqrt(jnp.where(square == 0, 1, square))
    return jnp.where(square == 0, 0, scale.reshape(square.shape) * root)
