"""How many steps JAX's integers can count, and methods that need a number of them."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

MOST_STEPS = 2**31 - 1  # what 32 bits count


def countable(steps: int) -> bool:
    """Returns whether JAX's integers (32 or 64 bits) can count that many steps."""
    few = not isinstance(steps, int) or steps <= MOST_STEPS  # symbolic sizes pass
    return few or jax.dtypes.canonicalize_dtype(jnp.int64) == jnp.int64


def check_countable(
    steps: int, what: str, wide: bool = True, name: str = "steps of xs"
) -> None:
    """Raises ValueError if there are more steps than JAX's integers can count.

    Beyond that, JAX refuses loops, and positions overflow without an error.

    Args:
      steps: The number of steps.
      what: What counts them, for the error.
      wide: Whether it counts in 64 bits where JAX has them.
      name: What is counted, for the error.
    """
    kernel = not wide and isinstance(steps, int) and steps > MOST_STEPS
    if kernel or not countable(steps):
        remedy = "call jax.config.update('jax_enable_x64', True), or " if wide else ""
        raise ValueError(
            f"Expected at most {MOST_STEPS} {name} for {what}, which counts them in 32 "
            f"bits, got {steps}; {remedy}run it in parts, and pass the state on."
        )


def check_fixed(shape: Iterable[Any], what: str) -> None:
    """Raises ValueError if a size is a symbol, for methods that plan with numbers.

    Args:
      shape: Sizes.
      what: The method, for the error.
    """
    for size in shape:
        if not isinstance(size, int):
            raise ValueError(
                f"Expected sizes of xs that are numbers for {what}, got the symbol "
                f"{size}; take jrnn.bptt(), jrnn.scan() or, for a linear cell, "
                "jrnn.associative(), or export for one size."
            )
