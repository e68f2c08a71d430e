r"""The notes' upper bound on how far gradients travel: beta^(t-k).

    ||ds_t/ds_k|| <= ||J_{k+1}|| ... ||J_t|| <= beta_{k+1} ... beta_t <= beta^(t-k)

A bound is *proven* where beta_t >= ||J_t|| holds whatever the state (within what the
cell can reach), and *measured* where it is the norm along this one run. The proofs,
with s(W) the largest singular value, each for the cell as the library writes it:

Elman, h = phi(u + h_{t-1} W_h): J = W_h diag(phi'), so ||J|| <= sup|phi'| s(W_h).
sup|phi'| is 1 for tanh, relu, the identity and sin, 1/4 for the logistic function. For
`ind_rnn` W_h is diagonal, s(W_h) = max|w_h|.

Cells that are linear in their state, h = a_t h_{t-1} + b_t: J does not depend on the
state, so that its norm is its supremum for these inputs.

GRU. Let m = max(1, max|h_0|). Every h_t lies between h_{t-1} and n_t, so |h_t| <= m.
Transposed, J^T = diag(z) + diag(1-z) N + diag((h_{t-1} - n) z (1-z)) W_z^T with

    N = diag(1-n^2) (diag(r) W_n^T + diag(q r (1-r)) W_r^T)           reset after
    N = diag(1-n^2) W_n^T (diag(r) + diag(h_{t-1} r (1-r)) W_r^T)     reset before

All of 1-n^2, r and z lie in [0, 1], r (1-r) and z (1-z) in [0, 1/4], and
|h_{t-1} - n| <= 1 + m. With |q_j| <= Q = max_j (m sum_i |W_n[i, j]| + |b_h[j]|),

    ||N|| <= B = s(W_n) + Q s(W_r) / 4                                reset after
    ||N|| <= B = s(W_n) (1 + m s(W_r) / 4)                            reset before

The first two terms are (diag(z), diag(1-z)) times (I; N), whose norms are at most
1, for z^2 + (1-z)^2 <= 1, and (1 + B^2)^(1/2). Hence

    beta = (1 + B^2)^(1/2) + (1 + m) s(W_z) / 4.

LSTM without peepholes or projection, for these inputs and any recurrent share. |h| <= m
as above, so that the gates' arguments lie within u_t +- m sum_i |W_h[i, :]|; this gives
each unit its largest i, f, o and |g|, called I, F, O, G, and

    |c_t| <= C_t = F_t C_{t-1} + I_t G_t,   C_0 = |c_0|.

The norms of the four blocks of J are then at most, each factor at its largest unit,

    dc_t/dc_{t-1}:  F
    dc_t/dh_{t-1}:  C_{t-1} s(W_f)/4 + G s(W_i)/4 + I s(W_g)  =: K
    dh_t/dc_{t-1}:  O F
    dh_t/dh_{t-1}:  tanh(C_t) s(W_o)/4 + O K

and ||J|| is at most the norm of the 2 x 2 matrix of these numbers. The same matrices,
multiplied, bound the blocks of a product.

The notes' beta is Bengio et al. 1994, https://doi.org/10.1109/72.279181, and Pascanu et
al. 2013, https://arxiv.org/abs/1211.5063, section 2.1; the other derivations are made
here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn._base import Cell, Params, State
from jrnn._parts import expand, split_gates
from jrnn.diagnostics._run import (
    Run,
    batch_shape,
    compiled,
    fields,
    inside,
    prepare,
    run,
    spectral_norm,
    step_jacobian,
)

# sup |phi'|, for activations of the Elman cell and its kin.
STEEPEST = {
    jnp.tanh: 1.0,
    jax.nn.sigmoid: 0.25,
    jax.nn.relu: 1.0,
    jax.nn.softplus: 1.0,
    jax.nn.hard_tanh: 1.0,
    jnp.sin: 1.0,
}
MEASURED = "measured: the norm of each step's Jacobian along this run"


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Proof:
    """How a bound is known; static under `jax.jit`.

    Attributes:
      proven: Whether the bound holds for every state that the cell can reach; False:
        it is the norm along this run, which tells nothing of another.
      label: How it is known, in words.
      fields: The names of the state's fields, in the order of the bound's blocks.
    """

    proven: bool
    label: str
    fields: tuple[str, ...]


class JacobianBound(NamedTuple):
    """Upper bounds on the norm of a step's Jacobian, and how they are known.

    log ||ds_t/ds_k|| is at most `log_steps[k:t].sum(0)`, which is at most
    `(t - k) * log_beta`.

    Attributes:
      log_steps: log beta_t of each step, (T, *batch).
      log_beta: log beta, the largest of these, (*batch,).
      blocks: Bounds on the norms of the blocks of J_t, (T, *batch, F, F) for F fields:
        entry [..., i, j] is of field j of s_t by field i of s_{t-1}. The matrix product
        of the blocks of steps k+1..t bounds the blocks of ds_t/ds_k.
      proof: Whether it is proven, and how.
    """

    log_steps: Float[Array, "T *batch"]
    log_beta: Float[Array, "*batch"]
    blocks: Float[Array, "T *batch F F"]
    proof: Proof

    @property
    def proven(self) -> bool:
        """Whether it holds for every state that the cell can reach."""
        return self.proof.proven

    @property
    def label(self) -> str:
        """How it is known, in words."""
        return self.proof.label


def jacobian_bound(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
) -> JacobianBound:
    r"""Returns the notes' beta: a bound on how much a step stretches a gradient.

    .. math:: \left\| \frac{ds_t}{ds_k} \right\|
      \le \prod_{j=k+1}^{t} \beta_j \le \beta^{t-k}

    Over the whole flattened state, in the spectral norm. Proven for `elman` and
    `ind_rnn` with a known activation, for every cell that is linear in its state, for
    `gru`, and for `lstm` without peepholes or projection; the proofs stand in the
    module. For any other cell, a stack included, it is measured, and says so.

    Args:
      cell: Any cell that reads forwards alone.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      state: Where the sequence starts; None takes `cell.init_state`.

    Returns:
      The bound; `proven` and `label` tell which it is.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; or the cell reads in both directions.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3, activation=jax.nn.sigmoid)
      >>> params = cell.init(jax.random.key(0))  # W_h is orthogonal: s(W_h) = 1
      >>> bound = jrnn.diagnostics.jacobian_bound(cell, params, jnp.ones((4, 2)))
      >>> bound.proven, round(float(jnp.exp(bound.log_beta)), 4)
      (True, 0.25)
    """
    xs, state = prepare(cell, params, xs, state)
    inner, inner_params = inside(cell, params)
    way = _way(inner)
    log_steps, blocks = _bounded(inner, inner_params, xs, state, way.bound)
    names = tuple(fields(state, len(batch_shape(xs))))
    proof = Proof(way.proven, way.label, names)
    return JacobianBound(log_steps, log_steps.max(axis=0), blocks, proof)


class _Way(NamedTuple):
    """How a cell is bounded: (cell, params, run, lead) -> (log beta_t, blocks)."""

    bound: Callable[[Cell, Params, Run, int], tuple[Array, Array]]
    proven: bool
    label: str


def _way(cell: Cell) -> _Way:
    name, arguments = cell.spec.name, dict(cell.spec.arguments)
    if cell.linear is not None:
        label = "proven: J does not depend on the state; its norm for these inputs"
        return _Way(_measured, True, label)
    if name in ("elman", "ind_rnn") and arguments["activation"] in STEEPEST:
        return _Way(_elman, True, "proven: sup|phi'| s(W_h)")
    if name == "gru":
        return _Way(_gru, True, "proven: (1 + B^2)^(1/2) + (1 + m) s(W_z) / 4")
    if name == "lstm" and not arguments["peepholes"]:
        if arguments["projection_size"] is None:
            label = "proven: the norm of the matrix of bounds on the blocks of J"
            return _Way(_lstm, True, label)
    return _Way(_measured, False, MEASURED)


@compiled("bound")
def _bounded(
    cell: Cell, params: Params, xs: Array, state: State, bound: Callable
) -> tuple[Array, Array]:
    return bound(cell, params, run(cell, params, xs, state), len(batch_shape(xs)))


def _measured(cell: Cell, params: Params, done: Run, lead: int) -> tuple[Array, Array]:
    places = list(fields(done.final, lead).values())

    def step(_: None, inputs: Any) -> tuple[None, tuple[Array, Array]]:
        state_tm1, u = inputs
        J = step_jacobian(cell, params, state_tm1, u, lead)
        rows = [
            jnp.stack([spectral_norm(J[..., i, j]) for j in places], axis=-1)
            for i in places
        ]
        return None, (jnp.log(spectral_norm(J)), jnp.stack(rows, axis=-2))

    return jax.lax.scan(step, None, (done.states_tm1, done.us))[1]


def _elman(cell: Cell, params: Params, done: Run, lead: int) -> tuple[Array, Array]:
    steepest = STEEPEST[dict(cell.spec.arguments)["activation"]]
    h = jax.tree.leaves(done.states_tm1)[0]
    if cell.spec.name == "ind_rnn":
        size = jnp.abs(params.w_h).max()
    else:
        size = spectral_norm(params.W_h.astype(h.dtype))
    return _same(steepest * size.astype(h.dtype), h.shape[: 1 + lead])


def _gru(cell: Cell, params: Params, done: Run, lead: int) -> tuple[Array, Array]:
    h = done.states_tm1.h
    W_r, W_z, W_n = split_gates(params.W_h.astype(h.dtype), 3)
    m = _reach(h[0])
    if dict(cell.spec.arguments)["reset_after"]:
        columns = jnp.abs(W_n).sum(axis=0)
        b_h = jnp.zeros_like(columns) if params.b_h is None else jnp.abs(params.b_h)
        row = lambda vector: expand(vector.astype(h.dtype), m.ndim + 1)
        Q = (m[..., None] * row(columns) + row(b_h)).max(axis=-1)
        B = spectral_norm(W_n) + Q * spectral_norm(W_r) / 4
    else:
        B = spectral_norm(W_n) * (1 + m * spectral_norm(W_r) / 4)
    beta = jnp.sqrt(1 + B * B) + (1 + m) * spectral_norm(W_z) / 4
    return _same(beta, h.shape[: 1 + lead])


def _lstm(cell: Cell, params: Params, done: Run, lead: int) -> tuple[Array, Array]:
    del cell, lead
    h, c = done.states_tm1.h, done.states_tm1.c
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
        return C, jnp.stack([by_h, by_c], axis=-2)

    blocks = jax.lax.scan(step, jnp.abs(c[0]), done.us)[1]
    return jnp.log(spectral_norm(blocks)), blocks


def _reach(h_0: Array) -> Array:
    """Returns m = max(1, max|h_0|), which no |h_t| exceeds."""
    return jnp.maximum(jnp.abs(h_0).max(axis=-1), 1)


def _same(beta: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns one bound for every step, of a state that has one field."""
    betas = jnp.broadcast_to(expand(beta, len(shape)), shape)
    return jnp.log(betas), betas[..., None, None]
