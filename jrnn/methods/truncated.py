"""Truncated backpropagation through time, with a window and a stride.

Every `stride` steps, the loss on the last `stride` outputs flows back through the last
`window` steps and no further: BPTT(window; stride) of R. J. Williams and J. Peng, An
efficient gradient-based algorithm for on-line training of recurrent network
trajectories, Neural Computation 2 (1990), https://doi.org/10.1162/neco.1990.2.4.490.

Outputs are those of the whole sequence. First it is walked once without gradients, for
the state before each window. Then all windows are walked side by side, as one more axis
of the batch, and what a window shows of its last `stride` steps is taken.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jrnn.core.arguments import check_size
from jrnn.core.cell import Params, State
from jrnn.core.check import check_method
from jrnn.core.countable import check_countable
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Truncation
from jrnn.methods.bptt import bptt

Run = Callable[[Params, State, Sequence], tuple[State, Any]]


@memoize
def truncated(
    window: int, *, stride: int | None = None, method: Method | None = None
) -> Method:
    """Makes a method whose gradients go back at most `window` steps.

    With `window` of at least T, gradients are those of the whole sequence. All that a
    sequence shows flows back so: of its final state, from the last step that counts. A
    `stack` is cut as a whole; where it holds cells that read in both directions, each
    of its layers is. The windows are walked at the same time, which takes memory for
    window / stride times T steps; `method=jrnn.bptt(remat=1)` needs less, and to train
    on a stream, `jrnn.train.windows` hands the state on and holds one window at a time.

    Args:
      window: How many steps the gradient of an output may flow back through, its own
        included; of the first output of a stride, window - stride + 1.
      stride: How many outputs share a window, at most `window`; None takes `window`,
        so that the sequence is cut into pieces that do not overlap. 1 gives each
        output a full window, at `window` times the work.
      method: What walks the windows; None takes `jrnn.bptt()`.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`.

    Raises:
      TypeError: A number is not an integer, or `method` is not a method.
      ValueError: `window` or `stride` is below 1, `stride` is above `window`, or
        `method` is truncated itself.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.gru(3, 4)
      >>> params, method = cell.init(jax.random.key(0)), jrnn.truncated(2)
      >>> run = lambda xs: jrnn.unroll(cell, params, xs, method=method)[1]
      >>> dxs = jax.grad(lambda xs: run(xs)[7].sum())(jnp.ones((9, 3)))
      >>> dxs.any(axis=1).nonzero()[0].tolist()
      [6, 7]
    """
    window = check_size("window", window)
    stride = window if stride is None else check_size("stride", stride)
    if stride > window:
        raise ValueError(
            f"Expected a stride of at most window={window}, got {stride}: outputs "
            "between the windows would have no gradient."
        )
    method = bptt() if method is None else method
    check_method(method)
    if method.truncation is not None:
        raise ValueError(
            f"Expected a method that is not truncated itself, got {method.truncation}."
        )
    return dataclasses.replace(method, truncation=Truncation(window, stride))


def by_windows(
    truncation: Truncation,
    run: Run,
    trace: Run,
    params: Params,
    state: State,
    sequence: Sequence,
) -> tuple[State, Any]:
    """Runs a sequence in windows.

    Args:
      truncation: Window and stride.
      run: (params, state, sequence) -> (final state, what is shown).
      trace: The same, but it shows the state after every step.
      params: Of the cell.
      state: Where the sequence starts.
      sequence: In the order in which it is read.

    Returns:
      As `run` does for the whole sequence, with gradients cut.
    """
    window, stride = truncation
    steps = sequence.steps
    if window >= steps:
        return run(params, state, sequence)
    check_countable(steps, "jrnn.truncated()")
    fixed = jax.tree.map(jax.lax.stop_gradient, (params, state, sequence))
    states = trace(*fixed)[1]
    count = -(-steps // stride)
    ends = jnp.minimum((jnp.arange(count) + 1) * stride, steps)
    begins = ends - window
    starts = jax.tree.map(lambda *leaves: _before(begins, *leaves), state, states)
    last, shown = run(params, starts, _windows(sequence, begins, window))
    t = jnp.arange(steps)
    shown = jax.tree.map(lambda leaf: leaf[t - begins[t // stride], t // stride], shown)
    return _final(last, sequence, stride), shown


def _before(begins: Int[Array, " count"], first: Array, states: Array) -> Array:
    """Returns the state before each window; where one overhangs, the first."""
    over = (begins > 0).reshape(-1, *(1,) * first.ndim)
    return jnp.where(over, states[jnp.maximum(begins - 1, 0)], first[None])


def _windows(sequence: Sequence, begins: Int[Array, " count"], window: int) -> Sequence:
    """Returns all windows side by side; steps before the first are inactive."""
    index = begins[None] + jnp.arange(window)[:, None]  # (window, count)
    inside = index >= 0
    taken = jax.tree.map(
        lambda leaf: leaf[jnp.maximum(index, 0)], sequence._replace(fresh=None)
    )

    def within(flags: Array) -> Array:
        return flags & inside.reshape(inside.shape + (1,) * (flags.ndim - 2))

    return taken._replace(
        active=inside if taken.active is None else within(taken.active),
        restart=None if taken.restart is None else within(taken.restart),
        fresh=jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf[None], (begins.size, *leaf.shape)),
            sequence.fresh,
        ),
    )


def _final(last: State, sequence: Sequence, stride: int) -> State:
    """Picks the state after each sequence's own last step, from its own window."""
    if sequence.active is None:
        return jax.tree.map(lambda leaf: leaf[-1], last)
    moving = sequence.active
    if sequence.restart is not None:
        moving = moving | sequence.restart
    t = jnp.arange(sequence.steps).reshape(-1, *(1,) * (moving.ndim - 1))
    index = jnp.where(moving, t, 0).max(axis=0) // stride

    def pick(leaf: Array) -> Array:
        places = index.reshape(1, *index.shape, *(1,) * (leaf.ndim - 1 - index.ndim))
        return jnp.take_along_axis(leaf, places, axis=0)[0]

    return jax.tree.map(pick, last)
