"""What a step of training asks of an optimiser."""

import re
from collections.abc import Callable
from typing import Any

import jax

from jrnn.core.cell import Params

State = Any  # a pytree; its arrays are donated

# What Python says where an argument is not taken, and what optax's line searches say.
UNEXPECTED = re.compile("unexpected keyword argument", re.IGNORECASE)


def update(
    optimizer: Any,
    gradient: Params,
    state: State,
    params: Params,
    value: jax.Array,
    value_fn: Callable[[Params], jax.Array],
) -> tuple[Params, State]:
    """Returns the updates and the new state, for any optimiser of optax.

    Args:
      optimizer: With whatever further arguments its `update` wants, of those below.
      gradient: Of the loss.
      state: The optimiser's.
      params: Where the gradient was taken.
      value: The loss there.
      value_fn: params -> the loss, for the same batch, carry and key.
    """
    extra = {
        "value": value,
        "grad": gradient,
        "value_fn": value_fn,
        "obj_fn": value_fn,  # `optax.contrib.sophia`
        "grad_fn": lambda params, _=0: jax.grad(value_fn)(params),  # its `sam`
    }
    while True:  # What an update takes does not always show in its signature.
        try:
            return optimizer.update(gradient, state, params, **extra)
        except TypeError as error:
            refused = extra.keys() & re.findall(r"'(\w+)'", str(error))
            if not refused or not UNEXPECTED.search(str(error)):
                raise
            extra = {name: extra[name] for name in extra.keys() - refused}
