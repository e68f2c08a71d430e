"""What a cell says of itself beyond its functions: its gates, and a bound of its step.

Both are claims about functions. They are kept together with the functions that they
were made for, and count only of a cell that consists of these: where one is replaced,
by `cell._replace(advance=...)`, the claim is gone. A seam that is only left out
(`gated`, `adjoint`, `linear`) changes nothing of what the cell does.
"""

from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, GateView, Linear, Made, Params, State, StepBound
from jrnn.core.memoize import unguarded
from jrnn.core.products import expand

SEAMS = ("gated", "adjoint", "linear")
FUNCTIONS = ("init_state", "project", "advance", "output", "step", "noise", "prepare")
CONSISTS_OF = (*SEAMS, *FUNCTIONS, "children")

Claim = TypeVar("Claim", GateView, StepBound)


class Claims(TypedDict):
    """What `claim` takes."""

    gates: GateView | None
    bound: StepBound | None


def claim(
    cell: Cell, *, gates: GateView | None = None, bound: StepBound | None = None
) -> Cell:
    """Returns `cell` with what is claimed of the functions that it consists of.

    Args:
      cell: Whose functions the claims are about.
      gates: Which gates it has; None: not known.
      bound: A bound of its step; None: there is none.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from jrnn.diagnostics import GateView, claim
      >>> own = jrnn.elman(2, 3)._replace(gates=None, bound=None)
      >>> view = GateView((("h", (-1.0, 1.0)),), lambda p, s, u: {"h": u + s.h})
      >>> claim(own, gates=view).gates.ranges
      (('h', (-1.0, 1.0)),)
    """
    functions = _functions(cell)
    return cell._replace(
        gates=None if gates is None else gates._replace(functions=functions),
        bound=None if bound is None else bound._replace(functions=functions),
        made=Made(functions),
    )


def held(cell: Cell, claimed: Claim | None) -> Claim | None:
    """Returns a claim if it is about the functions that `cell` consists of."""
    if claimed is None or claimed.functions is None:
        return None
    pairs = zip(CONSISTS_OF, claimed.functions, strict=True)
    for name, function in pairs:
        own = unguarded(getattr(cell, name))
        if own != unguarded(function) and not (name in SEAMS and own is None):
            return None
    return claimed


@bounded
def current(cell: Cell) -> Cell:
    """Returns `cell` without the seams of functions that it consists of no more.

    `gated`, `adjoint`, `linear` and `diagonal` tell a method what `advance` does; of a
    cell whose `advance` alone was replaced they tell what it did. `gated.inputs` tells
    what `project` does, and `shows_state` what `output` does. A seam that was replaced
    as well is kept.
    """
    if cell.made is None:
        return cell
    was = dict(zip(CONSISTS_OF, cell.made.functions, strict=True))
    if cell.advance != was["advance"]:
        stale = [name for name in SEAMS if getattr(cell, name) == was[name]]
        return cell._replace(**dict.fromkeys(stale), diagonal=False)
    if cell.output != was["output"]:
        cell = cell._replace(shows_state=False)
    gated = cell.gated
    if cell.project != was["project"] and gated is not None and gated == was["gated"]:
        return cell._replace(gated=gated._replace(inputs=None))
    return cell


def _functions(cell: Cell) -> tuple[Any, ...]:
    return tuple(unguarded(getattr(cell, name)) for name in CONSISTS_OF)


def _same(value: Any) -> Any:
    return value


def inherited(
    cell: Cell,
    params: Callable[[Any], Params] = _same,
    us: Callable[[Any], Any] = _same,
) -> Claims:
    """Returns what holds of `cell`, for a cell around it that makes the same step.

    Args:
      cell: The cell inside.
      params: The parameters of the cell around it -> its own.
      us: What `project` of the cell around it returns, without noise -> its own.
    """
    gates, bound = held(cell, cell.gates), held(cell, cell.bound)
    if gates is not None:
        read = gates.read
        gates = gates._replace(
            read=lambda p, states_tm1, u: read(params(p), states_tm1, us(u))
        )
    if bound is not None and bound.blocks is not None:
        blocks = bound.blocks

        def outer(p: Params, states_tm1: State, u: Any, kept: Array) -> Array:
            return blocks(params(p), states_tm1, us(u), kept)

        bound = bound._replace(blocks=outer)
    return Claims(gates=gates, bound=bound)


NO_GATES = GateView((), lambda params, states_tm1, us: {})  # noqa: ARG005 none to read
LINEAR_BOUND = StepBound(
    "proven: J does not depend on the state; its norm for these inputs", None
)
UNIT = (0.0, 1.0)  # between what an opened gate, or a share, lies
MIXED = "; mixed with what zoneout keeps"


def mixed(bound: StepBound | None, rates: tuple[float, ...]) -> StepBound | None:
    """Returns the bound of a step of which zoneout keeps `rates` of the past."""
    if bound is None or bound.blocks is None:
        return bound
    deeper = bound.kept or (0.0,) * len(rates)
    kept = tuple(1 - (1 - a) * (1 - b) for a, b in zip(rates, deeper, strict=True))
    label = bound.label if bound.label.endswith(MIXED) else bound.label + MIXED
    return bound._replace(label=label, kept=kept)


def share_kept(bound: StepBound, arrays: int, like: Array) -> Array:
    """Returns what is kept of each array of the state, (arrays,)."""
    return jnp.asarray(bound.kept or (0.0,) * arrays, like.dtype)


def factor_view(linear: Linear, names: tuple[str, ...] = ("a",)) -> GateView:
    """Returns the view of |a|, what a linear cell keeps of each array of its state."""
    if linear.full:
        return NO_GATES

    def read(params: Params, states_tm1: State, us: Any) -> dict[str, Array]:
        del states_tm1
        factors = jax.tree.leaves(linear.coefficients(params, us)[0])
        if linear.start is not None:  # whether a state is fresh is no unit of it
            factors = factors[:1]
        return {n: jnp.abs(a) for n, a in zip(names, factors, strict=True)}

    return GateView(tuple((name, UNIT) for name in names), read)


def bound_by_params(label: str, beta: Callable[[Params], Array]) -> StepBound:
    """Returns a bound that depends on the parameters alone.

    Args:
      label: How it is proven, in words.
      beta: params, in the type of the state -> one number.
    """

    def blocks(params: Params, states_tm1: State, us: Any, kept: Array) -> Array:
        del us, kept
        h = states_tm1.h
        wide = jax.tree.map(lambda W: W.astype(h.dtype), params)
        return at_every_step(beta(wide), h)

    return StepBound(label, blocks)


def at_every_step(beta: Array, h: Array) -> Array:
    """Returns one bound for every step, of a state that has one field, (T, ..., n)."""
    betas = jnp.broadcast_to(expand(beta, h.ndim - 1), h.shape[:-1])
    return betas[..., None, None]
