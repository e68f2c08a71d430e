"""How arrays lie in memory: every trick that is played for a compiler.

Nothing here changes a number, and a reader of the mathematics may take each function
for the identity. What each gains is measured in docs/speed.md ("Where the time goes"),
and `tests/results/counts.json` bounds the operations and bytes of compiled steps.
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
    """Returns whether axes that are neighbours in memory should be made one.

    The gradient of W sums over time and batch. Over two axes XLA for CPUs copies and
    transposes the terms first. Code that copies a step's batch and units as two axes
    takes it two to three times as long to compile. On a mesh a batch that is split over
    devices must remain an axis.
    """
    return jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().empty


def merge_axes(leaf: Array, lead: int) -> Array:
    """Makes one axis of all after the first `lead`, where `axes_merge` says so.

    A step then reads or writes one run of numbers.
    """
    if leaf.ndim <= lead or not axes_merge():
        return leaf
    return leaf.reshape(*leaf.shape[:lead], math.prod(leaf.shape[lead:]))


def as_rows(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns what a loop over steps reads as rows of one axis, and their inverse.

    The inverse gives one step's rows the axes of the leaves, without that of time.
    """

    def restore(rows: Any) -> Any:
        one = lambda row, leaf: row.reshape(leaf.shape[1:])
        return jax.tree.map(one, rows, tree)

    return jax.tree.map(lambda leaf: merge_axes(leaf, 1), tree), restore


def columns_of_gates(
    W: Array, b: Array | None, gates: int
) -> tuple[list[Array], list[Array] | None]:
    """Returns the columns of W and b of each gate, for a product for each.

    Gates that are cut out of one wide product are copied once more, or sliced inside
    the loop over time, where XLA for CPUs gives up vector instructions for everything
    that follows. The biases are added inside the loop, as one operation among others:
    before it, that takes another pass over the sequence.
    """
    return jnp.split(W, gates, -1), None if b is None else jnp.split(b, gates, -1)


def reads_transposed(state: State) -> bool:
    """Returns whether matrices should lie in memory as a step backwards reads them.

    It multiplies by W_h^T, whose rows lie scattered in W_h. Transposed once, before the
    loop, a product of 8 rows takes 0.47 to 0.59 of the time on a CPU, one of 16 or 32
    rows 0.79 to 0.88; one of a single row gains nothing
    (experiments/benchmarks/results/products.json).
    """
    rows = max(math.prod(leaf.shape[:-1]) for leaf in jax.tree.leaves(state))
    return jax.default_backend() == "cpu" and rows > 1


def transposed(leaf: Array) -> Array:
    """Returns a matrix transposed in memory; anything else as it is.

    Without the barrier the compiler would transpose it inside the loop again.
    """
    return jax.lax.optimization_barrier(leaf.T) if leaf.ndim == 2 else leaf


def with_transposed(
    pullback: Callable[..., Any], params: Params, state: State
) -> Callable[..., Any]:
    """Returns `pullback` with its parameters filled in, matrices as it reads them."""
    if not reads_transposed(state):
        return functools.partial(pullback, params)
    lying = jax.tree.map(transposed, params)
    # Transposed back inside the loop: in front of it, they would lie as before.
    back = lambda leaf: leaf.T if leaf.ndim == 2 else leaf
    return lambda *steps: pullback(jax.tree.map(back, lying), *steps)


def unshared(du: tuple[Array, ...], dv: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Returns the gates of du that are not, as one array, those of dv; None for others.

    Most cells add u_t to v_t, so that du_t is dv_t; a GRU does for two gates of three.
    A step backwards then writes each array once, and `with_shared` joins them.
    """
    return tuple(None if a is b else a for a, b in zip(du, dv, strict=True))


def with_shared(du: tuple[Array | None, ...], dv: Array) -> Array:
    """Returns du whole, of many steps: the gates that are None are those of dv."""
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
    """Scans `step` over the steps of each chunk, and writes each result where it stays.

    A scan within a scan gathers what the inner loop leaves for each chunk, and copies
    it to where the outer loop keeps it: one more pass over the sequence.

    Args:
      step: (state, inputs of a step) -> (state, what the step leaves).
      inputs: What `timed` holds of a chunk -> the inputs of its steps.
      state: Before the first step.
      timed: A tree of arrays (count, length, ...): chunks of steps.

    Returns:
      The last state, and what all steps left, (count * length, ...).
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
    counter = jnp.int32 if count * length <= MOST_STEPS else jnp.int64
    carry = jnp.zeros((), counter), state, jax.tree.map(room, like)
    _, state, kept = jax.lax.scan(along_chunk, carry, timed)[0]
    axes = lambda rows, leaf: rows.reshape(count * length, *leaf.shape)
    return state, jax.tree.map(axes, kept, like)


def zeros_like_results(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns zeros of the types that `function` returns, without its work."""
    if jax.sharding.get_abstract_mesh().empty:
        shapes = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    # On a mesh a type tells how an array is split; compilers drop the numbers.
    return jax.tree.map(jnp.zeros_like, function(*arguments))
