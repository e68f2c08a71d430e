"""Conversion of single cells, for libraries with a dictionary of arrays for each."""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jrnn.core.arguments import tell
from jrnn.core.cell import Cell, Params
from jrnn.core.check import check_cell, check_params, is_traced
from jrnn.interop._arrays import check_arrays, shape_of
from jrnn.interop._cells import Layer, Library, cell_of, layer_of
from jrnn.interop._layout import (
    BIASES,
    KINDS,
    Arrays,
    Layout,
    read,
    shapes,
    write,
)

LayoutOf = Callable[[Layer], Layout]


def from_single(
    layer: Layer, layout: Layout, arrays: Arrays, of: str, hint: str = ""
) -> tuple[Cell, Params]:
    """Returns the cell that `layer` describes, and its parameters.

    Args:
      layer: The cell.
      layout: How its library stores it.
      arrays: The library's arrays by name.
      of: What they are the parameters of, for an error.
      hint: What to do if they do not fit, for an error.
    """
    held = check_arrays(arrays, shapes(layout, layer.sizes), of, hint)
    cell, params = cell_of(layer), read(layout, held, layer.sizes)
    check_params(cell, params)
    return cell, params


def to_single(
    cell: Cell, params: Params, library: Library, layout_of: LayoutOf
) -> tuple[Layer, dict[str, Any]]:
    """Returns what a cell is, and its library's arrays by name.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: The library has no such cell, or cannot hold its parameters.
    """
    check_cell(cell)
    layer = layer_of(cell, library)
    check_params(cell, params)
    layout = layout_of(layer)
    apart = KINDS[layout.kind].apart
    held = {
        (part, gate)
        for stored in layout.stored
        for part in stored.parts
        for gate in stored.gates.split()
    }
    if apart and layer.bias and ("b_h", apart) not in held:
        _check_zero(params.b_h, library)
    return layer, write(layout, params)


def _check_zero(b_h: Any, library: Library) -> None:
    if is_traced(b_h) or jnp.any(b_h != 0):
        raise ValueError(
            f"Expected params.b_h to be 0, as a GRU of {library.name} has no bias "
            f"that the reset gate multiplies, got {tell(b_h)}."
        )


def input_size_of(layout: Layout, arrays: Arrays, units: int) -> int:
    """Returns k, as most arrays with W_x have it; 1 if there is none."""
    told = []
    for stored in layout.stored:
        shape = shape_of(arrays.get(stored.name, 0.0))
        if "W_x" in stored.parts and len(shape) == 2:
            width = units * len(stored.gates.split())
            rows = shape[1] if shape[0] == width != shape[1] else shape[0]
            told.append(rows - units if "W_h" in stored.parts else rows)
    return _most(told)


def hidden_size_of(layout: Layout, arrays: Arrays) -> int:
    """Returns n, as most arrays have it, or else the biases; 1 if there is none."""
    biases_first = sorted(layout.stored, key=lambda one: one.parts[0] not in BIASES)
    shapes = [(one, shape_of(arrays.get(one.name, 0.0))) for one in biases_first]
    return _most([s[-1] // len(one.gates.split()) for one, s in shapes if s])


def _most(sizes: list[int]) -> int:
    return max(collections.Counter(sizes).most_common(1)[0][0], 1) if sizes else 1


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries by their paths, joined by slashes."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for name, inner in tree.items():
        found |= flat(inner, f"{prefix}/{name}" if prefix else str(name))
    return found


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries, the inverse of `flat`."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *above, name = path.split("/")
        inner = tree
        for one in above:
            inner = inner.setdefault(one, {})
        inner[name] = array
    return tree
