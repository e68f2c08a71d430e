r"""Gate statistics: where gates are, and how often they are open or shut for good.

A gate that is saturated passes little gradient to its argument: its slope is near 0.
Low and high are the outer tenths of what a gate can be, as in the figures of Karpathy
et al. 2015, https://arxiv.org/abs/1506.02078, section 4.2.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn._base import Cell, Params, State
from jrnn._check import check_cell, check_inputs, check_params, check_state
from jrnn._parts import cast_state, split_gates, state_dtype
from jrnn.diagnostics._run import after, batch_shape, compiled, inside, run
from jrnn.layers import add_inputs

TENTH = 0.1
UNIT, SIGNED = (0.0, 1.0), (-1.0, 1.0)
# The gates among what a step saves, by name, and between what they lie.
GATES = {
    "gru": {"r": UNIT, "z": UNIT, "n": SIGNED},
    "lstm": {"i": UNIT, "f": UNIT, "o": UNIT, "g": SIGNED, "tanh_c": SIGNED},
}


class GateStatistics(NamedTuple):
    """Of each unit of a gate, over time and batch.

    Attributes:
      mean: The mean.
      low: The share of steps in the lowest tenth of the gate's range.
      high: The share of steps in the highest tenth.
    """

    mean: Float[Array, " n"]
    low: Float[Array, " n"]
    high: Float[Array, " n"]


def saturation(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
) -> dict[str, GateStatistics]:
    r"""Returns how each gate is set along a sequence, and how often it is saturated.

    What is looked at, and its range: of `gru` r, z (0 to 1) and n (-1 to 1); of `lstm`
    i, f, o (0 to 1), g and tanh_c (-1 to 1); of a cell that is linear in its state, by
    an elementwise factor, that factor's modulus as "a" (0 to 1), what is kept of the
    past; of any other cell the arrays of its state (-1 to 1, and 0 to 1 where the
    activation is the logistic function), which for tanh says where its slope is gone.

    Args:
      cell: Any cell; the layers of stacks and the directions of pairs each by itself.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      state: Where the sequence starts; None takes `cell.init_state`.

    Returns:
      For each gate, such as "f", or "[1].f" in a stack, its statistics.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.lstm(2, 3, forget_bias=5.0)
      >>> params = cell.init(jax.random.key(0))
      >>> found = jrnn.diagnostics.saturation(cell, params, jnp.zeros((4, 2)))
      >>> found["f"].high.tolist(), found["i"].high.tolist()
      ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    check_cell(cell)
    xs = jnp.asarray(xs)
    check_params(cell, params)
    batch = check_inputs(cell, xs)
    if state is None:
        state = cell.init_state(params, batch)
    else:
        check_state(cell, params, state, batch)
    state = cast_state(state, state_dtype(params, xs))
    return _saturation(cell, params, xs, state)


@compiled()
def _saturation(
    cell: Cell, params: Params, xs: Array, state: State
) -> dict[str, GateStatistics]:
    gates = _walk(cell, params, xs, state, "")[0]
    return {name: _statistics(*gate) for name, gate in gates.items()}


Gate = tuple[Array, tuple[float, float]]


def _walk(
    cell: Cell, params: Params, xs: Array, state: State, path: str
) -> tuple[dict[str, Gate], Array]:
    """Returns the gates of every cell inside, and the outputs."""
    if cell.around is not None:
        gates, ys = _walk(cell.around.cell, params, xs, state, path)
        return gates, add_inputs(ys, xs) if cell.around.skip else ys
    if cell.layers is None:
        return _leaf(cell, params, xs, state, path)
    found, shown = {}, []
    for i, child in enumerate(cell.layers.cells):
        backwards = cell.layers.parallel and i % 2 == 1
        turn = functools.partial(jnp.flip, axis=0) if backwards else lambda x: x
        read = shown[-1] if shown and not cell.layers.parallel else xs
        name = f"{path}[{i}]"
        gates, ys = _walk(child, params[i], turn(read), state[i], name)
        found |= gates
        shown.append(turn(ys))
    return found, jnp.concatenate(shown, -1) if cell.layers.parallel else shown[-1]


def _leaf(
    cell: Cell, params: Params, xs: Array, state: State, path: str
) -> tuple[dict[str, Gate], Array]:
    done = run(cell, params, xs, state)
    states = after(done.states_tm1, done.final)
    ys = cell.output(params, states, xs)
    lead = 1 + len(batch_shape(xs))
    join = f"{path}." if path else ""
    gates = _gates(cell, params, done.states_tm1, done.us, states, lead)
    return {join + name: gate for name, gate in gates.items()}, ys


def _gates(
    cell: Cell, params: Params, states_tm1: State, us: Any, states: State, lead: int
) -> dict[str, Gate]:
    cell, params = inside(cell, params)
    saved = _saved(cell, params, states_tm1, us)
    if saved is not None:
        ranges = GATES[cell.spec.name]
        return {name: (saved[name], ranges[name]) for name in ranges}
    if cell.linear is not None and not cell.linear.full:
        factors = _named(cell.linear.coefficients(params, us)[0])
        if len(factors) == 1:
            factors = {"a": next(iter(factors.values()))}
        return {name: (jnp.abs(a), UNIT) for name, a in factors.items()}
    logistic = dict(cell.spec.arguments).get("activation") is jax.nn.sigmoid
    size = lambda s: jnp.abs(s) if jnp.iscomplexobj(s) else s
    return {
        name: (size(s).reshape(*s.shape[:lead], -1), UNIT if logistic else SIGNED)
        for name, s in _named(states).items()
    }


def _saved(
    cell: Cell, params: Params, states_tm1: State, us: Any
) -> dict[str, Array] | None:
    """Returns the gates that a step keeps for its backward pass, by name."""
    if cell.spec.name not in GATES:
        return None
    if cell.gated is not None:
        count = cell.gated.gates
        v = split_gates(cell.gated.recur(params, states_tm1), count)
        saved = cell.gated.pointwise(states_tm1, split_gates(us, count), v)[1]
    elif cell.adjoint is not None:
        saved = cell.adjoint.advance(params, states_tm1, us)[1]
    else:
        return None
    names = getattr(saved, "_fields", tuple(GATES[cell.spec.name]))
    return dict(zip(names, saved, strict=True))


def _named(tree: Any) -> dict[str, Array]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).removeprefix("."): leaf for path, leaf in leaves}


def _statistics(gate: Array, span: tuple[float, float]) -> GateStatistics:
    edge = TENTH * (span[1] - span[0])
    rows = gate.reshape(-1, gate.shape[-1])
    share = lambda flags: flags.mean(axis=0, dtype=rows.dtype)
    return GateStatistics(
        mean=rows.mean(axis=0),
        low=share(rows < span[0] + edge),
        high=share(rows > span[1] - edge),
    )
