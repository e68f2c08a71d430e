"""Cells around cells: stacks, both directions, and what changes inputs and outputs.

Each child is run along the whole sequence on its own, by whatever method, so that its
products with W_x stay large. The params, state and noise of a stack or a bidirectional
pair are tuples; `residual` and `dropout` keep those of their child.
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn._base import Cell, Children, Key, Params, Spec, State, memoize
from jrnn._check import check_cell, check_features, check_no_elapsed, check_rate
from jrnn._claims import NO_GATES, claim, inherited
from jrnn._parts import noisy_project, prepared
from jrnn._tree import reads_ahead


@memoize
def stack(*cells: Cell) -> Cell:
    """Makes a deep cell: each child reads what the one below it shows.

    Args:
      *cells: From the bottom to the top; each input size is the output size below.

    Returns:
      A cell whose params and state are tuples, one entry for each child; its outputs
      are those of the top. It steps where all its children do.

    Raises:
      TypeError: A child is not a cell.
      ValueError: There is no child, sizes do not fit, or a child above the first takes
        one of its input features for elapsed time.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.stack(jrnn.lstm(3, 4), jrnn.gru(4, 5))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 5)
    """
    if not cells:
        raise ValueError("Expected at least one cell to stack, got none.")
    for i, cell in enumerate(cells):
        check_cell(cell, f"cells[{i}]")
    for below, above in zip(cells, cells[1:], strict=False):
        if below.spec.output_size != above.spec.input_size:
            raise ValueError(
                f"Expected above {below}, which shows {below.spec.output_size} "
                f"features, a cell of that input_size, got {above}."
            )
        reason = f"it would take one that {below} shows for it"
        check_no_elapsed("a stack above the first", above, reason)

    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        moved = []
        for i, cell in enumerate(cells):
            drawn = None if noise is None else noise[i]
            state_i, x = cell.step(params[i], state[i], x, drawn)
            moved.append(state_i)
        return tuple(moved), x

    def project(params: Params, x: Any, noise: Any = None) -> Any:
        del params
        return x, noise

    def advance(params: Params, state: State, u: Any) -> State:
        return step(params, state, *u)[0]

    def output(params: Params, state: State, x: Any) -> Array:
        for cell, params_i, state_i in zip(cells, params, state, strict=True):
            x = cell.output(params_i, state_i, x)
        return x

    forwards = not any(map(reads_ahead, cells))
    ahead = _refuse("stack", cells)
    init, init_state = _init_each(cells)
    made = Cell(
        init=init,
        init_state=init_state,
        project=project if forwards else ahead,
        advance=advance if forwards else ahead,
        output=output if forwards else ahead,
        step=step if forwards else ahead,
        spec=Spec(
            "stack", _named(cells), cells[0].spec.input_size, cells[-1].spec.output_size
        ),
        noise=_noise_of_each(cells),
        prepare=_prepare_each(cells),
        children=Children(cells, nested=True),
        elapsed=cells[0].elapsed,
    )
    return claim(made, gates=NO_GATES)  # none of its own: its children tell theirs


@memoize
def bidirectional(forward: Cell, backward: Cell) -> Cell:
    """Makes a cell of two that read the same sequence from both ends.

    Args:
      forward: Reads x_1..x_t for the output at t.
      backward: Reads x_T..x_t for it.

    Returns:
      A cell whose params and state are pairs, and whose outputs stand side by side. It
      has no `step`: the second child begins at the end. In a `stack`, each layer reads
      both directions of the layer below.

    Raises:
      TypeError: A child is not a cell.
      ValueError: The input sizes differ, or the places of elapsed time.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 8)
    """
    cells = (forward, backward)
    check_cell(forward, "forward")
    check_cell(backward, "backward")
    sizes = [cell.spec.input_size for cell in cells]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"Expected two cells of one input_size, got {forward} and {backward}."
        )
    places = [cell.elapsed for cell in cells if cell.elapsed is not None]
    if len({place % sizes[0] for place in places}) > 1:
        raise ValueError(
            f"Expected two cells that read elapsed time in one place, got {forward} "
            f"and {backward}."
        )
    ahead = _refuse("bidirectional", cells)
    init, init_state = _init_each(cells)
    made = Cell(
        init=init,
        init_state=init_state,
        project=ahead,
        advance=ahead,
        output=ahead,
        step=ahead,
        spec=Spec(
            "bidirectional",
            _named(cells),
            sizes[0],
            sum(cell.spec.output_size for cell in cells),
        ),
        noise=_noise_of_each(cells),
        prepare=_prepare_each(cells),
        children=Children(cells, parallel=True, nested=True),
        elapsed=places[0] if places else None,
    )
    return claim(made, gates=NO_GATES)  # none of its own: its children tell theirs


@memoize
def residual(cell: Cell) -> Cell:
    """Makes a cell whose inputs are added to its outputs, y_t = x_t + cell(x_t).

    Args:
      cell: Any cell that shows as many features as it reads.

    Returns:
      A cell with the params and state of `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: Its sizes differ, or one of its input features is elapsed time.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.residual(jrnn.gru(4, 4))
      >>> params, x = cell.init(jax.random.key(0)), jax.numpy.ones(4)
      >>> cell.step(params, cell.init_state(params), x)[1].shape
      (4,)
    """
    check_cell(cell)
    if cell.spec.input_size != cell.spec.output_size:
        raise ValueError(
            "Expected a cell of equal input and output size, for its inputs are added "
            f"to its outputs, got {cell}, {cell.spec.input_size} and "
            f"{cell.spec.output_size}."
        )

    check_no_elapsed("residual", cell, "it would be added to an output")

    def output(params: Params, state: State, x: Any) -> Array:
        return add_inputs(cell.output(params, state, x), x)

    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        state, y = cell.step(params, state, x, noise)
        return state, add_inputs(y, x)

    made = cell._replace(
        output=output,
        step=step,
        spec=cell.spec._replace(name="residual", arguments=(("cell", cell),)),
        gated=None,
        adjoint=None,
        linear=None,
        children=Children((cell,), outputs=add_inputs),
    )
    return claim(made, **inherited(cell))


@memoize
def dropout(cell: Cell, rate: float) -> Cell:
    """Makes a cell whose input features are dropped at random, anew at each step.

    Around the second and each further child of a `stack` this is dropout between
    layers (Zaremba et al. 2014, https://arxiv.org/abs/1409.2329). Features that are
    kept are divided by 1 - rate. Without a `key` nothing is dropped, and elapsed time
    (`cell.elapsed`) never is.

    Args:
      cell: Any cell that reads floats.
      rate: Probability that a feature is dropped, in [0, 1).

    Returns:
      A cell with the params and state of `cell`; at rate 0, `cell`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: `rate` is outside [0, 1).

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.stack(jrnn.gru(3, 4), jrnn.dropout(jrnn.gru(4, 4), 0.5))
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs, key=jax.random.key(1))[1].shape
      (7, 4)
    """
    check_cell(cell)
    check_rate("rate", rate)
    if rate == 0:
        return cell

    def noise(key: Key, steps: int, batch_shape: tuple[int, ...]) -> Any:
        key_in, key_cell = jax.random.split(key)
        shape = (steps, *batch_shape, cell.spec.input_size)
        inner = None if cell.noise is None else cell.noise(key_cell, steps, batch_shape)
        return jax.random.bernoulli(key_in, 1 - rate, shape), inner

    def project(params: Params, x: Any, noise: Any = None) -> Any:
        if noise is None:
            return cell.project(params, x)
        kept, inner = noise
        return noisy_project(
            cell.project, params, drop_features(x, kept, rate, cell.elapsed), inner
        )

    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        if noise is None:
            return cell.step(params, state, x)
        kept, inner = noise
        return cell.step(
            params, state, drop_features(x, kept, rate, cell.elapsed), inner
        )

    def drop(x: Array, noise: Any) -> tuple[Array, Any]:
        kept, inner = noise
        return drop_features(x, kept, rate, cell.elapsed), inner

    made = cell._replace(
        project=project,
        step=step,
        spec=cell.spec._replace(
            name="dropout", arguments=(("cell", cell), ("rate", rate))
        ),
        gated=None,
        adjoint=None,
        linear=None,
        noise=noise,
        children=Children((cell,), inputs=drop),
    )
    return claim(made, **inherited(cell))


def drop_features(
    x: Array, kept: Array, rate: float, elapsed: int | None = None
) -> Array:
    """Returns x / (1 - rate) where `kept`, 0 elsewhere; elapsed time as it is."""
    check_features("dropout", x)
    scaled = x / jnp.asarray(1 - rate, x.dtype)
    dropped = jnp.where(kept, scaled, jnp.zeros_like(x))
    if elapsed is None:
        return dropped
    is_time = np.arange(x.shape[-1]) == elapsed % x.shape[-1]
    return jnp.where(is_time.reshape((1,) * (x.ndim - 1) + (-1,)), x, dropped)


def add_inputs(y: Array, x: Array) -> Array:
    """Returns y + x, in the type of y."""
    check_features("residual", x)
    return y + x.astype(y.dtype)


def _named(cells: tuple[Cell, ...]) -> tuple[tuple[str, Cell], ...]:
    return tuple((f"cell_{i}", cell) for i, cell in enumerate(cells))


def _refuse(name: str, cells: tuple[Cell, ...]) -> Any:
    def refuse(*arguments: Any, **keywords: Any) -> NoReturn:
        del arguments, keywords
        raise ValueError(
            f"Expected a cell that reads forwards alone, got {name}"
            f"({', '.join(map(repr, cells))}), which has no single step, for its "
            "outputs depend on later inputs; run it with jrnn.unroll."
        )

    return refuse


def _init_each(cells: tuple[Cell, ...]) -> tuple[Any, Any]:
    def init(key: Key, dtype: DTypeLike | None = None) -> Params:
        keys = jax.random.split(key, len(cells))
        return tuple(cell.init(keys[i], dtype) for i, cell in enumerate(cells))

    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        return tuple(
            cell.init_state(params_i, batch_shape)
            for cell, params_i in zip(cells, params, strict=True)
        )

    return init, init_state


def _prepare_each(cells: tuple[Cell, ...]) -> Any:
    if all(cell.prepare is None for cell in cells):
        return None

    def prepare(params: Params) -> Params:
        return tuple(map(prepared, cells, params))

    return prepare


def _noise_of_each(cells: tuple[Cell, ...]) -> Any:
    if all(cell.noise is None for cell in cells):
        return None

    def noise(key: Key, steps: int, batch_shape: tuple[int, ...]) -> Any:
        keys = jax.random.split(key, len(cells))
        return tuple(
            None if cell.noise is None else cell.noise(keys[i], steps, batch_shape)
            for i, cell in enumerate(cells)
        )

    return noise
