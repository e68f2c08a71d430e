"""The start of sampling: broadcasts the state to the batch, then reads the prompt."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Key, State
from jrnn.core.check import check_array, fit_state
from jrnn.core.check_draws import (
    check_batch_shape,
    check_given_key,
    check_temperature,
)
from jrnn.core.check_inputs import check_prompt
from jrnn.core.check_kinds import dtype_of, shape_of
from jrnn.core.countable import check_countable

Init = Callable[..., State]  # batch_shape=() -> the initial state


class Reader(NamedTuple):
    """How a model reads a prompt.

    Attributes:
      init: batch_shape=() -> the initial state.
      read: (prompt, state, mask) -> the state after the prompt.
      check: (name, prompt, mask) -> both as arrays; raises on wrong types or shapes.
      check_values: (name, prompt, mask) -> None; raises on an invalid value.
      dtype: The dtype of an empty prompt.
      event: The shape of one symbol.
      axis: The first batch axis of a state's leaves.
    """

    init: Init
    read: Callable[..., State]
    check: Callable[..., tuple[Array, Array | None]]
    check_values: Callable[..., None]
    dtype: DTypeLike
    event: tuple[int, ...] = ()
    axis: int = 0


def begin(
    reader: Reader,
    key: Any,
    length: Any,
    temperature: Any,
    prompt: Any,
    prompt_mask: Any,
    state: Any,
    batch_shape: Any,
) -> tuple[int, Key, State, Array]:
    """Returns the length, the key, the state to sample from, and the temperature.

    Arguments are those of every model's `sample`; raises if one is invalid.
    """
    key = check_given_key(key)
    length = check_size("length", length, least=0)
    check_countable(length, "sampling", name="symbols of length")
    if prompt_mask is not None and prompt is None:
        raise ValueError(
            "Expected a prompt together with prompt_mask, which says which of its "
            "values are known, got none; leave prompt_mask out."
        )
    init, event, axis, mask = reader.init, reader.event, reader.axis, None
    batch = check_batch_shape(batch_shape) or _batch_of(init, state, axis)
    if prompt is not None:
        prompt = _typed(prompt, reader.dtype, event)
        prompt, mask = reader.check("prompt", prompt, prompt_mask)
        prompt = check_prompt(prompt, batch, event)
        mask = None if mask is None else check_prompt(mask, batch, event)
        reader.check_values("prompt", prompt, mask)
        batch = prompt.shape[1 : prompt.ndim - len(event)]
    temperature = check_temperature(temperature, batch)
    state = _spread(init, state, batch, axis)
    if prompt is not None and prompt.shape[0]:
        state = reader.read(prompt, state, mask)
    return length, key, state, temperature


def _typed(prompt: Any, dtype: DTypeLike, event: tuple[int, ...]) -> Array:
    """Returns a prompt as an array; an empty one, such as [], gets that dtype."""
    prompt = check_array("prompt", prompt)
    if prompt.shape[:1] != (0,):
        return prompt
    prompt = prompt.astype(dtype)
    return prompt.reshape(0, *event) if prompt.ndim == 1 else prompt


def _batch_of(init: Init, state: Any, axis: int) -> tuple[int, ...]:
    """Returns the batch shape of a state whose first batch axis is `axis`."""
    if state is None:
        return ()
    like = jax.eval_shape(init)
    if jax.tree.structure(state) != jax.tree.structure(like):
        return ()  # `_spread` refuses it
    leaf, one = (jax.tree.leaves(s)[-1] for s in (state, like))
    shape = shape_of(leaf)
    return shape[axis : axis + len(shape) - one.ndim]


def _spread(init: Init, state: Any, batch: tuple[int, ...], axis: int) -> Any:
    """Returns a state broadcast to a batch shape; raises if it has another one.

    Args:
      init: Makes an initial state of any batch shape.
      state: The state; None: the initial state.
      batch: The batch shape.
      axis: The first batch axis of a leaf.
    """
    if state is None:
        return init(batch)
    like = jax.eval_shape(lambda: init(batch))
    structured = jax.tree.structure(state) == jax.tree.structure(like)
    if structured and not _batch_of(init, state, axis):

        def widen(leaf: Any, wide: Any) -> Any:
            own = wide.shape[:axis] + wide.shape[axis + len(batch) :]
            if dtype_of(leaf) is None or shape_of(leaf) != own:
                return leaf  # refused below
            leaf = jnp.expand_dims(leaf, tuple(range(axis, axis + len(batch))))
            return jnp.broadcast_to(leaf, wide.shape)

        state = jax.tree.map(widen, state, like)
    return fit_state("state", state, like, (), lambda: f"init_state(params, {batch})")


def check_single(init: Init, state: Any, axis: int = 0) -> Any:
    """Returns a state of any batch shape; raises unless it is a state."""
    if state is None:
        raise TypeError(
            "Expected state to be what init_state(params, batch_shape) returns, got "
            "None."
        )
    return _spread(init, state, _batch_of(init, state, axis), axis)
