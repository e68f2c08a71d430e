"""Checks around the functions of a cell that users call: `init`, `init_state`, `step`.

`jrnn.core.memoize` adds them to every cell that a factory makes, so that cells contain
no checks. Inside a loop they run only during tracing.
"""

import functools
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_array, check_like, check_params, check_state
from jrnn.core.check_draws import check_batch_shape, check_dtype, check_given_key
from jrnn.core.check_inputs import check_input
from jrnn.core.constants import resealed
from jrnn.core.memoize import GUARD, guarded, unguarded


@guarded.register
def guard_cell(cell: Cell) -> Cell:
    """Returns the cell with functions that check their arguments against this cell."""
    if getattr(cell.init, GUARD, None) is cell:
        return cell
    given = cell
    # A wrapper may reuse functions of its inner cell, with the checks of that cell.
    cell = cell._replace(**{name: unguarded(getattr(cell, name)) for name in _CHECKED})
    reads_ahead = cell.step is cell.advance  # both raise an error of their own
    guards = {
        name: functools.wraps(getattr(cell, name))(guard(cell))
        for name, guard in _CHECKED.items()
        if name != "step" or not reads_ahead
    }
    made = resealed(given, cell._replace(**guards))
    for guard in guards.values():
        setattr(guard, GUARD, made)
    return made


def _init(cell: Cell) -> Any:
    def init(key: Key, dtype: DTypeLike | None = None) -> Params:
        key = check_given_key(key)
        check_dtype(dtype)
        return cell.init(key, dtype)

    return init


def _init_state(cell: Cell) -> Any:
    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        _check_params(cell, params)
        return cell.init_state(params, check_batch_shape(batch_shape))

    return init_state


def _step(cell: Cell) -> Any:
    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        x = check_array("x", x)
        _check_params(cell, params)
        batch = check_input(cell, x)
        state = check_state(cell, state, batch)
        if noise is not None:
            _check_noise(cell, noise, batch)
        return cell.step(params, state, x, noise)

    return step


_CHECKED = {"init": _init, "init_state": _init_state, "step": _step}


def _check_params(cell: Cell, params: Params) -> None:
    """Raises unless `params` fits the cell, either before or after `prepare`."""
    if cell.prepare is None or not _is_prepared(cell, params):
        check_params(cell, params)


def _is_prepared(cell: Cell, params: Params) -> bool:
    known = _prepared_like(cell)
    alike = jax.tree.structure(params) == jax.tree.structure(known)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(known), strict=False)
    return alike and all(
        getattr(leaf, "shape", None) == want.shape for leaf, want in pairs
    )


@bounded
def _prepared_like(cell: Cell) -> Params:
    assert cell.prepare is not None
    prepare = cell.prepare
    return jax.eval_shape(lambda: prepare(cell.init(jax.random.key(0))))


def _check_noise(cell: Cell, noise: Any, batch: tuple[int, ...]) -> None:
    """Raises ValueError unless `noise` has the structure and shapes of one step's."""
    draw = cell.noise
    if draw is None:
        raise ValueError(
            f"Expected noise=None for {cell}, which draws none, got "
            f"{type(noise).__name__}."
        )
    drawn = jax.eval_shape(lambda: draw(jax.random.key(0), 1, batch))
    one = lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    like = jax.tree.map(one, drawn)
    source = lambda: f"each step of {cell}.noise(key, steps, {batch})"
    check_like("noise", noise, like, source)
