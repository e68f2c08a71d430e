"""A gated cell along a sequence on a CPU, forwards and backwards: one call each.

    v_t = h_{t-1} W + b,    u_t = x_t W_x + b_x or given,
    s_t = pointwise(s_{t-1}, u_t, v_t)

Both calls compile the cell's code when they are traced for the first time. All arrays
have one axis of rows and are of one type, float32 or float64.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Gated, State
from jrnn.kernels import _gates
from jrnn.kernels.cpu.generate import cell_source
from jrnn.kernels.cpu.targets import targets

# The symbols of a compiled cell: walk.h.
FORWARD, BACKWARD = "run_forward", "run_backward"


class Given(NamedTuple):
    """The arguments of a walk: n units, g gates, k inputs, one axis of rows.

    Attributes:
      W: (n, g n).
      b: (g n,), or None.
      us: (T, rows, g n); None: u = x W_x + b_x.
      xs: (T, rows, k), or None.
      W_x: (k, g n), or None.
      b_x: (g n,), or None.
      start: The state before the first step, leaves (rows, n).
      fresh: The state that replaces it at restarts; None without.
      active: True at steps that update a row, (T, rows); None: all do.
      restart: True at steps before which a row restarts; None: none.
    """

    W: Array
    b: Array | None
    us: Array | None
    xs: Array | None
    W_x: Array | None
    b_x: Array | None
    start: State
    fresh: State | None = None
    active: Bool[Array, "T rows"] | None = None
    restart: Bool[Array, "T rows"] | None = None


# The axis of the rows in those that have one.
ROWS = {"us": 1, "xs": 1, "start": 0, "fresh": 0, "active": 1, "restart": 1}


class Kept(NamedTuple):
    """What the forward walk leaves: trees with leaves (T, rows, n); None: not kept."""

    states: tuple[Array | None, ...]
    saved: tuple[Array, ...]


class Gradients(NamedTuple):
    """What arrives at a walk's results: leaves of the state; None: zero.

    Attributes:
      states: (T, rows, n), of each state except through later states.
      final: (rows, n), of the last state.
    """

    states: tuple[Array | None, ...]
    final: tuple[Array | None, ...]


class Code(NamedTuple):
    """What is static of a walk: hashable, without arrays.

    Attributes:
      gated: The cell's seam.
      structure: Of the state.
      dtype: Of all arrays.
    """

    gated: Gated
    structure: Any
    dtype: str


class Compiled(NamedTuple):
    """A compiled cell: its call targets, how many arrays it saves, and if du is dv."""

    names: dict[str, str]
    saved: int
    shared: bool


@bounded
def compiled(code: Code) -> Compiled:
    """Returns the cell's code, compiled if it is not in the cache."""
    one = jax.ShapeDtypeStruct((1, 1), code.dtype)
    state = jax.tree.unflatten(code.structure, [one] * code.structure.num_leaves)
    saved = _gates.saved_like(code.gated, state)
    source = cell_source(code.gated, state)
    home = getattr(code.gated.pointwise, "__module__", "a cell")  # jrnn.cells.lstm
    label = f"the CPU kernel of {home.rpartition('.')[2]} in {code.dtype}"
    return Compiled(
        targets(source, (FORWARD, BACKWARD), label=label),
        len(jax.tree.leaves(saved)),
        _gates.shares_gates(code.gated, state, saved),
    )


def prepare(cell: Cell, dtype: DTypeLike) -> None:
    """Compiles a cell's code, unless it is in the cache.

    Raises:
      ValueError: The cell has no gates, or gates that cannot be written in C.
      NoCompiler: There is no C compiler.
    """
    if cell.gated is None:
        raise ValueError(f"Expected a cell with gates, such as jrnn.lstm, got {cell}.")
    init = lambda key: cell.init_state(cell.init(key, dtype), (1,))
    state = jax.eval_shape(init, jax.random.key(0))
    compiled(Code(cell.gated, jax.tree.structure(state), str(jnp.dtype(dtype))))


def forward(
    code: Code, keep: tuple[bool, ...], save: bool, given: Given
) -> tuple[State, Kept]:
    """Returns the final state, and what is kept of each step.

    Args:
      code: The cell.
      keep: Which arrays of the state to return for each step.
      save: Whether to return what the backward walk needs.
      given: The arguments.
    """
    found = compiled(code)
    rows = jax.tree.leaves(given.start)
    shown = given.xs if given.us is None else given.us
    assert shown is not None
    timed = jax.ShapeDtypeStruct((shown.shape[0], *rows[0].shape), code.dtype)
    flags = _gates.pack(given.active, given.restart)
    fresh = given.restart is not None
    inputs = () if given.us is not None else (given.W_x, given.b_x)
    arguments = [shown, *inputs, given.W, given.b, *rows]
    arguments += [*(jax.tree.leaves(given.fresh) if fresh else ()), flags]
    results = _call(
        found.names[FORWARD],
        [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in rows]
        + [timed] * (sum(keep) + save * found.saved),
        arguments,
        keep=sum(yes << i for i, yes in enumerate(keep)),
        save=save,
        bias=given.b is not None,
        inputs=given.us is None,
        input_bias=given.b_x is not None,
        fresh=fresh,
        flags=flags is not None,
    )
    final, left = results[: len(rows)], iter(results[len(rows) :])
    states = tuple(next(left) if yes else None for yes in keep)
    return jax.tree.unflatten(code.structure, final), Kept(states, tuple(left))


def backward(
    code: Code, dxs: bool, given: Given, kept: Kept, arriving: Gradients
) -> Given:
    """Returns the gradients of the arguments; None for flags, and dxs if unwanted."""
    left = walk_back(code, dxs, True, given, kept, arriving)
    dW, db = next(left), None if given.b is None else next(left)
    dstart, dfresh = take_states(code, given, left)
    if given.us is not None:
        return Given(dW, db, next(left), None, None, None, dstart, dfresh)
    dW_x, db_x = next(left), None if given.b_x is None else next(left)
    return Given(dW, db, None, next(left) if dxs else None, dW_x, db_x, dstart, dfresh)


def take_states(code: Code, given: Given, left: Any) -> tuple[State, State | None]:
    """Returns the next results as dstart and, if there are restarts, dfresh."""
    take = lambda: jax.tree.unflatten(
        code.structure, [next(left) for _ in range(code.structure.num_leaves)]
    )
    return take(), None if given.restart is None else take()


def walk_back(
    code: Code, dxs: bool, sums: bool, given: Given, kept: Kept, arriving: Gradients
) -> Any:
    """Calls the backward walk, and returns its results one after the other.

    Args:
      code: The cell.
      dxs: Whether to return the gradient of xs.
      sums: Whether to return the gradients of matrices and biases, and not dv.
      given: The arguments of the forward walk.
      kept: What it left.
      arriving: The gradients of its results.
    """
    found = compiled(code)
    rows = jax.tree.leaves(given.start)
    flags = _gates.pack(given.active, given.restart)
    fresh = given.restart is not None
    by_inputs = given.us is None
    like = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    arguments = [given.W, *kept.states, *kept.saved, *rows]
    arguments += [*(jax.tree.leaves(given.fresh) if fresh else ()), flags]
    arguments += [*arriving.states, *arriving.final]
    arguments += [given.xs, given.W_x] if by_inputs else []
    results = [given.W, given.b] if sums else []
    results += [*rows, *(rows if fresh else ())]
    results += [given.W_x, given.b_x] if by_inputs else []
    results += [given.xs] if by_inputs and dxs else []
    first = kept.states[0]
    assert first is not None
    gates = jax.ShapeDtypeStruct((*first.shape[:-1], given.W.shape[1]), code.dtype)
    results += [] if by_inputs else [gates]
    results += [gates] if not sums and not found.shared else []
    return iter(
        _call(
            found.names[BACKWARD],
            [like(leaf) for leaf in results if leaf is not None],
            arguments,
            bias=given.b is not None,
            inputs=by_inputs,
            input_bias=given.b_x is not None,
            fresh=fresh,
            flags=flags is not None,
            direct=_bits(arriving.states),
            dfinal=_bits(arriving.final),
            dxs=dxs,
            sums=sums,
        )
    )


def _bits(leaves: tuple[Array | None, ...]) -> int:
    return sum((leaf is not None) << i for i, leaf in enumerate(leaves))


def _call(name: str, results: Any, arguments: Any, **options: Any) -> tuple[Array, ...]:
    call = jax.ffi.ffi_call(name, results)
    given = [leaf for leaf in arguments if leaf is not None]
    return tuple(call(*given, **{key: np.int64(v) for key, v in options.items()}))
