r"""How other libraries store a recurrent layer, as data, and the code that reads it.

Every library computes the same products, gate by gate, with h' = r_t * h_{t-1} for the
candidate of a GRU that resets before the product, and h_{t-1} otherwise:

    a_t = x_t W_x + h' W_h + b

They differ in the order of the gates, in transposes, in whether gates share an array,
in the number of biases, in the sign of a gate's argument, and in constants that their
code adds. A `Layout` states these for one kind of layer. `read` and `write` apply it,
in both directions, and no module of a library converts an array by other means.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.cells.elman import ElmanParams
from jrnn.cells.gru import GRUParams
from jrnn.cells.lstm import LSTMParams
from jrnn.core.check import is_traced

Arrays = Mapping[str, Any]  # the arrays of a library by name
Shapes = dict[str, tuple[int, ...]]
Pieces = dict[tuple[str, str], Any]  # by the names of a part and a gate

BIASES = ("b", "b_h")


class Sizes(NamedTuple):
    """The sizes of a layer: k inputs, n units, r of them shown, all or a projection."""

    k: int
    n: int
    r: int


class Stored(NamedTuple):
    """One array of a library.

    Attributes:
      name: Its name in the library.
      parts: What it holds, from top to bottom, of W_x, W_h, W_p, b and b_h. b is added
        to the product with x_t, b_h to that with h_{t-1}.
      gates: The gates that it holds, from left to right, such as "i f g o".
      transposed: Whether the library stores the transpose.
    """

    name: str
    parts: tuple[str, ...]
    gates: str
    transposed: bool = False


class Kind(NamedTuple):
    """The layout of jrnn.

    Attributes:
      params: The class of the parameters.
      gates: The order of the gates.
      apart: The gate whose b_h is a parameter of its own, as the reset gate multiplies
        it; "": b and b_h only ever occur as their sum, the parameter b.
    """

    params: type
    gates: str
    apart: str = ""


KINDS = {
    "elman": Kind(ElmanParams, "h"),
    "lstm": Kind(LSTMParams, "i f g o"),
    "gru": Kind(GRUParams, "r z n", apart="n"),
    "gru reset before": Kind(GRUParams, "r z n"),
}


class Layout(NamedTuple):
    """How a library stores one kind of layer.

    Attributes:
      kind: A name in `KINDS`.
      stored: Its arrays.
      negated: A gate whose argument has the opposite sign, as sigmoid(-a) is
        1 - sigmoid(a); "": none.
      added: The gate to whose argument the library's code adds 1; "": none.
    """

    kind: str
    stored: tuple[Stored, ...]
    negated: str = ""
    added: str = ""


def shapes(layout: Layout, sizes: Sizes) -> Shapes:
    """Returns the shapes of a layer's arrays, by name."""
    return {stored.name: _shape(stored, sizes) for stored in layout.stored}


def _shape(stored: Stored, sizes: Sizes) -> tuple[int, ...]:
    rows = {"W_x": sizes.k, "W_h": sizes.r, "W_p": sizes.n, "b": 1, "b_h": 1}
    columns = sizes.r if stored.parts == ("W_p",) else sizes.n
    width = columns * len(stored.gates.split())
    if stored.parts[0] in BIASES and len(stored.parts) == 1:
        return (width,)
    shape = (sum(rows[part] for part in stored.parts), width)
    return shape[::-1] if stored.transposed else shape


def read(layout: Layout, arrays: Arrays, sizes: Sizes) -> Any:
    """Returns the parameters of jrnn's cell, from arrays of the right shapes."""
    kind = KINDS[layout.kind]
    found: Pieces = {}
    for stored in layout.stored:
        found |= _cut(stored, arrays[stored.name], sizes)
    found = _shifted(_signed(found, layout), layout, +1)
    fields = {part: _joined(found, part, kind.gates) for part in ("W_x", "W_h")}
    fields |= _read_biases(found, kind)
    if ("W_p", "h") in found:
        fields["W_p"] = found["W_p", "h"]
    return kind.params(**jax.tree.map(jnp.asarray, fields))


def write(layout: Layout, params: Any) -> dict[str, Any]:
    """Returns a library's arrays by name, the inverse of `read`.

    A layout with biases gets zeros for parameters without. Where it has two biases of
    which one is redundant, that one is -0, so that b + (-0) is b, bit for bit.
    """
    kind = KINDS[layout.kind]
    given = {name: _plain(leaf) for name, leaf in params._asdict().items()}
    found: Pieces = {}
    for part in ("W_x", "W_h"):
        found |= _split(part, given[part], kind.gates)
    if given.get("W_p") is not None:
        found["W_p", "h"] = given["W_p"]
    found |= _write_biases(layout, kind, given)
    found = _signed(_shifted(found, layout, -1), layout)
    return {stored.name: _assembled(stored, found) for stored in layout.stored}


def _cut(stored: Stored, array: Any, sizes: Sizes) -> Pieces:
    """Cuts one array into parts by rows, and each of these into gates by columns."""
    array = array.T if stored.transposed else array
    if stored.parts == BIASES:
        blocks = [array[0], array[1]]
    elif len(stored.parts) == 2:
        blocks = [array[: sizes.k], array[sizes.k :]]
    else:
        blocks = [array]
    pieces: Pieces = {}
    for part, block in zip(stored.parts, blocks, strict=True):
        pieces |= _split(part, block, stored.gates)
    return pieces


def _split(part: str, block: Any, gates: str) -> Pieces:
    names = gates.split()
    columns = _library(block).split(block, len(names), axis=-1)
    return {(part, gate): column for gate, column in zip(names, columns, strict=True)}


def _assembled(stored: Stored, found: Pieces) -> Any:
    """Puts one array together, the inverse of `_cut`."""
    blocks = [_joined(found, part, stored.gates) for part in stored.parts]
    if stored.parts == BIASES:
        return _library(blocks[0]).stack(blocks)
    array = blocks[0] if len(blocks) == 1 else _library(*blocks).concatenate(blocks)
    return array.T if stored.transposed else array


def _joined(found: Pieces, part: str, gates: str) -> Any:
    columns = [found[part, gate] for gate in gates.split()]
    return _library(*columns).concatenate(columns, axis=-1)


def _signed(found: Pieces, layout: Layout) -> Pieces:
    flip = lambda key, piece: -piece if key[1] == layout.negated else piece
    return {key: flip(key, piece) for key, piece in found.items()}


def _shifted(found: Pieces, layout: Layout, sign: int) -> Pieces:
    if not layout.added:
        return found
    b = found["b", layout.added]
    return found | {("b", layout.added): b + np.asarray(sign, b.dtype)}


def _read_biases(found: Pieces, kind: Kind) -> dict[str, Any]:
    """Returns b, the sum of the biases of each gate, and b_h if it is a parameter."""
    if not any(part in BIASES for part, _ in found):
        return dict.fromkeys(_bias_fields(kind))
    b = []
    for gate in kind.gates.split():
        sides = [side for side in BIASES if (side, gate) in found]
        if gate == kind.apart:
            sides = ["b"]
        first, *more = [found[side, gate] for side in sides]
        b.append(sum(more, first))
    fields = dict.fromkeys(_bias_fields(kind))
    fields["b"] = _library(*b).concatenate(b)
    if kind.apart:
        apart = found.get(("b_h", kind.apart))
        zeros = _library(b[-1]).zeros_like
        fields["b_h"] = zeros(b[-1]) if apart is None else apart
    return fields


def _bias_fields(kind: Kind) -> list[str]:
    return [name for name in kind.params._fields if name in BIASES]


def _write_biases(layout: Layout, kind: Kind, given: dict[str, Any]) -> Pieces:
    """Puts b on the side that a library has, with x_t if it has both."""
    held = {
        (part, gate)
        for stored in layout.stored
        for part in stored.parts
        for gate in stored.gates.split()
        if part in BIASES
    }
    n = given["W_h"].shape[-1] // len(kind.gates.split())
    zeros = np.zeros(n, given["W_h"].dtype)
    b, b_h = given["b"], given.get("b_h")
    own = {} if b is None else _split("b", b, kind.gates)
    found: Pieces = {}
    for part, gate in held:
        first = part == "b" or ("b", gate) not in held
        if part == "b_h" and gate == kind.apart:
            found[part, gate] = zeros if b_h is None else b_h
        elif first:
            found[part, gate] = own.get(("b", gate), zeros)
        else:
            found[part, gate] = -zeros
    return found


def _library(*arrays: Any) -> Any:
    """Returns the module for these arrays: `jax.numpy` where one of them is traced."""
    return jnp if any(map(is_traced, arrays)) else np


def _plain(leaf: Any) -> Any:
    return leaf if leaf is None or is_traced(leaf) else np.asarray(leaf)
