r"""Elman, LSTM and GRU with layer normalisation (Ba et al. 2016).

With mean and variance over the units of a, and learned gain g and shift s:

    LN(a; g, s) = g * (a - mean(a)) / sqrt(var(a) + epsilon) + s

    Elman:  h_t = phi(LN(x_t W_x + h_{t-1} W_h; g, b))

    LSTM:   i, f, g, o = split(LN(x_t W_x; g_x, b) + LN(h_{t-1} W_h; g_h, 0))
            c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
            h_t = sigmoid(o) * tanh(LN(c_t; g_c, b_c))

    GRU:    r, z = split(sigmoid(LN(x_t W_x,rz; g_x, b) + LN(h_{t-1} W_h,rz; g_h, 0)))
            n = tanh(LN(x_t W_x,n; g_x, b) + r * LN(h_{t-1} W_h,n; g_h, 0))
            h_t = (1 - z) * n + z * h_{t-1}

The paper's second shift beside each first is left out, for the two are only added (in
the GRU's candidate they are not, and the one outside of r is kept). Of the LSTM all
four gates are normalised together, of the GRU r and z together and n alone, as in the
paper's supplement. Gate orders as in `jrnn.lstm` (i f g o) and `jrnn.gru` (r z n).
These cells have no hand-derived derivative: `jrnn.bptt` takes JAX's of one `advance`.

Compared with the authors' code (https://github.com/ryankiros/layer-norm, an LSTM and a
GRU): W_h orthogonal for each gate, gains 1 and shifts 0 are drawn as there, but for the
LSTM's forget gate, whose shift is 1 here, as that of `jrnn.lstm`, and 0 there:
`forget_bias=0.0`. W_x is drawn with variance 1 / k; there it is normal with deviation
0.01, whose scale the normalisation takes out again, but for its epsilon, and which
`input_init=jrnn.initializers.normal(0.01)` gives.

Source: J. L. Ba, J. R. Kiros and G. E. Hinton, https://arxiv.org/abs/1607.06450,
section 3.1 and supplement.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn._base import (
    Cell,
    GateView,
    Key,
    Params,
    State,
    check_function,
    check_size,
    memoize,
    spec_of,
)
from jrnn._claims import claim
from jrnn._parts import (
    compose_step,
    normalise,
    product,
    project_dense,
    show,
    split_gates,
    state_dtype,
)
from jrnn.cells._init import LECUN_NORMAL, ORTHOGONAL, Initializer, draw
from jrnn.cells._views import LAYER_NORM_GRU_VIEW, layer_norm_lstm_view, state_view


class LayerNormElmanParams(NamedTuple):
    """Parameters: k inputs, h hidden units; g and b are gain and shift."""

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
    """The context vector, of the Elman cell and the GRU."""

    h: Float[Array, "*batch h"]


class LayerNormLSTMState(NamedTuple):
    """What the LSTM shows, and what it remembers."""

    h: Float[Array, "*batch h"]
    c: Float[Array, "*batch h"]


@memoize
def layer_norm_elman(
    input_size: int,
    hidden_size: int,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Cell:
    """Makes an Elman cell with layer normalisation; the equations stand in the module.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      activation: phi, any differentiable elementwise function.
      input_init: Initialiser of W_x; for token ids take `jrnn.one_hot_normal`.
      recurrent_init: Initialiser of W_h.

    Returns:
      A cell with parameters `LayerNormElmanParams`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.layer_norm_elman(3, 4).init(jax.random.key(0)).g.tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    shape_x, shape_h = _shapes(input_size, hidden_size)
    check_function("activation", activation)

    def init(key: Key, dtype: DTypeLike | None = None) -> LayerNormElmanParams:
        key_x, key_h = jax.random.split(key)
        W_x = draw(input_init, key_x, shape_x, dtype)
        return LayerNormElmanParams(
            W_x=W_x,
            W_h=draw(recurrent_init, key_h, shape_h, dtype),
            g=jnp.ones(hidden_size, W_x.dtype),
            b=jnp.zeros(hidden_size, W_x.dtype),
        )

    def advance(
        params: LayerNormElmanParams, state: LayerNormState, u: Array
    ) -> LayerNormState:
        a = u + product(state.h, params.W_h, state.h.dtype)
        return LayerNormState(activation(normalise(a, params.g, params.b)))

    arguments = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "activation": activation,
    }
    gates = state_view(activation, advance)
    return _cell("layer_norm_elman", init, _project, advance, arguments, gates)


@memoize
def layer_norm_lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Cell:
    """Makes an LSTM with layer normalisation; the equations stand in the module.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state's arrays and of the output.
      forget_bias: What the forget gate's share of b starts at.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.one_hot_normal`.
      recurrent_init: Initialiser of W_h, for each gate.

    Returns:
      A cell with parameters `LayerNormLSTMParams` and state `LayerNormLSTMState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.layer_norm_lstm(3, 2).init(jax.random.key(0)).b.tolist()
      [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    shape_x, shape_h = _shapes(input_size, hidden_size)

    def init(key: Key, dtype: DTypeLike | None = None) -> LayerNormLSTMParams:
        key_x, key_h = jax.random.split(key)
        W_x = draw(input_init, key_x, shape_x, dtype, gates=4)
        b = jnp.zeros(4 * hidden_size, W_x.dtype)
        return LayerNormLSTMParams(
            W_x=W_x,
            W_h=draw(recurrent_init, key_h, shape_h, dtype, gates=4),
            g_x=jnp.ones_like(b),
            g_h=jnp.ones_like(b),
            b=b.at[hidden_size : 2 * hidden_size].set(forget_bias),
            g_c=jnp.ones(hidden_size, W_x.dtype),
            b_c=jnp.zeros(hidden_size, W_x.dtype),
        )

    def project(params: LayerNormLSTMParams, x: Array) -> Array:
        return normalise(_project(params, x), params.g_x, params.b)

    def advance(
        params: LayerNormLSTMParams, state: LayerNormLSTMState, u: Array
    ) -> LayerNormLSTMState:
        v = product(state.h, params.W_h, state.h.dtype)
        i, f, g, o = split_gates(u + normalise(v, params.g_h), 4)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        shown = jnp.tanh(normalise(c, params.g_c, params.b_c))
        return LayerNormLSTMState(jax.nn.sigmoid(o) * shown, c)

    arguments = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "forget_bias": forget_bias,
    }
    gates, state = layer_norm_lstm_view(advance), LayerNormLSTMState
    return _cell("layer_norm_lstm", init, project, advance, arguments, gates, state)


@memoize
def layer_norm_gru(
    input_size: int,
    hidden_size: int,
    *,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
) -> Cell:
    """Makes a GRU with layer normalisation; the equations stand in the module.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.one_hot_normal`.
      recurrent_init: Initialiser of W_h, for each gate.

    Returns:
      A cell with parameters `LayerNormGRUParams`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.layer_norm_gru(3, 4).init(jax.random.key(0)).W_h.shape
      (4, 12)
    """
    shape_x, shape_h = _shapes(input_size, hidden_size)

    def init(key: Key, dtype: DTypeLike | None = None) -> LayerNormGRUParams:
        key_x, key_h = jax.random.split(key)
        W_x = draw(input_init, key_x, shape_x, dtype, gates=3)
        shift = jnp.zeros(3 * hidden_size, W_x.dtype)
        return LayerNormGRUParams(
            W_x=W_x,
            W_h=draw(recurrent_init, key_h, shape_h, dtype, gates=3),
            g_x=jnp.ones_like(shift),
            g_h=jnp.ones_like(shift),
            b=shift,
        )

    def apart(a: Array, g: Array, b: Array | None = None) -> tuple[Array, Array]:
        """Normalises r and z together, and n alone."""
        two = 2 * hidden_size
        b_rz, b_n = (None, None) if b is None else (b[:two], b[two:])
        rz = normalise(a[..., :two], g[:two], b_rz)
        return rz, normalise(a[..., two:], g[two:], b_n)

    def project(params: LayerNormGRUParams, x: Array) -> Array:
        u = apart(_project(params, x), params.g_x, params.b)
        return jnp.concatenate(u, axis=-1)

    def advance(
        params: LayerNormGRUParams, state: LayerNormState, u: Array
    ) -> LayerNormState:
        v_rz, v_n = apart(product(state.h, params.W_h, state.h.dtype), params.g_h)
        u_rz, u_n = jnp.split(u, [2 * hidden_size], axis=-1)
        r, z = split_gates(jax.nn.sigmoid(u_rz + v_rz), 2)
        n = jnp.tanh(u_n + r * v_n)
        return LayerNormState((1 - z) * n + z * state.h)

    arguments = {"input_size": input_size, "hidden_size": hidden_size}
    gates = LAYER_NORM_GRU_VIEW
    return _cell("layer_norm_gru", init, project, advance, arguments, gates)


def _shapes(
    input_size: int, hidden_size: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    return (input_size, hidden_size), (hidden_size, hidden_size)


def _project(params: Any, x: Array) -> Array:
    return project_dense(params.W_x, None, x)


def _output(params: Any, state: Any, x: Array) -> Array:
    return show(state.h, x, params.W_x)


def _cell(
    name: str,
    init: Callable[..., Params],
    project: Callable[..., Array],
    advance: Callable[..., State],
    arguments: dict[str, Any],
    gates: GateView,
    state: type[LayerNormState] | type[LayerNormLSTMState] = LayerNormState,
) -> Cell:
    hidden_size = arguments["hidden_size"]

    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        shape, dtype = (*batch_shape, hidden_size), state_dtype(params)
        return state(*(jnp.zeros(shape, dtype) for _ in state._fields))

    cell = Cell(
        init=init,
        init_state=init_state,
        project=project,
        advance=advance,
        output=_output,
        step=compose_step(project, advance, _output),
        shows_state=True,
        spec=spec_of(name, hidden_size, **arguments),
    )
    return claim(cell, gates=gates)
