"""Two cells that read the same sequence from both ends.

y_t = merge(forward(x_1..x_t), backward(x_T..x_t))
"""

from jrnn.core.cell import Cell, Children
from jrnn.core.check import check_cell
from jrnn.core.memoize import memoize
from jrnn.core.output_size import output_size
from jrnn.wrappers._wiring import several
from jrnn.wrappers.merges import Merge, concat_merge


@memoize
def bidirectional(forward: Cell, backward: Cell, merge: Merge = concat_merge) -> Cell:
    """Combines two cells that read the same sequence from both ends.

    Args:
      forward: Reads x_1..x_t for the output at t.
      backward: Reads x_T..x_t for the output at t.
      merge: The output from the two cells' outputs: in `jrnn.wrappers` there are
        `concat_merge`, which takes any two sizes, `sum_merge`, `mean_merge` and
        `product_merge`; or any function (y_f, y_b) -> y of arrays (..., n) with any
        leading axes, such as `jnp.maximum`, which is traced once to learn the size of
        y.

    Returns:
      A cell whose params and state are pairs. Its `step` raises, because the second
      child begins at the end. In a `stack`, each layer reads both directions of the
      layer below.

    Raises:
      TypeError: A child is not a cell, or `merge` not a function.
      ValueError: The input sizes differ, the input features of elapsed time do, or
        `merge` does not take the output sizes.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 8)
    """
    cells = (forward, backward)
    check_cell(forward, "forward")
    check_cell(backward, "backward")
    sizes = [cell.spec.input_size for cell in cells]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"Expected two cells of equal input_size, got {forward} and {backward}."
        )
    places = [cell.elapsed for cell in cells if cell.elapsed is not None]
    if len({place % sizes[0] for place in places}) > 1:
        raise ValueError(
            f"Expected two cells that read elapsed time from the same feature, got "
            f"{forward} and {backward}."
        )
    shown = output_size("merge", merge, *(cell.spec.output_size for cell in cells))
    elapsed = places[0] if places else None
    children = Children(cells, parallel=True, nested=True, merge=merge)
    return several("bidirectional", children, shown, elapsed, merge=merge)
