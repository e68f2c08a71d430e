r"""The simple recurrent network of Elman (1990), the cell of the lecture notes.

    u_t = x_t W_x + b
    h_t = phi(u_t + h_{t-1} W_h)
    y_t = h_t

Row vectors: x_t is 1 x k, W_x is k x h, W_h is h x h, b is 1 x h.

The local derivative, with a_t the argument of phi and lambda_t the total dL/dh_t:

    delta_t = lambda_t * phi'(a_t)          elementwise
    dL/dh_{t-1} gains delta_t W_h^T
    dL/dW_h = sum_t h_{t-1}^T delta_t
    dL/dW_x = sum_t x_t^T delta_t,          dL/db = sum_t delta_t

Compared with others: PyTorch's `nn.RNN` keeps the transposes of W_x and W_h, and two
biases that are only ever added, b = b_ih + b_hh; Keras' `SimpleRNN` and Flax's
`SimpleCell` have one bias and the same layout as here. Initial distributions: W_x is
normal with variance 1 / k, truncated at two standard deviations, W_h orthogonal and b
zero, as in Flax. Keras draws W_x uniform with variance 2 / (k + h); PyTorch draws all
parameters uniform within +-1/sqrt(h), `jrnn.initializers.uniform(h**-0.5)`. Elman
published no code.

Source: J. L. Elman, Finding structure in time, Cognitive Science 14 (1990),
https://doi.org/10.1207/s15516709cog1402_1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SLOPE, Activation, bounded_state, linear, steep_bound
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Gated, Gates, Linear, Saved
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.products import spectral_norm
from jrnn.initializers.defaults import LECUN_NORMAL, ORTHOGONAL, ZEROS


class ElmanParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k h"]
    W_h: Float[Array, "h h"]
    b: Float[Array, " h"] | None


class ElmanState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@factory
def elman(
    input_size: int,
    hidden_size: int,
    *,
    activation: Activation = jnp.tanh,
    bias: bool = True,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes the simple recurrent cell h_t = phi(x_t W_x + h_{t-1} W_h + b).

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      activation: phi, any differentiable elementwise function. The derivatives of
        `jnp.tanh`, `jax.nn.sigmoid`, `jax.nn.relu` and `jrnn.activations.linear` are
        written by hand; for any other, a_t is saved and differentiated by `jax.vjp`.
      bias: Whether there is a b.
      input_init: Initialiser of W_x; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h.
      bias_init: Initialiser of b.

    Returns:
      A cell with parameters `ElmanParams` and state `ElmanState`.

    Raises:
      TypeError: A size is not an integer, an argument is not hashable, or the
        activation is no function.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.elman(3, 4)
      >>> params = cell.init(jax.random.key(0))
      >>> state, y = cell.step(params, cell.init_state(params), jax.numpy.ones(3))
      >>> y.shape
      (4,)
    """
    return build(
        drawn(
            ElmanParams,
            W_x=Weight(input_init, (input_size, hidden_size)),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size)),
            b=Weight(bias_init, (hidden_size,)) if bias else None,
        ),
        initial(ElmanState, h=hidden_size),
        hidden_size,
        gated=Gated(1, _product, *_pointwise(activation)),
        linear=Linear(_coefficients, full=True) if activation is linear else None,
        gates=bounded_state(activation),
        bound=steep_bound(activation, lambda params: spectral_norm(params.W_h)),
    )


def _product(params: ElmanParams) -> tuple[Array, None]:
    return params.W_h, None


def _pointwise(activation: Activation) -> tuple[Callable, Callable]:
    slope = SLOPE.get(activation)

    def pointwise(
        state_tm1: ElmanState, u: Gates, v: Gates
    ) -> tuple[ElmanState, Saved]:
        del state_tm1
        a = u[0] + v[0]
        return ElmanState(activation(a)), a if slope is None else ()

    def pullback(
        state_tm1: ElmanState, state: ElmanState, saved: Saved, dstate: ElmanState
    ) -> tuple[ElmanState, Gates, Gates]:
        if slope is None:
            delta = jax.vjp(activation, saved)[1](dstate.h)[0]
        else:
            delta = dstate.h * slope(state.h)
        return ElmanState(jnp.zeros_like(state_tm1.h)), (delta,), (delta,)

    return pointwise, pullback


# Without an activation the cell is linear in its state, by the matrix W_h.


def _coefficients(params: ElmanParams, u: Array) -> tuple[ElmanState, ElmanState]:
    return ElmanState(params.W_h.astype(u.dtype)), ElmanState(u)
