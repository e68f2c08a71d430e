r"""Gate statistics: the mean of each gate, and how often it is saturated.

A saturated gate passes little gradient to its argument: its slope is near 0. Low and
high are the outer tenths of a gate's range, as in the figures of Karpathy et al. 2015,
https://arxiv.org/abs/1506.02078, section 4.2.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.cell import Cell, Params, State
from jrnn.core.check import check_cell
from jrnn.core.claims import held
from jrnn.core.seams import prepared
from jrnn.core.tree import Leaf, leaves, walk
from jrnn.diagnostics._run import after, begin, compiled, run

TENTH = 0.1
Gate = tuple[Array, tuple[float, float]]


class GateStatistics(NamedTuple):
    """Statistics of each unit of a gate, over time and batch.

    All are NaN for a unit that is NaN at any step.

    Attributes:
      mean: The mean.
      low: The share of steps in the lowest tenth of the gate's range.
      high: The share of steps in the highest tenth.
    """

    mean: Float[Array, " n"]
    low: Float[Array, " n"]
    high: Float[Array, " n"]


def gate_statistics(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
) -> dict[str, GateStatistics]:
    r"""Returns the mean of each gate along a sequence, and how often it is saturated.

    The gates and their ranges:

    - `gru`, `diagonal_gru`, `layer_norm_gru`: r, z (0 to 1) and n (-1 to 1);
    - `lstm`, `diagonal_lstm`, `layer_norm_lstm`: i, f, o (0 to 1), g and tanh_c (-1 to
      1), computed from the normalised c if there is one; no i if gates are coupled;
    - `lem`: s, r (0 to dt), n and m (-1 to 1);
    - `antisymmetric_rnn`: z (0 to 1) if it is gated, and n (-1 to 1);
    - `co_rnn`: tanh_a (-1 to 1), the force on the oscillators;
    - a cell that is linear in its state with an elementwise factor: the modulus of that
      factor as "a" (0 to 1), the share of the past that is kept;
    - `elman`, `ind_rnn`, `layer_norm_elman`: h, if the activation is tanh, sin, hard
      tanh, soft sign (-1 to 1), the logistic function or its hard version (0 to 1); it
      shows where the activation has lost its slope.

    An unbounded state has no outer tenths: `exp_rnn` and a relu are left out. Wrappers
    are ignored: for `zoneout` the gates are those of the wrapped step. A cell defines
    its gates in its field `gates`; a cell with a replaced function raises ValueError.

    Args:
      cell: Any cell; each layer of a stack and each direction of a pair is separate.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      state: The initial state; None: `cell.init_state`.

    Returns:
      For each gate, such as "f", or "[1].f" in a stack, its statistics.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; or the gates of the cell, or of one inside, are not
        known.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.lstm(2, 3, forget_bias=5.0)
      >>> params = cell.init(jax.random.key(0))
      >>> found = jrnn.diagnostics.gate_statistics(cell, params, jnp.zeros((4, 2)))
      >>> found["f"].high.tolist(), found["i"].high.tolist()
      ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """
    check_cell(cell)
    _check_views(cell)
    return _saturation(cell, params, *begin(cell, params, xs, state))


@compiled()
def _saturation(
    cell: Cell, params: Params, xs: Array, state: State
) -> dict[str, GateStatistics]:
    params, found = prepared(cell, params), {}

    def visit(leaf: Leaf, xs: Array, noise: None) -> tuple[Array]:
        del noise
        turn = functools.partial(jnp.flip, axis=0) if leaf.reverse else lambda x: x
        ys, gates = _gates(leaf, leaf.share(params), turn(xs), leaf.share(state))
        found.update(gates)
        return (turn(ys),)

    walk(cell, visit, xs)
    return {name: _statistics(*gate) for name, gate in found.items()}


def _gates(
    leaf: Leaf, params: Params, xs: Array, state: State
) -> tuple[Array, dict[str, Gate]]:
    """Runs one cell; returns its outputs and its gates."""
    cell, done = leaf.cell, run(leaf.cell, params, xs, state)
    ys = cell.output(params, after(done.states_tm1, done.final), xs)
    join = f"{leaf.name}." if leaf.name else ""
    assert cell.gates is not None
    gates = cell.gates.read(params, done.states_tm1, done.us)
    return ys, {join + name: (gates[name], span) for name, span in cell.gates.ranges}


def _check_views(cell: Cell) -> None:
    """Raises ValueError unless the gates of the cell and of all inside are known."""
    for leaf in leaves(cell):
        for one in leaf.cells:
            if held(one, one.gates) is None:
                raise ValueError(
                    f"Expected a cell with known gates, got {one}, which has no "
                    "`gates` made for its present functions: one of them was replaced, "
                    "or it is your own cell; define its gates with "
                    "jrnn.diagnostics.claim(cell, "
                    "gates=jrnn.diagnostics.GateView(...))."
                )


def _statistics(gate: Array, span: tuple[float, float]) -> GateStatistics:
    edge = TENTH * (span[1] - span[0])
    rows = gate.reshape(-1, gate.shape[-1])
    mean = rows.mean(axis=0)

    def share(flags: Array) -> Array:
        # A comparison with NaN is False and would count as not saturated.
        known = flags.mean(axis=0, dtype=rows.dtype)
        return jnp.where(jnp.isnan(mean), jnp.nan, known)

    return GateStatistics(
        mean=mean,
        low=share(rows < span[0] + edge),
        high=share(rows > span[1] - edge),
    )
