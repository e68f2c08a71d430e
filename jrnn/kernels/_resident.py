"""Kernels that keep the recurrent matrix on chip: for TPUs, and GPUs if it is small.

A program runs a block of rows through all steps. On a TPU the steps come in blocks, one
after another, and the state stays in vector memory between them, in an output block
that all of them share; on a GPU all steps are one block.

Bytes of a forward pass: u, every state and everything saved once; the matrix once for
each block of rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.kernels import _gates as gates
from jrnn.kernels._pallas import Launch, launch
from jrnn.kernels._plan import Plan


def forward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Runs forward.

    Args:
      plan: The plan.
      inputs: `whole`: W (n, gates * n) and b (1, gates * n) or None; `timed`: us and
        flags or None; `rows`: start, and fresh or None.
      outputs: `timed`: states, and saved or None; `rows`: final.

    Returns:
      As `outputs`.
    """
    gated, restarts = plan.gated, inputs["rows"]["fresh"] is not None

    def body(ins: Any, outs: Any) -> None:
        timed, shown = ins["timed"], outs["timed"]
        fresh, matrix = read(ins["rows"]["fresh"]), _matrix(plan, ins["whole"]["W"])
        b, real = _bias(plan, ins["whole"]["b"]), real_units(plan)
        dtype = inputs["timed"]["us"].dtype

        def step(t: Array, state: Any) -> Any:
            rows = gates.unpack(at(timed["flags"], t), restarts)
            state_tm1 = gates.begin(rows, fresh, state)
            v = tuple(
                gates.product(state_tm1[0], matrix(g), dtype)
                for g in range(gated.gates)
            )
            if b is not None:
                v = tuple(v_g + b_g for v_g, b_g in zip(v, b, strict=True))
            u = tuple(timed["us"][t, :, columns(plan, g)] for g in range(gated.gates))
            state, saved = gates.finish(gated, rows, real, state_tm1, u, v)
            write(shown["states"], t, state)
            if shown["saved"] is not None:
                write(shown["saved"], t, saved)
            return state

        start = lambda: read(ins["rows"]["start"])
        start = carried(plan, start, outs["rows"]["final"])
        final = jax.lax.fori_loop(jnp.int32(0), steps_here(plan, False), step, start)
        put(outs["rows"]["final"], final)

    how = Launch("jrnn_forward", plan.target, plan.grid)
    return launch(how, body, inputs, outputs, blocks(plan, reverse=False))


def backward(plan: Plan, inputs: dict, outputs: dict) -> dict:
    """Runs backward.

    Args:
      plan: The plan.
      inputs: `whole`: W; `timed`: flags or None, states_tm1, states, saved, and
        direct, the gradient of each state except through later states; `rows`: dfinal.
      outputs: `timed`: du, and dv or None if both are the same; `rows`: dstart, and
        dfresh or None.

    Returns:
      As `outputs`.
    """
    gated, restarts = plan.gated, outputs["rows"]["dfresh"] is not None

    def body(ins: Any, outs: Any) -> None:
        timed, shown = ins["timed"], outs["timed"]
        matrix, real = _matrix(plan, ins["whole"]["W"]), real_units(plan)
        count = steps_here(plan, True)

        def step(i: Array, carry: Any) -> Any:
            t = count - 1 - i
            dstate, dfresh = carry
            rows = gates.unpack(at(timed["flags"], t), restarts)
            seen = ("states_tm1", "states", "saved", "direct")
            state_tm1, state, saved, direct = (at(timed[name], t) for name in seen)
            dstate = jax.tree.map(jnp.add, dstate, direct)
            dstate, du, dv = gates.pull(
                gated, rows, real, state_tm1, state, saved, dstate
            )
            for g in range(gated.gates):
                shown["du"][t, :, columns(plan, g)] = du[g]
                if shown["dv"] is not None:
                    shown["dv"][t, :, columns(plan, g)] = dv[g]
                through = gates.product_t(dv[g], matrix(g), dv[g].dtype)
                dstate = add_first(dstate, through)
            dstate, ended = gates.end(rows, dstate)
            if ended is not None:
                dfresh = jax.tree.map(jnp.add, dfresh, ended)
            return dstate, dfresh

        kept = outs["rows"]["dstart"], outs["rows"]["dfresh"]
        start = lambda: (read(ins["rows"]["dfinal"]), gates.zeros(kept[1]))
        start = carried(plan, start, kept)
        put(kept, jax.lax.fori_loop(jnp.int32(0), count, step, start))

    how = Launch("jrnn_backward", plan.target, plan.grid)
    return launch(how, body, inputs, outputs, blocks(plan, reverse=True))


def blocks(plan: Plan, reverse: bool) -> Any:
    """Returns (kind, array) -> its `BlockSpec`."""
    from jax.experimental import pallas as pl

    (steps, rows), last = plan.block, plan.blocks - 1

    def block(kind: str, leaf: Any) -> Any:
        if kind == "whole":
            return pl.BlockSpec(leaf.shape, lambda *_: (0, 0))
        if kind == "rows":
            return pl.BlockSpec((rows, leaf.shape[1]), lambda i, _: (i, 0))
        order = (lambda i, k: (last - k, i, 0)) if reverse else lambda i, k: (k, i, 0)
        return pl.BlockSpec((steps, rows, leaf.shape[2]), order)

    return block


def carried(plan: Plan, start: Callable[[], Any], kept: Any) -> Any:
    """Returns the initial carry: `start()`, or what the previous block left."""
    if plan.blocks == 1:
        return start()
    from jax.experimental import pallas as pl

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        put(kept, start())

    return read(kept)


def steps_here(plan: Plan, reverse: bool) -> Array:
    """Returns the number of steps of this block; the last may have fewer."""
    if plan.blocks == 1:
        return jnp.int32(plan.steps)
    from jax.experimental import pallas as pl

    k = pl.program_id(1)
    k = plan.blocks - 1 - k if reverse else k
    return jnp.minimum(plan.block[0], plan.steps - k * plan.block[0])


def _matrix(plan: Plan, W: Any) -> Any:
    """Returns gate -> W_g: a value on a GPU, read from vector memory on a TPU."""
    if plan.target.platform == "cuda":
        held = [W[:, columns(plan, g)] for g in range(plan.gated.gates)]
        return lambda g: held[g]
    return lambda g: W[:, columns(plan, g)]


def _bias(plan: Plan, b: Any) -> list[Array] | None:
    """Returns the bias of each gate, (1, units)."""
    if b is None:
        return None
    return [b[:, columns(plan, g)] for g in range(plan.gated.gates)]


def columns(plan: Plan, gate: int) -> slice:
    """Returns the slice of a gate's units."""
    units = plan.units[1]
    return slice(gate * units, (gate + 1) * units)


def real_units(plan: Plan, start: Array | int = 0, count: int = 0) -> Array | None:
    """Returns which of `count` units from `start` are not padding, (1, count).

    Without a count: of all units. None if no unit of the plan is padding.
    """
    size, units = plan.units
    if size == units:
        return None
    places = jax.lax.broadcasted_iota(jnp.int32, (1, count or units), 1)
    return places + start < size


def add_first(state: Any, h: Array) -> Any:
    """Adds `h` to the first field, which the product reads."""
    (first, *rest), like = jax.tree.flatten(state)
    return jax.tree.unflatten(like, [first + h, *rest])


def read(tree: Any) -> Any:
    """Returns the values of references."""
    return jax.tree.map(lambda ref: ref[...], tree)


def put(tree: Any, values: Any) -> None:
    """Writes values to references."""
    for ref, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        ref[...] = value


def at(tree: Any, t: Array) -> Any:
    """Returns the values of references at step t."""
    return jax.tree.map(lambda ref: ref[t], tree)


def write(tree: Any, t: Array, values: Any) -> None:
    """Writes the values of step t to references."""
    for ref, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        ref[t] = value
