r"""Evaluation in parallel over time for any cell, by Newton's method.

A trajectory is the solution of T equations, s_t - f_t(s_{t-1}) = 0. With a guess s of
the whole trajectory, Newton's method linearises each step at the guess,

    s_t <- f_t(s_{t-1}) + (s'_{t-1} - s_{t-1}) A_t,     A_t = df_t / ds_{t-1}

and the new trajectory s' solves a linear recurrence, which
`jrnn.methods.linear_recurrence` evaluates in parallel over time (DEER: Y. H. Lim et
al., ICLR 2024, https://arxiv.org/abs/2309.12252). After i iterations the first i states
are exact for any guess; if the recurrence forgets its past, a few iterations are
enough.

With only the diagonal of A_t an iteration costs as much as for an elementwise cell, but
more of them are needed (quasi-DEER); A_t (1 - damping) keeps a growing recurrence from
diverging (scale-ELK; both: X. Gonzalez et al., NeurIPS 2024,
https://arxiv.org/abs/2407.19115). Neither changes the solution.

The gradient is taken at the solution, by the implicit function theorem, and never
through the iterations: lambda_t = dL/ds_t + lambda_{t+1} A_{t+1}^T is one linear
recurrence backwards in time, followed by one contraction over time and batch for the
parameters, as in `jrnn.bptt`.
"""

import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.check import check_rate
from jrnn.core.chunks import shift
from jrnn.core.countable import check_countable
from jrnn.core.dtypes import place_floats, split_floats, state_dtype
from jrnn.core.flags import advance_flagged, select
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Shown, Wanted, all_at_once, show_steps
from jrnn.core.products import Precision, check_precision, products_at
from jrnn.core.seams import noisy_project
from jrnn.methods._jacobian import pack, unpack
from jrnn.methods._newton_iteration import (
    Inputs,
    NewtonInfo,
    Options,
    carry_on,
    flagged_jacobians,
    iterate,
    transition,
)
from jrnn.methods._recurrence import walk_blocks

# In experiments/results/newton_convergence.json, cases that are not chaotic and use
# neither damping nor a diagonal approximation take at most 15; damped ones up to 100.
ITERATIONS = 100


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

    With `jrnn.unroll` the results and gradients of a sequence that did not converge are
    NaN, never wrong numbers; `jrnn.run.newton_trajectory` reports which did not
    converge. With a full Jacobian the memory of an iteration grows as the square of the
    state's size, and its time as the cube; not so for cells with a diagonal Jacobian
    (`jrnn.cells.ind_rnn`, `jrnn.cells.diagonal_gru`). Hessians (forward over reverse)
    and `vmap` work; pure forward mode, and reverse over reverse, need `jrnn.scan()`.

    Args:
      diagonal: Whether iterations use only the diagonal blocks of the Jacobian, one for
        each unit. None: only for cells whose Jacobian has no others. The gradient is
        exact in any case: for a cell whose units mix it is computed step by step.
      damping: In [0, 1): multiplies the Jacobians of the iterations by 1 - damping,
        until the residual is within the tolerance.
      tolerance: Largest residual that counts as converged, relative to the largest
        state; None takes 1e-5 in float32 and 1e-10 in float64, and 2e-6 and 1e-11
        with approximate Jacobians.
      iterations: The largest number of iterations.
      fallback: Whether to run sequences that did not converge with a scan.
      chunk: Steps per block of each linear recurrence, as in `jrnn.associative`.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None: JAX's default.

    Returns:
      A method for `jrnn.unroll`, `jrnn.trajectory` and `jrnn.run.newton_trajectory`.
      They raise ValueError for a cell with a complex state.

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
    iterations = check_size("iterations", iterations)
    if chunk is not None:
        chunk = check_size("chunk", chunk)
    check_rate("damping", damping)
    if diagonal not in (None, False, True):
        raise TypeError(f"Expected diagonal to be a bool or None, got {diagonal!r}.")
    real = isinstance(tolerance, numbers.Real) and not isinstance(tolerance, bool)
    if tolerance is not None and not (real and 0 < tolerance < math.inf):
        raise ValueError(f"Expected a tolerance above 0, got {tolerance!r}.")
    check_precision(precision)
    options = Options(
        diagonal, damping, tolerance, iterations, fallback, chunk, precision
    )
    return Method(_run, tuple(options._asdict().items()))


def _run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    **options: Any,
) -> tuple[State, Shown, NewtonInfo]:
    leaves = jax.tree.leaves(state)
    if not leaves:
        given = cell, wanted, params, state, sequence, options["precision"]
        return *all_at_once(*given), _nothing_to_solve(params, sequence.xs)
    check_countable(sequence.steps, "jrnn.newton()")
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise ValueError(
            f"Expected a cell with a real state for jrnn.newton(), got {cell}; run it "
            "with jrnn.associative(), if it is linear in its state, or jrnn.bptt()."
        )
    x = jax.tree.leaves(sequence.xs)[0]
    features = jnp.issubdtype(x.dtype, jnp.inexact)
    if any(leaf.ndim != x.ndim - features for leaf in leaves):
        raise ValueError(
            "Expected a state whose arrays are (*batch, n) for jrnn.newton(), got "
            f"{cell}; run it with jrnn.bptt()."
        )
    chosen = Options(**options)
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
        inputs = Inputs(params, state, us, active, restart, fresh, guess)
        solved: Any = _solve(cell, chosen, inputs)
        states, info = solved
        final = jax.tree.map(lambda leaf: leaf[-1], states)
        return final, show_steps(cell, wanted, params, states, xs), info


def _nothing_to_solve(params: Params, xs: Any) -> NewtonInfo:
    """Returns the report on a cell without state."""
    x = jax.tree.leaves(xs)[0][0]
    x = x[..., 0] if jnp.issubdtype(x.dtype, jnp.inexact) else x
    return NewtonInfo(
        converged=jnp.ones_like(x, bool),
        iterations=jnp.zeros_like(x, jnp.int32),
        residual=jnp.zeros_like(x, state_dtype(params, xs)),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(cell: Cell, options: Options, inputs: Inputs) -> tuple[State, NewtonInfo]:
    """Returns the trajectory, NaN where it did not converge, and the report."""
    return _solved(cell, options, inputs)


def _solved(cell: Cell, options: Options, inputs: Inputs) -> tuple[State, NewtonInfo]:
    states, info = iterate(cell, options, inputs)
    if options.fallback:
        walked = lambda: _walk(cell, inputs)
        scanned = jax.lax.cond(info.converged.all(), lambda: states, walked)
    else:
        scanned = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), states)
    steps = jax.tree.leaves(states)[0].shape[0]
    solved = jnp.broadcast_to(info.converged, (steps, *info.converged.shape))
    return select(solved, states, scanned), info


def _forward(cell: Cell, options: Options, inputs: Inputs) -> tuple[Any, Any]:
    states, info = _solved(cell, options, inputs)
    if not (cell.diagonal or not options.diagonal):
        states = _polish(cell, options, inputs, states)
    return (states, info), (inputs, states)


def _polish(cell: Cell, options: Options, inputs: Inputs, states: State) -> State:
    """Takes one more step of Newton's method, with the exact Jacobians.

    It changes the states by less than the tolerance. A Hessian (forward mode over this
    rule) then differentiates this step; derivatives through iterations with approximate
    Jacobians would be less accurate.
    """
    frozen = jax.tree.map(jax.lax.stop_gradient, states)
    states_tm1 = jax.tree.map(shift, inputs.state, frozen)
    with products_at(options.precision):
        moved = transition(cell, inputs, states_tm1)
        off = jax.tree.map(jnp.subtract, moved, frozen)
        return jax.tree.map(jnp.add, frozen, carry_on(cell, inputs, states_tm1, off))


def _backward(
    cell: Cell, options: Options, kept: tuple[Inputs, State], cotangents: Any
) -> tuple[Inputs]:
    """The backward pass: one linear recurrence, and one contraction for parameters."""
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
            return transition(cell, given, states_tm1)

        wanted = inputs.params, floats, inputs.fresh
        dparams, dfloats, dfresh = jax.vjp(moved, *wanted)[1](lambdas)
    dus = place_floats(inputs.us, dfloats)
    return (Inputs(dparams, dstate, dus, None, None, dfresh, None),)


_solve.defvjp(_forward, _backward)


def _walk(cell: Cell, inputs: Inputs) -> State:
    """Runs a plain scan, for sequences that did not converge."""
    params, fresh = inputs.params, inputs.fresh

    def step(state: State, part: tuple) -> tuple[State, State]:
        u, active, restart = part
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, state

    along = inputs.us, inputs.active, inputs.restart
    return jax.lax.scan(step, inputs.state, along)[1]


def _pull_parallel(
    cell: Cell, options: Options, inputs: Inputs, states_tm1: State, dstates: State
) -> tuple[State, State]:
    """Returns dL/ds_0 and every lambda_t, by one backward linear recurrence."""
    diagonal = bool(options.diagonal)
    A = flagged_jacobians(cell, inputs, states_tm1, diagonal)
    ds = pack(dstates, diagonal)
    full = A.shape[-1] > 1
    A = A if full else A[..., 0]
    zeros = jnp.zeros_like(ds[0])
    dstate, lambdas = walk_blocks(full, options.chunk, A, ds, zeros, adjoint=True)
    like = inputs.state
    return unpack(dstate, like, diagonal), unpack(lambdas, like, diagonal)


def _pull_steps(
    cell: Cell, options: Options, inputs: Inputs, states_tm1: State, dstates: State
) -> tuple[State, State]:
    """Returns the same step by step, for iterations with approximate Jacobians."""
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
