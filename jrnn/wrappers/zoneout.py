"""Zoneout: units keep their past state at random.

    s_t = d_t * s_{t-1} + (1 - d_t) * s'_t              with a key
    s_t = rate * s_{t-1} + (1 - rate) * s'_t            without, the expectation

Noise is drawn before the loop, so that it is the same under every method.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Key, Linear, Params, State
from jrnn.core.check import check_rate, expected_state
from jrnn.core.claims import claim, factor_view, mixed
from jrnn.core.memoize import memoize
from jrnn.core.products import expand
from jrnn.core.seams import noise_of
from jrnn.wrappers._wiring import check_inner, inside


@memoize
def zoneout(cell: Cell, rate: float | tuple[float, ...]) -> Cell:
    """Makes a cell whose units keep their past state at random (Krueger et al. 2017).

    With s' the next state of `cell`, and d_t for each unit, 1 with probability `rate`:

        s_t = d_t * s_{t-1} + (1 - d_t) * s'_t              with a key
        s_t = rate * s_{t-1} + (1 - rate) * s'_t            without, the expectation

    Source: https://arxiv.org/abs/1606.01305.

    Args:
      cell: Any cell without children; in a stack, wrap each child instead.
      rate: In [0, 1): one number, or one for each array of the state in its order,
        such as (0.05, 0.5) for h and c of an LSTM.

    Returns:
      A cell with the params and state of `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `rate` is out of range or has another length than the state, or `cell`
        has children.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.wrappers.zoneout(jrnn.lstm(3, 4), (0.05, 0.5))
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs, key=jax.random.key(1))[1].shape
      (7, 4)
    """
    cell = check_inner("zoneout", cell)
    like = expected_state(cell)
    count = len(jax.tree.leaves(like))
    rates = rate if isinstance(rate, tuple) else (rate,) * count
    for one in rates:
        check_rate("rate", one)
    if len(rates) != count:
        raise ValueError(
            f"Expected one rate, or {count}, one for each array of the state of "
            f"{cell}, got {rate}."
        )
    if cell.linear is not None and cell.linear.start is not None:
        rates = _without_fresh(cell, rate, rates)
    each = jax.tree.unflatten(jax.tree.structure(like), rates)

    def noise(key: Key, steps: int, batch_shape: tuple[int, ...]) -> Any:
        key_cell, *keys = jax.random.split(key, count + 1)
        leaves = [
            jax.random.bernoulli(keys[i], rates[i], (steps, *batch_shape, *leaf.shape))
            for i, leaf in enumerate(jax.tree.leaves(like))
        ]
        kept = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return kept, noise_of(cell, key_cell, steps, batch_shape)

    def advance(params: Params, state: State, u: Any, kept: Any) -> State:
        new = cell.advance(params, state, u)
        if kept is not None:
            return jax.tree.map(jnp.where, kept, state, new)
        mix = lambda rate, old, moved: rate * old + (1 - rate) * moved
        return jax.tree.map(mix, each, state, new)

    linear = _linear_zoneout(cell, each)
    made = inside("zoneout", cell, noise, advance, linear, rate=rate)
    gates = made.gates
    if linear is not None and gates is not None:
        gates = factor_view(linear, tuple(name for name, _ in gates.ranges))
    return claim(made, gates=gates, bound=mixed(made.bound, rates))


def _without_fresh(
    cell: Cell, rate: Any, rates: tuple[float, ...]
) -> tuple[float, ...]:
    """Returns the rates of a cell with a `fresh` array in its state: 0 for `fresh`."""
    if isinstance(rate, tuple) and rate[1] != 0:
        raise ValueError(
            f"Expected a rate of 0 for the second array of the state of {cell}, which "
            f"says where a sequence starts, got {rate}; pass ({rate[0]}, 0.0)."
        )
    return rates[0], 0.0


def _linear_zoneout(cell: Cell, rates: State) -> Linear | None:
    """Returns the seam of a diagonal linear cell, with a mixed with 1 and b with 0."""
    if cell.linear is None or cell.linear.full:
        return None
    inner = cell.linear.coefficients

    def coefficients(params: Params, u: Any) -> tuple[State, State]:
        u, kept = u
        a, b = inner(params, u)
        if kept is None:
            mixed = jax.tree.map(lambda rate, x: rate + (1 - rate) * x, rates, a)
            return mixed, jax.tree.map(lambda rate, y: (1 - rate) * y, rates, b)
        one = lambda keep, x: jnp.where(
            keep, jnp.ones((), x.dtype), expand(x, keep.ndim)
        )
        zero = lambda keep, y: jnp.where(keep, jnp.zeros_like(y), y)
        return jax.tree.map(one, kept, a), jax.tree.map(zero, kept, b)

    def start(params: Params, u: Any) -> Array:
        assert cell.linear is not None
        assert cell.linear.start is not None
        u, kept = u
        e = cell.linear.start(params, u)
        if kept is None:
            return (1 - jax.tree.leaves(rates)[0]) * e
        return jnp.where(jax.tree.leaves(kept)[0], jnp.zeros_like(e), e)

    return Linear(coefficients, start=None if cell.linear.start is None else start)
