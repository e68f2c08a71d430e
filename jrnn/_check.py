"""Static mistakes, found before anything is traced into a loop.

Each check says what was expected, what came, and the remedy.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jrnn._base import Cell, Method, Params, State, tell
from jrnn._caches import bounded
from jrnn._check_kinds import dtype_of, fit_kind, shape_of, sketch, told_type
from jrnn._integers import as_array, widen_integers
from jrnn._lengths import check_countable


def is_traced(array: Any) -> bool:
    """Returns whether the values of `array` are not known yet, as under `jax.jit`."""
    return isinstance(array, Tracer)


def check_cell(cell: Any, name: str = "cell") -> None:
    """Raises TypeError unless `cell` is a cell."""
    if not isinstance(cell, Cell):
        place = "" if name == "cell" else f" as {name}"
        raise TypeError(
            f"Expected a Cell{place}, made by a factory such as jrnn.lstm(3, 4), got "
            f"{type(cell).__name__}."
        )


def check_pair(cells: Any) -> None:
    """Raises TypeError unless `cells` is a tuple of two cells."""
    pair = isinstance(cells, tuple | list) and not isinstance(cells, Cell)
    if not pair or len(cells) != 2 or not all(isinstance(c, Cell) for c in cells):
        kinds = [type(cell).__name__ for cell in cells] if pair else []
        shown = f"({', '.join(kinds)})" if pair else type(cells).__name__
        raise TypeError(
            "Expected two cells, (forwards, in reverse), each with its parameters, got "
            f"{shown}; jrnn.unroll runs one."
        )


def check_two(name: str, value: Any) -> tuple[Any, Any]:
    """Returns what belongs to two cells as a tuple, or raises unless it is two."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        shown = f"{len(value)}" if isinstance(value, tuple | list) else tell(value)
        raise TypeError(f"Expected {name} to be two, one for each cell, got {shown}.")
    return tuple(value)


def check_array(name: str, value: Any) -> Array:
    """Returns `value` as an array, or raises TypeError where it is none."""
    if isinstance(value, jax.Array):
        return value
    try:
        return as_array(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"Expected {name} to be an array, got {type(value).__name__}; make one of "
            "it with jnp.asarray, or pad sequences of unequal length with "
            "jrnn.batching."
        ) from error


def check_method(method: Any) -> None:
    """Raises TypeError unless `method` is a method."""
    if not isinstance(method, Method):
        shown = getattr(method, "__name__", tell(method))
        raise TypeError(
            f"Expected a Method, made by a factory such as jrnn.bptt(), got {shown}; a "
            "factory must be called."
        )


@bounded
def _expected_params(cell: Cell) -> Params:
    return jax.eval_shape(lambda: cell.init(jax.random.key(0)))


@bounded
def _expected_state(cell: Cell) -> State:
    """Returns a state without batch axes, which stand in front of each array's."""
    return jax.eval_shape(lambda: cell.init_state(cell.init(jax.random.key(0))))


Signature = tuple[Hashable, ...]


def signature_of(static: Hashable, *trees: Any) -> Signature | None:
    """Returns what static mistakes depend on: structures, shapes and types.

    None where a leaf is no array, so that there is something to look at every time.
    """
    leaves, structure = jax.tree.flatten(trees)
    try:
        shown = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
    except AttributeError:
        return None
    return static, structure, shown


def passed_before(static: Hashable, *trees: Any) -> list[bool]:
    """Returns a list that is empty until arguments like these have passed all checks.

    What was found right once costs one look-up from then on.
    """
    signature = signature_of(static, *trees)
    if signature is None:
        return []
    try:
        return _passed(signature)
    except ValueError:  # sizes that are symbols cannot be compared across scopes
        return []


@bounded
def _passed(signature: Signature) -> list[bool]:
    del signature
    return []


def check_params(cell: Cell, params: Params) -> None:
    """Raises ValueError unless `params` has the structure and shapes of `cell.init`."""
    check_like("params", params, _expected_params(cell), lambda: f"{cell}.init(key)")
    check_floating("params", params)


def check_floating(name: str, params: Params) -> None:
    """Raises TypeError unless all parameters are of floating types."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = dtype_of(leaf)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"Expected floating parameters, got {name}{_name(path)} of type "
                f"{told_type(leaf)}; cast it to a floating type."
            )


def check_inputs(cell: Cell, xs: Array) -> tuple[int, ...]:
    """Returns the batch shape of `xs`, or raises an error that names the remedy."""
    size = cell.spec.input_size
    if jnp.issubdtype(xs.dtype, jnp.integer):
        return _check_tokens(xs, size)
    _check_floating("xs", xs)
    if xs.ndim < 2 or xs.shape[-1] != size:
        raise ValueError(
            f"Expected xs of shape (T, *batch, {size}) for {cell}, or integer token "
            f"ids of shape (T, *batch), got shape {xs.shape} of type {xs.dtype}."
        )
    _check_steps(xs)
    return xs.shape[1:-1]


def _check_floating(name: str, x: Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"Expected {name} of a floating type, or integer token ids, got {x.dtype}; "
            f"cast it with {name}.astype(jnp.float32)."
        )


def _check_tokens(xs: Array, size: int) -> tuple[int, ...]:
    if xs.ndim < 1:
        raise ValueError(
            "Expected token ids of shape (T, *batch), got a scalar; a sequence of one "
            "step is xs[None]."
        )
    if xs.ndim > 2 and xs.shape[-1] == size:
        raise TypeError(
            f"Expected floating features, or token ids of shape (T, *batch), got "
            f"{xs.dtype} of shape {xs.shape}, whose last axis is the input size "
            f"{size}: cast features with xs.astype(jnp.float32); for token ids put "
            "the batch axes together with xs.reshape(len(xs), -1)."
        )
    _check_steps(xs)
    return xs.shape[1:]


def check_ids(name: str, ids: Array | np.ndarray, size: int) -> None:
    """Raises ValueError where concrete token ids lie outside 0..size-1."""
    if is_traced(ids) or ids.size == 0:
        return
    known = _fetch(ids)
    if known.min() < 0 or known.max() >= size:
        where = np.argwhere((known < 0) | (known >= size))[0]
        raise ValueError(
            f"Expected token ids of {name} within 0..{size - 1}, got "
            f"{known[tuple(where)]} at position {tuple(map(int, where))}; make the "
            "cell's input_size the size of the vocabulary, or map unknown symbols."
        )


def known_values(array: Any) -> np.ndarray | None:
    """Returns the values of `array`; None where this process cannot know them."""
    if is_traced(array) or not getattr(array, "is_fully_addressable", True):
        return None
    return _fetch(array)


def _fetch(array: Array | np.ndarray) -> np.ndarray:
    """Returns concrete values, by an explicit transfer, which a transfer guard allows.

    Values that lie on a CPU are not transferred: for them `jax.device_get` would be the
    larger part of what an eager call with lengths costs.
    """
    devices = array.devices() if isinstance(array, jax.Array) else ()
    here = all(device.platform == "cpu" for device in devices)
    return np.asarray(array if here else jax.device_get(array))


def known_inputs(xs: Array, lengths: Any, mask: Any) -> np.ndarray | None:
    """Returns the values of inputs, 0 where they are not read; None: not known."""
    known = known_values(xs)
    read = True if mask is None else known_values(mask)
    ends = None if lengths is None else known_values(lengths)
    if known is None or read is None or (ends is None and lengths is not None):
        return None
    if ends is not None:
        read = read & (np.arange(len(known)).reshape(-1, *(1,) * ends.ndim) < ends)
    if read is True:
        return known
    over = read.reshape(read.shape + (1,) * (known.ndim - read.ndim))
    return np.where(over, known, np.zeros((), known.dtype))


def check_elapsed(cell: Cell, known: np.ndarray | None) -> None:
    """Raises ValueError where a concrete time gone by is negative, NaN or infinite."""
    if cell.elapsed is None or known is None or known.dtype.kind in "biu":
        return
    check_times(known[..., cell.elapsed], cell)


def check_times(times: np.ndarray, cell: Any) -> None:
    """Raises ValueError where a time gone by is negative, NaN or infinite."""
    wrong = ~((times >= 0) & (times < np.inf))
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"Expected elapsed times of at least 0, finite, in the inputs of {cell}, "
            f"got {times[where]} at position {where}; pass the time since the step "
            "before, which is 0 where two come at once."
        )


def check_no_elapsed(name: str, cell: Cell, reason: str) -> None:
    """Raises ValueError for a cell that reads elapsed time where none can come."""
    if cell.elapsed is not None:
        raise ValueError(
            f"Expected a cell without an input feature that is elapsed time in {name}, "
            f"got {cell}: {reason}."
        )


def _check_steps(xs: Array) -> None:
    if xs.shape[0] == 0:
        raise ValueError(
            f"Expected a sequence of at least one step, got xs of shape {xs.shape}; "
            "time is axis 0."
        )


def check_input(cell: Cell, x: Array) -> tuple[int, ...]:
    """Returns the batch shape of one step's input, or raises."""
    size = cell.spec.input_size
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x.shape
    _check_floating("x", x)
    if x.ndim < 1 or x.shape[-1] != size:
        raise ValueError(
            f"Expected x of shape (*batch, {size}) for {cell}, or integer token ids of "
            f"shape (*batch,), got shape {x.shape} of type {x.dtype}."
        )
    return x.shape[:-1]


def check_state(cell: Cell, state: State, batch: tuple) -> State:
    """Returns a state of the numbers that the cell's has, or raises.

    What is real becomes complex where the cell's state is.

    Raises:
      TypeError: An array is complex where the cell's is real, or not of floats.
      ValueError: It does not fit the cell and the batch shape.
    """
    source = lambda: f"{cell}.init_state(params, {batch})"
    return fit_state("state", state, _expected_state(cell), batch, source)


def check_guess(cell: Cell, guess: State, steps: int, batch: tuple) -> State:
    """Returns a trajectory of the cell, as `check_state` returns a state."""
    source = lambda: f"jrnn.trajectory({cell}, ...)"
    return fit_state("guess", guess, _expected_state(cell), (steps, *batch), source)


def fit_state(name: str, state: Any, like: Any, lead: tuple, source: "Source") -> Any:
    """Returns a state of the numbers of `like`, which lacks the leading axes."""
    spread = lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype)
    check_like(name, state, jax.tree.map(spread, like), source)
    fit = lambda path, leaf, want: fit_kind(name + _name(path), leaf, want.dtype)
    return jax.tree_util.tree_map_with_path(fit, state, like)


def check_lengths(lengths: Any, steps: int, batch: tuple[int, ...]) -> Array:
    """Returns lengths, widened; raises unless integer, (*batch,) and within 0..T."""
    lengths = check_array("lengths", lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(
            f"Expected integer lengths, got {lengths.dtype}; cast them with "
            "lengths.astype(jnp.int32)."
        )
    _check_shape("lengths", lengths, batch, "(*batch,)")
    check_countable(steps, "lengths")
    check_length_values(lengths, steps)
    return widen_integers(lengths)


def check_length_values(lengths: Array, steps: int) -> None:
    """Raises ValueError where a concrete length is not within 0..T."""
    known = known_values(lengths)  # jnp would be traced as `unroll` is
    if known is None or known.size == 0:
        return
    least, most = int(known.min()), int(known.max())
    if least < 0 or most > steps:
        raise ValueError(
            f"Expected lengths within 0..{steps}, the number of steps in xs, got "
            f"values from {least} to {most}."
        )


def check_flags(name: str, flags: Array | None, steps: int, batch: tuple) -> None:
    """Raises an error unless `flags` is None, or boolean and of shape (T, *batch)."""
    if flags is None:
        return
    if flags.dtype != jnp.bool_:
        meaning = "a segment begins" if name == "resets" else "a step counts"
        raise TypeError(
            f"Expected {name} to be boolean, True where {meaning}, got {flags.dtype}; "
            "compare with 0 to make it so."
        )
    _check_shape(name, flags, (steps, *batch), "(T, *batch)")


def check_counted(
    name: str, values: Any, lengths: Any, mask: Any
) -> tuple[Array, Array | None, Array | None]:
    """Returns one number per step, (T, *batch), and which steps count, as arrays."""
    values = check_array(name, values)
    kinds = jnp.number, jnp.bool_
    if not any(jnp.issubdtype(values.dtype, kind) for kind in kinds):
        raise TypeError(f"Expected {name} to be numbers, got {values.dtype}.")
    if values.ndim < 1:
        raise ValueError(f"Expected {name} of shape (T, *batch), got a scalar.")
    steps, batch = values.shape[0], values.shape[1:]
    if lengths is not None:
        lengths = check_array("lengths", lengths)
        check_lengths(lengths, steps, batch)
    mask = None if mask is None else check_array("mask", mask)
    check_flags("mask", mask, steps, batch)
    return values, lengths, mask


def check_rate(name: str, rate: Any) -> None:
    """Raises ValueError unless `rate` is a number in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"Expected {name} in [0, 1), got {tell(rate)}.")


def check_features(name: str, x: Any) -> None:
    """Raises TypeError where token ids come to a cell that needs features."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(
            f"Expected floating inputs to {name}, got {jnp.result_type(x)}: token ids "
            "are no features; stack it on a cell that reads them."
        )


def _check_shape(name: str, array: Array, shape: tuple[int, ...], words: str) -> None:
    if array.shape != shape:
        raise ValueError(
            f"Expected {name} of shape {words} = {shape}, got {array.shape}."
        )


Source = str | Callable[[], str]  # what makes the right one, told only of a mistake


def _told(source: Source) -> str:
    return source if isinstance(source, str) else source()


def check_like(name: str, got: Any, expected: Any, source: Source) -> None:
    """Compares structure and shapes, not types; `source` tells what makes the right."""
    if jax.tree.structure(got) != jax.tree.structure(expected):
        raise ValueError(
            f"Expected {name} with the structure that {_told(source)} returns, "
            f"{sketch(expected)}, got {sketch(got)}."
        )
    wanted = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), leaf in zip(wanted, jax.tree.leaves(got), strict=True):
        if shape_of(leaf) != want.shape:
            raise ValueError(
                f"Expected {name}{_name(path)} of shape {want.shape}, as "
                f"{_told(source)} returns, got {shape_of(leaf)}."
            )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path)


def check_tokens(xs: Any, name: str = "xs") -> Array:
    """Returns token ids, widened, or raises unless integer and (T, *batch)."""
    xs = check_array(name, xs)
    if not jnp.issubdtype(xs.dtype, jnp.integer):
        raise TypeError(
            f"Expected {name} to be integer token ids of shape (T, *batch), got "
            f"{xs.dtype} of shape {xs.shape}."
        )
    check_steps(xs, name=name)
    return widen_integers(xs)


def check_steps(
    xs: Array, event: tuple[int, ...] = (), name: str = "xs"
) -> tuple[int, ...]:
    """Returns the batch shape of symbols, or raises where there is no step."""
    if xs.ndim < 1 + len(event) or xs.shape[0] == 0:
        shape = ", ".join(["(T, *batch", *map(str, event)])
        raise ValueError(
            f"Expected {name} to be a sequence of at least one symbol, {shape}), got "
            f"shape {xs.shape}."
        )
    return xs.shape[1 : xs.ndim - len(event)]


def check_prompt(
    prompt: Array, batch_shape: tuple[int, ...], event: tuple[int, ...] = ()
) -> Array:
    """Returns a prompt (P, *batch, *event); one without batch axes serves all.

    P may be 0: a prompt without symbols still says how many sequences there are.
    """
    if prompt.ndim < 1 + len(event):
        shape = ", ".join(["(P, *batch", *map(str, event)])
        raise ValueError(
            f"Expected a prompt of shape {shape}), time first, got {prompt.shape}."
        )
    steps, batch = prompt.shape[0], prompt.shape[1 : prompt.ndim - len(event)]
    if not batch and batch_shape:
        prompt = prompt.reshape(steps, *(1,) * len(batch_shape), *event)
        return jnp.broadcast_to(prompt, (steps, *batch_shape, *event))
    if batch_shape and batch != tuple(batch_shape):
        raise ValueError(
            f"Expected a prompt of shape (P,) or (P, *batch_shape) = (P, "
            f"{', '.join(map(str, batch_shape))}), got {prompt.shape}; leave "
            "batch_shape out, or make it, or the state's, the prompt's."
        )
    return prompt
