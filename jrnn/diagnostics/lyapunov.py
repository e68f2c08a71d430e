r"""Lyapunov exponents: how fast small differences grow in each direction.

The QR method multiplies orthonormal directions by the Jacobian of each step and
orthonormalises them again,

.. math:: V_{t-1} J_t = R_t V_t, \quad
  \lambda_i = \frac{1}{T} \sum_t \log |R_t[i, i]|

with the directions as rows of V. The largest exponent is negative if the network
forgets its past, and positive if it is chaotic; T times it is the logarithm of the norm
that the notes bound.

Source: G. Benettin et al., Meccanica 15 (1980), https://doi.org/10.1007/BF02128236, as
for recurrent networks in R. Engelken et al., Physical Review Research 5 (2023),
https://doi.org/10.1103/PhysRevResearch.5.043044.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.seams import prepared
from jrnn.diagnostics._run import (
    batch_shape,
    compiled,
    euclidean_norm,
    flatten,
    prepare,
    unflatten,
)

# One step in SETTLE is discarded at the start, while the directions converge.
SETTLE = 4
BLOCKS = 20  # each gives one estimate, for the standard error


class LyapunovSpectrum(NamedTuple):
    """Exponents in nats per step, the largest first.

    Attributes:
      exponents: The exponents, (*batch, count); -inf for a lost direction: a step made
        it 0, or too short beside the longest for the dtype (sqrt(n) units in the last
        place, for n numbers in the state).
      errors: The standard error of each, from the spread over consecutive blocks of
        time. It is too small if the memory of the run is longer than a block, or if
        exponents are closer than about 1 / T, as directions then take longer than the
        run to converge. NaN for a lost direction.
    """

    exponents: Float[Array, "*batch count"]
    errors: Float[Array, "*batch count"]


def lyapunov_spectrum(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    count: int | None = None,
    discard: int | None = None,
) -> LyapunovSpectrum:
    r"""Returns the Lyapunov exponents of a cell along a sequence of inputs.

    For a plain linear network they are the logarithms of the moduli of the eigenvalues
    of W_h.

    Args:
      cell: Any cell that reads only forwards. The state is the whole flattened one.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch); zeros for the
        autonomous network.
      state: The initial state; None: `cell.init_state`. Without inputs and biases a
        network that starts at zero stays there.
      count: The number of exponents, from the largest; None: all.
      discard: The number of first steps to leave out, while the state and the
        directions converge; None: a quarter of T.

    Returns:
      Exponents and their standard errors, (*batch, count).

    Raises:
      TypeError: As `jrnn.unroll`; `count` or `discard` is not an integer.
      ValueError: As `jrnn.unroll`; the cell reads in both directions; `count` is not
        within 1..n for n numbers in the state; or fewer than two steps would be left.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3, activation=jrnn.activations.linear)
      >>> params = cell.init(jax.random.key(0))  # orthogonal: all moduli are 1
      >>> xs = jnp.zeros((100, 2))
      >>> found = jrnn.diagnostics.lyapunov_spectrum(cell, params, xs)
      >>> bool(abs(found.exponents).max() < 1e-5)
      True
    """
    xs, state = prepare(cell, params, xs, state)
    steps, lead = xs.shape[0], len(batch_shape(xs))
    size = jax.eval_shape(functools.partial(flatten, lead=lead), state).shape[-1]
    count = check_size("count", size if count is None else count)
    if count > size:
        raise ValueError(
            f"Expected count within 1..{size}, as the state of {cell} holds {size} "
            f"numbers, got {count}."
        )
    if discard is None:
        discard = steps // SETTLE
    discard = check_size("discard", discard, least=0)
    if discard > steps - 2:
        raise ValueError(
            f"Expected at least 2 steps after the discarded ones, got T={steps} and "
            f"discard={discard}; pass a longer sequence or a smaller discard."
        )
    return _spectrum(cell, params, xs, state, count=count, discard=discard)


@compiled("count", "discard")
def _spectrum(
    cell: Cell, params: Params, xs: Array, state: State, *, count: int, discard: int
) -> LyapunovSpectrum:
    params = prepared(cell, params)  # once, not at each step
    us, lead = cell.project(params, xs), len(batch_shape(xs))
    vector = flatten(state, lead)

    def step(carry: tuple[State, Array], u: Any) -> tuple[tuple[State, Array], Array]:
        state, V = carry
        moved = lambda vector: flatten(
            cell.advance(params, unflatten(vector, state, lead), u), lead
        )
        state, row = jax.linearize(moved, flatten(state, lead))
        state = unflatten(state, carry[0], lead)
        W = jax.vmap(row, in_axes=-2, out_axes=-1)(V)  # columns, as QR has them
        Q, R = jnp.linalg.qr(W)
        return (state, Q.mT), jnp.log(_sizes(W, R))

    # Random directions, so that each has a component in the direction that grows most.
    key = jax.random.key(0)
    V = jax.random.normal(key, (vector.shape[-1], count), vector.dtype)
    V = jnp.broadcast_to(jnp.linalg.qr(V)[0].T, (*vector.shape[:-1], *V.T.shape))
    logs = jax.lax.scan(step, (state, V), us)[1][discard:]
    exponents, errors = logs.mean(axis=0), _standard_error(logs)
    order = jnp.argsort(-exponents, axis=-1)
    return LyapunovSpectrum(
        jnp.take_along_axis(exponents, order, axis=-1),
        jnp.take_along_axis(errors, order, axis=-1),
    )


def _sizes(W: Array, R: Array) -> Array:
    """Returns |R[i, i]|, set to 0 where it is below the rounding error of W's columns.

    For a rank-deficient matrix, QR leaves some units in the last place of the largest
    column there, and their logarithm would pass for an exponent.
    """
    sizes = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1))
    largest = euclidean_norm(W, -2).max(axis=-1, keepdims=True)
    rounding = W.shape[-2] ** 0.5 * float(jnp.finfo(W.dtype).eps)
    return jnp.where(sizes < rounding * largest, 0, sizes)


def _standard_error(logs: Array) -> Array:
    """Returns the standard error of the mean over time, from means of time blocks."""
    blocks = min(BLOCKS, logs.shape[0])
    each = logs.shape[0] // blocks
    cut = logs[: blocks * each].reshape(blocks, each, *logs.shape[1:])
    return jnp.std(cut.mean(axis=1), axis=0, ddof=1) / blocks**0.5
