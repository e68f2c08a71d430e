r"""minGRU (Feng et al. 2024): a gated unit whose gates do not see the state.

    z_t = sigmoid(x_t W_xz + b_z)      what is overwritten
    n_t = g(x_t W_xn + b_n)            the candidate
    h_t = (1 - z_t) * h_{t-1} + z_t * n_t
    y_t = h_t

Linear in the state: a_t = 1 - z_t, b_t = z_t * n_t. Without an activation g(x) = x, the
paper's plain version. Its version in log space, which is another model and not another
way to compute this one, needs candidates above 0 and takes `jrnn.positive` for g:

    g(x) = x + 1/2 where x >= 0,  sigmoid(x) elsewhere

Gate order: z n. One bias b. As in the paper z multiplies the candidate; in `jrnn.gru`
it multiplies the past.

All parameters are drawn as in the authors' PyTorch code
(https://github.com/BorealisAI/minRNNs): uniform within +-1/sqrt(k), as nn.Linear's.

Source: L. Feng et al., Were RNNs all we needed?, https://arxiv.org/abs/2410.01201.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn._base import Cell, Key, Linear, check_function, check_size, memoize, spec_of
from jrnn._claims import LINEAR_BOUND, claim
from jrnn._parts import (
    compose_step,
    linear_advance,
    project_dense,
    projected_coefficients,
    show,
    split_gates,
    state_dtype,
)
from jrnn.cells._authors import LINEAR_UNIFORM, uniform
from jrnn.cells._init import Initializer, draw
from jrnn.cells._views import factor_view


class MinGRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k 2h"]
    b: Float[Array, " 2h"] | None


class MinGRUState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


def positive(a: Array) -> Array:
    """Returns a + 1/2 where a >= 0, and sigmoid(a) elsewhere: smooth and above 0.

    The candidate's activation in the version of minGRU and minLSTM in log space
    (Feng et al. 2024, appendix B, https://arxiv.org/abs/2410.01201).

    Args:
      a: Any array.

    Returns:
      An array of that shape and type.

    Example:
      >>> import jax, jrnn
      >>> jrnn.positive(jax.numpy.array([0.0, 2.0])).tolist()
      [0.5, 2.5]
    """
    return jnp.where(a >= 0, a + 0.5, jax.nn.sigmoid(a))


@memoize
def min_gru(
    input_size: int,
    hidden_size: int,
    *,
    activation: Callable[[Array], Array] | None = None,
    bias: bool = True,
    input_init: Initializer = LINEAR_UNIFORM,
    bias_init: Initializer | None = None,
) -> Cell:
    """Makes a minGRU; the equations stand in the module.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      activation: g, any differentiable elementwise function, such as `jrnn.positive` or
        `jnp.tanh`; None: the candidate as it is.
      bias: Whether there is a b.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.one_hot_normal`.
      bias_init: Initialiser of b, for each gate; None: uniform within +-1/sqrt(k).

    Returns:
      A cell with parameters `MinGRUParams` and state `MinGRUState`.

    Raises:
      TypeError: A size is not an integer, an argument is not hashable, or the
        activation is no function.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.min_gru(3, 4).init(jax.random.key(0)).W_x.shape
      (3, 8)
    """
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    if activation is not None:
        check_function("activation", activation)
    bias_init = bias_init or uniform(input_size**-0.5)

    def init(key: Key, dtype: DTypeLike | None = None) -> MinGRUParams:
        key_x, key_b = jax.random.split(key)
        return MinGRUParams(
            W_x=draw(input_init, key_x, (input_size, hidden_size), dtype, gates=2),
            b=draw(bias_init, key_b, (hidden_size,), dtype, gates=2) if bias else None,
        )

    def init_state(
        params: MinGRUParams, batch_shape: tuple[int, ...] = ()
    ) -> MinGRUState:
        shape = (*batch_shape, hidden_size)
        return MinGRUState(jnp.zeros(shape, state_dtype(params)))

    def project(params: MinGRUParams, x: Array) -> tuple[MinGRUState, MinGRUState]:
        u_z, u_n = split_gates(project_dense(params.W_x, params.b, x), 2)
        n = u_n if activation is None else activation(u_n)
        # 1 - z as sigmoid(-u_z): it keeps its digits where z is close to 1.
        return MinGRUState(jax.nn.sigmoid(-u_z)), MinGRUState(jax.nn.sigmoid(u_z) * n)

    def output(params: MinGRUParams, state: MinGRUState, x: Array) -> Array:
        return show(state.h, x, params.W_x)

    advance = linear_advance(_LINEAR)
    cell = Cell(
        init=init,
        init_state=init_state,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        shows_state=True,
        spec=spec_of(
            "min_gru",
            hidden_size,
            input_size=input_size,
            hidden_size=hidden_size,
            activation=activation,
            bias=bias,
        ),
        linear=_LINEAR,
        diagonal=True,
    )
    return claim(cell, gates=factor_view(_LINEAR), bound=LINEAR_BOUND)


_LINEAR = Linear(projected_coefficients)
