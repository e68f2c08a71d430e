"""Newton's iterations, which improve a guess of the trajectory until it is a solution.

Each iteration is one linear recurrence over time, whose coefficients are the Jacobians
of the steps at the last guess; the mathematics is in `jrnn.methods.newton`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jrnn.core.cell import Cell, Params, State
from jrnn.core.chunks import shift
from jrnn.core.flags import advance_flagged, renew, select
from jrnn.core.products import Precision
from jrnn.methods._jacobian import jacobians, pack, unpack
from jrnn.methods._recurrence import walk_blocks

# Largest normwise residual that counts as solved: in float32 rounding stops it near
# 5e-7, and quadratic convergence makes the step after 1e-5 the last that is needed.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
# With approximate Jacobians convergence is linear, and the error after the last
# iteration is of the size of the tolerance (experiments/parallel_in_time).
LINEAR_TOLERANCE = {"float32": 2e-6, "float64": 1e-11}
# Small residuals of every step can add up to a large error. The update of an iteration
# shows it: to first order it is the error that the iteration removes. An update of at
# most UPDATE tolerances leaves, by quadratic convergence, the square of that.
UPDATE = 10
# Rounding errors of an iteration in each number of a step, in units of eps.
ROUNDINGS = 4
# If nothing is forgotten and nothing grows, roundings add up to a random walk: so many
# of its standard deviations are allowed.
WALK = 4


class NewtonInfo(NamedTuple):
    """The convergence report, for each sequence.

    Attributes:
      converged: Whether the residual is within the tolerance, the last iteration
        changed little, and a few roundings at every step would change little too. If
        roundings grow, as in chaos, the residual does not bound the error.
      iterations: How many linear recurrences were solved, not counting the one that
        tests the effect of roundings.
      residual: max|s_t - f_t(s_{t-1})| / max|s_t| over time and units, the largest over
        the arrays of the state.
    """

    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]
    residual: Float[Array, "*batch"]


class Options(NamedTuple):
    """The options of `jrnn.newton`."""

    diagonal: bool | None
    damping: float
    tolerance: float | None
    iterations: int
    fallback: bool
    chunk: int | None
    precision: Precision


class Inputs(NamedTuple):
    """The array arguments of the custom rule; None where absent."""

    params: Params
    state: State
    us: Any
    active: Array | None
    restart: Array | None
    fresh: State | None
    guess: State | None


def iterate(cell: Cell, options: Options, inputs: Inputs) -> tuple[State, NewtonInfo]:
    """Iterates until every sequence has converged or reached `options.iterations`."""
    state, diagonal = inputs.state, bool(options.diagonal)
    leaf = jax.tree.leaves(state)[0]
    batch, steps = leaf.shape[:-1], _steps(inputs)
    exact = cell.diagonal or not diagonal
    usual = TOLERANCE if exact else LINEAR_TOLERANCE
    tolerance = options.tolerance or usual[leaf.dtype.name]
    small = tolerance * UPDATE if exact else tolerance
    eps, widest = float(jnp.finfo(leaf.dtype).eps), TOLERANCE[leaf.dtype.name]
    limit = max(tolerance, widest, WALK * ROUNDINGS * eps * math.sqrt(steps))
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

    def unfinished(carry: _Carry) -> Array:
        able = carry.solved | (carry.iterations < options.iterations)
        return (able & ~carry.checked).any()

    def improve(carry: _Carry) -> _Carry:
        states_tm1, moved, residual = evaluate(carry.states)
        A = flagged_jacobians(cell, inputs, states_tm1, diagonal)
        A = A * _shrink(options, exact, residual <= tolerance, A)
        before, after = pack(states_tm1, diagonal), pack(moved, diagonal)
        b = after - jnp.matmul(before[..., None, :], A)[..., 0, :]
        b = jnp.where(_beside(carry.solved, b), b + nudges * jnp.abs(after), b)
        new = _recurrence(options.chunk, A, b, start)
        new = unpack(jnp.where(jnp.isfinite(new), new, after), carry.states, diagonal)
        update = _distance(carry.states, new, batch)
        near = (residual <= tolerance) & (update <= small)
        solved = jnp.broadcast_to(carry.solved, (steps, *batch))
        return _Carry(
            select(solved, carry.states, new),
            carry.iterations + (~carry.solved).astype(carry.iterations.dtype),
            carry.solved | near,
            carry.solved,
            jnp.where(carry.solved & ~carry.checked, update, carry.rounding),
        )

    nudges = _nudges(steps, start)
    zero = jnp.zeros_like(leaf[..., 0])
    begun = _Carry(guess, zero.astype(jnp.int32), zero > 0, zero > 0, zero)
    ended = jax.lax.while_loop(unfinished, improve, begun)
    states_tm1, moved, residual = evaluate(ended.states)
    rounding = ended.rounding
    if not exact:  # approximate Jacobians do not show whether roundings grow
        added = unpack(nudges * jnp.abs(pack(moved, diagonal)), moved, diagonal)
        off = carry_on(cell, inputs, states_tm1, added)
        rounding = _distance(jax.tree.map(jnp.add, moved, off), moved, batch)
    good = ended.checked & (residual <= tolerance) & (rounding <= limit)
    return ended.states, NewtonInfo(good, ended.iterations, residual)


class _Carry(NamedTuple):
    """The carry of the iterations.

    Attributes:
      states: The guess.
      iterations: How many linear recurrences each sequence took.
      solved: Whether the sequence is solved; its guess then stays fixed.
      checked: Whether the effect of roundings has been tested after that.
      rounding: By how much roundings change the trajectory.
    """

    states: State
    iterations: Array
    solved: Array
    checked: Array
    rounding: Array


def _nudges(steps: int, like: Array) -> Array:
    """Returns a few roundings of random sign, the same for every sequence.

    If small differences grow, two trajectories that both satisfy every step up to
    rounding can be far apart, and neither may be called the solution.
    """
    batch = like.ndim - 1
    shape = (steps, *(1,) * batch, like.shape[-1])
    signs = jax.random.rademacher(jax.random.key(0), shape, like.dtype)
    return signs * (ROUNDINGS * float(jnp.finfo(like.dtype).eps))


def _beside(flags: Array, like: Array) -> Array:
    """Reshapes flags (*batch) to broadcast against an array (T, *batch, ...)."""
    return flags.reshape((1, *flags.shape) + (1,) * (like.ndim - 1 - flags.ndim))


def _shrink(options: Options, exact: bool, solved: Array, A: Array) -> Array:
    """Returns 1 - damping, or 1 for the last iteration of a sequence, if A is exact.

    That last iteration, once the residual is within the tolerance, then converges
    quadratically. A damped one converges linearly, and would leave an error of the size
    of the tolerance or more.
    """
    damped = jnp.asarray(1 - options.damping, A.dtype)
    shrink = jnp.where(solved & exact, jnp.ones_like(damped), damped)
    return _beside(shrink, A)


def _steps(inputs: Inputs) -> int:
    return jax.tree.leaves(inputs.us)[0].shape[0]


def transition(cell: Cell, inputs: Inputs, states_tm1: State) -> State:
    """Returns f_t(s_{t-1}) of every step, with flags applied."""
    params, _, us, active, restart, fresh, _ = inputs
    fresh = _along(fresh)
    return advance_flagged(cell, params, states_tm1, us, active, restart, fresh)


def carry_on(cell: Cell, inputs: Inputs, states_tm1: State, added: State) -> State:
    """Propagates a small addition to every state: d_t = d_{t-1} A_t + added_t.

    Runs step by step with exact derivatives, where approximate Jacobians are not
    enough.
    """
    params, _, us, active, restart, fresh, _ = inputs

    def step(carried: State, part: tuple) -> tuple[State, State]:
        state_tm1, addition, u, active, restart = part

        def moved(state: State) -> State:
            return advance_flagged(cell, params, state, u, active, restart, fresh)

        pushed = jax.jvp(moved, (state_tm1,), (carried,))[1]
        carried = jax.tree.map(jnp.add, pushed, addition)
        return carried, carried

    zeros = jax.tree.map(jnp.zeros_like, inputs.state)
    along = states_tm1, added, us, active, restart
    return jax.lax.scan(step, zeros, along)[1]


def _along(fresh: State | None) -> State | None:
    """Prepends a time axis to a state."""
    return None if fresh is None else jax.tree.map(lambda leaf: leaf[None], fresh)


def flagged_jacobians(
    cell: Cell, inputs: Inputs, states_tm1: State, diagonal: bool
) -> Array:
    """Returns the Jacobians of `transition`: I at inactive steps, 0 at restarts."""
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

    The largest over the arrays of the state: an LSTM's c in the thousands must not hide
    an error in h.
    """
    axes = (0, len(batch) + 1)
    largest = jnp.zeros_like(jax.tree.leaves(states)[0][0, ..., 0])
    pairs = zip(jax.tree.leaves(states), jax.tree.leaves(others), strict=True)
    for one, other in pairs:
        size = jnp.maximum(jnp.abs(other).max(axes), jnp.finfo(other.dtype).tiny)
        largest = jnp.maximum(largest, jnp.abs(one - other).max(axes) / size)
    return largest
