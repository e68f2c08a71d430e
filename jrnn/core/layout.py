"""The layout of arrays in memory: all optimisations made for a compiler.

Nothing here changes a number; a reader of the mathematics may treat each function as
the identity. docs/speed.md ("Where the time goes") has the measured gains, and
`tests/results/counts.json` bounds the operations and bytes of compiled steps.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Params, State
from jrnn.core.countable import MOST_STEPS


def axes_merge() -> bool:
    """Returns whether adjacent axes should be merged into one: on a CPU without a mesh.

    The gradient of W sums over time and batch. With two axes, XLA for CPUs first copies
    and transposes the terms; and it needs two to three times as long to compile code
    that copies a step's batch and units as two axes. On a mesh, a batch that is split
    over devices must remain an axis.
    """
    return jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().empty


def merge_axes(leaf: Array, lead: int) -> Array:
    """Merges all axes after the first `lead` into one, if `axes_merge()`.

    A step then reads or writes one contiguous run of numbers.
    """
    if leaf.ndim <= lead or not axes_merge():
        return leaf
    return leaf.reshape(*leaf.shape[:lead], math.prod(leaf.shape[lead:]))


def as_rows(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns the inputs of a loop with one axis per step, and the inverse for a step.

    The inverse restores the axes of the leaves, without the time axis.
    """

    def restore(rows: Any) -> Any:
        one = lambda row, leaf: row.reshape(leaf.shape[1:])
        return jax.tree.map(one, rows, tree)

    return jax.tree.map(lambda leaf: merge_axes(leaf, 1), tree), restore


def columns_of_gates(
    W: Array, b: Array | None, gates: int
) -> tuple[list[Array], list[Array] | None]:
    """Returns the columns of W and b of each gate, for one product per gate.

    Gates that are split from one wide product are copied once more, or sliced inside
    the loop over time, and then XLA for CPUs uses no vector instructions for all that
    follows. The biases are added inside the loop, together with other operations;
    before it, they would take another pass over the sequence.
    """
    return jnp.split(W, gates, -1), None if b is None else jnp.split(b, gates, -1)


def reads_transposed(state: State) -> bool:
    """Returns whether to transpose matrices in memory for the backward loop.

    A backward step multiplies by W_h^T, whose rows are strided in W_h. If W_h is
    transposed once, before the loop, a product of 8 rows takes 0.47 to 0.59 of the time
    on a CPU, one of 16 or 32 rows 0.79 to 0.88; one of a single row gains nothing
    (experiments/benchmarks/results/products.json).
    """
    rows = max(math.prod(leaf.shape[:-1]) for leaf in jax.tree.leaves(state))
    several = not isinstance(rows, int) or rows > 1  # a symbol is usually more than 1
    return jax.default_backend() == "cpu" and several


def transposed(leaf: Array) -> Array:
    """Returns a matrix transposed in memory; any other array unchanged.

    Without the barrier the compiler would transpose it again inside the loop.
    """
    return jax.lax.optimization_barrier(leaf.T) if leaf.ndim == 2 else leaf


def with_transposed(
    pullback: Callable[..., Any], params: Params, state: State
) -> Callable[..., Any]:
    """Returns `pullback` with `params` bound, its matrices transposed in memory."""
    if not reads_transposed(state):
        return functools.partial(pullback, params)
    lying = jax.tree.map(transposed, params)
    # Transposed back inside the loop; before it, that would undo the layout.
    back = lambda leaf: leaf.T if leaf.ndim == 2 else leaf
    return lambda *steps: pullback(jax.tree.map(back, lying), *steps)


def unshared(du: tuple[Array, ...], dv: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Returns du with None for each gate that is the same object as in dv.

    Most cells add u_t to v_t, so that du_t is dv_t; a GRU does for two gates of three.
    A backward step then writes each array once, and `with_shared` restores du.
    """
    return tuple(None if a is b else a for a, b in zip(du, dv, strict=True))


def with_shared(du: tuple[Array | None, ...], dv: Array) -> Array:
    """Returns du of many steps as one array, with the gates of dv in place of None."""
    own = [gate for gate in du if gate is not None]
    if len(own) == len(du):
        return own[0] if len(own) == 1 else jnp.concatenate(own, axis=-1)
    size = dv.shape[-1] // len(du)
    for place, gate in enumerate(du):
        if gate is not None:
            gate = gate.astype(dv.dtype)
            dv = jax.lax.dynamic_update_slice_in_dim(dv, gate, place * size, -1)
    return dv


def scan_in_place(
    step: Callable[[State, Any], tuple[State, Any]],
    inputs: Callable[[Any], Any],
    state: State,
    timed: Any,
) -> tuple[State, Any]:
    """Scans `step` over chunks, and writes each result into one array for all steps.

    A scan within a scan collects the results of a chunk in the inner loop, and then
    copies them to the results of the outer loop: one more pass over the sequence.

    Args:
      step: (state, inputs of a step) -> (state, results of the step).
      inputs: A chunk of `timed` -> the inputs of its steps.
      state: Before the first step.
      timed: A tree of arrays (count, length, ...): chunks of steps.

    Returns:
      The last state, and the results of all steps, (count * length, ...).
    """
    count, length = jax.tree.leaves(timed)[0].shape[:2]

    def along_chunk(carry: Any, part: Any) -> tuple[Any, None]:
        rows, restore = as_rows(inputs(part))

        def write_step(carry: Any, row: Any) -> tuple[Any, None]:
            place, state, kept = carry
            state, left = step(state, restore(row))
            put = lambda kept, leaf: jax.lax.dynamic_update_index_in_dim(
                kept, merge_axes(leaf, 0), place, 0
            )
            return (place + 1, state, jax.tree.map(put, kept, left)), None

        return jax.lax.scan(write_step, carry, rows)[0], None

    def first_step(state: State, timed: Any) -> Any:
        given = inputs(jax.tree.map(lambda leaf: leaf[0], timed))
        return step(state, jax.tree.map(lambda leaf: leaf[0], given))[1]

    def room(leaf: Array) -> Array:
        row = merge_axes(leaf, 0)
        return jnp.broadcast_to(row, (count * length, *row.shape))

    like = zeros_like_results(first_step, state, timed)
    few = not isinstance(count, int) or count * length <= MOST_STEPS
    counter = jnp.int32 if few else jnp.int64
    carry = jnp.zeros((), counter), state, jax.tree.map(room, like)
    _, state, kept = jax.lax.scan(along_chunk, carry, timed)[0]
    axes = lambda rows, leaf: rows.reshape(count * length, *leaf.shape)
    return state, jax.tree.map(axes, kept, like)


def zeros_like_results(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns zeros like the results of `function`, without computing these."""
    if jax.sharding.get_abstract_mesh().empty:
        shapes = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    # On a mesh the type includes how an array is split, so `function` is called; the
    # compiler removes the computation.
    return jax.tree.map(jnp.zeros_like, function(*arguments))
