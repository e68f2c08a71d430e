r"""The linear recurrence h_t = a_t * h_{t-1} + b_t, in parallel over time.

Steps compose: with (A, B) standing for h -> A h + B,

    (a_1, b_1) then (a_2, b_2)  =  (a_2 a_1,  a_2 b_1 + b_2)

and composition is associative, so it can be evaluated in any grouping. Time is cut into
`count` blocks of `length` steps:

  1. each block is composed into one (A, B), all blocks side by side: `length` steps;
  2. the state before each block follows from the one before: `count` steps;
  3. each block is run from its own state, all side by side: `length` steps;
  4. steps 2 and 3 are repeated for the differences between the end of each run and the
     start of the next, which makes the blocks as exact as a loop.

With length = sqrt(T) this takes 5 sqrt(T) sequential steps instead of T, for four times
the arithmetic, in one compiled program for any T. G. E. Blelloch, Prefix sums and their
applications (1990), sums in blocks in the same way when there are fewer processors than
numbers. Only a and b themselves are composed, never logarithms or quotients of running
products, so that nothing cancels.

On a CPU there is one block, a loop over all steps: its elementwise work keeps one core
busy for vectors of any length, and a loop reads a and b once instead of twice
(experiments/results/parallel_in_time.json has both).

The gradient of a linear recurrence is a linear recurrence run backwards,

    g_t = dh_t + a_{t+1} g_{t+1},    db_t = g_t,    da_t = g_t h_{t-1},
    dh_0 = a_1 g_1
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn.core.chunks import chunk_shape, cut, join
from jrnn.core.countable import check_countable, check_fixed, countable
from jrnn.core.method import Size
from jrnn.core.products import expand
from jrnn.kernels import linear
from jrnn.kernels._pallas import Target

# Steps per block for a symbolic number of steps. Not measured.
SYMBOLIC_BLOCK = 64


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def recurrence(
    full: bool,
    chunk: int | None,
    kernel: Target | None,
    a: Array,
    b: Array,
    h0: Array,
    restart: Bool[Array, "T *batch"] | None,
) -> Array:
    """Returns h_1..h_T, for arguments of one type and a of full rank; unchecked.

    Where `restart` is True, a must be 0 and the past is cut off, including NaN and
    infinities, which a product with 0 would propagate.
    """
    return _walk(full, chunk, kernel, a, b, h0, restart)[1]


def _walk(
    full: bool,
    chunk: int | None,
    kernel: Target | None,
    a: Array,
    b: Array,
    h0: Array,
    restart: Array | None,
    adjoint: bool = False,
) -> tuple[Array, Array]:
    if kernel is None:
        return walk_blocks(full, chunk, a, b, h0, restart, adjoint)
    check_fixed(b.shape, "a kernel")
    check_countable(b.shape[0], "a kernel", wide=False)
    return linear.walk(kernel, chunk, restart is not None, adjoint, a, b, h0)


def _forward(
    full: bool,
    chunk: int | None,
    kernel: Target | None,
    a: Array,
    b: Array,
    h0: Array,
    restart: Array | None,
) -> tuple[Array, tuple[Array, Array, Array, Array | None]]:
    # Not by calling the rule, so that forward mode can differentiate the derivative.
    hs = _walk(full, chunk, kernel, a, b, h0, restart)[1]
    return hs, (a, h0, hs, restart)


def _backward(
    full: bool,
    chunk: int | None,
    kernel: Target | None,
    kept: tuple[Array, Array, Array, Array | None],
    dhs: Array,
) -> tuple[Array, Array, Array, None]:
    a, h0, hs, restart = kept
    zeros = jnp.zeros_like(h0)
    dh0, g = _walk(full, chunk, kernel, a, dhs, zeros, restart, adjoint=True)
    hs_tm1 = _sever(restart, jnp.concatenate([h0[None], hs[:-1]]))
    da = hs_tm1[..., :, None] * g[..., None, :] if full else hs_tm1 * g
    shared = tuple(i for i, n in enumerate(a.shape) if n == 1 and da.shape[i] != 1)
    return da.sum(axis=shared, keepdims=True) if shared else da, g, dh0, None


recurrence.defvjp(_forward, _backward)


def default_block(steps: Size) -> int:
    """Returns the length of a block: all steps on a CPU, sqrt(T) elsewhere.

    From 2^31 steps on, which 32-bit integers cannot count, sqrt(T) on a CPU too. For a
    symbolic number of steps, which runs on any platform, it is fixed.
    """
    if not isinstance(steps, int):
        return SYMBOLIC_BLOCK
    whole = jax.default_backend() == "cpu" and countable(steps)
    return steps if whole else math.isqrt(steps - 1) + 1


def walk_blocks(
    full: bool,
    chunk: int | None,
    a: Array,
    b: Array,
    h0: Array,
    restart: Array | None = None,
    adjoint: bool = False,
) -> tuple[Array, Array]:
    """Returns the last state and every state.

    With `adjoint` it runs from the last step to the first, with transposed matrices,
    and returns m_0 and every g_t:

        g_t = b_t + m_t,    m_{t-1} = a_t g_t,    m_T = h0 = 0
    """
    steps = b.shape[0]
    count, length = chunk_shape(steps, chunk or default_block(steps))
    constant = a[0] if a.shape[0] == 1 and steps != 1 else None
    step = functools.partial(_step, full, adjoint, constant)
    # Padding of the last block is read last forwards, and first by the adjoint, which
    # starts from zero: neither changes a result.
    varying = None if constant is not None else a
    if count == 1:
        return jax.lax.scan(step, h0, (varying, b, restart), reverse=adjoint)
    blocks = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 1, 0),
        cut((varying, b, restart), (count, length)),
    )
    starts, last, A = _between(full, adjoint, constant, blocks, h0)
    ends = jax.lax.scan(step, starts, blocks, reverse=adjoint)[0]
    starts = starts + _corrections(full, adjoint, starts, ends, A, blocks[2])
    hs = jax.lax.scan(step, starts, blocks, reverse=adjoint)[1]
    hs = join(jnp.moveaxis(hs, 1, 0), (count, length), steps)
    return last if adjoint else hs[-1], hs


def _step(
    full: bool, adjoint: bool, constant: Array | None, h: Array, inputs: tuple
) -> tuple[Array, Array]:
    """One step of every block: returns the new carry, and h_t or g_t."""
    a, b, restart = _one(full, adjoint, constant, inputs, h.ndim), *inputs[1:]
    if adjoint:
        g = h + b
        return _sever(restart, _times(full, g, a)), g
    h = _times(full, _sever(restart, h), a) + b
    return h, h


def _sever(restart: Array | None, h: Array) -> Array:
    """Returns h with zeros where `restart` is True."""
    if restart is None:
        return h
    flags = restart.reshape(restart.shape + (1,) * (h.ndim - restart.ndim))
    return jnp.where(flags, jnp.zeros_like(h), h)


def _one(
    full: bool, adjoint: bool, constant: Array | None, inputs: tuple, ndim: int
) -> Array:
    """Returns a step's coefficients for a state of rank `ndim`; adjoint: transposed."""
    a = expand(inputs[0] if constant is None else constant, ndim + full)
    return jnp.swapaxes(a, -1, -2) if full and adjoint else a


def _times(full: bool, h: Array, a: Array) -> Array:
    if not full:
        return a * h
    return jnp.matmul(h[..., None, :], a)[..., 0, :]


def _between(
    full: bool,
    adjoint: bool,
    constant: Array | None,
    blocks: tuple[Array | None, Array, Array | None],
    h0: Array,
) -> tuple[Array, Array, Array]:
    """Returns the state before each block, the one after the last, and every A."""
    b = blocks[1]
    like = _one(
        full, False, constant, (jax.tree.map(lambda a: a[0], blocks)), b.ndim - 1
    )
    unit = jnp.eye(b.shape[-1], dtype=b.dtype) if full else jnp.ones((), b.dtype)
    unit = jnp.zeros_like(like) + expand(unit, like.ndim)  # has its type on a mesh

    def compose(block: tuple[Array, Array], inputs: tuple) -> tuple:
        A, B = block
        B = _step(full, adjoint, constant, B, inputs)[0]
        a = _one(full, adjoint, constant, inputs, B.ndim)
        A = jnp.matmul(A, a) if full else a * A
        return (_sever(inputs[2], A), B), None

    zeros = jnp.zeros_like(b[0])
    (A, B), _ = jax.lax.scan(compose, (unit, zeros), blocks, reverse=adjoint)
    A = jnp.broadcast_to(A, (B.shape[0], *A.shape[1:]))
    last, starts = _cross(full, adjoint, h0, A, B, blocks[2])
    return starts, last, A


def _cross(
    full: bool, adjoint: bool, h0: Array, A: Array, B: Array, restart: Array | None
) -> tuple[Array, Array]:
    """Goes from block to block; returns the last state, and those before each block."""
    severed = None if restart is None else restart.any(axis=0)

    def step(h: Array, block: tuple) -> tuple[Array, Array]:
        A, B, severed = block
        nothing = (h == 0).all(axis=-1)  # 0 stays 0 even if A overflowed
        nothing = nothing if severed is None else nothing | severed
        return _sever(nothing, _times(full, h, A)) + B, h

    return jax.lax.scan(step, h0, (A, B, severed), reverse=adjoint)


def _corrections(
    full: bool,
    adjoint: bool,
    starts: Array,
    ends: Array,
    A: Array,
    restart: Array | None,
) -> Array:
    """Returns corrections to the states before each block.

    A product of many coefficients is less exact than a loop, and where little is
    forgotten (an orthogonal matrix, a number near 1 that is rounded the same way at
    each step) its error recurs in every block. The difference between the end of each
    block and the start of the next obeys the same recurrence, and a second run from
    corrected states is as exact as a loop.
    """
    if adjoint:
        begun = jnp.concatenate([ends[:1], starts[:-1]])
    else:
        begun = jnp.concatenate([starts[1:], ends[-1:]])
    zeros = jnp.zeros_like(starts[0])
    return _cross(full, adjoint, zeros, A, ends - begun, restart)[1]
