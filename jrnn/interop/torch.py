r"""Converts PyTorch's `nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells, both ways.

PyTorch multiplies by transposes and has two biases, one for each product:

    a_t = x_t W_ih^T + b_ih + h_{t-1} W_hh^T + b_hh

The order of the gates is the same in jrnn, i f g o and r z n. With W_hr the projection
of an LSTM and b_hh = (b_hr, b_hz, b_hn) in a GRU,

    W_x = W_ih^T,    W_h = W_hh^T,    W_p = W_hr^T
    b = b_ih + b_hh                                   RNN, LSTM
    b = b_ih + (b_hr, b_hz, 0),    b_h = b_hn         GRU

Back to PyTorch, b_ih = b, and b_hh is zero, with b_hn = b_h in a GRU. The zeros are -0,
so that the sum is b to the last bit.

Other differences are only in form:

    batch_first     a layout of data, which a cell does not hold: `from_torch` asks for
                    `time_axis`, to be passed to `jrnn.unroll` too
    packed          a padded sequence and `jrnn.unroll(..., lengths=...)`
    train(), eval() `jrnn.unroll` applies dropout if it gets a `key`, otherwise not
    h_0, c_0        packed into (layers * directions, batch, size), even with
                    batch_first; `from_torch_state` unpacks them, `to_torch_state` packs

PyTorch is imported when `from_torch` or `to_torch` is called; the other functions work
without it.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, and GRU.html,
RNN.html, LSTMCell.html, GRUCell.html and RNNCell.html in the same folder.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jrnn.core.arguments import check_kind, check_switch
from jrnn.core.cell import Cell, Params
from jrnn.core.check import check_cell, check_params
from jrnn.interop._arrays import check_arrays
from jrnn.interop._cells import cell_of
from jrnn.interop._layout import Arrays, read, write
from jrnn.interop._torch_modules import constructor, dtype_of, spec_of_module, tensor
from jrnn.interop._torch_spec import (
    TorchSpec,
    check_spec,
    check_time_axis,
    find_specs,
    layer_at,
    layout_of,
    shapes_of,
    spec_of,
    suffixes,
)
from jrnn.interop._torch_state import from_torch_state, to_torch_state
from jrnn.wrappers import bidirectional, dropout, stack

__all__ = [
    "TorchSpec",
    "find_specs",
    "from_arrays",
    "from_torch",
    "from_torch_state",
    "to_arrays",
    "to_torch",
    "to_torch_state",
]

if TYPE_CHECKING:
    from torch.nn import (  # pyright: ignore[reportMissingImports] optional
        RNNBase,
        RNNCellBase,
    )


def from_torch(
    module: "RNNBase | RNNCellBase", *, time_axis: int | None = None
) -> tuple[Cell, Params]:
    """Converts a recurrent module of PyTorch to a cell and its parameters.

    Args:
      module: An `nn.RNN`, `nn.LSTM` or `nn.GRU`, or an `nn.RNNCell`, `nn.LSTMCell` or
        `nn.GRUCell`, on any device.
      time_axis: The axis of time in your data, 0 or 1, which `jrnn.unroll` takes too.
        Required for a module with `batch_first=True`, as a cell does not hold it.

    Returns:
      A cell and its parameters. One layer in one direction is the bare cell; two
      directions are a `jrnn.bidirectional`, several layers a `jrnn.stack`, with
      `jrnn.dropout` at the module's rate around all but the first. The parameters are
      copies in the dtype of the module's; the sum of two biases is rounded to it.

    Raises:
      ImportError: PyTorch is not installed.
      TypeError: `module` is something else.
      ValueError: It has `batch_first=True` and `time_axis` is None; its parameters are
        float64 and JAX would convert them to float32; or its dropout is 1.

    Example:
        module = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        cell, params = from_torch(module)
        state, ys = jrnn.unroll(cell, params, xs)            # xs (T, *batch, 3)
    """
    nn = _torch("from_torch", "from_arrays").nn
    spec = spec_of_module(nn, module)
    # Attributes, as named_parameters() has other arrays under weight_norm.
    arrays = {name: getattr(module, name) for name in shapes_of(spec)}
    return from_arrays(spec, arrays, time_axis=time_axis)


def to_torch(
    cell: Cell, params: Params, *, batch_first: bool = False, as_cell: bool = False
) -> "RNNBase | RNNCellBase":
    """Converts a cell and its parameters to a recurrent module of PyTorch.

    Args:
      cell: An `elman` with tanh or relu, an `lstm` without peepholes, a `gru` that
        resets after the product; a `bidirectional` of two alike; or a `stack` of such
        layers of one size, with one rate of `dropout` around all but the first.
      params: Its parameters, all of one dtype, which the module has too.
      batch_first: The module's layout of data.
      as_cell: Whether to make an `nn.RNNCell`, `nn.LSTMCell` or `nn.GRUCell`.

    Returns:
      A module on the CPU, in training mode. `from_torch` gives the parameters back, bit
      for bit. PyTorch's random generator is left as it was.

    Raises:
      ImportError: PyTorch is not installed.
      TypeError: `cell` is not a cell, or `params` are traced.
      ValueError: PyTorch has no such module, or none of the dtype of `params`; or
        `params` do not fit the cell.

    Example:
        cell = jrnn.stack(jrnn.gru(3, 4), jrnn.dropout(jrnn.gru(4, 4), 0.5))
        module = to_torch(cell, cell.init(jax.random.key(0)))
        ys, h_n = module(xs)                                 # xs (T, batch, 3)
    """
    torch = _torch("to_torch", "to_arrays")
    spec, arrays = to_arrays(cell, params, batch_first=batch_first, as_cell=as_cell)
    make, options = constructor(torch.nn, spec)
    options["dtype"] = getattr(torch, dtype_of(arrays))
    with torch.random.fork_rng(devices=[]):
        module = make(**options)
    module.load_state_dict({name: tensor(torch, a) for name, a in arrays.items()})
    return module


def from_arrays(
    spec: TorchSpec, arrays: Arrays, *, prefix: str = "", time_axis: int | None = None
) -> tuple[Cell, Params]:
    """Converts PyTorch parameters to a cell and its parameters, without PyTorch.

    Args:
      spec: The attributes of the module; `find_specs` reads them from a state_dict.
      arrays: Its parameters, NumPy arrays or tensors, with the names and shapes of its
        `state_dict()`.
      prefix: Where `arrays` is the state_dict of a larger model, what precedes the
        names of this module's parameters, such as "encoder.lstm."; all other arrays
        are ignored.
      time_axis: As in `from_torch`.

    Returns:
      A cell and its parameters, as `from_torch`.

    Raises:
      TypeError: `spec` is no TorchSpec, or `arrays` is no dictionary.
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
    check_spec(spec)
    check_time_axis(spec, time_axis)
    check_kind("prefix", prefix, str)
    own, hint = _of_module(arrays, prefix)
    held = check_arrays(own, shapes_of(spec), str(spec), hint)
    cells, params = [], []
    for i in range(spec.num_layers):
        layer = layer_at(spec, i)
        one = cell_of(layer)
        layouts = [layout_of(layer, suffix) for suffix in suffixes(spec, i)]
        each = tuple(read(layout, held, layer.sizes) for layout in layouts)
        made = bidirectional(one, one) if spec.bidirectional else one
        cells.append(dropout(made, spec.dropout) if i else made)
        params.append(each if spec.bidirectional else each[0])
    deep = spec.num_layers > 1
    cell, nested = (stack(*cells), tuple(params)) if deep else (cells[0], params[0])
    check_params(cell, nested)
    return cell, nested


def to_arrays(
    cell: Cell, params: Params, *, batch_first: bool = False, as_cell: bool = False
) -> tuple[TorchSpec, dict[str, Any]]:
    """Converts a cell and its parameters to those of a PyTorch module, without PyTorch.

    Args:
      cell: As in `to_torch`.
      params: Its parameters.
      batch_first: As in `to_torch`.
      as_cell: As in `to_torch`.

    Returns:
      The attributes of the module, and its parameters by the names of its
      `state_dict()`, NumPy arrays in the dtypes of `params`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: As in `to_torch`.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.interop.torch import to_arrays
      >>> cell = jrnn.bidirectional(jrnn.lstm(3, 4), jrnn.lstm(3, 4))
      >>> spec, arrays = to_arrays(cell, cell.init(jax.random.key(0)))
      >>> spec.bidirectional, arrays["weight_hh_l0_reverse"].shape
      (True, (16, 4))
    """
    check_cell(cell)
    check_switch("batch_first", batch_first)
    check_switch("as_cell", as_cell)
    spec = spec_of(cell)._replace(batch_first=batch_first, is_cell=as_cell)
    check_spec(spec)
    check_params(cell, params)
    arrays: dict[str, Any] = {}
    nested = params if cell.spec.name == "stack" else (params,)
    for i, own in enumerate(nested):
        each = own if spec.bidirectional else (own,)
        for suffix, one in zip(suffixes(spec, i), each, strict=True):
            arrays |= write(layout_of(layer_at(spec, i), suffix), one)
    return spec, arrays


def _torch(user: str, instead: str) -> Any:
    """Imports PyTorch; the error names what works without it."""
    try:
        import torch  # pyright: ignore[reportMissingImports] optional
        import torch.nn  # pyright: ignore[reportMissingImports] optional
    except ImportError as error:
        raise ImportError(
            f"Expected PyTorch to be installed for {user}, got none: `pip install "
            f"torch`, or use jrnn.interop.torch.{instead}, which works without it."
        ) from error
    return torch


def _of_module(arrays: Any, prefix: str) -> tuple[Any, str]:
    """Returns the arrays under a prefix, and the remedy if these do not fit."""
    if not isinstance(arrays, Mapping):
        return arrays, ""
    found = [known for known in find_specs(arrays) if known != prefix]
    hint = "names are those of the module's own state_dict()"
    hint += f"; of a larger model, pass prefix=, one of {found}" if found else ""
    named = {n: a for n, a in arrays.items() if str(n).startswith(prefix)}
    return {str(n)[len(prefix) :]: a for n, a in named.items()}, hint
