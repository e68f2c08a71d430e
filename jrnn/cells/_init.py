"""Initialisers shared by the cells: one constant for each default.

`jax.nn.initializers.orthogonal()` returns a new, unequal function at each call, so the
defaults are made once, here: equal arguments then give the identical cell.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn._base import Key
from jrnn._check_draws import check_batch_shape, check_dtype, check_given_key

Initializer = Callable[..., Array]

# Variance 1 / input_size (LeCun et al. 1998, Efficient BackProp, section 4.6).
LECUN_NORMAL: Initializer = jax.nn.initializers.lecun_normal()
# All singular values 1: a step neither shrinks nor stretches (Saxe et al. 2014).
ORTHOGONAL: Initializer = jax.nn.initializers.orthogonal()
ZEROS: Initializer = jax.nn.initializers.zeros


def checked(initializer: Initializer) -> Initializer:
    """Makes an initialiser of jrnn's check what it is given."""

    @functools.wraps(initializer)
    def draw(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        key = check_given_key(key)
        shape = check_batch_shape(shape, "shape")
        return initializer(key, shape, check_dtype(dtype))

    return draw


@checked
def one_hot_normal(
    key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Draws a W_x for token ids: independent standard normal numbers.

    Of k inputs exactly one is 1, so one row of W_x is all that a unit sums, and the
    variance that keeps the sum's at 1 is 1, where the default, meant for k features,
    takes 1 / k and lets the symbols whisper (LeCun et al. 1998, Efficient BackProp,
    section 4.6, for one term).

    Args:
      key: Of the draw.
      shape: (k, h) for each gate.
      dtype: Of the result.

    Returns:
      An array of that shape and type.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(69, 128, input_init=jrnn.one_hot_normal)
      >>> round(float(cell.init(jax.random.key(0)).W_x.std()), 1)
      1.0
    """
    return jax.random.normal(key, shape, dtype)


@checked
def henaff(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws A so that expm(A - A^T) turns planes by uniform angles.

    A pair of units for each plane, and angles from (-pi, pi), so that the eigenvalues
    are uniform on the unit circle (M. Henaff et al., ICML 2016,
    https://arxiv.org/abs/1602.06662); a unit without a partner keeps still.

    Args:
      key: Of the draw.
      shape: (h, h).
      dtype: Of the result.

    Returns:
      A, zero but for every second entry above the diagonal.

    Raises:
      ValueError: `shape` is not that of a square matrix.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.exp_rnn(3, 4, recurrent_init=jrnn.initializers.henaff)
      >>> cell.init(jax.random.key(0)).A.shape
      (4, 4)
    """
    angles = jax.random.uniform(key, (_planes(shape),), dtype, -math.pi, math.pi)
    return _blocks(angles, shape[0])


@checked
def cayley(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws A so that expm(A - A^T) turns planes by angles of at most 1.

    The angles are -tan(theta / 2), theta uniform in (0, pi / 2): what the Cayley map
    takes to an angle of theta (K. Helfrich et al., ICML 2018,
    https://arxiv.org/abs/1707.09520). Slower than `henaff`'s, for slower features.

    Args:
      key: Of the draw.
      shape: (h, h).
      dtype: Of the result.

    Returns:
      A, zero but for every second entry above the diagonal.

    Raises:
      ValueError: `shape` is not that of a square matrix.

    Example:
      >>> import jax, jrnn
      >>> A = jrnn.initializers.cayley(jax.random.key(0), (4, 4))
      >>> bool((A <= 0).all() & (A > -1).all())
      True
    """
    theta = jax.random.uniform(key, (_planes(shape),), dtype, 0, math.pi / 2)
    return _blocks(-jnp.tan(theta / 2), shape[0])


def _planes(shape: tuple[int, ...]) -> int:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"Expected the shape of a square matrix, got {shape}; draw W_x and biases "
            "by another initialiser."
        )
    return shape[0] // 2


def _blocks(angles: Array, size: int) -> Array:
    first = 2 * jnp.arange(angles.size)
    return jnp.zeros((size, size), angles.dtype).at[first, first + 1].set(angles)


class OfGates(NamedTuple):
    """An initialiser of the biases of all gates at once, for they hang together.

    Attributes:
      gates: Their names, in the order in which they stand side by side.
      draw: (key, size, dtype) -> the biases, one array of `size` for each gate.
    """

    gates: str
    draw: Callable[..., tuple[Array, ...]]

    def __call__(self, *arguments: Any) -> NoReturn:
        """Refuses to draw one array, as other initialisers do."""
        del arguments
        raise ValueError(
            "Expected an initialiser (key, shape, dtype), got one for the biases of "
            f"the gates {self.gates}, which jrnn.lstm or jrnn.gru takes as "
            "bias_init, or another cell with these gates."
        )


def small_normal(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Normal with variance 4 / 5h, as ParaRNN draws the recurrent weights of a gate."""
    return jax.random.normal(key, shape, dtype) * (0.8 / shape[-1]) ** 0.5


def draw(
    initializer: Initializer,
    key: Key,
    shape: tuple[int, ...],
    dtype: DTypeLike | None,
    gates: int = 1,
) -> Array:
    """Draws one array of `shape` per gate and puts them side by side.

    Each gate is drawn on its own, for an orthogonal matrix over (H, 4H) would leave
    the gates nearly singular, and in at least float32, for not every initialiser
    knows the narrow types.

    Raises:
      TypeError: `dtype` is not a floating type.
      ValueError: `initializer` draws biases of several gates.
    """
    dtype, wide = drawn_in(dtype)
    keys = jax.random.split(key, gates)
    drawn = [initializer(keys[gate], shape, wide) for gate in range(gates)]
    return jnp.concatenate(drawn, axis=-1).astype(dtype)


def draw_biases(
    initializer: Initializer | OfGates,
    key: Key,
    size: int,
    dtype: DTypeLike | None,
    gates: str,
) -> Array:
    """Draws the biases of `gates`, each on its own, or by one that draws them all.

    Raises:
      TypeError: `dtype` is not a floating type.
      ValueError: The initialiser is made for other gates.
    """
    names = gates.split()
    if not isinstance(initializer, OfGates):
        return draw(initializer, key, (size,), dtype, gates=len(names))
    if initializer.gates != gates:
        raise ValueError(
            f"Expected an initialiser for the gates {gates}, got one for "
            f"{initializer.gates}; jrnn.initializers.chrono_lstm is for jrnn.lstm, "
            "chrono_gru for jrnn.gru, para_gru for jrnn.diagonal_gru, and para_lstm "
            "for jrnn.diagonal_lstm with coupled=True."
        )
    dtype, wide = drawn_in(dtype)
    return jnp.concatenate(initializer.draw(key, size, wide)).astype(dtype)


def of_no_gate(initializer: Initializer | OfGates) -> Initializer:
    """Returns what draws a bias that is none of the gates': zeros beside `OfGates`."""
    return ZEROS if isinstance(initializer, OfGates) else initializer


def drawn_in(dtype: DTypeLike | None) -> tuple[jnp.dtype, jnp.dtype]:
    """Returns the type of parameters, and the one that they are drawn in."""
    dtype = check_dtype(dtype)
    return dtype, jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype
