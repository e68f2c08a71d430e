"""Default initialisers of cells, and alternatives.

Most are those of the authors' published code; each cell's file says which it uses, and
how that compares with its authors' code. `jax.nn.initializers.orthogonal()` returns a
new, unequal function at each call, so the defaults are made once, here: equal arguments
then give the identical cell.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.cell import Key
from jrnn.core.check_draws import check_batch_shape, check_dtype, check_given_key
from jrnn.core.draw import Initializer, OfGates
from jrnn.core.memoize import memoize

# Variance 1 / input_size (LeCun et al. 1998, Efficient BackProp, section 4.6).
LECUN_NORMAL: Initializer = jax.nn.initializers.lecun_normal()
# All singular values are 1, so a product preserves norms (Saxe et al. 2014).
ORTHOGONAL: Initializer = jax.nn.initializers.orthogonal()
ZEROS: Initializer = jax.nn.initializers.zeros
# Named by variance, for fan-in k.
_scaled = jax.nn.initializers.variance_scaling
FAN_IN_NORMAL: Initializer = _scaled(1.0, "fan_in", "normal")  # 1 / k, not truncated
FAN_IN_UNIFORM: Initializer = _scaled(1.0, "fan_in", "uniform")  # 1 / k
HE_NORMAL: Initializer = _scaled(2.0, "fan_in", "normal")  # 2 / k
# Within +-1/sqrt(k): the weights of PyTorch's nn.Linear.
LINEAR_UNIFORM: Initializer = _scaled(1 / 3, "fan_in", "uniform")
GLOROT_UNIFORM: Initializer = jax.nn.initializers.glorot_uniform()

# c of an RG-LRU, which makes small changes of Lambda large changes of the decay (De et
# al. 2024, section 2.4).
SHARPNESS = 8.0


def checked(initializer: Initializer) -> Initializer:
    """Makes an initialiser check its arguments."""

    @functools.wraps(initializer)
    def draw(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        key = check_given_key(key)
        shape = check_batch_shape(shape, "shape")
        return initializer(key, shape, check_dtype(dtype))

    return draw


@checked
def embedding(
    key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Draws a W_x for token ids: independent standard normal numbers.

    A token id selects one row of W_x, so x_t W_x has variance 1 if the entries of W_x
    have. The default is meant for k features: its variance of 1 / k makes token inputs
    too small by a factor of sqrt(k) (LeCun et al. 1998, Efficient BackProp, section
    4.6, for one term).

    Args:
      key: Of the draw.
      shape: (k, h) for each gate.
      dtype: Of the result.

    Returns:
      An array of that shape and type.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(69, 128, input_init=jrnn.initializers.embedding)
      >>> round(float(cell.init(jax.random.key(0)).W_x.std()), 1)
      1.0
    """
    return jax.random.normal(key, shape, dtype)


@checked
def henaff(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws A so that expm(A - A^T) rotates planes by uniform angles.

    Each pair of units is a plane, and angles are uniform in (-pi, pi), so that the
    eigenvalues are uniform on the unit circle (M. Henaff et al., ICML 2016,
    https://arxiv.org/abs/1602.06662); a unit without a partner is not rotated.

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
      >>> cell = jrnn.cells.exp_rnn(3, 4, recurrent_init=jrnn.initializers.henaff)
      >>> cell.init(jax.random.key(0)).A.shape
      (4, 4)
    """
    angles = jax.random.uniform(key, (_planes(shape),), dtype, -math.pi, math.pi)
    return _blocks(angles, shape[0])


@checked
def cayley(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws A so that expm(A - A^T) rotates planes by angles of at most 1.

    The angles are -tan(theta / 2), theta uniform in (0, pi / 2), the number that the
    Cayley map takes to an angle of theta (K. Helfrich et al., ICML 2018,
    https://arxiv.org/abs/1707.09520). Rotations are slower than with `henaff`, for
    slower features.

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


def small_normal(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draws normal numbers of variance 4 / 5h, as ParaRNN draws a gate's weights."""
    return jax.random.normal(key, shape, dtype) * (0.8 / shape[-1]) ** 0.5


@memoize
def uniform(bound: float) -> Initializer:
    """Makes the initialiser that draws uniformly between -bound and bound.

    Args:
      bound: Above 0.

    Returns:
      An initialiser.

    Raises:
      TypeError: `bound` is not a number.
      ValueError: `bound` is not above 0.

    Example:
      >>> import jax, jrnn
      >>> b = jrnn.initializers.uniform(0.01)(jax.random.key(0), (1000,))
      >>> bool((abs(b) <= 0.01).all())
      True
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"Expected bound above 0, got {bound!r}.")

    def draw(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def sum_of_two(initializer: Initializer) -> Initializer:
    """Returns an initialiser of the sum of two biases that other libraries separate."""

    def draw(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        first, second = jax.random.split(key)
        return initializer(first, shape, dtype) + initializer(second, shape, dtype)

    return draw


@checked
def diagonal_normal(
    key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Draws a diagonal matrix of standard normal numbers.

    For D of `jrnn.cells.lru` and `jrnn.cells.s5`, whose authors' code has only a
    diagonal.

    Args:
      key: Of the draw.
      shape: (k, k).
      dtype: Of the result.

    Returns:
      A diagonal matrix.

    Raises:
      TypeError: `key` is not a key, `shape` not a tuple, or `dtype` not floating.
      ValueError: `shape` is not that of a square matrix.

    Example:
      >>> import jax, jrnn
      >>> D = jrnn.initializers.diagonal_normal(jax.random.key(0), (3, 3))
      >>> int((D != 0).sum())
      3
    """
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"Expected the shape of a square matrix, got {shape}; use this "
            "initialiser for D, where the sizes of inputs and outputs agree."
        )
    return jnp.diag(jax.random.normal(key, shape[:1], dtype))


def skip_normal(
    key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Draws by `diagonal_normal` if square, else normal numbers of variance 1 / k."""
    square = shape[0] == shape[1]
    return (diagonal_normal if square else FAN_IN_NORMAL)(key, shape, dtype)


@memoize
def ring(r_min: float, r_max: float) -> Initializer:
    """Makes the initialiser of Lambda that draws sigmoid(Lambda) from a ring.

    Uniform over the area of a ring in the complex plane, as in RecurrentGemma's code:
    sigmoid(Lambda)^2 is uniform between r_min^2 and r_max^2.
    """

    def draw(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        square = jax.random.uniform(key, shape, dtype, r_min**2, r_max**2)
        return _logit(0.5 * jnp.log(square))

    return draw


@memoize
def strongest_decay(least: float = 0.9, largest: float = 0.999) -> Initializer:
    """Makes the initialiser of Lambda in `jrnn.cells.rg_lru` that its paper describes.

    The strongest decay that the gate can select, sigmoid(Lambda)^8, is uniform in
    [least, largest] (De et al. 2024, section 2.4, https://arxiv.org/abs/2402.19427).
    The authors' code, and `jrnn.cells.rg_lru` by default, draws sigmoid(Lambda) itself
    from that range, so that states decay eight times faster.

    Args:
      least: Above 0.
      largest: Below 1.

    Returns:
      An initialiser.

    Raises:
      TypeError: An argument is not a number.
      ValueError: Not 0 < least < largest < 1.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.cells.rg_lru(3, decay_init=jrnn.initializers.strongest_decay())
      >>> decay = jax.nn.sigmoid(cell.init(jax.random.key(0)).Lambda) ** 8
      >>> bool((0.9 < decay).all() & (decay < 0.999).all())
      True
    """
    if not 0 < least < largest < 1:
        raise ValueError(f"Expected 0 < least < largest < 1, got {least=}, {largest=}.")

    def draw(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        decay = jax.random.uniform(key, shape, dtype, least, largest)
        return _logit(jnp.log(decay) / SHARPNESS)

    return draw


def _logit(log_a: Array) -> Array:
    """Returns log(a / (1 - a)), the inverse of the sigmoid, given log a, a near 1."""
    return log_a - jnp.log(-jnp.expm1(log_a))


def _para_gru(key: Key, size: int, dtype: DTypeLike) -> tuple[Array, ...]:
    del key
    zeros = jnp.zeros((size,), dtype)
    return zeros, jnp.linspace(0, 1, size, dtype=dtype), zeros


def _para_lstm(key: Key, size: int, dtype: DTypeLike) -> tuple[Array, ...]:
    del key
    zeros = jnp.zeros((size,), dtype)
    return -jnp.linspace(0, 1, size, dtype=dtype), zeros, zeros


# ParaRNN's biases (https://github.com/apple/ml-pararnn): those of its z, which is 1 - z
# here, and of f go evenly from 0 to -1 over the units; the others are 0.
PARA_GRU = OfGates("r z n", _para_gru)
PARA_LSTM = OfGates("f g o", _para_lstm)
