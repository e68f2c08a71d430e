"""What a recurrent module of PyTorch is, and the names and shapes of its parameters."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jrnn.core.arguments import check_kind, check_size, tell
from jrnn.core.cell import Cell
from jrnn.interop._arrays import shape_of
from jrnn.interop._cells import Layer, Library, layer_of, levels_of
from jrnn.interop._layout import KINDS, Layout, Shapes, Stored, shapes
from jrnn.wrappers import concat_merge

MODES = {
    "RNN_TANH": ("elman", "tanh"),
    "RNN_RELU": ("elman", "relu"),
    "LSTM": ("lstm", "tanh"),
    "GRU": ("gru", "tanh"),
}
TORCH = Library(
    "PyTorch",
    "elman with tanh or relu, lstm, gru; bidirectional; a stack of equal layers with "
    "one rate of dropout between them",
    activations=("tanh", "relu"),
    projections=True,
)

# Told by the rows of weight_hh; a state_dict does not hold the nonlinearity.
MODE_OF_GATES = {1: "RNN", 3: "GRU", 4: "LSTM"}


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
      batch_first: Whether the module's data is (batch, time, features).
      is_cell: Whether it is an RNNCell, LSTMCell or GRUCell, which runs one step.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0
    batch_first: bool = False
    is_cell: bool = False


def check_spec(spec: Any) -> None:
    """Raises TypeError or ValueError unless `spec` is one of a module of PyTorch."""
    if not isinstance(spec, TorchSpec):
        raise TypeError(f"Expected spec to be a TorchSpec, got {tell(spec)}.")
    if spec.mode not in MODES:
        raise ValueError(
            f"Expected mode to be one of {list(MODES)}, got {spec.mode!r}; a "
            "state_dict does not hold the nonlinearity, and spec._replace(mode=...) "
            "tells it."
        )
    for name in ("input_size", "hidden_size", "num_layers"):
        check_size(name, getattr(spec, name))
    check_size("proj_size", spec.proj_size, least=0)
    for name in ("bias", "bidirectional", "batch_first", "is_cell"):
        check_kind(name, getattr(spec, name), bool)
    if spec.is_cell and (spec.num_layers > 1 or spec.bidirectional or spec.proj_size):
        raise ValueError(
            "Expected one layer in one direction without projection where is_cell is "
            f"True, got {spec}."
        )


def check_time_axis(spec: TorchSpec, time_axis: Any) -> None:
    """Raises ValueError where `batch_first` would be dropped unseen."""
    if time_axis not in (None, 0, 1) or isinstance(time_axis, bool):
        raise ValueError(f"Expected time_axis to be 0 or 1, got {tell(time_axis)}.")
    if spec.batch_first and time_axis is None:
        raise ValueError(
            "Expected time_axis beside a module with batch_first=True, got None: a "
            "cell does not hold the layout of its data. Pass time_axis=1 here and to "
            "jrnn.unroll, or time_axis=0 if your data has time first."
        )


def suffixes(spec: TorchSpec, layer: int) -> list[str]:
    """Returns the suffixes of parameter names, for each direction of a layer."""
    if spec.is_cell:
        return [""]
    ends = ["", "_reverse"] if spec.bidirectional else [""]
    return [f"_l{layer}{end}" for end in ends]


def layer_at(spec: TorchSpec, layer: int) -> Layer:
    """Returns one layer of a module, in one of its directions."""
    kind, activation = MODES[spec.mode]
    below = (spec.proj_size or spec.hidden_size) * (1 + spec.bidirectional)
    return Layer(
        kind,
        below if layer else spec.input_size,
        spec.hidden_size,
        bias=spec.bias,
        activation=activation,
        projection_size=spec.proj_size or None,
    )


def layout_of(layer: Layer, suffix: str) -> Layout:
    """Returns how PyTorch stores one layer in one direction."""
    gates = KINDS[layer.family].gates
    stored = [
        Stored(f"weight_ih{suffix}", ("W_x",), gates, transposed=True),
        Stored(f"weight_hh{suffix}", ("W_h",), gates, transposed=True),
    ]
    if layer.bias:
        stored.append(Stored(f"bias_ih{suffix}", ("b",), gates))
        stored.append(Stored(f"bias_hh{suffix}", ("b_h",), gates))
    if layer.projection_size:
        stored.append(Stored(f"weight_hr{suffix}", ("W_p",), "h", transposed=True))
    return Layout(layer.family, tuple(stored))


def shapes_of(spec: TorchSpec) -> Shapes:
    """Returns the shapes of a module's parameters, by name."""
    found: Shapes = {}
    for i in range(spec.num_layers):
        layer = layer_at(spec, i)
        for suffix in suffixes(spec, i):
            found |= shapes(layout_of(layer, suffix), layer.sizes)
    return found


def spec_of(cell: Cell) -> TorchSpec:
    """Returns the attributes of the module that computes what a cell does.

    Raises:
      ValueError: PyTorch has no such module.
    """
    levels = levels_of(cell, TORCH)
    layers = [
        [layer_of(c, TORCH, level.place) for c in level.cells] for level in levels
    ]
    first = layers[0][0]
    modes = {made: mode for mode, made in MODES.items()}
    told = first.kind, first.activation if first.kind == "elman" else "tanh"
    spec = TorchSpec(
        modes[told],
        first.input_size,
        first.hidden_size,
        num_layers=len(levels),
        bias=first.bias,
        dropout=levels[-1].rate if levels[1:] else 0.0,
        bidirectional=len(levels[0].cells) == 2,
        proj_size=first.projection_size or 0,
    )
    for i, (level, each) in enumerate(zip(levels, layers, strict=True)):
        alike = [layer_at(spec, i)] * (1 + spec.bidirectional)
        if each != alike:
            reason = f"all layers must be alike, and this one is not; {APART}"
            raise TORCH.refuse(cell, reason, level.place)
        if level.merge is not concat_merge:
            reason = f"PyTorch concatenates the outputs of both directions; {APART}"
            raise TORCH.refuse(cell, reason, level.place)
        if level.rate != (spec.dropout if i else 0.0):
            reason = f"the rates of dropout must be 0, then all equal; {APART}"
            raise TORCH.refuse(cell, reason, level.place)
    return spec


APART = "convert each of its cells to a module of its own, with its own parameters"


def find_specs(arrays: Mapping[str, Any]) -> dict[str, TorchSpec]:
    """Finds the recurrent modules in a state_dict.

    Args:
      arrays: The `state_dict()` of a model, of any depth.

    Returns:
      A TorchSpec for each prefix, such as "encoder.lstm.", for `from_arrays`. What a
      state_dict does not hold is left at its default: dropout, `batch_first`, and the
      nonlinearity of an RNN, whose mode is "RNN" until
      `spec._replace(mode="RNN_TANH")` completes it.

    Raises:
      TypeError: `arrays` is not a dictionary.

    Example:
      >>> import numpy as np
      >>> from jrnn.interop.torch import find_specs
      >>> state_dict = {"head.bias": np.ones(2), "rnn.weight_ih_l0": np.ones((12, 3))}
      >>> state_dict |= {"rnn.weight_hh_l0": np.ones((12, 4))}
      >>> spec = find_specs(state_dict)["rnn."]
      >>> spec.mode, spec.input_size, spec.hidden_size, spec.bias
      ('GRU', 3, 4, False)
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"Expected arrays to be a dictionary of parameters, got {tell(arrays)}."
        )
    shape = {str(name): shape_of(array) for name, array in arrays.items()}
    ends = re.compile(r"(.*\.|)weight_hh(_l0|)")
    starts = [match for name in shape if (match := ends.fullmatch(name))]
    specs = {match[1]: _spec_at(shape, match[1], match[2]) for match in starts}
    return {prefix: spec for prefix, spec in specs.items() if spec is not None}


def _spec_at(shape: Shapes, prefix: str, suffix: str) -> TorchSpec | None:
    own = {n.removeprefix(prefix): s for n, s in shape.items() if n.startswith(prefix)}
    if f"weight_ih{suffix}" not in own or len(own[f"weight_hh{suffix}"]) != 2:
        return None
    rows, shown = own[f"weight_hh{suffix}"]
    projected = own.get(f"weight_hr{suffix}")
    units = projected[-1] if projected else shown
    mode = MODE_OF_GATES.get(rows // units)
    if mode is None or rows % units:
        return None
    layers = [int(n.rpartition("_l")[2]) for n in own if re.fullmatch(LAYER, n)]
    return TorchSpec(
        mode,
        own[f"weight_ih{suffix}"][-1],
        units,
        num_layers=max(layers, default=0) + 1,
        bias=f"bias_hh{suffix}" in own,
        bidirectional=f"weight_hh{suffix}_reverse" in own,
        proj_size=shown if projected else 0,
        is_cell=not suffix,
    )


LAYER = r"weight_hh_l\d+"
