"""The names that a file may contain: factories and functions of jrnn and of JAX.

Nothing else is ever called, and nothing is imported by a name that a file contains.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from jrnn.core.caches import bounded

# A file contains public names, such as `jrnn.cells.lstm`, wherever the code is.
# What a file may call:
FACTORIES = {
    "jrnn.cells": (
        "antisymmetric_rnn co_rnn diagonal_gru diagonal_lstm elman exp_rnn feedforward "
        "gru ind_rnn layer_norm_elman layer_norm_gru layer_norm_lstm lem lru lstm "
        "min_gru min_lstm rg_lru s5 sru stateless"
    ),
    "jrnn.wrappers": (
        "bidirectional dropout learned_initial_state orthogonal residual "
        "skip_connections stack variational_dropout zoneout"
    ),
    "jrnn.heads": (
        "bernoulli categorical discretised_logistic gaussian mixture student_t"
    ),
    "jrnn.models": (
        "linear_gaussian_markov markov_chain sequence_model supervised_model"
    ),
    "jrnn.initializers": (
        "chrono_gru chrono_lstm identity normal spectral_radius strongest_decay uniform"
    ),
}
# What a file may pass as an argument:
FUNCTIONS = {
    "jrnn.activations": "linear positive",
    "jrnn.heads": "gaussian_kernel logistic_kernel",
    "jrnn.initializers": (
        "cayley diagonal_normal embedding henaff orthogonal para_gru para_lstm"
    ),
    "jrnn.models": "last_pool mean_pool",
    "jrnn.wrappers": "concat_merge mean_merge product_merge sum_merge",
    "jax.numpy": (
        "abs add arcsinh arctan cbrt cos cosh exp expm1 hypot log1p logaddexp maximum "
        "minimum multiply negative reciprocal sign sin sinc sinh sqrt square subtract "
        "tanh"
    ),
    "jax.nn": (
        "celu elu gelu hard_sigmoid hard_silu hard_tanh identity leaky_relu "
        "log_sigmoid mish relu relu6 selu sigmoid silu soft_sign softplus sparse_plus "
        "sparse_sigmoid squareplus"
    ),
    "jax.nn.initializers": "ones zeros",
    "jax.lax": "cos erf exp logistic sin tanh",
}
# Old name -> new name: files with the old one still load.
RENAMED: dict[str, str] = {}


def _found(table: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for module, names in table.items():
        home = importlib.import_module(module)
        for name in names.split():
            if hasattr(home, name):  # not every version of JAX has all of them
                found[f"{module}.{name}"] = getattr(home, name)
    return found


@bounded
def factories() -> dict[str, Any]:
    """Returns what a file may call, by name."""
    return _found(FACTORIES)


@bounded
def functions() -> dict[str, Any]:
    """Returns what a file may pass as an argument, by name."""
    return _found(FUNCTIONS)


@bounded
def _names() -> dict[int, str]:
    found: dict[int, str] = {}
    for name, thing in (factories() | functions()).items():
        found.setdefault(id(thing), name)
    return found


def name_of(thing: Any) -> str | None:
    """Returns the name under which a file stores an object; None: it has none."""
    return _names().get(id(thing))


def current_name(name: str) -> str:
    """Returns the present name of what may have been renamed."""
    return RENAMED.get(name, name)
