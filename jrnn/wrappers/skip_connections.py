"""Deep cells whose layers all read the inputs, and all show their outputs.

    x^1_t = x_t,   x^{i+1}_t = (x_t, y^i_t),   y^i_t = cell_i(x^i_1..x^i_t)
    y_t = (y^1_t, ..., y^n_t)

The order of features is that of Haiku's `deep_rnn_with_skip_connections`
(https://github.com/google-deepmind/dm-haiku/blob/main/haiku/_src/recurrent.py).
"""

import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Children
from jrnn.core.check import check_cell, check_no_elapsed
from jrnn.core.check_inputs import check_features
from jrnn.core.memoize import memoize
from jrnn.core.tree import keeps_zeros
from jrnn.wrappers._wiring import several


@memoize
def skip_connections(*cells: Cell) -> Cell:
    """Makes a deep cell with skip connections from the inputs and to the outputs.

    Each child above the first reads the inputs beside the outputs of the child below,
    and the outputs of all children are concatenated (Graves 2013,
    https://arxiv.org/abs/1308.0850). Every layer is then one step from the inputs and
    from the loss.

    Args:
      *cells: From bottom to top. The first reads k features; each other one k + n, for
        n outputs of the child below.

    Returns:
      A cell whose params and state are tuples, one entry for each child, and that reads
      floats. It has a `step` if all its children have one.

    Raises:
      TypeError: A child is not a cell.
      ValueError: There is no child, sizes do not fit, or a child above the first reads
        elapsed time.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.wrappers.skip_connections(jrnn.lstm(3, 4), jrnn.gru(7, 5))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 9)
    """
    if not cells:
        raise ValueError("Expected at least one cell to connect, got none.")
    for i, cell in enumerate(cells):
        check_cell(cell, f"cells[{i}]")
    first = cells[0]
    for below, above in zip(cells, cells[1:], strict=False):
        features, shown = first.spec.input_size, below.spec.output_size
        if above.spec.input_size != features + shown:
            raise ValueError(
                f"Expected a cell with input_size={features + shown} above {below}, "
                f"the {features} inputs and its {shown} outputs, got {above}."
            )
        reason = f"it would read an output of {below} as time"
        check_no_elapsed("skip_connections above the first", above, reason)
    size = sum(cell.spec.output_size for cell in cells)
    children = Children(cells, nested=True, merge=_side_by_side, between=_beside)
    return several("skip_connections", children, size, first.elapsed)


def _beside(x: Array, y: Array) -> Array:
    """Returns the inputs of the next child: those of the cell, then the outputs."""
    check_features("skip_connections", x)
    return jnp.concatenate([x, y], axis=-1)


@keeps_zeros
def _side_by_side(*ys: Array) -> Array:
    return jnp.concatenate(ys, axis=-1)
