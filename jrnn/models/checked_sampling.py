"""The functions of a sequence model that draw symbols: they check, then run."""

import functools
from typing import Any

import jax
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.cell import Cell, Key
from jrnn.core.dtypes import state_dtype
from jrnn.heads.head import Head
from jrnn.models.checked_reading import check_own_params, start_state, through
from jrnn.models.generation import Sampled, Start
from jrnn.models.known_inputs import check_known, check_known_times
from jrnn.models.prompts import Reader, Request, begin, check_end
from jrnn.models.reading import (
    SequenceParams,
    SequenceState,
    generate,
    generate_until,
    score,
)


def sample(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    key: Key,
    length: int,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: SequenceState | None = None,
    prompt_mask: Any = None,
    top_k: int | Array | None = None,
    top_p: float | Array | None = None,
    inputs: Any = None,
    prompt_inputs: Any = None,
) -> Array:
    """Draws `length` symbols that follow a state and a prompt."""
    request = Request(
        *(key, length, prompt, temperature, batch_shape, state, prompt_mask),
        *(top_k, top_p, inputs, prompt_inputs),
    )
    length, start = _begun(cell, head, params, request)
    return generate(cell, head, length, params, start)


def sample_until(
    cell: Cell,
    head: Head,
    params: SequenceParams,
    key: Key,
    length: int,
    end: int | Array,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: SequenceState | None = None,
    prompt_mask: Any = None,
    top_k: int | Array | None = None,
    top_p: float | Array | None = None,
    inputs: Any = None,
    prompt_inputs: Any = None,
) -> Sampled:
    """Draws token ids up to `end`, at most `length` of them."""
    if not head.family.truncates:
        raise TypeError(
            "Expected a head of token ids for the symbol end, such as "
            f"jrnn.categorical(5), got end={tell(end)} for {head}; sample draws a "
            "fixed number of values."
        )
    end = check_end(end, head.spec.output_size)
    request = Request(
        *(key, length, prompt, temperature, batch_shape, state, prompt_mask),
        *(top_k, top_p, inputs, prompt_inputs),
    )
    length, start = _begun(cell, head, params, request)
    return generate_until(cell, head, length, params, start, end)


def _begun(
    cell: Cell, head: Head, params: SequenceParams, request: Request
) -> tuple[int, Start]:
    """Checks the arguments, and reads the prompt."""
    check_own_params(cell, head, params)

    def read(
        prompt: Array, state: SequenceState, mask: Array | None, inputs: Array | None
    ) -> SequenceState:
        given = functools.partial(through, score, cell, head, params, prompt, state)
        return given(mask=mask, inputs=inputs)[0]

    def check_inputs(name: str, inputs: Any, lead: tuple[int, ...]) -> Array | None:
        inputs = check_known(cell, head, name, inputs, lead)
        check_known_times(cell, head, inputs)
        return inputs

    reader = Reader(
        functools.partial(start_state, cell, head, params),
        read,
        head.check,
        head.check_values,
        jax.tree.leaves(head.blank((), state_dtype(params.head)))[0].dtype,
        head.event_shape,
        refusal=None if head.family.truncates else str(head),
        check_inputs=check_inputs,
    )
    return begin(reader, request)
