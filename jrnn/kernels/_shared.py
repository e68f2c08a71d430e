"""Kernels for GPUs in which several programs share the recurrent matrix.

In one launch many multiprocessors work on one block of rows: each keeps the columns of
its own units for all steps, and exchanges values with the others through the
second-level cache at each step. There is no barrier. The exchanged values themselves
show whether they have arrived, and a program reads them until they have, so that a step
waits for one write and one read:

  - Forwards every program reads all of h_{t-1}, from an array that is initially filled
    with the bits of a NaN that no program writes.
  - Backwards a program multiplies its own dv_t by its columns, and adds up the results
    of all programs for its own units. These results go through two slots in
    alternation, and the last bit of each number marks the turn (which costs up to one
    unit in the last place). A program overwrites a slot only after it has received
    what every reader of the slot wrote one step later: by then all have read it.

All programs of a launch must run at the same time, so there are at most as many as the
target states; with more blocks of rows than groups of programs, each group takes
several blocks in turn. A program that waits too long gives up for the rest of the
block, and returns NaN.

The products are transposed, v^T = W^T h^T, so that the units of 4 gates fill the 64
rows of a Hopper tensor core's product. With `interpret` the steps run one after
another, and in each step the programs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.kernels import _exchange as exchange
from jrnn.kernels import _gates as gates
from jrnn.kernels import _shares as shares
from jrnn.kernels._pallas import Launch, launch, like
from jrnn.kernels._plan import Plan
from jrnn.kernels._resident import add_first, real_units

WARPS = 4  # one warp group, as a tensor core's product needs


def forward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Runs forward; arguments and results as those of `_resident.forward`."""
    from jax.experimental import pallas as pl

    gated, restarts = plan.gated, inputs["rows"]["fresh"] is not None
    flags, W = inputs["timed"]["flags"], inputs["whole"]["W"]
    start, fresh = inputs["rows"]["start"], inputs["rows"]["fresh"]
    # The first field that each step reads, as integers; -1: not arrived.
    first = gates.begin(
        gates.unpack(None if flags is None else flags[0], restarts), fresh, start
    )
    seen = exchange.sendable(jax.tree.leaves(first)[0].astype(W.dtype))
    seen = jnp.pad(seen[None], [(0, plan.steps), (0, 0), (0, 0)], constant_values=-1)

    def body(ins: Any, outs: Any) -> None:
        timed, shown, seen = ins["timed"], outs["timed"], outs["exchange"]["seen"]
        p, dtype = _program(plan), inputs["timed"]["us"].dtype
        own, real = shares.units(plan, p), real_units(plan, p * plan.share, plan.share)
        b = shares.gates_at(plan, ins["whole"]["b"], p)
        pieces = shares.pieces(plan.units[1])
        held = [ins["whole"]["W"][p, :, pl.ds(k, n)] for k, n in pieces]

        def walk(block: Array, now: Array | None) -> None:
            rows = _rows_of(plan, block)
            fresh = _read(ins["rows"]["fresh"], rows, own)

            def step(t: Array, carry: Any) -> Any:
                state, patience = carry
                u = shares.gates_at(plan, timed["us"], p, t, rows)
                flags = gates.unpack(_flags(timed["flags"], t, rows), restarts)
                later = jnp.minimum(t + 1, plan.steps - 1)
                flags_tp1 = gates.unpack(_flags(timed["flags"], later, rows), restarts)
                reads = [seen.at[t, rows, pl.ds(k, n)] for k, n in pieces]
                h, patience = exchange.arrived(reads, lambda bits: bits == -1, patience)
                products = [
                    gates.product_t(W_k, exchange.floats(h_k, W_k.dtype), dtype)
                    for W_k, h_k in zip(held, h, strict=True)
                ]
                v = functools.reduce(jnp.add, products)
                v = jax.lax.split(v, (plan.share,) * (v.shape[0] // plan.share))
                v = tuple(v_g.T for v_g in v[: gated.gates])
                if b is not None:
                    v = tuple(v_g + b_g for v_g, b_g in zip(v, b, strict=True))
                state_tm1 = gates.begin(flags, fresh, state)
                state, saved = gates.finish(gated, flags, real, state_tm1, u, v)
                h = jax.tree.leaves(gates.begin(flags_tp1, fresh, state))[0]
                seen[t + 1, rows, own] = exchange.sendable(h.astype(held[0].dtype))
                _write(shown["states"], state, t, rows, own)
                if shown["saved"] is not None:
                    _write(shown["saved"], saved, t, rows, own)
                return state, patience

            final = outs["rows"]["final"]
            state = _read(ins["rows"]["start"], rows, own)
            if now is None:
                steps = jnp.int32(plan.steps)
                carry = state, jnp.int32(exchange.PATIENCE)
                state, _ = jax.lax.fori_loop(jnp.int32(0), steps, step, carry)
            else:
                last = _read(final, rows, own)
                state = gates.choose(jnp.full((1, 1), now == 0), state, last)
                state, _ = step(now, (state, jnp.int32(exchange.PATIENCE)))
            _write(final, state, rows, own)

        _each_block(plan, plan.steps, walk)

    inputs = {**inputs, "whole": {**inputs["whole"], "W": shares.columns(plan, W)}}
    inputs["exchange"] = {"seen": seen}
    outputs = {**outputs, "exchange": {"seen": like(*seen.shape, dtype=seen.dtype)}}
    results = _launch(plan, "jrnn_forward_shared", plan.steps, body, inputs, outputs)
    return {name: results[name] for name in ("timed", "rows")}


def backward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Runs backward; arguments and results as those of `_resident.backward`.

    Turn i receives what step T - i sent back through the matrix, and then runs step
    T - 1 - i; the last turn has no step.
    """
    from jax.experimental import pallas as pl

    gated, restarts = plan.gated, outputs["rows"]["dfresh"] is not None
    blocks, programs = _blocks(plan), plan.programs
    dtype = jax.tree.leaves(inputs["rows"]["dfinal"])[0].dtype
    slot = blocks, programs, programs, plan.block[1] * plan.share
    # Turn 0 finds 0, which has its parity; turn 1 has to wait for its own.
    parts = jnp.broadcast_to(jnp.arange(2).reshape(2, 1, 1, 1, 1), (2, *slot))
    parts = parts.astype(exchange.integer(dtype))

    def body(ins: Any, outs: Any) -> None:
        timed, shown, parts = ins["timed"], outs["timed"], outs["exchange"]["parts"]
        p, kept = _program(plan), (outs["rows"]["dstart"], outs["rows"]["dfresh"])
        own, real = shares.units(plan, p), real_units(plan, p * plan.share, plan.share)
        held = [
            ins["whole"]["W"][p, pl.ds(k, n)] for k, n in shares.pieces(plan.units[1])
        ]

        def walk(block: Array, now: Array | None) -> None:
            rows = _rows_of(plan, block)

            def receive(i: Array, carry: Any) -> Any:
                earlier, dfresh, patience = carry
                parity = (i >> 1) & 1
                of_all = [
                    parts.at[i & 1, block, p, pl.ds(k, n)]
                    for k, n in shares.pieces(programs)
                ]
                missing = lambda bits: (bits & 1) != parity.astype(bits.dtype)
                found, patience = exchange.arrived(of_all, missing, patience)
                dh = [exchange.floats(bits & ~1, dtype).sum(axis=0) for bits in found]
                dh = functools.reduce(jnp.add, dh).reshape(plan.block[1], plan.share)
                earlier = add_first(earlier, dh)
                if not restarts:
                    return earlier, dfresh, patience
                t = jnp.minimum(plan.steps - i, plan.steps - 1)
                flags = gates.unpack(_flags(timed["flags"], t, rows), restarts)
                assert flags.restart is not None
                after = gates.Rows(restart=flags.restart & (i > 0))
                earlier, ended = gates.end(after, earlier)
                return earlier, jax.tree.map(jnp.add, dfresh, ended), patience

            def send(i: Array, carry: Any) -> Any:
                t = plan.steps - 1 - i
                flags = gates.unpack(_flags(timed["flags"], t, rows), restarts)
                names = ("states_tm1", "states", "saved", "direct")
                state_tm1, state, saved, direct = (
                    _read(timed[name], t, rows, own) for name in names
                )
                earlier, dfresh, patience = receive(i, carry)
                dstate = jax.tree.map(jnp.add, earlier, direct)
                earlier, du, dv = gates.pull(
                    gated, flags, real, state_tm1, state, saved, dstate
                )
                parity = ((i + 1) >> 1) & 1
                through = shares.side_by_side(dv).astype(held[0].dtype)
                for (k, n), W_k in zip(shares.pieces(plan.units[1]), held, strict=True):
                    bits = exchange.bits_of(gates.product_t(W_k, through, dtype))
                    bits = (bits & ~1) | parity.astype(bits.dtype)
                    each = n // plan.share
                    bits = bits.reshape(each, plan.share, -1).transpose(0, 2, 1)
                    place = pl.ds(k // plan.share, each)
                    parts[(i + 1) & 1, block, place, p] = bits.reshape(each, -1)
                for g in range(gated.gates):
                    shown["du"][t, rows, shares.units(plan, p, g)] = du[g]
                    if shown["dv"] is not None:
                        shown["dv"][t, rows, shares.units(plan, p, g)] = dv[g]
                return earlier, dfresh, patience

            carry = _read(ins["rows"]["dfinal"], rows, own)
            carry = carry, None if kept[1] is None else gates.zeros(carry)
            patience = jnp.int32(exchange.PATIENCE)
            if now is None:
                steps = jnp.int32(plan.steps)
                carry = *carry, patience
                carry = jax.lax.fori_loop(jnp.int32(0), steps, send, carry)
                _write(kept, receive(steps, carry)[:2], rows, own)
                return
            last = _read(kept, rows, own)
            carry = *gates.choose(jnp.full((1, 1), now == 0), carry, last), patience

            @pl.when(now < plan.steps)
            def _() -> None:
                _write(kept, send(now, carry)[:2], rows, own)

            @pl.when(now == plan.steps)
            def _() -> None:
                _write(kept, receive(now, carry)[:2], rows, own)

        _each_block(plan, plan.steps + 1, walk)

    W = inputs["whole"]["W"]
    inputs = {
        **inputs,
        "whole": {"W": shares.rows(plan, W)},
        "exchange": {"parts": parts},
    }
    outputs = {**outputs, "exchange": {"parts": like(*parts.shape, dtype=parts.dtype)}}
    name, turns = "jrnn_backward_shared", plan.steps + 1
    results = _launch(plan, name, turns, body, inputs, outputs)
    return {name: results[name] for name in ("timed", "rows")}


def _launch(
    plan: Plan, name: str, turns: int, body: Any, inputs: dict, outputs: dict
) -> dict:
    """Launches groups of programs; with `interpret`, all blocks and turns in order."""
    from jax.experimental import pallas as pl

    groups = _blocks(plan) * turns if plan.target.interpret else _groups(plan)
    how = Launch(name, plan.target, (groups * plan.programs,), WARPS)
    whole = lambda _, leaf: pl.BlockSpec(leaf.shape, lambda *_: (0,) * len(leaf.shape))
    return launch(how, body, inputs, outputs, whole, aliased="exchange")


def _blocks(plan: Plan) -> int:
    return plan.rows[1] // plan.block[1]


def _groups(plan: Plan) -> int:
    """Returns how many blocks of rows run at the same time."""
    return min(_blocks(plan), max(plan.target.programs // plan.programs, 1))


def _program(plan: Plan) -> Array:
    """Returns which of the programs of a group this is."""
    from jax.experimental import pallas as pl

    return pl.program_id(0) % plan.programs


def _each_block(
    plan: Plan, turns: int, walk: Callable[[Array, Array | None], None]
) -> None:
    """Calls `walk(block, turn)` for this program's blocks; turn None: all turns."""
    from jax.experimental import pallas as pl

    group = pl.program_id(0) // plan.programs
    blocks, groups = _blocks(plan), _groups(plan)
    if plan.target.interpret:
        walk(group // turns, group % turns)
    elif blocks == groups:
        walk(group, None)
    else:

        def one(j: Array, nothing: Array) -> Array:
            walk(group + j * groups, None)
            return nothing

        count = (blocks - group + groups - 1) // groups
        jax.lax.fori_loop(jnp.int32(0), count, one, jnp.int32(0))


def _rows_of(plan: Plan, block: Array) -> Any:
    from jax.experimental import pallas as pl

    return pl.ds(block * plan.block[1], plan.block[1])


def _flags(ref: Any, t: Array, rows: Any) -> Any:
    return None if ref is None else ref[t, rows]


def _read(tree: Any, *place: Any) -> Any:
    return jax.tree.map(lambda ref: ref[place], tree)


def _write(tree: Any, values: Any, *place: Any) -> None:
    for ref, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        ref[place] = value
