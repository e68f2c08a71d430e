"""What a recurrent layer of Keras is, and how its weights are stored."""

from typing import Any, NamedTuple

from jrnn.core.arguments import check_kind, check_size, tell
from jrnn.core.cell import Cell, Params
from jrnn.core.check import check_cell, check_params
from jrnn.interop._arrays import check_arrays
from jrnn.interop._cells import (
    ACTIVATIONS,
    Layer,
    Level,
    Library,
    cell_of,
    layer_of,
    levels_of,
)
from jrnn.interop._layout import Arrays, Layout, Stored, read, shapes, write
from jrnn.wrappers import (
    bidirectional,
    concat_merge,
    mean_merge,
    product_merge,
    sum_merge,
)

KERAS = Library(
    "Keras",
    "elman with tanh, relu, sigmoid or linear, lstm, gru; bidirectional; dropout; a "
    "stack of such layers",
    activations=tuple(ACTIVATIONS),
    resets=(True, False),
)
KINDS = {"SimpleRNN": "elman", "LSTM": "lstm", "GRU": "gru"}
MERGES = {
    "concat": concat_merge,
    "sum": sum_merge,
    "ave": mean_merge,
    "mul": product_merge,
    None: concat_merge,
}
GATES = {"elman": "h", "lstm": "i f g o", "gru": "z r n"}


class KerasSpec(NamedTuple):
    """The arguments of a recurrent layer of Keras, under Keras' names.

    Attributes:
      layer: SimpleRNN, LSTM or GRU.
      input_size: Number of features.
      units: Number of units.
      activation: Of a SimpleRNN: tanh, relu, sigmoid or linear.
      use_bias: Whether there is a bias.
      reset_after: The convention of a GRU.
      bidirectional: Whether a `Bidirectional` is around it.
      merge_mode: Of the `Bidirectional`: concat, sum, ave or mul; None: as concat, as
        Keras then returns two outputs, which are side by side here.
    """

    layer: str
    input_size: int
    units: int
    activation: str = "tanh"
    use_bias: bool = True
    reset_after: bool = True
    bidirectional: bool = False
    merge_mode: str | None = "concat"


def from_arrays(spec: KerasSpec, arrays: Arrays) -> tuple[Cell, Params]:
    """Converts Keras weights to a cell and its parameters, without Keras.

    Args:
      spec: The arguments of the layer.
      arrays: Its weights, named kernel, recurrent_kernel and bias, in the order of
        `layer.get_weights()`; of a `Bidirectional` "forward/kernel" and so on, then
        "backward/kernel".

    Returns:
      A cell and its parameters.

    Raises:
      TypeError: `spec` is no KerasSpec, or `arrays` is no dictionary.
      ValueError: A weight is missing, unexpected, or of another shape than `spec`
        implies; or the weights are float64 and JAX would convert them to float32.

    Example:
      >>> import numpy as np
      >>> from jrnn.interop.keras import KerasSpec, from_arrays
      >>> shapes = {"kernel": (3, 12), "recurrent_kernel": (4, 12), "bias": (2, 12)}
      >>> arrays = {name: np.ones(shape, "f4") for name, shape in shapes.items()}
      >>> cell, params = from_arrays(KerasSpec("GRU", 3, 4), arrays)
      >>> params.b_h.tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    layer = layer_at(spec)
    layouts = layouts_of(layer, spec.bidirectional)
    expected = {n: s for one in layouts for n, s in shapes(one, layer.sizes).items()}
    held = check_arrays(arrays, expected, str(spec), HINTS.get(layer.kind, ""))
    cell, each = cell_of(layer), [read(one, held, layer.sizes) for one in layouts]
    both = spec.bidirectional
    made = bidirectional(cell, cell, MERGES[spec.merge_mode]) if both else cell
    params = tuple(each) if spec.bidirectional else each[0]
    check_params(made, params)
    return made, params


HINTS = {
    "gru": "a GRU has a bias of shape (2, 3 * units) with reset_after=True, and of "
    "shape (3 * units,) with reset_after=False"
}


def to_arrays(cell: Cell, params: Params) -> tuple[KerasSpec, dict[str, Any]]:
    """Converts a cell and its parameters to those of a Keras layer, without Keras.

    Args:
      cell: An `elman` with tanh, relu, sigmoid or linear, an `lstm` without peepholes
        and projection, a `gru`, or a `bidirectional` of two alike.
      params: Its parameters.

    Returns:
      The arguments of the layer, and its weights, named as in `from_arrays`; their
      values in this order are what `layer.set_weights` takes.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: Keras has no such layer, or `params` do not fit the cell.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.interop.keras import to_arrays
      >>> cell = jrnn.gru(3, 4, reset_after=False)
      >>> spec, arrays = to_arrays(cell, cell.init(jax.random.key(0)))
      >>> spec.reset_after, arrays["bias"].shape
      (False, (12,))
    """
    check_cell(cell)
    level = levels_of(cell, KERAS)[0]
    if cell.spec.name == "stack" or level.rate:
        reason = "a stack, or dropout, is more than one layer: take to_keras"
        raise KERAS.refuse(cell, reason)
    check_params(cell, params)
    return level_to_arrays(cell, level, params)


def layer_at(spec: Any) -> Layer:
    """Returns what a spec describes, in one direction.

    Raises:
      TypeError: It is no KerasSpec, or a field of it is of the wrong type.
      ValueError: A field of it is out of range.
    """
    if not isinstance(spec, KerasSpec):
        raise TypeError(f"Expected spec to be a KerasSpec, got {tell(spec)}.")
    if spec.layer not in KINDS:
        raise ValueError(f"Expected layer in {list(KINDS)}, got {spec.layer!r}.")
    if spec.activation not in (ACTIVATIONS if spec.layer == "SimpleRNN" else ("tanh",)):
        raise ValueError(
            f"Expected an activation of {spec.layer} that jrnn's cell has, tanh, or "
            f"for a SimpleRNN one of {list(ACTIVATIONS)}, got {spec.activation!r}."
        )
    if spec.merge_mode not in MERGES:
        raise ValueError(
            f"Expected merge_mode in {list(MERGES)}, got {spec.merge_mode!r}."
        )
    for name in ("input_size", "units"):
        check_size(name, getattr(spec, name))
    for name in ("use_bias", "reset_after", "bidirectional"):
        check_kind(name, getattr(spec, name), bool)
    return Layer(
        KINDS[spec.layer],
        spec.input_size,
        spec.units,
        bias=spec.use_bias,
        activation=spec.activation,
        reset_after=spec.reset_after or spec.layer != "GRU",
    )


def layouts_of(layer: Layer, bidirectional: bool) -> list[Layout]:
    """Returns how Keras stores a layer, for each direction."""
    ends = ("forward/", "backward/") if bidirectional else ("",)
    return [_layout(layer, end) for end in ends]


def _layout(layer: Layer, prefix: str) -> Layout:
    gates = GATES[layer.kind]
    two_biases = layer.kind == "gru" and layer.reset_after
    stored = (
        Stored(f"{prefix}kernel", ("W_x",), gates),
        Stored(f"{prefix}recurrent_kernel", ("W_h",), gates),
        Stored(f"{prefix}bias", ("b", "b_h") if two_biases else ("b",), gates),
    )
    return Layout(layer.family, stored if layer.bias else stored[:2])


def level_to_arrays(
    cell: Cell, level: Level, params: Params
) -> tuple[KerasSpec, dict[str, Any]]:
    """Converts one level of `cell`, for an error, and its parameters.

    Raises:
      ValueError: Keras has no such layer.
    """
    layers = [layer_of(one, KERAS, level.place) for one in level.cells]
    if len(set(layers)) > 1:
        reason = "Keras has one kind and one size of cell in both directions"
        raise KERAS.refuse(cell, reason, level.place)
    layer, both = layers[0], len(layers) == 2
    names = {kind: name for name, kind in KINDS.items()}
    modes: dict[Any, str] = {merge: mode for mode, merge in MERGES.items() if mode}
    if level.merge not in modes:
        told = ", ".join(mode for mode in MERGES if mode)
        reason = f"the merge must be one that Keras has: {told}"
        raise KERAS.refuse(cell, reason, level.place)
    spec = KerasSpec(
        names[layer.kind],
        layer.input_size,
        layer.hidden_size,
        activation=layer.activation,
        use_bias=layer.bias,
        reset_after=layer.reset_after,
        bidirectional=both,
        merge_mode=modes[level.merge],
    )
    pairs = zip(layouts_of(layer, both), params if both else (params,), strict=True)
    return spec, {n: a for layout, one in pairs for n, a in write(layout, one).items()}
