"""Boolean flags of steps: which update the state, and which restart it first.

Flags may lack the last axes of the arrays that they apply to.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn.core.cell import Cell, Params, State
from jrnn.core.integers import as_array, widen_integers
from jrnn.core.seams import gated_advance


def active_steps(
    steps: Any, lengths: Array | None, mask: Array | None
) -> Bool[Array, "T *batch"] | None:
    """Returns which steps update the state; None: all do."""
    if lengths is None:
        return mask
    lengths = as_array(lengths)
    t = jnp.arange(steps).reshape(steps, *(1,) * lengths.ndim)
    within = t < widen_integers(lengths).astype(t.dtype)[None]
    return within if mask is None else within & mask


def select(active: Bool[Array, "*lead"] | None, new: Any, old: Any) -> Any:
    """Returns `new` where active, `old` elsewhere, leaf by leaf; None: all active."""
    if active is None:
        return new

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(
            active.reshape(active.shape + (1,) * (a.ndim - active.ndim)), a, b
        )

    return jax.tree.map(choose, new, old)


def renew(restart: Bool[Array, "*lead"] | None, fresh: Any, state: Any) -> Any:
    """Returns `fresh` where `restart` is True, `state` elsewhere."""
    if restart is None:
        return state

    def choose(a: Array, b: Array) -> Array:
        over = restart.reshape(restart.shape + (1,) * (b.ndim - restart.ndim))
        return jnp.where(over, a.astype(b.dtype), b)

    return jax.tree.map(choose, fresh, state)


def silence(active: Bool[Array, "*lead"] | None, tree: Any) -> Any:
    """Returns `tree` where active, zeros elsewhere."""
    if active is None:
        return tree
    return select(active, tree, jax.tree.map(jnp.zeros_like, tree))


def expand_flags(
    active: Bool[Array, "*lead"] | None, like: Array
) -> Bool[Array, "..."] | None:
    """Broadcasts flags over the leading axes of `like` to its shape."""
    if active is None:
        return None
    places = active.reshape(active.shape + (1,) * (like.ndim - active.ndim))
    return jnp.broadcast_to(places, like.shape)


def advance_flagged(
    cell: Cell,
    params: Params,
    state: State,
    u: Any,
    active: Bool[Array, "..."] | None,
    restart: Bool[Array, "..."] | None,
    fresh: State | None,
) -> State:
    """Returns the state after one step, with `restart` and `active` applied.

    Flags may lack the last axes of the batch: a step that pads a chunk is inactive for
    every sequence.
    """
    state = renew(restart, fresh, state)
    advance = cell.advance if cell.gated is None else gated_advance(cell.gated)
    return select(active, advance(params, state, u), state)
