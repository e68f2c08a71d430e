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

from jrnn._base import Cell, Linear, Params, State
from jrnn._check import check_cell, check_inputs, check_params, check_state
from jrnn._parts import (
    cast_state,
    expand,
    normalise,
    prepared,
    product,
    split_gates,
    state_dtype,
)
from jrnn.diagnostics._run import after, bare, compiled, inside, run
from jrnn.layers import add_inputs

TENTH = 0.1
UNIT, SIGNED = (0.0, 1.0), (-1.0, 1.0)
Span = tuple[float, float]
Gate = tuple[Array, Span]
# Between what a state lies that is an activation's value; of any other it is unbounded.
ACTIVATIONS: dict[Any, Span] = {
    jnp.tanh: SIGNED,
    jnp.sin: SIGNED,
    jax.nn.hard_tanh: SIGNED,
    jax.nn.soft_sign: SIGNED,
    jax.nn.sigmoid: UNIT,
    jax.nn.hard_sigmoid: UNIT,
}
# The gates of a cell by name, and between what they lie.
LSTM = {"i": UNIT, "f": UNIT, "o": UNIT, "g": SIGNED, "tanh_c": SIGNED}
GRU = {"r": UNIT, "z": UNIT, "n": SIGNED}
GATES: dict[str, dict[str, Span]] = {
    "gru": GRU,
    "diagonal_gru": GRU,
    "layer_norm_gru": GRU,
    "lstm": LSTM,
    "diagonal_lstm": LSTM,
    "layer_norm_lstm": LSTM,
    "antisymmetric_rnn": {"z": UNIT, "n": SIGNED},
    "co_rnn": {"tanh_a": SIGNED},
    "lem": {"s": UNIT, "r": UNIT, "n": SIGNED, "m": SIGNED},
}


class GateStatistics(NamedTuple):
    """Of each unit of a gate, over time and batch.

    Attributes:
      mean: The mean.
      low: The share of steps in the lowest tenth of the gate's range; NaN, as the mean,
        of a unit that is NaN at any step.
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

    What is looked at, and its range:

    - `gru`, `diagonal_gru`, `layer_norm_gru`: r, z (0 to 1) and n (-1 to 1);
    - `lstm`, `diagonal_lstm`, `layer_norm_lstm`: i, f, o (0 to 1), g and tanh_c (-1 to
      1), the last of the normalised c where there is one; no i where gates are coupled;
    - `lem`: s, r (0 to dt), n and m (-1 to 1);
    - `antisymmetric_rnn`: z (0 to 1) where it is gated, and n (-1 to 1);
    - `co_rnn`: tanh_a (-1 to 1), what drives the oscillators;
    - of a cell that is linear in its state, by an elementwise factor, that factor's
      modulus as "a" (0 to 1), what is kept of the past;
    - `elman`, `ind_rnn`, `layer_norm_elman`: h, where the activation is tanh, sin, hard
      tanh, soft sign (-1 to 1), the logistic function or its hard kin (0 to 1), which
      says where the slope is gone.

    States without bounds have no outer tenths: `exp_rnn`, a relu and any other cell are
    left out. What is around a cell is looked through: of `zoneout` the gates are those
    of the step that it takes a share of.

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
    gates = _walk(cell, prepared(cell, params), xs, state, "")[0]
    return {name: _statistics(*gate) for name, gate in gates.items()}


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
    ys = cell.output(params, after(done.states_tm1, done.final), xs)
    inner, inner_params = inside(cell, params)
    if inner.linear is None:
        inner, inner_params, _ = bare(inner, inner_params)
    us = inner.project(inner_params, xs)
    join = f"{path}." if path else ""
    gates = _gates(inner, inner_params, done.states_tm1, us)
    return {join + name: gate for name, gate in gates.items()}, ys


def _gates(cell: Cell, params: Params, states_tm1: State, us: Any) -> dict[str, Gate]:
    name, arguments = cell.spec.name, dict[str, Any](cell.spec.arguments)
    if cell.linear is not None:
        return {} if cell.linear.full else _factors(cell.linear, params, us)
    if name in GATES:
        found = _read(cell, params, states_tm1, us)
        spans = dict(GATES[name])
        if name == "lem":
            spans["s"] = spans["r"] = (0.0, arguments["dt"])
        return {gate: (found[gate], spans[gate]) for gate in spans if gate in found}
    span = ACTIVATIONS.get(arguments.get("activation"))
    if span is None or name not in ("elman", "ind_rnn", "layer_norm_elman"):
        return {}
    return {"h": (cell.advance(params, states_tm1, us).h, span)}


def _factors(linear: Linear, params: Params, us: Any) -> dict[str, Gate]:
    factors = _named(linear.coefficients(params, us)[0])
    if len(factors) == 1:
        factors = {"a": next(iter(factors.values()))}
    return {name: (jnp.abs(a), UNIT) for name, a in factors.items()}


def _read(cell: Cell, params: Params, states_tm1: State, us: Any) -> dict[str, Array]:
    """Returns the gates of a cell that has some, by name."""
    own = {
        "diagonal_gru": _diagonal_gru,
        "diagonal_lstm": _diagonal_lstm,
        "layer_norm_gru": _layer_norm_gru,
        "layer_norm_lstm": _layer_norm_lstm,
    }
    if cell.spec.name in own:
        return own[cell.spec.name](cell, params, states_tm1, us)
    # What a step keeps for its backward pass.
    if cell.gated is not None:
        count = cell.gated.gates
        v = split_gates(cell.gated.recur(params, states_tm1), count)
        state, saved = cell.gated.pointwise(states_tm1, split_gates(us, count), v)
    elif cell.adjoint is not None:
        state, saved = cell.adjoint.advance(params, states_tm1, us)
    else:
        return {}
    saved = saved if isinstance(saved, tuple) else (saved,)
    names = getattr(saved, "_fields", tuple(GATES[cell.spec.name]))
    pairs = zip(names, saved, strict=True)
    found = {name: gate for name, gate in pairs if gate is not None}
    return found | {"tanh_c": jnp.tanh(state.c)} if cell.spec.name == "lstm" else found


def _diagonal_gru(
    cell: Cell, params: Params, states_tm1: State, us: Array
) -> dict[str, Array]:
    del cell
    h = states_tm1.h
    w_h = split_gates(params.w_h.astype(h.dtype), 3)
    v_r, v_z, v_n = (expand(w, h.ndim) * h for w in w_h)
    u_r, u_z, u_n = split_gates(us, 3)
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    return {"r": r, "z": z, "n": jnp.tanh(u_n + r * v_n)}


def _diagonal_lstm(
    cell: Cell, params: Params, states_tm1: State, us: Array
) -> dict[str, Array]:
    h_tm1, c_tm1 = states_tm1
    c = cell.advance(params, states_tm1, us).c
    names = "fgo" if dict(cell.spec.arguments)["coupled"] else "ifgo"
    w_h = split_gates(params.w_h.astype(c.dtype), len(names))
    arguments = zip(names, split_gates(us, len(names)), w_h, strict=True)
    a = {gate: u + expand(w, c.ndim) * h_tm1 for gate, u, w in arguments}
    if params.p is not None:
        peeping = names.replace("g", "")
        for gate, row in zip(peeping, params.p.astype(c.dtype), strict=True):
            a[gate] = a[gate] + expand(row, c.ndim) * (c if gate == "o" else c_tm1)
    return _opened(a, c)


def _layer_norm_gru(
    cell: Cell, params: Params, states_tm1: State, us: Array
) -> dict[str, Array]:
    del cell
    h = states_tm1.h
    two = 2 * h.shape[-1]
    v = product(h, params.W_h, h.dtype)
    rz = us[..., :two] + normalise(v[..., :two], params.g_h[:two])
    r, z = split_gates(jax.nn.sigmoid(rz), 2)
    n = jnp.tanh(us[..., two:] + r * normalise(v[..., two:], params.g_h[two:]))
    return {"r": r, "z": z, "n": n}


def _layer_norm_lstm(
    cell: Cell, params: Params, states_tm1: State, us: Array
) -> dict[str, Array]:
    v = product(states_tm1.h, params.W_h, states_tm1.h.dtype)
    a = split_gates(us + normalise(v, params.g_h), 4)
    c = cell.advance(params, states_tm1, us).c
    shown = normalise(c, params.g_c, params.b_c)
    return _opened(dict(zip("ifgo", a, strict=True)), shown)


def _opened(a: dict[str, Array], shown: Array) -> dict[str, Array]:
    """Returns an LSTM's gates from their arguments, and tanh of what it shows."""
    opened = {
        gate: jnp.tanh(x) if gate == "g" else jax.nn.sigmoid(x) for gate, x in a.items()
    }
    return opened | {"tanh_c": jnp.tanh(shown)}


def _named(tree: Any) -> dict[str, Array]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).removeprefix("."): leaf for path, leaf in leaves}


def _statistics(gate: Array, span: tuple[float, float]) -> GateStatistics:
    edge = TENTH * (span[1] - span[0])
    rows = gate.reshape(-1, gate.shape[-1])
    mean = rows.mean(axis=0)

    def share(flags: Array) -> Array:
        # A comparison with NaN is False, and would count it as not saturated.
        known = flags.mean(axis=0, dtype=rows.dtype)
        return jnp.where(jnp.isnan(mean), jnp.nan, known)

    return GateStatistics(
        mean=mean,
        low=share(rows < span[0] + edge),
        high=share(rows > span[1] - edge),
    )
