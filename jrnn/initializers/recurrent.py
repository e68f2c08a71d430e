"""Initialisers of recurrent matrices, and of gates for long memory."""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.cell import Key
from jrnn.core.draw import Initializer, OfGates
from jrnn.core.memoize import memoize

# log2 of a power m of the matrix in which only the largest eigenvalue matters: the m-th
# root of the factor due to all else is 1 to rounding in float64, 2^-52.
SQUARINGS = 52


@memoize
def normal(std: float) -> Initializer:
    """Makes the initialiser that draws from a normal distribution around 0.

    Args:
      std: Standard deviation, above 0.

    Returns:
      An initialiser.

    Raises:
      ValueError: `std` is not above 0.

    Example:
      >>> import jrnn
      >>> jrnn.initializers.normal(0.001) is jrnn.initializers.normal(std=0.001)
      True
    """
    _check_positive("std", std)
    return jax.nn.initializers.normal(std)


@memoize
def identity(scale: float = 1.0) -> Initializer:
    r"""Makes the initialiser W_h = scale I, that of an IRNN (Le et al. 2015).

    With `jax.nn.relu`, scale 1 and no bias, a state without input is constant, and so
    is the gradient: dh_t/dh_k = I for any t, k. The paper draws the other weights with
    standard deviation 0.001, and uses a scale of 0.01 for short memories. Source:
    https://arxiv.org/abs/1504.00941.

    Args:
      scale: Of the identity, above 0.

    Returns:
      An initialiser of square matrices.

    Raises:
      ValueError: `scale` is not above 0; when it draws, the matrix is not square.

    Example:
      >>> import jax, jrnn
      >>> start = {"recurrent_init": jrnn.initializers.identity()}
      >>> start["input_init"] = jrnn.initializers.normal(0.001)
      >>> cell = jrnn.elman(3, 4, activation=jax.nn.relu, **start)  # an IRNN
      >>> cell.init(jax.random.key(0)).W_h.diagonal().tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    _check_positive("scale", scale)

    def scaled_identity(
        key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Array:
        del key
        _check_square(shape)
        return scale * jnp.eye(shape[0], dtype=dtype)

    return scaled_identity


@memoize
def spectral_radius(
    radius: float, initializer: Initializer | None = None
) -> Initializer:
    r"""Makes the initialiser that scales a drawn matrix to a spectral radius.

    .. math:: W = \frac{\rho}{\rho(W')} W', \quad \rho(W') = \max_i |\lambda_i(W')|

    In a linear network gradients scale as rho^(t-k): they vanish below 1, and explode
    above it. Reservoirs are drawn in this way (H. Jaeger 2001, "The echo state
    approach", section 3.1). The radius is the limit of |W'^m|^(1/m), computed by
    repeated squaring, which needs no eigenvalues and runs on every device. Its rounding
    error is multiplied by the condition number of the eigenvectors, which is small for
    random matrices. For a matrix constructed to be far from normal the radius may be
    off by percents in float32, or NaN; for a matrix of radius 0 it is NaN. Narrower
    types are drawn in float32, scaled, and then rounded.

    Args:
      radius: rho, above 0.
      initializer: Draws W'; None: independent normal numbers.

    Returns:
      An initialiser of square matrices.

    Raises:
      TypeError: `initializer` is not a function.
      ValueError: `radius` is not above 0; when it draws, the matrix is not square.

    Example:
      >>> import jax, jrnn, numpy as np
      >>> draw = jrnn.initializers.spectral_radius(0.9)
      >>> W = np.asarray(draw(jax.random.key(0), (20, 20)))
      >>> round(float(abs(np.linalg.eigvals(W)).max()), 5)
      0.9
    """
    _check_positive("radius", radius)
    inner = normal(1.0) if initializer is None else initializer

    def scaled(
        key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Array:
        _check_square(shape)
        wide = jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype
        W = inner(key, shape, wide)
        return (W * (radius * jnp.exp(-_log_radius(W)))).astype(dtype)

    return scaled


def _log_radius(W: Array) -> Array:
    """Returns log rho(W) = lim (1/m) log |W^m|, by squaring and normalising."""

    def square(
        step: Array, carry: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        del step
        power, total, share = carry
        size = jnp.abs(power).max()  # not a norm: squares could underflow
        power = power / size
        return power @ power, total + share * jnp.log(size), share / 2

    one = jnp.ones((), W.dtype)
    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(0, SQUARINGS, square, (W, one * 0, one))[1]


@memoize
def chrono_lstm(longest: float) -> OfGates:
    r"""Makes the chrono initialiser of an LSTM's biases (Tallec and Ollivier 2018).

    .. math:: b_f \sim \log U(1, T_{max} - 1), \quad b_i = -b_f

    With the forget gate at sigmoid(b_f), c decays by a factor of e in about
    1 / (1 - sigmoid(b_f)) = 1 + e^(b_f) steps: the units' times are uniform on
    (2, T_max), equation 16 of the paper. The other biases are 0. Source:
    https://arxiv.org/abs/1804.11188.

    Args:
      longest: T_max, the longest dependence that is expected, in steps; above 2.

    Returns:
      The `bias_init` for `jrnn.lstm`, with `forget_bias=0.0`.

    Raises:
      TypeError: `longest` is not a number.
      ValueError: It is not above 2.

    Example:
      >>> import jax, jrnn
      >>> chrono = jrnn.initializers.chrono_lstm(100)
      >>> cell = jrnn.lstm(3, 4, bias_init=chrono, forget_bias=0.0)
      >>> b = cell.init(jax.random.key(0)).b
      >>> bool((b[:4] == -b[4:8]).all() & (b[4:8] > 0).all())
      True
    """
    _check_longest(longest)

    def draw(key: Key, size: int, dtype: DTypeLike) -> tuple[Array, ...]:
        b_f = _log_times(key, size, dtype, longest)
        zeros = jnp.zeros_like(b_f)
        return -b_f, b_f, zeros, zeros

    return OfGates("i f g o", draw)


@memoize
def chrono_gru(longest: float) -> OfGates:
    r"""Makes the chrono initialiser of a GRU's biases (Tallec and Ollivier 2018).

    .. math:: b_z \sim \log U(1, T_{max} - 1)

    As `chrono_lstm`, for the gate z that keeps the past in h_t = (1 - z_t) * n_t +
    z_t * h_{t-1}; the weight of n_t is then 1 - z. The other biases are 0.

    Args:
      longest: T_max, the longest dependence that is expected, in steps; above 2.

    Returns:
      The `bias_init` for `jrnn.gru`.

    Raises:
      TypeError: `longest` is not a number.
      ValueError: It is not above 2.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(3, 4, bias_init=jrnn.initializers.chrono_gru(100))
      >>> b = cell.init(jax.random.key(0)).b
      >>> bool((b[4:8] > 0).all()), int((b != 0).sum())
      (True, 4)
    """
    _check_longest(longest)

    def draw(key: Key, size: int, dtype: DTypeLike) -> tuple[Array, ...]:
        b_z = _log_times(key, size, dtype, longest)
        zeros = jnp.zeros_like(b_z)
        return zeros, b_z, zeros

    return OfGates("r z n", draw)


def _log_times(key: Key, size: int, dtype: DTypeLike, longest: float) -> Array:
    return jnp.log(jax.random.uniform(key, (size,), dtype, 1.0, longest - 1.0))


def _check_longest(longest: float) -> None:
    if not 2 < longest < math.inf:
        raise ValueError(
            f"Expected the longest dependence, in steps, above 2, got {longest!r}."
        )


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"Expected {name} above 0, got {value!r}.")


def _check_square(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"Expected the shape of a square matrix, got {shape}; take this "
            "initialiser for W_h."
        )
