r"""The code that all cells share: `factory` and `build`.

A cell's factory defines only the arrays of its parameters, the arrays of its state, and
its equations, or the seam from which they follow. The rest is derived here: equal
arguments give the identical cell, sizes are checked, the spec is taken from the call,
parameters are drawn, the state starts at 0, and

    step(params, s_{t-1}, x_t) = s_t, y_t
    u_t = project(params, x_t)             x_t W_x + b, unless it is given
    s_t = advance(params, s_{t-1}, u_t)    of `adjoint`, `gated`, `forward` or `linear`
    y_t = output(params, s_t, x_t)         the first array of s_t, unless it is given
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import annotated, check_kind, check_size, checked, tell
from jrnn.core.cell import (
    Adjoint,
    Cell,
    Gated,
    GateView,
    Key,
    Linear,
    Params,
    Saved,
    Spec,
    State,
    StepBound,
)
from jrnn.core.claims import LINEAR_BOUND, NO_GATES, claim, factor_view
from jrnn.core.dtypes import show
from jrnn.core.memoize import memoize
from jrnn.core.products import project_dense
from jrnn.core.reparametrise import reading
from jrnn.core.seams import (
    Forward,
    compose_step,
    dense_inputs,
    linear_advance,
    saving,
)

P = ParamSpec("P")


@checked
def factory(make: Callable[P, Cell]) -> Callable[P, Cell]:
    """Turns a function that returns `build(...)` into a factory of cells.

    Equal arguments, positional or by name, give the identical cell. Arguments are
    checked against their annotations, and those named `*_size` to be at least 1 or
    None. The spec is the function's name and its arguments, without those named
    `*_init`, which are irrelevant once parameters exist.

    Args:
      make: A function with an argument `input_size`.

    Returns:
      A function of the same arguments.

    Raises:
      TypeError: There is no `input_size`; at a call, an argument is not hashable, or
        does not match its annotation, or the function does not return a cell.

    Example:
      >>> import jrnn
      >>> jrnn.gru(3, 4)
      gru(input_size=3, hidden_size=4, reset_after=True, bias=True)
      >>> jrnn.gru(3, 4) is jrnn.gru(input_size=3, hidden_size=4)
      True
    """
    signature = annotated(make)
    if "input_size" not in signature.parameters or not hasattr(make, "__name__"):
        raise TypeError(
            "Expected make to be a function with an argument input_size, got "
            f"{getattr(make, '__name__', tell(make))}{signature}."
        )

    @memoize
    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Cell:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        for name, value in given.arguments.items():
            if name.endswith("_size") and value is not None:
                check_size(name, value)
        cell = make(*args, **kwargs)
        if not isinstance(cell, Cell):
            raise TypeError(
                f"Expected {make.__name__} to return a Cell, such as build(...) makes, "
                f"got {tell(cell)}."
            )
        size, place = given.arguments["input_size"], cell.elapsed
        if place is not None and not -size <= place < size:
            raise ValueError(
                f"Expected elapsed to be one of {size} input features, got {place}."
            )
        told = [(n, v) for n, v in given.arguments.items() if not n.endswith("_init")]
        spec = cell.spec._replace(
            name=make.__name__,
            arguments=tuple(told),
            input_size=given.arguments["input_size"],
        )
        return cell._replace(spec=spec)

    return made


@checked
def adjoint_of(
    forward: Forward,
    pullback: Callable[..., tuple[State, Any, Saved]],
    sums: Callable[..., dict[str, Array]],
) -> Adjoint:
    """Makes an `Adjoint` whose gradients are given by name.

    Args:
      forward: As `jrnn.cells.Adjoint.advance`.
      pullback: As `jrnn.cells.Adjoint.pullback`.
      sums: (states_tm1, states, saved, du, deltas) -> {name: gradient}, only for the
        parameters that `advance` reads, otherwise as `jrnn.cells.Adjoint.gradient`.
        Gradients of parameters that are None are dropped.
    """

    def gradient(params: Any, *steps: Any) -> Params:
        there = {n: W for n, W in params._asdict().items() if W is not None}
        found = sums(*steps).items()
        cast = {n: d.astype(there[n].dtype) for n, d in found if n in there}
        return jax.tree.map(jnp.zeros_like, params)._replace(**cast)

    return Adjoint(forward, pullback, gradient)


def dense(params: Any, x: Array) -> Array:
    """Returns u = x W_x + b, or W_x[x] + b for token ids: the default `project`."""
    return project_dense(params.W_x, params.b, x)


def first_array(params: Params, state: State, x: Array) -> Array:
    """Returns y = h, the first array of the state, cast to the type of the inputs."""
    return show(state[0], x, jax.tree.leaves(params)[0])


@checked
def build(
    init: Callable[..., Params],
    init_state: Callable[..., State],
    output_size: int,
    *,
    project: Callable[..., Any] = dense,
    advance: Callable[[Params, State, Any], State] | None = None,
    output: Callable[[Params, State, Any], Array] = first_array,
    forward: Forward | None = None,
    gated: Gated | None = None,
    adjoint: Adjoint | None = None,
    linear: Linear | None = None,
    gates: Mapping[str, tuple[float, float]] | None = None,
    opened: Callable[[State, Saved], Mapping[str, Array]] | None = None,
    bound: StepBound | None = None,
    prepare: Callable[[Params], Params] | None = None,
    noise: Callable[[Key, int, tuple[int, ...]], Any] | None = None,
    diagonal: bool = False,
    elapsed: int | None = None,
) -> Cell:
    """Makes a cell from its equations, inside a function decorated by `factory`.

    One of `advance`, `adjoint`, `gated`, `forward` and `linear` says how the state
    advances; if there are several, the first in this order gives `advance`.

    Args:
      init: (key, dtype=None) -> params, such as `drawn(...)`.
      init_state: (params, batch_shape=()) -> state, such as `initial(...)`.
      output_size: Size of the last axis of the output.
      project: (params, x) -> u; by default x W_x + b, for params with these fields.
      advance: (params, state, u) -> state.
      output: (params, state, x) -> y; by default the first array of the state.
      forward: (params, state, u) -> (state, {name: gate}), for a cell without its own
        backward pass.
      gated: The seam of one recurrent product and elementwise gates; `inputs` is
        filled in if `project` is the default.
      adjoint: The cell's own backward pass.
      linear: The coefficients of a cell that is linear in its state.
      gates: {name: (least, greatest)} of each gate, for statistics. Empty: no bounded
        values. None: not known; for a linear cell, the absolute value of its factor.
      opened: (state, saved) -> {name: gate}, from the results of `gated` or `adjoint`;
        None: the gates are fields of these.
      bound: A proven bound of the norm of the step's Jacobian; None: that of a linear
        cell, or none.
      prepare: Learned parameters -> the parameters that the functions above read;
        returns the latter unchanged.
      noise: As `jrnn.Cell.noise`; `project` then also takes the noise of its steps.
      diagonal: As `jrnn.Cell.diagonal`.
      elapsed: As `jrnn.Cell.elapsed`.

    Returns:
      A cell; `factory` completes its spec.

    Raises:
      TypeError: Nothing says how the state advances, or an argument does not match its
        annotation.
      ValueError: `output_size` is below 1.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.cells import build, factory
      >>> @factory
      ... def damped(input_size: int) -> jrnn.Cell:
      ...     plain = jrnn.elman(input_size, 4)
      ...     move = lambda params, state, u: plain.advance(params, state, u / 2)
      ...     return build(plain.init, plain.init_state, 4, advance=move)
      >>> damped(3)
      damped(input_size=3)
    """
    output_size = check_size("output_size", output_size)
    for name, ends in (gates or {}).items():
        check_kind(f"gates[{name!r}]", ends, tuple[float, float], classes=True)
    if gated is not None and project is dense and gated.inputs is None:
        gated = gated._replace(inputs=dense_inputs)
    forward = saving(gated, adjoint) or forward
    if advance is None:
        advance = _advance(forward, linear)
    if linear is not None and bound is None:
        bound = LINEAR_BOUND
    cell = Cell(
        init=init,
        init_state=init_state,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        spec=Spec("build", (), 0, output_size),
        gated=gated,
        adjoint=adjoint,
        linear=linear,
        diagonal=diagonal,
        shows_state=output is first_array,
        noise=noise,
        elapsed=elapsed,
    )
    forward = forward or (lambda params, state, u: (advance(params, state, u), ()))
    view = None if linear is None else factor_view(linear)
    view = view if gates is None else _view(gates, forward, opened or _fields)
    cell = claim(cell, gates=view, bound=bound)
    return cell if prepare is None else reading(cell, prepare, prepare=prepare)


def _advance(
    forward: Forward | None, linear: Linear | None
) -> Callable[[Params, State, Any], State]:
    if forward is not None:
        return lambda params, state, u: forward(params, state, u)[0]
    if linear is not None:
        return linear_advance(linear)
    raise TypeError(
        "Expected advance, gated, adjoint, forward or linear, got none of them; one "
        "has to say how the state advances."
    )


def _view(
    gates: Mapping[str, tuple[float, float]],
    forward: Forward,
    opened: Callable[[State, Saved], Mapping[str, Array]],
) -> GateView:
    """Returns a view of the gates of steps, for statistics."""
    if not gates:
        return NO_GATES

    def read(params: Params, states_tm1: State, us: Any) -> dict[str, Array]:
        found = opened(*forward(params, states_tm1, us))
        if not found.keys() >= gates.keys():
            raise ValueError(
                f"Expected the gates {', '.join(gates)} among the results of a step, "
                f"got {', '.join(found)}; name each gate like the field that holds it."
            )
        return {name: found[name] for name in gates}

    return GateView(tuple(gates.items()), read)


def _fields(state: State, saved: Saved) -> dict[str, Array]:
    """Returns the fields of the new state and of what the step saves, by name."""
    named = saved if isinstance(saved, dict) else getattr(saved, "_asdict", dict)()
    return {**state._asdict(), **named}
