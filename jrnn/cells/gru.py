r"""The gated recurrent unit (Cho et al. 2014).

    r_t = sigmoid(x_t W_xr + h_{t-1} W_hr + b_r)      the reset gate
    z_t = sigmoid(x_t W_xz + h_{t-1} W_hz + b_z)      the update gate
    n_t = tanh(x_t W_xn + b_n + r_t * (h_{t-1} W_hn + b_h))      reset after the product
    n_t = tanh(x_t W_xn + b_n + (r_t * h_{t-1}) W_hn)            reset before it
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}
    y_t = h_t

The local derivative, given the total dh_t, with q_t = h_{t-1} W_hn + b_h:

    da_n = dh_t (1 - z_t) (1 - n_t^2)     da_z = dh_t (h_{t-1} - n_t) z_t (1 - z_t)
    da_r = da_n q_t r_t (1 - r_t)         dq = da_n r_t
    dh_{t-1} = dh_t z_t + (da_r, da_z, dq) W_h^T                 reset after

    ds = da_n W_hn^T                      da_r = ds h_{t-1} r_t (1 - r_t)
    dh_{t-1} = dh_t z_t + ds r_t + (da_r, da_z) (W_hr, W_hz)^T   reset before

Gate order: r z n. PyTorch, cuDNN, Flax and, by default, Keras reset after the product,
with r and z as here; Keras orders the gates z r n. The cell as first published, and
Haiku's, reset before it. In Haiku z multiplies the candidate, here it multiplies the
past, so that z and 1 - z are exchanged. There is one bias b and, with the reset after
the product, the recurrent bias b_h of the candidate; from PyTorch's six biases,
b_h = b_hn and b = b_ih + (b_hr, b_hz, 0).

Initial distributions: W_x is normal with variance 1 / k, truncated at two standard
deviations, W_h orthogonal for each gate, biases 0, as in Flax. Keras draws W_x uniform
with variance 2 / (k + 3h), and one orthogonal matrix for all gates together; PyTorch
draws all parameters uniform within +-1/sqrt(h), `jrnn.initializers.uniform(h**-0.5)`.
The paper also draws W_h orthogonal, and W_x normal with standard deviation 0.01, as
`input_init=jrnn.initializers.normal(0.01)` does.

Sources: K. Cho et al., EMNLP 2014, https://arxiv.org/abs/1406.1078; reset after:
J. Appleyard et al. (2016), https://arxiv.org/abs/1604.01946.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED
from jrnn.cells._jacobian_bounds import gru_bound
from jrnn.core.build import adjoint_of, build, factory
from jrnn.core.cell import Cell, Gated, Gates, Saved
from jrnn.core.claims import UNIT
from jrnn.core.draw import Initializer, OfGates, Weight, drawn, initial, of_no_gate
from jrnn.core.products import contract, merge_gates, product, split_gates
from jrnn.initializers.defaults import LECUN_NORMAL, ORTHOGONAL, ZEROS


class GRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units; `b_h` only with the reset after."""

    W_x: Float[Array, "k 3h"]
    W_h: Float[Array, "h 3h"]
    b: Float[Array, " 3h"] | None
    b_h: Float[Array, " h"] | None


class GRUState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


class GRUSaved(NamedTuple):
    """The gates of one step, and q_t with the reset after, for the backward pass."""

    r: Array
    z: Array
    n: Array
    q: Array | None = None


@factory
def gru(
    input_size: int,
    hidden_size: int,
    *,
    reset_after: bool = True,
    bias: bool = True,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
    bias_init: Initializer | OfGates = ZEROS,
) -> Cell:
    """Makes a gated recurrent unit; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      reset_after: Whether the reset gate acts after the matrix product, as in PyTorch
        and cuDNN, or before it, as first published.
      bias: Whether there are biases.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, for each gate.
      bias_init: Initialiser of b, for each gate, and of b_h; for dependencies of known
        length `jrnn.initializers.chrono_gru`.

    Returns:
      A cell with parameters `GRUParams` and state `GRUState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> params = jrnn.gru(3, 4).init(jax.random.key(0))
      >>> params.W_h.shape, params.b_h.shape
      ((4, 12), (4,))
    """
    b_h = Weight(of_no_gate(bias_init), (hidden_size,))
    return build(
        drawn(
            GRUParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=3),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size), gates=3),
            b=Weight(bias_init, (hidden_size,), "r z n") if bias else None,
            b_h=b_h if bias and reset_after else None,
        ),
        initial(GRUState, h=hidden_size),
        hidden_size,
        gated=_GATED if reset_after else None,
        adjoint=None if reset_after else _ADJOINT_BEFORE,
        gates={"r": UNIT, "z": UNIT, "n": SIGNED},
        bound=gru_bound(reset_after),
    )


def _product(params: GRUParams) -> tuple[Array, Array | None]:
    b_h = params.b_h
    return params.W_h, None if b_h is None else jnp.pad(b_h, (2 * b_h.size, 0))


def _pointwise(state_tm1: GRUState, u: Gates, v: Gates) -> tuple[GRUState, GRUSaved]:
    r = jax.nn.sigmoid(u[0] + v[0])
    z = jax.nn.sigmoid(u[1] + v[1])
    n = jnp.tanh(u[2] + r * v[2])
    return GRUState((1 - z) * n + z * state_tm1.h), GRUSaved(r, z, n, v[2])


def _pullback(
    state_tm1: GRUState, state: GRUState, saved: GRUSaved, dstate: GRUState
) -> tuple[GRUState, Gates, Gates]:
    del state
    (r, z, n, q), dh = saved, dstate.h
    assert q is not None
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (state_tm1.h - n) * z * (1 - z)
    da_r = da_n * q * r * (1 - r)
    return GRUState(dh * z), (da_r, da_z, da_n), (da_r, da_z, da_n * r)


_GATED = Gated(3, _product, _pointwise, _pullback)


# With the reset before the product, the second product depends on the first, so the
# cell has its own backward pass of `advance`.


def _split_W_h(params: GRUParams) -> tuple[Array, Array]:
    W_rz, W_n = jnp.split(params.W_h, [2 * params.W_h.shape[0]], axis=1)
    return W_rz, W_n


def _forward_before(
    params: GRUParams, state_tm1: GRUState, u: Array
) -> tuple[GRUState, GRUSaved]:
    h_tm1 = state_tm1.h
    W_rz, W_n = _split_W_h(params)
    u_r, u_z, u_n = split_gates(u, 3)
    v_r, v_z = split_gates(product(h_tm1, W_rz, h_tm1.dtype), 2)
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    n = jnp.tanh(u_n + product(r * h_tm1, W_n, h_tm1.dtype))
    return GRUState((1 - z) * n + z * h_tm1), GRUSaved(r, z, n)


def _pullback_before(
    params: GRUParams,
    state_tm1: GRUState,
    state: GRUState,
    saved: GRUSaved,
    dstate: GRUState,
) -> tuple[GRUState, Array, Saved]:
    del state
    (r, z, n, _), dh, h_tm1 = saved, dstate.h, state_tm1.h
    W_rz, W_n = _split_W_h(params)
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (h_tm1 - n) * z * (1 - z)
    ds = product(da_n, W_n.T, dh.dtype)
    da_r = ds * h_tm1 * r * (1 - r)
    dh_rz = product(merge_gates((da_r, da_z)), W_rz.T, dh.dtype)
    du = merge_gates((da_r, da_z, da_n))
    return GRUState(dh * z + ds * r + dh_rz), du, ()


def _sums_before(
    states_tm1: GRUState, states: GRUState, saved: GRUSaved, da: Array, deltas: Saved
) -> dict[str, Array]:
    del states, deltas
    h_tm1, r = states_tm1.h, saved.r
    da_rz, da_n = jnp.split(da, [2 * h_tm1.shape[-1]], axis=-1)
    dW_rz, dW_n = contract(h_tm1, da_rz), contract(r * h_tm1, da_n)
    return {"W_h": merge_gates((dW_rz, dW_n))}


_ADJOINT_BEFORE = adjoint_of(_forward_before, _pullback_before, _sums_before)
