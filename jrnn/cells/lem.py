r"""Long expressive memory (Rusch et al. 2022): two states, and a step size for each.

    s_t = dt sigmoid(x_t W_xs + h_{t-1} W_hs + b_s)       the step size of z
    r_t = dt sigmoid(x_t W_xr + h_{t-1} W_hr + b_r)       the step size of h
    n_t = tanh(x_t W_xn + h_{t-1} W_hn + b_n)
    z_t = (1 - s_t) * z_{t-1} + s_t * n_t
    m_t = tanh(x_t W_xm + z_t W_z + b_m)
    h_t = (1 - r_t) * h_{t-1} + r_t * m_t
    y_t = h_t

h is the paper's y. Both states are averages of values within (-1, 1).

The published claim that is tested (proposition 4.1; setting: dt <= 1, states that start
at 0, n steps, t_n = n dt): for each unit i, and any weights and inputs,

    max(|z_n[i]|, |h_n[i]|) <= min(1, D sqrt(t_n)),     D = (1 + dt) / sqrt(2 - dt).

A sharper bound holds: |z_n| <= 1 - (1 - dt)^n, because a step moves the average by at
most dt towards a value within (-1, 1), and likewise |h_n|; saturated gates attain it.

The local derivative, given the total dh_t and dz_t:

    da_m = dh_t r_t (1 - m_t^2)              dz = dz_t + da_m W_z^T
    da_r = dh_t (m_t - h_{t-1}) r_t (1 - r_t / dt)
    da_s = dz (n_t - z_{t-1}) s_t (1 - s_t / dt)
    da_n = dz s_t (1 - n_t^2)                dz_{t-1} = dz (1 - s_t)
    dh_{t-1} = dh_t (1 - r_t) + (da_s, da_r, da_n) W_h^T

Gate order: s r n m; W_h serves the first three. The authors' PyTorch code
(https://github.com/tk-rusch/LEM) orders its input gates r s m n and its recurrent ones
r s n. All parameters are drawn as there: uniform within +-1/sqrt(h), and b the sum of
two such draws, because that code adds two biases, of inputs and of states.

Source: T. K. Rusch, S. Mishra, N. B. Erichson and M. W. Mahoney, Long expressive memory
for sequence modeling, ICLR 2022, https://arxiv.org/abs/2110.04744.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.activations import SIGNED
from jrnn.core.build import adjoint_of, build, factory
from jrnn.core.cell import Cell, Saved
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.products import contract, merge_gates, product, split_gates
from jrnn.initializers.defaults import sum_of_two, uniform


class LEMParams(NamedTuple):
    """Parameters: k inputs, h hidden units."""

    W_x: Float[Array, "k 4h"]
    W_h: Float[Array, "h 3h"]
    W_z: Float[Array, "h h"]
    b: Float[Array, " 4h"] | None


class LEMState(NamedTuple):
    """The output h, and z, which is updated first."""

    h: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]


class LEMSaved(NamedTuple):
    """The step sizes s and r of one step, and the targets n and m of the states."""

    s: Array
    r: Array
    n: Array
    m: Array


@factory
def lem(
    input_size: int,
    hidden_size: int,
    *,
    dt: float = 1.0,
    bias: bool = True,
    input_init: Initializer | None = None,
    recurrent_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Cell:
    """Makes a long expressive memory; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of each state and of the output.
      dt: The largest step size, in (0, 1]; below 1 for slow features.
      bias: Whether there is a b.
      input_init: Initialiser of W_x, for each gate; None: uniform within +-1/sqrt(h);
        for token ids take `jrnn.initializers.embedding`.
      recurrent_init: Initialiser of W_h, for each gate, and of W_z; None: as above.
      bias_init: Initialiser of b, for each gate; None: the sum of two such draws.

    Returns:
      A cell with parameters `LEMParams` and state `LEMState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1, or `dt` is outside (0, 1].

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.cells.lem(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs)[0].z.shape
      (4,)
    """
    if not 0 < dt <= 1:
        raise ValueError(
            f"Expected a step size dt in (0, 1], got {dt!r}; above 1 the states are no "
            "longer averages, and grow."
        )
    alike = uniform(hidden_size**-0.5)
    recurrent_init, bias_init = recurrent_init or alike, bias_init or sum_of_two(alike)
    return build(
        drawn(
            LEMParams,
            W_x=Weight(input_init or alike, (input_size, hidden_size), gates=4),
            W_h=Weight(recurrent_init, (hidden_size, hidden_size), gates=3),
            W_z=Weight(recurrent_init, (hidden_size, hidden_size)),
            b=Weight(bias_init, (hidden_size,), gates=4) if bias else None,
        ),
        initial(LEMState, h=hidden_size, z=hidden_size),
        hidden_size,
        adjoint=adjoint_of(*_forward_and_back(dt), _sums),
        gates={"s": (0.0, dt), "r": (0.0, dt), "n": SIGNED, "m": SIGNED},
    )


def _forward_and_back(dt: float) -> tuple[Callable, Callable]:
    def forward(
        params: LEMParams, state_tm1: LEMState, u: Array
    ) -> tuple[LEMState, LEMSaved]:
        h_tm1, z_tm1 = state_tm1
        u_s, u_r, u_n, u_m = split_gates(u, 4)
        v_s, v_r, v_n = split_gates(product(h_tm1, params.W_h, h_tm1.dtype), 3)
        s = dt * jax.nn.sigmoid(u_s + v_s)
        r = dt * jax.nn.sigmoid(u_r + v_r)
        n = jnp.tanh(u_n + v_n)
        z = (1 - s) * z_tm1 + s * n
        m = jnp.tanh(u_m + product(z, params.W_z, z.dtype))
        return LEMState((1 - r) * h_tm1 + r * m, z), LEMSaved(s, r, n, m)

    def pullback(
        params: LEMParams,
        state_tm1: LEMState,
        state: LEMState,
        saved: LEMSaved,
        dstate: LEMState,
    ) -> tuple[LEMState, Array, Saved]:
        del state
        (h_tm1, z_tm1), (s, r, n, m), dh = state_tm1, saved, dstate.h
        da_m = dh * r * (1 - m * m)
        da_r = dh * (m - h_tm1) * r * (1 - r / dt)
        dz = dstate.z + product(da_m, params.W_z.T, dh.dtype)
        da_s = dz * (n - z_tm1) * s * (1 - s / dt)
        da_n = dz * s * (1 - n * n)
        through = product(merge_gates((da_s, da_r, da_n)), params.W_h.T, dh.dtype)
        du = merge_gates((da_s, da_r, da_n, da_m))
        return LEMState(dh * (1 - r) + through, dz * (1 - s)), du, ()

    return forward, pullback


def _sums(
    states_tm1: LEMState, states: LEMState, saved: LEMSaved, da: Array, deltas: Saved
) -> dict[str, Array]:
    del saved, deltas
    da_srn, da_m = jnp.split(da, [3 * states.h.shape[-1]], axis=-1)
    return {"W_h": contract(states_tm1.h, da_srn), "W_z": contract(states.z, da_m)}
