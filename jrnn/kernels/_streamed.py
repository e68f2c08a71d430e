"""Kernels for GPUs that read the recurrent matrix at each step, tile by tile.

Values in a program's registers cannot be indexed, so the state passes from step to step
through cached memory: a step writes the tiles of its units, a barrier makes them
visible to all threads of the program, and the next step reads them.

Bytes: those of `_resident`, and the matrix once more for each step and block of rows,
from the second-level cache: gates * n^2 numbers, through one multiprocessor for each 16
rows. That limits the speed (docs/kernels.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.kernels import _gates as gates
from jrnn.kernels._pallas import Launch, barrier, launch
from jrnn.kernels._plan import Plan
from jrnn.kernels._resident import add_first, blocks, real_units, steps_here

WARPS, STAGES = 8, 2  # not measured


def forward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Runs forward; arguments and results as those of `_resident.forward`."""
    gated, restarts = plan.gated, inputs["rows"]["fresh"] is not None

    def body(ins: Any, outs: Any) -> None:
        timed, shown = ins["timed"], outs["timed"]
        W, b = ins["whole"]["W"], ins["whole"]["b"]
        dtype = inputs["timed"]["us"].dtype

        def before(t: Array, rows: gates.Rows, k: Array, first: bool) -> Any:
            """Tile k of the state that step t reads, or of its first field."""
            pick = (lambda tree: jax.tree.leaves(tree)[0]) if first else lambda x: x
            start = _tile(pick(ins["rows"]["start"]), plan, k)
            last = _tile(pick(shown["states"]), plan, k, jnp.maximum(t - 1, 0))
            fresh = _tile(pick(ins["rows"]["fresh"]), plan, k) if restarts else None
            state = gates.choose(jnp.full((1, 1), t == 0), start, last)
            return gates.begin(rows, fresh, state)

        def step(t: Array, nothing: Array) -> Array:
            rows = gates.unpack(_flags(timed["flags"], t), restarts)

            def one(j: Array, nothing: Array) -> Array:
                def add(k: Array, v: gates.Gates) -> gates.Gates:
                    h = before(t, rows, k, True)
                    return tuple(
                        v_g + gates.product(h, _square(W, plan, k, g, j), dtype)
                        for g, v_g in enumerate(v)
                    )

                v = _over_tiles(plan, add, _none(plan, dtype, gated.gates))
                if b is not None:
                    v = tuple(v_g + _gate(b, plan, g, j) for g, v_g in enumerate(v))
                u = tuple(_gate(timed["us"], plan, g, j, t) for g in range(gated.gates))
                state_tm1, real = (
                    before(t, rows, j, False),
                    _real(plan, j),
                )
                state, saved = gates.finish(gated, rows, real, state_tm1, u, v)
                _write(shown["states"], plan, j, state, t)
                if shown["saved"] is not None:
                    _write(shown["saved"], plan, j, saved, t)
                return nothing

            nothing = _over_tiles(plan, one, nothing)
            barrier(plan.target)
            return nothing

        jax.lax.fori_loop(jnp.int32(0), steps_here(plan, False), step, jnp.int32(0))

        def end(j: Array, nothing: Array) -> Array:
            last = _tile(shown["states"], plan, j, plan.steps - 1)
            _write(outs["rows"]["final"], plan, j, last)
            return nothing

        _over_tiles(plan, end, jnp.int32(0))

    how = Launch("jrnn_forward_streamed", plan.target, plan.grid, WARPS, STAGES)
    return launch(how, body, inputs, outputs, blocks(plan, reverse=False))


def backward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Runs backward; arguments and results as those of `_resident.backward`.

    Each step first computes all gates' gradients and, after a barrier, their product
    with the transposed matrix. The carry is stored in dstart.
    """
    gated, restarts = plan.gated, outputs["rows"]["dfresh"] is not None

    def body(ins: Any, outs: Any) -> None:
        timed, shown, W = ins["timed"], outs["timed"], ins["whole"]["W"]
        dstate, dfresh = outs["rows"]["dstart"], outs["rows"]["dfresh"]
        dv_read = shown["du"] if shown["dv"] is None else shown["dv"]
        count = steps_here(plan, True)

        def begin(j: Array, nothing: Array) -> Array:
            _write(dstate, plan, j, _tile(ins["rows"]["dfinal"], plan, j))
            if restarts:
                _write(dfresh, plan, j, gates.zeros(_tile(dfresh, plan, j)))
            return nothing

        def step(i: Array, nothing: Array) -> Array:
            t = count - 1 - i
            rows = gates.unpack(_flags(timed["flags"], t), restarts)

            def local(j: Array, nothing: Array) -> Array:
                seen = ("states_tm1", "states", "saved", "direct")
                state_tm1, state, saved, direct = (
                    _tile(timed[name], plan, j, t) for name in seen
                )
                later = jax.tree.map(jnp.add, _tile(dstate, plan, j), direct)
                earlier, du, dv = gates.pull(
                    gated,
                    rows,
                    _real(plan, j),
                    state_tm1,
                    state,
                    saved,
                    later,
                )
                for g in range(gated.gates):
                    _put(shown["du"], plan, g, j, t, du[g])
                    if shown["dv"] is not None:
                        _put(shown["dv"], plan, g, j, t, dv[g])
                _write(dstate, plan, j, earlier)
                return nothing

            def through(j: Array, nothing: Array) -> Array:
                def add(k: Array, dh: Array) -> Array:
                    for g in range(gated.gates):
                        dv = _gate(dv_read, plan, g, k, t)
                        square = _square(W, plan, j, g, k)
                        dh = dh + gates.product_t(dv, square, dh.dtype)
                    return dh

                (zeros,) = _none(plan, inputs["timed"]["direct"][0].dtype, 1)
                dh = _over_tiles(plan, add, zeros)
                earlier = add_first(_tile(dstate, plan, j), dh)
                earlier, ended = gates.end(rows, earlier)
                _write(dstate, plan, j, earlier)
                if ended is not None:
                    total = jax.tree.map(jnp.add, _tile(dfresh, plan, j), ended)
                    _write(dfresh, plan, j, total)
                return nothing

            nothing = _over_tiles(plan, local, nothing)
            barrier(plan.target)
            nothing = _over_tiles(plan, through, nothing)
            barrier(plan.target)
            return nothing

        nothing = _over_tiles(plan, begin, jnp.int32(0))
        barrier(plan.target)
        jax.lax.fori_loop(jnp.int32(0), count, step, nothing)

    how = Launch("jrnn_backward_streamed", plan.target, plan.grid, WARPS, STAGES)
    return launch(how, body, inputs, outputs, blocks(plan, reverse=True))


def _over_tiles(plan: Plan, body: Any, start: Any) -> Any:
    assert plan.tile is not None
    tiles = plan.units[1] // plan.tile
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(tiles), body, start)


def _none(plan: Plan, dtype: Any, count: int) -> tuple[Array, ...]:
    assert plan.tile is not None
    return (jnp.zeros((plan.block[1], plan.tile), dtype),) * count


def _real(plan: Plan, j: Array) -> Array | None:
    """Returns which units of tile j are not padding; None: no tile has padding."""
    assert plan.tile is not None
    return real_units(plan, j * plan.tile, plan.tile)


def _columns(plan: Plan, gate: int, j: Array) -> Any:
    """Returns the slice of tile j of a gate."""
    from jax.experimental import pallas as pl

    assert plan.tile is not None
    return pl.ds(gate * plan.units[1] + j * plan.tile, plan.tile)


def _tile(tree: Any, plan: Plan, j: Array, t: Any = None) -> Any:
    """Returns tile j of each leaf, at step t if leaves have a time axis."""
    place = (slice(None), _columns(plan, 0, j))
    return jax.tree.map(lambda ref: ref[place if t is None else (t, *place)], tree)


def _write(tree: Any, plan: Plan, j: Array, values: Any, t: Any = None) -> None:
    place = (slice(None), _columns(plan, 0, j))
    for ref, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        ref[place if t is None else (t, *place)] = value


def _gate(ref: Any, plan: Plan, gate: int, j: Array, t: Any = None) -> Array:
    """Returns tile j of a gate."""
    place = (slice(None), _columns(plan, gate, j))
    return ref[place if t is None else (t, *place)]


def _put(ref: Any, plan: Plan, gate: int, j: Array, t: Array, value: Array) -> None:
    ref[t, :, _columns(plan, gate, j)] = value


def _square(W: Any, plan: Plan, i: Array, gate: int, j: Array) -> Array:
    """Returns tile (i, j) of a gate's matrix."""
    return W[_columns(plan, 0, i), _columns(plan, gate, j)]


def _flags(ref: Any, t: Array) -> Any:
    return None if ref is None else ref[t]
