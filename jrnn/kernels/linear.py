"""The linear recurrence h_t = a_t h_{t-1} + b_t, elementwise, as a kernel.

There is one multiplication and one addition for each two numbers read and one written,
so memory bandwidth alone sets the time. Lanes (batch and units) are adjacent in memory
and are divided among programs; a program reads `GROUP` steps of a and b before it uses
the first, so that many bytes are in flight, and keeps h in registers.

Bytes for each number of h, in float32 (twice that for complex64, which is handled as a
pair of reals; splitting and joining the pairs takes three more copies):

    one run                reads a, b; writes h          12
    time cut into blocks   reads a, b; reads a, b; writes h   20

One run from the first step to the last reads and writes no more than necessary, so time
is cut only if there are too few lanes to keep the machine busy: each block of steps is
first composed into one (A, B), a short scan gives the state before each block, and then
all blocks run side by side. With 32 lanes for each program, (8, 1536, 65536) has 384
programs, each with 8 KiB in flight, 3 MiB in all: the product of an H100's bandwidth,
3.35 TB/s (its data sheet), and a latency of 0.7 us, assumed, is 2.3 MB. On a TPU
programs run one after another, and time is never cut.

The backward pass is the same recurrence from the last step to the first (12 bytes),
then da_t = g_t h_{t-1} in JAX (12 more). These numbers are counted, not measured.

A block's A is a product of its coefficients, which is less exact than a run: with
blocks, the error of h is that of a product of as many factors as a block has steps.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.kernels._pallas import Launch, Target, launch, like, refusal, round_up

Parts = tuple[Array, ...]  # a real array, or real and imaginary parts

LANES = {"cuda": (1, 32), "tpu": (8, 128)}  # rows and columns of one program
GROUP = {"cuda": 32, "tpu": 8}  # steps that are read at once
PROGRAMS = 256  # about two for each multiprocessor of an H100, which has 132
BLOCK = 256  # steps that are in a TPU's vector memory at once


class _How(NamedTuple):
    """The static arguments; `severs`: whether a = 0 cuts off NaN and infinities."""

    target: Target
    severs: bool
    adjoint: bool
    length: int  # steps of a block


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def walk(
    target: Target,
    chunk: int | None,
    severs: bool,
    adjoint: bool,
    a: Array,
    b: Array,
    h0: Array,
) -> tuple[Array, Array]:
    """Returns the last state and every state, as `jrnn.methods._recurrence` has them.

    Args:
      target: The machine.
      chunk: Steps of a block; None: all, or fewer if there are few lanes.
      severs: Whether a = 0 cuts off all of h, including NaN and infinities.
      adjoint: Whether it runs from the last step to the first:
        g_t = b_t + m_t, m_{t-1} = a_t g_t, m_T = h0; it returns m_0 and every g_t.
      a: (T, *batch, n), or (1, ..., n) if it is the same at every step.
      b: (T, *batch, n).
      h0: (*batch, n).
    """
    if h0.dtype in (jnp.float64, jnp.complex128) and not target.interpret:
        raise ValueError(
            f"Expected numbers of 32 bits for a kernel, got {h0.dtype}; cast them, or "
            "leave kernel=None."
        )
    a = jnp.broadcast_to(a, (a.shape[0], *h0.shape))
    parts = (_fold(target, _parts(leaf, h0.dtype)) for leaf in (a, b, h0[None]))
    a_parts, b_parts, start = parts
    steps = b.shape[0]
    length = _length(target, chunk, steps, b_parts[0].shape[1])
    how = _How(target, severs, adjoint, length)
    if -(-steps // length) > 1 and target.platform == "cuda":
        start = _starts(how, a_parts, b_parts, start)
    last, hs = _launch(how, a_parts, b_parts, start)
    last = tuple(leaf[0 if adjoint else -1] for leaf in last)
    return _unfold(last, h0.shape), _unfold(hs, b.shape)


walk.defvjp(*refusal("a linear recurrence by a kernel", "leave kernel=None"))


def _length(target: Target, chunk: int | None, steps: int, rows: int) -> int:
    if target.platform == "tpu":
        return min(chunk or BLOCK, steps)
    if chunk is None:
        programs = rows // LANES["cuda"][0]
        most = max(steps // (4 * GROUP["cuda"]), 1)
        chunk = -(-steps // min(-(-PROGRAMS // programs), most))
    return min(chunk, steps)


def _parts(array: Array, dtype: Any) -> Parts:
    array = array.astype(dtype)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array.real, array.imag
    return (array,)


def _fold(target: Target, parts: Parts) -> Parts:
    """Reshapes (T, *batch, n) to (T, rows, columns), padded with zeros."""
    rows, columns = LANES[target.platform]

    def one(leaf: Array) -> Array:
        leaf = leaf.reshape(leaf.shape[0], -1)
        more = round_up(leaf.shape[1], rows * columns) - leaf.shape[1]
        leaf = jnp.pad(leaf, [(0, 0), (0, more)]) if more else leaf
        return leaf.reshape(leaf.shape[0], -1, columns)

    return tuple(one(leaf) for leaf in parts)


def _unfold(parts: Parts, shape: tuple[int, ...]) -> Array:
    """Inverts `_fold`: returns an array of `shape`, without the padding."""

    def one(leaf: Array) -> Array:
        lead = leaf.shape[:-2]
        lanes = math.prod(shape[len(lead) :])
        return leaf.reshape(*lead, -1)[..., :lanes].reshape(shape)

    parts = tuple(one(leaf) for leaf in parts)
    return parts[0] if len(parts) == 1 else jax.lax.complex(*parts)


def _starts(how: _How, a: Parts, b: Parts, start: Parts) -> Parts:
    """Returns the state before each block of steps, (blocks, rows, columns)."""
    A, B = _summarise(how, a, b)

    def step(h: Parts, block: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
        A, B = block
        nothing = functools.reduce(jnp.logical_and, (part == 0 for part in h))
        h_A = _times(how, A, h)  # below: 0 stays 0 even if A overflowed
        h_A = tuple(jnp.where(nothing, jnp.zeros_like(x), x) for x in h_A)
        return _plus(h_A, B), h

    first = tuple(leaf[0] for leaf in start)
    return jax.lax.scan(step, first, (A, B), reverse=how.adjoint)[1]


def _launch(how: _How, a: Parts, b: Parts, start: Parts) -> tuple[Parts, Parts]:
    """Runs all blocks; returns the state after each block, and every state."""
    blocks = start[0].shape[0]

    def body(ins: Any, outs: Any) -> None:
        def show(t: Any, h: Parts) -> None:
            for ref, part in zip(outs["timed"]["hs"], h, strict=True):
                ref[t] = part

        kept = outs["rows"]
        h = _carried(how, b[0].shape[0], ins["rows"], kept)
        h = _loop(how, b[0].shape[0], ins, h, _step(how, show))
        for ref, part in zip(kept, h, strict=True):
            ref[0] = part

    shape = (blocks, *b[0].shape[1:])
    outputs = {
        "rows": tuple(like(*shape, dtype=leaf.dtype) for leaf in b),
        "timed": {"hs": tuple(like(*leaf.shape, dtype=leaf.dtype) for leaf in b)},
    }
    inputs = {"timed": {"a": a, "b": b}, "rows": start}
    results = _run(how, "jrnn_linear", body, inputs, outputs)
    return results["rows"], results["timed"]["hs"]


def _summarise(how: _How, a: Parts, b: Parts) -> tuple[Parts, Parts]:
    """Composes each block of steps into one (A, B)."""
    blocks = -(-b[0].shape[0] // how.length)

    def body(ins: Any, outs: Any) -> None:
        shape = outs["rows"]["A"][0].shape[1:]
        zero = jnp.zeros(shape, b[0].dtype)
        one = (jnp.ones(shape, b[0].dtype), *(zero for _ in b[1:]))
        step = _step(how, lambda *_: None)

        def both(carry: Any, t: Any, a_t: Parts, b_t: Parts) -> Any:
            A, B = carry
            return _times(how, a_t, A), step(B, t, a_t, b_t)

        start = one, tuple(zero for _ in b)
        A, B = _loop(how, b[0].shape[0], ins, start, both)
        for ref, part in zip(outs["rows"]["A"] + outs["rows"]["B"], A + B, strict=True):
            ref[0] = part

    each = tuple(like(blocks, *leaf.shape[1:], dtype=leaf.dtype) for leaf in b)
    inputs = {"timed": {"a": a, "b": b}}
    outputs = {"rows": {"A": each, "B": each}}
    results = _run(how, "jrnn_linear_blocks", body, inputs, outputs)
    return results["rows"]["A"], results["rows"]["B"]


def _step(how: _How, show: Any) -> Any:
    """Returns (h, t, a_t, b_t) -> h; each step calls `show(t, ...)` with h_t or g_t."""

    def step(h: Parts, t: Any, a_t: Parts, b_t: Parts) -> Parts:
        if how.adjoint:
            g = _plus(h, b_t)
            show(t, g)
            return _times(how, a_t, g)
        h = _plus(_times(how, a_t, h), b_t)
        show(t, h)
        return h

    return step


def _loop(how: _How, steps: int, ins: Any, carry: Any, step: Any) -> Any:
    """Runs the steps of a block, in groups, then the remaining ones one by one."""
    count, group = _steps_here(how, steps), GROUP[how.target.platform]
    a_refs, b_refs = ins["timed"]["a"], ins["timed"]["b"]
    constant = a_refs[0].shape[0] == 1 and steps > 1

    def several(first: Any, size: int, carry: Any) -> Any:
        places = [first + i for i in range(size)]
        places = [count - 1 - t for t in places] if how.adjoint else places
        read = lambda refs, t: tuple(ref[t] for ref in refs)
        given = [(read(a_refs, 0 if constant else t), read(b_refs, t)) for t in places]
        for t, (a_t, b_t) in zip(places, given, strict=True):
            carry = step(carry, t, a_t, b_t)
        return carry

    groups = jax.lax.div(count, jnp.int32(group))
    carry = jax.lax.fori_loop(
        jnp.int32(0), groups, lambda i, c: several(i * group, group, c), carry
    )
    return jax.lax.fori_loop(
        groups * group, count, lambda i, c: several(i, 1, c), carry
    )


def _steps_here(how: _How, steps: int) -> Array:
    """Returns the number of steps of this block; the last may have fewer."""
    from jax.experimental import pallas as pl

    blocks = -(-steps // how.length)
    if blocks == 1:
        return jnp.int32(steps)
    k = pl.program_id(1)
    k = blocks - 1 - k if how.adjoint else k
    return jnp.minimum(how.length, steps - k * how.length)


def _carried(how: _How, steps: int, start: Any, kept: Any) -> Parts:
    """Returns the initial state of a block: its start, or what the last block left."""
    from jax.experimental import pallas as pl

    if how.target.platform == "cuda" or steps <= how.length:
        return tuple(ref[0] for ref in start)

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        for ref, first in zip(kept, start, strict=True):
            ref[...] = first[...]

    return tuple(ref[0] for ref in kept)


def _run(how: _How, name: str, body: Any, inputs: dict, outputs: dict) -> Any:
    from jax.experimental import pallas as pl

    steps, all_rows = inputs["timed"]["b"][0].shape[:2]
    (rows, columns), blocks = LANES[how.target.platform], -(-steps // how.length)
    sequential = how.target.platform == "tpu"

    def block(kind: str, leaf: Any) -> Any:
        place = lambda k: blocks - 1 - k if how.adjoint else k
        if kind == "timed":
            if leaf.shape[0] == 1 and steps > 1:  # the same at every step
                return pl.BlockSpec((1, rows, columns), lambda i, _: (0, i, 0))
            shape = (how.length, rows, columns)
            return pl.BlockSpec(shape, lambda i, k: (place(k), i, 0))
        if sequential:
            return pl.BlockSpec((1, rows, columns), lambda i, _: (0, i, 0))
        return pl.BlockSpec((1, rows, columns), lambda i, k: (place(k), i, 0))

    launched = Launch(name, how.target, (all_rows // rows, blocks), warps=1)
    return launch(launched, body, inputs, outputs, block)


def _times(how: _How, a: Parts, h: Parts) -> Parts:
    if len(a) == 1:
        product = (a[0] * h[0],)
    else:
        product = (a[0] * h[0] - a[1] * h[1], a[0] * h[1] + a[1] * h[0])
    if not how.severs:
        return product
    cut = functools.reduce(jnp.logical_and, (part == 0 for part in a))
    return tuple(jnp.where(cut, jnp.zeros_like(x), x) for x in product)


def _plus(a: Parts, b: Parts) -> Parts:
    return tuple(x + y for x, y in zip(a, b, strict=True))
