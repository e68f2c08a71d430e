"""A cell of Flax as a cell of jrnn: what both interfaces of Flax share.

    carry_t, y_t = call(params, carry_{t-1}, x_t)

A cell of jrnn computes y_t from its new state. Flax's cells show an array of the carry,
which is then the state. If y_t is no part of the carry, the state is (carry_t, y_t).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.build import build
from jrnn.core.cell import Cell, Params, State
from jrnn.core.check_draws import check_dtype
from jrnn.core.check_inputs import check_features
from jrnn.core.dtypes import cast_state, state_dtype

# The end of an error for a cell that is random.
NOISE = (
    ": a cell of jrnn is a pure function. Leave out dropout; jrnn.dropout(cell, rate) "
    "and jrnn.wrappers.zoneout(cell, rate) add noise."
)


class FlaxState(NamedTuple):
    """The carry of a cell of Flax, and its last output."""

    carry: Any
    y: Array


class Functions(NamedTuple):
    """A cell of Flax as pure functions.

    Attributes:
      init: key -> params, a pytree of arrays.
      start: (params, shape of x without time) -> carry.
      call: (params, carry, x) -> (carry, y).
      feature_axes: How many of the last axes of x hold one step of one sequence.
    """

    init: Callable[[Any], Params]
    start: Callable[[Params, tuple[int, ...]], Any]
    call: Callable[[Params, Any, Array], tuple[Any, Array]]
    feature_axes: int


class _Shape(NamedTuple):
    """The output of a cell: its size, and its place among the arrays of the carry."""

    size: int
    place: int | None


def adopt(name: str, input_size: int, own: Functions) -> Cell:
    """Returns a cell of jrnn that calls a cell of Flax.

    Args:
      name: Of the cell, for errors.
      input_size: Number of features.
      own: The functions of the cell.

    Raises:
      ValueError: The carry changes its structure or shapes in a step.
    """
    shape = _probe(name, input_size, own)
    plain = shape.place is not None

    def init(key: Any, dtype: Any = None) -> Params:
        params = own.init(key)
        if dtype is None:
            return params
        known = check_dtype(dtype)
        return jax.tree.map(lambda leaf: leaf.astype(known), params)

    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        x = (*batch_shape, input_size)
        carry = cast_state(own.start(params, x), state_dtype(params))
        y = jnp.zeros((*batch_shape, shape.size), state_dtype(params))
        return carry if plain else FlaxState(carry, y)

    def project(params: Params, x: Array) -> Array:
        del params
        check_features(name, x)
        return x

    def advance(params: Params, state: State, x: Array) -> State:
        carry, y = own.call(params, state if plain else state.carry, x)
        new = carry if plain else FlaxState(carry, y)
        return jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new, state)

    def output(params: Params, state: State, x: Array) -> Array:
        del params
        y = state.y if shape.place is None else jax.tree.leaves(state)[shape.place]
        return y.astype(x.dtype)

    return build(
        init,
        init_state,
        shape.size,
        project=project,
        advance=advance,
        output=output,
    )


def _probe(name: str, input_size: int, own: Functions) -> _Shape:
    """Traces one step to learn what the cell shows; raises if its carry changes."""
    places: list[int | None] = []

    def step() -> tuple[Any, Any, Array]:
        params = own.init(jax.random.key(0))
        ones = (1,) * (own.feature_axes - 1)
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(params)] or [jnp.float32]
        x = jnp.zeros((*ones, input_size), dtypes[0])
        before = own.start(params, x.shape)
        carry, y = own.call(params, before, x)
        shown = (i for i, leaf in enumerate(jax.tree.leaves(carry)) if leaf is y)
        places.append(next(shown, None))
        return before, carry, y

    before, carry, y = jax.eval_shape(step)
    shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
    if shapes(before) != shapes(carry):
        raise ValueError(
            f"Expected the carry of {name} to keep its structure and shapes in a step, "
            f"{tell(shapes(before))}, got {tell(shapes(carry))}."
        )
    return _Shape(y.shape[-1], places[0])


def check_flax_cell(argument: str, name: str, module: Any) -> None:
    """Raises TypeError unless `module` has what Flax asks of a cell."""
    if isinstance(module, type):
        own = module.__name__
        raise TypeError(
            f"Expected {argument} to give a cell of Flax, got the class {own}; pass an "
            f"instance, such as {own}(4)."
        )
    asked = ("initialize_carry", "num_feature_axes")
    missing = [own for own in asked if not hasattr(module, own)]
    if missing:
        raise TypeError(
            f"Expected {argument} to give a cell of Flax, such as an LSTMCell, got "
            f"{name} without {' and '.join(missing)}."
        )
