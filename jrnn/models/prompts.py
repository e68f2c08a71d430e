"""The start of sampling: checks its arguments, and reads the prompt."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_size, tell
from jrnn.core.cell import State
from jrnn.core.check import check_array, fit_state
from jrnn.core.check_draws import (
    check_batch_shape,
    check_given_key,
    check_temperature,
)
from jrnn.core.check_inputs import check_prompt, known_values
from jrnn.core.check_kinds import dtype_of, shape_of
from jrnn.core.countable import check_countable
from jrnn.core.integers import token_ids
from jrnn.heads.sampling import check_truncation
from jrnn.models.generation import Start

Init = Callable[..., State]  # batch_shape=() -> the initial state


class Reader(NamedTuple):
    """How a model reads a prompt.

    Attributes:
      init: batch_shape=() -> the initial state.
      read: (prompt, state, mask, inputs) -> the state after the prompt.
      check: (name, prompt, mask) -> both as arrays; raises on wrong types or shapes.
      check_values: (name, prompt, mask) -> None; raises on an invalid value.
      dtype: The dtype of an empty prompt.
      event: The shape of one symbol.
      axis: The first batch axis of a state's leaves.
      refusal: What the model's symbols are of, if they are not token ids.
      check_inputs: (name, inputs, lead) -> inputs of shape (*lead, k), or None if the
        model has none; raises unless they fit.
    """

    init: Init
    read: Callable[..., State]
    check: Callable[..., tuple[Array, Array | None]]
    check_values: Callable[..., None]
    dtype: DTypeLike
    event: tuple[int, ...] = ()
    axis: int = 0
    refusal: str | None = None
    check_inputs: Callable[..., Array | None] = lambda *_: None


class Request(NamedTuple):
    """The arguments of a model's `sample`, in its order."""

    key: Any
    length: Any
    prompt: Any = None
    temperature: Any = 1.0
    batch_shape: Any = ()
    state: Any = None
    prompt_mask: Any = None
    top_k: Any = None
    top_p: Any = None
    inputs: Any = None
    prompt_inputs: Any = None


def begin(reader: Reader, request: Request) -> tuple[int, Start]:
    """Returns how many symbols to draw, and what they follow.

    Raises if an argument is invalid.
    """
    key = check_given_key(request.key)
    length = check_size("length", request.length, least=0)
    check_countable(length, "sampling", name="symbols of length")
    _check_together(request)
    batch = check_batch_shape(request.batch_shape)
    batch = batch or _batch_of(reader.init, request.state, reader.axis)
    request = _with_arrays(request)
    batch = batch or shape_of(request.inputs)[1:-1]
    batch, prompt, mask = _prompt_of(reader, request, batch)
    temperature = check_temperature(request.temperature, batch)
    truncation = check_truncation(request.top_k, request.top_p, batch, reader.refusal)
    inputs = _spread_inputs(reader, "inputs", request.inputs, length, batch)
    state = _spread(reader.init, request.state, batch, reader.axis)
    if prompt is not None:
        given = "prompt_inputs", request.prompt_inputs, prompt.shape[0], batch
        prompt_inputs = _spread_inputs(reader, *given)
        if prompt.shape[0]:
            state = reader.read(prompt, state, mask, prompt_inputs)
    return length, Start(key, state, temperature, truncation, inputs)


def _check_together(request: Request) -> None:
    """Raises ValueError for a mask or inputs of a prompt that is not given."""
    told = {
        "prompt_mask": "says which of its values are known",
        "prompt_inputs": "holds the inputs of each of its symbols",
    }
    for name, words in told.items():
        if getattr(request, name) is not None and request.prompt is None:
            raise ValueError(
                f"Expected a prompt together with {name}, which {words}, got none; "
                f"leave {name} out."
            )


def _prompt_of(
    reader: Reader, request: Request, batch: tuple[int, ...]
) -> tuple[tuple[int, ...], Array | None, Array | None]:
    """Returns the batch shape, the prompt and its mask; raises unless these fit."""
    event, mask = reader.event, None
    if request.prompt is None:
        return batch, None, None
    prompt = _typed(request.prompt, reader.dtype, event)
    prompt, mask = reader.check("prompt", prompt, request.prompt_mask)
    prompt = check_prompt(prompt, batch, event)
    mask = None if mask is None else check_prompt(mask, batch, event)
    reader.check_values("prompt", prompt, mask)
    return prompt.shape[1 : prompt.ndim - len(event)], prompt, mask


def _with_arrays(request: Request) -> Request:
    """Returns a request whose inputs are arrays or None."""
    names = [n for n in ("inputs", "prompt_inputs") if getattr(request, n) is not None]
    return request._replace(**{n: check_array(n, getattr(request, n)) for n in names})


def _spread_inputs(
    reader: Reader, name: str, inputs: Array | None, steps: int, batch: tuple[int, ...]
) -> Array | None:
    """Returns inputs (steps, *batch, k); those without batch axes are broadcast."""
    if inputs is not None and batch and inputs.ndim == 2:
        own, k = inputs.shape
        inputs = inputs.reshape(own, *(1,) * len(batch), k)
        inputs = jnp.broadcast_to(inputs, (own, *batch, k))
    return reader.check_inputs(name, inputs, (steps, *batch))


def check_end(end: Any, vocab_size: int) -> Array:
    """Returns an end symbol as an array; raises unless it is one token id."""
    known = check_array("end", end)
    if not jnp.issubdtype(known.dtype, jnp.integer) or known.ndim:
        raise TypeError(f"Expected end to be one token id, got {tell(end)}.")
    value = known_values(known)
    if value is not None and not 0 <= value < vocab_size:
        raise ValueError(
            f"Expected end to be a token id within 0..{vocab_size - 1}, got {end}."
        )
    return token_ids(known)


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
