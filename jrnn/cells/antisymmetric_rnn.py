r"""The antisymmetric recurrent network (Chang et al. 2019), plain or gated.

    M = W_h - W_h^T - gamma I
    n_t = tanh(x_t W_xn + h_{t-1} M + b_n)
    h_t = h_{t-1} + epsilon n_t                                             plain
    z_t = sigmoid(x_t W_xz + h_{t-1} M + b_z)
    h_t = h_{t-1} + epsilon z_t * n_t                                       gated
    y_t = h_t

A forward Euler step of size epsilon of dh/dt = tanh(x W_x + h M + b), whose Jacobian is
J = M diag(tanh').

The published claims that are tested ("Stability of ordinary differential equations",
setting: gamma = 0, any W_h, any h and x): every eigenvalue of J has real part 0, so
that the flow neither amplifies nor damps a small difference; ("Stability of the forward
Euler method"): the step is stable where |1 + epsilon lambda_i(J)| <= 1 for all i, which
never holds for gamma = 0, and holds for gamma > 0 once epsilon is small enough. That
each eigenvalue is then within the unit circle does not bound a product of different J.

The local derivative, given the total dh_t:

    da_n = dh_t epsilon z_t (1 - n_t^2)      da_z = dh_t epsilon n_t z_t (1 - z_t)
    dh_{t-1} = dh_t + (da_n + da_z) M^T      plain: z_t = 1 and da_z = 0

Gate order: z n; both see the same product h_{t-1} M. The paper uses column vectors, so
that its W_h is the transpose of this one.

W_x is normal with variance 1 / k, W_h normal with variance 1 / h, and b is 0. The paper
searches over variances s^2 / h of W_h, and this is s = 1; the authors published no
code. For another s pass `recurrent_init=jrnn.initializers.normal(s / h**0.5)`.

Source: B. Chang, M. Chen, E. Haber and E. H. Chi, AntisymmetricRNN: A dynamical system
view on recurrent neural networks, ICLR 2019, https://arxiv.org/abs/1902.09689.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Gated, Gates
from jrnn.core.claims import UNIT, bound_by_params
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.products import spectral_norm
from jrnn.initializers.defaults import FAN_IN_NORMAL, ZEROS


class AntisymmetricRNNParams(NamedTuple):
    """Learned parameters: k inputs, h hidden units, g gates (1, or 2 if gated)."""

    W_x: Float[Array, "k gh"]
    W_h: Float[Array, "h h"]
    b: Float[Array, " gh"] | None


class AntisymmetricParams(NamedTuple):
    """The parameters that the equations read, made by `cell.prepare(params)`."""

    W_x: Float[Array, "k gh"]
    M: Float[Array, "h h"]
    b: Float[Array, " gh"] | None


class AntisymmetricRNNState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


class AntisymmetricRNNSaved(NamedTuple):
    """The gate of one step, or None, and the candidate."""

    z: Array | None
    n: Array


@factory
def antisymmetric_rnn(
    input_size: int,
    hidden_size: int,
    *,
    gated: bool = False,
    epsilon: float = 0.1,
    gamma: float = 0.1,
    bias: bool = True,
    input_init: Initializer = FAN_IN_NORMAL,
    recurrent_init: Initializer = FAN_IN_NORMAL,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes an antisymmetric recurrent cell; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      gated: Whether a gate z scales what each step adds.
      epsilon: The size of a step, above 0: about 1 / epsilon steps change the state.
      gamma: The diffusion, at least 0, which makes steps of that size stable.
      bias: Whether there is a b.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, with variance 1 / h by default.
      bias_init: Initialiser of b, for each gate.

    Returns:
      A cell with parameters `AntisymmetricRNNParams` and state
      `AntisymmetricRNNState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1, `epsilon` is not above 0, or `gamma` is below 0.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.cells.antisymmetric_rnn(3, 4, gated=True)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs)[1].shape
      (7, 4)
    """
    if not 0 < epsilon < math.inf:
        raise ValueError(f"Expected a step epsilon above 0, got {epsilon!r}.")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"Expected a diffusion gamma of at least 0, got {gamma!r}.")
    gates = 2 if gated else 1
    beta = lambda params: 1 + epsilon * spectral_norm(params.M)

    def prepare(
        params: AntisymmetricRNNParams | AntisymmetricParams,
    ) -> AntisymmetricParams:
        if isinstance(params, AntisymmetricParams):
            return params
        W_h = params.W_h
        M = W_h - W_h.T - gamma * jnp.eye(hidden_size, dtype=W_h.dtype)
        return AntisymmetricParams(params.W_x, M, params.b)

    return build(
        drawn(
            AntisymmetricRNNParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size)),
            b=Weight(bias_init, (hidden_size,), gates) if bias else None,
        ),
        initial(AntisymmetricRNNState, h=hidden_size),
        hidden_size,
        gated=Gated(gates, _product, *_pointwise(gated, epsilon)),
        gates={"z": UNIT, "n": SIGNED} if gated else {"n": SIGNED},
        bound=bound_by_params("proven: 1 + epsilon s(M)", beta),
        prepare=prepare,
    )


def _product(params: AntisymmetricParams) -> tuple[Array, None]:
    return params.M, None  # (n, n): both gates receive the same


def _pointwise(gated: bool, epsilon: float) -> tuple[Callable, Callable]:
    def pointwise(
        state_tm1: AntisymmetricRNNState, u: Gates, v: Gates
    ) -> tuple[AntisymmetricRNNState, AntisymmetricRNNSaved]:
        n = jnp.tanh(u[-1] + v[-1])
        z = jax.nn.sigmoid(u[0] + v[0]) if gated else None
        added = n if z is None else z * n
        return AntisymmetricRNNState(
            state_tm1.h + epsilon * added
        ), AntisymmetricRNNSaved(z, n)

    def pullback(
        state_tm1: AntisymmetricRNNState,
        state: AntisymmetricRNNState,
        saved: AntisymmetricRNNSaved,
        dstate: AntisymmetricRNNState,
    ) -> tuple[AntisymmetricRNNState, Gates, Gates]:
        del state_tm1, state
        (z, n), dh = saved, dstate.h
        da_n = epsilon * dh * (1 - n * n)
        if z is None:
            return dstate, (da_n,), (da_n,)
        da_z = epsilon * dh * n * z * (1 - z)
        return dstate, (da_z, da_n * z), (da_z, da_n * z)

    return pointwise, pullback
