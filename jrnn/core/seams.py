"""Deriving a cell's step from the parts that the cell declares.

A gated cell declares its product and its gates, a linear cell its coefficients;
`advance` follows from these. `step` is project, advance and output in turn.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import (
    Adjoint,
    Cell,
    Gated,
    Gates,
    Key,
    Linear,
    Params,
    Saved,
    State,
)
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.layout import columns_of_gates
from jrnn.core.products import (
    expand,
    merge_gates,
    product,
    project_dense,
    split_gates,
)


def prepared(cell: Cell, params: Params) -> Params:
    """Returns the parameters that the cell's functions read, prepared if need be."""
    return params if cell.prepare is None else cell.prepare(params)


def noise_of(cell: Cell, key: Key, steps: int, batch: tuple[int, ...]) -> Any:
    """Returns the noise of a cell for many steps; None if it draws none."""
    return None if cell.noise is None else cell.noise(key, steps, batch)


def noisy_project(
    project: Callable[..., Any], params: Params, x: Any, noise: Any
) -> Any:
    """Returns the input's share u, including the noise if there is some."""
    return project(params, x) if noise is None else project(params, x, noise)


def compose_step(
    project: Callable[..., Any],
    advance: Callable[[Params, State, Any], State],
    output: Callable[[Params, State, Any], Array],
) -> Callable[..., tuple[State, Array]]:
    """Returns `step`: the composition of project, advance and output."""

    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        state = cast_state(state, state_dtype(params, x))
        u = noisy_project(project, params, x, noise)
        state = advance(params, state, u)
        return state, output(params, state, x)

    return step


def dense_inputs(params: Params) -> tuple[Array, Array | None]:
    """Returns W_x and b: `Gated.inputs` of cells that project x W_x + b."""
    return params.W_x, params.b


def recur(gated: Gated, params: Params, state: State) -> Array:
    """Returns v = h W + b, the recurrent share for all gates, (*batch, gates * n)."""
    W, b = gated.product(params)
    h = state[0]
    if W.ndim == 1:
        v = expand(W.astype(h.dtype), h.ndim) * h
    else:
        fields = W.shape[0] // h.shape[-1]
        v = product(merge_gates(tuple(state[:fields])), W, h.dtype)
    v = v if b is None else v + expand(b.astype(v.dtype), v.ndim)
    return merge_gates((v,) * (gated.gates * h.shape[-1] // v.shape[-1]))


def packed_product(
    gated: Gated, params: Params, state: State
) -> tuple[Array, Array | None] | None:
    """Returns W (n, gates * n) and b, if v = h W + b is one product with h alone.

    Kernels keep this W on chip (`jrnn.fused`).

    Returns:
      W and b; None if W is a vector, or multiplies other fields too.
    """
    W, b = gated.product(params)
    size = state[0].shape[-1]
    if W.ndim != 2 or W.shape[0] != size:
        return None
    copies = gated.gates * size // W.shape[1]
    return merge_gates((W,) * copies), None if b is None else merge_gates((b,) * copies)


def gated_advance_saving(
    gated: Gated, params: Params, state: State, u: Array | Gates
) -> tuple[State, Saved]:
    """Returns the state after a step of a gated cell, and what the step saves."""
    v = recur(gated, params, state)
    return gated.pointwise(
        state, split_gates(u, gated.gates), split_gates(v, gated.gates)
    )


def gated_advance(gated: Gated) -> Callable[[Params, State, Array | Gates], State]:
    """Returns the `advance` of a gated seam."""
    return lambda params, state, u: gated_advance_saving(gated, params, state, u)[0]


Forward = Callable[[Params, State, Any], tuple[State, Saved]]


def saving(gated: Gated | None, adjoint: Adjoint | None) -> Forward | None:
    """Returns a seam's `advance` that also returns residuals; None without a seam."""
    if adjoint is not None:
        return adjoint.advance
    return None if gated is None else functools.partial(gated_advance_saving, gated)


def advance_saving(cell: Cell) -> Forward:
    """Returns an `advance` that also returns the residuals of its backward pass.

    For a cell without hand-derived derivatives that is u, with which JAX runs the step
    again.
    """
    known = saving(cell.gated, cell.adjoint)
    return known or (lambda params, state, u: (cell.advance(params, state, u), u))


def linear_advance(linear: Linear) -> Callable[[Params, State, Any], State]:
    """Returns the `advance` of a linear seam."""

    def one(h: Array, a: Array, b: Array) -> Array:
        if linear.full:
            return jnp.matmul(h, a.astype(h.dtype)) + b
        return expand(a, h.ndim) * h + b

    def advance(params: Params, state: State, u: Any) -> State:
        new = jax.tree.map(one, state, *linear.coefficients(params, u))
        if linear.start is None:
            return new
        (h, fresh), structure = jax.tree.flatten(new)
        h = h + linear.start(params, u) * jax.tree.leaves(state)[1]
        return jax.tree.unflatten(structure, (h, fresh))

    return advance


def projected_coefficients(
    params: Params, u: tuple[State, State]
) -> tuple[State, State]:
    """Returns u, for cells whose `project` already returns (a, b)."""
    del params
    return u


class Shares(NamedTuple):
    """How u, the input's share, is computed: for many steps, then inside the loop.

    Attributes:
      project: (xs, noise) -> a part of u, for many steps, split into gates if gated.
      complete: The result of `project` at one step -> u.
    """

    project: Callable[[Any, Any], Any]
    complete: Callable[[Any], Any]


def shares_of(cell: Cell, params: Params) -> Shares:
    """Returns how a cell's u is computed: gate by gate if the cell allows it."""
    gated = cell.gated
    whole = functools.partial(noisy_project, cell.project, params)
    if gated is None:
        return Shares(whole, lambda u: u)
    if gated.inputs is None or cell.noise is not None:
        cut = lambda xs, noise: split_gates(whole(xs, noise), gated.gates)
        return Shares(cut, lambda u: u)
    columns, biases = columns_of_gates(*gated.inputs(params), gated.gates)

    def project(xs: Array, noise: None) -> Gates:
        del noise
        return tuple(project_dense(W, None, xs) for W in columns)

    def complete(u: Gates) -> Gates:
        if biases is None:
            return u
        return tuple(
            u_g + expand(b_g.astype(u_g.dtype), u_g.ndim)
            for u_g, b_g in zip(u, biases, strict=True)
        )

    return Shares(project, complete)
