r"""An LSTM whose units see only themselves, for evaluation in parallel over time.

    i_t = sigmoid(x_t W_xi + w_hi * h_{t-1} + b_i)      what is written
    f_t = sigmoid(x_t W_xf + w_hf * h_{t-1} + b_f)      what is kept
    g_t = tanh   (x_t W_xg + w_hg * h_{t-1} + b_g)      the candidate
    o_t = sigmoid(x_t W_xo + w_ho * h_{t-1} + b_o)      what is shown
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)
    y_t = h_t

`jrnn.lstm` with vectors w_h in the place of the matrices W_h. With peepholes the
arguments of i and f gain p_i * c_{t-1} and p_f * c_{t-1}, that of o gains p_o * c_t.
Coupled gates have i_t = 1 - f_t and no i of their own. ParaLSTM is the cell with both,
`coupled` and `peepholes`; its paper splits the inputs among heads besides, whose W_x is
a block diagonal, where W_x is full here.

The Jacobian of a step is a block of 2 x 2 for each unit. Gate order: i f g o, rows of p
i f o; coupled f g o, rows f o.

Compared with ParaLSTM's code (https://github.com/apple/ml-pararnn), of one head: w_h
and p are drawn as there, normal with variance 4 / 5h, and W_x, uniform with variance
2 / (k + h) for each gate. b_f is 1 here, as that of `jrnn.lstm` and for the same
reason; there b_f goes evenly from 0 to -1 over the units, which
`bias_init=jrnn.initializers.para_lstm` gives.

Source: F. Danieli et al., ParaRNN: unlocking parallel training of nonlinear RNNs for
large language models, https://arxiv.org/abs/2510.21450.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn._base import Cell, Gates, Key, check_size, memoize, spec_of
from jrnn._claims import claim
from jrnn._parts import (
    compose_step,
    expand,
    project_dense,
    show,
    split_gates,
    state_dtype,
)
from jrnn.cells._authors import GLOROT_UNIFORM
from jrnn.cells._init import (
    ZEROS,
    Initializer,
    OfGates,
    draw,
    draw_biases,
    small_normal,
)
from jrnn.cells._views import diagonal_lstm_view


class DiagonalLSTMParams(NamedTuple):
    """Parameters: k inputs, h units, g = 4 gates, 3 if coupled; q = g - 1 peepholes."""

    W_x: Float[Array, "k gh"]
    w_h: Float[Array, " gh"]
    b: Float[Array, " gh"] | None
    p: Float[Array, "q h"] | None = None


class DiagonalLSTMState(NamedTuple):
    """What the cell shows, and what it remembers."""

    h: Float[Array, "*batch h"]
    c: Float[Array, "*batch h"]


@memoize
def diagonal_lstm(
    input_size: int,
    hidden_size: int,
    *,
    coupled: bool = False,
    peepholes: bool = False,
    forget_bias: float | None = None,
    bias: bool = True,
    input_init: Initializer = GLOROT_UNIFORM,
    recurrent_init: Initializer = small_normal,
    bias_init: Initializer | OfGates = ZEROS,
    peephole_init: Initializer = small_normal,
) -> Cell:
    """Makes an LSTM with diagonal recurrence; the equations stand in the module.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      coupled: Whether i_t = 1 - f_t.
      peepholes: Whether the gates see c, by the elementwise weights p.
      forget_bias: Added to the forget gate's share of b when it is drawn; None: 1,
        and nothing beside a `bias_init` that draws this gate's share by itself.
      bias: Whether there is a b; without one, `forget_bias` has no effect.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.one_hot_normal`.
      recurrent_init: Initialiser of w_h, a vector for each gate.
      bias_init: Initialiser of b, for each gate, or `jrnn.initializers.para_lstm` for
        coupled gates.
      peephole_init: Initialiser of p, a row for each gate.

    Returns:
      A cell with parameters `DiagonalLSTMParams` and state `DiagonalLSTMState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.diagonal_lstm(3, 4, coupled=True, peepholes=True)
      >>> params = cell.init(jax.random.key(0))
      >>> params.w_h.shape, params.p.shape
      ((12,), (2, 4))
    """
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    gates = 3 if coupled else 4
    added = forget_bias
    if added is None:
        added = 0.0 if isinstance(bias_init, OfGates) else 1.0

    def init(key: Key, dtype: DTypeLike | None = None) -> DiagonalLSTMParams:
        key_x, key_h, key_b, key_p = jax.random.split(key, 4)
        shape_x, units = (input_size, hidden_size), (hidden_size,)
        order = "f g o" if coupled else "i f g o"
        b = draw_biases(bias_init, key_b, hidden_size, dtype, order)
        first = 0 if coupled else hidden_size
        b = b.at[first : first + hidden_size].add(added)
        shape_p = (gates - 1, hidden_size)
        return DiagonalLSTMParams(
            W_x=draw(input_init, key_x, shape_x, dtype, gates=gates),
            w_h=draw(recurrent_init, key_h, units, dtype, gates=gates),
            b=b if bias else None,
            p=draw(peephole_init, key_p, shape_p, dtype) if peepholes else None,
        )

    def init_state(
        params: DiagonalLSTMParams, batch_shape: tuple[int, ...] = ()
    ) -> DiagonalLSTMState:
        zeros = jnp.zeros((*batch_shape, hidden_size), state_dtype(params))
        return DiagonalLSTMState(zeros, zeros)

    def project(params: DiagonalLSTMParams, x: Array) -> Array:
        return project_dense(params.W_x, params.b, x)

    def advance(
        params: DiagonalLSTMParams, state: DiagonalLSTMState, u: Array
    ) -> DiagonalLSTMState:
        h_tm1, c_tm1 = state
        *before, a_g, a_o = _arguments(params, u, h_tm1, gates)
        p = None if params.p is None else _rows(params.p, h_tm1)
        if p is not None:
            # The last row, that of o, sees c_t instead.
            before = [a + row * c_tm1 for a, row in zip(before, p[:-1], strict=True)]
        f, g = jax.nn.sigmoid(before[-1]), jnp.tanh(a_g)
        # 1 - f as sigmoid(-a_f): it keeps its digits where f is close to 1.
        i = jax.nn.sigmoid(-before[-1] if coupled else before[0])
        c = f * c_tm1 + i * g
        o = jax.nn.sigmoid(a_o if p is None else a_o + p[-1] * c)
        return DiagonalLSTMState(o * jnp.tanh(c), c)

    def output(params: DiagonalLSTMParams, state: DiagonalLSTMState, x: Array) -> Array:
        return show(state.h, x, params.W_x)

    cell = Cell(
        init=init,
        init_state=init_state,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        shows_state=True,
        spec=spec_of(
            "diagonal_lstm",
            hidden_size,
            input_size=input_size,
            hidden_size=hidden_size,
            coupled=coupled,
            peepholes=peepholes,
            forget_bias=forget_bias,
            bias=bias,
        ),
        diagonal=True,
    )
    return claim(cell, gates=diagonal_lstm_view(coupled, advance))


def _arguments(
    params: DiagonalLSTMParams, u: Array, h_tm1: Array, gates: int
) -> list[Array]:
    """u_t + w_h * h_{t-1}, gate by gate."""
    w_h = split_gates(params.w_h.astype(h_tm1.dtype), gates)
    pairs = zip(split_gates(u, gates), w_h, strict=True)
    return [u_g + expand(w_g, h_tm1.ndim) * h_tm1 for u_g, w_g in pairs]


def _rows(p: Array, h_tm1: Array) -> Gates:
    return tuple(expand(row, h_tm1.ndim) for row in p.astype(h_tm1.dtype))
