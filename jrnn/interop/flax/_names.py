"""The parameters of a cell by name, as Flax holds parameters.

The fields of NamedTuples and the keys of dictionaries keep their names; the entries of
tuples, which hold the parameters of the cells inside a cell, are cell_0, cell_1, ...:

    lstm(3, 4)                        W_x, W_h, b
    stack(lstm(3, 4), gru(4, 4))      cell_0/W_x, cell_0/W_h, ..., cell_1/W_x, ...
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from jrnn.core.arguments import tell
from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Params
from jrnn.core.check import (
    check_cell,
    check_floating,
    check_like,
    check_params,
    expected_params,
)
from jrnn.interop._static import Static, hold

Nested = dict[str, Any]  # arrays, or dictionaries of them, by name
Path = tuple[str, ...]


def hold_cell(cell: Any) -> Static:
    """Returns a cell of jrnn as a static attribute.

    Raises:
      TypeError: `cell` is a cell of Flax, or anything else.
    """
    if hasattr(type(cell), "num_feature_axes") and not isinstance(cell, Cell):
        kind = type(cell).__name__
        raise TypeError(
            f"Expected a cell of jrnn, such as jrnn.lstm(3, 4), got {kind} of Flax; "
            "convert it with as_cell of this module, or run it in Flax's own RNN."
        )
    return hold(cell)


class Names(NamedTuple):
    """The paths of a cell's parameters in the order of its leaves, and its tree."""

    paths: tuple[Path, ...]
    structure: Any


@bounded
def names_of(cell: Cell) -> Names:
    """Returns the names of the parameters of a cell."""
    like = expected_params(cell)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    paths = tuple(tuple(map(_name, path)) or ("params",) for path, _ in leaves)
    return Names(paths, structure)


def _name(key: Any) -> str:
    if isinstance(key, jax.tree_util.SequenceKey):
        return f"cell_{key.idx}"
    known = isinstance(key, jax.tree_util.GetAttrKey)
    return key.name if known else str(key.key)


def nest(cell: Cell, params: Params) -> Nested:
    """Returns the parameters of a cell by name.

    Args:
      cell: The cell.
      params: Its parameters, as `cell.init` returns them.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: The parameters do not fit the cell.
    """
    check_cell(cell)
    check_params(cell, params)
    return by_name(cell, jax.tree.leaves(params))


def by_name(cell: Cell, leaves: list[Any]) -> Nested:
    """Returns the leaves of a tree of parameters by name, without checks."""
    nested: Nested = {}
    for path, leaf in zip(names_of(cell).paths, leaves, strict=True):
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = leaf
    return nested


def unnest(cell: Cell, nested: Any) -> Params:
    """Returns the parameters of a cell from those by name, the inverse of `nest`.

    Args:
      cell: The cell.
      nested: Its parameters by name.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: A name is missing or unknown, or the parameters do not fit the cell.
    """
    check_cell(cell)
    paths, structure = names_of(cell)
    found = dict(_flat(nested))
    if found.keys() != set(paths):
        missing = [path for path in paths if path not in found]
        unknown = [path for path in found if path not in paths]
        raise ValueError(
            f"Expected nested to hold {_told(paths)}, the parameters of {cell}, got "
            f"{_told(found) or tell(nested)}; missing: {_told(missing) or 'none'}; "
            f"unknown: {_told(unknown) or 'none'}."
        )
    params = jax.tree.unflatten(structure, [found[path] for path in paths])
    source = lambda: f"{cell}.init(key)"
    check_like("nested", params, expected_params(cell), source)
    check_floating("nested", params)
    return params


def _told(paths: Iterable[Path]) -> str:
    return ", ".join(map("/".join, paths))


def _flat(nested: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Returns (path, array) for each array of nested mappings."""
    if not hasattr(nested, "items"):
        return [(path, nested)]
    return [leaf for k, v in nested.items() for leaf in _flat(v, (*path, str(k)))]
