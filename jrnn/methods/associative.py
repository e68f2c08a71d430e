r"""Evaluation in parallel over time, for cells that are linear in their state.

    s_t = a_t * s_{t-1} + b_t

Neither a_t nor b_t depends on the state, so both are computed for all steps at once,
and the recurrence can be evaluated in any grouping (`jrnn.methods.linear_recurrence`).
This answers the lecture notes' question whether sequential processing can be avoided,
for cells whose gates do not see the state.

An inactive step has a = 1 and b = 0. A step that restarts has a = 0 and
b = a * fresh + b. For a cell with a different first step (`Linear.start`), the flag
fresh_t is evaluated first, as a separate recurrence, and b gains e_t * fresh_{t-1}.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Params, State
from jrnn.core.chunks import cut, join
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Shown, Wanted, all_at_once, show_steps
from jrnn.core.products import Precision, check_precision, expand, products_at
from jrnn.core.seams import noisy_project
from jrnn.methods._recurrence import recurrence
from jrnn.methods.linear_recurrence import kernel_target

# The coefficients of a sequence of at least LONG steps are computed in 2^HALVINGS
# pieces, which reduces the memory of their gradient; those of a shorter one at once.
# Above LONG the time to compile no longer changes.
HALVINGS, LONG = 4, 1000


@memoize
def associative(
    *,
    chunk: int | None = None,
    kernel: str | None = None,
    interpret: bool = False,
    precision: Precision = None,
) -> Method:
    """Makes the method that evaluates a linear recurrence in parallel over time.

    The gradient is a linear recurrence run backwards, written by hand. Forward mode
    needs `jrnn.scan()`.

    Args:
      chunk: Steps per block: blocks are evaluated side by side, the steps in a block
        one after another. None: on a CPU all steps, one block, which is fastest there,
        elsewhere about sqrt(T). The default device at tracing decides, so pass `chunk`
        when you export for another machine.
      kernel: "cuda" or "tpu" evaluates the recurrence in a kernel for that machine
        (`jrnn.methods.linear_recurrence`), for cells whose coefficients are numbers,
        not matrices, in 32 bits; first derivatives only; unmeasured. None: no kernel.
      interpret: Whether JAX itself runs the kernel step by step, for tests.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None: JAX's default.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`. They raise ValueError for a
      cell that is not linear in its state; `jrnn.newton` takes any.

    Raises:
      TypeError: `chunk` is not an integer.
      ValueError: `chunk` is below 1, or there is no such kernel.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.cells.min_gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((1000, 3))
      >>> jrnn.unroll(cell, params, xs, method=jrnn.associative())[1].shape
      (1000, 4)
    """
    if chunk is not None:
        chunk = check_size("chunk", chunk)
    check_precision(precision)
    kernel_target(kernel, interpret, full=False)
    options = (("chunk", chunk), ("kernel", kernel), ("interpret", interpret))
    return Method(_run, (*options, ("precision", precision)))


def _run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    chunk: int | None,
    kernel: str | None,
    interpret: bool,
    precision: Precision,
) -> tuple[State, Shown]:
    if not jax.tree.leaves(state):
        return all_at_once(cell, wanted, params, state, sequence, precision)
    linear = cell.linear
    if linear is None:
        raise ValueError(
            "Expected a cell that is linear in its state, such as "
            f"jrnn.cells.min_gru, for jrnn.associative(), got {cell}; run it with "
            "jrnn.bptt(), or in parallel with jrnn.newton()."
        )

    target = kernel_target(kernel, interpret, linear.full)

    def prepare(shared: tuple, timed: tuple) -> tuple[State, State, Array | None]:
        params, fresh = shared
        xs, noise, active, restart = timed
        us = noisy_project(cell.project, params, xs, noise)
        a, b = linear.coefficients(params, us)
        e = None if linear.start is None else linear.start(params, us)
        if e is not None and active is not None:
            e = jnp.where(active[..., None], e, jnp.zeros_like(e))

        def one(h0: Array, a: Array, b: Array, fresh: Array) -> tuple[Array, Array]:
            a = expand(a, b.ndim + linear.full)
            a, b = a.astype(h0.dtype), b.astype(h0.dtype)
            if active is not None:
                a, b = _pass_by(linear.full, active, a, b)
            if restart is not None:
                a, b = _start_anew(linear.full, restart, fresh, a, b)
            return a, b

        pairs = jax.tree.map(one, state, a, b, fresh)
        first = lambda i: jax.tree.map(lambda _, pair: pair[i], state, pairs)
        return first(0), first(1), e

    xs, noise, active, restart, fresh, _ = sequence
    with products_at(precision):
        fresh = state if fresh is None else fresh  # not read without restarts
        a, b, e = by_pieces(prepare, (params, fresh), (xs, noise, active, restart))
        along = functools.partial(recurrence, linear.full, chunk, target)
        run = lambda a, b, h0: along(a, b, h0, restart)
        if e is None:
            states = jax.tree.map(run, a, b, state)
        else:
            states = _from_starts(run, (a, b), e, state, restart, fresh)
        final = jax.tree.map(lambda leaf: leaf[-1], states)
        show = lambda params, timed: show_steps(cell, wanted, params, *timed)
        return final, jax.checkpoint(show, prevent_cse=False)(params, (states, xs))


def _from_starts(
    run: Callable[[Array, Array, Array], Array],
    coefficients: tuple[State, State],
    e: Array,
    state: State,
    restart: Bool[Array, "T *batch"] | None,
    fresh: State,
) -> State:
    """Returns the states (h, fresh), with h from the coefficients a and b + e fresh."""
    leaves, structure = jax.tree.flatten(state)
    (a, a_fresh), (b, b_fresh) = map(jax.tree.leaves, coefficients)
    after = run(a_fresh, b_fresh, leaves[1])
    before = jnp.concatenate([leaves[1][None], after[:-1]])
    if restart is not None:
        anew = jax.tree.leaves(fresh)[1].astype(before.dtype)[None]
        before = jnp.where(restart[..., None], anew, before)
    h = run(a, b + e.astype(b.dtype) * before, leaves[0])
    return jax.tree.unflatten(structure, (h, after))


def by_pieces(function: Callable[[Any, Any], Any], shared: Any, timed: Any) -> Any:
    """Returns function(shared, timed), computed piece by piece if time is long.

    The gradient computes each piece again, so that intermediate results are never
    stored for all steps.

    Args:
      function: (shared, timed) -> results, for each step separately. Axis 0 of the
        results is time, or 1 if they are the same at every step.
      shared: Arguments that are the same at every step.
      timed: A tree of arrays (T, ...).
    """
    steps = jax.tree.leaves(timed)[0].shape[0]
    if steps < LONG:
        return jax.checkpoint(function)(shared, timed)
    pieces = 2**HALVINGS
    shape = pieces, -(-steps // pieces)
    again = jax.checkpoint(function, prevent_cse=False)  # not needed within a loop
    given = jax.tree.map(_doubled, shared), cut(timed, shape)
    results = jax.lax.map(lambda piece: again(*piece), given)
    like = jax.eval_shape(function, shared, timed)

    def one(leaf: Array, like: Any) -> Array:
        return leaf[0] if like.shape[0] == 1 else join(leaf, shape, steps)

    return jax.tree.map(one, results, like)


def _doubled(leaf: Array) -> Array:
    """Returns a copy for each piece, so that gradients are added pairwise.

    Added one after another, in float32, they would lose more accuracy than the
    recurrence does.
    """
    leaf = leaf[None]
    for _ in range(HALVINGS):
        leaf = jnp.concatenate([leaf, leaf])
    return leaf


def _pass_by(
    full: bool, active: Bool[Array, "T *batch"], a: Array, b: Array
) -> tuple[Array, Array]:
    """Sets a = 1, b = 0 at inactive steps, which leaves the state unchanged."""
    unit = jnp.eye(b.shape[-1], dtype=a.dtype) if full else jnp.ones((), a.dtype)
    b = jnp.where(active[..., None], b, jnp.zeros_like(b))
    return _where(active, a, expand(unit, a.ndim)), b


def _start_anew(
    full: bool, restart: Bool[Array, "T *batch"], fresh: Array, a: Array, b: Array
) -> tuple[Array, Array]:
    """Sets a = 0, b = a * fresh + b at steps that restart from `fresh`."""
    fresh = fresh.astype(b.dtype)[None]
    moved = jnp.matmul(fresh[..., None, :], a)[..., 0, :] if full else a * fresh
    b = jnp.where(restart[..., None], moved + b, b)
    return _where(restart, jnp.zeros((1,) * a.ndim, a.dtype), a), b


def _where(flags: Bool[Array, "T *batch"], yes: Array, no: Array) -> Array:
    """Selects coefficients by step; axes of size 1 are broadcast."""
    over = flags.reshape(flags.shape + (1,) * (yes.ndim - flags.ndim))
    return jnp.where(over, yes, no)
