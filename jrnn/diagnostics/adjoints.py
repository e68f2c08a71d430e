r"""State adjoints, the notes' dL/dh_t: the gradient that arrives at every state."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from jrnn.core.cell import Cell, Params, State
from jrnn.diagnostics._run import compiled, prepare
from jrnn.diagnostics.check_losses import Loss, check_loss


def state_adjoints(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    loss: Loss,
    state: State | None = None,
) -> State:
    r"""Returns dL/ds_t of every step, including what flows back from later steps.

    .. math::
      \frac{dL}{ds_t} = \frac{\partial L}{\partial s_t}
        + \frac{dL}{ds_{t+1}} \frac{\partial s_{t+1}}{\partial s_t}

    JAX computes it as the derivative with respect to a zero added to each state, so
    that it is an independent check of the cotangents in `jrnn.bptt`.

    Args:
      cell: The cell.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      loss: (final state, outputs) -> scalar, as `jrnn.unroll` returns them.
      state: The initial state; None: `cell.init_state`.

    Returns:
      The adjoints, with leaves (T, *batch, ...): entry t-1 is dL/ds_t.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; or the cell reads in both directions.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.diagnostics import state_adjoints
      >>> cell = jrnn.elman(2, 3)
      >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((4, 2))
      >>> state_adjoints(cell, params, xs, lambda state, ys: ys.sum()).h[-1].tolist()
      [1.0, 1.0, 1.0]
    """
    xs, state = prepare(cell, params, xs, state)
    check_loss(loss, cell, params, xs, state)
    return adjoints(cell, params, xs, state, loss=loss)


@compiled("loss")
def adjoints(
    cell: Cell, params: Params, xs: Array, state: State, *, loss: Loss
) -> State:
    """Computes `state_adjoints` from checked arguments."""
    us = cell.project(params, xs)

    def step(state: State, inputs: tuple[Array, State]) -> tuple[State, State]:
        u, nudge = inputs
        state = jax.tree.map(jnp.add, cell.advance(params, state, u), nudge)
        return state, state

    def nudged(nudges: State) -> Array:
        final, states = jax.lax.scan(step, state, (us, nudges))
        return loss(final, cell.output(params, states, xs))

    steps = xs.shape[0]
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), state
    )
    return jax.grad(nudged)(zeros)
