r"""Cells whose parameters are functions of others, worked out once for each sequence.

What is learned is free; what the cell's equations read is made of it and keeps a
property whatever the optimiser does:

    W_h = expm(A - A^T)          orthogonal
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from jrnn._base import Cell, Params, Spec, State
from jrnn._claims import claim, inherited
from jrnn._parts import compose_step, noisy_project, state_dtype


def parametrised(
    cell: Cell,
    free: type,
    own: Callable[[Any], Params],
    init: Callable[..., Any],
    spec: Spec,
) -> Cell:
    """Returns `cell` on parameters of which its own are a function.

    Args:
      cell: Whose equations are run; it prepares nothing itself, and its initial state
        reads nothing of the parameters but their type.
      free: The type of the parameters that are learned, another than the cell's own.
      own: Those parameters -> the cell's own.
      init: (key, dtype=None) -> those parameters.
      spec: What the result is.

    Returns:
      A cell whose parts read either; `prepare` is `own` where that is still to do.
    """

    def prepare(params: Params) -> Params:
        return own(params) if isinstance(params, free) else params

    def project(params: Params, x: Any, noise: Any = None) -> Any:
        return noisy_project(cell.project, prepare(params), x, noise)

    def advance(params: Params, state: State, u: Any) -> State:
        return cell.advance(prepare(params), state, u)

    def output(params: Params, state: State, x: Any) -> Array:
        return cell.output(prepare(params), state, x)

    def product(params: Params) -> tuple[Array, Array | None]:
        assert cell.gated is not None
        return cell.gated.product(prepare(params))

    def inputs(params: Params) -> tuple[Array, Array | None]:
        assert cell.gated is not None
        assert cell.gated.inputs is not None
        return cell.gated.inputs(prepare(params))

    def coefficients(params: Params, u: Any) -> tuple[State, State]:
        assert cell.linear is not None
        return cell.linear.coefficients(prepare(params), u)

    def start(params: Params, u: Any) -> Array:
        assert cell.linear is not None
        assert cell.linear.start is not None
        return cell.linear.start(prepare(params), u)

    gated, linear = cell.gated, cell.linear
    if linear is not None:
        linear = linear._replace(
            coefficients=coefficients, start=None if linear.start is None else start
        )
    if gated is not None:
        gated = gated._replace(
            product=product, inputs=None if gated.inputs is None else inputs
        )
    made = cell._replace(
        init=init,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        spec=spec,
        gated=gated,
        linear=linear,
        prepare=prepare,
    )
    return claim(made, **inherited(cell, params=prepare))


def rotation(A: Float[Array, "h h"]) -> Float[Array, "h h"]:
    r"""Returns expm(A - A^T): orthogonal, of determinant 1, to rounding.

    The exponential maps the skew-symmetric matrices onto all rotations; its rounding
    grows with their size, and at some 10,000 it is NaN. Worked out and
    returned in at least float32, whatever the type of A: what is lost here is lost at
    each step.
    """
    wide = A.astype(state_dtype(A))
    with jax.default_matmul_precision("highest"):
        return jax.scipy.linalg.expm(wide - wide.T)
