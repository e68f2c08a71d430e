r"""The notes' upper bound on how far gradients travel: beta^(t-k).

    ||ds_t/ds_k|| <= ||J_{k+1}|| ... ||J_t|| <= beta_{k+1} ... beta_t <= beta^(t-k)

A bound is *proven* if beta_t >= ||J_t|| for every state that the cell can reach, and
*measured* if it is the norm along this one run. A cell provides its proof in its field
`bound`; the proof applies to the functions for which it was made, not to a cell in
which one of them is replaced. The proofs are in `jrnn.cells._jacobian_bounds`. If the
state or the input of a step contains NaN, its bound is NaN.

The notes' beta is Bengio et al. 1994, https://doi.org/10.1109/72.279181, and Pascanu et
al. 2013, https://arxiv.org/abs/1211.5063, section 2.1.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.cell import Cell, Params, State, StepBound
from jrnn.core.claims import held, share_kept
from jrnn.core.products import expand, spectral_norm
from jrnn.core.seams import prepared
from jrnn.diagnostics._run import (
    Run,
    batch_shape,
    compiled,
    fields,
    flatten,
    prepare,
    run,
    step_jacobian,
)

MEASURED = "measured: the norm of each step's Jacobian along this run"


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Proof:
    """Whether a bound is proven, and how; static under `jax.jit`.

    Attributes:
      proven: Whether the bound holds for every state that the cell can reach from this
        start (for an LSTM and cells that are linear in their state: with these inputs).
        False: it is the norm along this run and does not apply to another.
      label: The proof or measurement, in words.
      fields: The names of the state's fields, in the order of the bound's blocks.
    """

    proven: bool
    label: str
    fields: tuple[str, ...]


class JacobianBound(NamedTuple):
    """Upper bounds on the norm of each step's Jacobian, with their proof.

    log ||ds_t/ds_k|| is at most `log_steps[k:t].sum(0)`, which is at most
    `(t - k) * log_beta`.

    Attributes:
      log_steps: log beta_t of each step, (T, *batch).
      log_beta: log beta, the largest of these, (*batch,).
      blocks: Bounds on the norms of the blocks of J_t, (T, *batch, F, F) for F fields:
        entry [..., i, j] bounds the Jacobian of field j of s_t with respect to field i
        of s_{t-1}. The matrix product of the blocks of steps k+1..t bounds the blocks
        of ds_t/ds_k.
      proof: Whether it is proven, and how.
    """

    log_steps: Float[Array, "T *batch"]
    log_beta: Float[Array, "*batch"]
    blocks: Float[Array, "T *batch F F"]
    proof: Proof

    @property
    def proven(self) -> bool:
        """Whether the bound holds for every state that the cell can reach."""
        return self.proof.proven

    @property
    def label(self) -> str:
        """The proof or measurement, in words."""
        return self.proof.label


def jacobian_bound(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
) -> JacobianBound:
    r"""Returns the notes' beta: an upper bound on how much a step grows a gradient.

    .. math:: \left\| \frac{ds_t}{ds_k} \right\|
      \le \prod_{j=k+1}^{t} \beta_j \le \beta^{t-k}

    The norm is the spectral norm over the whole flattened state. The bound is proven
    for `elman` and `ind_rnn` with a known activation, for every cell that is linear in
    its state, for `exp_rnn`, `antisymmetric_rnn`, `gru`, and `lstm` without peepholes
    or projection, and for these inside `orthogonal`, `zoneout`,
    `learned_initial_state`, `residual` and dropout of either kind. For any other cell
    it is measured: a stack, a cell with a replaced function, your own cell without a
    `bound`.

    Args:
      cell: Any cell that reads only forwards.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      state: The initial state; None: `cell.init_state`.

    Returns:
      The bound; `proven` and `label` state whether it is proven or measured.

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
    return _bounded(cell, params, xs, state)


@compiled()
def _bounded(cell: Cell, params: Params, xs: Array, state: State) -> JacobianBound:
    done, lead = run(cell, params, xs, state), len(batch_shape(xs))
    params = prepared(cell, params)
    bound = held(cell, cell.bound)
    if bound is None or bound.blocks is None:
        log_steps, blocks = _measured(cell, params, done, lead)
    else:
        log_steps, blocks = _proven(bound, params, done, lead)
    label = MEASURED if bound is None else bound.label
    proof = Proof(bound is not None, label, tuple(fields(state, lead)))
    return JacobianBound(log_steps, log_steps.max(axis=0), blocks, proof)


def _proven(
    bound: StepBound, params: Params, done: Run, lead: int
) -> tuple[Array, Array]:
    """Returns log beta_t and bounds on the blocks; NaN where a step's input is NaN."""
    assert bound.blocks is not None
    count = len(fields(done.final, lead))
    read = [flatten(tree, lead + 1) for tree in (done.states_tm1, done.us)]
    kept = share_kept(bound, count, read[0])
    blocks = bound.blocks(params, done.states_tm1, done.us, kept)
    # Zoneout's step; each column of blocks contributes to one array of the state.
    blocks = blocks * expand(1 - kept, blocks.ndim)
    blocks = blocks + expand(jnp.diag(kept), blocks.ndim)
    lost = jnp.isnan(jnp.concatenate(read, axis=-1)).any(axis=-1)
    blocks = jnp.where(lost[..., None, None], jnp.nan, blocks)
    beta = blocks[..., 0, 0] if count == 1 else spectral_norm(blocks)
    return jnp.log(beta), blocks


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
