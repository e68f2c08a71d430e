"""The cells that are compared: one line each, with how each starts and is trained."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn
from experiments.long_memory.problems import EACH, Problem

# U(-1/sqrt(h), 1/sqrt(h)), as PyTorch draws W_h: a spectral radius near 1/sqrt(3).
PLAIN = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# What all cells started from when the committed results were made: variance 1 over the
# inputs of a sum, and biases of 0. By now the cells' defaults are their authors'.
UNIT: Any = jax.nn.initializers.lecun_normal()
ZEROS: Any = jax.nn.initializers.zeros


class Entrant(NamedTuple):
    """A cell as it enters the comparison.

    Attributes:
      make: (inputs, hidden units, task) -> Cell.
      linear: Whether the cell is linear in its state. Such a cell is evaluated by
        `jrnn.associative()`, and stands between two pointwise layers, as in its paper:
        alone, with a linear map of its state, the LRU could multiply nothing. Token ids
        need no layer in front: a row of W_x is any function of the symbol.
      slow: Parameters that say by how much one step turns the state. Over the sequence
        the turns add up, so these are trained at 10 / T of the rate.
    """

    make: Callable[[int, int, Problem], jrnn.Cell]
    linear: bool = False
    slow: tuple[str, ...] = ()


def _elman(k: int, h: int, task: Problem) -> jrnn.Cell:
    return jrnn.elman(k, h, recurrent_init=PLAIN, **_inputs(task))


def _elman_orthogonal(k: int, h: int, task: Problem) -> jrnn.Cell:
    return jrnn.elman(k, h, **_inputs(task))  # W_h's default


def _irnn(k: int, h: int, task: Problem) -> jrnn.Cell:
    # Le et al. 2015, https://arxiv.org/abs/1504.00941: W_h = 1, other weights of 0.001.
    del task
    return jrnn.elman(
        k,
        h,
        activation=jax.nn.relu,
        input_init=jrnn.initializers.normal(0.001),
        recurrent_init=jrnn.initializers.identity(),
    )


def _exp_rnn(k: int, h: int, task: Problem) -> jrnn.Cell:
    return jrnn.cells.exp_rnn(k, h, bias_init=ZEROS, **_inputs(task))


def _co_rnn(k: int, h: int, task: Problem) -> jrnn.Cell:
    # The constants of the authors' code (https://github.com/tk-rusch/coRNN): those of
    # the adding problem, at every length; those for 784 pixels elsewhere, with steps of
    # such a size that as much time passes in a whole sequence of another task.
    if task.name == "adding":
        constants = {"dt": 0.06, "gamma": 66.0, "epsilon": 15.0}
    else:
        dt = min(0.1, 0.042 * 784 / task.steps)
        constants = {"dt": dt, "gamma": 2.7, "epsilon": 4.7}
    start = {"recurrent_init": UNIT, "bias_init": ZEROS, **_inputs(task)}
    return jrnn.cells.co_rnn(k, h, **constants, **start)


def _lstm(k: int, h: int, task: Problem) -> jrnn.Cell:
    chrono = jrnn.initializers.chrono_lstm(task.steps)
    return jrnn.lstm(k, h, forget_bias=0.0, bias_init=chrono, **_inputs(task))


def _gru(k: int, h: int, task: Problem) -> jrnn.Cell:
    chrono = jrnn.initializers.chrono_gru(task.steps)
    return jrnn.gru(k, h, bias_init=chrono, **_inputs(task))


def _min_gru(k: int, h: int, task: Problem) -> jrnn.Cell:
    cell = jrnn.cells.min_gru(k, h, bias_init=ZEROS, **_inputs(task))
    return _chrono_min_gru(cell, h, task.steps)


def _inputs(task: Problem) -> dict[str, Any]:
    return {"input_init": jrnn.initializers.embedding if task.tokens else UNIT}


@functools.cache
def _chrono_min_gru(cell: jrnn.Cell, h: int, steps: int) -> jrnn.Cell:
    """Returns the cell with units that keep from one step to the whole sequence.

    As `jrnn.initializers.chrono_gru`; but z is what is overwritten here: b_z = -log(u),
    u uniform in (1, T - 1).
    """

    def init(key: Any, dtype: Any = None) -> Any:
        key, key_u = jax.random.split(key)
        params: Any = cell.init(key, dtype)
        slow = jnp.log(jax.random.uniform(key_u, (h,), jnp.float32, 1.0, steps - 1.0))
        return params._replace(b=params.b.at[:h].add(-slow.astype(params.b.dtype)))

    return cell._replace(init=init)


def _lru(k: int, h: int, task: Problem) -> jrnn.Cell:
    T = task.steps
    if task.asks == EACH:  # all units keep, and tell positions apart by their phases
        ring = {"r_min": math.exp(-1 / T), "r_max": 1.0}
    else:  # units from fast to slow, none of which turns much within the sequence
        ring = {"r_min": math.exp(-10 / T), "r_max": math.exp(-0.1 / T)}
        ring["max_phase"] = math.pi / T
    start = {"output_init": UNIT, "skip_init": UNIT, **_inputs(task)}
    return jrnn.cells.lru(k, h, output_size=h, **ring, **start)


# In the order of the table.
ENTRANTS: dict[str, Entrant] = {
    "elman": Entrant(_elman),
    "elman_orthogonal": Entrant(_elman_orthogonal),
    "irnn": Entrant(_irnn),
    "exp_rnn": Entrant(_exp_rnn, slow=("A",)),
    "co_rnn": Entrant(_co_rnn),
    "lstm": Entrant(_lstm),
    "gru": Entrant(_gru),
    "lru": Entrant(_lru, linear=True, slow=("nu_log", "theta_log")),
    "min_gru": Entrant(_min_gru, linear=True),
}

RATE = 2e-3
# (cell, task) -> Adam's rate; RATE where none is named. By short probes: with seed 0;
# with seed 100, which is no row of the table, for elman, elman_orthogonal, irnn and
# exp_rnn (1e-4, 5e-4, 2e-3, 5e-3; at the shortest length of each generated task). The
# authors' for coRNN.
RATES: dict[tuple[str, str], float] = {
    ("irnn", "adding"): 5e-4,
    ("irnn", "order_6a"): 5e-4,
    ("irnn", "order_6b"): 1e-4,
    ("exp_rnn", "adding"): 5e-3,
    ("co_rnn", "adding"): 2e-2,
    ("min_gru", "adding"): 5e-3,
    ("lstm", "order_6a"): 5e-3,
    ("lstm", "order_6b"): 5e-3,
    ("gru", "order_6a"): 5e-3,
    ("gru", "order_6b"): 5e-3,
    ("min_gru", "order_6a"): 5e-3,
    ("min_gru", "order_6b"): 5e-3,
    ("lru", "order_6a"): 5e-3,
    ("lru", "order_6b"): 5e-3,
}


def rate_of(cell: str, task: str) -> float:
    """Returns the learning rate that a cell is given for a task."""
    return RATES.get((cell, task), RATE)
