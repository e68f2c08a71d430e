"""Where the first NaN or infinity came from, forwards or backwards.

Every cell inside is tapped: its state is widened by what it showed, and a zero is added
to each array of both at each step. The trajectory of the tapped cell is then all that
the cell computed, and the gradient with respect to those zeros all that flows back.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from jrnn._base import (
    Cell,
    Key,
    Params,
    State,
    cast_state,
    compose_step,
    memoize,
    noisy_project,
    state_dtype,
)
from jrnn._check import check_key
from jrnn._unroll import draw_noise, run_drawn, unroll
from jrnn._walk import Reading, Wanted, active_steps, flip
from jrnn.layers import bidirectional, dropout, residual, stack
from jrnn.methods._steps import silence
from jrnn.methods.scan import scan

Loss = Callable[[State, Array], Array]


class NonFinite(NamedTuple):
    """The first array that held NaN or an infinity.

    Attributes:
      backward: Whether it was a gradient; False: a value.
      layer: Which cell, as a path such as "[1]" through stacks and pairs; "" where
        there is but one, or where the array belongs to the whole.
      step: Which step, from 0; None for what has no time.
      tensor: Which array: "params.W_h", "xs", "state.c", "y", "loss".
      place: Where in that array, time left out.
      value: What was found there.
    """

    backward: bool
    layer: str
    step: int | None
    tensor: str
    place: tuple[int, ...]
    value: float | complex

    def __str__(self) -> str:
        """Tells it in one line."""
        kind = "gradient of " if self.backward else ""
        layer = f" of layer {self.layer}" if self.layer else ""
        step = "" if self.step is None else f" at step {self.step}"
        return f"{kind}{self.tensor}{layer}{step}: {self.value} at {self.place}"


class Tapped(NamedTuple):
    """The state of a cell, and what it showed last."""

    state: State
    y: Array


class _Leaf(NamedTuple):
    """A cell that has no children, and how to come to it."""

    path: tuple[int, ...]
    cell: Cell
    reverse: bool


def find_non_finite(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    loss: Loss | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    resets: Bool[Array, "T *batch"] | None = None,
    mask: Bool[Array, "T *batch"] | None = None,
    reverse: bool = False,
    key: Key | None = None,
) -> NonFinite | None:
    """Returns the first (layer, step, tensor) that became NaN or infinite.

    Forwards first: parameters, inputs, starting state, then layer after layer from the
    bottom, each in the order in which it reads. What is found is an origin: nothing
    that it was computed from was non-finite. With a `loss`, and where all values are
    finite, backwards: the layers from the top, each from the last step it read to the
    first, then the gradients of parameters, inputs and starting state.

    Not jitted as a whole: it returns Python numbers, and is meant for a batch that went
    wrong. Gradients are JAX's own, of the same equations.

    Args:
      cell: As in `jrnn.unroll`.
      params: As in `jrnn.unroll`.
      xs: As in `jrnn.unroll`; padding is not looked at.
      state: As in `jrnn.unroll`.
      loss: (final state, outputs) -> scalar; None looks forwards alone.
      lengths: As in `jrnn.unroll`.
      resets: As in `jrnn.unroll`.
      mask: As in `jrnn.unroll`.
      reverse: As in `jrnn.unroll`.
      key: As in `jrnn.unroll`: the same noise as there.

    Returns:
      What was found, or None where everything is finite.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(1, 1, activation=jrnn.identity)
      >>> params = jax.tree.map(jnp.ones_like, cell.init(jax.random.key(0)))
      >>> params = params._replace(W_h=params.W_h * 1e20)  # h_1 = 2, h_2 = 2e20
      >>> print(jrnn.find_non_finite(cell, params, jnp.ones((5, 1))))
      state.h at step 2: inf at (0,)
    """
    xs = jnp.asarray(xs)
    check_key(key)
    lengths, resets, mask = (
        None if given is None else jnp.asarray(given)
        for given in (lengths, resets, mask)
    )
    arguments = {"lengths": lengths, "resets": resets, "mask": mask}
    run = functools.partial(unroll, cell, params, reverse=reverse, key=key, **arguments)
    jax.eval_shape(run, xs, state)  # raises what `unroll` raises
    batch = xs.shape[1:-1] if jnp.issubdtype(xs.dtype, jnp.inexact) else xs.shape[1:]
    if state is None:
        state = cell.init_state(params, batch)
    state = cast_state(state, state_dtype(params, xs))
    read = _valid(xs, lengths, mask)
    for name, tree in (("params", params), ("xs", read), ("state", state)):
        found = _whole(name, tree)
        if found is not None:
            return found
    noise = None if key is None else draw_noise(cell, key, xs.shape[0], batch)
    return _look(cell, params, xs, state, noise, loss, lengths, resets, mask, reverse)


def _look(
    cell: Cell,
    params: Params,
    xs: Array,
    state: State,
    noise: Any,
    loss: Loss | None,
    lengths: Array | None,
    resets: Array | None,
    mask: Array | None,
    reverse: bool,
) -> NonFinite | None:
    tapped, steps = _tap(cell, noise is not None), xs.shape[0]
    reading = Reading(tapped, scan(), Wanted(ys=True, states=True), bool(reverse))
    start = _widen(cell, state)
    zeros = jax.tree.map(lambda a: jnp.zeros((steps, *a.shape), a.dtype), start)

    def run(params: Params, xs: Array, start: State, zeros: State) -> Any:
        drawn = _join(cell, noise, zeros)
        return run_drawn(reading, params, xs, start, drawn, lengths, resets, mask)

    leaves = list(_leaves(cell, reverse))
    final, shown = run(params, xs, start, zeros)
    found = _in_layers(leaves, lengths, shown.states, backward=False)
    found = found or _in_time("y", shown.ys)
    if found is not None or loss is None:
        return found

    def scalar(params: Params, floats: Any, start: State, zeros: State) -> Array:
        final, shown = run(params, xs if floats is None else floats, start, zeros)
        return loss(_narrow(cell, final), shown.ys)

    floats = xs if jnp.issubdtype(xs.dtype, jnp.inexact) else None
    differentiated = jax.value_and_grad(scalar, (0, 1, 2, 3))
    value, (dparams, dxs, dstart, dzeros) = differentiated(params, floats, start, zeros)
    del final
    return (
        _whole("loss", value)
        or _in_layers(leaves[::-1], lengths, dzeros, backward=True)
        or _whole("params", dparams, backward=True)
        or _in_time("xs", dxs, backward=True)
        or _whole("state", _narrow(cell, dstart), backward=True)
    )


# Tapping.


@memoize
def _tap(cell: Cell, noisy: bool) -> Cell:
    """Returns `cell` with each cell inside tapped; its noise is (the cell's, zeros)."""
    if cell.around is not None:
        inner = _tap(cell.around.cell, noisy)
        if cell.around.skip:
            return residual(inner)
        return dropout(inner, cell.around.rate) if noisy else inner
    if cell.layers is not None:
        inner = [_tap(child, noisy) for child in cell.layers.cells]
        return bidirectional(*inner) if cell.layers.parallel else stack(*inner)
    return _tap_one(cell)


def _tap_one(cell: Cell) -> Cell:
    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> Tapped:
        return _widen(cell, cell.init_state(params, batch_shape))

    def project(params: Params, x: Array, noise: Any) -> Any:
        inner, zeros = noise
        return noisy_project(cell.project, params, x, inner), x, zeros

    def advance(params: Params, state: Tapped, u: Any) -> Tapped:
        u, x, zeros = u
        moved = cell.advance(params, state.state, u)
        moved = jax.tree.map(jnp.add, moved, zeros.state)
        y = cell.output(params, moved, x)
        return Tapped(moved, y.astype(zeros.y.dtype) + zeros.y)

    def output(params: Params, state: Tapped, x: Array) -> Array:
        like = jax.eval_shape(cell.output, params, state.state, x)
        return state.y.astype(like.dtype)

    return cell._replace(
        init_state=init_state,
        project=project,
        advance=advance,
        output=output,
        step=compose_step(project, advance, output),
        gated=None,
        adjoint=None,
        linear=None,
        noise=None,
    )


def _widen(cell: Cell, state: State) -> Any:
    """Returns a state of the tapped cell, from one of the cell."""
    if cell.around is not None:
        return _widen(cell.around.cell, state)
    if cell.layers is not None:
        pairs = zip(cell.layers.cells, state, strict=True)
        return tuple(_widen(child, part) for child, part in pairs)
    first = jax.tree.leaves(state)[0]
    dtype = jnp.finfo(first.dtype).dtype  # of the real part
    return Tapped(state, jnp.zeros((*first.shape[:-1], cell.spec.output_size), dtype))


def _narrow(cell: Cell, state: Any) -> State:
    """Returns the cell's share of a state of the tapped cell."""
    if cell.around is not None:
        return _narrow(cell.around.cell, state)
    if cell.layers is not None:
        pairs = zip(cell.layers.cells, state, strict=True)
        return tuple(_narrow(child, part) for child, part in pairs)
    return state.state


def _join(cell: Cell, noise: Any, zeros: Any) -> Any:
    """Returns the noise of the tapped cell: its own, and what is added."""
    if cell.around is not None:
        if cell.around.rate and noise is not None:
            kept, inner = noise
            return kept, _join(cell.around.cell, inner, zeros)
        return _join(cell.around.cell, noise, zeros)
    if cell.layers is not None:
        children = cell.layers.cells
        parts = (None,) * len(children) if noise is None else noise
        each = zip(children, parts, zeros, strict=True)
        return tuple(_join(child, part, zero) for child, part, zero in each)
    return noise, zeros


def _leaves(cell: Cell, reverse: bool, path: tuple[int, ...] = ()) -> Iterator[_Leaf]:
    """Yields the cells without children, in the order in which they are run."""
    if cell.around is not None:
        yield from _leaves(cell.around.cell, reverse, path)
    elif cell.layers is not None:
        for i, child in enumerate(cell.layers.cells):
            turned = reverse ^ (cell.layers.parallel and i % 2 == 1)
            yield from _leaves(child, turned, (*path, i))
    else:
        yield _Leaf(path, cell, reverse)


# Looking.


def _in_layers(
    leaves: list[_Leaf], lengths: Array | None, tree: Any, backward: bool
) -> NonFinite | None:
    """Looks through each layer in its order of reading, or in that order backwards."""
    for leaf in leaves:
        taps = functools.reduce(lambda part, i: part[i], leaf.path, tree)
        named = [*_named("state", taps.state), ("y", taps.y)]
        named = named[::-1] if backward else named
        steps = np.arange(taps.y.shape[0])
        if leaf.reverse:
            flipped = flip(lengths, len(steps), [array for _, array in named])
            named = [(name, a) for (name, _), a in zip(named, flipped, strict=True)]
        layer = "".join(f"[{i}]" for i in leaf.path)
        found = _first(named, layer, backward)
        if found is not None:
            return _unflip(found, lengths, len(steps)) if leaf.reverse else found
    return None


def _first(
    named: list[tuple[str, Array]], layer: str, backward: bool
) -> NonFinite | None:
    """Finds the first step at which one of several arrays is not finite."""
    arrays = [np.asarray(array) for _, array in named]
    good = [np.isfinite(a).reshape(len(a), -1).all(axis=1) for a in arrays]
    bad = np.logical_not(np.stack(good))
    times = np.flatnonzero(bad.any(axis=0))
    if not times.size:
        return None
    t = int(times[-1 if backward else 0])
    which = int(bad[:, t].argmax())
    return _tell(named[which][0], arrays[which][t], backward, layer, t)


def _unflip(found: NonFinite, lengths: Array | None, steps: int) -> NonFinite:
    """Returns where a step of the reading in reverse stands in the sequence."""
    assert found.step is not None
    length = steps if lengths is None else int(lengths[found.place[: lengths.ndim]])
    step = length - 1 - found.step if found.step < length else found.step
    return found._replace(step=step)


def _in_time(name: str, array: Any, backward: bool = False) -> NonFinite | None:
    return None if array is None else _first([(name, array)], "", backward)


def _whole(name: str, tree: Any, backward: bool = False) -> NonFinite | None:
    for path, leaf in _named(name, tree):
        array = np.asarray(leaf)
        if array.dtype.kind in "biu" or np.isfinite(array).all():
            continue
        return _tell(path, array, backward)
    return None


def _tell(
    name: str,
    array: np.ndarray,
    backward: bool,
    layer: str = "",
    step: int | None = None,
) -> NonFinite:
    index = tuple(int(i) for i in np.argwhere(np.asarray(~np.isfinite(array)))[0])
    return NonFinite(backward, layer, step, name, index, array.item(index))


def _named(name: str, tree: Any) -> list[tuple[str, Array]]:
    return [
        (name + jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _valid(xs: Array, lengths: Array | None, mask: Array | None) -> Array:
    """Returns the inputs that are read, zeros elsewhere."""
    lengths = None if lengths is None else jnp.asarray(lengths)
    return silence(active_steps(xs.shape[0], lengths, mask), xs)
