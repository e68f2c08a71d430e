r"""S5, a diagonal state space model with many inputs and outputs (Smith et al. 2023).

In continuous time, with the input held constant between steps,

    dh/dt = Lambda * h + x B
    y = 2 Re(h C) + x D

and, over a step of dt = exp(log_step) for each unit (zero-order hold, which is exact):

    a = exp(Lambda dt)
    h_t = a * h_{t-1} + (a - 1) / Lambda * (x_t B)

Lambda, B and C are complex, stored as real and imaginary parts. Only one of every
conjugate pair of eigenvalues is kept; 2 Re restores the other, so that h complex units
stand for a real state space of size 2h. Linear in the state.

With `irregular` the last input feature is the time since the previous step, where a
regular step is 1: dt_t = exp(log_step) times this feature, and a_t depends on it. It is
not an input otherwise. A time of 0 leaves the state unchanged; a negative, NaN or
infinite one raises ValueError, and gives NaN under `jax.jit`. The time belongs to the
interval between x_{t-1} and x_t in the order of the inputs, also in reverse, where the
step that reads x_t still uses it; to use the time between x_t and x_{t+1} instead,
shift that feature by one step. No time passes at masked steps: add their times to the
next active step.

Initially Lambda contains the eigenvalues of HiPPO-N, the normal part of HiPPO-LegS,

    A_{nm} = -sqrt(n + 1/2) sqrt(m + 1/2) for n > m,  the opposite for n < m,
    A_{nn} = -1/2,

and B and C are drawn for the state space of size 2h and transformed to the basis of its
eigenvectors V: B = B' conj(V), C = V^T C', B' real and C' complex. Entries of B', and
the real and imaginary parts of those of C', have variance 1 / 2h. With `blocks` the
matrix is block-diagonal, with that many HiPPO-N matrices. log_step is uniform between
log dt_min and log dt_max.

Compared with the authors' code (https://github.com/lindermanlab/S5): all parameters are
drawn as there, with C_init="trunc_standard_normal", its default. D is a full matrix
here, a vector (the diagonal) of standard normal numbers there; if the sizes agree, all
but the diagonal is 0 initially. No map follows the output. Nothing keeps Re Lambda
below 0 in training, as in the paper.

Source: J. T. H. Smith et al., Simplified state space layers for sequence modeling,
ICLR 2023, https://arxiv.org/abs/2208.04933.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from jrnn.core.arguments import check_size
from jrnn.core.build import build, factory
from jrnn.core.cell import Cell, Key, Linear
from jrnn.core.check_inputs import check_times, known_values
from jrnn.core.draw import Field, Initializer, draw, drawn_in, initial
from jrnn.core.dtypes import show
from jrnn.core.products import expand, merge_gates, product, project_dense, split_gates
from jrnn.core.seams import projected_coefficients
from jrnn.initializers.defaults import LECUN_NORMAL, skip_normal

# Variance 1 / 2h of B', (k, 2h), for any number of inputs: the authors' code draws its
# transpose by `lecun_normal`.
FAN_OUT_NORMAL: Initializer = jax.nn.initializers.variance_scaling(
    1.0, "fan_out", "truncated_normal"
)


class S5Params(NamedTuple):
    """Parameters: k inputs (elapsed time not counted), h complex units, m outputs."""

    Lambda_re: Float[Array, " h"]
    Lambda_im: Float[Array, " h"]
    log_step: Float[Array, " h"]
    B_re: Float[Array, "k h"]
    B_im: Float[Array, "k h"]
    C_re: Float[Array, "h m"]
    C_im: Float[Array, "h m"]
    D: Float[Array, "k m"]


class S5State(NamedTuple):
    """The context vector, complex."""

    h: Complex[Array, "*batch h"]


@factory
def s5(
    input_size: int,
    hidden_size: int,
    *,
    output_size: int | None = None,
    irregular: bool = False,
    blocks: int = 1,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    input_init: Initializer = FAN_OUT_NORMAL,
    output_init: Initializer = LECUN_NORMAL,
    skip_init: Initializer = skip_normal,
) -> Cell:
    """Makes a diagonal state space model; see the module for the equations.

    Args:
      input_size: The number of features, including the time with `irregular`, or of
        token ids.
      hidden_size: h, the number of complex units, half the size of the state space.
      output_size: m; None: the number of features, not counting the time.
      irregular: Whether the last feature is the time since the previous step, at least
        0. Such a cell can be the first in a stack; `jrnn.sequence_model` needs its
        times as known inputs.
      blocks: How many HiPPO matrices are on the diagonal initially.
      dt_min: Least initial step, in the units of time of HiPPO's eigenvalues.
      dt_max: Largest initial step.
      input_init: Initialiser of B', (k, 2h); for token ids take
        `jrnn.initializers.embedding`.
      output_init: Initialiser of C', (2h, m), of its real and of its imaginary part.
      skip_init: Initialiser of D; by default `jrnn.initializers.diagonal_normal` if
        k = m, otherwise independent normal numbers of variance 1 / k.

    Returns:
      A cell with parameters `S5Params` and state `S5State`.

    Raises:
      TypeError: A size is not an integer, or an argument is not hashable; in `project`,
        token ids with `irregular`.
      ValueError: A size is below 1, `input_size` is below 2 with `irregular`, `blocks`
        does not divide `hidden_size`, or not 0 < dt_min < dt_max.

    Example:
      >>> import jax, jrnn
      >>> params = jrnn.cells.s5(3, 4).init(jax.random.key(0))
      >>> params.Lambda_re.tolist()
      [-0.5, -0.5, -0.5, -0.5]
    """
    check_size("input_size", input_size, least=2 if irregular else 1)
    check_size("blocks", blocks)
    if hidden_size % blocks:
        raise ValueError(
            f"Expected blocks to divide hidden_size={hidden_size}, got {blocks=}."
        )
    if not 0 < dt_min < dt_max:
        raise ValueError(f"Expected 0 < dt_min < dt_max, got {dt_min=}, {dt_max=}.")
    features = input_size - 1 if irregular else input_size
    shown = features if output_size is None else output_size
    low, high = math.log(dt_min), math.log(dt_max)
    log_step = lambda *a: jax.random.uniform(*a, minval=low, maxval=high)

    def init(key: Key, dtype: DTypeLike | None = None) -> S5Params:
        key_B, key_C, key_D, key_s = jax.random.split(key, 4)
        narrow, wide = drawn_in(dtype)
        frequencies, V = hippo(hidden_size, blocks)
        B = draw(input_init, key_B, (features, 2 * hidden_size), wide)
        C = draw(output_init, key_C, (2 * hidden_size, shown), wide, gates=2)
        parts = _in_eigenvectors(V, B, C)
        return S5Params(
            Lambda_re=jnp.full((hidden_size,), -0.5, narrow),
            Lambda_im=jnp.asarray(frequencies, wide).astype(narrow),
            log_step=draw(log_step, key_s, (hidden_size,), dtype),
            D=draw(skip_init, key_D, (features, shown), dtype),
            **{name: part.astype(narrow) for name, part in parts.items()},
        )

    return build(
        init,
        initial(S5State, h=Field((hidden_size,), complex=True)),
        shown,
        project=_project_irregular if irregular else _project,
        output=_output_irregular if irregular else _output,
        linear=Linear(projected_coefficients if irregular else _coefficients),
        diagonal=True,
        elapsed=-1 if irregular else None,
    )


def hippo(units: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns Im Lambda > 0 and the eigenvectors V, (2 units, units), of HiPPO-N.

    A + 1/2 is real and skew-symmetric, so -i (A + 1/2) is Hermitian: its eigenvalues
    are Im Lambda, in pairs of opposite sign.
    """
    root = np.sqrt(np.arange(2 * units // blocks) + 0.5)
    skew = np.triu(np.outer(root, root), 1)
    frequencies, V = np.linalg.eigh(-1j * (skew - skew.T))
    upper = units // blocks  # in ascending order: the upper half is above 0
    kept = np.kron(np.eye(blocks), V[:, upper:])
    return np.tile(frequencies[upper:], blocks), kept


def _in_eigenvectors(V: np.ndarray, B: Array, C: Array) -> dict[str, Array]:
    """Returns the real and imaginary parts of B conj(V) and V^T C.

    The parts of `C` are given side by side.
    """
    V_re, V_im = (jnp.asarray(part, B.dtype) for part in (np.real(V), np.imag(V)))
    C_re, C_im = split_gates(C, 2)
    times = functools.partial(jnp.matmul, precision="highest")
    return {
        "B_re": times(B, V_re),
        "B_im": times(B, -V_im),
        "C_re": times(V_re.T, C_re) - times(V_im.T, C_im),
        "C_im": times(V_im.T, C_re) + times(V_re.T, C_im),
    }


def _project(params: S5Params, x: Array) -> Array:
    """Returns the effect of the input over one step, (a - 1) / Lambda * (x_t B)."""
    u = _project_B(params, x)
    Lambda, step = _rates(params, u.real.dtype)
    return expand(_held(Lambda, Lambda * step), u.ndim) * u


def _coefficients(params: S5Params, u: Array) -> tuple[S5State, S5State]:
    Lambda, step = _rates(params, u.real.dtype)
    return S5State(jnp.exp(Lambda * step)), S5State(u)


def _output(params: S5Params, state: S5State, x: Array) -> Array:
    # 2 Re(h C) as one real product: (Re h, Im h) with 2 (C_re; -C_im).
    h = merge_gates((state.h.real, state.h.imag))
    C = jnp.concatenate([params.C_re, -params.C_im])
    y = 2 * product(h, C, h.dtype)
    skip = project_dense(params.D, None, x)
    return show(y + skip.astype(y.dtype), x, params.D)


def _project_irregular(params: S5Params, x: Array) -> tuple[S5State, S5State]:
    if jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            "Expected float inputs for s5 with irregular steps, got token ids; pass "
            "features with the time since the step before as the last of them."
        )
    u = _project_B(params, x[..., :-1])
    Lambda, step = _rates(params, u.real.dtype)
    elapsed = _times(x[..., -1:]).astype(u.real.dtype)
    exponent = expand(Lambda * step, u.ndim) * elapsed.astype(u.dtype)
    held = _held(expand(Lambda, u.ndim), exponent)
    return S5State(jnp.exp(exponent)), S5State(held * u)


def _times(elapsed: Array) -> Array:
    """Returns elapsed times; invalid ones raise, or are NaN if they are traced."""
    known = known_values(elapsed)
    if known is not None:
        check_times(known[..., 0], "s5(irregular=True)")
    good = (elapsed >= 0) & (elapsed < jnp.inf)
    return jnp.where(good, elapsed, jnp.full_like(elapsed, jnp.nan))


def _output_irregular(params: S5Params, state: S5State, x: Array) -> Array:
    return _output(params, state, x[..., :-1])


def _project_B(params: S5Params, x: Array) -> Array:
    parts = project_dense(merge_gates((params.B_re, params.B_im)), None, x)
    return jax.lax.complex(*split_gates(parts, 2))


def _rates(params: S5Params, dtype: DTypeLike) -> tuple[Array, Array]:
    """Returns Lambda and dt, both complex."""
    cast = lambda part: part.astype(dtype)
    Lambda = jax.lax.complex(cast(params.Lambda_re), cast(params.Lambda_im))
    return Lambda, jnp.exp(cast(params.log_step)).astype(Lambda.dtype)


def _held(Lambda: Array, exponent: Array) -> Array:
    """Returns (exp(Lambda dt) - 1) / Lambda, without cancellation for small dt."""
    return jnp.expm1(exponent) / Lambda
