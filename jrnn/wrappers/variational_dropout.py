"""Variational dropout of h_{t-1}, with one mask for each sequence.

    h'_{t-1} = d * h_{t-1} / (1 - rate),   d = 1 with probability 1 - rate, else 0

The mask d is the same at every step. It is drawn before the loop, so that it is the
same under every method.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_rate, expected_state
from jrnn.core.memoize import memoize
from jrnn.core.products import split_gates
from jrnn.core.seams import noise_of, recur
from jrnn.wrappers._wiring import check_inner, inside


@memoize
def variational_dropout(cell: Cell, rate: float) -> Cell:
    """Makes a cell with dropout of h_{t-1} in its recurrent product.

    There is one mask for each sequence, the same at every step (Gal and Ghahramani
    2016, https://arxiv.org/abs/1512.05287). Units that are kept are divided by
    1 - rate. In a gated cell (`Cell.gated`), such as an LSTM or a GRU with the reset
    after the product, the mask applies only to the product; in any other cell, to all
    that reads h.

    Args:
      cell: Any cell with a field h in its state, without children; in a stack, wrap
        each child instead.
      rate: Probability that a unit is dropped, in [0, 1).

    Returns:
      A cell with the params and state of `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `rate` is out of range, the state has no h, or `cell` has children.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.wrappers.variational_dropout(jrnn.lstm(3, 4), 0.25)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs, key=jax.random.key(1))[1].shape
      (7, 4)
    """
    cell = check_inner("variational_dropout", cell)
    check_rate("rate", rate)
    like = expected_state(cell)
    if not hasattr(like, "h"):
        raise ValueError(
            f"Expected a cell whose state has a field h, got {cell} with "
            f"{type(like).__name__}."
        )

    def noise(key: Key, steps: int, batch_shape: tuple[int, ...]) -> Any:
        key_h, key_cell = jax.random.split(key)
        shape = (*batch_shape, *like.h.shape)
        kept = jax.random.bernoulli(key_h, 1 - rate, shape)
        kept = jnp.broadcast_to(kept, (steps, *shape))
        return kept, noise_of(cell, key_cell, steps, batch_shape)

    def advance(params: Params, state: State, u: Any, kept: Any) -> State:
        if kept is None:
            return cell.advance(params, state, u)
        h = jnp.where(kept, state.h / (1 - rate), jnp.zeros_like(state.h))
        masked = state._replace(h=h)
        if cell.gated is None:
            return cell.advance(params, masked, u)
        gates, v = cell.gated.gates, recur(cell.gated, params, masked)
        return cell.gated.pointwise(
            state, split_gates(u, gates), split_gates(v, gates)
        )[0]

    return inside("variational_dropout", cell, noise, advance, rate=rate)
