"""Checks around the functions of a cell that users call: `init`, `init_state`, `step`.

`jrnn.core.memoize` adds them to every cell that a factory makes, so that cells contain
no checks. Inside a loop they run only during tracing.
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from jrnn.core.caches import bounded
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_array, check_like, check_params, check_state
from jrnn.core.check_draws import check_batch_shape, check_dtype, check_given_key
from jrnn.core.check_inputs import check_input
from jrnn.core.constants import own_constants, resealed
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.flags import renew
from jrnn.core.memoize import GUARD, guarded, unguarded


@guarded.register
def guard_cell(cell: Cell) -> Cell:
    """Returns the cell with functions that check their arguments against this cell."""
    if getattr(cell.init, GUARD, None) is cell:
        return cell
    given = cell
    # A wrapper may reuse functions of its inner cell, with the checks of that cell.
    stored = cell._asdict()
    stored = {name: unguarded(stored[name]) for name in _CHECKED}
    cell = cell._replace(**stored)
    reads_ahead = stored["step"] is cell.advance  # both raise an error of their own
    guards = {
        name: functools.wraps(stored[name])(guard(cell))
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


# What `help` shows; else that of the function inside, which takes no `reset`.
_SIGNATURE = "__signature__"


def _step(cell: Cell) -> Any:
    stored = cell._asdict()["step"]  # `cell.step` may be this guard again

    def step(
        params: Params,
        state: State,
        x: Any,
        noise: Any = None,
        *,
        reset: Any = None,
    ) -> tuple[State, Array]:
        x = check_array("x", x)
        _check_params(cell, params)
        batch = check_input(cell, x)
        state = check_state(cell, state, batch)
        if noise is not None:
            _check_noise(cell, noise, batch)
        if reset is not None:
            state = _renewed(cell, params, state, x, _check_reset(reset, batch))
        return stored(params, state, x, noise)

    setattr(step, _SIGNATURE, inspect.signature(step))
    return step


@own_constants
def _renewed(
    cell: Cell, params: Params, state: State, x: Array, reset: Bool[Array, "*batch"]
) -> State:
    """Returns `cell.init_state` where `reset` is True, `state` elsewhere."""
    dtype = state_dtype(params, x)
    fresh = cell.init_state(params, reset.shape)
    return renew(reset, cast_state(fresh, dtype), cast_state(state, dtype))


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


def _check_reset(reset: Any, batch: tuple[int, ...]) -> Array:
    """Returns the flags of one step; raises unless boolean and of the batch shape."""
    reset = check_array("reset", reset)
    if reset.dtype != jnp.bool_:
        raise TypeError(
            "Expected reset to be boolean, True where a segment begins, got "
            f"{reset.dtype}; compare with 0 to make it so."
        )
    if reset.shape != batch:
        raise ValueError(
            f"Expected reset of shape (*batch,) = {batch}, got {reset.shape}; to reset "
            f"every sequence, pass jnp.full({batch}, True)."
        )
    return reset
