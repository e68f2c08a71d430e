"""Running a cell along a sequence: the public functions, and their checks.

Lengths, resets and masks are turned into flags `active` and `restart` here, and noise
is drawn; the rest is in `jrnn.run.order`.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, Num

from jrnn.core.arguments import check_switch
from jrnn.core.caches import jitted
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import (
    check_array,
    check_cell,
    check_guess,
    check_method,
    check_params,
    check_state,
    passed_before,
)
from jrnn.core.check_draws import check_key, typed
from jrnn.core.check_inputs import (
    check_elapsed,
    check_flags,
    check_ids,
    check_inputs,
    check_length_values,
    check_lengths,
    check_time_axis,
    known_inputs,
)
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.flags import active_steps, silence
from jrnn.core.integers import widen_integers
from jrnn.core.memoize import unguarded
from jrnn.core.mesh import align
from jrnn.core.method import Method, Sequence
from jrnn.core.seams import noise_of
from jrnn.methods.bptt import bptt
from jrnn.run.order import KEEP, SHOW, Given, Reading, Shown, walk


def unroll(
    cell: Cell,
    params: Params,
    xs: Num[Array, "..."],
    state: State | None = None,
    *,
    lengths: Integer[Array, "*batch"] | None = None,
    resets: Bool[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    reverse: bool = False,
    time_axis: int = 0,
    key: Key | None = None,
    method: Method | None = None,
) -> tuple[State, Array]:
    r"""Runs a cell along a sequence, and returns its final state and its outputs.

    .. math:: s_t, y_t = \mathrm{step}(\theta, s_{t-1}, x_t), \quad t = 1 \dots T

    Jitted, with `cell`, `method`, `reverse` and `time_axis` static: equal cells and
    methods trace once. Every method gives the same outputs and gradients, to rounding.

    Args:
      cell: The cell to run, made by a factory such as `jrnn.lstm`.
      params: Its parameters.
      xs: Inputs, time first: floats (T, *batch, input_size), or token ids (T, *batch).
        Batch-first inputs need `time_axis=1`.
      state: The initial state; None takes `cell.init_state`.
      lengths: The length of each sequence, 0..T, of the batch shape. Outputs past a
        length are 0, the final state is that after the sequence's own last step, and
        the padding has no effect, whatever its values. Clipped to 0..T under `jax.jit`.
      resets: True where a new segment begins: before that step is read, the state
        becomes `cell.init_state` (never the `state` argument), and no gradient crosses.
        In reverse a segment begins at the same step: the state is reset between that
        step and the one before it. Applies to masked steps too, but not past a length.
      mask: Where False, the step leaves the state unchanged, and the output is 0.
      reverse: Whether each sequence is read from its own last step to its first;
        `ys[t]` still belongs to `xs[t]`.
      time_axis: Which axis of inputs, outputs, resets and masks is time: 0, or 1 for
        data with a batch axis first, (B, T, *batch, input_size). States and lengths
        have no axis of time. The axes are swapped inside the compiled program.
      key: Draws the noise of dropout and zoneout, before the loop; None: evaluation
        without noise.
      method: How to run the cell; None takes `jrnn.bptt()`.

    Returns:
      The final state, with leaves (*batch, ...), and the outputs
      (T, *batch, output_size), laid out as `xs`, in its type (for token ids, in that
      of the parameters).
      A token id outside 0..input_size-1 gives NaN under `jax.jit`.

    Raises:
      TypeError: An argument has the wrong type: integers instead of floats, a method
        factory that was not called.
      ValueError: An argument has the wrong shape or structure, a concrete length or
        token id is out of range, or the sequence is empty.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.lstm(3, 4)
      >>> params = cell.init(jax.random.key(0))
      >>> state, ys = jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
      >>> state.c.shape, ys.shape
      ((2, 4), (7, 2, 4))
    """
    reading = Reading(cell, method, SHOW, reverse, time_axis)
    given = Given(params, xs, state, lengths, resets, mask, key)
    final, shown = run_checked(reading, given)
    return final, shown.ys


def trajectory(
    cell: Cell,
    params: Params,
    xs: Num[Array, "..."],
    state: State | None = None,
    *,
    lengths: Integer[Array, "*batch"] | None = None,
    resets: Bool[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    reverse: bool = False,
    time_axis: int = 0,
    key: Key | None = None,
    method: Method | None = None,
) -> State:
    """Runs a cell along a sequence, and returns the state after every step.

    Args:
      cell: As in `unroll`.
      params: As in `unroll`.
      xs: As in `unroll`.
      state: As in `unroll`.
      lengths: As in `unroll`; past a length the state stays the same.
      resets: As in `unroll`.
      mask: As in `unroll`.
      reverse: As in `unroll`; entry t is the state after `xs[t]` was read.
      time_axis: As in `unroll`; also of the states returned.
      key: As in `unroll`.
      method: As in `unroll`.

    Returns:
      The states, with leaves (T, *batch, ...).

    Raises:
      TypeError: As in `unroll`.
      ValueError: As in `unroll`.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.lstm(3, 4)
      >>> xs = jax.numpy.ones((7, 2, 3))
      >>> jrnn.trajectory(cell, cell.init(jax.random.key(0)), xs).c.shape
      (7, 2, 4)
    """
    reading = Reading(cell, method, KEEP, reverse, time_axis)
    given = Given(params, xs, state, lengths, resets, mask, key)
    return run_checked(reading, given)[1].states


def run_checked(reading: Reading, given: Given) -> tuple[State, Shown]:
    """Checks the arguments, and runs the cell."""
    cell, method, wanted, reverse, axis = reading
    check_cell(cell)
    method = chosen(method)
    if type(axis) is not int or not 0 <= axis <= 1:
        axis = check_time_axis(axis)
    reading = Reading(cell, method, wanted, check_switch("reverse", reverse), axis)
    arrays: dict[str, Any] = {"xs": check_array("xs", given.xs)}
    for name in ("lengths", "resets", "mask"):
        array = getattr(given, name)
        arrays[name] = None if array is None else check_array(name, array)
    given = given._replace(**arrays)
    seen = passed_before((cell, axis), given)
    if seen and given.lengths is not None:
        check_length_values(given.lengths, given.xs.shape[axis])
    if not seen:  # these checks include the values of lengths
        try:
            fitted = _check_static(cell, given, axis)
        except ValueError as error:
            raise _advised(error, cell, given, 1 - axis) from None
        if all(map(operator.is_, *map(jax.tree.leaves, (fitted, given)))):
            seen.append(True)
        given = fitted
    _check_values(cell, given, axis)
    if given.key is not None:
        given = given._replace(key=typed(given.key))
    return run(reading, given)


_BPTT = bptt()


def chosen(method: Any) -> Method:
    """Returns a method, `bptt()` for None; raises TypeError if it is not a method."""
    method = _BPTT if method is None else method
    check_method(method)
    return method


def _check_static(cell: Cell, given: Given, axis: int) -> Given:
    """Returns `given`, with real arrays in state and guess made complex if needed.

    Raises on a wrong structure, shape or type, which are all static.
    """
    check_params(cell, given.params)
    batch, steps = check_inputs(cell, given.xs, axis), given.xs.shape[axis]
    state, guess = given.state, given.guess
    if state is not None:
        state = check_state(cell, state, batch)
    if given.lengths is not None:
        check_lengths(given.lengths, steps, batch)
    check_flags("resets", given.resets, steps, batch, axis)
    check_flags("mask", given.mask, steps, batch, axis)
    check_key(given.key)
    if guess is not None:
        guess = check_guess(cell, guess, (*batch[:axis], steps, *batch[axis:]))
    return given._replace(state=state, guess=guess)


def _advised(error: ValueError, cell: Cell, given: Given, other: int) -> ValueError:
    """Returns the error, with a remedy if everything fits the other axis of time."""
    try:
        _check_static(cell, given, other)
    except (TypeError, ValueError):
        return error
    return ValueError(
        f"{error} With time_axis={other} all shapes fit: pass it if time is axis "
        f"{other} of xs."
    )


def _check_values(cell: Cell, given: Given, axis: int) -> None:
    """Raises on concrete inputs that are out of range."""
    integer = jnp.issubdtype(given.xs.dtype, jnp.integer)
    if integer or cell.elapsed is not None:
        flags = given.lengths, given.mask
        known = known_inputs(widen_integers(given.xs), *flags, axis)
        check_elapsed(cell, known)
        if integer and known is not None:
            check_ids("xs", known, cell.spec.input_size)


@jitted(("reading",))
def run(reading: Reading, given: Given) -> tuple[State, Shown]:
    """Runs a cell without checks: draws noise, and turns lengths into flags."""
    params, xs, state, lengths, resets, mask, key, noise, guess = given
    if reading.time_axis == 1:
        xs, resets, mask, guess = _swapped((xs, resets, mask, guess))
    cell, steps = reading.cell, xs.shape[0]
    features = jnp.issubdtype(xs.dtype, jnp.inexact)
    batch = xs.shape[1:-1] if features else xs.shape[1:]
    if lengths is not None:
        lengths = jnp.clip(widen_integers(lengths), 0, steps)
    active = active_steps(steps, lengths, mask)
    within = active_steps(steps, lengths, None)
    restart = resets if resets is None or within is None else resets & within
    dtype = state_dtype(params, xs)
    # The parameters were checked: against the `init` that is there now.
    start = unguarded(cell.init_state)(params, batch)
    initial = cast_state(start, dtype)
    state = initial if state is None else cast_state(state, dtype)
    noise = noise if key is None else noise_of(cell, key, steps, batch)
    xs, params, (state, initial), (active, restart, noise, guess) = align(
        xs, batch, params, (state, initial), (active, restart, noise, guess)
    )
    sequence = Sequence(
        xs=silence(active, xs),
        noise=noise,
        active=active,
        restart=restart,
        fresh=None if restart is None else initial,
        guess=guess,
    )
    state, shown = walk(reading, params, state, sequence, lengths)
    if reading.time_axis == 1:
        ys, states = _swapped((shown.ys, shown.states))
        shown = shown._replace(ys=ys, states=states)
    return state, shown


def _swapped(tree: Any) -> Any:
    """Swaps the axis of time and the first axis of the batch."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)
