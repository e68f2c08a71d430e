"""Reads and makes layers of Keras; `keras` is passed in, not imported."""

from typing import Any

from jrnn.core.arguments import tell
from jrnn.core.cell import Cell, Params
from jrnn.interop._cells import ACTIVATIONS
from jrnn.interop._keras_spec import KINDS, MERGES, KerasSpec, from_arrays
from jrnn.wrappers import bidirectional

Found = tuple[Cell, Params, float]  # a cell, its parameters, and dropout of its inputs


def levels_of_layer(keras: Any, layer: Any, reverse: bool) -> list[Found]:
    """Converts a layer that is no Sequential, or a cell."""
    if isinstance(layer, keras.layers.Bidirectional):
        _check_direction(False, reverse)
        return [(*_bidirectional(keras, layer), 0.0)]
    if isinstance(layer, keras.layers.RNN):
        _check_direction(layer.go_backwards, reverse)
    return [(*_one(keras, cell), 0.0) for cell in _cells(keras, layer)]


def levels_of_sequential(keras: Any, model: Any, reverse: bool) -> list[Found]:
    """Converts the layers of a Sequential, with the dropout between them."""
    _check_direction(False, reverse)
    found: list[Found] = []
    rate = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            rate = _combined(rate, layer.rate)
            continue
        first, *more = levels_of_layer(keras, layer, False)
        found += [(*first[:2], rate), *more]
        rate = 0.0
    if rate or not found:
        raise ValueError(
            "Expected layer to be a Sequential whose last layer is recurrent, got one "
            "with dropout, or nothing, above; convert the layers below, and apply the "
            "last to the outputs."
        )
    return found


def _combined(rate: float, again: float) -> float:
    if rate and again:
        raise ValueError(
            "Expected one Dropout below a layer, got two in a row; make them one, with "
            f"rate={1 - (1 - rate) * (1 - again):g}."
        )
    return rate or again


def _check_direction(backwards: bool, reverse: bool) -> None:
    if backwards != reverse:
        raise ValueError(
            f"Expected reverse={backwards} for a layer with go_backwards={backwards}, "
            f"got {reverse}; a cell does not hold its direction: pass reverse here as "
            "to jrnn.unroll, and convert the layers of a Sequential one by one."
        )


def _bidirectional(keras: Any, layer: Any) -> tuple[Cell, Params]:
    both = layer.forward_layer, layer.backward_layer
    for one, backwards in zip(both, (False, True), strict=True):
        _check_direction(one.go_backwards, backwards)
    cells, params = [], []
    for one in both:
        inner = _cells(keras, one)
        if len(inner) > 1:
            raise ValueError(
                f"Expected one cell in each direction, got {len(inner)}; make a "
                "Bidirectional of each."
            )
        cell, own = _one(keras, inner[0])
        cells.append(cell)
        params.append(own)
    return bidirectional(*cells, merge=MERGES[layer.merge_mode]), tuple(params)


def _cells(keras: Any, layer: Any) -> list[Any]:
    """Returns the cells inside a layer, from bottom to top."""
    cell = layer.cell if isinstance(layer, keras.layers.RNN) else layer
    cells = cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else [cell]
    for one in cells:
        _check_cell(keras, one, layer)
    return list(cells)


def _kind(keras: Any, cell: Any) -> str:
    """Returns SimpleRNN, LSTM or GRU; "" for anything else."""
    held = (k for k in KINDS if isinstance(cell, getattr(keras.layers, f"{k}Cell")))
    return next(held, "")


def _check_cell(keras: Any, cell: Any, layer: Any) -> None:
    if not _kind(keras, cell):
        raise TypeError(
            "Expected layer to be a SimpleRNN, LSTM or GRU of Keras, a cell of these, "
            "an RNN, a Bidirectional or a Sequential of them with Dropout, got "
            f"{type(layer).__name__}; pass the recurrent layers of a model one by one."
        )
    if not cell.built:
        raise ValueError(
            f"Expected a built layer, got {cell.name} without weights; call it once, "
            "or layer.build((None, None, input_size))."
        )
    rates = cell.dropout, cell.recurrent_dropout
    if any(rates):
        raise ValueError(
            "Expected dropout=0 and recurrent_dropout=0, got "
            f"{rates[0]} and {rates[1]}: Keras draws one mask of the inputs for each "
            "sequence, and one of the state for each gate, which no cell of jrnn does. "
            "Set layer.cell.dropout and layer.cell.recurrent_dropout to 0, and put "
            "jrnn.dropout or jrnn.wrappers.variational_dropout around the cell."
        )


def _one(keras: Any, cell: Any) -> tuple[Cell, Params]:
    kind = _kind(keras, cell)
    names = {keras.activations.get(name): name for name in ACTIVATIONS}
    gate = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
    if names.get(gate) != "sigmoid":
        raise ValueError(
            f"Expected recurrent_activation to be sigmoid, got {tell(gate)}."
        )
    weights = {"kernel": cell.kernel, "recurrent_kernel": cell.recurrent_kernel}
    if cell.use_bias:
        weights["bias"] = cell.bias
    arrays = {n: keras.ops.convert_to_numpy(w) for n, w in weights.items()}
    spec = KerasSpec(
        kind,
        cell.kernel.shape[0],
        cell.units,
        activation=names.get(cell.activation, tell(cell.activation)),
        use_bias=cell.use_bias,
        reset_after=getattr(cell, "reset_after", True),
    )
    return from_arrays(spec, arrays)


def built(keras: Any, spec: KerasSpec, arrays: dict[str, Any], shown: bool) -> Any:
    """Makes a layer with these weights; `shown`: with outputs for every step."""
    options: dict[str, Any] = {"use_bias": spec.use_bias, "return_sequences": shown}
    options["dtype"] = str(arrays[next(iter(arrays))].dtype)
    if spec.layer == "SimpleRNN":
        options["activation"] = spec.activation
    if spec.layer == "GRU":
        options["reset_after"] = spec.reset_after
    layer = getattr(keras.layers, spec.layer)(spec.units, **options)
    if spec.bidirectional:
        merge, dtype = spec.merge_mode, options["dtype"]
        layer = keras.layers.Bidirectional(layer, merge_mode=merge, dtype=dtype)
    layer.build((None, None, spec.input_size))
    layer.set_weights(list(arrays.values()))
    return layer
