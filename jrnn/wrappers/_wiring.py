"""The code that wrappers share: specs, checks, noise, claims, and composed steps.

There are three kinds of wrappers:

- `several`, `around`: their cells are run in their place (`Cell.children`), each along
  the whole sequence by any method, so that their products with W_x stay large;
- `inside`: they change the loop of one cell, and are run themselves;
- `jrnn.core.reparametrise`: they change the parameters of a cell.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_kind
from jrnn.core.cell import Cell, Children, Key, Linear, Params, Spec, State
from jrnn.core.check import check_cell, expected_state
from jrnn.core.claims import NO_GATES, claim, current, inherited
from jrnn.core.memoize import guarded
from jrnn.core.seams import compose_step, noise_of, noisy_project, prepared
from jrnn.core.tree import Leaf, reads_ahead, runs_itself, walk

Noise = Callable[[Key, int, tuple[int, ...]], Any]


def several(
    name: str,
    children: Children,
    output_size: int,
    elapsed: int | None,
    **arguments: Any,
) -> Cell:
    """Returns a cell whose params, state and noise are tuples, one entry for each cell.

    Args:
      name: The factory's name; the cells are its arguments.
      children: Its children, nested.
      output_size: The number of its output features.
      elapsed: The index of the input feature that is elapsed time, or None.
      **arguments: The factory's arguments besides the cells.
    """
    cells = children.cells

    def init(key: Key, dtype: DTypeLike | None = None) -> Params:
        keys = jax.random.split(key, len(cells))
        return tuple(cell.init(keys[i], dtype) for i, cell in enumerate(cells))

    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        pairs = zip(cells, params, strict=True)
        return tuple(cell.init_state(own, batch_shape) for cell, own in pairs)

    def noise(key: Key, steps: int, batch_shape: tuple[int, ...]) -> Any:
        keys = jax.random.split(key, len(cells))
        pairs = enumerate(cells)
        return tuple(noise_of(cell, keys[i], steps, batch_shape) for i, cell in pairs)

    def prepare(params: Params) -> Params:
        return tuple(map(prepared, cells, params))

    refuse = _refuse(name, cells)
    told = tuple((f"cell_{i}", cell) for i, cell in enumerate(cells))
    told = (*told, *arguments.items())
    made = Cell(
        init=init,
        init_state=init_state,
        project=refuse,
        advance=refuse,
        output=refuse,
        step=refuse,
        spec=Spec(name, told, cells[0].spec.input_size, output_size),
        noise=noise if any(cell.noise for cell in cells) else None,
        prepare=prepare if any(cell.prepare for cell in cells) else None,
        children=children,
        elapsed=elapsed,
    )
    made = made if reads_ahead(made) else _stepping(made)
    return claim(made, gates=NO_GATES)  # only its children have gates


def _refuse(name: str, cells: tuple[Cell, ...]) -> Any:
    def refuse(*arguments: Any, **keywords: Any) -> NoReturn:
        del arguments, keywords
        raise ValueError(
            f"Expected a cell that reads forwards alone, got {name}"
            f"({', '.join(map(repr, cells))}), which has no single step, because its "
            "outputs depend on later inputs; run it with jrnn.unroll."
        )

    return refuse


def _stepping(cell: Cell) -> Cell:
    """Returns a cell with children whose `step` runs their steps in order."""
    step = _step_of(cell)
    return cell._replace(
        project=lambda params, x, noise=None: (x, noise),  # noqa: ARG005 children do
        advance=lambda params, state, u: step(params, state, *u)[0],
        output=_output_of(cell),
        step=step,
    )


def _step_of(cell: Cell) -> Callable[..., tuple[State, Array]]:
    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        def visit(leaf: Leaf, x: Any, noise: Any) -> tuple[Array, State]:
            own = leaf.share(params), leaf.share(state)
            moved, y = leaf.cell.step(*own, x, noise)
            return y, moved

        y, state = walk(cell, visit, x, noise)
        return state, y

    return step


def _output_of(cell: Cell) -> Callable[[Params, State, Any], Array]:
    def output(params: Params, state: State, x: Any) -> Array:
        def visit(leaf: Leaf, x: Any, noise: None) -> tuple[Array]:
            del noise
            return (leaf.cell.output(leaf.share(params), leaf.share(state), x),)

        return walk(cell, visit, x)[0]

    return output


def around(
    name: str,
    cell: Cell,
    *,
    inputs: Callable[[Array, Any], tuple[Array, Any]] | None = None,
    outputs: Callable[[Array, Array], Array] | None = None,
    noise: Noise | None = None,
    **arguments: Any,
) -> Cell:
    """Returns a cell that differs from `cell` only in its inputs and outputs.

    `cell` is run in its place, by any method, with its params and state. Memoise the
    factory that calls this (`functools.cache`), and let the functions close over no
    array: equal arguments then give the identical cell, and nothing is compiled twice.

    Args:
      name: The name of the result in summaries.
      cell: Any cell.
      inputs: (x, noise) -> (x, noise): the input and the noise of `cell`, called if
        there is noise; for any leading axes. None: both unchanged.
      outputs: (y, x) -> y: the output, from the output of `cell` and the input of the
        result; for any leading axes. None: the output of `cell`. At inactive steps the
        output is 0, whatever it returns.
      noise: (key, steps, batch_shape) -> noise, for `inputs`; None: that of `cell`.
      **arguments: Further arguments to show in summaries.

    Raises:
      TypeError: `cell` is not a cell, or `inputs`, `outputs` or `noise` not a function.

    Example:
      >>> import jax, jrnn
      >>> double = lambda y, x: 2 * y
      >>> cell = jrnn.wrappers.around("double", jrnn.gru(3, 4), outputs=double)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((7, 3))
      >>> jrnn.unroll(cell, params, xs)[1].shape
      (7, 4)
    """
    check_kind("name", name, str)
    check_cell(cell)
    functions = {"inputs": inputs, "outputs": outputs, "noise": noise}
    for own, function in functions.items():
        check_kind(own, function, Callable | None)

    def project(params: Params, x: Any, drawn: Any = None) -> Any:
        if inputs is not None and drawn is not None:
            x, drawn = inputs(x, drawn)
        return noisy_project(cell.project, params, x, drawn)

    made = cell._replace(
        project=project,
        spec=spec_around(name, cell, **arguments),
        gated=None,
        adjoint=None,
        linear=None,
        noise=cell.noise if noise is None else noise,
        children=Children((cell,), inputs=inputs, outputs=outputs),
        shows_state=False,
        made=None,
    )
    if not reads_ahead(cell):
        made = made._replace(step=_step_of(made), output=_output_of(made))
    return guarded(claim(made, **inherited(cell)))


def inside(
    name: str,
    cell: Cell,
    noise: Noise,
    advance: Callable[[Params, State, Any, Any], State],
    linear: Linear | None = None,
    **arguments: Any,
) -> Cell:
    """Returns a cell that differs from `cell` only in its loop.

    Args:
      name: The factory's name.
      cell: A cell without children.
      noise: (key, steps, batch_shape) -> (the wrapper's noise, the noise of `cell`).
      advance: (params, state, u, kept) -> state, with u the result of `cell.project`,
        and `kept` the wrapper's noise, or None.
      linear: The linear seam of the result, if it is linear in the state.
      **arguments: The factory's arguments besides the cell.
    """

    def project(params: Params, x: Array, noise: Any = None) -> Any:
        kept, inner = (None, None) if noise is None else noise
        return noisy_project(cell.project, params, x, inner), kept

    def advance_noisy(params: Params, state: State, u: Any) -> State:
        return advance(params, state, *u)

    made = cell._replace(
        project=project,
        advance=advance_noisy,
        step=compose_step(project, advance_noisy, cell.output),
        spec=spec_around(name, cell, **arguments),
        gated=None,
        adjoint=None,
        linear=linear,
        noise=noise,
        made=None,
    )
    return claim(made, **inherited(cell, us=lambda u: u[0]))


def spec_around(name: str, cell: Cell, **arguments: Any) -> Spec:
    """Returns the spec of a wrapper: the factory's name and its arguments."""
    pairs = (("cell", cell), *arguments.items())
    return cell.spec._replace(name=name, arguments=pairs)


def check_inner(name: str, cell: Any) -> Cell:
    """Returns a cell without children, and without seams that are out of date.

    Raises:
      TypeError: It is not a cell.
      ValueError: It has children, or no state.
    """
    check_cell(cell)
    cell = current(cell)
    if not runs_itself(cell):
        raise ValueError(
            f"Expected a cell that runs as one, because {name} changes its loop, got "
            f"{cell}; put {name} around the cells inside."
        )
    if not jax.tree.leaves(expected_state(cell)):
        raise ValueError(
            f"Expected a cell with a state, because {name} changes its loop, got "
            f"{cell}, in which nothing recurs."
        )
    return cell
