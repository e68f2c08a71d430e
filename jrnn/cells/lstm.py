r"""Long short-term memory (Hochreiter and Schmidhuber 1997), with forget gates.

    i_t = sigmoid(x_t W_xi + h_{t-1} W_hi + b_i)      the input gate
    f_t = sigmoid(x_t W_xf + h_{t-1} W_hf + b_f)      the forget gate
    g_t = tanh   (x_t W_xg + h_{t-1} W_hg + b_g)      the candidate
    o_t = sigmoid(x_t W_xo + h_{t-1} W_ho + b_o)      the output gate
    c_t = f_t * c_{t-1} + i_t * g_t
    m_t = o_t * tanh(c_t)
    h_t = m_t,  or m_t W_p with a projection
    y_t = h_t

With peepholes the arguments of i and f gain p_i * c_{t-1} and p_f * c_{t-1}, that of o
gains p_o * c_t.

The local derivative, given the total dm_t and dc_t:

    dc_t += dm_t o_t (1 - tanh(c_t)^2) [+ p_o da_o]
    da_i = dc_t g_t i_t (1 - i_t)         da_f = dc_t c_{t-1} f_t (1 - f_t)
    da_g = dc_t i_t (1 - g_t^2)           da_o = dm_t tanh(c_t) o_t (1 - o_t)
    dc_{t-1} = dc_t f_t [+ p_i da_i + p_f da_f]

Gate order: i f g o, as in PyTorch, cuDNN, Keras and Flax's `OptimizedLSTMCell`; Haiku
has i g f o. There is one bias, PyTorch's b_ih + b_hh. The initial b includes the
forget-gate bias (1.0 by default); Haiku adds 1 each time the cell is applied. State:
(h, c), as in PyTorch and Keras; Flax has (c, h).

Initial distributions: W_x is normal with variance 1 / k, truncated at two standard
deviations, W_h orthogonal for each gate, b_f 1 and the other biases 0. Flax draws the
same except for b_f = 0; Keras has b_f = 1, W_x uniform with variance 2 / (k + 4h), and
one orthogonal matrix for all gates together; PyTorch draws all parameters uniform
within +-1/sqrt(n), `jrnn.initializers.uniform(n**-0.5)`. The authors published no code.

Sources: S. Hochreiter and J. Schmidhuber, Neural Computation 9 (1997),
https://doi.org/10.1162/neco.1997.9.8.1735; forget gates: F. Gers et al., Neural
Computation 12 (2000), https://doi.org/10.1162/089976600300015015; forget-gate bias:
R. Jozefowicz et al., ICML 2015, https://proceedings.mlr.press/v37/jozefowicz15.html;
peepholes: F. Gers et al., JMLR 3 (2002), https://www.jmlr.org/papers/v3/gers02a.html;
projection: H. Sak et al. (2014), https://arxiv.org/abs/1402.1128.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED
from jrnn.cells._jacobian_bounds import LSTM_BOUND
from jrnn.core.build import adjoint_of, build, factory
from jrnn.core.cell import Cell, Gated, Gates, Saved
from jrnn.core.claims import UNIT
from jrnn.core.draw import Initializer, OfGates, Weight, drawn, initial, of_no_gate
from jrnn.core.products import contract, expand, merge_gates, product, split_gates
from jrnn.initializers.defaults import LECUN_NORMAL, ORTHOGONAL, ZEROS


class LSTMParams(NamedTuple):
    """Parameters: k inputs, n units; r is n, or the size of the projection."""

    W_x: Float[Array, "k 4n"]
    W_h: Float[Array, "r 4n"]
    b: Float[Array, " 4n"] | None
    p: Float[Array, "3 n"] | None = None
    W_p: Float[Array, "n r"] | None = None


class LSTMState(NamedTuple):
    """The output h and the memory c."""

    h: Float[Array, "*batch r"]
    c: Float[Array, "*batch n"]


class LSTMSaved(NamedTuple):
    """The gates of one step, for the backward pass."""

    i: Array
    f: Array
    g: Array
    o: Array


@factory
def lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    peepholes: bool = False,
    projection_size: int | None = None,
    bias: bool = True,
    input_init: Initializer = LECUN_NORMAL,
    recurrent_init: Initializer = ORTHOGONAL,
    bias_init: Initializer | OfGates = ZEROS,
) -> Cell:
    """Makes a long short-term memory cell; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: n, the size of c.
      forget_bias: Added to the forget gate's part of the initial b.
      peepholes: Whether the gates see c, by the elementwise weights p (rows i, f, o).
      projection_size: r, the size of h and of the output; None: h has the size of c.
      bias: Whether there is a b; without one, `forget_bias` has no effect.
      input_init: Initialiser of W_x, for each gate; for token ids take
        `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, for each gate, and of W_p.
      bias_init: Initialiser of b, for each gate, and of p; for dependencies of known
        length `jrnn.initializers.chrono_lstm`, with `forget_bias=0.0`.

    Returns:
      A cell with parameters `LSTMParams` and state `LSTMState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1, or `forget_bias` is not 0 although `bias_init`
        already draws it.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.lstm(3, 4, projection_size=2)
      >>> params = cell.init(jax.random.key(0))
      >>> cell.init_state(params, (5,)).h.shape, cell.init_state(params, (5,)).c.shape
      ((5, 2), (5, 4))
    """
    if isinstance(bias_init, OfGates) and forget_bias != 0:
        raise ValueError(
            f"Expected forget_bias=0.0 beside a bias_init that draws the forget gate's "
            f"bias, got {forget_bias!r}, which would be added to it."
        )
    shown = hidden_size if projection_size is None else projection_size
    plain = not peepholes and projection_size is None
    b = Weight(bias_init, (hidden_size,), "i f g o", plus=(1, forget_bias))
    W_p = Weight(recurrent_init, (hidden_size, shown))
    return build(
        drawn(
            LSTMParams,
            W_x=Weight(input_init, (input_size, hidden_size), gates=4),
            W_h=Weight(recurrent_init, (shown, hidden_size), gates=4),
            b=b if bias else None,
            p=Weight(of_no_gate(bias_init), (3, hidden_size)) if peepholes else None,
            W_p=None if projection_size is None else W_p,
        ),
        initial(LSTMState, h=shown, c=hidden_size),
        shown,
        gated=_GATED if plain else None,
        adjoint=None if plain else _ADJOINT,
        gates={"i": UNIT, "f": UNIT, "o": UNIT, "g": SIGNED, "tanh_c": SIGNED},
        opened=_opened,
        bound=LSTM_BOUND if plain else None,
    )


def _forward(
    c_tm1: Array, a: Gates, p: Gates | None = None
) -> tuple[Array, Array, LSTMSaved]:
    """Returns m_t, c_t and the gates, given the gates' arguments `a`."""
    a_i, a_f, a_g, a_o = a
    if p is not None:
        a_i, a_f = a_i + p[0] * c_tm1, a_f + p[1] * c_tm1
    i, f, g = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jnp.tanh(a_g)
    c = f * c_tm1 + i * g
    o = jax.nn.sigmoid(a_o if p is None else a_o + p[2] * c)
    return o * jnp.tanh(c), c, LSTMSaved(i, f, g, o)


def _backward(
    c_tm1: Array,
    c: Array,
    saved: LSTMSaved,
    dm: Array,
    dc: Array,
    p: Gates | None = None,
) -> tuple[Array, Gates]:
    """Returns dc_{t-1} and da, the local derivative of `_forward`.

    tanh(c_t) is computed again: to save it would take an eighth of all that is saved.
    """
    i, f, g, o = saved
    tanh_c = jnp.tanh(c)
    da_o = dm * tanh_c * o * (1 - o)
    dc = dc + dm * o * (1 - tanh_c * tanh_c)
    if p is not None:
        dc = dc + p[2] * da_o
    da_i = dc * g * i * (1 - i)
    da_f = dc * c_tm1 * f * (1 - f)
    da_g = dc * i * (1 - g * g)
    dc_tm1 = dc * f
    if p is not None:
        dc_tm1 = dc_tm1 + p[0] * da_i + p[1] * da_f
    return dc_tm1, (da_i, da_f, da_g, da_o)


def _pointwise(state_tm1: LSTMState, u: Gates, v: Gates) -> tuple[LSTMState, LSTMSaved]:
    a = tuple(u_g + v_g for u_g, v_g in zip(u, v, strict=True))
    m, c, saved = _forward(state_tm1.c, a)
    return LSTMState(m, c), saved


def _pullback(
    state_tm1: LSTMState, state: LSTMState, saved: LSTMSaved, dstate: LSTMState
) -> tuple[LSTMState, Gates, Gates]:
    dc_tm1, da = _backward(state_tm1.c, state.c, saved, dstate.h, dstate.c)
    return LSTMState(jnp.zeros_like(state_tm1.h), dc_tm1), da, da


def _opened(state: LSTMState, saved: LSTMSaved) -> dict[str, Array]:
    return saved._asdict() | {"tanh_c": jnp.tanh(state.c)}


def _product(params: LSTMParams) -> tuple[Array, None]:
    return params.W_h, None


_GATED = Gated(4, _product, _pointwise, _pullback)


# With peepholes or a projection the cell does not fit the `Gated` seam, so it has its
# own backward pass of `advance`.


def _peepholes(params: LSTMParams, like: Array) -> Gates | None:
    if params.p is None:
        return None
    return tuple(expand(row, like.ndim) for row in params.p.astype(like.dtype))


def _forward_adjoint(
    params: LSTMParams, state_tm1: LSTMState, u: Array
) -> tuple[LSTMState, LSTMSaved]:
    h_tm1 = state_tm1.h
    a = split_gates(u + product(h_tm1, params.W_h, h_tm1.dtype), 4)
    m, c, saved = _forward(state_tm1.c, a, _peepholes(params, u))
    h = m if params.W_p is None else product(m, params.W_p, m.dtype)
    return LSTMState(h, c), saved


def _adjoint_pullback(
    params: LSTMParams,
    state_tm1: LSTMState,
    state: LSTMState,
    saved: LSTMSaved,
    dstate: LSTMState,
) -> tuple[LSTMState, Array, Saved]:
    dh, dc = dstate
    dm = dh if params.W_p is None else product(dh, params.W_p.T, dh.dtype)
    p = _peepholes(params, dm)
    dc_tm1, da = _backward(state_tm1.c, state.c, saved, dm, dc, p)
    du = merge_gates(da)
    dh_tm1 = product(du, params.W_h.T, du.dtype)
    return LSTMState(dh_tm1, dc_tm1), du, None if params.W_p is None else dh


def _adjoint_sums(
    states_tm1: LSTMState, states: LSTMState, saved: LSTMSaved, da: Array, dh: Saved
) -> dict[str, Array]:
    da_i, da_f, _, da_o = split_gates(da, 4)
    seen = da_i * states_tm1.c, da_f * states_tm1.c, da_o * states.c
    steps = tuple(range(da.ndim - 1))
    dp = jnp.stack([terms.sum(axis=steps) for terms in seen])
    sums = {"W_h": contract(states_tm1.h, da), "p": dp}
    if dh is not None:
        sums["W_p"] = contract(saved.o * jnp.tanh(states.c), dh)
    return sums


_ADJOINT = adjoint_of(_forward_adjoint, _adjoint_pullback, _adjoint_sums)
