"""An initial state that is a parameter.

s_0 = params.state,   s_t = cell.advance(params.cell, s_{t-1}, u_t)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.cell import Adjoint, Cell, Key, Params, State
from jrnn.core.dtypes import state_dtype
from jrnn.core.memoize import memoize
from jrnn.core.reparametrise import reading
from jrnn.core.seams import prepared
from jrnn.wrappers._wiring import check_inner, spec_around


class LearnableParams(NamedTuple):
    """The parameters of a cell, and its learned initial state.

    Parameters are real: a complex array of the state is stored as (2, ...), its real
    and imaginary parts.
    """

    cell: Params
    state: State


@memoize
def learned_initial_state(cell: Cell) -> Cell:
    """Makes a cell whose initial state is a parameter, zeros at first.

    Sequences without a `state` start from it, and resets restore it; both contribute to
    its gradient.

    Args:
      cell: Any cell without children; in a stack, wrap each child instead.

    Returns:
      A cell with the state of `cell` and the params (cell, state).

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `cell` has children.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.wrappers.learned_initial_state(jrnn.gru(3, 4))
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> loss = lambda params: jrnn.unroll(cell, params, xs)[0].h.sum()
      >>> jax.grad(loss)(params).state.h.shape
      (4,)
    """
    cell = check_inner("learned_initial_state", cell)

    def init(key: Key, dtype: DTypeLike | None = None) -> LearnableParams:
        params = cell.init(key, dtype)
        narrow = jax.tree.leaves(params)[0].dtype

        def real(leaf: Array) -> Array:
            if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                leaf = jnp.stack([leaf.real, leaf.imag])
            return leaf.astype(narrow)

        return LearnableParams(params, jax.tree.map(real, cell.init_state(params)))

    def init_state(params: LearnableParams, batch_shape: tuple[int, ...] = ()) -> State:
        dtype = state_dtype(params.cell)

        def along(leaf: Array, like: Array) -> Array:
            leaf = leaf.astype(dtype)
            if jnp.issubdtype(like.dtype, jnp.complexfloating):
                leaf = jax.lax.complex(leaf[0], leaf[1])
            return jnp.broadcast_to(leaf, (*batch_shape, *leaf.shape))

        like = cell.init_state(params.cell)
        state = jax.tree.map(along, params.state, like)
        if cell.linear is None or cell.linear.start is None:
            return state
        # The flag of a fresh state is not a parameter.
        leaves, structure = jax.tree.flatten(state)
        leaves[1] = jnp.broadcast_to(jax.tree.leaves(like)[1], leaves[1].shape)
        return jax.tree.unflatten(structure, leaves)

    def own(params: LearnableParams) -> Params:
        return params.cell

    def prepare(params: LearnableParams) -> LearnableParams:
        return params._replace(cell=prepared(cell, params.cell))

    return reading(
        cell,
        own,
        init=init,
        init_state=init_state,
        spec=spec_around("learned_initial_state", cell),
        adjoint=None if cell.adjoint is None else _adjoint_inside(cell.adjoint),
        prepare=None if cell.prepare is None else prepare,
    )


def _adjoint_inside(adjoint: Adjoint) -> Adjoint:
    def gradient(params: LearnableParams, *arguments: Any) -> LearnableParams:
        return LearnableParams(
            adjoint.gradient(params.cell, *arguments),
            jax.tree.map(jnp.zeros_like, params.state),
        )

    return Adjoint(
        advance=lambda params, *rest: adjoint.advance(params.cell, *rest),
        pullback=lambda params, *rest: adjoint.pullback(params.cell, *rest),
        gradient=gradient,
    )
