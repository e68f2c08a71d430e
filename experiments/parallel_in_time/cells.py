"""The cells that learn: of which kind, how each starts, and how it is trained."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import jrnn
from jrnn.cells.s5 import S5Params, hippo

UNIT_NORMAL = jax.nn.initializers.normal(1.0)
REFERENCE, LINEAR, NONLINEAR = "reference", "linear", "nonlinear, diagonal"
# In the order of the table. Complex cells show as many real features as the others.
KINDS = {
    "elman": REFERENCE,
    "gru": REFERENCE,
    "lstm": REFERENCE,
    "min_gru": LINEAR,
    "min_lstm": LINEAR,
    "lru": LINEAR,
    "rg_lru": LINEAR,
    "s5": LINEAR,
    "sru": LINEAR,
    "ind_rnn": NONLINEAR,
    "diagonal_gru": NONLINEAR,
    "diagonal_lstm": NONLINEAR,
}
# What the cells' matrices and biases started from when the committed results were made;
# by now their defaults are their authors'.
SUM_NORMAL: Any = jax.nn.initializers.lecun_normal()
ZEROS: Any = jax.nn.initializers.zeros
PLAIN = {"input_init": SUM_NORMAL, "bias_init": ZEROS}
# What is not the default. A unit turns its own state over only with a weight below -1,
# far from the small ones that ParaRNN draws. A ring near the unit circle, as the LRU
# paper has for long memories.
CHOICES: dict[str, dict[str, Any]] = {
    "min_gru": PLAIN,
    "min_lstm": PLAIN,
    "lru": {
        "r_min": 0.9,
        "r_max": 0.999,
        "input_init": SUM_NORMAL,
        "output_init": SUM_NORMAL,
        "skip_init": SUM_NORMAL,
    },
    "rg_lru": {
        "decay_init": jrnn.initializers.strongest_decay(),
        "gate_init": SUM_NORMAL,
        "input_init": SUM_NORMAL,
    },
    "sru": {"rescale": False, **PLAIN},
    "diagonal_gru": {"recurrent_init": UNIT_NORMAL, **PLAIN},
    "diagonal_lstm": {"recurrent_init": UNIT_NORMAL, **PLAIN},
}


def make_cell(name: str, size: int) -> jrnn.Cell:
    """Returns the cell of that name, from `size` features to `size` features."""
    cell = getattr(jrnn.cells, name)(size, size, **CHOICES.get(name, {}))
    return _real_start(cell, size) if name == "s5" else cell


@functools.cache
def _real_start(cell: jrnn.Cell, size: int) -> jrnn.Cell:
    """Returns an S5 with the start that the committed results were made from.

    B' and C' of the state space of size 2h are real, of variance 1 over the inputs of a
    sum, and D is full; the authors' code, and by now `jrnn.cells.s5`, draws them
    otherwise.
    """
    frequencies, V = hippo(size, 1)
    V_re, V_im = (jnp.asarray(part(V), jnp.float32) for part in (np.real, np.imag))
    times = functools.partial(jnp.matmul, precision="highest")

    def init(key: Array, dtype: Any = jnp.float32) -> S5Params:
        keys = [jax.random.split(one, 1)[0] for one in jax.random.split(key, 4)]
        B = SUM_NORMAL(keys[0], (size, 2 * size), dtype)
        C = SUM_NORMAL(keys[1], (2 * size, size), dtype)
        steps = math.log(0.001), math.log(0.1)
        return S5Params(
            Lambda_re=jnp.full((size,), -0.5, dtype),
            Lambda_im=jnp.asarray(frequencies, dtype),
            log_step=jax.random.uniform(keys[3], (size,), dtype, *steps),
            B_re=times(B, V_re),
            B_im=times(B, -V_im),
            C_re=times(V_re.T, C),
            C_im=times(V_im.T, C),
            D=SUM_NORMAL(keys[2], (size, size), dtype),
        )

    return cell._replace(init=init)


def method_of(name: str) -> jrnn.Method:
    """Returns how a cell is trained: in parallel over time where it is linear.

    The diagonal cells could be trained by `jrnn.newton()`; on a CPU, which has nothing
    to run the steps of a sequence on side by side, the numbers come faster one by one.
    """
    return jrnn.associative() if KINDS[name] == LINEAR else jrnn.bptt()
