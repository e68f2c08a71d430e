r"""minLSTM (Feng et al. 2024): gates that do not see the state, and no output gate.

    f_t = sigmoid(x_t W_xf + b_f)      the forget gate
    i_t = sigmoid(x_t W_xi + b_i)      the input gate
    n_t = g(x_t W_xn + b_n)            the candidate
    f'_t = f_t / (f_t + i_t)           normalised: f'_t + i'_t = 1
    i'_t = i_t / (f_t + i_t)
    h_t = f'_t * h_{t-1} + i'_t * n_t
    y_t = h_t

Linear in the state: a_t = f'_t, b_t = i'_t * n_t. With k the arguments of the gates,
f_t / i_t = exp(softplus(-k_i) - softplus(-k_f)), so that

    f'_t = sigmoid(softplus(-k_i) - softplus(-k_f)),  i'_t = sigmoid of its negative,

which needs no division and stays finite where both gates are closed. Without an
activation g(x) = x, the paper's plain version; its version in log space uses
`jrnn.activations.positive`.

Gate order: f i n. There is one bias b. The state is h alone, as in the paper, without
an LSTM's c.

All parameters are drawn as in the authors' PyTorch code
(https://github.com/BorealisAI/minRNNs): uniform within +-1/sqrt(k), like nn.Linear's.
`forget_bias` is that code's forget_bias_init_scale.

Source: L. Feng et al., Were RNNs all we needed?, https://arxiv.org/abs/2410.01201.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jrnn.core.build import build, dense, factory
from jrnn.core.cell import Cell, Linear
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.products import split_gates
from jrnn.core.seams import projected_coefficients
from jrnn.initializers.defaults import LINEAR_UNIFORM, uniform


class MinLSTMParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k 3h"]
    b: Float[Array, " 3h"] | None


class MinLSTMState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@factory
def min_lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 0.0,
    activation: Callable[[Array], Array] | None = None,
    bias: bool = True,
    input_init: Initializer = LINEAR_UNIFORM,
    bias_init: Initializer | None = None,
) -> Cell:
    """Makes a minLSTM; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      forget_bias: Added to the forget gate's part of the initial b. The paper starts
        from 0, which keeps half of the state, and trains faster with larger values.
      activation: g, any differentiable elementwise function, such as
        `jrnn.activations.positive` or `jnp.tanh`; None: the identity.
      bias: Whether there is a b; without one, `forget_bias` has no effect.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      bias_init: Initialiser of b, for each gate; None: uniform within +-1/sqrt(k).

    Returns:
      A cell with parameters `MinLSTMParams` and state `MinLSTMState`.

    Raises:
      TypeError: A size is not an integer, an argument is not hashable, or the
        activation is no function.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> zeros = jax.nn.initializers.zeros
      >>> cell = jrnn.cells.min_lstm(3, 2, forget_bias=4.0, bias_init=zeros)
      >>> cell.init(jax.random.key(0)).b.tolist()
      [4.0, 4.0, 0.0, 0.0, 0.0, 0.0]
    """
    bias_init = bias_init or uniform(input_size**-0.5)
    b = Weight(bias_init, (hidden_size,), gates=3, plus=(0, forget_bias))

    def project(params: MinLSTMParams, x: Array) -> tuple[MinLSTMState, MinLSTMState]:
        u_f, u_i, u_n = split_gates(dense(params, x), 3)
        n = u_n if activation is None else activation(u_n)
        log_ratio = jax.nn.softplus(-u_i) - jax.nn.softplus(-u_f)
        f, i = jax.nn.sigmoid(log_ratio), jax.nn.sigmoid(-log_ratio)
        return MinLSTMState(f), MinLSTMState(i * n)

    return build(
        drawn(
            MinLSTMParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=3),
            b=b if bias else None,
        ),
        initial(MinLSTMState, h=hidden_size),
        hidden_size,
        project=project,
        linear=Linear(projected_coefficients),
        diagonal=True,
    )
