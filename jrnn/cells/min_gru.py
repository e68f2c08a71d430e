r"""minGRU (Feng et al. 2024): a gated unit whose gates do not see the state.

    z_t = sigmoid(x_t W_xz + b_z)      the update gate
    n_t = g(x_t W_xn + b_n)            the candidate
    h_t = (1 - z_t) * h_{t-1} + z_t * n_t
    y_t = h_t

Linear in the state: a_t = 1 - z_t, b_t = z_t * n_t. Without an activation g(x) = x, the
paper's plain version. Its version in log space is a different model, not another way to
compute this one; it needs candidates above 0 and uses `jrnn.activations.positive` as g:

    g(x) = x + 1/2 where x >= 0,  sigmoid(x) elsewhere

Gate order: z n. There is one bias b. As in the paper z multiplies the candidate; in
`jrnn.gru` it multiplies the past.

All parameters are drawn as in the authors' PyTorch code
(https://github.com/BorealisAI/minRNNs): uniform within +-1/sqrt(k), like nn.Linear's.

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


class MinGRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k 2h"]
    b: Float[Array, " 2h"] | None


class MinGRUState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@factory
def min_gru(
    input_size: int,
    hidden_size: int,
    *,
    activation: Callable[[Array], Array] | None = None,
    bias: bool = True,
    input_init: Initializer = LINEAR_UNIFORM,
    bias_init: Initializer | None = None,
) -> Cell:
    """Makes a minGRU; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      activation: g, any differentiable elementwise function, such as
        `jrnn.activations.positive` or `jnp.tanh`; None: the identity.
      bias: Whether there is a b.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      bias_init: Initialiser of b, for each gate; None: uniform within +-1/sqrt(k).

    Returns:
      A cell with parameters `MinGRUParams` and state `MinGRUState`.

    Raises:
      TypeError: A size is not an integer, an argument is not hashable, or the
        activation is no function.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.cells.min_gru(3, 4).init(jax.random.key(0)).W_x.shape
      (3, 8)
    """
    bias_init = bias_init or uniform(input_size**-0.5)

    def project(params: MinGRUParams, x: Array) -> tuple[MinGRUState, MinGRUState]:
        u_z, u_n = split_gates(dense(params, x), 2)
        n = u_n if activation is None else activation(u_n)
        # 1 - z as sigmoid(-u_z), which avoids cancellation where z is close to 1.
        return MinGRUState(jax.nn.sigmoid(-u_z)), MinGRUState(jax.nn.sigmoid(u_z) * n)

    return build(
        drawn(
            MinGRUParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=2),
            b=Weight(bias_init, (hidden_size,), gates=2) if bias else None,
        ),
        initial(MinGRUState, h=hidden_size),
        hidden_size,
        project=project,
        linear=Linear(projected_coefficients),
        diagonal=True,
    )
