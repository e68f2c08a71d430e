r"""The simple recurrent unit (Lei et al. 2018), whose gates do not see the state.

    f_t = sigmoid(x_t W_xf + b_f)                 the forget gate
    n_t = x_t W_xn                                the candidate
    c_t = f_t * c_{t-1} + (1 - f_t) * n_t
    r_t = sigmoid(x_t W_r + b_r)                  the reset gate
    y_t = r_t * c_t + (1 - r_t) * (x_t W_s)       a highway past the state

If the sizes agree there is no W_s: the highway then carries sqrt(3) x_t, or x_t without
`rescale`.

In the paper's final form both gates gain v * c_{t-1}. This is the form of its first
version, with v = 0, the only one that is linear in the state: a_t = f_t,
b_t = (1 - f_t) * n_t. The layer normalisation of the authors' code is not included;
c_t passes through no activation.

All parameters are drawn as in the authors' PyTorch code with v1=True
(https://github.com/asappresearch/sru): uniform with variance 1 / k, biases 0. With
rescale=True, the default there too, W_s has 3 times that variance, or without a W_s x_t
is multiplied by sqrt(3). This is the paper's sqrt(1 + 2 exp(b_r)) at b_r = 0, which
gives y_t the variance of x_t initially; the constant does not follow the learned b_r.

Gate order in W_x: f n. The candidate has no bias. r_t is part of `output`: it is
computed from x_t for many steps at once.

Source: T. Lei et al., Simple recurrent units for highly parallelizable recurrence,
EMNLP 2018, https://arxiv.org/abs/1709.02755.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Linear
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.dtypes import show
from jrnn.core.integers import widen_integers
from jrnn.core.products import expand, merge_gates, project_dense, split_gates
from jrnn.core.seams import projected_coefficients
from jrnn.initializers.defaults import FAN_IN_UNIFORM, ZEROS

# sqrt(1 + 2 exp(b_r)) at b_r = 0 (Lei et al. 2018, section 3.2).
HIGHWAY = math.sqrt(3)


class SRUParams(NamedTuple):
    """Parameters: k inputs, h hidden units; `W_s` only if k is not h."""

    W_x: Float[Array, "k 2h"]
    W_r: Float[Array, "k h"]
    b_f: Float[Array, " h"] | None
    b_r: Float[Array, " h"] | None
    W_s: Float[Array, "k h"] | None


class SRUState(NamedTuple):
    """The memory c."""

    c: Float[Array, "*batch h"]


@factory
def sru(
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    rescale: bool = True,
    input_init: Initializer = FAN_IN_UNIFORM,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes a simple recurrent unit; see the module for the equations.

    Args:
      input_size: k, the number of features, or of token ids.
      hidden_size: h, the size of the state and of the output.
      bias: Whether there are biases.
      rescale: Whether the highway is scaled by sqrt(3): W_s when it is drawn, or, if
        the sizes agree, x_t at each step.
      input_init: Initialiser of W_x, for each gate, of W_r and of W_s; for token ids
        take `jrnn.initializers.embedding`.
      bias_init: Initialiser of b_f and b_r.

    Returns:
      A cell with parameters `SRUParams` and state `SRUState`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> jrnn.cells.sru(4, 4).init(jax.random.key(0)).W_s is None
      True
    """
    scale, shape = HIGHWAY if rescale else 1.0, (input_size, hidden_size)
    scaled = lambda *drawing: scale * input_init(*drawing)
    b = Weight(bias_init, (hidden_size,)) if bias else None
    return build(
        drawn(
            SRUParams,
            W_x=Weight(input_init, shape, gates=2),
            W_r=Weight(input_init, shape),
            W_s=None if input_size == hidden_size else Weight(scaled, shape),
            b_f=b,
            b_r=b,
        ),
        initial(SRUState, c=hidden_size),
        hidden_size,
        project=_project,
        output=functools.partial(_output, scale),
        linear=Linear(projected_coefficients),
        diagonal=True,
    )


def _project(params: SRUParams, x: Array) -> tuple[SRUState, SRUState]:
    u_f, n = split_gates(project_dense(params.W_x, None, x), 2)
    if params.b_f is not None:
        u_f = u_f + expand(params.b_f.astype(u_f.dtype), u_f.ndim)
    # 1 - f as sigmoid(-u_f), which avoids cancellation where f is close to 1.
    return SRUState(jax.nn.sigmoid(u_f)), SRUState(jax.nn.sigmoid(-u_f) * n)


def _output(scale: float, params: SRUParams, state: SRUState, x: Array) -> Array:
    dtype = state.c.dtype
    if params.W_s is not None:
        shared = merge_gates((params.W_r, params.W_s))
        u_r, highway = split_gates(project_dense(shared, None, x).astype(dtype), 2)
    else:
        u_r = project_dense(params.W_r, None, x).astype(dtype)
        integer = jnp.issubdtype(x.dtype, jnp.integer)
        size = u_r.shape[-1]
        highway = jax.nn.one_hot(widen_integers(x), size) if integer else x
        highway = scale * highway.astype(dtype)
    if params.b_r is not None:
        u_r = u_r + expand(params.b_r.astype(dtype), u_r.ndim)
    r = jax.nn.sigmoid(u_r)
    return show(r * state.c + (1 - r) * highway, x, params.W_x)
