r"""The coupled oscillatory recurrent network (Rusch and Mishra 2021).

    a_t = x_t W_x + (h_{t-1}, z_{t-1}) W_h + b
    z_t = z_{t-1} + dt (tanh(a_t) - gamma h_{t-1} - epsilon z_{t-1})        explicit
    z_t = (z_{t-1} + dt (tanh(a_t) - gamma h_{t-1})) / (1 + dt epsilon)     implicit
    h_t = h_{t-1} + dt z_t
    y_t = h_t

Driven, damped, coupled oscillators h'' = tanh(a) - gamma h - epsilon h', with position
h (the paper's y) and velocity z. The damping uses the velocity before the step
(explicit), as in the authors' code, or after it (implicit). W_h is 2h x h: its upper
half multiplies positions, its lower half velocities.

The published claims that are tested (proposition 3.1; setting: gamma = epsilon = 1,
implicit damping, states that start at 0, m units, n steps):

    |h_n|^2 + |z_n|^2 <= m n dt            for any weights and inputs, and dt <= 1.

For implicit damping it holds more generally: with E_n = gamma |h_n|^2 + |z_n|^2,
multiplying the third equation by z_n and using h_{n-1} = h_n - dt z_n gives

    E_n - E_{n-1} <= 2 dt (tanh(a_n) . z_n) - dt (2 epsilon - gamma dt) |z_n|^2
                  <= m dt / (2 epsilon - gamma dt),        where gamma dt < 2 epsilon.

The paper also proves that no gradient explodes, for sequences of any length
(proposition 3.2; same setting, n dt <= 1, row sums of both halves of W_h such that
dt (1 + |W_h|) <= sqrt(dt) (1 + dt), inputs within 1, E the mean over the steps of
|h_n - Y_n|^2 / 2):

    |dE / d(any weight)| <= 3/2 (m + sqrt(m) max|Y|).

The local derivative, given the total dh_t and dz_t, with q = 1 (explicit) or
1 / (1 + dt epsilon) (implicit), and p = 1 - dt epsilon (explicit) or 1 (implicit):

    dz = q (dz_t + dt dh_t)                  da_t = dt dz (1 - tanh(a_t)^2)
    dz_{t-1} = p dz                          dh_{t-1} = dh_t - dt gamma dz

and through the product with W_h, (dh_{t-1}, dz_{t-1}) gains da_t W_h^T.

All parameters are drawn as in the authors' PyTorch code
(https://github.com/tk-rusch/coRNN): uniform within +-1/sqrt(k + 2h), like those of one
nn.Linear that reads x_t and both states.

Source: T. K. Rusch and S. Mishra, Coupled oscillatory recurrent neural network (coRNN),
ICLR 2021, https://arxiv.org/abs/2010.00951.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Gated, Gates
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.initializers.defaults import uniform


class CoRNNParams(NamedTuple):
    """Parameters: k inputs, h oscillators."""

    W_x: Float[Array, "k h"]
    W_h: Float[Array, "2h h"]
    b: Float[Array, " h"] | None


class CoRNNState(NamedTuple):
    """Positions h, the output, and velocities z."""

    h: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]


class CoRNNSaved(NamedTuple):
    """The driving force of one step."""

    tanh_a: Array


@factory
def co_rnn(
    input_size: int,
    hidden_size: int,
    *,
    dt: float = 0.042,
    gamma: float = 2.7,
    epsilon: float = 4.7,
    implicit: bool = False,
    bias: bool = True,
    input_init: Initializer | None = None,
    recurrent_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Cell:
    """Makes a coupled oscillatory cell; see the module for the equations.

    The three constants decide what can be learned, and the authors choose them for each
    task; the defaults are those of their code for pixel digits of 784 steps. The bound
    on the energy holds only for implicit damping.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the number of oscillators, and the size of the output.
      dt: The size of a step, above 0.
      gamma: The squared frequency of an undriven, undamped oscillator, above 0.
      epsilon: The damping, at least 0.
      implicit: Whether the damping uses the velocity after the step, not before it.
      bias: Whether there is a b.
      input_init: Initialiser of W_x; None: uniform within +-1/sqrt(k + 2h); for token
        ids take `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, 2h x h; None: as above.
      bias_init: Initialiser of b; None: as above.

    Returns:
      A cell with parameters `CoRNNParams` and state `CoRNNState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1, a constant is out of range, or with these three
        constants an undriven oscillator grows without bound.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.cells.co_rnn(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs)[0].z.shape
      (4,)
    """
    for name, value in (("dt", dt), ("gamma", gamma)):
        if not 0 < value < math.inf:
            raise ValueError(f"Expected {name} above 0, got {value!r}.")
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"Expected a damping epsilon of at least 0, got {epsilon!r}.")
    # Unless both eigenvalues of an undriven step lie within the unit circle.
    if dt * dt * gamma + (-2 if implicit else 2) * dt * epsilon >= 4:
        raise ValueError(
            "Expected dt, gamma and epsilon of an oscillator that does not grow by "
            f"itself, {'' if implicit else '2 dt epsilon + '}dt^2 gamma < 4"
            f"{' + 2 dt epsilon' if implicit else ''}, got dt={dt!r}, gamma={gamma!r}, "
            f"epsilon={epsilon!r}; take a smaller dt."
        )
    alike = uniform((input_size + 2 * hidden_size) ** -0.5)
    return build(
        drawn(
            CoRNNParams,
            W_x=Weight(input_init or alike, (input_size, hidden_size)),
            W_h=Weight(recurrent_init or alike, (2 * hidden_size, hidden_size)),
            b=Weight(bias_init or alike, (hidden_size,)) if bias else None,
        ),
        initial(CoRNNState, h=hidden_size, z=hidden_size),
        hidden_size,
        gated=Gated(1, _product, *_pointwise(dt, gamma, epsilon, implicit)),
        gates={"tanh_a": SIGNED},
    )


def _product(params: CoRNNParams) -> tuple[Array, None]:
    return params.W_h, None  # (2n, n): multiplies h and z, side by side


def _pointwise(
    dt: float, gamma: float, epsilon: float, implicit: bool
) -> tuple[Callable, Callable]:
    q = 1 / (1 + dt * epsilon) if implicit else 1.0
    p = 1.0 if implicit else 1 - dt * epsilon

    def pointwise(
        state_tm1: CoRNNState, u: Gates, v: Gates
    ) -> tuple[CoRNNState, CoRNNSaved]:
        drive = jnp.tanh(u[0] + v[0])
        z = q * (p * state_tm1.z + dt * (drive - gamma * state_tm1.h))
        return CoRNNState(state_tm1.h + dt * z, z), CoRNNSaved(drive)

    def pullback(
        state_tm1: CoRNNState, state: CoRNNState, saved: CoRNNSaved, dstate: CoRNNState
    ) -> tuple[CoRNNState, Gates, Gates]:
        del state_tm1, state
        dz = q * (dstate.z + dt * dstate.h)
        da = (dt * dz * (1 - saved.tanh_a * saved.tanh_a),)
        return CoRNNState(dstate.h - dt * gamma * dz, p * dz), da, da

    return pointwise, pullback
