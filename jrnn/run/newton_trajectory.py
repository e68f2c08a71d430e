"""Newton's method with its report: what converged, after how many iterations."""

from typing import Any

from jaxtyping import Array, Bool, Integer, Num

from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_method
from jrnn.core.method import Method
from jrnn.methods.newton import newton
from jrnn.run.order import KEEP, Given, Reading
from jrnn.run.unroll import run_checked


def newton_trajectory(
    cell: Cell,
    params: Params,
    xs: Num[Array, "..."],
    state: State | None = None,
    *,
    guess: State | None = None,
    lengths: Integer[Array, "*batch"] | None = None,
    resets: Bool[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    reverse: bool = False,
    time_axis: int = 0,
    key: Key | None = None,
    method: Method | None = None,
) -> tuple[State, Any]:
    """Solves for the state after every step, and reports convergence.

    Args:
      cell: As in `jrnn.unroll`.
      params: As in `jrnn.unroll`.
      xs: As in `jrnn.unroll`.
      state: As in `jrnn.unroll`.
      guess: An initial trajectory, such as that of the parameters one training step
        ago: the closer, the fewer iterations. None: `state` at every step.
      lengths: As in `jrnn.trajectory`.
      resets: As in `jrnn.unroll`.
      mask: As in `jrnn.unroll`.
      reverse: As in `jrnn.trajectory`.
      time_axis: As in `jrnn.trajectory`; also of `guess`.
      key: As in `jrnn.unroll`.
      method: Made by `jrnn.newton`; None takes `jrnn.newton()`.

    Returns:
      The states, with leaves (T, *batch, ...), and `jrnn.run.NewtonInfo(converged,
      iterations, residual)`, for a stack or a bidirectional cell a tuple with one for
      each child. A sequence that did not converge is NaN, or with
      `jrnn.newton(fallback=True)` the result of a scan; the report is about the
      iterations in both cases.

    Raises:
      TypeError: As in `jrnn.unroll`.
      ValueError: As in `jrnn.unroll`, or `method` is not made by `jrnn.newton`.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.elman(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((50, 2, 3))
      >>> states, info = jrnn.run.newton_trajectory(cell, params, xs)
      >>> info.converged.tolist()
      [True, True]
    """
    method = newton() if method is None else method
    check_method(method)
    if method.run is not newton().run or method.truncation is not None:
        raise ValueError(
            f"Expected a method made by jrnn.newton(), got {method}; jrnn.trajectory "
            "takes any."
        )
    reading = Reading(cell, method, KEEP, reverse, time_axis)
    given = Given(params, xs, state, lengths, resets, mask, key, guess=guess)
    shown = run_checked(reading, given)[1]
    return shown.states, shown.report
