"""Custom rules for a walk on a CPU: its derivative, and the derivative of that.

The gradient of a walk is the backward walk. Both are custom calls, for which JAX has no
derivative; where one is differentiated, the same computation in JAX takes its place.
"""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Params, State
from jrnn.core.method import Sequence, Shown, Wanted, show_steps
from jrnn.core.seams import noisy_project
from jrnn.kernels.cpu import calls, mapped, ordinary
from jrnn.kernels.cpu.calls import Code, Given, Gradients, Kept
from jrnn.kernels.cpu.errors import NoCompiler
from jrnn.kernels.cpu.generate import Unsupported
from jrnn.methods.fused.accelerators import merge_batch

TYPES = "float32", "float64"


class _Static(NamedTuple):
    """The static arguments of the custom rules."""

    code: Code
    keep: tuple[bool, ...]  # which arrays of the state are wanted of each step


def serves(cell: Cell, state: State, packed: tuple[Array, Array | None]) -> bool:
    """Returns whether there is a kernel; otherwise warns in one line.

    Raises:
      ValueError: The arrays have types or sizes for which there is none.
    """
    code = _code(cell, state)
    _check_types(cell, code.dtype, (*jax.tree.leaves(state), *packed))
    try:
        calls.compiled(code)
    except (NoCompiler, Unsupported) as error:
        warnings.warn(f"{error} jrnn.bptt() runs it now.", stacklevel=2)
        return False
    return True


def _code(cell: Cell, state: State) -> Code:
    leaves, structure = jax.tree.flatten(state)
    assert cell.gated is not None
    return Code(cell.gated, structure, str(jnp.result_type(*leaves)))


def run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    packed: tuple[Array, Array | None],
) -> tuple[State, Shown]:
    """Runs a gated cell; `packed` is W and b of its product with the state."""
    assert cell.gated is not None
    leaves, structure = jax.tree.flatten(state)
    code = _code(cell, state)
    keep = (wanted.states or (wanted.ys and not cell.shows_state),) * len(leaves)
    keep = (keep[0] or wanted.ys, *keep[1:])
    static = _Static(code, keep)
    batch = leaves[0].shape[:-1]
    given = _given(cell, params, state, sequence, packed, code.dtype)
    found: Any = _walk(static, given)
    final, states = found
    steps = sequence.steps
    # What is not kept is not wanted: zeros that no operation reads.
    states = [
        jnp.zeros((steps, *leaf.shape), leaf.dtype)
        if one is None
        else one.reshape(steps, *leaf.shape)
        for one, leaf in zip(states, leaves, strict=True)
    ]
    final = jax.tree.map(lambda leaf: leaf.reshape(*batch, leaf.shape[-1]), final)
    states = jax.tree.unflatten(structure, states)
    return final, show_steps(cell, wanted, params, states, sequence.xs)


def _check_types(cell: Cell, dtype: str, leaves: tuple[Array | None, ...]) -> None:
    types = {str(leaf.dtype) for leaf in leaves if leaf is not None}
    if dtype not in TYPES or types != {dtype}:
        raise ValueError(
            "Expected parameters and a state of one type, float32 or float64, for "
            f"jrnn.fused() on a CPU, got {', '.join(sorted(types))} for {cell}; cast "
            "them, or run it with jrnn.bptt()."
        )
    sizes = {leaf.shape[-1] for leaf in leaves[:-2] if leaf is not None}
    if len(sizes) > 1:
        raise ValueError(
            "Expected a cell whose arrays of the state have one size for jrnn.fused(), "
            f"got {sorted(sizes)} for {cell}; run it with jrnn.bptt()."
        )


def _given(
    cell: Cell,
    params: Params,
    state: State,
    sequence: Sequence,
    packed: tuple[Array, Array | None],
    dtype: str,
) -> Given:
    """Returns the arguments of a walk, with one axis of rows."""
    xs, noise, active, restart, fresh, _ = sequence
    gated = cell.gated
    assert gated is not None
    batch = jax.tree.leaves(state)[0].shape[:-1]
    rows = functools.partial(merge_batch, batch)
    rows_tree = lambda tree: jax.tree.map(rows, tree)
    W, b = packed
    us = projected = W_x = b_x = None
    if gated.inputs is not None and cell.noise is None and _is_dense(xs, dtype):
        W_x, b_x = gated.inputs(params)
        projected = rows(xs, 1)
        if W_x.dtype != dtype or W_x.shape[1] != W.shape[1]:
            projected = W_x = b_x = None
    if projected is None:
        us = rows(noisy_project(cell.project, params, xs, noise).astype(dtype), 1)
    return Given(
        W,
        b,
        us,
        projected,
        W_x,
        b_x,
        start=rows_tree(state),
        fresh=None if restart is None else rows_tree(fresh),
        active=None if active is None else rows(active, 1),
        restart=None if restart is None else rows(restart, 1),
    )


def _is_dense(xs: Any, dtype: str) -> bool:
    return isinstance(xs, jax.Array) and str(xs.dtype) == dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _walk(static: _Static, given: Given) -> tuple[State, tuple[Array | None, ...]]:
    """Returns the final state and the wanted arrays of every state."""
    final, kept = _forward_call(static.code, static.keep, False, given)
    return _placed(final, given.start), _placed_steps(kept.states, given.start)


def _forwards(static: _Static, primals: Any) -> Any:
    given = jax.tree.map(lambda leaf: leaf.value, primals)
    of_inputs = primals.xs is not None and primals.xs.perturbed
    everything = (True,) * len(static.keep)
    final, kept = _forward_call(static.code, everything, True, given)
    wanted = zip(static.keep, kept.states, strict=True)
    states = tuple(leaf if yes else None for yes, leaf in wanted)
    final = _placed(final, given.start)
    states = _placed_steps(states, given.start)
    # Residuals are arrays; None records that dxs was not requested.
    return (final, states), (given, kept, () if of_inputs else None)


def _backwards(static: _Static, residuals: Any, cotangents: Any) -> tuple[Given]:
    given, kept, of_inputs = residuals
    dfinal, dstates = cotangents
    some = lambda leaf: None if _is_zero(leaf) else leaf
    arriving = Gradients(
        tuple(map(some, dstates)), tuple(map(some, jax.tree.leaves(dfinal)))
    )
    found = _backward_call(static.code, of_inputs is not None, given, kept, arriving)
    if given.xs is not None and found.xs is None:
        found = found._replace(xs=jnp.zeros_like(given.xs))
    floats = given._replace(active=None, restart=None)
    floats = floats if given.restart is not None else floats._replace(fresh=None)
    return (_placed(found, floats),)


_walk.defvjp(_forwards, _backwards, symbolic_zeros=True)


def _placed(tree: Any, like: Any) -> Any:
    """Gives results of a call the types on a mesh that arrays like them have.

    JAX does not know how a call's results depend on its arguments, and thus over which
    axes of the mesh they vary or are split (`jrnn.core.mesh`).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.tree.map(lambda leaf, one: leaf + jnp.zeros_like(one), tree, like)


def _placed_steps(leaves: tuple[Array | None, ...], start: State) -> Any:
    """Does the same for leaves (T, rows, n), like those of a state (rows, n)."""
    pairs = zip(leaves, jax.tree.leaves(start), strict=True)
    return tuple(None if a is None else _placed(a, b[None]) for a, b in pairs)


def _is_zero(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, jax.custom_derivatives.SymbolicZero)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _forward_call(
    code: Code, keep: tuple[bool, ...], save: bool, given: Given
) -> tuple[State, Kept]:
    return mapped.forward(code, keep, save, given)


@_forward_call.defjvp
def _forward_jvp(
    code: Code, keep: tuple[bool, ...], save: bool, primals: Any, tangents: Any
) -> Any:
    run = functools.partial(ordinary.forward, code, keep, save)
    return jax.jvp(run, primals, tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _backward_call(
    code: Code, dxs: bool, given: Given, kept: Kept, arriving: Gradients
) -> Given:
    return mapped.backward(code, dxs, given, kept, arriving)


@_backward_call.defjvp
def _backward_jvp(code: Code, dxs: bool, primals: Any, tangents: Any) -> Any:
    return jax.jvp(functools.partial(ordinary.backward, code, dxs), primals, tangents)
