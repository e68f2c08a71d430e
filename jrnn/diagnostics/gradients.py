r"""How much of the gradient comes from how far back.

A loss that reads y_t reaches the parameters through every earlier step:

.. math:: \frac{dL}{d\theta} = \sum_{l \ge 0} G_l, \quad G_l = \sum_t
  \frac{\partial L}{\partial s_t} \frac{ds_t}{ds_{t-l}}
  \frac{\partial s_{t-l}}{\partial \theta}

with direct derivatives of the loss on the left, and immediate ones of the step, its
previous state held fixed, on the right. All t are taken back one step at once, so that
L lags cost L steps of T x batch rows in parallel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.dtypes import state_dtype
from jrnn.core.seams import prepared
from jrnn.diagnostics._run import after, compiled, euclidean_norm, prepare, run
from jrnn.diagnostics.check_losses import check_loss

Loss = Callable[[State, Array], Array]


class GradientByLag(NamedTuple):
    """The gradient of the recurrent parameters, taken apart by distance.

    Attributes:
      norms: ||G_l||, over all parameters, for l = 0, 1, ..., `lags`.
      shares: <G_l, G> / <G, G>, where G = dL/dtheta is the sum over all lags: signed,
        and over all lags 1 in sum; 0 where G is 0.
      by_parameter: ||G_l|| of each array of the parameters by itself.
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
    r"""Returns how much of dL/dtheta comes from each distance back.

    Of parameters that the loss reaches through states; what `cell.output` alone reads,
    and a learned starting state, have no part in it. Over a batch the gradients are
    summed before norms are taken. Compiled once for each `loss`, so define it once
    and not anew for each call. There are no lengths: padding is measured as steps are,
    unless the loss leaves it out. What over- or underflows on its way back is inf, NaN
    or 0 here too: float64 reaches further. Costs `lags` steps, each over all of the
    sequence at once, and of a cell that prepares its parameters (`exp_rnn`) as many
    derivatives of that.

    Args:
      cell: Any cell that reads forwards alone.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      loss: (final state, outputs) -> scalar, as `jrnn.unroll` returns them.
      state: Where the sequence starts; None takes `cell.init_state`.
      lags: The longest distance; None: T - 1, all there is.

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
            f"Expected lags within 0..{steps - 1}, for the sequence has {steps} steps, "
            f"got {lags}."
        )
    return _by_lag(cell, params, xs, state, loss=loss, lags=lags)


@compiled("loss", "lags")
def _by_lag(
    cell: Cell, params: Params, xs: Array, state: State, *, loss: Loss, lags: int
) -> GradientByLag:
    # What is costly to make of the parameters is made once, and once for each lag its
    # derivative is taken, not at each step.
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
    """Returns the cotangents of s_1..s_T, of those of s_0..s_{T-1}; s_0 is no step."""
    shift = lambda leaf: jnp.concatenate([leaf[1:], jnp.zeros_like(leaf[:1])])
    return jax.tree.map(shift, dstates_tm1)


def _wide(gradient: Params) -> Params:
    """Returns a gradient in at least float32, for what is summed over it."""
    return jax.tree.map(lambda leaf: leaf.astype(state_dtype(leaf)), gradient)


def _size(norms: Params) -> Array:
    """Returns the norm of all parameters, of the norms of each array."""
    return euclidean_norm(jnp.stack(jax.tree.leaves(norms)), 0)


def _inner(a: Params, b: Params) -> Array:
    return jnp.stack(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))).sum()
