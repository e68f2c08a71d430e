r"""Penalties that keep gradients from vanishing, as pure functions to add to a loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.arguments import check_switch
from jrnn.core.cell import Cell, Params, State
from jrnn.core.constants import own_constants
from jrnn.diagnostics._run import (
    batch_shape,
    compiled,
    euclidean_norm,
    flatten,
    prepare,
    run,
)
from jrnn.diagnostics.adjoints import adjoints
from jrnn.diagnostics.check_losses import Loss, check_loss


@own_constants
def gradient_norm_penalty(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    loss: Loss,
    state: State | None = None,
    *,
    immediate: bool = True,
) -> Float[Array, ""]:
    r"""Returns a penalty for steps that change the norm of the gradient.

    .. math:: \Omega = \sum_{t=1}^{T-1} \left( \frac{
      \left\| \lambda_{t+1} \, \partial s_{t+1} / \partial s_t \right\|}{
      \left\| \lambda_{t+1} \right\|} - 1 \right)^2,
      \quad \lambda_t = \frac{dL}{ds_t}

    over the whole flattened state of each sequence, averaged over the batch. It is 0 if
    every gradient keeps its norm on its way back; only its own direction counts. A
    gradient that is 0, or underflows, has no direction and adds nothing; one that
    overflows gives NaN. Minimise `loss + weight * penalty`. The function is compiled
    once for each `loss`: define the loss once, not in each call.

    Args:
      cell: Any cell that reads only forwards.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      loss: (final state, outputs) -> scalar, as `jrnn.unroll` returns them.
      state: The initial state; None: `cell.init_state`.
      immediate: Whether the gradient of the penalty holds states and lambda fixed, as
        in the paper, so that it goes through one step and cannot itself explode. False:
        the full gradient, through both.

    Returns:
      The penalty, a scalar.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; or the cell reads in both directions.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3, activation=jrnn.activations.linear)
      >>> params = cell.init(jax.random.key(0))  # W_h is orthogonal
      >>> args = cell, params, jnp.ones((5, 2)), lambda state, ys: ys[-1].sum()
      >>> round(float(jrnn.train.regularisers.gradient_norm_penalty(*args)), 6)
      0.0

    Source: R. Pascanu et al., ICML 2013, https://arxiv.org/abs/1211.5063, section 3.3.
    """
    xs, state = prepare(cell, params, xs, state)
    check_loss(loss, cell, params, xs, state)
    check_switch("immediate", immediate)
    return _penalty(cell, params, xs, state, loss=loss, immediate=immediate)


@compiled("loss", "immediate")
def _penalty(
    cell: Cell, params: Params, xs: Array, state: State, *, loss: Loss, immediate: bool
) -> Array:
    fixed = jax.lax.stop_gradient(params) if immediate else params
    lead = 1 + len(batch_shape(xs))
    states_tm1 = run(cell, fixed, xs, state).states_tm1
    lambdas = adjoints(cell, fixed, xs, state, loss=loss)
    if immediate:
        states_tm1, lambdas = jax.lax.stop_gradient((states_tm1, lambdas))
    later = lambda tree: jax.tree.map(lambda leaf: leaf[1:], tree)
    states, lambdas, us = later(states_tm1), later(lambdas), cell.project(params, xs)
    advance = lambda states: cell.advance(params, states, later(us))
    passed = jax.vjp(advance, states)[1](lambdas)[0]
    before, after = (
        euclidean_norm(flatten(tree, lead), -1) for tree in (lambdas, passed)
    )
    gone = before == 0
    ratio = jnp.where(gone, 1, after / jnp.where(gone, 1, before))
    return jnp.square(ratio - 1).sum(axis=0).mean()
