"""Deep cells: each child reads the outputs of the one below.

x^1_t = x_t,   x^{i+1}_t = y^i_t = cell_i(x^i_1..x^i_t),   y_t = y^n_t
"""

from jrnn.core.cell import Cell, Children
from jrnn.core.check import check_cell, check_no_elapsed
from jrnn.core.memoize import memoize
from jrnn.wrappers._wiring import several


@memoize
def stack(*cells: Cell) -> Cell:
    """Makes a deep cell: each child reads the outputs of the one below.

    Args:
      *cells: From bottom to top; each input size is the output size below.

    Returns:
      A cell whose params and state are tuples, one entry for each child; its outputs
      are those of the top. It has a `step` if all its children have one.

    Raises:
      TypeError: A child is not a cell.
      ValueError: There is no child, sizes do not fit, or a child above the first reads
        elapsed time.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.stack(jrnn.lstm(3, 4), jrnn.gru(4, 5))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 5)
    """
    if not cells:
        raise ValueError("Expected at least one cell to stack, got none.")
    for i, cell in enumerate(cells):
        check_cell(cell, f"cells[{i}]")
    for below, above in zip(cells, cells[1:], strict=False):
        if below.spec.output_size != above.spec.input_size:
            raise ValueError(
                f"Expected a cell with input_size={below.spec.output_size} above "
                f"{below}, the size of its output, got {above}."
            )
        reason = f"it would read an output of {below} as time"
        check_no_elapsed("a stack above the first", above, reason)

    shown, elapsed = cells[-1].spec.output_size, cells[0].elapsed
    return several("stack", Children(cells, nested=True), shown, elapsed)
