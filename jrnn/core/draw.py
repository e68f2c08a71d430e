"""Drawing the parameters of a cell, and making its initial state."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import annotated, check_kind, check_size, checked
from jrnn.core.cell import Key, Params, State
from jrnn.core.check_draws import check_dtype
from jrnn.core.dtypes import state_dtype

Initializer = Callable[..., Array]


class OfGates(NamedTuple):
    """An initialiser of the biases of all gates together, if they depend on each other.

    Attributes:
      gates: The names of the gates, in the order of their columns.
      draw: (key, size, dtype) -> the biases, one array of `size` for each gate.
    """

    gates: str
    draw: Callable[..., tuple[Array, ...]]

    def __call__(self, *arguments: Any) -> NoReturn:
        """Raises, because it cannot draw a single array like other initialisers."""
        del arguments
        raise ValueError(
            "Expected an initialiser (key, shape, dtype), got one for the biases of "
            f"the gates {self.gates}, which jrnn.lstm or jrnn.gru takes as "
            "bias_init, or another cell with these gates."
        )


class Weight(NamedTuple):
    """One array of a cell's parameters, and its initialisation.

    Attributes:
      init: An initialiser (key, shape, dtype) -> array, called once for each gate; or
        a constant for all entries, which uses no key.
      shape: Of one gate's array.
      gates: The number of gates, concatenated along the last axis; or their names, such
        as "r z n", for biases that one initialiser may draw all together
        (`jrnn.initializers.chrono_gru`).
      plus: (gate, number): a number added to one gate's part, such as a forget gate's
        bias.
    """

    init: Initializer | OfGates | float
    shape: tuple[int, ...]
    gates: int | str = 1
    plus: tuple[int, float] | None = None


class Field(NamedTuple):
    """One array of a cell's state, and its initial value.

    Attributes:
      shape: Without batch axes.
      complex: Whether it is complex.
      start: The initial value of every entry.
    """

    shape: tuple[int, ...]
    complex: bool = False
    start: float = 0.0


def draw(
    initializer: Initializer | OfGates,
    key: Key,
    shape: tuple[int, ...],
    dtype: DTypeLike | None,
    gates: int | str = 1,
) -> Array:
    """Draws one array of `shape` per gate, and concatenates them.

    Gates are drawn separately, because the parts of one orthogonal matrix over (H, 4H)
    would be nearly singular; and in at least float32, because not every initialiser
    supports narrow types.

    Args:
      initializer: (key, shape, dtype) -> array.
      key: Of the draw.
      shape: Of one gate's array.
      dtype: Of the result; None: float32.
      gates: How many gates; or their names, for biases that one initialiser may draw
        all together.

    Raises:
      TypeError: `dtype` is not a floating type.
      ValueError: `initializer` draws the biases of other gates.
    """
    dtype, wide = drawn_in(dtype)
    if isinstance(gates, str) and isinstance(initializer, OfGates):
        _check_gates(initializer, gates)
        arrays = initializer.draw(key, shape[-1], wide)
    else:
        number = count(gates)
        keys = jax.random.split(key, number)
        arrays = [initializer(keys[gate], shape, wide) for gate in range(number)]
    return jnp.concatenate(arrays, axis=-1).astype(dtype)


def count(gates: int | str) -> int:
    """Returns the number of gates, given the number or their names."""
    return len(gates.split()) if isinstance(gates, str) else gates


def _check_gates(initializer: OfGates, gates: str) -> None:
    if initializer.gates != gates:
        raise ValueError(
            f"Expected an initialiser for the gates {gates}, got one for "
            f"{initializer.gates}; jrnn.initializers.chrono_lstm is for jrnn.lstm, "
            "chrono_gru for jrnn.gru, para_gru for jrnn.cells.diagonal_gru, and "
            "para_lstm for jrnn.cells.diagonal_lstm with coupled=True."
        )


def of_no_gate(initializer: Initializer | OfGates) -> Initializer:
    """Returns an initialiser for a bias of no gate: zeros in place of an `OfGates`."""
    zeros = jax.nn.initializers.zeros
    return zeros if isinstance(initializer, OfGates) else initializer


def drawn_in(dtype: DTypeLike | None) -> tuple[jnp.dtype, jnp.dtype]:
    """Returns the dtype of parameters, and the dtype in which to draw them."""
    dtype = check_dtype(dtype)
    return dtype, jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


@checked
def drawn(
    params: Callable[..., Params], **weights: Weight | None
) -> Callable[..., Params]:
    """Returns the `init` of a cell, which draws each weight with its own key.

    Args:
      params: The NamedTuple of the parameters.
      **weights: Its fields, in the order in which they get keys; None for an absent
        array, which uses a key too.

    Returns:
      (key, dtype=None) -> params, in float32 by default.

    Raises:
      TypeError: A weight is not a `Weight`, or the fields are not those of `params`.
      ValueError: `plus` names a gate that does not exist, or a weight has no gate or
        no axis.

    Example:
      >>> import collections, jax, jrnn
      >>> from jrnn.cells import Weight, drawn
      >>> Own = collections.namedtuple("Own", "W_x b")
      >>> init = drawn(Own, W_x=Weight(jax.nn.initializers.normal(), (3, 4)), b=None)
      >>> init(jax.random.key(0)).W_x.shape
      (3, 4)
    """
    _check_fields("params", params, weights)
    for name, weight in weights.items():
        if weight is not None:
            _check_weight(name, weight)

    def init(key: Key, dtype: DTypeLike | None = None) -> Params:
        random = [n for n, w in weights.items() if w is None or callable(w.init)]
        keys = dict(zip(random, jax.random.split(key, len(random)), strict=True))
        arrays = {
            name: None if weight is None else _draw(weight, keys.get(name, key), dtype)
            for name, weight in weights.items()
        }
        return params(**arrays)

    return init


def _check_weight(name: str, weight: Weight) -> None:
    gates = check_size(f"the gates of {name}", count(weight.gates))
    if not weight.shape:
        raise ValueError(f"Expected {name}.shape to have at least one axis, got ().")
    if weight.plus is not None and not 0 <= weight.plus[0] < gates:
        raise ValueError(
            f"Expected the gate of {name}.plus within 0..{gates - 1}, got "
            f"{weight.plus[0]}."
        )


def _check_fields(name: str, made: Callable[..., Any], given: dict[str, Any]) -> None:
    """Raises TypeError unless `made` accepts `given` as keyword arguments."""
    signature = annotated(made)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise TypeError(
            f"Expected the fields of {name}, {', '.join(signature.parameters)}, got "
            f"{', '.join(given) or 'none'}."
        ) from error


def _draw(weight: Weight, key: Key, dtype: DTypeLike | None) -> Array:
    size = weight.shape[-1]
    if callable(weight.init):
        array = draw(weight.init, key, weight.shape, dtype, weight.gates)
    else:
        shape = (*weight.shape[:-1], count(weight.gates) * size)
        array = jnp.full(shape, weight.init, drawn_in(dtype)[0])
    if weight.plus is None:
        return array
    gate, number = weight.plus
    return array.at[..., gate * size : (gate + 1) * size].add(number)


@checked
def initial(state: Callable[..., State], **fields: int | Field) -> Callable[..., State]:
    """Returns the `init_state` of a cell: zeros, unless a `Field` has another start.

    Args:
      state: The NamedTuple of the state.
      **fields: Its fields: the size of a vector, or a `Field`.

    Returns:
      (params, batch_shape=()) -> state, in the dtype of a state for these parameters.

    Raises:
      TypeError: A field is not a size or a `Field`, or the fields are not those of
        `state`.

    Example:
      >>> import collections, jax.numpy as jnp
      >>> from jrnn.cells import Field, initial
      >>> Own = collections.namedtuple("Own", "h S")
      >>> init_state = initial(Own, h=4, S=Field((4, 2), complex=True))
      >>> init_state(jnp.ones(3), (5,)).S.shape
      (5, 4, 2)
    """
    _check_fields("state", state, fields)
    each = {
        name: field if isinstance(field, Field) else Field((field,))
        for name, field in fields.items()
    }
    for name, field in each.items():
        check_kind(name, field, Field, classes=True)

    def init_state(params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        dtype = state_dtype(params)

        def start(field: Field) -> Array:
            array = jnp.full((*batch_shape, *field.shape), field.start, dtype)
            if not field.complex:
                return array
            return jax.lax.complex(array, jnp.zeros_like(array))

        return state(**{name: start(field) for name, field in each.items()})

    return init_state
