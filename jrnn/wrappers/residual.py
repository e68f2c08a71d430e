"""Residual connections.

y_t = x_t + cell(x_t)
"""

from jaxtyping import Array

from jrnn.core.cell import Cell
from jrnn.core.check import check_cell, check_no_elapsed
from jrnn.core.check_inputs import check_features
from jrnn.core.memoize import memoize
from jrnn.core.tree import keeps_zeros
from jrnn.wrappers._wiring import around


@memoize
def residual(cell: Cell) -> Cell:
    """Makes a cell whose inputs are added to its outputs, y_t = x_t + cell(x_t).

    Args:
      cell: Any cell with as many outputs as inputs.

    Returns:
      A cell with the params and state of `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: These sizes differ, or an input feature is elapsed time.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.residual(jrnn.gru(4, 4))
      >>> params, x = cell.init(jax.random.key(0)), jax.numpy.ones(4)
      >>> cell.step(params, cell.init_state(params), x)[1].shape
      (4,)
    """
    check_cell(cell)
    if cell.spec.input_size != cell.spec.output_size:
        raise ValueError(
            "Expected a cell of equal input and output size, because its inputs are "
            f"added to its outputs, got {cell}, {cell.spec.input_size} and "
            f"{cell.spec.output_size}."
        )

    check_no_elapsed("residual", cell, "it would be added to an output")
    return around("residual", cell, outputs=add_inputs)


@keeps_zeros
def add_inputs(y: Array, x: Array) -> Array:
    """Returns y + x, in the type of y."""
    check_features("residual", x)
    return y + x.astype(y.dtype)
