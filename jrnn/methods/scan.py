"""A plain `jax.lax.scan` over the steps, differentiated by JAX.

    s_t = advance(params, s_{t-1}, u_t)

The input's share u = project(params, xs) and the outputs are computed for the whole
sequence at once; the loop contains only the recurrent share. Every transformation of
JAX works, including forward mode. Its reverse mode adds a weight-shaped gradient to the
carry at each step; `jrnn.bptt` does not.
"""

from typing import Any

import jax

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.countable import check_countable
from jrnn.core.flags import advance_flagged
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Shown, Wanted, all_at_once, show_steps
from jrnn.core.products import Precision, check_precision, products_at, split_gates
from jrnn.core.seams import noisy_project


@memoize
def scan(*, unroll: int = 1, precision: Precision = None) -> Method:
    """Makes the method that runs `jax.lax.scan` and is differentiated by JAX.

    Args:
      unroll: How many steps each iteration of the compiled loop runs.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None: JAX's default.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`.

    Raises:
      ValueError: `unroll` is below 1.

    Example:
      >>> import jrnn
      >>> jrnn.scan(precision="highest") == jrnn.scan(precision="highest")
      True
    """
    unroll = check_size("unroll", unroll)
    check_precision(precision)
    return Method(_run, (("unroll", unroll), ("precision", precision)))


def _run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    unroll: int,
    precision: Precision,
) -> tuple[State, Shown]:
    if not jax.tree.leaves(state):
        return all_at_once(cell, wanted, params, state, sequence, precision)
    check_countable(sequence.steps, "jrnn.scan()")
    xs, noise, active, restart, fresh, _ = sequence

    def step(state: State, inputs: Any) -> tuple[State, State]:
        u, active, restart = inputs
        state = advance_flagged(cell, params, state, u, active, restart, fresh)
        return state, state

    with products_at(precision):
        us = noisy_project(cell.project, params, xs, noise)
        if cell.gated is not None:  # split here, not in the loop
            us = split_gates(us, cell.gated.gates)
        state, states = jax.lax.scan(step, state, (us, active, restart), unroll=unroll)
        return state, show_steps(cell, wanted, params, states, xs)
