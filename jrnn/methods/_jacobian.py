r"""The Jacobian of one step, for all steps at once.

With row vectors, A[i, j] = ds_t[j] / ds_{t-1}[i] over the whole flattened state, so
that to first order s_t changes by ds_{t-1} A. A state of k arrays of n units is packed
as one vector of k n numbers, or, for the diagonal blocks alone, as n vectors of k
numbers.

A gated cell has a recurrent share v = s W + b that is affine in the state, with a
matrix R that is the same at each step, and elementwise gates. Then

    A = (ds'/ds at fixed v) + R (ds'/dv)

needs no matrix product, because both derivatives are diagonal. For any other cell each
row of A is a directional derivative of `advance`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Gated, Params, State
from jrnn.core.products import split_gates
from jrnn.core.seams import recur


def pack(state: State, diagonal: bool) -> Array:
    """Returns a state as vectors: (..., k n), or (..., n, k) if diagonal."""
    leaves = jax.tree.leaves(state)
    return jnp.stack(leaves, -1) if diagonal else jnp.concatenate(leaves, -1)


def unpack(vector: Array, like: State, diagonal: bool) -> State:
    """Inverts `pack`; the state has the structure of `like`."""
    leaves, structure = jax.tree.flatten(like)
    if diagonal:
        parts = [vector[..., i] for i in range(len(leaves))]
    else:
        sizes = [leaf.shape[-1] for leaf in leaves]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        parts = jnp.split(vector, ends, axis=-1)
    return jax.tree.unflatten(structure, parts)


def jacobians(
    cell: Cell, params: Params, states_tm1: State, us: Any, diagonal: bool
) -> Array:
    """Returns A of every step, for leading axes of time and batch.

    Args:
      cell: Any cell with a real state.
      params: Its parameters.
      states_tm1: The state before each step, with leaves (T, *batch, n).
      us: The input's share of each step.
      diagonal: Whether to keep only the k x k block of each unit: exact if
        `cell.diagonal`, otherwise an approximation.

    Returns:
      (T, *batch, k n, k n), or (T, *batch, n, k, k) if diagonal.
    """
    if cell.gated is not None:
        return _gated(cell.gated, params, states_tm1, us, diagonal)
    advance = lambda states: cell.advance(params, states, us)
    if not diagonal:
        return _columns(advance, states_tm1)
    if cell.diagonal:
        return _blocks(advance, states_tm1)
    return _diagonal(advance, states_tm1)


def _columns(advance: Any, states: State) -> Array:
    vector = pack(states, False)

    def moved(vector: Array) -> Array:
        return pack(advance(unpack(vector, states, False)), False)

    def row(unit: Array) -> Array:
        tangent = jnp.broadcast_to(unit, vector.shape)
        return jax.jvp(moved, (vector,), (tangent,))[1]

    units = jnp.eye(vector.shape[-1], dtype=vector.dtype)
    lead = (1,) * (vector.ndim - 1)
    return jax.vmap(row, out_axes=-2)(units.reshape(units.shape[:1] + lead + (-1,)))


def _blocks(advance: Any, states: State) -> Array:
    """For a cell whose units do not mix: one direction for each array of the state."""
    leaves, structure = jax.tree.flatten(states)

    def row(which: int) -> Array:
        tangents = [
            jnp.full_like(leaf, 1 if i == which else 0) for i, leaf in enumerate(leaves)
        ]
        tangent = jax.tree.unflatten(structure, tangents)
        return pack(jax.jvp(advance, (states,), (tangent,))[1], True)

    return jnp.stack([row(which) for which in range(len(leaves))], axis=-2)


def _diagonal(advance: Any, states: State) -> Array:
    """For any cell: one unit at a time, so that the full A is never in memory."""
    vectors = pack(states, True)  # (..., n, k)

    def moved(vectors: Array) -> Array:
        return pack(advance(unpack(vectors, states, True)), True)

    size, count = vectors.shape[-2:]

    def unit(i: Array) -> Array:
        def row(which: Array) -> Array:
            tangent = jnp.zeros((size, count), vectors.dtype).at[i, which].set(1)
            tangent = jnp.broadcast_to(tangent, vectors.shape)
            return jax.jvp(moved, (vectors,), (tangent,))[1][..., i, :]

        return jax.vmap(row, out_axes=-2)(jnp.arange(count))

    return jnp.moveaxis(jax.lax.map(unit, jnp.arange(size)), 0, -3)


def _gated(
    gated: Gated, params: Params, states: State, us: Array, diagonal: bool
) -> Array:
    leaves, structure = jax.tree.flatten(states)
    size, dtype = leaves[0].shape[-1], leaves[0].dtype
    u = split_gates(us, gated.gates)
    v = split_gates(recur(gated, params, states), gated.gates)
    pointwise = lambda states, v: jax.tree.leaves(gated.pointwise(states, u, v)[0])

    def slopes(which: int) -> list[Array]:
        """Returns d(each array of the state) / d(input `which`), elementwise."""
        inputs = [*leaves, *v]
        tangents = [
            jnp.full_like(leaf, 1 if i == which else 0) for i, leaf in enumerate(inputs)
        ]
        ds, dv = tangents[: len(leaves)], tuple(tangents[len(leaves) :])
        direction = (jax.tree.unflatten(structure, ds), dv)
        return jax.jvp(pointwise, (states, v), direction)[1]

    count = len(leaves)
    by_state = jnp.stack([jnp.stack(slopes(i), -2) for i in range(count)], -3)
    by_gate = jnp.stack(
        [jnp.stack(slopes(count + g), -2) for g in range(gated.gates)], -3
    )  # (..., g, m, j)
    R = _recurrent_matrix(gated, params, structure, count, size, dtype)  # (l, i, g, j)
    if diagonal:
        own = jnp.diagonal(R, axis1=1, axis2=3)  # (l, g, j)
        blocks = by_state + jnp.einsum("lgj,...gmj->...lmj", own, by_gate)
        return jnp.moveaxis(blocks, -1, -3)
    full = jnp.einsum("ligj,...gmj->...limj", R, by_gate)
    eye = jnp.eye(size, dtype=dtype)
    full = full + jnp.einsum("...lmj,ij->...limj", by_state, eye)
    # Not by a reshape, which would lose the split of the batch over devices.
    rows = jnp.concatenate([full[..., m, :] for m in range(count)], -1)
    return jnp.concatenate([rows[..., i, :, :] for i in range(count)], -2)


def _recurrent_matrix(
    gated: Gated, params: Params, structure: Any, count: int, size: int, dtype: Any
) -> Array:
    """Returns R (k, n, gates, n), the derivative of v with respect to the state."""
    zeros = jnp.zeros((count * size,), dtype)

    def share(vector: Array) -> Array:
        parts = jnp.split(vector, count)
        return recur(gated, params, jax.tree.unflatten(structure, parts))

    row = lambda unit: jax.jvp(share, (zeros,), (unit,))[1]
    rows = jax.vmap(row)(jnp.eye(count * size, dtype=dtype))
    return rows.reshape(count, size, gated.gates, size)
