r"""Linear memory capacity: how well a linear readout of the state recalls past inputs.

Jaeger's memory capacity drives a cell by independent inputs nu_t, and for each delay k
fits a linear readout of the state to nu_{t-k},

.. math:: MC_k = \max_w \frac{\mathrm{cov}^2(\nu_{t-k}, s_t w)}
  {\mathrm{var}(\nu_t) \, \mathrm{var}(s_t w)}, \quad MC = \sum_{k \ge 1} MC_k .

A state of n numbers has a capacity of at most n. Readouts are fitted on the first half
of the run and evaluated on the second, of m steps. Two independent sequences have
r^2 = 1 / (m - 1) there on average; it is subtracted, as otherwise many delays without
memory would add up to some:

.. math:: MC_k = \frac{r_k^2 - 1 / (m - 1)}{1 - 1 / (m - 1)} .

Source: H. Jaeger, Short term memory in echo state networks, GMD report 152 (2001),
https://doi.org/10.24406/publica-fhg-291107.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.arguments import check_real, check_size
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_cell, check_no_elapsed, check_params
from jrnn.core.check_draws import check_given_key
from jrnn.core.constants import own_constants
from jrnn.core.dtypes import state_dtype
from jrnn.diagnostics._run import after, compiled, flatten, prepare, run


class MemoryCapacity(NamedTuple):
    """The memory capacity, by delay and in total.

    Attributes:
      by_delay: MC_k for k = 0..max_delay, summed over input features; k = 0, the input
        just read, does not count as memory. Without memory it scatters around 0 and may
        be negative. NaN if the run is not finite.
      total: MC, the sum over k = 1..max_delay.
    """

    by_delay: Float[Array, " delays"]
    total: Float[Array, ""]


@own_constants
def memory_capacity(
    cell: Cell,
    params: Params,
    key: Key,
    *,
    max_delay: int,
    steps: int = 2000,
    washout: int | None = None,
    scale: float = 1.0,
) -> MemoryCapacity:
    r"""Returns the linear memory capacity of a cell, by delay and in total.

    Args:
      cell: Any cell that reads floats, only forwards.
      params: Its parameters.
      key: Draws the inputs, uniform in (-scale, scale), independent for each feature.
      max_delay: The longest delay k.
      steps: The number of steps measured: half to fit, half to evaluate.
      washout: The number of steps before these, in which the cell forgets its initial
        state; at least `max_delay`. None: the larger of 100 and `max_delay`.
      scale: The scale of the inputs. Large inputs drive a network out of its linear
        range, which costs memory.

    Returns:
      The capacities.

    Raises:
      TypeError: A number is not an integer, or `key` is not a key.
      ValueError: The cell reads in both directions; `washout` is below `max_delay`; or
        fewer than two steps per number of the state would be fitted; or an input
        feature of the cell is elapsed time.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(1, 3, activation=jrnn.activations.linear, bias=False)
      >>> params = cell.init(jax.random.key(0))  # then a delay line: h_i = x_{t-i}
      >>> params = params._replace(W_x=jnp.eye(1, 3), W_h=jnp.eye(3, k=1))
      >>> found = jrnn.diagnostics.memory_capacity(
      ...     cell, params, jax.random.key(1), max_delay=4)
      >>> [round(float(capacity), 2) for capacity in found.by_delay[:3]]
      [1.0, 1.0, 1.0]
    """
    check_cell(cell)
    check_no_elapsed("memory_capacity", cell, "its inputs are drawn at random")
    check_params(cell, params)
    max_delay = check_size("max_delay", max_delay)
    steps = check_size("steps", steps, least=4)
    washout = max(100, max_delay) if washout is None else washout
    washout = check_size("washout", washout, least=max_delay)
    key = check_given_key(key)
    if not 0 < check_real("scale", scale) < math.inf:
        raise ValueError(f"Expected scale to be finite and above 0, got {scale}.")
    dtype = state_dtype(params)
    shape = (washout + steps, cell.spec.input_size)
    xs, state = prepare(cell, params, jnp.zeros(shape, dtype), None)
    size = jax.eval_shape(lambda state: flatten(state, 0), state).size
    if steps < 4 * size:
        raise ValueError(
            f"Expected steps of at least {4 * size}, two for each of the {size} "
            f"numbers of the state in the half used for fitting, got {steps}."
        )
    xs = jax.random.uniform(key, xs.shape, dtype, minval=-scale, maxval=scale)
    by_delay = _recalled(cell, params, xs, state, max_delay=max_delay, steps=steps)
    return MemoryCapacity(by_delay, by_delay[1:].sum())


@compiled("max_delay", "steps")
def _recalled(
    cell: Cell, params: Params, xs: Array, state: State, *, max_delay: int, steps: int
) -> Array:
    done = run(cell, params, xs, state)
    s = flatten(after(done.states_tm1, done.final), 1)[-steps:]
    first = xs.shape[0] - steps
    targets = jnp.stack(
        [xs[first - k : first - k + steps] for k in range(max_delay + 1)], axis=1
    ).reshape(steps, -1)  # delays x features
    half = steps // 2
    with_one = lambda part: jnp.pad(part, ((0, 0), (0, 1)), constant_values=1)
    # Normalise each unit: a readout can scale up a unit that hardly moves.
    size = jnp.linalg.norm(s[:half], axis=0, keepdims=True)
    s = s / jnp.where(size == 0, 1, size)
    w = jnp.linalg.lstsq(with_one(s[:half]), targets[:half], rcond=_cutoff(s))[0]
    recalled = _squared_correlation(with_one(s[half:]) @ w, targets[half:])
    chance = 1 / (steps - half - 1)
    unbiased = (recalled - chance) / (1 - chance)
    return unbiased.reshape(max_delay + 1, -1).sum(axis=1)


def _cutoff(s: Array) -> float:
    """Returns the relative cutoff below which a singular value is rounding error.

    NumPy's default grows with the number of steps and in float32 cuts small signals.
    """
    return 8 * float(jnp.finfo(s.dtype).eps)


def _squared_correlation(a: Array, b: Array) -> Array:
    """Returns the squared correlation of each column; 0 if one is constant."""
    a, b = (x - x.mean(axis=0, keepdims=True) for x in (a, b))
    below = jnp.square(a).sum(axis=0) * jnp.square(b).sum(axis=0)
    above = jnp.square((a * b).sum(axis=0))
    return jnp.where(below == 0, 0, above / jnp.where(below == 0, 1, below))
