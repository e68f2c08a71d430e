"""Cells that change what happens inside another cell's loop.

`zoneout`, `variational_dropout` and `learnable_state` go around a cell that is run as
it is; what changes inputs and outputs alone (`jrnn.stack`, `jrnn.residual`,
`jrnn.dropout`, `jrnn.bidirectional`) goes around them. Noise is drawn before the loop,
so that it is the same under every method; without a `key` there is none.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn._base import Adjoint, Cell, Gated, Key, Linear, Params, Spec, State, memoize
from jrnn._check import check_cell, check_rate
from jrnn._claims import claim, current, inherited, mixed
from jrnn._parts import (
    compose_step,
    expand,
    noisy_project,
    prepared,
    recur,
    split_gates,
    state_dtype,
)
from jrnn._tree import runs_itself
from jrnn.cells._views import factor_view


@memoize
def zoneout(cell: Cell, rate: float | tuple[float, ...]) -> Cell:
    """Makes a cell whose units keep their past at random (Krueger et al. 2017).

    With s' the state that `cell` would move on to, and for each unit its own d_t,
    which is 1 with probability `rate`:

        s_t = d_t * s_{t-1} + (1 - d_t) * s'_t              with a key
        s_t = rate * s_{t-1} + (1 - rate) * s'_t            without, the expectation

    Source: https://arxiv.org/abs/1606.01305.

    Args:
      cell: Any cell but one made of others that are unrolled one by one: zoneout goes
        around each of those.
      rate: In [0, 1): one number, or one for each array of the state in its order,
        such as (0.05, 0.5) for h and c of an LSTM.

    Returns:
      A cell with the params and state of `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `rate` is out of range or of another length than the state, or `cell`
        is made of others.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.zoneout(jrnn.lstm(3, 4), (0.05, 0.5))
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs, key=jax.random.key(1))[1].shape
      (7, 4)
    """
    cell = _check_inner("zoneout", cell)
    like = _state_like(cell)
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
        return kept, _inner_noise(cell, key_cell, steps, batch_shape)

    def project(params: Params, x: Array, noise: Any = None) -> Any:
        kept, inner = (None, None) if noise is None else noise
        return noisy_project(cell.project, params, x, inner), kept

    def advance(params: Params, state: State, u: Any) -> State:
        u, kept = u
        new = cell.advance(params, state, u)
        if kept is not None:
            return jax.tree.map(jnp.where, kept, state, new)
        mix = lambda rate, old, moved: rate * old + (1 - rate) * moved
        return jax.tree.map(mix, each, state, new)

    linear = _linear_zoneout(cell, each)
    made = cell._replace(
        project=project,
        advance=advance,
        step=compose_step(project, advance, cell.output),
        spec=_spec("zoneout", cell, rate=rate),
        gated=None,
        adjoint=None,
        linear=linear,
        noise=noise,
    )
    claims = inherited(cell, us=_without_noise)
    gates, bound = claims["gates"], mixed(claims["bound"], rates)
    if linear is not None and gates is not None:
        gates = factor_view(linear, tuple(name for name, _ in gates.ranges))
    return claim(made, gates=gates, bound=bound)


def _without_noise(u: Any) -> Any:
    """Returns the cell's own share of what `project` returns beside the noise."""
    return u[0]


def _without_fresh(
    cell: Cell, rate: Any, rates: tuple[float, ...]
) -> tuple[float, ...]:
    """Returns the rates of a cell whose state says whether it is fresh: 0 for that."""
    if isinstance(rate, tuple) and rate[1] != 0:
        raise ValueError(
            f"Expected a rate of 0 for the second array of the state of {cell}, which "
            f"says where a sequence starts, got {rate}; pass ({rate[0]}, 0.0)."
        )
    return rates[0], 0.0


def _linear_zoneout(cell: Cell, rates: State) -> Linear | None:
    """Of a diagonal linear cell: a and b mixed with 1 and 0."""
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


@memoize
def variational_dropout(cell: Cell, rate: float) -> Cell:
    """Makes a cell whose h_{t-1} is dropped on its way into the gates.

    One mask for each sequence, drawn once and the same at every step (Gal and
    Ghahramani 2016, https://arxiv.org/abs/1512.05287). What is kept is divided by
    1 - rate. Of a cell whose recurrent share is gates of one product, such as an LSTM
    or a GRU that resets after it, only that product sees the mask; of any other cell,
    all that reads h does.

    Args:
      cell: Any cell whose state has a field h, but one made of others that are
        unrolled one by one: it goes around each of those.
      rate: Probability that a unit is dropped, in [0, 1).

    Returns:
      A cell with the params and state of `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `rate` is out of range, the state has no h, or `cell` is made of
        others.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.variational_dropout(jrnn.lstm(3, 4), 0.25)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs, key=jax.random.key(1))[1].shape
      (7, 4)
    """
    cell = _check_inner("variational_dropout", cell)
    check_rate("rate", rate)
    like = _state_like(cell)
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
        return kept, _inner_noise(cell, key_cell, steps, batch_shape)

    def project(params: Params, x: Array, noise: Any = None) -> Any:
        kept, inner = (None, None) if noise is None else noise
        return noisy_project(cell.project, params, x, inner), kept

    def advance(params: Params, state: State, u: Any) -> State:
        u, kept = u
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

    made = cell._replace(
        project=project,
        advance=advance,
        step=compose_step(project, advance, cell.output),
        spec=_spec("variational_dropout", cell, rate=rate),
        gated=None,
        adjoint=None,
        linear=None,
        noise=noise,
    )
    return claim(made, **inherited(cell, us=_without_noise))


class LearnableParams(NamedTuple):
    """The parameters of a cell, and where its sequences start.

    Parameters are real: an array of the state that is complex stands as (2, ...), its
    real part and its imaginary part.
    """

    cell: Params
    state: State


@memoize
def learnable_state(cell: Cell) -> Cell:
    """Makes a cell whose initial state is a parameter, zeros at first.

    It is what sequences without a `state` start from, and what resets put back; both
    give it its gradient.

    Args:
      cell: Any cell but one made of others that are unrolled one by one: it goes
        around each of those.

    Returns:
      A cell with the state of `cell` and the params (cell, state).

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `cell` is made of others.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.learnable_state(jrnn.gru(3, 4))
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> loss = lambda params: jrnn.unroll(cell, params, xs)[0].h.sum()
      >>> jax.grad(loss)(params).state.h.shape
      (4,)
    """
    cell = _check_inner("learnable_state", cell)

    def init(key: Key, dtype: DTypeLike | None = None) -> LearnableParams:
        params = cell.init(key, dtype)
        narrow = jax.tree.leaves(params)[0].dtype

        def real(leaf: Array) -> Array:
            if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                leaf = jnp.stack([leaf.real, leaf.imag])
            return leaf.astype(narrow)

        return LearnableParams(params, jax.tree.map(real, cell.init_state(params)))

    def init_state(params: LearnableParams, batch_shape: tuple[int, ...] = ()) -> State:
        dtype = state_dtype(params.cell)

        def along(leaf: Array, like: Array) -> Array:
            leaf = leaf.astype(dtype)
            if jnp.issubdtype(like.dtype, jnp.complexfloating):
                leaf = jax.lax.complex(leaf[0], leaf[1])
            return jnp.broadcast_to(leaf, (*batch_shape, *leaf.shape))

        like = cell.init_state(params.cell)
        state = jax.tree.map(along, params.state, like)
        if cell.linear is None or cell.linear.start is None:
            return state
        # Whether a state is fresh is no parameter.
        leaves, structure = jax.tree.flatten(state)
        leaves[1] = jnp.broadcast_to(jax.tree.leaves(like)[1], leaves[1].shape)
        return jax.tree.unflatten(structure, leaves)

    def project(params: LearnableParams, x: Array, noise: Any = None) -> Any:
        return noisy_project(cell.project, params.cell, x, noise)

    def advance(params: LearnableParams, state: State, u: Any) -> State:
        return cell.advance(params.cell, state, u)

    def output(params: LearnableParams, state: State, x: Array) -> Array:
        return cell.output(params.cell, state, x)

    def prepare(params: LearnableParams) -> LearnableParams:
        return params._replace(cell=prepared(cell, params.cell))

    made = cell._replace(
        init=init,
        init_state=init_state,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        spec=_spec("learnable_state", cell),
        gated=None if cell.gated is None else _gated_inside(cell.gated),
        adjoint=None if cell.adjoint is None else _adjoint_inside(cell.adjoint),
        linear=None if cell.linear is None else _linear_inside(cell.linear),
        prepare=None if cell.prepare is None else prepare,
    )
    return claim(made, **inherited(cell, params=lambda params: params.cell))


def _gated_inside(gated: Gated) -> Gated:
    def product(params: LearnableParams) -> tuple[Array, Array | None]:
        return gated.product(params.cell)

    def inputs(params: LearnableParams) -> tuple[Array, Array | None]:
        assert gated.inputs is not None
        return gated.inputs(params.cell)

    return gated._replace(
        product=product, inputs=None if gated.inputs is None else inputs
    )


def _linear_inside(linear: Linear) -> Linear:
    def coefficients(params: LearnableParams, u: Any) -> tuple[State, State]:
        return linear.coefficients(params.cell, u)

    def start(params: LearnableParams, u: Any) -> Array:
        assert linear.start is not None
        return linear.start(params.cell, u)

    return linear._replace(
        coefficients=coefficients, start=None if linear.start is None else start
    )


def _adjoint_inside(adjoint: Adjoint) -> Adjoint:
    def gradient(params: LearnableParams, *arguments: Any) -> LearnableParams:
        return LearnableParams(
            adjoint.gradient(params.cell, *arguments),
            jax.tree.map(jnp.zeros_like, params.state),
        )

    return Adjoint(
        advance=lambda params, *rest: adjoint.advance(params.cell, *rest),
        pullback=lambda params, *rest: adjoint.pullback(params.cell, *rest),
        gradient=gradient,
    )


def _check_inner(name: str, cell: Any) -> Cell:
    """Returns the cell, without seams that are out of date."""
    check_cell(cell)
    if not runs_itself(cell):
        raise ValueError(
            f"Expected a cell that runs as one, for {name} changes its loop, got "
            f"{cell}; put {name} around the cells inside."
        )
    return current(cell)


def _state_like(cell: Cell) -> State:
    """Returns the shapes of a state without batch axes."""
    return jax.eval_shape(lambda: cell.init_state(cell.init(jax.random.key(0))))


def _inner_noise(cell: Cell, key: Key, steps: int, batch: tuple[int, ...]) -> Any:
    return None if cell.noise is None else cell.noise(key, steps, batch)


def _spec(name: str, cell: Cell, **arguments: Any) -> Spec:
    pairs = (("cell", cell), *arguments.items())
    return cell.spec._replace(name=name, arguments=pairs)
