r"""The linear recurrent unit (Orvieto et al. 2023): complex, diagonal, always stable.

    lambda = exp(-exp(nu_log) + i exp(theta_log))      always inside the unit circle
    h_t = lambda * h_{t-1} + exp(gamma_log) * (x_t B)
    y_t = Re(h_t C) + x_t D

B = B_re + i B_im and C = C_re + i C_im: the parameters are real, the state is complex.
Linear in the state: a = lambda, which does not depend on the input, and
b_t = exp(gamma_log) * (x_t B).

Initially lambda is uniform on the ring r_min <= |lambda| <= r_max, with phases up to
max_phase: with u_1, u_2 uniform in (0, 1),

    |lambda|^2 = r_min^2 + u_1 (r_max^2 - r_min^2),  theta = max_phase u_2,

and gamma = sqrt(1 - |lambda|^2), which gives the state the scale of x_t B if inputs are
independent; gamma is learned from there. B_re and B_im each have half the variance of
`input_init`, as in the paper.

D is a full matrix, as in the paper's definition of a linear recurrence; if the sizes
agree, all but the diagonal is 0 initially. Normalisation, the nonlinear map between
layers, and the skip connection are not part of the paper's layer, nor of this cell.

Compared with the code of one of the authors (N. Zucchet,
https://github.com/NicolasZucchet/minimal-LRU): all parameters are drawn as there. There
the sizes agree, and D is a vector of standard normal numbers, like the diagonal here;
max_phase is 6.28 there. u_1 and u_2 exclude 0 and 1, where the logarithms are infinite.

Source: A. Orvieto et al., Resurrecting recurrent neural networks for long sequences,
ICML 2023, https://arxiv.org/abs/2303.06349.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Key, Linear
from jrnn.core.draw import Field, Initializer, draw, drawn_in, initial
from jrnn.core.dtypes import show
from jrnn.core.products import expand, merge_gates, product, project_dense, split_gates
from jrnn.initializers.defaults import FAN_IN_NORMAL, skip_normal


class LRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units, m outputs."""

    nu_log: Float[Array, " h"]
    theta_log: Float[Array, " h"]
    gamma_log: Float[Array, " h"]
    B_re: Float[Array, "k h"]
    B_im: Float[Array, "k h"]
    C_re: Float[Array, "h m"]
    C_im: Float[Array, "h m"]
    D: Float[Array, "k m"]


class LRUState(NamedTuple):
    """The context vector, complex."""

    h: Complex[Array, "*batch h"]


@factory
def lru(
    input_size: int,
    hidden_size: int,
    *,
    output_size: int | None = None,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 2 * math.pi,
    input_init: Initializer = FAN_IN_NORMAL,
    output_init: Initializer = FAN_IN_NORMAL,
    skip_init: Initializer = skip_normal,
) -> Cell:
    """Makes a linear recurrent unit; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the number of complex units of the state.
      output_size: m; None: that of the inputs, as in the paper's layer.
      r_min: Least initial |lambda|; near `r_max` for long memories.
      r_max: Largest initial |lambda|, at most 1.
      max_phase: Largest initial phase, in radians; small for slow features.
      input_init: Initialiser of sqrt(2) B_re and sqrt(2) B_im; for token ids take
        `jrnn.initializers.embedding`.
      output_init: Initialiser of C_re and C_im.
      skip_init: Initialiser of D; by default `jrnn.initializers.diagonal_normal` if
        k = m, otherwise independent normal numbers of variance 1 / k.

    Returns:
      A cell with parameters `LRUParams` and state `LRUState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1, the ring is not 0 <= r_min < r_max <= 1, or
        `max_phase` is not above 0.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.cells.lru(3, 4, r_min=0.9, r_max=0.999)
      >>> cell.init_state(cell.init(jax.random.key(0))).h.dtype
      dtype('complex64')
    """
    if not 0 <= r_min < r_max <= 1:
        raise ValueError(
            f"Expected a ring 0 <= r_min < r_max <= 1, got {r_min=}, {r_max=}; outside "
            "the unit circle states grow without bound."
        )
    if max_phase <= 0:
        raise ValueError(f"Expected max_phase above 0, got {max_phase!r} radians.")
    shown = input_size if output_size is None else output_size
    units, shape_B = (hidden_size,), (input_size, hidden_size)
    shape_C = (hidden_size, shown)
    square = lambda *a: r_min**2 + _open_uniform(*a) * (r_max**2 - r_min**2)
    theta = lambda *a: jnp.log(max_phase * _open_uniform(*a))
    half = lambda *a: input_init(*a) * math.sqrt(0.5)

    def init(key: Key, dtype: DTypeLike | None = None) -> LRUParams:
        key_r, key_p, *keys = jax.random.split(key, 7)
        narrow, wide = drawn_in(dtype)
        squares = draw(square, key_r, units, wide)
        return LRUParams(
            nu_log=jnp.log(-0.5 * jnp.log(squares)).astype(narrow),
            theta_log=draw(theta, key_p, units, dtype),
            gamma_log=(0.5 * jnp.log1p(-squares)).astype(narrow),
            B_re=draw(half, keys[0], shape_B, dtype),
            B_im=draw(half, keys[1], shape_B, dtype),
            C_re=draw(output_init, keys[2], shape_C, dtype),
            C_im=draw(output_init, keys[3], shape_C, dtype),
            D=draw(skip_init, keys[4], (input_size, shown), dtype),
        )

    return build(
        init,
        initial(LRUState, h=Field(units, complex=True)),
        shown,
        project=_project,
        output=_output,
        linear=Linear(_coefficients),
        diagonal=True,
    )


def _open_uniform(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draws from (0, 1), without the ends, where the logarithms are infinite."""
    eps = float(jnp.finfo(dtype).eps)
    return jax.random.uniform(key, shape, dtype, minval=eps, maxval=1 - eps)


def _project(params: LRUParams, x: Array) -> Array:
    u = project_dense(merge_gates((params.B_re, params.B_im)), None, x)
    gamma = jnp.exp(params.gamma_log.astype(u.dtype))
    u_re, u_im = (expand(gamma, u.ndim) * part for part in split_gates(u, 2))
    return jax.lax.complex(u_re, u_im)


def _coefficients(params: LRUParams, u: Array) -> tuple[LRUState, LRUState]:
    nu_log = params.nu_log.astype(u.real.dtype)
    theta_log = params.theta_log.astype(u.real.dtype)
    a = jnp.exp(jax.lax.complex(-jnp.exp(nu_log), jnp.exp(theta_log)))
    return LRUState(a), LRUState(u)


def _output(params: LRUParams, state: LRUState, x: Array) -> Array:
    # Re(h C) as one real product: (Re h, Im h) with (C_re; -C_im).
    h = merge_gates((state.h.real, state.h.imag))
    C = jnp.concatenate([params.C_re, -params.C_im])
    y = product(h, C, h.dtype)
    skip = project_dense(params.D, None, x)
    return show(y + skip.astype(y.dtype), x, params.D)
