r"""The independently recurrent network (Li et al. 2018), with diagonal recurrence.

    u_t = x_t W_x + b
    h_t = phi(u_t + w_h * h_{t-1})
    y_t = h_t

The paper calls the recurrent weight u; here it is w_h, the vector that replaces W_h.
The Jacobian of a step is diagonal, so that the gradient of unit i over n steps scales
as w_hi^n times the slopes of those steps.

The local derivative, with a_t the argument of phi and lambda_t the total dL/dh_t:

    delta_t = lambda_t * phi'(a_t)
    dL/dh_{t-1} gains w_h * delta_t
    dL/dw_h = sum_t h_{t-1} * delta_t,        dL/du_t = delta_t

Initially w_h is uniform in [0, 1), which gives relu units of every memory length. In
training the paper requires |w_h| <= gamma^(1/T), where gamma is the largest growth
allowed over T steps, and clips w_h after each optimiser step; jrnn does not.

Compared with the authors' PyTorch code
(https://github.com/Sunnydreamrain/IndRNN_pytorch): w_h and b = 0 are drawn as there.
W_x is drawn with variance 1 / k; there it is uniform with variance 2 / (65 k), a scale
that the batch normalisation after it removes, and that
`input_init=jax.nn.initializers.variance_scaling(2 / 65, "fan_in", "uniform")` gives.
Its scripts for long sequences also bound w_h of the last layer from below.

Source: S. Li et al., Independently recurrent neural network (IndRNN), CVPR 2018,
https://arxiv.org/abs/1803.04831.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import Activation, bounded_state, steep_bound
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Gated, Gates, Saved
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.initializers.defaults import LECUN_NORMAL, ZEROS

# Between 0 and 1 (Li et al. 2018, section 5).
UNIFORM: Initializer = jax.nn.initializers.uniform(1.0)


class IndRNNParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k h"]
    w_h: Float[Array, " h"]
    b: Float[Array, " h"] | None


class IndRNNState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@factory
def ind_rnn(
    input_size: int,
    hidden_size: int,
    *,
    activation: Activation = jax.nn.relu,
    bias: bool = True,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = UNIFORM,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes the recurrent cell h_t = phi(x_t W_x + w_h * h_{t-1} + b).

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      activation: phi, any differentiable elementwise function.
      bias: Whether there is a b.
      input_init: Initialiser of W_x; for token ids take `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of w_h, a vector.
      bias_init: Initialiser of b.

    Returns:
      A cell with parameters `IndRNNParams` and state `IndRNNState`.

    Raises:
      TypeError: A size is not an integer, an argument is not hashable, or the
        activation is no function.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> params = jrnn.cells.ind_rnn(3, 4).init(jax.random.key(0))
      >>> params.w_h.shape, bool((0 <= params.w_h).all())
      ((4,), True)
    """
    return build(
        drawn(
            IndRNNParams,
            W_x=Weight(input_init, (input_size, hidden_size)),
            w_h=Weight(recurrent_init, (hidden_size,)),
            b=Weight(bias_init, (hidden_size,)) if bias else None,
        ),
        initial(IndRNNState, h=hidden_size),
        hidden_size,
        gated=Gated(1, _product, *_pointwise(activation)),
        gates=bounded_state(activation),
        bound=steep_bound(activation, lambda params: jnp.abs(params.w_h).max()),
        diagonal=True,
    )


def _product(params: IndRNNParams) -> tuple[Array, None]:
    return params.w_h, None


def _pointwise(activation: Activation) -> tuple[Callable, Callable]:
    def pointwise(
        state_tm1: IndRNNState, u: Gates, v: Gates
    ) -> tuple[IndRNNState, Saved]:
        del state_tm1
        a = u[0] + v[0]
        return IndRNNState(activation(a)), a

    def pullback(
        state_tm1: IndRNNState, state: IndRNNState, saved: Saved, dstate: IndRNNState
    ) -> tuple[IndRNNState, Gates, Gates]:
        del state
        delta = jax.vjp(activation, saved)[1](dstate.h)[0]
        return IndRNNState(jnp.zeros_like(state_tm1.h)), (delta,), (delta,)

    return pointwise, pullback
