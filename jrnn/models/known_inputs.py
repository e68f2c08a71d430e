r"""Inputs that are known beforehand, such as covariates and elapsed times.

    P(x_t | x_1..x_{t-1}, z_1..z_t) = P(x_t | h_t),  h_t = f(h_{t-1}, (x_{t-1}, z_t))

At step t the cell reads the last symbol, as the head encodes it, and beside it the k
inputs z_t of the step that it predicts. Token ids are encoded as one-hot vectors here,
because a cell looks up rows only if it reads ids alone.

An elapsed time among z_t is the time from x_{t-1} to x_t: how far ahead x_t is
forecast. `jrnn.cells.s5` with `irregular` holds its input over this time, so

    h_t = exp(Lambda dt_t) h_{t-1} + (exp(Lambda dt_t) - 1) / Lambda * (x_{t-1} B)

is its state at the time of x_t: x_{t-1} enters at the beginning of the interval, and
all of it acts on what is forecast. A cell that lets its state decay first, and then
reads x_{t-1} as if it were new, would forecast as from the time of x_{t-1}.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.cell import Cell
from jrnn.core.check import check_array, check_no_elapsed
from jrnn.core.check_inputs import check_times, known_values
from jrnn.core.dtypes import state_dtype
from jrnn.heads.head import Head


def count_inputs(cell: Cell, head: Head) -> int:
    """Returns k, the number of known inputs of each step."""
    return cell.spec.input_size - head.spec.input_size


def check_declared(cell: Cell, head: Head, inputs: int) -> None:
    """Raises ValueError unless the cell reads a symbol and `inputs` known inputs.

    Its elapsed time, if it reads one, must be among the known inputs.
    """
    size, encoded = cell.spec.input_size, head.spec.input_size
    if size != encoded + inputs:
        parts = f", the size to which {head} encodes symbols"
        parts += f", and {inputs} known inputs" if inputs else ""
        raise ValueError(
            f"Expected a cell with input_size={encoded + inputs}{parts}, got {cell}"
            + (
                f"; for {size - encoded} known inputs beside the symbol pass "
                f"inputs={size - encoded}."
                if not inputs and size > encoded
                else "."
            )
        )
    if cell.elapsed is not None and cell.elapsed % size < encoded:
        check_no_elapsed(
            "sequence_model",
            cell,
            f"feature {cell.elapsed % size} is part of the symbols that {head} encodes;"
            " pass times as the last of the known inputs, with inputs=1 or more",
        )


def check_known(
    cell: Cell, head: Head, name: str, inputs: Any, lead: tuple[int, ...]
) -> Array | None:
    """Returns known inputs (*lead, k) as an array; raises unless they fit the model.

    Args:
      cell: The cell of the model.
      head: The head of the model.
      name: The name of the argument.
      inputs: The inputs; None if the model has none.
      lead: The shape without k: (T, *batch) or (*batch,).
    """
    k = count_inputs(cell, head)
    if inputs is None and not k:
        return None
    shape = (*lead, k)
    if inputs is None:
        raise ValueError(
            f"Expected {name} of shape {shape}, because the model was made with "
            f"inputs={k}, got None; they are known before the symbol that they stand "
            "beside."
        )
    if not k:
        raise ValueError(
            f"Expected no {name}, because the model was made without, got "
            f"{tell(inputs)}; make it with jrnn.sequence_model(cell, head, inputs=k)."
        )
    inputs = check_array(name, inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"Expected {name} of a floating type, got {inputs.dtype} of shape "
            f"{inputs.shape}; cast them with {name}.astype(jnp.float32), and labels "
            "with jax.nn.one_hot."
        )
    if inputs.shape != shape:
        raise ValueError(
            f"Expected {name} of shape {shape}, one row of {k} for each symbol, got "
            f"{inputs.shape}; use jnp.broadcast_to for inputs that sequences share."
        )
    return inputs


def check_known_times(cell: Cell, head: Head, inputs: Array | None) -> None:
    """Raises ValueError if a concrete elapsed time is negative, NaN or infinite."""
    if inputs is None or cell.elapsed is None:
        return
    known = known_values(inputs)
    if known is not None:
        place = cell.elapsed % cell.spec.input_size - head.spec.input_size
        check_times(np.asarray(known[..., place]), cell)


def beside(head: Head, read: Array, inputs: Array | None, dtype: DTypeLike) -> Array:
    """Returns encoded symbols with the known inputs of the next step behind them.

    Args:
      head: The head that encoded the symbols.
      read: The encoded symbols: features (..., n), or token ids (...).
      inputs: (..., k); None: there are none.
      dtype: Of the one-hot vectors of token ids.
    """
    if inputs is None:
        return read
    if jnp.issubdtype(read.dtype, jnp.integer):
        ids = jnp.arange(head.spec.input_size, dtype=read.dtype)
        ids = ids.reshape((1,) * read.ndim + ids.shape)
        one_hot = (read[..., None] == ids).astype(dtype)
        # Like a row that is looked up: NaN if there is no such id.
        known = one_hot.any(axis=-1, keepdims=True)
        read = jnp.where(known, one_hot, jnp.nan)
    same = read.dtype == inputs.dtype
    dtype = read.dtype if same else state_dtype(read, inputs)
    return jnp.concatenate([read.astype(dtype), inputs.astype(dtype)], axis=-1)
