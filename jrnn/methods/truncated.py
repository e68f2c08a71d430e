"""Truncated backpropagation through time, with a window and a stride.

Every `stride` steps, the loss on the last `stride` outputs flows back through the last
`window` steps and no further: BPTT(window; stride) of R. J. Williams and J. Peng, An
efficient gradient-based algorithm for on-line training of recurrent network
trajectories, Neural Computation 2 (1990), https://doi.org/10.1162/neco.1990.2.4.490.

The outputs are those of the whole sequence. It is first run once without gradients, to
get the state before each window. Then all windows are run side by side, as another axis
of the batch, and the outputs of each window's last `stride` steps are kept.
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
from jrnn.core.countable import check_countable, check_fixed
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Truncation
from jrnn.methods.bptt import bptt

Run = Callable[[Params, State, Sequence], tuple[State, Any]]


@memoize
def truncated(
    window: int, *, stride: int | None = None, method: Method | None = None
) -> Method:
    """Makes a method whose gradients go back at most `window` steps.

    If `window` is at least T, gradients are those of the whole sequence. The gradients
    of outputs, of trajectories and of the final state are all truncated, that of the
    final state counting from the last active step. A `stack` is cut as a whole, but
    layer by layer if it contains cells that read in both directions. The windows run at
    the same time, which takes memory for window / stride times T steps;
    `method=jrnn.bptt(remat=1)` needs less. To train on a stream use
    `jrnn.train.windows`, which carries the state over and keeps one window at a time.

    Args:
      window: How many steps the gradient of an output may flow back through, its own
        included; for the first output of a stride, window - stride + 1.
      stride: How many outputs share a window, at most `window`. None takes `window`:
        the pieces do not overlap. 1 gives each output a full window, at `window` times
        the work.
      method: The method that runs the windows; None takes `jrnn.bptt()`.

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
      run: (params, state, sequence) -> (final state, results of each step).
      trace: The same, but its results are the state after every step.
      params: Of the cell.
      state: The initial state.
      sequence: In the order in which it is read.

    Returns:
      What `run` returns for the whole sequence, with truncated gradients.
    """
    window, stride = truncation
    steps = sequence.steps
    check_fixed((steps,), "jrnn.truncated()")
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
    """Returns the state before each window; the first state if it begins before 0."""
    over = (begins > 0).reshape(-1, *(1,) * first.ndim)
    return jnp.where(over, states[jnp.maximum(begins - 1, 0)], first[None])


def _windows(sequence: Sequence, begins: Int[Array, " count"], window: int) -> Sequence:
    """Returns all windows side by side; steps before step 0 are inactive."""
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
    """Returns the state after each sequence's last active step, from its window."""
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
