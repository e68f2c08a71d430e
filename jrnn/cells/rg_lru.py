r"""The real-gated linear recurrent unit of Griffin and Hawk (De et al. 2024).

    r_t = sigmoid(x_t W_r + b_r)       the recurrence gate
    i_t = sigmoid(x_t W_i + b_i)       the input gate
    log a_t = c r_t log sigmoid(Lambda),  c = 8
    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t)
    y_t = h_t

Linear in the state. 1 - a_t^2 is computed as -expm1(2 log a_t), because a_t is close to
1; the slope of the square root is bounded where a_t = 1.

Initially sigmoid(Lambda) is drawn from a ring r_min <= |z| <= r_max, uniformly over its
area: with u uniform in (0, 1), sigmoid(Lambda)^2 = r_min^2 + u (r_max^2 - r_min^2).

The equation adds x_t to the state, so their sizes agree. With a `hidden_size`, x_t
stands for x_t W_x throughout, like the linear layer before the unit in Griffin. Gate
order in W_g: r i.

With `unscaled_start` the factor sqrt(1 - a_t^2) is 1 at the first step of a sequence
and of each segment that `resets` begin, where h_{t-1} = 0:

    g_t = sqrt(1 - a_t^2)
    h_t = a_t * h_{t-1} + (g_t + (1 - g_t) fresh_{t-1}) * (i_t * x_t)

The state then has a second array, fresh: 1 in `cell.init_state`, 0 after any step. With
it, running in chunks or step by step gives the same as one whole run.

Compared with the authors' code (https://github.com/google-deepmind/recurrentgemma): all
parameters are drawn as there, with Lambda the negative of its a_param. So
sigmoid(Lambda) itself is on the ring, and at r_t = 1/2 half of a state is gone after
some three steps. In the paper sigmoid(Lambda)^c is uniform in [0.9, 0.999], which
decays eight times more slowly; `decay_init=jrnn.initializers.strongest_decay()` draws
that. The gates' matrices are full here, of variance 1 / h; there they are
block-diagonal, of variance 1 over the size of a block. That code has the unscaled
start, which the paper does not mention and its weights need. There the slope of the
root is clipped at 1000; here it is bounded only where a_t is exactly 1.

Source: S. De et al., Griffin: mixing gated linear recurrences with local attention for
efficient language models, https://arxiv.org/abs/2402.19427.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Linear
from jrnn.core.draw import Field, Initializer, Weight, drawn, initial
from jrnn.core.dtypes import show
from jrnn.core.products import expand, project_dense, split_gates
from jrnn.core.seams import projected_coefficients
from jrnn.initializers.defaults import FAN_IN_NORMAL, SHARPNESS, ZEROS, ring


class RGLRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units; h = k without a W_x."""

    Lambda: Float[Array, " h"]
    W_g: Float[Array, "h 2h"]
    b: Float[Array, " 2h"] | None
    W_x: Float[Array, "k h"] | None = None


class RGLRUState(NamedTuple):
    """The context vector."""

    h: Float[Array, "*batch h"]


class RGLRUStartState(NamedTuple):
    """The context vector, and `fresh`: 1 before the first step, 0 after it.

    Used with `unscaled_start`. `fresh` has the same number for every unit.
    """

    h: Float[Array, "*batch h"]
    fresh: Float[Array, "*batch h"]


@factory
def rg_lru(
    input_size: int,
    hidden_size: int | None = None,
    *,
    r_min: float = 0.9,
    r_max: float = 0.999,
    unscaled_start: bool = False,
    bias: bool = True,
    decay_init: Initializer | None = None,
    input_init: Initializer = FAN_IN_NORMAL,
    gate_init: Initializer = FAN_IN_NORMAL,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes a real-gated linear recurrent unit; see the module for the equations.

    Args:
      input_size: k, the number of features, or, with a `hidden_size`, of token ids.
      hidden_size: h, the size of the state and of the output; None: that of the
        inputs, without a W_x, as in the paper.
      r_min: Least initial sigmoid(Lambda).
      r_max: Largest initial sigmoid(Lambda).
      unscaled_start: Whether the first step from a fresh state adds its input without
        the factor sqrt(1 - a_t^2), as the weights of RecurrentGemma need.
      bias: Whether there is a b.
      decay_init: Initialiser of Lambda; None: the ring. The paper's is
        `jrnn.initializers.strongest_decay()`.
      input_init: Initialiser of W_x; for token ids take `jrnn.initializers.embedding`.
      gate_init: Initialiser of W_g, for each gate.
      bias_init: Initialiser of b, for each gate.

    Returns:
      A cell with parameters `RGLRUParams` and state `RGLRUState`, or
      `RGLRUStartState` with `unscaled_start`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable; in `project`,
        token ids without a W_x.
      ValueError: A size is below 1, or not 0 < r_min < r_max < 1.

    Example:
      >>> import jax, jrnn
      >>> params = jrnn.cells.rg_lru(3).init(jax.random.key(0))
      >>> params.W_g.shape, params.W_x is None
      ((3, 6), True)
    """
    if not 0 < r_min < r_max < 1:
        raise ValueError(f"Expected 0 < r_min < r_max < 1, got {r_min=}, {r_max=}.")
    size = input_size if hidden_size is None else hidden_size
    init = drawn(
        RGLRUParams,
        W_x=None if hidden_size is None else Weight(input_init, (input_size, size)),
        W_g=Weight(gate_init, (size, size), gates=2),
        b=Weight(bias_init, (size,), gates=2) if bias else None,
        Lambda=Weight(decay_init or ring(r_min, r_max), (size,)),
    )
    start = initial(RGLRUStartState, h=size, fresh=Field((size,), start=1.0))
    return build(
        init,
        start if unscaled_start else initial(RGLRUState, h=size),
        size,
        project=_project_start if unscaled_start else _project,
        output=_output,
        linear=_LINEAR_START if unscaled_start else Linear(projected_coefficients),
        diagonal=True,
    )


def _project(params: RGLRUParams, x: Array) -> tuple[RGLRUState, RGLRUState]:
    a, root, written = _share(params, x)
    return RGLRUState(a), RGLRUState(root * written)


def _project_start(
    params: RGLRUParams, x: Array
) -> tuple[RGLRUStartState, RGLRUStartState, Array]:
    a, root, written = _share(params, x)
    never = jnp.zeros_like(a)  # no state is fresh after a step
    a, b = RGLRUStartState(a, never), RGLRUStartState(root * written, never)
    return a, b, (1 - root) * written


def _share(params: RGLRUParams, x: Array) -> tuple[Array, Array, Array]:
    """Returns a_t, sqrt(1 - a_t^2), and i_t * x_t."""
    if params.W_x is not None:
        x = project_dense(params.W_x, None, x)
    elif jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            "Expected float inputs for rg_lru without hidden_size, got token ids; pass "
            "a hidden_size, whose W_x has a row for each id."
        )
    u = project_dense(params.W_g, params.b, x)
    r, i = (jax.nn.sigmoid(gate) for gate in split_gates(u, 2))
    log_most = SHARPNESS * jax.nn.log_sigmoid(params.Lambda.astype(u.dtype))
    log_a = r * expand(log_most, u.ndim)
    # Where r is 0, so is 1 - a^2, and the slope of the root would be infinite.
    gap = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(u.dtype).tiny)
    return jnp.exp(log_a), jnp.sqrt(gap), i * x.astype(u.dtype)


def _output(
    params: RGLRUParams, state: RGLRUState | RGLRUStartState, x: Array
) -> Array:
    return show(state.h, x, params.W_g)


_LINEAR_START = Linear(lambda params, u: u[:2], start=lambda params, u: u[2])  # noqa: ARG005 made by project
