"""How the gates of each cell are read, and between what they lie."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Adjoint, Gated, GateView, Linear, Params, State
from jrnn._claims import NO_GATES
from jrnn._parts import (
    expand,
    gated_advance_saving,
    normalise,
    product,
    split_gates,
)

UNIT, SIGNED = (0.0, 1.0), (-1.0, 1.0)
Span = tuple[float, float]
Found = dict[str, Array]
# Between what a state lies that is an activation's value; of any other it is unbounded.
ACTIVATIONS: dict[Any, Span] = {
    jnp.tanh: SIGNED,
    jnp.sin: SIGNED,
    jax.nn.hard_tanh: SIGNED,
    jax.nn.soft_sign: SIGNED,
    jax.nn.sigmoid: UNIT,
    jax.nn.hard_sigmoid: UNIT,
}
LSTM = {"i": UNIT, "f": UNIT, "o": UNIT, "g": SIGNED, "tanh_c": SIGNED}
GRU = {"r": UNIT, "z": UNIT, "n": SIGNED}


def view(
    spans: dict[str, Span], read: Callable[[Params, State, Any], Found]
) -> GateView:
    """Returns the view of gates that lie between `spans`."""
    return GateView(tuple(spans.items()), read)


def state_view(activation: Any, advance: Callable[..., State]) -> GateView:
    """Returns the view of h, where it is the value of a bounded activation."""
    span = ACTIVATIONS.get(activation)
    if span is None:
        return NO_GATES
    return view({"h": span}, lambda p, s, u: {"h": advance(p, s, u).h})


def factor_view(linear: Linear, names: tuple[str, ...] = ("a",)) -> GateView:
    """Returns the view of |a|, what a linear cell keeps of each array of its state."""
    if linear.full:
        return NO_GATES

    def read(params: Params, states_tm1: State, us: Any) -> Found:
        del states_tm1
        factors = jax.tree.leaves(linear.coefficients(params, us)[0])
        if linear.start is not None:  # whether a state is fresh is no unit of it
            factors = factors[:1]
        return {n: jnp.abs(a) for n, a in zip(names, factors, strict=True)}

    return view(dict.fromkeys(names, UNIT), read)


def saved_view(seam: Gated | Adjoint, spans: dict[str, Span]) -> GateView:
    """Returns the view of gates that a step keeps for its backward pass."""

    def read(params: Params, states_tm1: State, us: Any) -> Found:
        saved = _step(seam, params, states_tm1, us)[1]
        saved = saved if isinstance(saved, tuple) else (saved,)
        names = getattr(saved, "_fields", None)
        if names is None:
            gates = (gate for gate in saved if gate is not None)
            return dict(zip(spans, gates, strict=True))
        return dict(zip(names, saved, strict=True))

    return view(spans, read)


def lstm_view(seam: Gated | Adjoint) -> GateView:
    """Returns the view of an LSTM's gates, and of tanh(c)."""

    def read(params: Params, states_tm1: State, us: Any) -> Found:
        state, saved = _step(seam, params, states_tm1, us)
        return saved._asdict() | {"tanh_c": jnp.tanh(state.c)}

    return view(LSTM, read)


def _step(seam: Gated | Adjoint, params: Params, states_tm1: State, us: Any) -> Any:
    if isinstance(seam, Adjoint):
        return seam.advance(params, states_tm1, us)
    return gated_advance_saving(seam, params, states_tm1, us)


def _diagonal_gru(params: Params, states_tm1: State, us: Array) -> Found:
    h = states_tm1.h
    w_h = split_gates(params.w_h.astype(h.dtype), 3)
    v_r, v_z, v_n = (expand(w, h.ndim) * h for w in w_h)
    u_r, u_z, u_n = split_gates(us, 3)
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    return {"r": r, "z": z, "n": jnp.tanh(u_n + r * v_n)}


def diagonal_lstm_view(coupled: bool, advance: Callable[..., State]) -> GateView:
    """Returns the view of a diagonal LSTM's gates; no i where it is 1 - f."""
    spans = {name: span for name, span in LSTM.items() if name != "i" or not coupled}
    return view(spans, functools.partial(_diagonal_lstm, coupled, advance))


def _diagonal_lstm(
    coupled: bool,
    advance: Callable[..., State],
    params: Params,
    states_tm1: State,
    us: Array,
) -> Found:
    h_tm1, c_tm1 = states_tm1
    c = advance(params, states_tm1, us).c
    names = "fgo" if coupled else "ifgo"
    w_h = split_gates(params.w_h.astype(c.dtype), len(names))
    arguments = zip(names, split_gates(us, len(names)), w_h, strict=True)
    a = {gate: u + expand(w, c.ndim) * h_tm1 for gate, u, w in arguments}
    if params.p is not None:
        peeping = names.replace("g", "")
        for gate, row in zip(peeping, params.p.astype(c.dtype), strict=True):
            a[gate] = a[gate] + expand(row, c.ndim) * (c if gate == "o" else c_tm1)
    return _opened(a, c)


def _layer_norm_gru(params: Params, states_tm1: State, us: Array) -> Found:
    h = states_tm1.h
    two = 2 * h.shape[-1]
    v = product(h, params.W_h, h.dtype)
    rz = us[..., :two] + normalise(v[..., :two], params.g_h[:two])
    r, z = split_gates(jax.nn.sigmoid(rz), 2)
    n = jnp.tanh(us[..., two:] + r * normalise(v[..., two:], params.g_h[two:]))
    return {"r": r, "z": z, "n": n}


def layer_norm_lstm_view(advance: Callable[..., State]) -> GateView:
    """Returns the view of the gates of an LSTM with layer normalisation."""
    return view(LSTM, functools.partial(_layer_norm_lstm, advance))


def _layer_norm_lstm(
    advance: Callable[..., State], params: Params, states_tm1: State, us: Array
) -> Found:
    v = product(states_tm1.h, params.W_h, states_tm1.h.dtype)
    a = split_gates(us + normalise(v, params.g_h), 4)
    c = advance(params, states_tm1, us).c
    shown = normalise(c, params.g_c, params.b_c)
    return _opened(dict(zip("ifgo", a, strict=True)), shown)


def _opened(a: Found, shown: Array) -> Found:
    """Returns an LSTM's gates from their arguments, and tanh of what it shows."""
    opened = {
        gate: jnp.tanh(x) if gate == "g" else jax.nn.sigmoid(x) for gate, x in a.items()
    }
    return opened | {"tanh_c": jnp.tanh(shown)}


DIAGONAL_GRU_VIEW = view(GRU, _diagonal_gru)
LAYER_NORM_GRU_VIEW = view(GRU, _layer_norm_gru)
