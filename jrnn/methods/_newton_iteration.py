"""Newton's iterations: a guess of the trajectory made better until it is one.

Each iteration is one linear recurrence over time, whose coefficients are the Jacobians
of the steps where the last guess is; `jrnn.methods.newton` tells the mathematics.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jrnn._base import Cell, Params, State
from jrnn.methods._jacobian import jacobians, pack, unpack
from jrnn.methods._recurrence import walk_blocks
from jrnn.methods._steps import Precision, advance_flagged, renew, select, shift

# Largest normwise residual that counts as solved: in float32 rounding stops it near
# 5e-7, and quadratic convergence makes the step after 1e-5 the last that is needed.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
# With approximate Jacobians an iteration gains a constant factor, and what is left
# after the last is of the size of the tolerance (experiments/parallel_in_time).
LINEAR_TOLERANCE = {"float32": 2e-6, "float64": 1e-11}
# A small residual of every step can be a large error after many, and the update of an
# iteration is what tells: to first order it is the error that it removes. Ten
# tolerances squared, by quadratic convergence, are what remains.
UPDATE = 10


class NewtonInfo(NamedTuple):
    """What became of each sequence.

    Attributes:
      converged: Whether the residual of what was returned is within the tolerance,
        and the last iteration moved it by little.
      iterations: How many linear recurrences were solved for it.
      residual: max|s_t - f_t(s_{t-1})| / max|s_t| over time and units, of that array of
        the state where it is largest.
    """

    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]
    residual: Float[Array, "*batch"]


class Options(NamedTuple):
    """What `jrnn.newton` was told."""

    diagonal: bool | None
    damping: float
    tolerance: float | None
    iterations: int
    fallback: bool
    chunk: int | None
    precision: Precision


class Inputs(NamedTuple):
    """The arguments of the custom rule: arrays, None where there is no such thing."""

    params: Params
    state: State
    us: Any
    active: Array | None
    restart: Array | None
    fresh: State | None
    guess: State | None


def iterate(cell: Cell, options: Options, inputs: Inputs) -> tuple[State, NewtonInfo]:
    """Newton's method, until every sequence has converged or had its iterations."""
    state, diagonal = inputs.state, bool(options.diagonal)
    leaf = jax.tree.leaves(state)[0]
    batch, steps = leaf.shape[:-1], _steps(inputs)
    exact = cell.diagonal or not diagonal
    usual = TOLERANCE if exact else LINEAR_TOLERANCE
    tolerance = options.tolerance or usual[leaf.dtype.name]
    start = pack(state, diagonal)
    guess = state if inputs.guess is None else inputs.guess
    guess = jax.tree.map(
        lambda like, leaf: jnp.broadcast_to(
            leaf.astype(like.dtype), (steps, *like.shape)
        ),
        state,
        guess,
    )

    def evaluate(states: State) -> tuple[State, State, Array]:
        states_tm1 = jax.tree.map(shift, state, states)
        moved = transition(cell, inputs, states_tm1)
        return states_tm1, moved, _distance(states, moved, batch)

    def near(residual: Array, update: Array) -> Array:
        small = tolerance * UPDATE if exact else tolerance
        return (residual <= tolerance) & (update <= small)

    def unsolved(carry: tuple[State, Array, Array]) -> Array:
        _, iterations, solved = carry
        return (~solved).any() & (iterations.max(initial=0) < options.iterations)

    def improve(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        states, iterations, solved = carry
        states_tm1, moved, residual = evaluate(states)
        A = flagged_jacobians(cell, inputs, states_tm1, diagonal)
        A = A * _shrink(options, exact, residual <= tolerance, A)
        before, after = pack(states_tm1, diagonal), pack(moved, diagonal)
        b = after - jnp.matmul(before[..., None, :], A)[..., 0, :]
        new = _recurrence(options.chunk, A, b, start)
        new = jnp.where(jnp.isfinite(new), new, after)
        new = unpack(new, states, diagonal)
        iterations = iterations + (~solved).astype(iterations.dtype)
        return new, iterations, near(residual, _distance(states, new, batch))

    begun = guess, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)
    states, iterations, solved = jax.lax.while_loop(unsolved, improve, begun)
    residual = evaluate(states)[2]
    return states, NewtonInfo(solved & (residual <= tolerance), iterations, residual)


def _shrink(options: Options, exact: bool, solved: Array, A: Array) -> Array:
    """Returns 1 - damping; 1 for the step after a sequence is solved, if A is exact.

    That last step then gains digits as Newton's method does: a damped iteration gains a
    constant factor, and would leave an error of the size of the tolerance or more.
    """
    damped = jnp.asarray(1 - options.damping, A.dtype)
    shrink = jnp.where(solved & exact, jnp.ones_like(damped), damped)
    return shrink.reshape((1, *solved.shape) + (1,) * (A.ndim - 1 - solved.ndim))


def _steps(inputs: Inputs) -> int:
    return jax.tree.leaves(inputs.us)[0].shape[0]


def transition(cell: Cell, inputs: Inputs, states_tm1: State) -> State:
    """Returns f_t(s_{t-1}) of every step, flags and all."""
    params, _, us, active, restart, fresh, _ = inputs
    fresh = _along(fresh)
    return advance_flagged(cell, params, states_tm1, us, active, restart, fresh)


def _along(fresh: State | None) -> State | None:
    """Puts an axis of time in front of a state."""
    return None if fresh is None else jax.tree.map(lambda leaf: leaf[None], fresh)


def flagged_jacobians(
    cell: Cell, inputs: Inputs, states_tm1: State, diagonal: bool
) -> Array:
    """Of `transition`: the unit matrix where no step counts, 0 where one restarts."""
    active, restart = inputs.active, inputs.restart
    states_tm1 = renew(restart, _along(inputs.fresh), states_tm1)
    A = jacobians(cell, inputs.params, states_tm1, inputs.us, diagonal)
    unit = jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape)
    A = select(active, A, unit)
    return A if restart is None else select(restart, jnp.zeros_like(A), A)


def _recurrence(chunk: int | None, A: Array, b: Array, start: Array) -> Array:
    if A.shape[-1] == 1:  # numbers rather than 1 x 1 matrices
        return walk_blocks(False, chunk, A[..., 0], b, start)[1]
    return walk_blocks(True, chunk, A, b, start)[1]


def _distance(states: State, others: State, batch: tuple[int, ...]) -> Array:
    """Returns max|s - s'| / max|s'| of each sequence, over time and units.

    Of the array where it is largest: a cell of LSTM that has counted up to a thousand
    is not to hide what its output does.
    """
    axes = (0, len(batch) + 1)
    largest = jnp.zeros(batch, jax.tree.leaves(states)[0].dtype)
    for one, other in zip(
        jax.tree.leaves(states), jax.tree.leaves(others), strict=True
    ):
        size = jnp.maximum(jnp.abs(other).max(axes), jnp.finfo(other.dtype).tiny)
        largest = jnp.maximum(largest, jnp.abs(one - other).max(axes) / size)
    return largest
