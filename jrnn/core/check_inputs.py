"""Checks of inputs, token ids, lengths and flags, and of concrete values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jrnn.core.arguments import check_size, tell
from jrnn.core.cell import Cell
from jrnn.core.check import _check_shape, check_array
from jrnn.core.countable import check_countable
from jrnn.core.integers import widen_integers

# The leading axes of arrays, by `time_axis`: T steps first, or one batch axis, B.
AXES = ("T, *batch", "B, T, *batch")


def check_time_axis(time_axis: Any) -> int:
    """Returns 0, time first, or 1, batch first; raises for anything else."""
    axis = check_size("time_axis", time_axis, least=0)
    if axis > 1:
        raise ValueError(
            "Expected time_axis to be 0, time first, or 1, batch first, got "
            f"{tell(time_axis)}."
        )
    return axis


def check_inputs(cell: Cell, xs: Array, time_axis: int = 0) -> tuple[int, ...]:
    """Returns the batch shape of `xs`, or raises."""
    size = cell.spec.input_size
    if jnp.issubdtype(xs.dtype, jnp.integer):
        return _check_tokens(xs, size, time_axis)
    _check_floating("xs", xs)
    if xs.ndim < 2 + time_axis or xs.shape[-1] != size:
        lead = AXES[time_axis]
        raise ValueError(
            f"Expected xs of shape ({lead}, {size}) for {cell}, or integer token ids "
            f"of shape ({lead}), got shape {xs.shape} of type {xs.dtype}."
        )
    _check_steps(xs, time_axis)
    return (*xs.shape[:time_axis], *xs.shape[time_axis + 1 : -1])


def _check_floating(name: str, x: Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"Expected {name} of a floating type, or integer token ids, got {x.dtype}; "
            f"cast it with {name}.astype(jnp.float32)."
        )


def _check_tokens(xs: Array, size: int, time_axis: int) -> tuple[int, ...]:
    if xs.ndim < 1:
        raise ValueError(
            "Expected token ids of shape (T, *batch), got a scalar; a sequence of one "
            "step is xs[None]."
        )
    if xs.ndim < 1 + time_axis:
        raise ValueError(
            f"Expected token ids of shape ({AXES[time_axis]}), got shape {xs.shape}; "
            "a batch of one sequence is xs[None]."
        )
    if xs.ndim > 2 and xs.shape[-1] == size:
        raise TypeError(
            f"Expected floating features, or token ids of shape (T, *batch), got "
            f"{xs.dtype} of shape {xs.shape}, whose last axis is the input size "
            f"{size}: cast features with xs.astype(jnp.float32); for token ids put "
            "the batch axes together with xs.reshape(len(xs), -1)."
        )
    _check_steps(xs, time_axis)
    return (*xs.shape[:time_axis], *xs.shape[time_axis + 1 :])


def check_ids(name: str, ids: Array | np.ndarray, size: int) -> None:
    """Raises ValueError if concrete token ids lie outside 0..size-1."""
    known = known_values(ids)
    if known is None or known.size == 0:
        return
    if known.min() < 0 or known.max() >= size:
        where = np.argwhere((known < 0) | (known >= size))[0]
        raise ValueError(
            f"Expected token ids of {name} within 0..{size - 1}, got "
            f"{known[tuple(where)]} at position {tuple(map(int, where))}; make the "
            "cell's input_size the size of the vocabulary, or map unknown symbols."
        )


def known_values(array: Any) -> np.ndarray | None:
    """Returns the values of `array`; None if this process cannot know them.

    Values on a CPU are read in place; others are transferred, explicitly if a transfer
    guard refuses the implicit transfer.
    """
    if isinstance(array, Tracer):
        return None
    try:
        return np.asarray(array)
    except RuntimeError:  # from the guard, or for values spread over processes
        if not array.is_fully_addressable:
            return None
        return np.asarray(jax.device_get(array))


def known_inputs(
    xs: Array, lengths: Any, mask: Any, time_axis: int = 0
) -> np.ndarray | None:
    """Returns concrete inputs, with 0 where they are inactive; None: not known."""
    known = known_values(xs)
    read = True if mask is None else known_values(mask)
    ends = None if lengths is None else known_values(lengths)
    if known is None or read is None or (ends is None and lengths is not None):
        return None
    if ends is not None:
        t = np.arange(known.shape[time_axis]).reshape(-1, *(1,) * ends.ndim)
        read = read & (t < ends).swapaxes(0, time_axis)
    if read is True:
        return known
    over = read.reshape(read.shape + (1,) * (known.ndim - read.ndim))
    return np.where(over, known, np.zeros((), known.dtype))


def check_elapsed(cell: Cell, known: np.ndarray | None) -> None:
    """Raises ValueError if a concrete elapsed time is negative, NaN or infinite."""
    if cell.elapsed is None or known is None or known.dtype.kind in "biu":
        return
    check_times(known[..., cell.elapsed], cell)


def check_times(times: np.ndarray, cell: Any) -> None:
    """Raises ValueError if an elapsed time is negative, NaN or infinite."""
    wrong = ~((times >= 0) & (times < np.inf))
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"Expected elapsed times of at least 0, finite, in the inputs of {cell}, "
            f"got {times[where]} at position {where}; pass the time since the "
            "previous step, which is 0 for two steps at the same time."
        )


def _check_steps(xs: Array, time_axis: int) -> None:
    if xs.shape[time_axis] == 0:
        raise ValueError(
            f"Expected a sequence of at least one step, got xs of shape {xs.shape}; "
            f"time is axis {time_axis}."
        )


def check_input(cell: Cell, x: Array) -> tuple[int, ...]:
    """Returns the batch shape of the input of one step, or raises."""
    size = cell.spec.input_size
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x.shape
    _check_floating("x", x)
    if x.ndim < 1 or x.shape[-1] != size:
        raise ValueError(
            f"Expected x of shape (*batch, {size}) for {cell}, or integer token ids of "
            f"shape (*batch,), got shape {x.shape} of type {x.dtype}."
        )
    return x.shape[:-1]


def check_lengths(lengths: Any, steps: int, batch: tuple[int, ...]) -> Array:
    """Returns lengths as int32 or int64; raises unless (*batch,) and within 0..T."""
    lengths = check_array("lengths", lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(
            f"Expected integer lengths, got {lengths.dtype}; cast them with "
            "lengths.astype(jnp.int32)."
        )
    _check_shape("lengths", lengths, batch, "(*batch,)")
    check_countable(steps, "lengths")
    check_length_values(lengths, steps)
    return widen_integers(lengths)


def check_length_values(lengths: Array, steps: int) -> None:
    """Raises ValueError if a concrete length is not within 0..T."""
    known = known_values(lengths)  # jnp would be traced as `unroll` is
    if known is None or known.size == 0:
        return
    least = int(np.minimum.reduce(known, axis=None))
    most = int(np.maximum.reduce(known, axis=None))
    if least < 0 or most > steps:
        raise ValueError(
            f"Expected lengths within 0..{steps}, the number of steps in xs, got "
            f"values from {least} to {most}."
        )


def check_flags(
    name: str, flags: Array | None, steps: int, batch: tuple, time_axis: int = 0
) -> None:
    """Raises unless `flags` is None, or boolean and of shape (T, *batch)."""
    if flags is None:
        return
    if flags.dtype != jnp.bool_:
        meaning = "a segment begins" if name == "resets" else "a step counts"
        raise TypeError(
            f"Expected {name} to be boolean, True where {meaning}, got {flags.dtype}; "
            "compare with 0 to make it so."
        )
    shape = (*batch[:time_axis], steps, *batch[time_axis:])
    _check_shape(name, flags, shape, f"({AXES[time_axis]})")


def check_counted(
    name: str, values: Any, lengths: Any, mask: Any
) -> tuple[Array, Array | None, Array | None]:
    """Returns numbers (T, *batch), and lengths and mask, as checked arrays."""
    values = check_array(name, values)
    kinds = jnp.number, jnp.bool_
    if not any(jnp.issubdtype(values.dtype, kind) for kind in kinds):
        raise TypeError(f"Expected {name} to be numbers, got {values.dtype}.")
    if values.ndim < 1:
        raise ValueError(f"Expected {name} of shape (T, *batch), got a scalar.")
    steps, batch = values.shape[0], values.shape[1:]
    if lengths is not None:
        lengths = check_array("lengths", lengths)
        check_lengths(lengths, steps, batch)
    mask = None if mask is None else check_array("mask", mask)
    check_flags("mask", mask, steps, batch)
    return values, lengths, mask


def check_features(name: str, x: Any) -> None:
    """Raises TypeError if a cell that needs features gets token ids."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(
            f"Expected floating inputs to {name}, got {jnp.result_type(x)}: token ids "
            "are not features; stack it on a cell that reads them."
        )


def check_tokens(xs: Any, name: str = "xs") -> Array:
    """Returns token ids as int32 or int64; raises unless integer and (T, *batch)."""
    xs = check_array(name, xs)
    if not jnp.issubdtype(xs.dtype, jnp.integer):
        raise TypeError(
            f"Expected {name} to be integer token ids of shape (T, *batch), got "
            f"{xs.dtype} of shape {xs.shape}."
        )
    check_steps(xs, name=name)
    return widen_integers(xs)


def check_steps(
    xs: Array, event: tuple[int, ...] = (), name: str = "xs"
) -> tuple[int, ...]:
    """Returns the batch shape of symbols; raises if there is no step."""
    if xs.ndim < 1 + len(event) or xs.shape[0] == 0:
        shape = ", ".join(["(T, *batch", *map(str, event)])
        raise ValueError(
            f"Expected {name} to be a sequence of at least one symbol, {shape}), got "
            f"shape {xs.shape}."
        )
    return xs.shape[1 : xs.ndim - len(event)]


def check_prompt(
    prompt: Array, batch_shape: tuple[int, ...], event: tuple[int, ...] = ()
) -> Array:
    """Returns a prompt (P, *batch, *event); one without batch axes is broadcast.

    P may be 0: a prompt without symbols still determines the number of sequences.
    """
    if prompt.ndim < 1 + len(event):
        shape = ", ".join(["(P, *batch", *map(str, event)])
        raise ValueError(
            f"Expected a prompt of shape {shape}), time first, got {prompt.shape}."
        )
    steps, batch = prompt.shape[0], prompt.shape[1 : prompt.ndim - len(event)]
    if not batch and batch_shape:
        prompt = prompt.reshape(steps, *(1,) * len(batch_shape), *event)
        return jnp.broadcast_to(prompt, (steps, *batch_shape, *event))
    if batch_shape and batch != tuple(batch_shape):
        raise ValueError(
            f"Expected a prompt of shape (P,) or (P, *batch_shape) = (P, "
            f"{', '.join(map(str, batch_shape))}), got {prompt.shape}; leave out "
            "batch_shape, or make it, and the state's, equal to the prompt's."
        )
    return prompt
