"""The units of each program that shares a matrix, and the columns of these units."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jrnn.kernels import _gates as gates
from jrnn.kernels._pallas import power_of_two
from jrnn.kernels._plan import Plan


def pieces(size: int) -> list[tuple[int, int]]:
    """Cuts a size into parts (start, size) whose sizes are powers of two."""
    pieces, start = [], 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            pieces.append((start, 2**bit))
            start += 2**bit
    return pieces


def columns(plan: Plan, W: Array) -> Array:
    """Returns each program's columns as rows, gate by gate: (programs, g share, n)."""
    n, gate = plan.units[1], plan.gated.gates
    W = W.reshape(n, gate, plan.programs, plan.share).transpose(2, 1, 3, 0)
    W = jnp.pad(W, [(0, 0), (0, power_of_two(gate) - gate), (0, 0), (0, 0)])
    return W.reshape(plan.programs, -1, n)


def rows(plan: Plan, W: Array) -> Array:
    """Returns each program's columns, unit by unit: (programs, n, share g)."""
    n, gate = plan.units[1], plan.gated.gates
    W = W.reshape(n, gate, plan.programs, plan.share).transpose(2, 0, 3, 1)
    W = jnp.pad(W, [(0, 0), (0, 0), (0, 0), (0, power_of_two(gate) - gate)])
    return W.reshape(plan.programs, n, -1)


def side_by_side(parts: gates.Gates) -> Array:
    """Interleaves gates (rows, share) to (rows, share g), unit by unit like `rows`."""
    if len(parts) == 1:
        return parts[0]
    parts = (
        *parts,
        *(jnp.zeros_like(parts[0]),) * (power_of_two(len(parts)) - len(parts)),
    )
    # The stacked axis has two entries at each level, which is what Triton can join.
    evens, odds = side_by_side(parts[::2]), side_by_side(parts[1::2])
    return jnp.stack([evens, odds], axis=-1).reshape(evens.shape[0], -1)


def units(plan: Plan, p: Array, gate: int = 0) -> Any:
    """Returns the slice of a program's units of a gate."""
    from jax.experimental import pallas as pl

    return pl.ds(gate * plan.units[1] + p * plan.share, plan.share)


def gates_at(plan: Plan, ref: Any, p: Array, t: Any = None, rows: Any = None) -> Any:
    """Returns a program's units of every gate, at step t if there is a time axis."""
    if ref is None:
        return None
    place = (slice(None),) if t is None else (t, rows)
    return tuple(ref[(*place, units(plan, p, g))] for g in range(plan.gated.gates))
