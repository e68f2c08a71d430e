"""How the cells of Flax store their arrays, in linen and in nnx."""

from typing import Any

import jax

from jrnn.core.arguments import tell
from jrnn.interop._cells import ACTIVATIONS, NAMES, Layer, Library
from jrnn.interop._layout import KINDS, Layout, Stored

FLAX = Library(
    "Flax",
    "elman, lstm, gru with reset_after=True; bidirectional",
    activations=tuple(ACTIVATIONS),
)
CELLS = {
    "SimpleCell": "elman",
    "LSTMCell": "lstm",
    "OptimizedLSTMCell": "lstm",
    "GRUCell": "gru",
}
MADE = {"elman": "SimpleCell", "lstm": "OptimizedLSTMCell", "gru": "GRUCell"}
ENDS = ("forward_rnn", "backward_rnn")


def linen_layout(layer: Layer) -> Layout:
    """Returns the layout of linen: one array for each gate."""
    kind = KINDS[layer.family]
    side = "h" if layer.kind == "lstm" else "i"
    stored = []
    for gate in kind.gates.split():
        suffix = "" if layer.kind == "elman" else gate
        stored += [
            Stored(f"i{suffix}/kernel", ("W_x",), gate),
            Stored(f"h{suffix}/kernel", ("W_h",), gate),
            Stored(f"{side}{suffix}/bias", ("b_h" if side == "h" else "b",), gate),
        ]
    if kind.apart:
        stored.append(Stored(f"h{kind.apart}/bias", ("b_h",), kind.apart))
    return Layout(layer.family, tuple(stored))


def nnx_layout(layer: Layer, split: bool = False) -> Layout:
    """Returns the layout of nnx; `split`: that of an LSTMCell, as in linen."""
    if split:
        layout = linen_layout(layer)
        renamed = [
            s._replace(name=s.name.replace("if/", "if_/")) for s in layout.stored
        ]
        return layout._replace(stored=tuple(renamed))
    gates = KINDS[layer.family].gates
    bias = ("dense_h/bias", "b_h") if layer.kind == "lstm" else ("dense_i/bias", "b")
    stored = (
        Stored("dense_i/kernel", ("W_x",), gates),
        Stored("dense_h/kernel", ("W_h",), gates),
        Stored(bias[0], (bias[1],), gates),
    )
    return Layout(layer.family, stored)


def kind_of(module: Any) -> str:
    """Returns what a cell of Flax is in jrnn; raises TypeError for anything else."""
    kind = CELLS.get(type(module).__name__)
    if kind is None or not type(module).__module__.startswith("flax."):
        raise TypeError(
            f"Expected module to be one of {list(CELLS)} of Flax, an RNN around it or "
            f"a Bidirectional, got {tell(module)}; pass the recurrent modules of a "
            "model one by one."
        )
    return kind


def activation_of(module: Any, kind: str) -> str:
    """Returns the name of the activation; raises if jrnn's cell does not have it."""
    name = NAMES.get(module.activation_fn)
    gate = NAMES.get(getattr(module, "gate_fn", jax.nn.sigmoid))
    if getattr(module, "residual", False):
        raise ValueError(
            "Expected a SimpleCell with residual=False, got one that adds h_{t-1} "
            "before the activation; add the identity to its h/kernel instead."
        )
    known = ACTIVATIONS if kind == "elman" else ("tanh",)
    if gate != "sigmoid" or name is None or name not in known:
        raise ValueError(
            f"Expected gate_fn sigmoid and activation_fn tanh, or in a SimpleCell one "
            f"of {list(ACTIVATIONS)}, got {tell(module.activation_fn)} and gates "
            f"{gate or tell(module.gate_fn)}."
        )
    return name


def check_direction(backwards: bool, reverse: bool) -> None:
    """Raises where the direction would be dropped unseen."""
    if backwards != reverse:
        raise ValueError(
            f"Expected reverse={backwards} for a module with reverse={backwards}, got "
            f"{reverse}; a cell does not hold its direction: pass reverse here as to "
            "jrnn.unroll."
        )
