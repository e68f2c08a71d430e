r"""expRNN: a recurrent matrix that stays orthogonal (Lezcano-Casado and others 2019).

    W_h = expm(A - A^T)                     orthogonal for any A
    a_t = x_t W_x + h_{t-1} W_h
    h_t = modReLU(a_t) = sign(a_t) max(|a_t| + b, 0)
    y_t = h_t

W_h and its derivative are computed once for a whole sequence, so a step costs as much
as one of an Elman network. The symmetric part of A has no effect and gets no gradient.

The local derivative, given the total dh_t, with o_t = 1 where |a_t| + b >= 0, else 0:

    da_t = dh_t * o_t                       dL/db = sum_t da_t * sign(a_t)
    dL/dh_{t-1} gains da_t W_h^T

so that |dL/dh_{t-1}| <= |dL/dh_t| if no loss is added at t - 1: no gradient explodes,
and none vanishes where no unit is cut off. With b = 0 modReLU is the identity.

The published claim that is tested: the exponential is onto the rotations SO(h) (by the
paper's argument, onto every compact and connected group), so that nothing is lost
compared with optimising over orthogonal W_h of determinant 1; and after any optimiser
step |W_h W_h^T - I| is only rounding error. That of the exponential grows with the size
of A: for entries around 1, 10 and 100 it is below 1e-6, 1e-5 and 1e-4 in float32;
beyond some 10,000 `jax.scipy.linalg.expm` gives NaN.

A unitary matrix of h / 2 complex units is an orthogonal one of h real units, so this
cell also covers the earlier unitary networks.

Compared with the authors' PyTorch code (https://github.com/Lezcano/expRNN): all
parameters are drawn as there, W_x normal with variance 2 / k, b uniform within +-0.01,
and A by `henaff` or `cayley`, depending on the task there. That code learns only the
upper triangle of A, with its own learning rate, for which `optax.multi_transform` can
be used here (docs/gradients.md).

Sources: M. Lezcano-Casado and D. Martinez-Rubio, Cheap orthogonal constraints in neural
networks, ICML 2019, https://arxiv.org/abs/1901.08428; modReLU: M. Arjovsky et al.,
Unitary evolution recurrent neural networks, ICML 2016,
https://arxiv.org/abs/1511.06464.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import STEEP
from jrnn.core.build import adjoint_of, build, factory
from jrnn.core.cell import Cell, Saved
from jrnn.core.claims import bound_by_params
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.products import contract, expand, product, project_dense, spectral_norm
from jrnn.core.reparametrise import rotation
from jrnn.initializers.defaults import HE_NORMAL, henaff, uniform

LABEL = f"{STEEP}, which is 1: W_h is orthogonal"
# The initial range of b.
SMALL: Initializer = uniform(0.01)


class ExpRNNParams(NamedTuple):
    """Learned parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k h"]
    A: Float[Array, "h h"]
    b: Float[Array, " h"]


class RotationParams(NamedTuple):
    """The parameters that the equations read, made by `cell.prepare(params)`."""

    W_x: Float[Array, "k h"]
    W_h: Float[Array, "h h"]
    b: Float[Array, " h"]


class ExpRNNState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@factory
def exp_rnn(
    input_size: int,
    hidden_size: int,
    *,
    input_init: Initializer = HE_NORMAL,
    recurrent_init: Initializer = henaff,
    bias_init: Initializer = SMALL,
) -> Cell:
    """Makes an expRNN; see the module for the equations.

    For another activation or another cell use `jrnn.wrappers.orthogonal`.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      input_init: Initialiser of W_x; for token ids take `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of A: `jrnn.initializers.henaff` or `cayley`.
      bias_init: Initialiser of b, the bias of modReLU.

    Returns:
      A cell with parameters `ExpRNNParams` and state `ExpRNNState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.cells.exp_rnn(3, 4)
      >>> W_h = cell.prepare(cell.init(jax.random.key(0))).W_h
      >>> bool(jnp.allclose(W_h @ W_h.T, jnp.eye(4), atol=1e-6))
      True
    """
    return build(
        drawn(
            ExpRNNParams,
            W_x=Weight(input_init, (input_size, hidden_size)),
            A=Weight(recurrent_init, (hidden_size, hidden_size)),
            b=Weight(bias_init, (hidden_size,)),
        ),
        initial(ExpRNNState, h=hidden_size),
        hidden_size,
        project=_project,
        adjoint=adjoint_of(_forward, _pullback, _sums),
        gates={},
        bound=bound_by_params(LABEL, lambda params: spectral_norm(params.W_h)),
        prepare=_prepare,
    )


def _prepare(params: ExpRNNParams | RotationParams) -> RotationParams:
    if isinstance(params, RotationParams):
        return params
    return RotationParams(params.W_x, rotation(params.A), params.b)


def _project(params: RotationParams, x: Array) -> Array:
    return project_dense(params.W_x, None, x)


def _forward(
    params: RotationParams, state_tm1: ExpRNNState, u: Array
) -> tuple[ExpRNNState, Array]:
    a = u + product(state_tm1.h, params.W_h, u.dtype)
    opened, b = _opened(params, a)
    # a + b sign(a) is sign(a) (|a| + b), with the slope 1 at a = 0 as well.
    return ExpRNNState(jnp.where(opened, a + b * jnp.sign(a), jnp.zeros_like(a))), a


def _opened(params: RotationParams, a: Array) -> tuple[Array, Array]:
    b = expand(params.b.astype(a.dtype), a.ndim)
    return ~(jnp.abs(a) + b < 0), b  # written so that a NaN is not cut off


def _pullback(
    params: RotationParams,
    state_tm1: ExpRNNState,
    state: ExpRNNState,
    a: Array,
    dstate: ExpRNNState,
) -> tuple[ExpRNNState, Array, Saved]:
    del state_tm1, state
    da = jnp.where(_opened(params, a)[0], dstate.h, jnp.zeros_like(a))
    return ExpRNNState(product(da, params.W_h.T, da.dtype)), da, ()


def _sums(
    states_tm1: ExpRNNState, states: ExpRNNState, a: Array, da: Array, deltas: Saved
) -> dict[str, Array]:
    del states, deltas
    db = (da * jnp.sign(a)).sum(axis=tuple(range(a.ndim - 1)))
    return {"W_h": contract(states_tm1.h, da), "b": db}
