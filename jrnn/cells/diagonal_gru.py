r"""A GRU with diagonal recurrence, for evaluation in parallel over time.

    r_t = sigmoid(x_t W_xr + w_hr * h_{t-1} + b_r)      the reset gate
    z_t = sigmoid(x_t W_xz + w_hz * h_{t-1} + b_z)      the update gate
    n_t = tanh   (x_t W_xn + r_t * (w_hn * h_{t-1}) + b_n)
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}
    y_t = h_t

`jrnn.gru` with vectors w_h in place of the matrices W_h. Without a b_h, the reset
before the product and the reset after it are then the same. Gate order: r z n.

ParaGRU is this cell with the gates ordered z r n, and with z multiplying the candidate;
here z multiplies the past, so that z and 1 - z are exchanged. Its paper also splits the
inputs among heads, so that its W_x is block-diagonal, while W_x is full here. All
parameters are drawn as in its code (https://github.com/apple/ml-pararnn), with one
head: w_h normal with variance 4 / 5h, W_x uniform with variance 2 / (k + h) for each
gate, b_z evenly from 0 to 1 over the units, b_r and b_n 0.

The Jacobian of a step is one number for each unit.

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
from jrnn.initializers.defaults import GLOROT_UNIFORM, PARA_GRU, small_normal


class DiagonalGRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k 3h"]
    w_h: Float[Array, " 3h"]
    b: Float[Array, " 3h"] | None


class DiagonalGRUState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@factory
def diagonal_gru(
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    input_init: Initializer = GLOROT_UNIFORM,
    recurrent_init: Initializer = small_normal,
    bias_init: Initializer | OfGates = PARA_GRU,
) -> Cell:
    """Makes a GRU with diagonal recurrence; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      bias: Whether there is a b.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of w_h, a vector for each gate.
      bias_init: Initialiser of b, for each gate; by default
        `jrnn.initializers.para_gru`.

    Returns:
      A cell with parameters `DiagonalGRUParams` and state `DiagonalGRUState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.cells.diagonal_gru(3, 4).init(jax.random.key(0)).w_h.shape
      (12,)
    """
    return build(
        drawn(
            DiagonalGRUParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=3),
            w_h=Weight(recurrent_init, (hidden_size,), gates=3),
            b=Weight(bias_init, (hidden_size,), "r z n") if bias else None,
        ),
        initial(DiagonalGRUState, h=hidden_size),
        hidden_size,
        forward=_forward,
        gates={"r": UNIT, "z": UNIT, "n": SIGNED},
        diagonal=True,
    )


def _forward(
    params: DiagonalGRUParams, state: DiagonalGRUState, u: Array
) -> tuple[DiagonalGRUState, dict[str, Array]]:
    h_tm1 = state.h
    w_h = split_gates(params.w_h.astype(h_tm1.dtype), 3)
    v_r, v_z, v_n = (expand(w_g, h_tm1.ndim) * h_tm1 for w_g in w_h)
    u_r, u_z, u_n = split_gates(u, 3)
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    n = jnp.tanh(u_n + r * v_n)
    return DiagonalGRUState((1 - z) * n + z * h_tm1), {"r": r, "z": z, "n": n}
