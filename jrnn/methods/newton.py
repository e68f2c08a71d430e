r"""Parallel in time for any cell: Newton's method on the whole trajectory.

A trajectory is the solution of T equations, s_t - f_t(s_{t-1}) = 0. With a guess s of
all of it, Newton's method linearises each step where the guess is,

    s_t <- f_t(s_{t-1}) + (s'_{t-1} - s_{t-1}) A_t,     A_t = df_t / ds_{t-1}

and the new trajectory s' solves a linear recurrence, which `jrnn.linear_recurrence`
evaluates in parallel over time (DEER: Y. H. Lim et al., ICLR 2024,
https://arxiv.org/abs/2309.12252). After i iterations the first i states are exact,
whatever the guess; where the recurrence forgets its past, a handful is enough.

With the diagonal of A_t alone an iteration costs what an elementwise cell costs, and
more of them are needed (quasi-DEER); A_t (1 - damping) keeps a recurrence that grows
from running away (scale-ELK; both: X. Gonzalez et al., NeurIPS 2024,
https://arxiv.org/abs/2407.19115). Neither changes the solution.

The gradient is taken at the solution, by the implicit function theorem, and never
through iterations: lambda_t = dL/ds_t + lambda_{t+1} A_{t+1}^T is one linear recurrence
backwards, and what it leaves for the parameters is one contraction over time and batch,
as in `jrnn.bptt`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jrnn._base import (
    Cell,
    Keep,
    Method,
    Params,
    Sequence,
    State,
    check_size,
    memoize,
    noisy_project,
)
from jrnn._check import check_rate
from jrnn.methods._adjoint import place_floats, split_floats
from jrnn.methods._jacobian import jacobians, pack, unpack
from jrnn.methods._recurrence import walk_blocks
from jrnn.methods._steps import (
    Precision,
    advance_flagged,
    check_precision,
    products_at,
    renew,
    select,
    shift,
)

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
# Cases of experiments/results/newton_convergence.json that need neither damping nor a
# diagonal approximation, and are not chaotic, take 14 at most; damped ones up to 100.
ITERATIONS = 100


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


@memoize
def newton(
    *,
    diagonal: bool | None = None,
    damping: float = 0.0,
    tolerance: float | None = None,
    iterations: int = ITERATIONS,
    fallback: bool = False,
    chunk: int | None = None,
    precision: Precision = None,
) -> Method:
    """Makes the method that solves for the whole trajectory at once.

    Under `jrnn.unroll` a sequence that did not converge is NaN, gradients included, and
    never a wrong number; `jrnn.newton_trajectory` tells which, and why. Memory and time
    of an iteration grow as the square and the cube of the state's size where the
    Jacobian is full; cells with a diagonal one (`jrnn.ind_rnn`, `jrnn.diagonal_gru`)
    need neither. Hessians (forward over reverse) and `vmap` work; pure forward mode,
    and reverse over reverse, need `jrnn.scan()`.

    Args:
      diagonal: Whether iterations use what each unit does to itself alone. None: where
        that is all there is. The gradient is exact all the same: of a cell whose units
        mix it is then taken step by step.
      damping: In [0, 1): shrinks the Jacobians of the iterations by 1 - damping, but
        for the one after a sequence is solved.
      tolerance: Largest residual that counts as converged, relative to the largest
        state; None takes 1e-5 in float32 and 1e-10 in float64, and 2e-6 and 1e-11
        where the Jacobians are approximate.
      iterations: How many at most.
      fallback: Whether sequences that did not converge are run through the scan.
      chunk: Steps per block of each linear recurrence, as in `jrnn.associative`.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None leaves it to JAX.

    Returns:
      A method for `jrnn.unroll`, `jrnn.trajectory` and `jrnn.newton_trajectory`. They
      raise ValueError for a cell with a complex state.

    Raises:
      TypeError: A number is of the wrong type.
      ValueError: A number is out of its range.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((1000, 3))
      >>> jrnn.unroll(cell, params, xs, method=jrnn.newton())[1].shape
      (1000, 4)
    """
    check_size("iterations", iterations)
    if chunk is not None:
        check_size("chunk", chunk)
    check_rate("damping", damping)
    if diagonal not in (None, False, True):
        raise TypeError(f"Expected diagonal to be a bool or None, got {diagonal!r}.")
    real = isinstance(tolerance, int | float)
    if tolerance is not None and not (real and tolerance > 0):
        raise ValueError(f"Expected a tolerance above 0, got {tolerance!r}.")
    check_precision(precision)
    options = _Options(
        diagonal, damping, tolerance, iterations, fallback, chunk, precision
    )
    return Method(_run, tuple(options._asdict().items()))


class _Options(NamedTuple):
    diagonal: bool | None
    damping: float
    tolerance: float | None
    iterations: int
    fallback: bool
    chunk: int | None
    precision: Precision


class _Inputs(NamedTuple):
    """The arguments of the custom rule: arrays, None where there is no such thing."""

    params: Params
    state: State
    us: Any
    active: Array | None
    restart: Array | None
    fresh: State | None
    guess: State | None


def _run(
    cell: Cell,
    keep: Keep,
    params: Params,
    state: State,
    sequence: Sequence,
    **options: Any,
) -> tuple[State, Any, NewtonInfo]:
    leaves = jax.tree.leaves(state)
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves):
        raise ValueError(
            f"Expected a cell with a real state for jrnn.newton(), got {cell}; it is "
            "linear in its state: run it with jrnn.associative()."
        )
    x = jax.tree.leaves(sequence.xs)[0]
    features = jnp.issubdtype(x.dtype, jnp.inexact)
    if any(leaf.ndim != x.ndim - features for leaf in leaves):
        raise ValueError(
            "Expected a state whose arrays are (*batch, n) for jrnn.newton(), got "
            f"{cell}; run it with jrnn.bptt()."
        )
    chosen = _Options(**options)
    if chosen.diagonal is None:
        chosen = chosen._replace(diagonal=cell.diagonal)
    if chosen.diagonal and len({leaf.shape[-1] for leaf in leaves}) > 1:
        raise ValueError(
            "Expected a state whose arrays have one size, for jrnn.newton("
            f"diagonal=True), got {cell}; use the full Jacobian, diagonal=False."
        )
    xs, noise, active, restart, fresh, guess = sequence
    with products_at(chosen.precision):
        us = noisy_project(cell.project, params, xs, noise)
        inputs = _Inputs(params, state, us, active, restart, fresh, guess)
        solved: Any = _solve(cell, chosen, inputs)
        states, info = solved
        final = jax.tree.map(lambda leaf: leaf[-1], states)
        return final, keep(params, states, xs), info


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(cell: Cell, options: _Options, inputs: _Inputs) -> tuple[State, NewtonInfo]:
    """Returns the trajectory, NaN where it did not converge, and what became of it."""
    return _solved(cell, options, inputs)


def _solved(cell: Cell, options: _Options, inputs: _Inputs) -> tuple[State, NewtonInfo]:
    states, info = _iterate(cell, options, inputs)
    if options.fallback:
        walked = lambda: _walk(cell, inputs)
        scanned = jax.lax.cond(info.converged.all(), lambda: states, walked)
    else:
        scanned = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), states)
    steps = jax.tree.leaves(states)[0].shape[0]
    solved = jnp.broadcast_to(info.converged, (steps, *info.converged.shape))
    return select(solved, states, scanned), info


def _forward(cell: Cell, options: _Options, inputs: _Inputs) -> tuple[Any, Any]:
    states, info = _solved(cell, options, inputs)
    return (states, info), (inputs, states)


def _backward(
    cell: Cell, options: _Options, kept: tuple[_Inputs, State], cotangents: Any
) -> tuple[_Inputs]:
    """One linear recurrence backwards, and one contraction over time and batch."""
    inputs, states = kept
    dstates = cotangents[0]
    states_tm1 = jax.tree.map(shift, inputs.state, states)
    exact = cell.diagonal or not options.diagonal
    with products_at(options.precision):
        pull = _pull_parallel if exact else _pull_steps
        dstate, lambdas = pull(cell, options, inputs, states_tm1, dstates)
        floats, merge = split_floats(inputs.us)

        def moved(params: Params, floats: list[Array], fresh: State | None) -> State:
            given = inputs._replace(params=params, us=merge(floats), fresh=fresh)
            return _transition(cell, given, states_tm1)

        wanted = inputs.params, floats, inputs.fresh
        dparams, dfloats, dfresh = jax.vjp(moved, *wanted)[1](lambdas)
    dus = place_floats(inputs.us, dfloats)
    return (_Inputs(dparams, dstate, dus, None, None, dfresh, None),)


_solve.defvjp(_forward, _backward)


def _iterate(
    cell: Cell, options: _Options, inputs: _Inputs
) -> tuple[State, NewtonInfo]:
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
        moved = _transition(cell, inputs, states_tm1)
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
        A = _flagged_jacobians(cell, inputs, states_tm1, diagonal)
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


def _shrink(options: _Options, exact: bool, solved: Array, A: Array) -> Array:
    """Returns 1 - damping; 1 for the step after a sequence is solved, if A is exact.

    That last step then gains digits as Newton's method does: a damped iteration gains a
    constant factor, and would leave an error of the size of the tolerance or more.
    """
    damped = jnp.asarray(1 - options.damping, A.dtype)
    shrink = jnp.where(solved & exact, jnp.ones_like(damped), damped)
    return shrink.reshape((1, *solved.shape) + (1,) * (A.ndim - 1 - solved.ndim))


def _steps(inputs: _Inputs) -> int:
    return jax.tree.leaves(inputs.us)[0].shape[0]


def _transition(cell: Cell, inputs: _Inputs, states_tm1: State) -> State:
    """Returns f_t(s_{t-1}) of every step, flags and all."""
    params, _, us, active, restart, fresh, _ = inputs
    fresh = _along(fresh)
    return advance_flagged(cell, params, states_tm1, us, active, restart, fresh)


def _along(fresh: State | None) -> State | None:
    """Puts an axis of time in front of a state."""
    return None if fresh is None else jax.tree.map(lambda leaf: leaf[None], fresh)


def _flagged_jacobians(
    cell: Cell, inputs: _Inputs, states_tm1: State, diagonal: bool
) -> Array:
    """Of `_transition`: the unit matrix where no step counts, 0 where one restarts."""
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


def _walk(cell: Cell, inputs: _Inputs) -> State:
    """The plain scan, for sequences that did not converge."""
    params, fresh = inputs.params, inputs.fresh

    def step(state: State, part: tuple) -> tuple[State, State]:
        u, active, restart = part
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, state

    along = inputs.us, inputs.active, inputs.restart
    return jax.lax.scan(step, inputs.state, along)[1]


def _pull_parallel(
    cell: Cell, options: _Options, inputs: _Inputs, states_tm1: State, dstates: State
) -> tuple[State, State]:
    """Returns dL/ds_0 and every lambda_t, by one linear recurrence backwards."""
    diagonal = bool(options.diagonal)
    A = _flagged_jacobians(cell, inputs, states_tm1, diagonal)
    ds = pack(dstates, diagonal)
    full = A.shape[-1] > 1
    A = A if full else A[..., 0]
    zeros = jnp.zeros(ds.shape[1:], ds.dtype)
    dstate, lambdas = walk_blocks(full, options.chunk, A, ds, zeros, adjoint=True)
    like = inputs.state
    return unpack(dstate, like, diagonal), unpack(lambdas, like, diagonal)


def _pull_steps(
    cell: Cell, options: _Options, inputs: _Inputs, states_tm1: State, dstates: State
) -> tuple[State, State]:
    """The same, step by step, where the Jacobians at hand are approximate."""
    del options
    params, fresh = inputs.params, inputs.fresh

    def step(carried: State, part: tuple) -> tuple[State, State]:
        state_tm1, direct, u, active, restart = part
        lambda_t = jax.tree.map(jnp.add, carried, direct)

        def moved(state: State) -> State:
            return advance_flagged(cell, params, state, u, active, restart, fresh)

        return jax.vjp(moved, state_tm1)[1](lambda_t)[0], lambda_t

    along = states_tm1, dstates, inputs.us, inputs.active, inputs.restart
    zeros = jax.tree.map(jnp.zeros_like, inputs.state)
    return jax.lax.scan(step, zeros, along, reverse=True)
