"""Claims about a cell's functions: its gates, and a bound of its step.

A claim is stored together with the functions that it was made for, and is valid only
for a cell with these functions: if one is replaced, by `cell._replace(advance=...)`,
the claim no longer applies. Removing a seam (`gated`, `adjoint`, `linear`) does not
change what the cell computes, so claims stay valid.
"""

from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, GateView, Linear, Made, Params, State, StepBound
from jrnn.core.constants import own_constants
from jrnn.core.memoize import guarded, unguarded
from jrnn.core.products import expand
from jrnn.core.seams import compose_step, prepared

SEAMS = ("gated", "adjoint", "linear")
PARTS = {"prepare", "project", "advance", "output"}  # the functions of a step
FUNCTIONS = ("init_state", "project", "advance", "output", "step", "noise", "prepare")
CONSISTS_OF = (*SEAMS, *FUNCTIONS, "children")

Claim = TypeVar("Claim", GateView, StepBound)


class Claims(TypedDict):
    """The keyword arguments of `claim`."""

    gates: GateView | None
    bound: StepBound | None


def claim(
    cell: Cell, *, gates: GateView | None = None, bound: StepBound | None = None
) -> Cell:
    """Returns `cell` with claims about its functions.

    Args:
      cell: The cell that the claims are about.
      gates: Its gates; None: not known.
      bound: A bound of its step; None: there is none.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from jrnn.diagnostics import GateView, claim
      >>> own = jrnn.elman(2, 3)._replace(gates=None, bound=None)
      >>> view = GateView((("h", (-1.0, 1.0)),), lambda p, s, u: {"h": u + s.h})
      >>> claim(own, gates=view).gates.ranges
      (('h', (-1.0, 1.0)),)
    """
    cell = current(cell)
    own = cell._asdict()
    functions = tuple(unguarded(own[name]) for name in CONSISTS_OF)
    return cell._replace(
        gates=None if gates is None else gates._replace(functions=functions),
        bound=None if bound is None else bound._replace(functions=functions),
        made=Made(functions),
    )


def held(cell: Cell, claimed: Claim | None) -> Claim | None:
    """Returns a claim if it is about the present functions of `cell`, else None."""
    if claimed is None or claimed.functions is None:
        return None
    replaced = _replaced(cell, claimed.functions)
    lost = [n for n in replaced if n not in SEAMS or getattr(cell, n) is not None]
    return None if lost else claimed


def _replaced(cell: Cell, functions: tuple[Any, ...]) -> set[str]:
    """Returns the names of those of `functions` that have been replaced in `cell`."""
    own = dict(zip(cell._fields, cell, strict=True))
    was = zip(CONSISTS_OF, functions, strict=True)
    return {name for name, old in was if unguarded(own[name]) != unguarded(old)}


@bounded
def current(cell: Cell) -> Cell:
    """Returns `cell` without fields that describe functions replaced since.

    A field that was replaced too is kept; otherwise

    - `gated`, `adjoint`, `linear` and `diagonal` describe `advance`, `gated.inputs`
      describes `project`, and `shows_state` describes `output`;
    - `children` describe all of these: a wrapper with a replaced function is run
      itself;
    - `step` is composed again of the present functions, and resets to the present
      `init_state`.
    """
    if cell.made is None:
        return cell
    replaced = _replaced(cell, cell.made.functions)
    if not replaced & PARTS:
        stale = "init_state" in replaced and "step" not in replaced
        return guarded(cell) if stale else cell
    was = dict(zip(CONSISTS_OF, cell.made.functions, strict=True))
    if was["step"] is was["advance"]:  # both raise: there is no single step
        raise ValueError(
            f"Expected {cell} as it was made, because it reads in both directions, got "
            f"it with another {', '.join(sorted(replaced & PARTS))}; replace functions "
            "of the cells inside it."
        )
    gone: dict[str, Any] = {"step": _composed(cell), "children": None}
    if "advance" in replaced:
        gone |= {**dict.fromkeys(SEAMS), "diagonal": False}
    elif "project" in replaced and cell.gated is not None:
        gone |= {"gated": cell.gated._replace(inputs=None)}
    if "output" in replaced:
        gone |= {"shows_state": False}
    gone = {name: value for name, value in gone.items() if name not in replaced}
    cell = cell._replace(**gone)
    return guarded(cell) if "step" in gone else cell


def _composed(cell: Cell) -> Callable[..., tuple[State, Array]]:
    """Returns the composed `step`, which prepares the parameters like a method does."""
    step = compose_step(cell.project, cell.advance, cell.output)
    return own_constants(lambda params, *inputs: step(prepared(cell, params), *inputs))


def _step_of(cell: Cell) -> Any:
    return current(cell)[STEP]


STEP = Cell._fields.index("step")
# A stored step may be composed of functions that were replaced since.
Cell.step = property(_step_of)  # pyright: ignore[reportAttributeAccessIssue] a field


def _same(value: Any) -> Any:
    return value


def inherited(
    cell: Cell,
    params: Callable[[Any], Params] = _same,
    us: Callable[[Any], Any] = _same,
) -> Claims:
    """Returns the claims of `cell`, for a wrapper that computes the same step.

    Args:
      cell: The inner cell.
      params: The wrapper's parameters -> the inner cell's.
      us: The result of the wrapper's `project`, without noise -> the inner cell's.
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
UNIT = (0.0, 1.0)  # the range of a sigmoid gate, or of a fraction
MIXED = "; mixed with what zoneout keeps"


def mixed(bound: StepBound | None, rates: tuple[float, ...]) -> StepBound | None:
    """Returns the bound of a step with zoneout, which keeps `rates` of the past."""
    if bound is None or bound.blocks is None:
        return bound
    deeper = bound.kept or (0.0,) * len(rates)
    kept = tuple(1 - (1 - a) * (1 - b) for a, b in zip(rates, deeper, strict=True))
    label = bound.label if bound.label.endswith(MIXED) else bound.label + MIXED
    return bound._replace(label=label, kept=kept)


def share_kept(bound: StepBound, arrays: int, like: Array) -> Array:
    """Returns the fraction that zoneout keeps of each array of the state, (arrays,)."""
    return jnp.asarray(bound.kept or (0.0,) * arrays, like.dtype)


def factor_view(linear: Linear, names: tuple[str, ...] = ("a",)) -> GateView:
    """Returns a view of |a|, the factors that a linear cell applies to its state."""
    if linear.full:
        return NO_GATES

    def read(params: Params, states_tm1: State, us: Any) -> dict[str, Array]:
        del states_tm1
        factors = jax.tree.leaves(linear.coefficients(params, us)[0])
        if linear.start is not None:  # leaves out the flag of a fresh state
            factors = factors[:1]
        return {n: jnp.abs(a) for n, a in zip(names, factors, strict=True)}

    return GateView(tuple((name, UNIT) for name in names), read)


def bound_by_params(label: str, beta: Callable[[Params], Array]) -> StepBound:
    """Returns a bound that depends only on the parameters.

    Args:
      label: The proof, in words.
      beta: (params, cast to the type of the state) -> one number.
    """

    def blocks(params: Params, states_tm1: State, us: Any, kept: Array) -> Array:
        del us, kept
        h = states_tm1.h
        wide = jax.tree.map(lambda W: W.astype(h.dtype), params)
        return at_every_step(beta(wide), h)

    return StepBound(label, blocks)


def at_every_step(beta: Array, h: Array) -> Array:
    """Repeats a bound for every step, for a state of one field h, (T, ..., n)."""
    betas = jnp.broadcast_to(expand(beta, h.ndim - 1), h.shape[:-1])
    return betas[..., None, None]
