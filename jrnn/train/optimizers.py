"""Calls any optax optimiser, including those whose update needs the loss."""

import re
from collections.abc import Callable
from typing import Any

import jax

from jrnn.core.cell import Params

State = Any  # a pytree; its arrays are donated

# The error of Python, and of optax's line searches, for an unexpected argument.
UNEXPECTED = re.compile("unexpected keyword argument", re.IGNORECASE)


def update(
    optimizer: Any,
    gradient: Params,
    state: State,
    params: Params,
    value: jax.Array,
    value_fn: Callable[[Params], jax.Array],
) -> tuple[Params, State]:
    """Returns the updates and the new state, for any optax optimiser.

    Args:
      optimizer: The optimiser; its `update` may take further arguments, such as `value`
        and `value_fn`.
      gradient: The gradient of the loss.
      state: The state of the optimiser.
      params: The parameters at which the gradient was taken.
      value: The loss at these parameters.
      value_fn: params -> the loss, for the same batch, carry and key.
    """
    extra = {
        "value": value,
        "grad": gradient,
        "value_fn": value_fn,
        "obj_fn": value_fn,  # `optax.contrib.sophia`
        "grad_fn": lambda params, _=0: jax.grad(value_fn)(params),  # its `sam`
    }
    while True:  # The signature of an update does not always list what it takes.
        try:
            return optimizer.update(gradient, state, params, **extra)
        except TypeError as error:
            refused = extra.keys() & re.findall(r"'(\w+)'", str(error))
            if not refused or not UNEXPECTED.search(str(error)):
                raise
            extra = {name: extra[name] for name in extra.keys() - refused}
