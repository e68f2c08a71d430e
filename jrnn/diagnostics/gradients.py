r"""The gradient of the parameters, split by how far back it comes from.

A loss of y_t reaches the parameters through every earlier step:

.. math:: \frac{dL}{d\theta} = \sum_{l \ge 0} G_l, \quad G_l = \sum_t
  \frac{\partial L}{\partial s_t} \frac{ds_t}{ds_{t-l}}
  \frac{\partial s_{t-l}}{\partial \theta}

with the direct derivative of the loss on the left, and on the right the immediate
derivative of the step, its previous state held fixed. All t go back one step at a time
in parallel, so that L lags cost L steps over T x batch rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.dtypes import state_dtype
from jrnn.core.seams import prepared
from jrnn.diagnostics._run import after, compiled, euclidean_norm, prepare, run
from jrnn.diagnostics.check_losses import Loss, check_loss


class GradientByLag(NamedTuple):
    """The gradient of the recurrent parameters, split by lag.

    Attributes:
      norms: ||G_l||, over all parameters, for l = 0, 1, ..., `lags`.
      shares: <G_l, G> / <G, G>, where G = dL/dtheta is the sum over all lags; signed,
        they sum to 1 over all lags; 0 if G is 0.
      by_parameter: ||G_l|| of each array of the parameters.
    """

    norms: Float[Array, " lags"]
    shares: Float[Array, " lags"]
    by_parameter: Params


def gradient_by_lag(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    loss: Loss,
    state: State | None = None,
    *,
    lags: int | None = None,
) -> GradientByLag:
    r"""Returns how much of dL/dtheta comes from each lag.

    It covers parameters that the loss reaches through states: not those that only
    `cell.output` reads, nor a learned initial state. Gradients are summed over the
    batch before norms are taken. The function is compiled once for each `loss`: define
    the loss once, not in each call. There are no lengths: padding counts as steps,
    unless the loss leaves it out. Gradients that over- or underflow on their way back
    give inf, NaN or 0; float64 reaches further. The cost is `lags` steps, each over the
    whole sequence in parallel; a cell that prepares its parameters (`exp_rnn`) adds one
    derivative of the preparation per lag.

    Args:
      cell: Any cell that reads only forwards.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      loss: (final state, outputs) -> scalar, as `jrnn.unroll` returns them.
      state: The initial state; None: `cell.init_state`.
      lags: The longest lag; None: T - 1, the whole sequence.

    Returns:
      Norms and shares for l = 0..lags.

    Raises:
      TypeError: As `jrnn.unroll`; or `lags` is not an integer.
      ValueError: As `jrnn.unroll`; `lags` is outside 0..T-1; or the cell reads in both
        directions.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell, loss = jrnn.elman(2, 3), lambda state, ys: (ys[-1] ** 2).sum()
      >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((9, 2))
      >>> found = jrnn.diagnostics.gradient_by_lag(cell, params, xs, loss)
      >>> found.norms.shape, round(float(found.shares.sum()), 3)
      ((9,), 1.0)
    """
    xs, state = prepare(cell, params, xs, state)
    check_loss(loss, cell, params, xs, state)
    steps = xs.shape[0]
    lags = steps - 1 if lags is None else check_size("lags", lags, least=0)
    if lags >= steps:
        raise ValueError(
            f"Expected lags within 0..{steps - 1}, as the sequence has {steps} steps, "
            f"got {lags}."
        )
    return _by_lag(cell, params, xs, state, loss=loss, lags=lags)


@compiled("loss", "lags")
def _by_lag(
    cell: Cell, params: Params, xs: Array, state: State, *, loss: Loss, lags: int
) -> GradientByLag:
    # Parameters are prepared once; that preparation is differentiated once per lag, not
    # at each step.
    ready, unprepare = jax.vjp(lambda params: prepared(cell, params), params)
    done = run(cell, ready, xs, state)

    def shown(states: State) -> Array:
        final = jax.tree.map(lambda leaf: leaf[-1], states)
        return loss(final, cell.output(ready, states, xs))

    direct = jax.grad(shown)(after(done.states_tm1, done.final))
    dready = jax.grad(lambda learned: shown(_states(cell, learned, xs, state)))(ready)
    total = _wide(unprepare(dready)[0])

    def move(ready: Params, states_tm1: State) -> State:
        return cell.advance(ready, states_tm1, cell.project(ready, xs))

    _, pullback = jax.vjp(move, ready, done.states_tm1)

    def further(dstates: State, _: None) -> tuple[State, Any]:
        dready, dstates_tm1 = pullback(dstates)
        G = _wide(unprepare(dready)[0])
        norms = jax.tree.map(euclidean_norm, G)
        return _one_step_back(dstates_tm1), (norms, _inner(G, towards))

    # <G_l, G> / <G, G> is <G_l, e> / |G|, e = G / |G|: no square of G is needed.
    size = _size(jax.tree.map(euclidean_norm, total))
    size = jnp.where(size == 0, 1, size)
    towards = jax.tree.map(lambda leaf: leaf / size, total)
    by_parameter, inner = jax.lax.scan(further, direct, length=lags + 1)[1]
    return GradientByLag(_size(by_parameter), inner / size, by_parameter)


def _states(cell: Cell, params: Params, xs: Array, state: State) -> State:
    done = run(cell, params, xs, state)
    return after(done.states_tm1, done.final)


def _one_step_back(dstates_tm1: State) -> State:
    """Shifts the cotangents of s_0..s_{T-1} to s_1..s_T; that of s_0 is dropped."""
    shift = lambda leaf: jnp.concatenate([leaf[1:], jnp.zeros_like(leaf[:1])])
    return jax.tree.map(shift, dstates_tm1)


def _wide(gradient: Params) -> Params:
    """Returns a gradient in at least float32, to sum over it."""
    return jax.tree.map(lambda leaf: leaf.astype(state_dtype(leaf)), gradient)


def _size(norms: Params) -> Array:
    """Returns the norm over all parameters, from the norms of the arrays."""
    return euclidean_norm(jnp.stack(jax.tree.leaves(norms)), 0)


def _inner(a: Params, b: Params) -> Array:
    return jnp.stack(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))).sum()
