r"""How far gradients travel: the Jacobian of a step, and the norms of long products.

The notes: ||dh_t/dh_k|| = ||prod_{j=k+1..t} dh_j/dh_{j-1}||. With row vectors,

.. math:: \frac{ds_t}{ds_k} = J_{k+1} J_{k+2} \cdots J_t,
  \quad J_t[i, j] = \partial s_t[j] / \partial s_{t-1}[i].

Over long lags such a product under- or overflows, and its directions become parallel,
so that a direction which later turns out to matter may be lost to rounding. The
transposed product is therefore kept as Q diag(exp d) T: Q orthonormal, the sizes d as
logarithms, and each row of T of largest entry 1. A step replaces

    J^T Q = Q' R        columns first ordered by size
    diag(exp d') T' = R diag(exp d) T

R is triangular, so that a small row never takes up the rounding of a larger one
(the stratification of Bai et al. 2011, Linear Algebra and its Applications 435,
https://doi.org/10.1016/j.laa.2010.06.023). What is found are the norms for Jacobians
that differ from J by its rounding: where small changes of J grow, as along a chain of
dozens of units that each stretch what they hand on, so does that difference.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn._base import Cell, Params, State, check_size
from jrnn.diagnostics._run import (
    Run,
    batch_shape,
    compiled,
    field,
    prepare,
    run,
    spectral_norm,
    step_jacobian,
)


def step_jacobians(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
) -> Float[Array, "T *batch m n"]:
    r"""Returns the Jacobian ds_t/ds_{t-1} of every step.

    .. math:: J_t[i, j] = \partial s_t[j] / \partial s_{t-1}[i]

    Args:
      cell: Any cell that reads forwards alone, a stack included.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      state: Where the sequence starts; None takes `cell.init_state`.
      source: The field of s_{t-1} that is varied, such as "c"; in a stack "[0].c".
        None: the whole flattened state, complex arrays as real part, imaginary part.
      target: The field of s_t that is looked at; None: the whole.

    Returns:
      (T, *batch, m, n), for m numbers in the source and n in the target.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; the cell reads in both directions; or there is no
        such field.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3, activation=jrnn.identity)
      >>> params = cell.init(jax.random.key(0))
      >>> J = jrnn.diagnostics.step_jacobians(cell, params, jnp.ones((4, 2)))
      >>> bool(jnp.allclose(J[0], params.W_h))
      True
    """
    xs, state = prepare(cell, params, xs, state)
    lead = len(batch_shape(xs))
    rows, columns = field(source, state, lead), field(target, state, lead)
    return _jacobians(cell, params, xs, state)[..., rows, columns]


@compiled()
def _jacobians(cell: Cell, params: Params, xs: Array, state: State) -> Array:
    done = run(cell, params, xs, state)
    lead = 1 + len(batch_shape(xs))
    return step_jacobian(cell, params, done.states_tm1, done.us, lead)


def jacobian_products(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
) -> Float[Array, "k t *batch"]:
    r"""Returns log ||ds_t/ds_k||, the logarithm of the spectral norm, of all pairs.

    Time goes with T^2, memory with T^2 numbers: no product is kept, only norms. For one
    k and long lags see `jacobian_products_by_lag`.

    Args:
      cell: As in `step_jacobians`.
      params: As in `step_jacobians`.
      xs: As in `step_jacobians`.
      state: s_0; None takes `cell.init_state`.
      source: The field of s_k that is varied, such as "c"; None: the whole state. What
        is left of a field is exact to the rounding of the whole product.
      target: The field of s_t that is looked at; None: the whole.

    Returns:
      Entry [k, t], for k and t in 0..T: 0 where k = t, -inf where the norm is 0, and
      where k > t, for the past does not depend on the future.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `step_jacobians`.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.gru(2, 3)
      >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((4, 2))
      >>> jrnn.diagnostics.jacobian_products(cell, params, xs).shape
      (5, 5)
    """
    xs, state = prepare(cell, params, xs, state)
    lead, steps = len(batch_shape(xs)), xs.shape[0]
    block = _block(source, target, state, lead)
    starts = jnp.arange(steps + 1)
    by_lag = _log_norms(cell, params, xs, state, starts, lags=steps, block=block)
    lag = starts[None] - starts[:, None]  # t - k
    places = jnp.maximum(lag, 0).reshape(*lag.shape, *(1,) * lead)
    places = jnp.broadcast_to(places, by_lag.shape)
    past = (lag < 0).reshape(*lag.shape, *(1,) * lead)
    found = jnp.take_along_axis(by_lag, places, axis=1)
    return jnp.where(past, jnp.asarray(-jnp.inf, found.dtype), found)


def jacobian_products_by_lag(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    lags: int | None = None,
    starts: tuple[int, ...] = (0,),
    source: str | None = None,
    target: str | None = None,
) -> Float[Array, "starts lag *batch"]:
    r"""Returns log ||ds_{k+l}/ds_k||, the logarithm of the spectral norm, by lag l.

    Finite at any lag: sizes are kept as logarithms, directions orthonormal.

    Args:
      cell: As in `step_jacobians`.
      params: As in `step_jacobians`.
      xs: As in `step_jacobians`.
      state: s_0; None takes `cell.init_state`.
      lags: The longest lag; None: T.
      starts: Every k to begin at, in 0..T; more than one tells the spread.
      source: As in `jacobian_products`.
      target: As in `jacobian_products`.

    Returns:
      Entry [i, l], for k = starts[i] and l in 0..lags; NaN where k + l > T.

    Raises:
      TypeError: As `jrnn.unroll`; a start or `lags` is not an integer.
      ValueError: As `step_jacobians`; a start or `lags` is outside 0..T.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3)
      >>> params, xs = cell.init(jax.random.key(0)), jnp.zeros((1000, 2))
      >>> found = jrnn.diagnostics.jacobian_products_by_lag(cell, params, xs)
      >>> found.shape, bool(abs(found).max() < 1e-3)  # orthogonal, as it is drawn
      ((1, 1001), True)
    """
    xs, state = prepare(cell, params, xs, state)
    steps = xs.shape[0]
    lags = steps if lags is None else check_size("lags", lags, least=0)
    starts = tuple(check_size("each start", k, least=0) for k in starts)
    if not starts or max(*starts, lags, 0) > steps:
        raise ValueError(
            f"Expected starts and lags within 0..{steps}, the number of steps in xs, "
            f"got starts={starts} and lags={lags}."
        )
    block = _block(source, target, state, len(batch_shape(xs)))
    places = jnp.asarray(starts)
    return _log_norms(cell, params, xs, state, places, lags=lags, block=block)


class _Block(NamedTuple):
    """Which rows and columns of a product are looked at, as (start, stop)."""

    rows: tuple[int | None, int | None]
    columns: tuple[int | None, int | None]


def _block(source: str | None, target: str | None, state: State, lead: int) -> _Block:
    rows, columns = field(source, state, lead), field(target, state, lead)
    return _Block((rows.start, rows.stop), (columns.start, columns.stop))


class _Product(NamedTuple):
    """The transposed product so far, Q diag(exp d) T."""

    Q: Array
    d: Array
    T: Array


@compiled("lags", "block")
def _log_norms(
    cell: Cell,
    params: Params,
    xs: Array,
    state: State,
    starts: Array,
    *,
    lags: int,
    block: _Block,
) -> Array:
    done = run(cell, params, xs, state)
    steps = xs.shape[0]

    def from_start(start: Array) -> Array:
        lag = jnp.arange(lags)
        places = jnp.minimum(start + lag, steps - 1)
        take = lambda leaf: leaf[places]
        along = jax.tree.map(take, done._replace(final=()))
        norms = _walk(cell, params, along, state, xs, block)
        known = (start + jnp.arange(lags + 1) <= steps).reshape(
            -1, *(1,) * (norms.ndim - 1)
        )
        return jnp.where(known, norms, jnp.asarray(jnp.nan, norms.dtype))

    return jax.lax.map(from_start, starts)


def _walk(
    cell: Cell, params: Params, along: Run, state: State, xs: Array, block: _Block
) -> Array:
    """Returns the log norms at lags 0, 1, ... along the steps of a run."""
    lead = len(batch_shape(xs))

    def step(product: _Product, inputs: Any) -> tuple[_Product, Array]:
        state_tm1, u = inputs
        J = step_jacobian(cell, params, state_tm1, u, lead)
        product = multiply(product, J)
        return product, _log_norm(product, block)

    one = jax.eval_shape(
        lambda s, u: step_jacobian(cell, params, s, u, lead),
        state,
        jax.tree.map(lambda leaf: leaf[0], along.us),
    )
    unit = jnp.broadcast_to(jnp.eye(one.shape[-1], dtype=one.dtype), one.shape)
    start = _Product(unit, jnp.zeros(one.shape[:-1], one.dtype), unit)
    norms = jax.lax.scan(step, start, (along.states_tm1, along.us))[1]
    return jnp.concatenate([_log_norm(start, block)[None], norms])


def multiply(product: _Product, J: Array) -> _Product:
    """Returns the product with one more step at its end."""
    order = jnp.argsort(-product.d, axis=-1)
    d = jnp.take_along_axis(product.d, order, axis=-1)
    T = jnp.take_along_axis(product.T, order[..., None], axis=-2)
    M = jnp.take_along_axis(J.mT @ product.Q, order[..., None, :], axis=-1)
    Q, R = jnp.linalg.qr(M)
    sizes = jnp.log(jnp.abs(R)) + d[..., None, :]  # -inf where R is 0
    d, _ = _safe_max(sizes)
    S = jnp.sign(R) * jnp.exp(sizes - jnp.where(jnp.isfinite(d), d, 0.0)[..., None])
    T = S @ T
    more, largest = _safe_max(jnp.log(jnp.abs(T)))
    return _Product(Q, d + more, T / largest[..., None])


def _safe_max(logs: Array) -> tuple[Array, Array]:
    """Returns the maximum of each row of logarithms; and its exp, 1 where that is 0."""
    most = logs.max(axis=-1)
    return most, jnp.exp(jnp.where(jnp.isneginf(most), 0.0, most))


def _log_norm(product: _Product, block: _Block) -> Array:
    Q, d, T = product
    most = d.max(axis=-1)
    scale = jnp.where(jnp.isneginf(most), 0.0, most)
    graded = jnp.exp(d - scale[..., None])[..., None] * T[..., slice(*block.rows)]
    if block.columns != (None, None):
        graded = Q[..., slice(*block.columns), :] @ graded
    return scale + jnp.log(spectral_norm(graded))
