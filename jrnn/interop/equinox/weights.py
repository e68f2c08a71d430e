r"""Converts Equinox' `LSTMCell` and `GRUCell`, in both directions.

Equinox multiplies by transposes, and the order of its gates is that of jrnn, i f g o
and r z n:

    W_x = weight_ih^T,    W_h = weight_hh^T,    b = bias
    b_h = bias_n                                 GRU

There is one bias, as here. An LSTM's state is the pair (h, c); cells have no batch
axis, which `jax.vmap` adds there, and need none of it here.

Equinox is imported when `to_equinox` is called.

Source: https://docs.kidger.site/equinox/api/nn/rnn/.
"""

from typing import TYPE_CHECKING, Any

import jax

from jrnn.core.arguments import tell
from jrnn.core.cell import Cell, Params
from jrnn.interop._cells import Layer, Library
from jrnn.interop._layout import KINDS, Layout, Stored
from jrnn.interop._single import from_single, to_single

__all__ = ["from_equinox", "to_equinox"]

if TYPE_CHECKING:
    from equinox.nn import (  # pyright: ignore[reportMissingImports] optional
        GRUCell,
        LSTMCell,
    )

EQUINOX = Library(
    "Equinox", "lstm, gru with reset_after=True", kinds=("lstm", "gru"), activations=()
)


def from_equinox(module: "GRUCell | LSTMCell") -> tuple[Cell, Params]:
    """Converts a recurrent cell of Equinox to a cell of jrnn and its parameters.

    Args:
      module: An `eqx.nn.LSTMCell` or `eqx.nn.GRUCell`; also inside `jax.jit` or
        `jax.grad`, where gradients flow back to its arrays.

    Returns:
      A cell and its parameters, in the dtype of the module's.

    Raises:
      TypeError: `module` is something else.
      ValueError: An array of it is missing or of another shape.

    Example:
        module = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
        cell, params = from_equinox(module)
        state, ys = jrnn.unroll(cell, params, xs)            # xs (T, *batch, 3)
    """
    kind = {"GRUCell": "gru", "LSTMCell": "lstm"}.get(_class_name(module))
    if kind is None:
        raise TypeError(
            "Expected module to be an eqx.nn.LSTMCell or eqx.nn.GRUCell, got "
            f"{tell(module)}."
        )
    layer = Layer(kind, module.input_size, module.hidden_size, bias=module.use_bias)
    layout = _layout(layer)
    named = {one.name: getattr(module, one.name) for one in layout.stored}
    arrays = {name: array for name, array in named.items() if array is not None}
    return from_single(layer, layout, arrays, f"an eqx.nn.{_class_name(module)}")


def to_equinox(cell: Cell, params: Params) -> "GRUCell | LSTMCell":
    """Converts a cell and its parameters to a recurrent cell of Equinox.

    Args:
      cell: An `lstm` without peepholes and projection, or a `gru` with
        `reset_after=True`.
      params: Its parameters.

    Returns:
      An `eqx.nn.LSTMCell` or `eqx.nn.GRUCell`; `from_equinox` gives the parameters
      back, bit for bit.

    Raises:
      ImportError: Equinox is not installed.
      TypeError: `cell` is not a cell.
      ValueError: Equinox has no such cell, or `params` do not fit the cell.

    Example:
        cell = jrnn.lstm(3, 4)
        module = to_equinox(cell, cell.init(jax.random.key(0)))
        h, c = module(x, (h, c))                             # x (3,)
    """
    layer, arrays = to_single(cell, params, EQUINOX, _layout)
    try:
        import equinox  # pyright: ignore[reportMissingImports] optional
    except ImportError as error:
        raise ImportError(
            "Expected Equinox to be installed for to_equinox, got none: `pip install "
            "equinox`."
        ) from error
    make = {"lstm": equinox.nn.LSTMCell, "gru": equinox.nn.GRUCell}[layer.kind]
    sizes = layer.input_size, layer.hidden_size
    shape = lambda: make(*sizes, use_bias=layer.bias, key=jax.random.key(0))
    module = equinox.filter_eval_shape(shape)
    held = lambda tree: [getattr(tree, name) for name in arrays]
    return equinox.tree_at(
        held, module, [jax.numpy.asarray(a) for a in arrays.values()]
    )


def _class_name(module: Any) -> str:
    """Returns the name of a class of Equinox among a module's, without importing it."""
    for one in type(module).__mro__:
        if one.__module__.split(".")[0] == "equinox" and one.__name__ != "Module":
            return one.__name__
    return ""


def _layout(layer: Layer) -> Layout:
    gates = KINDS[layer.family].gates
    stored = [
        Stored("weight_ih", ("W_x",), gates, transposed=True),
        Stored("weight_hh", ("W_h",), gates, transposed=True),
    ]
    if layer.bias:
        stored.append(Stored("bias", ("b",), gates))
        if layer.kind == "gru":
            stored.append(Stored("bias_n", ("b_h",), "n"))
    return Layout(layer.family, tuple(stored))
