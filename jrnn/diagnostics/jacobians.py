r"""How far gradients reach: Jacobians of steps, and norms of their long products.

The notes: ||dh_t/dh_k|| = ||prod_{j=k+1..t} dh_j/dh_{j-1}||. With row vectors,

.. math:: \frac{ds_t}{ds_k} = J_{k+1} J_{k+2} \cdots J_t,
  \quad J_t[i, j] = \partial s_t[j] / \partial s_{t-1}[i].

`jrnn.diagnostics._graded` computes such products for lags of any length. The norms are
exact for Jacobians that differ from J by rounding. Where small changes of J grow, as in
a chain of dozens of units that each amplify their input, that difference grows too.

For a block, from a source to a target, only the rows of the source are carried, and
only through the layers between the two: other entries do not contribute, and their
rounding errors would swamp a block that is far smaller.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jrnn.core.arguments import check_size, tell
from jrnn.core.cell import Cell, Params, State
from jrnn.core.constants import own_constants
from jrnn.core.seams import prepared
from jrnn.diagnostics._graded import Product, gram_schmidt, log_norm, multiply, qr
from jrnn.diagnostics._run import (
    Run,
    batch_shape,
    compiled,
    field,
    flatten,
    layer_slices,
    prepare,
    run,
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
      cell: Any cell that reads only forwards, including stacks.
      params: Its parameters.
      xs: Inputs (T, *batch, input_size), or token ids (T, *batch).
      state: The initial state; None: `cell.init_state`.
      source: The field of s_{t-1} to differentiate by, such as "c"; in a stack "[0].c".
        None: the whole flattened state, complex arrays as real part, imaginary part.
      target: The field of s_t to differentiate; None: the whole state.

    Returns:
      (T, *batch, m, n), for m numbers in the source and n in the target.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`; the cell reads in both directions; or there is no
        such field.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3, activation=jrnn.activations.linear)
      >>> params = cell.init(jax.random.key(0))
      >>> J = jrnn.diagnostics.step_jacobians(cell, params, jnp.ones((4, 2)))
      >>> bool(jnp.allclose(J[0], params.W_h))
      True
    """
    xs, state = prepare(cell, params, xs, state)
    lead = len(batch_shape(xs))
    rows = field(source, state, lead, "source")
    columns = field(target, state, lead, "target")
    return _jacobians(cell, params, xs, state)[..., rows, columns]


@compiled()
def _jacobians(cell: Cell, params: Params, xs: Array, state: State) -> Array:
    params = prepared(cell, params)
    done = run(cell, params, xs, state)
    lead = 1 + len(batch_shape(xs))
    return step_jacobian(cell, params, done.states_tm1, done.us, lead)


@own_constants
def jacobian_products(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
) -> Float[Array, "k t *batch"]:
    r"""Returns log ||ds_t/ds_k||, the log of the spectral norm, for all pairs k, t.

    Time is proportional to T^2, and so is memory: only norms are stored, no products.
    For one k and long lags use `jacobian_products_by_lag`.

    Args:
      cell: As in `step_jacobians`.
      params: As in `step_jacobians`.
      xs: As in `step_jacobians`.
      state: s_0; None: `cell.init_state`.
      source: The field of s_k to differentiate by, such as "c"; None: the whole state.
        A block is exact up to its own rounding, however small it is beside the whole:
        across layers without limit; within one layer down to the smallest number of the
        dtype times the source's largest effect in that layer, and 0 below that. An
        upper layer's state does not reach a lower one's: -inf.
      target: The field of s_t to differentiate; None: the whole state.

    Returns:
      Entry [k, t], for k and t in 0..T: 0 where k = t, -inf where the norm is 0 and
      where k > t, as the past does not depend on the future. Its derivative is exact
      where the largest singular value is simple and every J between k and t is
      invertible; NaN where one is singular, such as that of an inactive relu.

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
    block = _block(cell, source, target, state, lead)
    starts = jnp.arange(steps + 1)
    by_lag = _log_norms(cell, params, xs, state, starts, lags=steps, block=block)
    lag = starts[None] - starts[:, None]  # t - k
    places = jnp.maximum(lag, 0).reshape(*lag.shape, *(1,) * lead)
    places = jnp.broadcast_to(places, by_lag.shape)
    past = (lag < 0).reshape(*lag.shape, *(1,) * lead)
    found = jnp.take_along_axis(by_lag, places, axis=1)
    return jnp.where(past, jnp.asarray(-jnp.inf, found.dtype), found)


@own_constants
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
    r"""Returns log ||ds_{k+l}/ds_k||, the log of the spectral norm, by lag l.

    It does not overflow at any lag: magnitudes are logarithms, directions orthonormal.

    Args:
      cell: As in `step_jacobians`.
      params: As in `step_jacobians`.
      xs: As in `step_jacobians`.
      state: s_0; None: `cell.init_state`.
      lags: The longest lag; None: T.
      starts: The values of k, in 0..T; several of them show the spread.
      source: As in `jacobian_products`.
      target: As in `jacobian_products`.

    Returns:
      Entry [i, l], for k = starts[i] and l in 0..lags; NaN where k + l > T. For its
      derivative see `jacobian_products`.

    Raises:
      TypeError: As `jrnn.unroll`; a start or `lags` is not an integer.
      ValueError: As `step_jacobians`; a start or `lags` is outside 0..T.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(2, 3)
      >>> params, xs = cell.init(jax.random.key(0)), jnp.zeros((1000, 2))
      >>> found = jrnn.diagnostics.jacobian_products_by_lag(cell, params, xs)
      >>> found.shape, bool(abs(found).max() < 1e-3)  # the initial W_h is orthogonal
      ((1, 1001), True)
    """
    xs, state = prepare(cell, params, xs, state)
    steps = xs.shape[0]
    lags = steps if lags is None else check_size("lags", lags, least=0)
    if not isinstance(starts, Iterable):
        raise TypeError(f"Expected starts to be integers, got {tell(starts)}.")
    starts = tuple(check_size("each of starts", k, least=0) for k in starts)
    if not starts or max(*starts, lags, 0) > steps:
        raise ValueError(
            f"Expected starts and lags within 0..{steps}, the number of steps in xs, "
            f"got starts={starts} and lags={lags}."
        )
    block = _block(cell, source, target, state, len(batch_shape(xs)))
    places = jnp.asarray(starts)
    return _log_norms(cell, params, xs, state, places, lags=lags, block=block)


class _Block(NamedTuple):
    """A block of a product, as (start, stop) in the flat state.

    Attributes:
      path: The layers from the source's to the target's. No other layer lies between,
        so that the block of the product is the product of these layers' blocks. None:
        the source does not reach the target.
      rows: The source, relative to the start of the path.
      columns: The target, relative to the start of the path.
      whole: Whether the target is the whole path.
    """

    path: tuple[int, int] | None
    rows: tuple[int, int]
    columns: tuple[int, int]
    whole: bool


def _block(
    cell: Cell, source: str | None, target: str | None, state: State, lead: int
) -> _Block:
    layers = layer_slices(cell, state, lead)
    size = layers[-1].stop
    from_ = field(source, state, lead, "source").indices(size)
    to = field(target, state, lead, "target").indices(size)
    start = max(layer.start for layer in layers if layer.start <= from_[0])
    stop = min(layer.stop for layer in layers if layer.stop >= to[1])
    if start >= stop:
        return _Block(None, (0, 0), (0, 0), whole=False)
    rows, columns = (
        (max(place[0], start) - start, min(place[1], stop) - start)
        for place in (from_, to)
    )
    return _Block((start, stop), rows, columns, columns == (0, stop - start))


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
    params = prepared(cell, params)
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
    like = flatten(state, lead)
    if block.path is None:
        lags = jax.tree.leaves(along.states_tm1)[0].shape[0]
        return jnp.full((lags + 1, *like.shape[:-1]), -jnp.inf, like.dtype)
    path, columns = slice(*block.path), slice(*block.columns)
    factor = gram_schmidt
    if block.whole:
        columns, factor = slice(None), qr

    def step(product: Product, inputs: Any) -> tuple[Product, Array]:
        state_tm1, u = inputs
        J = step_jacobian(cell, params, state_tm1, u, lead)[..., path, path]
        product = multiply(product, J, factor)
        return product, log_norm(product, columns)

    start = _begin(block, like)
    norms = jax.lax.scan(step, start, (along.states_tm1, along.us))[1]
    return jnp.concatenate([log_norm(start, columns)[None], norms])


def _begin(block: _Block, like: Array) -> Product:
    """Returns the product at lag 0: the rows of the identity for the source."""
    assert block.path is not None
    n, m = block.path[1] - block.path[0], block.rows[1] - block.rows[0]
    wide = lambda matrix: jnp.broadcast_to(matrix, (*like.shape[:-1], *matrix.shape))
    Q = jnp.eye(n, dtype=like.dtype)[:, slice(*block.rows)]
    return Product(
        wide(Q), wide(jnp.zeros(m, like.dtype)), wide(jnp.eye(m, dtype=like.dtype))
    )
