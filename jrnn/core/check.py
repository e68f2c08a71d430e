"""Checks of the types, structures and shapes of cells, parameters and states."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Params, State
from jrnn.core.check_kinds import dtype_of, fit_kind, shape_of, sketch, told_type
from jrnn.core.integers import as_array
from jrnn.core.method import Method


def is_traced(array: Any) -> bool:
    """Returns whether `array` is traced, so that its values are unknown."""
    return isinstance(array, Tracer)


def check_cell(cell: Any, name: str = "cell") -> None:
    """Raises TypeError unless `cell` is a cell."""
    if not isinstance(cell, Cell):
        place = "" if name == "cell" else f" as {name}"
        raise TypeError(
            f"Expected a Cell{place}, made by a factory such as jrnn.lstm(3, 4), got "
            f"{type(cell).__name__}."
        )


def check_array(name: str, value: Any) -> Array:
    """Returns `value` as an array; raises TypeError if it cannot be one."""
    if isinstance(value, jax.Array):
        return value
    try:
        return as_array(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"Expected {name} to be an array, got {type(value).__name__}; make one of "
            "it with jnp.asarray, or pad sequences of unequal length with "
            "jrnn.train.batching."
        ) from error


def check_method(method: Any) -> None:
    """Raises TypeError unless `method` is a method."""
    if not isinstance(method, Method):
        shown = getattr(method, "__name__", tell(method))
        raise TypeError(
            f"Expected a Method, made by a factory such as jrnn.bptt(), got {shown}; a "
            "factory must be called."
        )


@bounded
def expected_params(cell: Cell) -> Params:
    """Returns the shapes and types of a cell's parameters."""
    return jax.eval_shape(lambda: cell.init(jax.random.key(0)))


@bounded
def expected_state(cell: Cell) -> State:
    """Returns the shapes of a state without its leading batch axes."""
    return jax.eval_shape(lambda: cell.init_state(cell.init(jax.random.key(0))))


def passed_before(static: Hashable, *trees: Any) -> list[bool]:
    """Returns a list that is empty until arguments like these have passed all checks.

    After that, they cost one look-up: static mistakes depend only on structures, shapes
    and types. Arguments with a leaf that is not an array are checked at every call.
    """
    leaves, structure = jax.tree.flatten(trees)
    try:
        shown = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
        return _passed((static, structure, shown))
    except (AttributeError, ValueError):  # symbols of two scopes cannot be compared
        return []


@bounded
def _passed(signature: tuple[Hashable, ...]) -> list[bool]:
    del signature
    return []


def check_params(cell: Cell, params: Params) -> None:
    """Raises ValueError unless `params` has the structure and shapes of `cell.init`."""
    check_like("params", params, expected_params(cell), lambda: f"{cell}.init(key)")
    check_floating("params", params)


def check_floating(name: str, params: Params) -> None:
    """Raises TypeError unless all parameters have floating types."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = dtype_of(leaf)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"Expected floating parameters, got {name}{_name(path)} of type "
                f"{told_type(leaf)}; cast it to a floating type."
            )


def check_no_elapsed(name: str, cell: Cell, reason: str) -> None:
    """Raises ValueError for a cell that reads elapsed time where it cannot get one."""
    if cell.elapsed is not None:
        raise ValueError(
            f"Expected a cell without an input feature that is elapsed time in {name}, "
            f"got {cell}: {reason}."
        )


def check_state(cell: Cell, state: State, batch: tuple) -> State:
    """Returns `state`, with real arrays made complex where the cell's are complex.

    Raises:
      TypeError: An array is complex where the cell's is real, or is not floating.
      ValueError: The state does not fit the cell and the batch shape.
    """
    source = lambda: f"{cell}.init_state(params, {batch})"
    return fit_state("state", state, expected_state(cell), batch, source)


def check_guess(cell: Cell, guess: State, lead: tuple) -> State:
    """Does for a trajectory (*lead, ...) what `check_state` does for a state."""
    source = lambda: f"jrnn.trajectory({cell}, ...)"
    return fit_state("guess", guess, expected_state(cell), lead, source)


def fit_state(name: str, state: Any, like: Any, lead: tuple, source: "Source") -> Any:
    """Checks a state against `like`, which lacks the leading axes `lead`.

    Returns the state, with real arrays made complex where those of `like` are complex.
    """
    spread = lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype)
    check_like(name, state, jax.tree.map(spread, like), source)
    fit = lambda path, leaf, want: fit_kind(name + _name(path), leaf, want.dtype)
    return jax.tree_util.tree_map_with_path(fit, state, like)


def check_rate(name: str, rate: Any) -> None:
    """Raises ValueError unless `rate` is a number in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"Expected {name} in [0, 1), got {tell(rate)}.")


def _check_shape(name: str, array: Array, shape: tuple[int, ...], words: str) -> None:
    if array.shape != shape:
        raise ValueError(
            f"Expected {name} of shape {words} = {shape}, got {array.shape}."
        )


Source = str | Callable[[], str]  # the call that makes a valid one; called on errors


def _told(source: Source) -> str:
    return source if isinstance(source, str) else source()


def check_like(name: str, got: Any, expected: Any, source: Source) -> None:
    """Compares structure and shapes, not types; `source` is shown in the error."""
    if jax.tree.structure(got) != jax.tree.structure(expected):
        raise ValueError(
            f"Expected {name} with the structure that {_told(source)} returns, "
            f"{sketch(expected)}, got {sketch(got)}."
        )
    wanted = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), leaf in zip(wanted, jax.tree.leaves(got), strict=True):
        if shape_of(leaf) != want.shape:
            raise ValueError(
                f"Expected {name}{_name(path)} of shape {want.shape}, as "
                f"{_told(source)} returns, got {shape_of(leaf)}."
            )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path)
