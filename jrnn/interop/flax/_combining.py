"""Two modules that read from both ends, and modules on top of each other.

The modules are `RNN`s of jrnn, or any others that are called like Flax's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import check_switch, tell

Merge = Callable[[Array, Array], Array]


def concatenate(forward: Array, backward: Array) -> Array:
    """Puts the outputs of both directions side by side."""
    return jnp.concatenate([forward, backward], axis=-1)


def switch(name: str, given: bool | None, default: bool) -> bool:
    """Returns a switch of one call: the one given, else that of the module."""
    return check_switch(name, default if given is None else given)


def both_ways(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    merge_fn: Merge,
    inputs: Any,
    carries: Any,
    keywords: dict[str, Any],
) -> tuple[tuple[Any, Any], Any]:
    """Returns the final carries of both directions, and their outputs merged.

    Args:
      forward: Reads from the first step.
      backward: Reads from the last.
      merge_fn: (outputs forward, outputs backward) -> outputs.
      inputs: Of both.
      carries: The initial carries of both; None: their own.
      keywords: Further arguments of both; those that are None are left out.
    """
    ahead, back = _carries(carries, ("forward", "backward"))
    given = _given(keywords) | {"return_carry": True}
    last, ys = forward(inputs, initial_carry=ahead, reverse=False, **given)
    first, zs = backward(
        inputs, initial_carry=back, reverse=True, keep_order=True, **given
    )
    return (last, first), jax.tree.map(merge_fn, ys, zs)


def layer_by_layer(
    layers: Sequence[Callable[..., Any]],
    inputs: Any,
    carries: Any,
    keywords: dict[str, Any],
    *,
    reverse: bool,
    keep_order: bool,
) -> tuple[tuple[Any, ...], Any]:
    """Returns the final carry of each layer, and the outputs of the last.

    Args:
      layers: Each reads the outputs of the one before.
      inputs: Of the first.
      carries: The initial carry of each; None: their own.
      keywords: Further arguments of all; those that are None are left out.
      reverse: As in `jrnn.interop.flax._running.Layout`.
      keep_order: As there.
    """
    starts = _carries(carries, tuple(f"layer {i}" for i in range(len(layers))))
    given = _given(keywords) | {"return_carry": True}
    last = []
    for i, (layer, start) in enumerate(zip(layers, starts, strict=True)):
        order = {}
        if reverse:  # a layer in both directions has no order of reading
            inside = i < len(layers) - 1
            order = {"reverse": True, "keep_order": inside or keep_order}
        carry, inputs = layer(inputs, initial_carry=start, **order, **given)
        last.append(carry)
    return tuple(last), inputs


def _given(keywords: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}


def _carries(carries: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Returns one initial carry for each name; raises unless there are as many."""
    if carries is None:
        return (None,) * len(names)
    if not isinstance(carries, tuple | list) or len(carries) != len(names):
        raise ValueError(
            f"Expected initial_carry to be a tuple of {len(names)} carries "
            f"({', '.join(names)}), got {tell(carries)}."
        )
    return tuple(carries)
