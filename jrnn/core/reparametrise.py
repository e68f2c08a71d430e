r"""Cells whose parameters are functions of others, computed once for each sequence.

The learned parameters are unconstrained; those that the cell's equations read are
computed from them, and keep a property whatever the optimiser does:

    W_h = expm(A - A^T)          orthogonal
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from jrnn.core.cell import Cell, Params
from jrnn.core.claims import claim, inherited
from jrnn.core.dtypes import state_dtype
from jrnn.core.seams import compose_step


def reading(cell: Cell, own: Callable[[Any], Params], **fields: Any) -> Cell:
    """Returns `cell` with every function reading its parameters through `own`.

    Args:
      cell: The cell whose equations are run.
      own: Learned parameters -> the cell's own; the cell's own are returned unchanged.
      **fields: Fields that differ from the cell's. `adjoint` is the cell's unless given
        here: its gradient is with respect to the cell's own parameters. Pass `own` as
        `prepare` if it is worth computing once for each sequence.
    """

    def on(function: Any) -> Any:
        if function is None:
            return None
        return lambda params, *inputs: function(own(params), *inputs)

    project, advance, output = on(cell.project), on(cell.advance), on(cell.output)
    gated, linear = cell.gated, cell.linear
    if gated is not None:
        gated = gated._replace(product=on(gated.product), inputs=on(gated.inputs))
    if linear is not None:
        linear = linear._replace(
            coefficients=on(linear.coefficients), start=on(linear.start)
        )
    made = cell._replace(
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        gated=gated,
        linear=linear,
        made=None,
    )
    return claim(made._replace(**fields), **inherited(cell, params=own))


def rotation(A: Float[Array, "h h"]) -> Float[Array, "h h"]:
    r"""Returns expm(A - A^T): orthogonal, of determinant 1, to rounding.

    The exponential maps the skew-symmetric matrices onto all rotations; its rounding
    grows with their size, and at some 10,000 it is NaN. Computed and returned in at
    least float32, whatever the type of A, because its error recurs at each step.
    """
    wide = A.astype(state_dtype(A))
    with jax.default_matmul_precision("highest"):
        return jax.scipy.linalg.expm(wide - wide.T)
