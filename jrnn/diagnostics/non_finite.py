"""Finds where the first NaN or infinity came from, forwards or backwards.

The cell is run with taps (`jrnn.diagnostics.taps`) at every array, and the arrays are
searched in the order in which they were computed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, Num

from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_array, check_cell, check_params, check_state
from jrnn.core.check_draws import check_key
from jrnn.core.check_inputs import check_elapsed, check_inputs, known_values
from jrnn.core.constants import own_constants
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.flags import active_steps, silence
from jrnn.core.integers import widen_integers
from jrnn.core.seams import noise_of
from jrnn.core.tree import Leaf, leaves
from jrnn.diagnostics.check_losses import Loss, check_loss
from jrnn.diagnostics.taps import tapped, zero_taps
from jrnn.run.order import Reading, Wanted, flip
from jrnn.run.unroll import Given, run, unroll


class NonFinite(NamedTuple):
    """The first array that contained NaN or an infinity.

    Attributes:
      backward: Whether it was a gradient; False: a value.
      layer: The cell, as a path such as "[1]" through stacks and pairs; "" if there is
        only one, or if the array belongs to the whole.
      step: The step, from 0; None for an array without a time axis.
      tensor: The name of the array: "params.W_h", "xs", "state.c", "y", "loss".
      place: The index in that array, without the time axis.
      value: The value there.
    """

    backward: bool
    layer: str
    step: int | None
    tensor: str
    place: tuple[int, ...]
    value: float | complex

    def __str__(self) -> str:
        """Returns a description in one line."""
        kind = "gradient of " if self.backward else ""
        layer = f" of layer {self.layer}" if self.layer else ""
        step = "" if self.step is None else f" at step {self.step}"
        return f"{kind}{self.tensor}{layer}{step}: {self.value} at {self.place}"


@own_constants
def find_non_finite(
    cell: Cell,
    params: Params,
    xs: Num[Array, "T ..."],
    state: State | None = None,
    *,
    loss: Loss | None = None,
    lengths: Integer[Array, "*batch"] | None = None,
    resets: Bool[Array, "T *batch"] | None = None,
    mask: Bool[Array, "T *batch"] | None = None,
    reverse: bool = False,
    key: Key | None = None,
) -> NonFinite | None:
    """Returns the first (layer, step, tensor) that became NaN or infinite.

    The forward search comes first: parameters, inputs, initial state, then layer by
    layer from the bottom, each in the order in which it reads. The result is an origin:
    everything that earlier steps and layers computed was finite; if several arrays of
    one step are not, the first field of the state is reported. With a `loss`, and if
    all values are finite, the backward search follows: the layers from the top, each
    from the last step it read to the first, then the gradients of parameters, inputs
    and initial state.

    It cannot be jitted, as it returns Python numbers; use it on a batch that went
    wrong. Gradients are JAX's own, of the same equations.

    Args:
      cell: As in `jrnn.unroll`.
      params: As in `jrnn.unroll`.
      xs: As in `jrnn.unroll`; padding is ignored.
      state: As in `jrnn.unroll`.
      loss: (final state, outputs) -> scalar; None: only the forward search.
      lengths: As in `jrnn.unroll`.
      resets: As in `jrnn.unroll`.
      mask: As in `jrnn.unroll`.
      reverse: As in `jrnn.unroll`.
      key: As in `jrnn.unroll`: the same noise as there.

    Returns:
      The first non-finite array, or None if everything is finite.

    Raises:
      TypeError: As `jrnn.unroll`.
      ValueError: As `jrnn.unroll`.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.elman(1, 1, activation=jrnn.activations.linear)
      >>> params = jax.tree.map(jnp.ones_like, cell.init(jax.random.key(0)))
      >>> params = params._replace(W_h=params.W_h * 1e20)  # h_1 = 2, h_2 = 2e20
      >>> print(jrnn.diagnostics.find_non_finite(cell, params, jnp.ones((5, 1))))
      state.h at step 2: inf at (0,)
    """
    check_cell(cell)
    xs = widen_integers(check_array("xs", xs))
    check_params(cell, params)
    batch = check_inputs(cell, xs)
    if state is None:
        state = cell.init_state(params, batch)
    state = check_state(cell, state, batch)
    key = check_key(key)
    if loss is not None:
        check_loss(loss, cell, params, xs, state)
    arguments = {
        name: None if given is None else check_array(name, given)
        for name, given in (("lengths", lengths), ("resets", resets), ("mask", mask))
    }
    lengths, resets, mask = arguments.values()
    run = functools.partial(unroll, cell, params, reverse=reverse, key=key, **arguments)
    jax.eval_shape(run, xs, state)  # raises what `unroll` raises
    state = cast_state(state, state_dtype(params, xs))
    read = _valid(xs, lengths, mask)
    for name, tree in (("params", params), ("xs", read), ("state", state)):
        found = _whole(name, tree)
        if found is not None:
            return found
    check_elapsed(cell, known_values(read))
    noise = None if key is None else noise_of(cell, key, xs.shape[0], batch)
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
    reading = Reading(cell, tapped(), Wanted(ys=True, states=False), bool(reverse))
    zeros, cells = zero_taps(cell, params, state, xs), leaves(cell, reverse)

    given = Given(params, xs, state, lengths, resets, mask, noise=noise, guess=zeros)
    shown = run(reading, given)[1]
    found = _in_layers(cells, lengths, shown.report, backward=False)
    found = found or _in_time("y", shown.ys)
    if found is not None or loss is None:
        return found

    def scalar(params: Params, floats: Any, state: State, zeros: Any) -> Array:
        read = xs if floats is None else floats
        moved = given._replace(params=params, xs=read, state=state, guess=zeros)
        final, shown = run(reading, moved)
        return loss(final, shown.ys)

    floats = xs if jnp.issubdtype(xs.dtype, jnp.inexact) else None
    differentiated = jax.value_and_grad(scalar, (0, 1, 2, 3))
    value, slopes = differentiated(params, floats, state, zeros)
    dparams, dxs, dstate, dzeros = slopes
    return (
        _whole("loss", value)
        or _in_layers(cells[::-1], lengths, dzeros, backward=True)
        or _whole("params", dparams, backward=True)
        or _in_time("xs", dxs, backward=True)
        or _whole("state", dstate, backward=True)
    )


def _in_layers(
    leaves: list[Leaf], lengths: Array | None, tree: Any, backward: bool
) -> NonFinite | None:
    """Searches each layer in its order of reading, or in reverse order backwards."""
    for leaf in leaves:
        taps = leaf.share(tree)
        named = [*_named("state", taps.state), ("y", taps.y)]
        named = named[::-1] if backward else named
        steps = len(taps.y)
        if leaf.reverse and backward:  # forward taps are already in reading order
            named = [(name, flip(lengths, steps, array)) for name, array in named]
        found = _first(named, leaf.name, backward)
        if found is not None:
            return _unflip(found, lengths, steps) if leaf.reverse else found
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
    """Converts a step of the reverse reading to its position in the sequence."""
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
    """Returns the inputs, with zeros at inactive steps."""
    return silence(active_steps(xs.shape[0], lengths, mask), xs)
