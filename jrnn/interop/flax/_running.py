"""One run of a cell with the layout and the arguments of Flax's `RNN`.

Flax has the batch first, (*batch, T, features), or with `time_major` time first, and
returns the outputs of a reversed run in the order of reading unless `keep_order`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.core.arguments import check_switch
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_array, expected_state, fit_state
from jrnn.core.integers import widen_integers
from jrnn.core.method import Method
from jrnn.run.order import flip
from jrnn.run.unroll import unroll


class Layout(NamedTuple):
    """The switches of Flax's `RNN`.

    Attributes:
      time_major: Whether time is axis 0, before the batch axes.
      return_carry: Whether to return (final carry, outputs), not outputs alone.
      reverse: Whether each sequence is read from its own last step to its first.
      keep_order: Whether the outputs of a reversed run are in the order of the inputs;
        False: in the order of reading, the padding still at the end.
    """

    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False


class Given(NamedTuple):
    """The array arguments of a call, as in `jrnn.unroll`; None: not given."""

    carry: State | None = None
    lengths: Any = None
    resets: Any = None
    mask: Any = None


def layout_of(module: Any, **given: bool | None) -> Layout:
    """Returns the switches of one call: those given, else those of the module."""
    own = {n: getattr(module, n) for n in Layout._fields}
    own |= {n: v for n, v in given.items() if v is not None}
    return Layout(**{n: check_switch(n, value) for n, value in own.items()})


def one_of(lengths: Any, seq_lengths: Any) -> Any:
    """Returns the lengths of sequences, which Flax calls `seq_lengths`."""
    if lengths is not None and seq_lengths is not None:
        raise ValueError(
            "Expected one of lengths and seq_lengths, got both; they are two names of "
            "one argument."
        )
    return seq_lengths if lengths is None else lengths


def run(
    cell: Cell,
    params: Params,
    inputs: Any,
    given: Given,
    layout: Layout,
    key: Key | None = None,
    method: Method | None = None,
) -> Any:
    """Runs a cell along a sequence, as Flax's `RNN` does.

    Args:
      cell: The cell to run.
      params: Its parameters.
      inputs: Floats (*batch, T, input_size), or token ids (*batch, T); with
        `time_major` (T, *batch, input_size) or (T, *batch).
      given: The carry has leaves (*batch, ...), lengths are (*batch,), resets and mask
        (*batch, T), or (T, *batch) with `time_major`.
      layout: The switches.
      key: As in `jrnn.unroll`.
      method: As in `jrnn.unroll`.

    Returns:
      The outputs (*batch, T, output_size), or (T, *batch, output_size); with
      `return_carry` the final carry and these.

    Raises:
      TypeError: An argument has the wrong type.
      ValueError: An argument has the wrong shape or structure.
    """
    inputs = check_array("inputs", inputs)
    steps = _shape_of_steps(cell, inputs)
    axis = 0 if layout.time_major else len(steps) - 1
    batch = (*steps[:axis], *steps[axis + 1 :])
    carry, lengths, resets, mask = given
    if carry is not None:
        source = lambda: f"{cell}.init_state(params, {batch})"
        carry = fit_state("initial_carry", carry, expected_state(cell), batch, source)
    state, ys = unroll(
        cell,
        params,
        _time_first(inputs, axis),
        carry,
        lengths=lengths,
        resets=_flags("resets", resets, steps, axis),
        mask=_flags("mask", mask, steps, axis),
        reverse=layout.reverse,
        key=key,
        method=method,
    )
    if layout.reverse and not layout.keep_order:
        ys = _in_order_of_reading(ys, lengths)
    ys = jnp.moveaxis(ys, 0, axis) if axis else ys
    return (state, ys) if layout.return_carry else ys


def _shape_of_steps(cell: Cell, inputs: Array) -> tuple[int, ...]:
    """Returns the shape of the inputs without features: batch axes and time."""
    size, shape = cell.spec.input_size, inputs.shape
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
        if inputs.ndim < 2 or shape[-1] != size:
            raise ValueError(
                f"Expected inputs of shape (*batch, T, {size}) for {cell}, or (T, "
                f"*batch, {size}) with time_major=True, got shape {shape} of type "
                f"{inputs.dtype}."
            )
        return shape[:-1]
    refuse_integers(cell, inputs, ("*batch", "T"))
    if inputs.ndim < 1:
        raise ValueError("Expected inputs to be a sequence (*batch, T), got a scalar.")
    return shape


def refuse_integers(cell: Cell, inputs: Any, axes: tuple[str, ...]) -> None:
    """Raises TypeError for features of an integer type, which would be token ids.

    Args:
      cell: The cell that reads them.
      inputs: An array, or anything else.
      axes: Of token ids.
    """
    dtype, shape = getattr(inputs, "dtype", None), np.shape(inputs)
    if dtype is None or not jnp.issubdtype(dtype, jnp.integer):
        return
    if len(shape) > len(axes) and shape[-1] == cell.spec.input_size:
        raise TypeError(
            f"Expected floating inputs, or token ids of shape ({', '.join(axes)}), got "
            f"{dtype} of shape {shape}, whose last axis is the input size "
            f"{shape[-1]}: cast features with inputs.astype(jnp.float32); put several "
            "batch axes of token ids together."
        )


def _flags(name: str, flags: Any, steps: tuple[int, ...], axis: int) -> Array | None:
    """Returns resets or a mask time first; raises unless of the shape of the steps."""
    if flags is None:
        return None
    flags = check_array(name, flags)
    if flags.shape != steps:
        raise ValueError(
            f"Expected {name} of shape {steps}, the inputs' without features, got "
            f"{flags.shape}."
        )
    return _time_first(flags, axis)


def _time_first(array: Array, axis: int) -> Array:
    return jnp.moveaxis(array, axis, 0) if axis else array


def _in_order_of_reading(ys: Array, lengths: Any) -> Array:
    if lengths is not None:
        lengths = jnp.clip(widen_integers(jnp.asarray(lengths)), 0, ys.shape[0])
    return flip(lengths, ys.shape[0], ys)
