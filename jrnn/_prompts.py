"""Where sampling starts: a state, then a prompt; without batch axes they serve all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn._base import State
from jrnn._check import check_array, fit_state
from jrnn._check_kinds import dtype_of, shape_of

Init = Callable[..., State]  # batch_shape=() -> a state before anything


def check_prompt_mask(prompt: Any, prompt_mask: Any) -> None:
    """Raises ValueError where there is a mask and no prompt."""
    if prompt_mask is not None and prompt is None:
        raise ValueError(
            "Expected a prompt beside prompt_mask, which tells what is known of it, "
            "got none; leave prompt_mask out."
        )


def typed(prompt: Any, dtype: DTypeLike, event: tuple[int, ...] = ()) -> Array:
    """Returns a prompt as an array; one without symbols, such as [], of that type."""
    prompt = check_array("prompt", prompt)
    if prompt.shape[:1] != (0,):
        return prompt
    prompt = prompt.astype(dtype)
    return prompt.reshape(0, *event) if prompt.ndim == 1 else prompt


def batch_of(init: Init, state: Any, axis: int = 0) -> tuple[int, ...]:
    """Returns the batch shape of a state, whose batch axes begin at `axis`."""
    if state is None:
        return ()
    like = jax.eval_shape(init)
    if jax.tree.structure(state) != jax.tree.structure(like):
        return ()  # `spread` refuses it
    leaf, one = (jax.tree.leaves(s)[-1] for s in (state, like))
    shape = shape_of(leaf)
    return shape[axis : axis + len(shape) - one.ndim]


def spread(init: Init, state: Any, batch: tuple[int, ...], axis: int = 0) -> Any:
    """Returns a state of that batch shape, or raises where it is of another.

    Args:
      init: Makes such a state, of any batch shape.
      state: None: the one that `init` makes.
      batch: The batch shape.
      axis: Where a leaf's batch axes begin.
    """
    if state is None:
        return init(batch)
    like = jax.eval_shape(lambda: init(batch))
    structured = jax.tree.structure(state) == jax.tree.structure(like)
    if structured and not batch_of(init, state, axis):

        def widen(leaf: Any, wide: Any) -> Any:
            own = wide.shape[:axis] + wide.shape[axis + len(batch) :]
            if dtype_of(leaf) is None or shape_of(leaf) != own:
                return leaf  # refused below
            leaf = jnp.expand_dims(leaf, tuple(range(axis, axis + len(batch))))
            return jnp.broadcast_to(leaf, wide.shape)

        state = jax.tree.map(widen, state, like)
    return fit_state("state", state, like, (), lambda: f"init_state(params, {batch})")


def check_single(init: Init, state: Any, axis: int = 0) -> Any:
    """Returns a state of any batch shape, or raises where it is none."""
    if state is None:
        raise TypeError(
            "Expected state to be what init_state(params, batch_shape) returns, got "
            "None."
        )
    return spread(init, state, batch_of(init, state, axis), axis)
