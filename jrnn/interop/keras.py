r"""Converts Keras' `SimpleRNN`, `LSTM` and `GRU`, and deep ones, in both directions.

Weights are stored as in jrnn, for row vectors. The differences:

    SimpleRNN   none
    LSTM        none; Keras writes i f c o for i f g o
    GRU         the gates are in the order z r h, for r z n; the update is the same,
                h_t = z_t * h_{t-1} + (1 - z_t) * n_t
                reset_after=True (the default): bias (2, 3n) has a row for each product,
                b = bias[0] + (bias[1]_r, bias[1]_z, 0),    b_h = bias[1]_h
                reset_after=False: bias (3n,), as in jrnn
                the two conventions compute different functions: no weights make them
                equal, and each is converted to the cell of its convention

Back to Keras, bias[0] = b, and bias[1] is zero but for b_h. The zeros are -0, so that
the sum is b to the last bit.

Other differences are only in form, and are not kept by a cell:

    batch first         always, in Keras: pass time_axis=1 to `jrnn.unroll`
    mask                `jrnn.unroll(..., lengths=...)`, or `mask=`; there a masked
                        output is 0, in Keras it repeats the last
    go_backwards        `jrnn.unroll(..., reverse=True)`, whose outputs stay in the
                        order of the inputs; in Keras they come in the order of reading.
                        `from_keras` asks for `reverse=True`
    return_sequences    outputs always come for every step; the last of each sequence
                        is the state's h
    return_state        the state always comes too, as `LSTMState(h, c)`
    stateful            pass the final state to the next `jrnn.unroll`
    initial_state       a `Bidirectional` lists the states of its forward layer first

Keras is imported when `from_keras` or `to_keras` is called; the other functions work
without it. Any of its backends will do.

Source: https://keras.io/api/layers/recurrent_layers/gru/, and lstm/, simple_rnn/ and
bidirectional/ in the same folder.
"""

from typing import TYPE_CHECKING, Any

from jrnn.core.arguments import check_switch
from jrnn.core.cell import Cell, Params
from jrnn.core.check import check_cell, check_params
from jrnn.interop._cells import levels_of
from jrnn.interop._keras_layers import built, levels_of_layer, levels_of_sequential
from jrnn.interop._keras_spec import (
    KERAS,
    KerasSpec,
    from_arrays,
    level_to_arrays,
    to_arrays,
)
from jrnn.wrappers import dropout, stack

__all__ = ["KerasSpec", "from_arrays", "from_keras", "to_arrays", "to_keras"]

if TYPE_CHECKING:
    # Optional; where Keras is absent, pyright takes this very file for it.
    from keras import Layer as KerasLayer  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]


def from_keras(layer: "KerasLayer", *, reverse: bool = False) -> tuple[Cell, Params]:
    """Converts a recurrent layer of Keras to a cell and its parameters.

    Args:
      layer: A `SimpleRNN`, `LSTM` or `GRU`; its cell, such as `LSTMCell`; an `RNN` of
        one such cell or of a list; a `Bidirectional` of such layers; or a `Sequential`
        of such layers and of `Dropout`. It must be built.
      reverse: Must be True for a layer with `go_backwards=True`, as a cell does not
        hold its direction: pass it to `jrnn.unroll` too.

    Returns:
      A cell and its parameters, in the dtype of the layer's. Several layers are a
      `jrnn.stack`, `Dropout` below a layer is `jrnn.dropout` around its cell.

    Raises:
      ImportError: Keras is not installed.
      TypeError: `layer` is something else.
      ValueError: It is not built; it has `go_backwards=True` and `reverse` is False, or
        the reverse; it has activations, or a dropout, that jrnn's cell does not have.

    Example:
        layer = keras.layers.GRU(4, return_sequences=True)
        layer.build((None, None, 3))
        cell, params = from_keras(layer)
        state, ys = jrnn.unroll(cell, params, xs, time_axis=1)  # xs (batch, T, 3)
    """
    keras = _keras("from_keras", "from_arrays")
    check_switch("reverse", reverse)
    if isinstance(layer, keras.Sequential):
        levels = levels_of_sequential(keras, layer, reverse)
    else:
        levels = levels_of_layer(keras, layer, reverse)
    cells = [dropout(cell, rate) for cell, _, rate in levels]
    params = tuple(own for _, own, _ in levels)
    return (stack(*cells), params) if len(cells) > 1 else (cells[0], params[0])


def to_keras(
    cell: Cell, params: Params, *, return_sequences: bool = True
) -> "KerasLayer":
    """Converts a cell and its parameters to a layer of Keras.

    Args:
      cell: As in `to_arrays`; or such cells in a `stack`, with any `dropout` around.
      params: Its parameters.
      return_sequences: Whether the last layer returns outputs for every step.

    Returns:
      A built layer, or a built `Sequential` of a stack, in the dtype of the parameters.
      `from_keras` gives the parameters back, bit for bit.

    Raises:
      ImportError: Keras is not installed.
      TypeError: `cell` is not a cell.
      ValueError: Keras has no such layer, or `params` do not fit the cell.

    Example:
        cell = jrnn.bidirectional(jrnn.lstm(3, 4), jrnn.lstm(3, 4))
        layer = to_keras(cell, cell.init(jax.random.key(0)))
        ys = layer(xs)                                          # xs (batch, T, 3)
    """
    keras = _keras("to_keras", "to_arrays")
    check_cell(cell)
    check_switch("return_sequences", return_sequences)
    levels = levels_of(cell, KERAS)
    check_params(cell, params)
    nested = params if cell.spec.name == "stack" else (params,)
    layers = []
    for level, own in zip(levels, nested, strict=True):
        if level.rate:
            layers.append(keras.layers.Dropout(level.rate))
        spec, arrays = level_to_arrays(cell, level, own)
        shown = return_sequences or level is not levels[-1]
        layers.append(built(keras, spec, arrays, shown))
    if len(layers) == 1:
        return layers[0]
    return keras.Sequential([keras.Input((None, cell.spec.input_size)), *layers])


def _keras(user: str, instead: str) -> Any:
    """Imports Keras; the error names what works without it."""
    try:
        import keras  # pyright: ignore[reportMissingImports] optional
    except ImportError as error:
        raise ImportError(
            f"Expected Keras to be installed for {user}, got none: `pip install "
            f"keras`, or use jrnn.interop.keras.{instead}, which works without it."
        ) from error
    return keras
