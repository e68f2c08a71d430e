r"""Converts PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU` to cells of jrnn.

PyTorch multiplies by transposes and has two biases, one for each product:

    a_t = x_t W_ih^T + b_ih + h_{t-1} W_hh^T + b_hh

The order of the gates is the same in jrnn, i f g o and r z n. With W_hr the projection
of an LSTM and b_hh = (b_hr, b_hz, b_hn) in a GRU,

    W_x = W_ih^T,    W_h = W_hh^T,    W_p = W_hr^T
    b = b_ih + b_hh                                   RNN, LSTM
    b = b_ih + (b_hr, b_hz, 0),    b_h = b_hn         GRU

Other differences are only in form:

    batch_first     a layout of data, not of weights; jrnn reads (T, *batch, k), so pass
                    batch-first data as `jnp.swapaxes(xs, 0, 1)`
    packed          a padded sequence and `jrnn.unroll(..., lengths=...)`
    train(), eval() `jrnn.unroll` applies dropout if it gets a `key`, otherwise not
    h_0, c_0        packed into (layers * directions, batch, size), even with
                    batch_first; `from_torch_state` unpacks them

PyTorch is imported when `from_torch` is called; the other functions work without it.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, and GRU.html
and RNN.html in the same folder.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.cells.elman import ElmanParams, elman
from jrnn.cells.gru import GRUParams, gru
from jrnn.cells.lstm import LSTMParams, lstm
from jrnn.core.arguments import check_size, tell
from jrnn.core.cell import Cell, Params, State
from jrnn.core.check import check_array, check_cell, check_params, check_state
from jrnn.wrappers import bidirectional, dropout, stack

if TYPE_CHECKING:
    from torch.nn import RNNBase  # pyright: ignore[reportMissingImports] optional

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}

Arrays = Mapping[str, Any]  # PyTorch's parameters by name
Held = dict[str, Array]  # the same, checked and moved to JAX


class TorchSpec(NamedTuple):
    """The attributes of a recurrent module of PyTorch, under PyTorch's names.

    Attributes:
      mode: RNN_TANH, RNN_RELU, LSTM or GRU.
      input_size: Number of features.
      hidden_size: Number of units.
      num_layers: Number of layers.
      bias: Whether there are biases.
      dropout: Share of the features dropped between layers, in [0, 1).
      bidirectional: Whether each layer reads the sequence from both ends.
      proj_size: Size of an LSTM's projection; 0: none.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0


def from_torch(module: "RNNBase") -> tuple[Cell, Params]:
    """Converts a recurrent module of PyTorch to a cell and its parameters.

    Args:
      module: A `torch.nn.RNN`, `torch.nn.LSTM` or `torch.nn.GRU`, on any device.

    Returns:
      A cell and its parameters. One layer in one direction is the bare cell; two
      directions are a `jrnn.bidirectional`, several layers a `jrnn.stack`, with
      `jrnn.dropout` at the module's rate around all but the first. The parameters are
      copies in the dtype of the module's; the sum of two biases is rounded to it.

    Raises:
      ImportError: PyTorch is not installed.
      TypeError: `module` is something else.
      ValueError: Its parameters are float64 and JAX would convert them to float32, or
        its dropout is 1.

    Example:
        module = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        cell, params = from_torch(module)
        state, ys = jrnn.unroll(cell, params, xs)            # xs (T, *batch, 3)
    """
    try:
        import torch.nn as nn  # pyright: ignore[reportMissingImports] optional
    except ImportError as error:
        raise ImportError(
            "Expected PyTorch to be installed, got none: `pip install torch`, or pass "
            "arrays to jrnn.interop.torch.from_arrays, which works without it."
        ) from error
    if not isinstance(module, nn.RNN | nn.LSTM | nn.GRU):
        raise TypeError(
            "Expected a torch.nn.RNN, torch.nn.LSTM or torch.nn.GRU, got "
            f"{type(module).__name__}; pass the recurrent module itself, such as "
            "model.lstm. For an LSTMCell or similar, load its weights into a module of "
            "one layer, with _l0 appended to their names."
        )
    spec = TorchSpec(*(getattr(module, name) for name in TorchSpec._fields))
    # Attributes, as named_parameters() has other arrays under weight_norm.
    return from_arrays(spec, {name: getattr(module, name) for name in _shapes(spec)})


def from_arrays(spec: TorchSpec, arrays: Arrays) -> tuple[Cell, Params]:
    """Converts PyTorch parameters to a cell and its parameters, without PyTorch.

    Args:
      spec: The attributes of the module.
      arrays: Its parameters, NumPy arrays or tensors, with the names and shapes of its
        `state_dict()`.

    Returns:
      A cell and its parameters, as `from_torch`.

    Raises:
      ValueError: The mode is unknown to PyTorch; a parameter is missing, unexpected, or
        of another shape than `spec` implies; or as in `from_torch`.

    Example:
      >>> import numpy as np
      >>> from jrnn.interop.torch import TorchSpec, from_arrays
      >>> shapes = {"weight_ih_l0": (4, 3), "weight_hh_l0": (4, 4)}
      >>> arrays = {name: np.ones(shape, "f4") for name, shape in shapes.items()}
      >>> from_arrays(TorchSpec("RNN_TANH", 3, 4, bias=False), arrays)[1].W_x.shape
      (3, 4)
    """
    if not isinstance(spec, TorchSpec):
        raise TypeError(f"Expected spec to be a TorchSpec, got {tell(spec)}.")
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"Expected arrays to be a dictionary of parameters, got {tell(arrays)}."
        )
    held = _checked(spec, arrays)
    layers = [_layer(spec, held, layer) for layer in range(spec.num_layers)]
    cells, params = zip(*layers, strict=True)
    cells = cells[:1] + tuple(dropout(cell, spec.dropout) for cell in cells[1:])
    cell, params = (stack(*cells), params) if cells[1:] else (cells[0], params[0])
    check_params(cell, params)
    return cell, params


def from_torch_state(cell: Cell, state: Any) -> State:
    """Unpacks a state of PyTorch into the state of `cell`.

    PyTorch packs layer by layer, the forward direction of each before the backward.

    Args:
      cell: The cell that `from_torch` returned.
      state: h of shape (layers * directions, *batch, size), or an LSTM's pair (h, c),
        as PyTorch takes and returns it; tensors or NumPy arrays.

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
    packed = [_to_jax(array, "state") for array in packed]
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0)))
    like = jax.eval_shape(cell.init_state, params)
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


def _to_jax(array: Any, name: str) -> Array:
    """Moves an array or a tensor to JAX; raises if JAX would narrow its dtype."""
    held = _to_numpy(array)
    moved = check_array(name, held)
    if moved.dtype != held.dtype:
        raise ValueError(
            f"Expected JAX to keep {held.dtype} of {name}, got {moved.dtype}; call "
            'jax.config.update("jax_enable_x64", True) first, or cast to float32.'
        )
    return moved


def _to_numpy(array: Any) -> np.ndarray:
    """Returns a copy, as JAX could otherwise share memory that PyTorch writes to."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        # NumPy cannot read bfloat16 tensors; float32 represents all their values.
        if str(array.dtype) == "torch.bfloat16":
            return array.float().numpy().astype(jnp.bfloat16)
        array = array.numpy()
    return np.array(array)


def _checked(spec: TorchSpec, arrays: Arrays) -> Held:
    """Returns copies; raises unless names and shapes are those that `spec` implies."""
    if spec.mode not in GATES:
        raise ValueError(
            f"Expected mode to be one of {list(GATES)}, got {spec.mode!r}."
        )
    check_size("num_layers", spec.num_layers)
    expected = _shapes(spec)
    got = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    wrong = sorted(
        name
        for name in expected.keys() | got.keys()
        if expected.get(name) != got.get(name)
    )
    if wrong:
        raise ValueError(
            f"Expected the parameters of {spec}, and "
            f"{ {name: expected.get(name) for name in wrong} }, got "
            f"{ {name: got.get(name) for name in wrong} }; names are those of the "
            "module's own state_dict(), without a prefix."
        )
    return {name: _to_jax(array, name) for name, array in arrays.items()}


def _shapes(spec: TorchSpec) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a module's parameters, by name."""
    units, shown = spec.hidden_size, spec.proj_size or spec.hidden_size
    n, shapes = GATES[spec.mode] * units, {}
    for layer in range(spec.num_layers):
        k = shown * (1 + spec.bidirectional) if layer else spec.input_size
        for suffix in _suffixes(spec, layer):
            shapes[f"weight_ih{suffix}"] = (n, k)
            shapes[f"weight_hh{suffix}"] = (n, shown)
            if spec.bias:
                shapes |= {f"bias_ih{suffix}": (n,), f"bias_hh{suffix}": (n,)}
            if spec.proj_size:
                shapes[f"weight_hr{suffix}"] = (shown, units)
    return shapes


def _suffixes(spec: TorchSpec, layer: int) -> list[str]:
    """Returns the suffixes of parameter names, for each direction of a layer."""
    ends = ["", "_reverse"] if spec.bidirectional else [""]
    return [f"_l{layer}{end}" for end in ends]


def _layer(spec: TorchSpec, held: Held, layer: int) -> tuple[Cell, Params]:
    """Makes one layer: a cell and its parameters, or a pair of each."""
    children = [_child(spec, held, suffix) for suffix in _suffixes(spec, layer)]
    if not spec.bidirectional:
        return children[0]
    cells, params = zip(*children, strict=True)
    return bidirectional(*cells), params


def _child(spec: TorchSpec, held: Held, suffix: str) -> tuple[Cell, Params]:
    """Makes one layer in one direction: its cell and its parameters."""
    W_x, W_h = held[f"weight_ih{suffix}"].T, held[f"weight_hh{suffix}"].T
    sizes, bias = (W_x.shape[0], spec.hidden_size), spec.bias
    b_ih, b_hh = held.get(f"bias_ih{suffix}"), held.get(f"bias_hh{suffix}")
    if spec.mode == "GRU":
        return gru(*sizes, bias=bias), GRUParams(W_x, W_h, *_gru_biases(b_ih, b_hh))
    b = None if b_ih is None or b_hh is None else b_ih + b_hh
    if spec.mode == "LSTM":
        cell = lstm(*sizes, bias=bias, projection_size=spec.proj_size or None)
        W_p = held[f"weight_hr{suffix}"].T if spec.proj_size else None
        return cell, LSTMParams(W_x, W_h, b, W_p=W_p)
    phi = jax.nn.relu if spec.mode == "RNN_RELU" else jnp.tanh
    return elman(*sizes, activation=phi, bias=bias), ElmanParams(W_x, W_h, b)


def _gru_biases(
    b_ih: Array | None, b_hh: Array | None
) -> tuple[Array | None, Array | None]:
    """Adds b_hr and b_hz to b; b_hn stays separate, as the reset gate multiplies it."""
    if b_ih is None or b_hh is None:
        return None, None
    rz = 2 * b_ih.size // 3
    return b_ih.at[:rz].add(b_hh[:rz]), b_hh[rz:]
