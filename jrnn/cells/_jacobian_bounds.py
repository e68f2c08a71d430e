r"""Bounds on the norm of a step's Jacobian that hold for every state, and their proofs.

s(W) is the largest singular value; the equations are those of each cell's module.

Elman, h = phi(u + h_{t-1} W_h): J = W_h diag(phi'), so ||J|| <= sup|phi'| s(W_h).
sup|phi'| is 1 for tanh, relu, the identity and sin, 1/4 for the logistic function. For
`ind_rnn` W_h is diagonal, s(W_h) = max|w_h|. The slope of modReLU, of `exp_rnn`, is 0
or 1, and its W_h is orthogonal: ||J|| <= 1.

Antisymmetric, h = h_{t-1} + epsilon z n: J = I + epsilon M diag(q). The plain cell has
z = 1 and q = 1-n^2, the gated one q = z (1-n^2) + n z (1-z). Then |q| <= 1, because
q >= -1/4, and at the n of the largest q, (1-z)/2, q = z + z (1-z)^2 / 4 <= z + (1-z).
Hence ||J|| <= 1 + epsilon s(M).

Cells that are linear in their state, h = a_t h_{t-1} + b_t: J does not depend on the
state, so that its norm is also its supremum over states, for these inputs.

GRU. Let m = max(1, max|h_0|). Every h_t lies between h_{t-1} and n_t, so |h_t| <= m.
Transposed, J^T = diag(z) + diag(1-z) N + diag((h_{t-1} - n) z (1-z)) W_z^T with

    N = diag(1-n^2) (diag(r) W_n^T + diag(q r (1-r)) W_r^T)           reset after
    N = diag(1-n^2) W_n^T (diag(r) + diag(h_{t-1} r (1-r)) W_r^T)     reset before

All of 1-n^2, r and z lie in [0, 1], r (1-r) and z (1-z) in [0, 1/4], and
|h_{t-1} - n| <= 1 + m. With |q_j| <= Q = max_j (m sum_i |W_n[i, j]| + |b_h[j]|),

    ||N|| <= B = s(W_n) + Q s(W_r) / 4                                reset after
    ||N|| <= B = s(W_n) (1 + m s(W_r) / 4)                            reset before

The first two terms are (diag(z), diag(1-z)) times (I; N), whose norms are at most 1,
because z^2 + (1-z)^2 <= 1, and (1 + B^2)^(1/2). Hence

    beta = (1 + B^2)^(1/2) + (1 + m) s(W_z) / 4.

LSTM without peepholes or projection, for these inputs and any recurrent share. |h| <= m
as above, so that the gates' arguments lie within u_t +- m sum_i |W_h[i, :]|. With I, F,
O and G for the resulting largest i, f, o and |g| of each unit,

    |c_t| <= C_t = F_t C_{t-1} + I_t G_t,   C_0 = |c_0|.

The norms of the four blocks of J are then at most (each factor is its maximum over the
units)

    dc_t/dc_{t-1}:  F
    dc_t/dh_{t-1}:  C_{t-1} s(W_f)/4 + G s(W_i)/4 + I s(W_g)  =: K
    dh_t/dc_{t-1}:  O F
    dh_t/dh_{t-1}:  tanh(C_t) s(W_o)/4 + O K

and ||J|| is at most the norm of the 2 x 2 matrix of these numbers. The same matrices,
multiplied, bound the blocks of a product.

Wrappers: those that change only inputs and outputs, every kind of dropout (bounds are
for runs without a key), and a learned initial state leave J as it is. `orthogonal` has
the J of its cell, with the orthogonal W_h. Zoneout takes the share q of each step,
s_t = (1-q) s_{t-1} + q s'_t, with one q for each array of the state, so that the blocks
are at most (1-q) I + q times those of its cell. The bound on |h| above also holds for
averages, and C_t = (1-q) C_{t-1} + q (F_t C_{t-1} + I_t G_t), while tanh is taken of
F_t C_{t-1} + I_t G_t.

These derivations are our own.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Params, State, StepBound
from jrnn.core.claims import at_every_step
from jrnn.core.products import expand, spectral_norm, split_gates


def gru_bound(reset_after: bool) -> StepBound:
    """Returns the bound of a GRU."""
    label = "proven: (1 + B^2)^(1/2) + (1 + m) s(W_z) / 4"
    return StepBound(label, functools.partial(_gru, reset_after))


def _gru(
    reset_after: bool, params: Params, states_tm1: State, us: Any, kept: Array
) -> Array:
    del us, kept
    h = states_tm1.h
    W_r, W_z, W_n = split_gates(params.W_h.astype(h.dtype), 3)
    m = _reach(h[0])
    if reset_after:
        columns = jnp.abs(W_n).sum(axis=0)
        b_h = jnp.zeros_like(columns) if params.b_h is None else jnp.abs(params.b_h)
        row = lambda vector: expand(vector.astype(h.dtype), m.ndim + 1)
        Q = (m[..., None] * row(columns) + row(b_h)).max(axis=-1)
        B = spectral_norm(W_n) + Q * spectral_norm(W_r) / 4
    else:
        B = spectral_norm(W_n) * (1 + m * spectral_norm(W_r) / 4)
    beta = jnp.sqrt(1 + B * B) + (1 + m) * spectral_norm(W_z) / 4
    return at_every_step(beta, h)


def _lstm(params: Params, states_tm1: State, us: Any, kept: Array) -> Array:
    h, c = states_tm1.h, states_tm1.c
    W = split_gates(params.W_h.astype(h.dtype), 4)  # i f g o
    s_i, s_f, s_g, s_o = (spectral_norm(W_gate) for W_gate in W)
    m = _reach(h[0])[..., None]
    spread = [m * expand(jnp.abs(W_gate).sum(axis=0), m.ndim) for W_gate in W]

    def step(C_tm1: Array, u: Array) -> tuple[Array, Array]:
        u_i, u_f, u_g, u_o = split_gates(u, 4)
        I, F, O = (
            jax.nn.sigmoid(a + spread[gate])
            for gate, a in ((0, u_i), (1, u_f), (3, u_o))
        )
        G = jnp.tanh(jnp.abs(u_g) + spread[2])
        C = F * C_tm1 + I * G
        top = lambda vector: vector.max(axis=-1)
        K = top(C_tm1) * s_f / 4 + top(G) * s_i / 4 + top(I) * s_g
        hh = top(jnp.tanh(C)) * s_o / 4 + top(O) * K
        by_h = jnp.stack([hh, K], axis=-1)
        by_c = jnp.stack([top(O * F), top(F)], axis=-1)
        return kept[1] * C_tm1 + (1 - kept[1]) * C, jnp.stack([by_h, by_c], axis=-2)

    return jax.lax.scan(step, jnp.abs(c[0]), us)[1]


# For an LSTM without peepholes or projection.
LSTM_BOUND = StepBound(
    "proven: the norm of the matrix of bounds on the blocks of J", _lstm
)


def _reach(h_0: Array) -> Array:
    """Returns m = max(1, max|h_0|), which no |h_t| exceeds."""
    return jnp.maximum(jnp.abs(h_0).max(axis=-1), 1)
