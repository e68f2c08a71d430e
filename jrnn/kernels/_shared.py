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

All programs of a block must run at the same time: `_plan` takes no more of them than
there are multiprocessors, they have consecutive numbers, and a GPU starts programs in
the order of these. If one waited in vain nevertheless, it gives up, and NaN come out.

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
from jrnn.kernels._resident import add_first

WARPS = 4  # one group of warps that a tensor core's product takes
PATIENCE = 2**20  # how often a program asks before it gives up: about a second


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
        p, rows, now = _place(plan, plan.steps)
        own = _units(plan, p)
        b = _gates(plan, ins["whole"]["b"], p)
        fresh, real = _read(ins["rows"]["fresh"], rows, own), _real(plan, p)
        held = [ins["whole"]["W"][p, :, pl.ds(k, n)] for k, n in _pieces(plan.units[1])]
        dtype = inputs["timed"]["us"].dtype

        def step(t: Array, state: Any) -> Any:
            u = _gates(plan, timed["us"], p, t, rows)
            flags = gates.unpack(_flags(timed["flags"], t, rows), restarts)
            later = jnp.minimum(t + 1, plan.steps - 1)
            later = gates.unpack(_flags(timed["flags"], later, rows), restarts)
            h = arrived(
                [
                    (lambda k=k, n=n: _volatile(seen.at[t, rows, pl.ds(k, n)]))
                    for k, n in _pieces(plan.units[1])
                ],
                lambda bits: bits == -1,
            )
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
            h = jax.tree.leaves(gates.begin(later, fresh, state))[0]
            seen[t + 1, rows, own] = _sendable(h.astype(held[0].dtype))
            _write(shown["states"], state, t, rows, own)
            if shown["saved"] is not None:
                _write(shown["saved"], saved, t, rows, own)
            return state

        final = outs["rows"]["final"]
        start = _read(ins["rows"]["start"], rows, own)
        if now is None:
            steps = jnp.int32(plan.steps)
            start = jax.lax.fori_loop(jnp.int32(0), steps, step, start)
        else:
            last = _read(final, rows, own)
            start = step(now, gates.choose(jnp.full((1, 1), now == 0), start, last))
        _write(final, start, rows, own)

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
    blocks, programs = plan.rows[1] // plan.block[1], plan.programs
    dtype = jax.tree.leaves(inputs["rows"]["dfinal"])[0].dtype
    slot = blocks, programs, programs, plan.block[1] * plan.share
    # Turn 0 finds 0, of its own parity; turn 1 has to wait for its own.
    parts = jnp.broadcast_to(jnp.arange(2).reshape(2, 1, 1, 1, 1), (2, *slot))
    parts = parts.astype(_integer(dtype))

    def body(ins: Any, outs: Any) -> None:
        timed, shown, parts = ins["timed"], outs["timed"], outs["exchange"]["parts"]
        p, rows, now = _place(plan, plan.steps + 1)
        block, own, real = _block(plan, plan.steps + 1), _units(plan, p), _real(plan, p)
        kept = outs["rows"]["dstart"], outs["rows"]["dfresh"]
        held = [ins["whole"]["W"][p, pl.ds(k, n)] for k, n in _pieces(plan.units[1])]

        def receive(i: Array, carry: Any) -> Any:
            earlier, dfresh = carry
            turn = (i >> 1) & 1
            found = arrived(
                [
                    (lambda k=k, n=n: _volatile(parts.at[i & 1, block, p, pl.ds(k, n)]))
                    for k, n in _pieces(programs)
                ],
                lambda bits: (bits & 1) != turn.astype(bits.dtype),
            )
            dh = [_floats(bits & ~1, dtype).sum(axis=0) for bits in found]
            dh = functools.reduce(jnp.add, dh).reshape(plan.block[1], plan.share)
            earlier = add_first(earlier, dh)
            if not restarts:
                return earlier, dfresh
            later = jnp.minimum(plan.steps - i, plan.steps - 1)
            flags = gates.unpack(_flags(timed["flags"], later, rows), restarts)
            assert flags.restart is not None
            ended_later = gates.Rows(restart=flags.restart & (i > 0))
            earlier, ended = gates.end(ended_later, earlier)
            return earlier, jax.tree.map(jnp.add, dfresh, ended)

        def send(i: Array, carry: Any) -> Any:
            t = plan.steps - 1 - i
            flags = gates.unpack(_flags(timed["flags"], t, rows), restarts)
            names = ("states_tm1", "states", "saved", "direct")
            state_tm1, state, saved, direct = (
                _read(timed[name], t, rows, own) for name in names
            )
            earlier, dfresh = receive(i, carry)
            dstate = jax.tree.map(jnp.add, earlier, direct)
            earlier, du, dv = gates.pull(
                gated, flags, real, state_tm1, state, saved, dstate
            )
            turn = ((i + 1) >> 1) & 1
            through = _side_by_side(dv).astype(held[0].dtype)
            for (k, n), W_k in zip(_pieces(plan.units[1]), held, strict=True):
                bits = _bits(gates.product_t(W_k, through, dtype))
                bits = (bits & ~1) | turn.astype(bits.dtype)
                bits = bits.reshape(n // plan.share, plan.share, -1).transpose(0, 2, 1)
                place = pl.ds(k // plan.share, n // plan.share)
                bits = bits.reshape(n // plan.share, -1)
                parts[(i + 1) & 1, block, place, p] = bits
            for g in range(gated.gates):
                shown["du"][t, rows, _units(plan, p, g)] = du[g]
                if shown["dv"] is not None:
                    shown["dv"][t, rows, _units(plan, p, g)] = dv[g]
            return earlier, dfresh

        carry = _read(ins["rows"]["dfinal"], rows, own)
        carry = carry, None if kept[1] is None else gates.zeros(carry)
        if now is None:
            steps = jnp.int32(plan.steps)
            carry = jax.lax.fori_loop(jnp.int32(0), steps, send, carry)
            _write(kept, receive(steps, carry), rows, own)
        else:
            last = _read(kept, rows, own)
            carry = gates.choose(jnp.full((1, 1), now == 0), carry, last)

            @pl.when(now < plan.steps)
            def _() -> None:
                _write(kept, send(now, carry), rows, own)

            @pl.when(now == plan.steps)
            def _() -> None:
                _write(kept, receive(now, carry), rows, own)

    W = inputs["whole"]["W"]
    inputs = {**inputs, "whole": {"W": _rows(plan, W)}, "exchange": {"parts": parts}}
    outputs = {**outputs, "exchange": {"parts": like(*parts.shape, dtype=parts.dtype)}}
    name, turns = "jrnn_backward_shared", plan.steps + 1
    results = _launch(plan, name, turns, body, inputs, outputs)
    return {name: results[name] for name in ("timed", "rows")}


def _launch(
    plan: Plan, name: str, turns: int, body: Any, inputs: dict, outputs: dict
) -> dict:
    """Launches the programs of all blocks of rows, interpreted once for each turn."""
    from jax.experimental import pallas as pl

    programs = plan.programs * plan.rows[1] // plan.block[1]
    grid = programs * (turns if plan.target.interpret else 1)
    how = Launch(name, plan.target, (grid,), WARPS)
    whole = lambda _, leaf: pl.BlockSpec(leaf.shape, lambda *_: (0,) * len(leaf.shape))
    return launch(how, body, inputs, outputs, whole, aliased="exchange")


def _place(plan: Plan, turns: int) -> tuple[Array, Any, Array | None]:
    """Returns which program this is, its rows, and if interpreted which turn it is."""
    from jax.experimental import pallas as pl

    index = pl.program_id(0)
    p, rows = index % plan.programs, plan.block[1]
    rows = pl.ds(_block(plan, turns) * rows, rows)
    now = (index // plan.programs) % turns if plan.target.interpret else None
    return p, rows, now


def _block(plan: Plan, turns: int) -> Array:
    """Returns which block of rows this program has."""
    from jax.experimental import pallas as pl

    each = plan.programs * (turns if plan.target.interpret else 1)
    return pl.program_id(0) // each


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


def _real(plan: Plan, p: Array) -> Array | None:
    """Returns which units of a program are no padding; None: all."""
    size, units = plan.units
    if size == units:
        return None
    places = jax.lax.broadcasted_iota(jnp.int32, (1, plan.share), 1)
    return places + p * plan.share < size


def _gates(plan: Plan, ref: Any, p: Array, t: Any = None, rows: Any = None) -> Any:
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
    from jax.experimental.pallas import triton

    return triton.load(ref, volatile=True)


def arrived(
    read: list[Callable[[], Array]], missing: Callable[[Array], Array]
) -> list[Array]:
    """Reads again and again until nothing is missing; returns what was read."""

    def again(carry: Any) -> Array:
        return carry[0] > 0

    def ask(carry: Any) -> Any:
        left, _ = carry
        values = [one() for one in read]
        absent = [jnp.max(missing(value).astype(jnp.int32)) for value in values]
        absent = functools.reduce(jnp.bitwise_or, absent)
        return jnp.where(absent > 0, left - 1, jnp.int32(-1)), values

    shapes = jax.eval_shape(lambda: [one() for one in read])
    nothing = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in shapes]
    # All that the loop carries is read after it: Triton's passes want it so.
    left, values = jax.lax.while_loop(again, ask, (jnp.int32(PATIENCE), nothing))
    return [value | ~left.astype(value.dtype) for value in values]
