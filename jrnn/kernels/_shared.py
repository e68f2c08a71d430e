"""Kernels for GPUs in which several programs share the recurrent matrix.

In one launch many multiprocessors work on one block of rows: each holds the columns of
its own units for all steps, and what the others need of it goes through the
second-level cache at each step. There is no barrier. What is exchanged tells by itself
whether it has arrived, and is asked for until it has, so that a step waits for one
write and one read:

  - Forwards every program reads all of h_{t-1}, from an array that begins filled with
    the bits of a NaN that no program writes.
  - Backwards a program multiplies its own dv_t by its columns, and adds up what all
    programs found for its own units. These parts go through two slots by turns, and the
    last bit of each number tells whose turn it is (which costs up to one unit in the
    last place). A slot is written again once its writer has what every reader of it
    wrote one step later: by then all have read it.

All programs of a launch must run at the same time, so that there are no more of them
than the machine is said to run; those of one group take blocks of rows in turn where
there are more of these. If a program waited in vain nevertheless, it gives up for the
rest of the block, and NaN come out.

The products are transposed, v^T = W^T h^T, so that the units of 4 gates fill the 64
rows of a Hopper tensor core's product. Interpreted, steps come one after the other, and
in each step the programs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.kernels import _gates as gates
from jrnn.kernels._pallas import Launch, launch, like, power_of_two
from jrnn.kernels._plan import Plan
from jrnn.kernels._resident import add_first, real_units

WARPS = 4  # one group of warps that a tensor core's product takes
PATIENCE = 2**20  # how often a program asks for one thing: about a second


def forward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Walks along; arguments and results as those of `_resident.forward`."""
    from jax.experimental import pallas as pl

    gated, restarts = plan.gated, inputs["rows"]["fresh"] is not None
    flags, W = inputs["timed"]["flags"], inputs["whole"]["W"]
    start, fresh = inputs["rows"]["start"], inputs["rows"]["fresh"]
    # What each step reads of the first field, as integers; -1 has not arrived.
    first = gates.begin(
        gates.unpack(None if flags is None else flags[0], restarts), fresh, start
    )
    seen = _sendable(jax.tree.leaves(first)[0].astype(W.dtype))
    seen = jnp.pad(seen[None], [(0, plan.steps), (0, 0), (0, 0)], constant_values=-1)

    def body(ins: Any, outs: Any) -> None:
        timed, shown, seen = ins["timed"], outs["timed"], outs["exchange"]["seen"]
        p, dtype = _program(plan), inputs["timed"]["us"].dtype
        own, real = _units(plan, p), real_units(plan, p * plan.share, plan.share)
        b = _gates_at(plan, ins["whole"]["b"], p)
        pieces = _pieces(plan.units[1])
        held = [ins["whole"]["W"][p, :, pl.ds(k, n)] for k, n in pieces]

        def walk(block: Array, now: Array | None) -> None:
            rows = _rows_of(plan, block)
            fresh = _read(ins["rows"]["fresh"], rows, own)

            def step(t: Array, carry: Any) -> Any:
                state, patience = carry
                u = _gates_at(plan, timed["us"], p, t, rows)
                flags = gates.unpack(_flags(timed["flags"], t, rows), restarts)
                later = jnp.minimum(t + 1, plan.steps - 1)
                flags_tp1 = gates.unpack(_flags(timed["flags"], later, rows), restarts)
                reads = [seen.at[t, rows, pl.ds(k, n)] for k, n in pieces]
                h, patience = arrived(reads, lambda bits: bits == -1, patience)
                products = [
                    gates.product_t(W_k, _floats(h_k, W_k.dtype), dtype)
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
                seen[t + 1, rows, own] = _sendable(h.astype(held[0].dtype))
                _write(shown["states"], state, t, rows, own)
                if shown["saved"] is not None:
                    _write(shown["saved"], saved, t, rows, own)
                return state, patience

            final = outs["rows"]["final"]
            state = _read(ins["rows"]["start"], rows, own)
            if now is None:
                steps = jnp.int32(plan.steps)
                carry = state, jnp.int32(PATIENCE)
                state, _ = jax.lax.fori_loop(jnp.int32(0), steps, step, carry)
            else:
                last = _read(final, rows, own)
                state = gates.choose(jnp.full((1, 1), now == 0), state, last)
                state, _ = step(now, (state, jnp.int32(PATIENCE)))
            _write(final, state, rows, own)

        _each_block(plan, plan.steps, walk)

    inputs = {**inputs, "whole": {**inputs["whole"], "W": _columns(plan, W)}}
    inputs["exchange"] = {"seen": seen}
    outputs = {**outputs, "exchange": {"seen": like(*seen.shape, dtype=seen.dtype)}}
    results = _launch(plan, "jrnn_forward_shared", plan.steps, body, inputs, outputs)
    return {name: results[name] for name in ("timed", "rows")}


def backward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Walks back; arguments and results as those of `_resident.backward`.

    Turn i begins with what step T - i sent back through the matrix, and ends with step
    T - 1 - i; the last turn has no step.
    """
    from jax.experimental import pallas as pl

    gated, restarts = plan.gated, outputs["rows"]["dfresh"] is not None
    blocks, programs = _blocks(plan), plan.programs
    dtype = jax.tree.leaves(inputs["rows"]["dfinal"])[0].dtype
    slot = blocks, programs, programs, plan.block[1] * plan.share
    # Turn 0 finds 0, of its own parity; turn 1 has to wait for its own.
    parts = jnp.broadcast_to(jnp.arange(2).reshape(2, 1, 1, 1, 1), (2, *slot))
    parts = parts.astype(_integer(dtype))

    def body(ins: Any, outs: Any) -> None:
        timed, shown, parts = ins["timed"], outs["timed"], outs["exchange"]["parts"]
        p, kept = _program(plan), (outs["rows"]["dstart"], outs["rows"]["dfresh"])
        own, real = _units(plan, p), real_units(plan, p * plan.share, plan.share)
        held = [ins["whole"]["W"][p, pl.ds(k, n)] for k, n in _pieces(plan.units[1])]

        def walk(block: Array, now: Array | None) -> None:
            rows = _rows_of(plan, block)

            def receive(i: Array, carry: Any) -> Any:
                earlier, dfresh, patience = carry
                parity = (i >> 1) & 1
                of_all = [
                    parts.at[i & 1, block, p, pl.ds(k, n)] for k, n in _pieces(programs)
                ]
                missing = lambda bits: (bits & 1) != parity.astype(bits.dtype)
                found, patience = arrived(of_all, missing, patience)
                dh = [_floats(bits & ~1, dtype).sum(axis=0) for bits in found]
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
                through = _side_by_side(dv).astype(held[0].dtype)
                for (k, n), W_k in zip(_pieces(plan.units[1]), held, strict=True):
                    bits = _bits(gates.product_t(W_k, through, dtype))
                    bits = (bits & ~1) | parity.astype(bits.dtype)
                    each = n // plan.share
                    bits = bits.reshape(each, plan.share, -1).transpose(0, 2, 1)
                    place = pl.ds(k // plan.share, each)
                    parts[(i + 1) & 1, block, place, p] = bits.reshape(each, -1)
                for g in range(gated.gates):
                    shown["du"][t, rows, _units(plan, p, g)] = du[g]
                    if shown["dv"] is not None:
                        shown["dv"][t, rows, _units(plan, p, g)] = dv[g]
                return earlier, dfresh, patience

            carry = _read(ins["rows"]["dfinal"], rows, own)
            carry = carry, None if kept[1] is None else gates.zeros(carry)
            patience = jnp.int32(PATIENCE)
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
    inputs = {**inputs, "whole": {"W": _rows(plan, W)}, "exchange": {"parts": parts}}
    outputs = {**outputs, "exchange": {"parts": like(*parts.shape, dtype=parts.dtype)}}
    name, turns = "jrnn_backward_shared", plan.steps + 1
    results = _launch(plan, name, turns, body, inputs, outputs)
    return {name: results[name] for name in ("timed", "rows")}


def _launch(
    plan: Plan, name: str, turns: int, body: Any, inputs: dict, outputs: dict
) -> dict:
    """Launches groups of programs; interpreted, all blocks and turns one by one."""
    from jax.experimental import pallas as pl

    groups = _blocks(plan) * turns if plan.target.interpret else _groups(plan)
    how = Launch(name, plan.target, (groups * plan.programs,), WARPS)
    whole = lambda _, leaf: pl.BlockSpec(leaf.shape, lambda *_: (0,) * len(leaf.shape))
    return launch(how, body, inputs, outputs, whole, aliased="exchange")


def _blocks(plan: Plan) -> int:
    return plan.rows[1] // plan.block[1]


def _groups(plan: Plan) -> int:
    """Returns how many blocks of rows are walked along at the same time."""
    return min(_blocks(plan), max(plan.target.programs // plan.programs, 1))


def _program(plan: Plan) -> Array:
    """Returns which of the programs of a group this is."""
    from jax.experimental import pallas as pl

    return pl.program_id(0) % plan.programs


def _each_block(
    plan: Plan, turns: int, walk: Callable[[Array, Array | None], None]
) -> None:
    """Calls `walk(block, turn)` for this program's blocks; no turn: for all turns."""
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


def _pieces(size: int) -> list[tuple[int, int]]:
    """Returns (start, size) of parts whose sizes are powers of two."""
    pieces, start = [], 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            pieces.append((start, 2**bit))
            start += 2**bit
    return pieces


def _columns(plan: Plan, W: Array) -> Array:
    """Returns each program's columns as rows, gate by gate: (programs, g share, n)."""
    n, gate = plan.units[1], plan.gated.gates
    W = W.reshape(n, gate, plan.programs, plan.share).transpose(2, 1, 3, 0)
    W = jnp.pad(W, [(0, 0), (0, power_of_two(gate) - gate), (0, 0), (0, 0)])
    return W.reshape(plan.programs, -1, n)


def _rows(plan: Plan, W: Array) -> Array:
    """Returns each program's columns, unit by unit: (programs, n, share g)."""
    n, gate = plan.units[1], plan.gated.gates
    W = W.reshape(n, gate, plan.programs, plan.share).transpose(2, 0, 3, 1)
    W = jnp.pad(W, [(0, 0), (0, 0), (0, 0), (0, power_of_two(gate) - gate)])
    return W.reshape(plan.programs, n, -1)


def _side_by_side(parts: gates.Gates) -> Array:
    """Returns (rows, share g) of gates (rows, share), unit by unit as `_rows`."""
    if len(parts) == 1:
        return parts[0]
    parts = (
        *parts,
        *(jnp.zeros_like(parts[0]),) * (power_of_two(len(parts)) - len(parts)),
    )
    # The last axis has two entries at each level: what Triton can join.
    evens, odds = _side_by_side(parts[::2]), _side_by_side(parts[1::2])
    return jnp.stack([evens, odds], axis=-1).reshape(evens.shape[0], -1)


def _units(plan: Plan, p: Array, gate: int = 0) -> Any:
    """Returns where a program's units of a gate lie."""
    from jax.experimental import pallas as pl

    return pl.ds(gate * plan.units[1] + p * plan.share, plan.share)


def _gates_at(plan: Plan, ref: Any, p: Array, t: Any = None, rows: Any = None) -> Any:
    """Returns a program's units of every gate, of a step if there are steps."""
    if ref is None:
        return None
    place = (slice(None),) if t is None else (t, rows)
    return tuple(ref[(*place, _units(plan, p, g))] for g in range(plan.gated.gates))


def _flags(ref: Any, t: Array, rows: Any) -> Any:
    return None if ref is None else ref[t, rows]


def _read(tree: Any, *place: Any) -> Any:
    return jax.tree.map(lambda ref: ref[place], tree)


def _write(tree: Any, values: Any, *place: Any) -> None:
    for ref, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        ref[place] = value


def _integer(dtype: Any) -> Any:
    return {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}[jnp.dtype(dtype).itemsize]


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, _integer(x.dtype))


def _sendable(h: Array) -> Array:
    """Returns bits of h, another NaN for the one that stands for nothing."""
    bits = _bits(h)
    return jnp.where(bits == -1, bits ^ 1, bits)


def _floats(bits: Array, dtype: Any) -> Array:
    return jax.lax.bitcast_convert_type(bits, dtype)


def _volatile(ref: Any) -> Array:
    """Reads what other programs write: not from this multiprocessor's own cache."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    if hasattr(triton, "load"):
        return triton.load(ref, volatile=True)
    # In jax 0.7 alone; what newer ones call triton.load.
    load: Any = pallas.load  # pyright: ignore[reportAttributeAccessIssue]
    return load(ref, (slice(None),) * len(ref.shape), volatile=True)


def arrived(
    places: list[Any], missing: Callable[[Array], Array], patience: Array
) -> tuple[list[Array], Array]:
    """Reads again and again until nothing is missing.

    Args:
      places: References to what is read.
      missing: bits -> which have not arrived.
      patience: How often to ask; 1 once a program has given up.

    Returns:
      What was read, the bits of NaN if it gave up now or before, and the patience that
      is left for the next.
    """

    def again(carry: Any) -> Array:
        return carry[0] > 0

    def ask(carry: Any) -> Any:
        left, _ = carry
        values = [_volatile(place) for place in places]
        absent = [jnp.max(missing(value).astype(jnp.int32)) for value in values]
        absent = functools.reduce(jnp.bitwise_or, absent)
        return jnp.where(absent > 0, left - 1, jnp.int32(-1)), values

    nothing = [jnp.zeros(place.shape, place.dtype) for place in places]
    # All that the loop carries is read after it: Triton's passes want it so.
    left, values = jax.lax.while_loop(again, ask, (patience, nothing))
    gave_up = (left == 0) | (patience == 1)
    nan = jnp.where(gave_up, jnp.int32(-1), jnp.int32(0))
    values = [value | nan.astype(value.dtype) for value in values]
    return values, jnp.where(gave_up, jnp.int32(1), patience)
