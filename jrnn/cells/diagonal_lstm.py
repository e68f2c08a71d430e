r"""An LSTM with diagonal recurrence, for evaluation in parallel over time.

    i_t = sigmoid(x_t W_xi + w_hi * h_{t-1} + b_i)      the input gate
    f_t = sigmoid(x_t W_xf + w_hf * h_{t-1} + b_f)      the forget gate
    g_t = tanh   (x_t W_xg + w_hg * h_{t-1} + b_g)      the candidate
    o_t = sigmoid(x_t W_xo + w_ho * h_{t-1} + b_o)      the output gate
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)
    y_t = h_t

`jrnn.lstm` with vectors w_h in place of the matrices W_h. With peepholes the arguments
of i and f gain p_i * c_{t-1} and p_f * c_{t-1}, that of o gains p_o * c_t. Coupled
gates have i_t = 1 - f_t and no parameters for i. ParaLSTM is this cell with `coupled`
and `peepholes`; its paper also splits the inputs among heads, so that its W_x is
block-diagonal, while W_x is full here.

The Jacobian of a step has a 2 x 2 block for each unit. Gate order: i f g o, rows of p:
i f o; if coupled f g o, rows of p: f o.

Compared with ParaLSTM's code (https://github.com/apple/ml-pararnn), with one head: w_h
and p are drawn as there, normal with variance 4 / 5h, and so is W_x, uniform with
variance 2 / (k + h) for each gate. b_f is 1 here, for the same reason as in
`jrnn.lstm`; there b_f goes evenly from 0 to -1 over the units, which
`bias_init=jrnn.initializers.para_lstm` gives.

Source: F. Danieli et al., ParaRNN: unlocking parallel training of nonlinear RNNs for
large language models, https://arxiv.org/abs/2510.21450.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell
from jrnn.core.claims import UNIT
from jrnn.core.draw import Initializer, OfGates, Weight, drawn, initial
from jrnn.core.products import expand, split_gates
from jrnn.initializers.defaults import GLOROT_UNIFORM, ZEROS, small_normal


class DiagonalLSTMParams(NamedTuple):
    """Parameters: k inputs, h units, g = 4 gates, 3 if coupled; q = g - 1 peepholes."""

    W_x: Float[Array, "k gh"]
    w_h: Float[Array, " gh"]
    b: Float[Array, " gh"] | None
    p: Float[Array, "q h"] | None = None


class DiagonalLSTMState(NamedTuple):
    """The output h and the memory c."""

    h: Float[Array, "*batch h"]
    c: Float[Array, "*batch h"]


@factory
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
    """Makes an LSTM with diagonal recurrence; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      coupled: Whether i_t = 1 - f_t.
      peepholes: Whether the gates see c, by the elementwise weights p.
      forget_bias: Added to the forget gate's part of the initial b; None: 1, or 0 if
        `bias_init` draws the biases of all gates together.
      bias: Whether there is a b; without one, `forget_bias` has no effect.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
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
      >>> cell = jrnn.cells.diagonal_lstm(3, 4, coupled=True, peepholes=True)
      >>> params = cell.init(jax.random.key(0))
      >>> params.w_h.shape, params.p.shape
      ((12,), (2, 4))
    """
    order = "f g o" if coupled else "i f g o"
    gates = len(order.split())
    if forget_bias is None:
        forget_bias = 0.0 if isinstance(bias_init, OfGates) else 1.0
    b = Weight(bias_init, (hidden_size,), order, plus=(gates - 3, forget_bias))
    spans = {"f": UNIT, "o": UNIT, "g": SIGNED, "tanh_c": SIGNED}
    return build(
        drawn(
            DiagonalLSTMParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates),
            w_h=Weight(recurrent_init, (hidden_size,), gates),
            b=b if bias else None,
            p=Weight(peephole_init, (gates - 1, hidden_size)) if peepholes else None,
        ),
        initial(DiagonalLSTMState, h=hidden_size, c=hidden_size),
        hidden_size,
        forward=_forward,
        gates=spans if coupled else {"i": UNIT} | spans,
        diagonal=True,
    )


def _forward(
    params: DiagonalLSTMParams, state: DiagonalLSTMState, u: Array
) -> tuple[DiagonalLSTMState, dict[str, Array]]:
    h_tm1, c_tm1 = state
    gates = u.shape[-1] // h_tm1.shape[-1]
    w_h = split_gates(params.w_h.astype(h_tm1.dtype), gates)
    pairs = zip(split_gates(u, gates), w_h, strict=True)
    *before, a_g, a_o = (u_g + expand(w_g, h_tm1.ndim) * h_tm1 for u_g, w_g in pairs)
    p = None
    if params.p is not None:
        p = [expand(row, h_tm1.ndim) for row in params.p.astype(h_tm1.dtype)]
        before = [a + row * c_tm1 for a, row in zip(before, p[:-1], strict=True)]
    f, g = jax.nn.sigmoid(before[-1]), jnp.tanh(a_g)
    # 1 - f as sigmoid(-a_f), which avoids cancellation where f is close to 1.
    i = jax.nn.sigmoid(-before[-1] if gates == 3 else before[0])
    c = f * c_tm1 + i * g
    o = jax.nn.sigmoid(a_o if p is None else a_o + p[-1] * c)
    tanh_c = jnp.tanh(c)
    opened = {"i": i, "f": f, "g": g, "o": o, "tanh_c": tanh_c}
    return DiagonalLSTMState(o * tanh_c, c), opened
