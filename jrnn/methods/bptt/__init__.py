r"""Backpropagation through time, written by hand, for any cell.

With row vectors, lambda_t = dL/ds_t over the whole state and J_{t+1} = ds_{t+1}/ds_t:

  1. forward: a scan over the steps that saves only what the backward pass needs;
  2. adjoint: a scan from the last step to the first,
         lambda_t = (direct dL/ds_t) + lambda_{t+1} J_{t+1},
     whose carry is lambda alone;
  3. parameters: one contraction over time and batch for each, such as
         dL/dW_h = sum_t h_{t-1}^T delta_t.

`jax.grad` of a scan would instead add a weight-shaped array to its carry at every step.

The module `forward` has part 1, `backward` parts 2 and 3, and `adjoint` one backward
step; the custom rule that JAX calls is here.

The sequence is processed in chunks. A chunk's input products, and the contractions of
part 3, are large enough to run at full speed and small enough to stay in the cache.

With checkpoints along time (`remat`) chunks are grouped into segments, and the forward
pass saves only the state before each segment; the backward pass runs a segment forward
again when it reaches it. With one level the number of saved states grows as the square
root of T; with more levels segments consist of segments. (A. Griewank and A. Walther,
ACM TOMS 26 (2000), https://doi.org/10.1145/347837.347846, place checkpoints better
still, in an order that a compiled loop cannot follow.)
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.chunks import cut, cut_sequence, join, nested_shape
from jrnn.core.countable import check_countable
from jrnn.core.dtypes import float_leaves, place_floats
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Shown, Wanted, all_at_once, show_steps
from jrnn.core.products import Precision, check_precision, products_at
from jrnn.core.seams import noisy_project
from jrnn.methods.bptt.adjoint import backwards_of
from jrnn.methods.bptt.backward import gradients, zero_sums
from jrnn.methods.bptt.forward import (
    Settings,
    keep_shown,
    keep_starts,
    keep_states,
)

# The most bytes of u in a chunk on a CPU: the size of the second-level caches where
# experiments/benchmarks/results/chunk.json was measured. Shorter chunks have little
# work each; the gates of longer ones are read from main memory on every pass.
CHUNK_BYTES = 2**22
# On accelerators large products are faster, and memory is fast. Not measured.
ACCELERATOR_CHUNK = 128
LEAST_CHUNK, MOST_CHUNK = 4, 128


@memoize
def bptt(
    *, chunk: int | None = None, remat: int = 0, precision: Precision = None
) -> Method:
    """Makes the default method: a scan with a hand-written backward pass.

    Supports reverse mode, reverse over reverse, Hessians (forward over reverse),
    `vmap`, outer scans and `jax.checkpoint`, but not pure forward mode (`jax.jvp`,
    `jax.jacfwd`): use `jrnn.scan()` for that.

    Args:
      chunk: How many steps share one product with W_x and one contraction for each
        parameter's gradient. None: on a CPU 4 to 128 steps, so that project(xs) of a
        chunk stays within four megabytes, and elsewhere 128.
      remat: Levels of checkpoints along time. 0 saves every state for the backward
        pass; 1 saves of the order of sqrt(T) states and runs the forward pass once
        more; k saves k T^(1/(k+1)) and runs it k times more. Beyond log2(T / chunk)
        levels every segment is halved down to one chunk.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None: JAX's default.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`.

    Raises:
      TypeError: `chunk` or `remat` is not an integer.
      ValueError: `chunk` is below 1, or `remat` below 0.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((5, 3))
      >>> loss = lambda p: jrnn.unroll(cell, p, xs, method=jrnn.bptt())[1].sum()
      >>> jax.grad(loss)(params).W_h.shape
      (4, 12)
    """
    if chunk is not None:
        chunk = check_size("chunk", chunk)
    remat = check_size("remat", remat, least=0)
    check_precision(precision)
    options = (("chunk", chunk), ("remat", remat), ("precision", precision))
    return Method(_run, options)


class _Inputs(NamedTuple):
    """The arguments of the custom rule that are arrays."""

    params: Params
    state: State
    sequence: Sequence


def _run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    chunk: int | None,
    remat: int,
    precision: Precision,
) -> tuple[State, Shown]:
    if not jax.tree.leaves(state):
        return all_at_once(cell, wanted, params, state, sequence, precision)
    check_countable(sequence.steps, "jrnn.bptt()")
    length = chunk or default_chunk(cell, params, sequence)
    shape = nested_shape(sequence.steps, length, remat)
    settings = Settings(cell, wanted, shape, precision)
    return _bptt(settings, _Inputs(params, state, sequence))


def default_chunk(cell: Cell, params: Params, sequence: Sequence) -> int:
    """Returns the largest power of two whose chunk of u fits the cache."""
    if jax.default_backend() != "cpu":
        return ACCELERATOR_CHUNK
    project = functools.partial(noisy_project, cell.project)
    us = jax.eval_shape(project, params, sequence.xs, sequence.noise)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(us))
    fitting = CHUNK_BYTES * sequence.steps // max(size, 1)
    return min(max(2 ** int(math.log2(max(fitting, 1))), LEAST_CHUNK), MOST_CHUNK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bptt(settings: Settings, inputs: _Inputs) -> tuple[State, Shown]:
    """The forward pass without differentiation: no state is kept beyond its chunk."""
    params, state, sequence = inputs
    shape = math.prod(settings.shape[:-1]), settings.shape[-1]
    chunks = cut_sequence(sequence, shape)
    with products_at(settings.precision):
        state, shown = keep_shown(settings, params, state, chunks)
    return state, _until(sequence.steps, shown)


def _forwards(
    settings: Settings, primals: Any
) -> tuple[tuple[State, Shown], tuple[_Inputs, Any, tuple[()] | None]]:
    """The forward pass that saves what the backward pass needs."""
    inputs = jax.tree.map(lambda leaf: leaf.value, primals)
    of_inputs = any(leaf.perturbed for leaf in jax.tree.leaves(primals.sequence.xs))
    params, state, sequence = inputs
    cell, wanted, shape, precision, _ = settings
    timed = cut_sequence(sequence, shape)
    with products_at(precision):
        if len(shape) == 2:
            state, kept = keep_states(settings, params, state, timed)
            states = _until(sequence.steps, kept.states)
            shown = show_steps(cell, wanted, params, states, sequence.xs)
        else:
            state, (kept, shown) = keep_starts(settings, shape, params, state, timed)
            shown = join(shown, shape, sequence.steps)
    # Residuals are arrays; None records that dxs was not requested.
    return (state, shown), (inputs, kept, () if of_inputs else None)


def _backwards(
    settings: Settings, residuals: tuple[_Inputs, Any, Any], cotangents: Any
) -> tuple[_Inputs]:
    """The backward pass: the adjoint of the state, and the contractions per chunk."""
    (params, start, sequence), kept, of_inputs = residuals
    settings = settings._replace(inputs=of_inputs is not None)
    cell, wanted, shape, precision, _ = settings
    dstate, dshown = cotangents
    if all(map(_is_zero, jax.tree.leaves(dshown))):
        dshown = None  # the loss is on the final state alone
    else:
        x = jax.tree.map(lambda leaf: leaf[0], sequence.xs)
        like = show_steps(cell, wanted, params, start, x)  # only for its types
        dshown = jax.tree.map(_instantiate, dshown, like)
    dstate = jax.tree.map(_instantiate, dstate, start)
    timed = cut_sequence(sequence, shape)
    sums = zero_sums(dstate, params, sequence.fresh)
    with products_at(precision):
        backwards = backwards_of(cell, params, dstate)
        dshown = cut(dshown, shape)
        given = params, backwards, kept, timed, dshown, sums
        sums, dxs = gradients(settings, shape, *given)
    if settings.inputs:
        dxs = join(dxs, shape, sequence.steps)
    else:  # unused, but jax 0.7 requires the same structure in every case
        dxs = [jnp.zeros_like(x) for x in float_leaves(sequence.xs)]
    cast = lambda like, total: total.astype(like.dtype)
    dparams = jax.tree.map(cast, params, sums.dparams)
    dfresh = jax.tree.map(cast, sequence.fresh, sums.dfresh)
    # Noise and flags have no derivative: None.
    dsequence = Sequence(place_floats(sequence.xs, dxs), fresh=dfresh)
    return (_Inputs(dparams, sums.dstate, dsequence),)


_bptt.defvjp(_forwards, _backwards, symbolic_zeros=True)


def _until(steps: int, tree: Any) -> Any:
    """Returns the first `steps` rows, without the padding of the last chunk."""
    return jax.tree.map(lambda leaf: leaf[:steps], tree)


def _is_zero(cotangent: Any) -> bool:
    return isinstance(cotangent, jax.custom_derivatives.SymbolicZero)


def _instantiate(cotangent: Any, like: Array) -> Array:
    """Replaces a symbolic zero by zeros that are split over a mesh like `like`.

    Args:
      cotangent: Of an array (..., *like.shape), or a symbolic zero.
      like: An array of the same type, for one step.
    """
    if _is_zero(cotangent):
        return jnp.broadcast_to(jnp.zeros_like(like), cotangent.shape)
    return cotangent
