r"""Orthogonal recurrent matrices, for any cell that has a W_h.

    W_h = (expm(A_1 - A_1^T), ..., expm(A_g - A_g^T))        one for each gate

The exponential map of expRNN (M. Lezcano-Casado and D. Martinez-Rubio, ICML 2019,
https://arxiv.org/abs/1901.08428), computed once for a whole sequence.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn.core.cell import Cell, Key, Params
from jrnn.core.check import check_cell, expected_params
from jrnn.core.claims import current
from jrnn.core.draw import Initializer, draw
from jrnn.core.memoize import memoize
from jrnn.core.products import merge_gates, split_gates
from jrnn.core.reparametrise import reading, rotation
from jrnn.core.tree import runs_itself
from jrnn.initializers.defaults import henaff
from jrnn.wrappers._wiring import spec_around


class OrthogonalParams(NamedTuple):
    """The learned A, from which W_h is computed, and the cell's other parameters.

    `cell` is the cell's own NamedTuple with None for W_h.
    """

    A: Float[Array, "h gh"]
    cell: Params


@memoize
def orthogonal(cell: Cell, recurrent_init: Initializer = henaff) -> Cell:
    """Makes a cell whose W_h is orthogonal, and stays so in training.

    Around `jrnn.elman(..., activation=jrnn.activations.linear)` it preserves the norm
    of a state without input, and of every gradient, over any number of steps; around a
    gated cell each gate's block is a rotation.

    Args:
      cell: A cell whose parameters have a field W_h of shape (h, g h).
      recurrent_init: Initialiser of A, for each gate: `jrnn.initializers.henaff` or
        `cayley`.

    Returns:
      A cell with the state of `cell` and parameters `OrthogonalParams`;
      `cell.prepare(params)` returns those of `cell`, with W_h.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: It has no such W_h, or already has a reparametrisation (`prepare`).

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> linear = jrnn.elman(3, 4, activation=jrnn.activations.linear)
      >>> cell = jrnn.wrappers.orthogonal(linear)
      >>> params = cell.init(jax.random.key(0))
      >>> h = jrnn.unroll(cell, params, jnp.ones((50, 3)).at[1:].set(0))[1]
      >>> bool(jnp.isclose(jnp.linalg.norm(h[0]), jnp.linalg.norm(h[-1])))
      True
    """
    check_cell(cell)
    cell = current(cell)
    like = expected_params(cell)
    gates = _gates(cell, like)

    def init(key: Key, dtype: DTypeLike | None = None) -> OrthogonalParams:
        key_cell, key_h = jax.random.split(key)
        size = like.W_h.shape[0]
        A = draw(recurrent_init, key_h, (size, size), dtype, gates)
        return OrthogonalParams(A, cell.init(key_cell, dtype)._replace(W_h=None))

    def prepare(params: Params) -> Params:
        if not isinstance(params, OrthogonalParams):
            return params
        if gates == 1:
            return params.cell._replace(W_h=rotation(params.A))
        blocks = jax.lax.map(rotation, jnp.stack(split_gates(params.A, gates)))
        return params.cell._replace(W_h=merge_gates(tuple(blocks)))

    spec = spec_around("orthogonal", cell)
    return reading(cell, prepare, init=init, spec=spec, prepare=prepare)


def _gates(cell: Cell, like: Params) -> int:
    """Returns the number of square blocks in W_h, one for each gate."""
    W_h = getattr(like, "W_h", None)
    if cell.prepare is not None or W_h is None or not runs_itself(cell):
        raise ValueError(
            f"Expected a cell whose parameters have a W_h of their own, got {cell}; "
            "put orthogonal around the cells inside, and not around a cell that is "
            "already reparametrised."
        )
    size, width = W_h.shape
    state = jax.tree.leaves(jax.eval_shape(cell.init_state, like))
    if width % size or any(leaf.shape != (size,) for leaf in state):
        raise ValueError(
            f"Expected a W_h of one square block for each gate, got {size} x {width} "
            f"of {cell}."
        )
    return width // size
