"""The backward pass: lambda from the last step to the first, parameters per chunk.

The loop over steps contains only

    lambda_t = (direct dL/ds_t) + lambda_{t+1} J_{t+1}

and collects delta_t. After the steps of a chunk, one contraction gives its contribution
to each parameter's gradient, such as

    dL/dW_h = sum_t h_{t-1}^T delta_t.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Params, Saved, State
from jrnn.core.chunks import reshape_time, shift
from jrnn.core.dtypes import cast_state, split_floats, state_dtype
from jrnn.core.flags import renew, select, silence
from jrnn.core.layout import as_rows
from jrnn.core.method import Sequence, Shown, Size, Wanted, show_steps
from jrnn.core.seams import noisy_project
from jrnn.methods.bptt.adjoint import Backwards
from jrnn.methods.bptt.forward import Kept, Settings, keep_starts, keep_states

NOTHING = Wanted(ys=False, states=False)


class Sums(NamedTuple):
    """The carry of the backward pass, from the last chunk to the first."""

    dstate: State  # lambda
    dparams: Params  # sums over the later chunks
    dfresh: State | None  # gradient of `Sequence.fresh`


def gradients(
    settings: Settings,
    shape: tuple[Size, ...],
    params: Params,
    backwards: Backwards,
    kept: Any,
    sequence: Sequence,
    dshown: Shown | None,
    sums: Sums,
) -> tuple[Sums, Any]:
    """Runs backward through segments, or chunks, from the last to the first.

    Args:
      settings: Of the run.
      shape: (*segments, count, length) of the arrays below.
      params: Of the cell.
      backwards: Its backward pass.
      kept: `Kept` for chunks; for segments, the states before them.
      sequence: Cut to `shape`.
      dshown: The cotangent of what was shown, cut to `shape`; None: 0.
      sums: From the later steps.

    Returns:
      The sums including these steps, and dxs (*shape, ...) or None.
    """
    if len(shape) == 2:
        kept = _chunks_of(kept, shape)
    fresh, timed = sequence.fresh, sequence._replace(fresh=None)

    def before(sums: Sums, part: Any) -> tuple[Sums, Any]:
        kept, timed, dshown = part
        timed, inner = timed._replace(fresh=fresh), shape[1:]
        if len(shape) == 2:
            return _of_chunk(settings, params, backwards, kept, timed, dshown, sums)
        if len(shape) == 3:
            kept = keep_states(settings, params, kept, timed)[1]
        else:
            silent = settings._replace(wanted=NOTHING)
            kept = keep_starts(silent, inner, params, kept, timed)[1][0]
        given = params, backwards, kept, timed, dshown, sums
        return gradients(settings, inner, *given)

    return jax.lax.scan(before, sums, (kept, timed, dshown), reverse=True)


def _chunks_of(kept: Kept, shape: tuple[Size, ...]) -> Kept:
    """Reshapes residuals to (count, length, ...), and adds each chunk's start."""
    states, saved = reshape_time(kept[1:], 1, shape)
    last = jax.tree.map(lambda states: states[:, -1], states)
    return Kept(jax.tree.map(shift, kept.start, last), states, saved)


def _of_chunk(
    settings: Settings,
    params: Params,
    backwards: Backwards,
    kept: Kept,
    sequence: Sequence,
    dshown: Shown | None,
    sums: Sums,
) -> tuple[Sums, Any]:
    """Runs backward through one chunk: lambda by steps, then all gradients at once."""
    cell, (start, states, saved) = settings.cell, kept
    states_tm1 = jax.tree.map(shift, start, states)
    states_tm1 = renew(sequence.restart, sequence.fresh, states_tm1)
    floats, merge = split_floats(sequence.xs)
    floats = floats if settings.inputs else []
    place = merge if settings.inputs else lambda _: sequence.xs

    direct, of_output = None, []
    if dshown is not None:
        show = lambda floats, params, states: show_steps(
            cell, settings.wanted, params, states, place(floats)
        )
        *of_output, direct = jax.vjp(show, floats, params, states)[1](dshown)

    steps = states_tm1, states, saved, direct
    dstate, du, deltas, ended = _lambdas(backwards, steps, sequence, sums.dstate)
    du = backwards.complete(du, deltas)

    project = lambda floats, params: split_floats(
        noisy_project(cell.project, params, place(floats), sequence.noise)
    )[0]
    of_project = jax.vjp(project, floats, params)[1](jax.tree.leaves(du))
    of_advance = backwards.gradient(states_tm1, states, saved, du, deltas)
    dparams = _add_to(sums.dparams, of_project[1], of_advance, *of_output[1:])
    dfresh = sums.dfresh
    if ended is not None:
        dfresh = _add_to(dfresh, jax.tree.map(lambda a: a.sum(axis=0), ended))
    dxs = _add(of_project[0], of_output[0]) if of_output else of_project[0]
    return Sums(dstate, dparams, dfresh), dxs if settings.inputs else None


def _lambdas(
    backwards: Backwards, steps: Any, sequence: Sequence, dstate: State
) -> tuple[State, Any, Saved, State | None]:
    """Carries lambda from the last step of a chunk to before its first.

    Args:
      backwards: The cell's backward pass.
      steps: (states_tm1, states, saved, direct); `direct` is None if the loss reads no
        output or state of these steps.
      sequence: Of the chunk.
      dstate: lambda from the later steps.

    Returns:
      lambda for the earlier steps; du and deltas of each step; and the gradient that
      restarts cut off at each step, None without restarts.
    """
    rows, restore = as_rows(steps)

    def step(dstate_t: State, inputs: Any) -> tuple[State, Any]:
        row, active, restart = inputs
        state_tm1, state_t, saved, direct = restore(row)
        dstate_t = dstate_t if direct is None else _add(dstate_t, direct)
        dstate_tm1, du, deltas = backwards.pullback(state_tm1, state_t, saved, dstate_t)
        dstate_tm1 = select(active, dstate_tm1, dstate_t)
        ended = None if restart is None else silence(restart, dstate_tm1)
        dstate_tm1 = silence(None if restart is None else ~restart, dstate_tm1)
        return dstate_tm1, (*silence(active, (du, deltas)), ended)

    along = rows, sequence.active, sequence.restart
    dstate, left = jax.lax.scan(step, dstate, along, reverse=True)
    return dstate, *left


def zero_sums(dstate: State, params: Params, fresh: State | None) -> Sums:
    """Returns initial sums of 0, in the type of the state, the widest in use."""
    wide = cast_state((params, fresh), state_dtype(dstate))
    return Sums(dstate, *jax.tree.map(jnp.zeros_like, wide))


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _add_to(total: Any, *parts: Any) -> Any:
    """Returns total + sum(parts), in the type of the total."""

    def one(total: Array, *parts: Array) -> Array:
        return total + sum(part.astype(total.dtype) for part in parts)

    return jax.tree.map(one, total, *parts)
