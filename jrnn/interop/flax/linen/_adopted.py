"""A cell of Flax Linen as a cell of jrnn."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn
from flax.core import unfreeze
from jaxtyping import Array

from jrnn.core.build import factory
from jrnn.core.cell import Cell, Params
from jrnn.interop.flax._adopting import NOISE, Functions, adopt, check_flax_cell


@factory
def as_cell(module: nn.RNNCellBase, input_size: int) -> Cell:
    """Makes a cell of jrnn from a cell of Flax Linen.

    Every method runs it, with lengths, resets and masks, in stacks and in both
    directions; `jrnn.bptt` differentiates its step with JAX. A cell that jrnn has too,
    such as an LSTM, has a hand-written backward pass there: convert its weights.

    The state is the carry of Flax, such as (c, h), or `FlaxState(carry, y)` if the
    output is no part of the carry. The cell is pure: its `initialize_carry` gets a
    fixed key. Spatial axes, as of `nn.ConvLSTMCell`, count as batch axes: inputs are
    (T, batch, height, width, features), lengths and states have these axes too, only
    the methods `scan`, `bptt` and `truncated` run it, and the modules here with
    `time_major=True`.

    Args:
      module: A cell such as `nn.LSTMCell(4)`.
      input_size: Number of features.

    Returns:
      A cell; equal arguments return the same object. Its parameters are those of
      `module.init`, its entry "params".

    Raises:
      TypeError: `module` is not a cell of Flax.
      ValueError: The cell has variables besides "params", or draws random numbers.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from flax import linen as nn
      >>> from jrnn.interop.flax.linen import as_cell
      >>> cell = as_cell(nn.GRUCell(4), 3)
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jnp.ones((7, 2, 3)))[1].shape
      (7, 2, 4)
    """
    name = type(module).__name__
    check_flax_cell("module", name, module)
    axes = module.num_feature_axes
    ones = (1,) * (axes - 1)

    def init(key: Any) -> Params:
        dtype = getattr(module, "param_dtype", jnp.float32)
        x = jnp.zeros((*ones, input_size), dtype)
        variables = unfreeze(module.init(key, start({}, x.shape), x))
        others = variables.keys() - {"params"}
        if others:
            raise ValueError(
                f'Expected "params" to be the only variables of {name}, got '
                f"{', '.join(sorted(others))} too: a cell of jrnn is a pure function "
                "of its parameters."
            )
        return variables.get("params", {})

    def start(params: Params, shape: tuple[int, ...]) -> Any:
        del params
        return module.initialize_carry(jax.random.key(0), shape)

    def call(params: Params, carry: Any, x: Array) -> tuple[Any, Array]:
        result: Any = module.apply({"params": params}, carry, x)
        return result

    try:
        return adopt(name, input_size, Functions(init, start, call, axes))
    except errors.InvalidRngError as error:
        raise ValueError(
            f"Expected {name} to draw no random numbers in a step, got one that "
            f"does{NOISE}"
        ) from error
