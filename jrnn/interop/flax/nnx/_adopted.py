"""A cell of Flax NNX as a cell of jrnn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.build import factory
from jrnn.core.cell import Cell, Params
from jrnn.interop.flax._adopting import NOISE, Functions, adopt, check_flax_cell


def as_cell(
    make: Callable[..., nnx.Module], input_size: int, *arguments: Any, **keywords: Any
) -> Cell:
    """Makes a cell of jrnn from a cell of Flax NNX.

    Every method runs it, with lengths, resets and masks, in stacks and in both
    directions; `jrnn.bptt` differentiates its step with JAX. A cell that jrnn has too,
    such as an LSTM, has a hand-written backward pass there: convert its weights.

    The state is the carry of Flax, such as (c, h), or `FlaxState(carry, y)` if the
    output is no part of the carry. The cell is pure: its `initialize_carry` gets a
    fixed key. Spatial axes, as of a convolutional cell, count as batch axes: inputs are
    (T, batch, height, width, features), lengths and states have these axes too, only
    the methods `scan`, `bptt` and `truncated` run it, and the modules here with
    `time_major=True`.

    Args:
      make: A class of cells such as `nnx.LSTMCell`, or a function; called as
        `make(input_size, *arguments, **keywords, rngs=rngs)`.
      input_size: Number of features.
      *arguments: Further arguments of `make`, hashable.
      **keywords: The same.

    Returns:
      A cell; equal arguments return the same object. Its parameters are nested
      dictionaries; `params_of` returns those of a module that exists.

    Raises:
      TypeError: An argument is not hashable, or `make` is a module or returns no cell.
      ValueError: The cell has variables other than `nnx.Param`, or draws random
        numbers.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from flax import nnx
      >>> from jrnn.interop.flax.nnx import as_cell, params_of
      >>> cell = as_cell(nnx.GRUCell, 3, 4)
      >>> params = params_of(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
      >>> jrnn.unroll(cell, params, jnp.ones((7, 2, 3)))[1].shape
      (7, 2, 4)
    """
    if isinstance(make, nnx.Module):
        name = type(make).__name__
        raise TypeError(
            f"Expected make to be a class of cells or a function, got a module {name}; "
            "pass the class and its arguments, as in as_cell(nnx.GRUCell, 3, 8): "
            "params_of(module) has the module's parameters."
        )
    return nnx_cell(make, input_size, arguments, tuple(sorted(keywords.items())))


def params_of(module: nnx.Module) -> Params:
    """Returns the parameters of a module as nested dictionaries of arrays.

    Args:
      module: A module, such as a cell that was trained.

    Raises:
      TypeError: `module` is not a module.
    """
    if not isinstance(module, nnx.Module):
        raise TypeError(f"Expected module to be an nnx.Module, got {tell(module)}.")
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


@factory
def nnx_cell(
    make: Callable[..., Any],
    input_size: int,
    arguments: tuple = (),
    keywords: tuple = (),
) -> Cell:
    """Makes the cell of `as_cell`."""
    name = getattr(make, "__name__", tell(make))

    def made(key: Any) -> Any:
        return make(input_size, *arguments, **dict(keywords), rngs=nnx.Rngs(key))

    abstract = nnx.eval_shape(lambda: made(0))
    _check(name, abstract)
    definition, state, unread = nnx.split(abstract, nnx.Param, ...)
    slots, structure = jax.tree.flatten(state)
    # The place of each leaf of the dictionaries among the leaves of the state.
    numbered = jax.tree.unflatten(structure, list(range(len(slots))))
    places = jax.tree.leaves(nnx.to_pure_dict(numbered))

    def module_of(params: Params) -> Any:
        leaves = dict(zip(places, jax.tree.leaves(params), strict=True))
        ordered = [leaves[i] for i in range(len(slots))]
        filled = jax.tree.map(_blank, unread)
        return nnx.merge(definition, jax.tree.unflatten(structure, ordered), filled)

    def start(params: Params, shape: tuple[int, ...]) -> Any:
        return module_of(params).initialize_carry(shape, nnx.Rngs(0))

    def call(params: Params, carry: Any, x: Array) -> tuple[Any, Array]:
        module = module_of(params)
        before = _counts(module)
        result = module(carry, x)
        if any(a is not b for a, b in zip(before, _counts(module), strict=True)):
            raise ValueError(
                f"Expected {name} to draw no random numbers in a step, got one that "
                f"does{NOISE}"
            )
        return result

    init = lambda key: params_of(made(key))
    axes = abstract.num_feature_axes
    return adopt(name, input_size, Functions(init, start, call, axes))


def _counts(module: Any) -> list[Any]:
    """Returns how often each random stream of a module was drawn from."""
    return [leaf[...] for _, leaf in nnx.to_flat_state(nnx.state(module, nnx.RngCount))]


def _blank(leaf: Any) -> Any:
    """Returns an array in the place of a random stream, which no step reads."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _check(name: str, module: Any) -> None:
    """Raises unless a module is a cell whose only variables are parameters.

    Streams of random numbers may lie in it, as long as no step draws from them.
    """
    check_flax_cell("make", name, module)
    others = nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(others)]
    if paths:
        raise ValueError(
            f"Expected nnx.Param to be the only variables of {name}, got others too, "
            f"{', '.join(paths)}: a cell of jrnn is a pure function of its parameters."
        )
