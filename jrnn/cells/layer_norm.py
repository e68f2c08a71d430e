r"""Elman, LSTM and GRU with layer normalisation (Ba et al. 2016).

With mean and variance over the units of a, and learned gain g and shift s,

    LN(a; g, s) = g * (a - mean(a)) / sqrt(var(a) + epsilon) + s

    Elman:  h_t = phi(LN(x_t W_x + h_{t-1} W_h; g, b))

    LSTM:   i, f, g, o = split(LN(x_t W_x; g_x, b) + LN(h_{t-1} W_h; g_h, 0))
            c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
            h_t = sigmoid(o) * tanh(LN(c_t; g_c, b_c))

    GRU:    r, z = split(sigmoid(LN(x_t W_x,rz; g_x, b) + LN(h_{t-1} W_h,rz; g_h, 0)))
            n = tanh(LN(x_t W_x,n; g_x, b) + r * LN(h_{t-1} W_h,n; g_h, 0))
            h_t = (1 - z) * n + z * h_{t-1}

The paper has a second shift wherever two normalised terms are added; it is left out,
because only the sum of the two matters. (In the GRU's candidate this is not so; the
shift outside of r is kept.) As in the paper's supplement, the LSTM's four gates are
normalised together; in the GRU, r and z together and n alone. Gate orders as in
`jrnn.lstm` (i f g o) and `jrnn.gru` (r z n). These cells have no hand-derived
derivative: `jrnn.bptt` differentiates one `advance` with JAX.

Compared with the authors' code (https://github.com/ryankiros/layer-norm, an LSTM and a
GRU): W_h is orthogonal for each gate, gains are 1 and shifts 0, as there, except that
the shift of the LSTM's forget gate is 1 here, as in `jrnn.lstm`, and 0 there, which
`forget_bias=0.0` gives. W_x is drawn with variance 1 / k; there it is normal with
standard deviation 0.01, a scale that the normalisation removes, up to its epsilon, and
that `input_init=jrnn.initializers.normal(0.01)` gives.

Source: J. L. Ba, J. R. Kiros and G. E. Hinton, https://arxiv.org/abs/1607.06450,
section 3.1 and supplement.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED, Activation, bounded_state
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell
from jrnn.core.claims import UNIT
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.products import (
    expand,
    merge_gates,
    product,
    project_dense,
    split_gates,
)
from jrnn.initializers.defaults import LECUN_NORMAL, ORTHOGONAL

# Keeps the division defined where all units are equal; the default of most libraries
# (torch.nn.LayerNorm, 1e-5).
EPSILON = 1e-5


class LayerNormElmanParams(NamedTuple):
    """Parameters: k inputs, h hidden units; gain g, shift b."""

    W_x: Float[Array, "k h"]
    W_h: Float[Array, "h h"]
    g: Float[Array, " h"]
    b: Float[Array, " h"]


class LayerNormLSTMParams(NamedTuple):
    """Parameters: k inputs, h hidden units; gains g, shifts b."""

    W_x: Float[Array, "k 4h"]
    W_h: Float[Array, "h 4h"]
    g_x: Float[Array, " 4h"]
    g_h: Float[Array, " 4h"]
    b: Float[Array, " 4h"]
    g_c: Float[Array, " h"]
    b_c: Float[Array, " h"]


class LayerNormGRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units; gains g, shift b."""

    W_x: Float[Array, "k 3h"]
    W_h: Float[Array, "h 3h"]
    g_x: Float[Array, " 3h"]
    g_h: Float[Array, " 3h"]
    b: Float[Array, " 3h"]


class LayerNormState(NamedTuple):
    """The context vector of the Elman cell and the GRU."""

    h: Float[Array, "*batch h"]


class LayerNormLSTMState(NamedTuple):
    """The LSTM's output h and its memory c."""

    h: Float[Array, "*batch h"]
    c: Float[Array, "*batch h"]


@factory
def layer_norm_elman(
    input_size: int,
    hidden_size: int,
    *,
    activation: Activation = jnp.tanh,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Cell:
    """Makes an Elman cell with layer normalisation; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      activation: phi, any differentiable elementwise function.
      input_init: Initialiser of W_x; for token ids take `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h.

    Returns:
      A cell with parameters `LayerNormElmanParams`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.cells.layer_norm_elman(3, 4).init(jax.random.key(0)).g.tolist()
      [1.0, 1.0, 1.0, 1.0]
    """

    def advance(
        params: LayerNormElmanParams, state: LayerNormState, u: Array
    ) -> LayerNormState:
        a = u + product(state.h, params.W_h, state.h.dtype)
        return LayerNormState(activation(_normalise(a, params.g, params.b)))

    return build(
        drawn(
            LayerNormElmanParams,
            W_x=Weight(input_init, (input_size, hidden_size)),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size)),
            g=Weight(1.0, (hidden_size,)),
            b=Weight(0.0, (hidden_size,)),
        ),
        initial(LayerNormState, h=hidden_size),
        hidden_size,
        project=_project,
        advance=advance,
        gates=bounded_state(activation),
    )


@factory
def layer_norm_lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Cell:
    """Makes an LSTM with layer normalisation; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state's arrays and of the output.
      forget_bias: The initial value of the forget gate's part of b.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, for each gate.

    Returns:
      A cell with parameters `LayerNormLSTMParams` and state `LayerNormLSTMState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.cells.layer_norm_lstm(3, 2).init(jax.random.key(0)).b.tolist()
      [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    units = (hidden_size,)
    return build(
        drawn(
            LayerNormLSTMParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=4),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size), gates=4),
            g_x=Weight(1.0, units, gates=4),
            g_h=Weight(1.0, units, gates=4),
            b=Weight(0.0, units, gates=4, plus=(1, forget_bias)),
            g_c=Weight(1.0, units),
            b_c=Weight(0.0, units),
        ),
        initial(LayerNormLSTMState, h=hidden_size, c=hidden_size),
        hidden_size,
        project=_project_lstm,
        forward=_forward_lstm,
        gates={"i": UNIT, "f": UNIT, "o": UNIT, "g": SIGNED, "tanh_c": SIGNED},
    )


@factory
def layer_norm_gru(
    input_size: int,
    hidden_size: int,
    *,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Cell:
    """Makes a GRU with layer normalisation; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, for each gate.

    Returns:
      A cell with parameters `LayerNormGRUParams`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.cells.layer_norm_gru(3, 4).init(jax.random.key(0)).W_h.shape
      (4, 12)
    """
    return build(
        drawn(
            LayerNormGRUParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=3),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size), gates=3),
            g_x=Weight(1.0, (hidden_size,), gates=3),
            g_h=Weight(1.0, (hidden_size,), gates=3),
            b=Weight(0.0, (hidden_size,), gates=3),
        ),
        initial(LayerNormState, h=hidden_size),
        hidden_size,
        project=_project_gru,
        forward=_forward_gru,
        gates={"r": UNIT, "z": UNIT, "n": SIGNED},
    )


def _project(params: Any, x: Array) -> Array:
    return project_dense(params.W_x, None, x)


def _project_lstm(params: LayerNormLSTMParams, x: Array) -> Array:
    return _normalise(_project(params, x), params.g_x, params.b)


def _forward_lstm(
    params: LayerNormLSTMParams, state: LayerNormLSTMState, u: Array
) -> tuple[LayerNormLSTMState, dict[str, Array]]:
    v = product(state.h, params.W_h, state.h.dtype)
    a_i, a_f, a_g, a_o = split_gates(u + _normalise(v, params.g_h), 4)
    f, i, g = jax.nn.sigmoid(a_f), jax.nn.sigmoid(a_i), jnp.tanh(a_g)
    c = f * state.c + i * g
    tanh_c = jnp.tanh(_normalise(c, params.g_c, params.b_c))
    o = jax.nn.sigmoid(a_o)
    opened = {"i": i, "f": f, "g": g, "o": o, "tanh_c": tanh_c}
    return LayerNormLSTMState(o * tanh_c, c), opened


def _project_gru(params: LayerNormGRUParams, x: Array) -> Array:
    return merge_gates(_apart(_project(params, x), params.g_x, params.b))


def _forward_gru(
    params: LayerNormGRUParams, state: LayerNormState, u: Array
) -> tuple[LayerNormState, dict[str, Array]]:
    v_rz, v_n = _apart(product(state.h, params.W_h, state.h.dtype), params.g_h)
    u_rz, u_n = jnp.split(u, [2 * state.h.shape[-1]], axis=-1)
    r, z = split_gates(jax.nn.sigmoid(u_rz + v_rz), 2)
    n = jnp.tanh(u_n + r * v_n)
    return LayerNormState((1 - z) * n + z * state.h), {"r": r, "z": z, "n": n}


def _apart(a: Array, g: Array, b: Array | None = None) -> tuple[Array, Array]:
    """Normalises r and z together, and n alone."""
    two = 2 * a.shape[-1] // 3
    b_rz, b_n = (None, None) if b is None else (b[:two], b[two:])
    rz = _normalise(a[..., :two], g[:two], b_rz)
    return rz, _normalise(a[..., two:], g[two:], b_n)


def _normalise(a: Array, gain: Array, shift: Array | None = None) -> Array:
    """Returns LN(a; gain, shift) over the last axis, in the type of a."""
    centred = a - a.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + EPSILON)
    scaled = scaled * expand(gain.astype(a.dtype), a.ndim)
    return scaled if shift is None else scaled + expand(shift.astype(a.dtype), a.ndim)
