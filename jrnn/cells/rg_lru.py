r"""The real-gated linear recurrent unit of Griffin and Hawk (De et al. 2024).

    r_t = sigmoid(x_t W_r + b_r)       how fast the state decays
    i_t = sigmoid(x_t W_i + b_i)       what is written
    log a_t = c r_t log sigmoid(Lambda),  c = 8
    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t)
    y_t = h_t

Linear in the state. 1 - a_t^2 is computed as -expm1(2 log a_t), for a_t lies close to
1; the root's slope is bounded where a_t reaches it.

Initially sigmoid(Lambda)^c, the strongest decay, is uniform in [decay_min, decay_max].

The equation adds x_t to the state, so their sizes agree. Where a `hidden_size` is
given, x_t stands for x_t W_x throughout, as behind the linear layer that precedes the
unit in Griffin. Gate order in W_g: r i. The gates' matrices are full; the authors' code
keeps blocks on their diagonals, and takes the factor sqrt(1 - a_t^2) as 1 at the first
step of a sequence.

Source: S. De et al., Griffin: mixing gated linear recurrences with local attention for
efficient language models, https://arxiv.org/abs/2402.19427.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn._base import Cell, Key, Linear, check_size, memoize, spec_of
from jrnn._claims import LINEAR_BOUND, claim
from jrnn._parts import (
    compose_step,
    expand,
    linear_advance,
    project_dense,
    projected_coefficients,
    show,
    split_gates,
    state_dtype,
)
from jrnn.cells._init import LECUN_NORMAL, ZEROS, Initializer, draw
from jrnn.cells._views import factor_view

# c, which lets a short way of Lambda be a long way of the decay (De et al. 2024, 2.4).
SHARPNESS = 8.0


class RGLRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units, h = k where there is no W_x."""

    Lambda: Float[Array, " h"]
    W_g: Float[Array, "h 2h"]
    b: Float[Array, " 2h"] | None
    W_x: Float[Array, "k h"] | None = None


class RGLRUState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


@memoize
def rg_lru(
    input_size: int,
    hidden_size: int | None = None,
    *,
    decay_min: float = 0.9,
    decay_max: float = 0.999,
    bias: bool = True,
    input_init: Initializer = LECUN_NORMAL,
    gate_init: Initializer = LECUN_NORMAL,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes a real-gated linear recurrent unit; the equations stand in the module.

    Args:
      input_size: k, the number of features; of token ids only with a `hidden_size`.
      hidden_size: h, the size of the state and of the output, to which W_x brings the
        inputs; None: that of the inputs, and no W_x, as in the paper.
      decay_min: Least initial sigmoid(Lambda)^c.
      decay_max: Largest initial sigmoid(Lambda)^c.
      bias: Whether there is a b.
      input_init: Initialiser of W_x; for token ids take `jrnn.one_hot_normal`.
      gate_init: Initialiser of W_g, for each gate.
      bias_init: Initialiser of b, for each gate.

    Returns:
      A cell with parameters `RGLRUParams` and state `RGLRUState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable; at `project`,
        token ids without a W_x.
      ValueError: A size is below 1, or not 0 < decay_min < decay_max < 1.

    Example:
      >>> import jax, jrnn
      >>> params = jrnn.rg_lru(3).init(jax.random.key(0))
      >>> params.W_g.shape, params.W_x is None
      ((3, 6), True)
    """
    check_size("input_size", input_size)
    size = input_size if hidden_size is None else hidden_size
    check_size("hidden_size", size)
    if not 0 < decay_min < decay_max < 1:
        raise ValueError(
            f"Expected 0 < decay_min < decay_max < 1, got {decay_min=}, {decay_max=}."
        )

    def decay(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        strongest = jax.random.uniform(key, shape, dtype, decay_min, decay_max)
        log_a = jnp.log(strongest) / SHARPNESS
        return log_a - jnp.log(-jnp.expm1(log_a))  # the inverse of the sigmoid

    def init(key: Key, dtype: DTypeLike | None = None) -> RGLRUParams:
        key_x, key_g, key_b, key_l = jax.random.split(key, 4)
        shape_x = (input_size, size)
        projected = hidden_size is not None
        return RGLRUParams(
            Lambda=draw(decay, key_l, (size,), dtype),
            W_g=draw(gate_init, key_g, (size, size), dtype, gates=2),
            b=draw(bias_init, key_b, (size,), dtype, gates=2) if bias else None,
            W_x=draw(input_init, key_x, shape_x, dtype) if projected else None,
        )

    def init_state(
        params: RGLRUParams, batch_shape: tuple[int, ...] = ()
    ) -> RGLRUState:
        return RGLRUState(jnp.zeros((*batch_shape, size), state_dtype(params)))

    advance = linear_advance(_LINEAR)
    cell = Cell(
        init=init,
        init_state=init_state,
        project=_project,
        advance=advance,
        output=_output,
        step=compose_step(_project, advance, _output),
        spec=spec_of(
            "rg_lru",
            size,
            input_size=input_size,
            hidden_size=hidden_size,
            decay_min=decay_min,
            decay_max=decay_max,
            bias=bias,
        ),
        linear=_LINEAR,
        diagonal=True,
    )
    return claim(cell, gates=factor_view(_LINEAR), bound=LINEAR_BOUND)


def _project(params: RGLRUParams, x: Array) -> tuple[RGLRUState, RGLRUState]:
    if params.W_x is not None:
        x = project_dense(params.W_x, None, x)
    elif jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            "Expected float inputs for rg_lru without hidden_size, got token ids; pass "
            "a hidden_size, whose W_x holds a row for each id."
        )
    u = project_dense(params.W_g, params.b, x)
    r, i = (jax.nn.sigmoid(gate) for gate in split_gates(u, 2))
    log_most = SHARPNESS * jax.nn.log_sigmoid(params.Lambda.astype(u.dtype))
    log_a = r * expand(log_most, u.ndim)
    # Where r vanishes 1 - a^2 does, and the root's slope would be infinite.
    gap = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(u.dtype).tiny)
    return RGLRUState(jnp.exp(log_a)), RGLRUState(jnp.sqrt(gap) * i * x.astype(u.dtype))


def _output(params: RGLRUParams, state: RGLRUState, x: Array) -> Array:
    return show(state.h, x, params.W_g)


_LINEAR = Linear(projected_coefficients)
