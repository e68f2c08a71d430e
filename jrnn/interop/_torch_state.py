"""The states of PyTorch's modules: one array over all layers and directions."""

from typing import Any

import jax
import numpy as np

from jrnn.core.cell import Cell, State
from jrnn.core.check import check_cell, check_state, expected_state
from jrnn.interop._arrays import to_jax
from jrnn.interop._torch_spec import spec_of


def from_torch_state(cell: Cell, state: Any) -> State:
    """Unpacks a state of PyTorch into the state of `cell`.

    PyTorch packs layer by layer, the forward direction of each before the backward.

    Args:
      cell: The cell that `from_torch` returned.
      state: h of shape (layers * directions, *batch, size), or an LSTM's pair (h, c),
        as PyTorch takes and returns it; tensors or NumPy arrays. Of a single
        `LSTMCell` and its kin, whose h has no such axis, pass `h[None]`.

    Returns:
      The state of `cell`, with leaves (*batch, size), in the dtype of `state`.

    Raises:
      TypeError: `cell` is not a cell, or the state is not floating.
      ValueError: The state does not fit the cell.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from jrnn.interop.torch import from_torch_state
      >>> cell = jrnn.stack(jrnn.lstm(3, 4), jrnn.lstm(4, 4))
      >>> h_0, c_0 = jnp.ones((2, 5, 4)), jnp.zeros((2, 5, 4))
      >>> from_torch_state(cell, (h_0, c_0))[1].h.shape
      (5, 4)
    """
    check_cell(cell)
    packed = state if isinstance(state, tuple | list) else (state,)
    packed = [to_jax(array, "state") for array in packed]
    like = expected_state(cell)
    leading = {array.shape[:-1] for array in packed}  # (layers * directions, *batch)
    rows, *batch = (leading.pop() if len(leading) == 1 else ()) or (0,)
    if len(jax.tree.leaves(like)) != rows * len(packed):
        raise ValueError(
            "Expected state to be h, or for an LSTM (h, c), of shape (layers * "
            "directions, *batch, "
            f"size) for {cell}, got {[array.shape for array in packed]}."
        )
    leaves = [array[i] for i in range(rows) for array in packed]
    nested = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return check_state(cell, nested, tuple(batch))


def to_torch_state(cell: Cell, state: State) -> Any:
    """Packs a state of `cell` as PyTorch does, the inverse of `from_torch_state`.

    Args:
      cell: A cell that `to_torch` can convert.
      state: Its state, with leaves (*batch, size).

    Returns:
      h of shape (layers * directions, *batch, size), or an LSTM's pair (h, c), NumPy
      arrays for `torch.from_numpy`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: PyTorch has no such cell, or the state does not fit it.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.interop.torch import to_torch_state
      >>> cell = jrnn.stack(jrnn.gru(3, 4), jrnn.gru(4, 4))
      >>> params = cell.init(jax.random.key(0))
      >>> to_torch_state(cell, cell.init_state(params, (5,))).shape
      (2, 5, 4)
    """
    check_cell(cell)
    spec = spec_of(cell)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    batch = leaves[0].shape[:-1] if leaves else ()
    check_state(cell, state, batch)
    fields = 2 if spec.mode == "LSTM" else 1
    packed = tuple(np.stack(leaves[i::fields]) for i in range(fields))
    return packed if fields == 2 else packed[0]
