"""The registry of cells, each with a reference that shares no code with it.

To test a new cell, add one line here: every contract test then covers it, and so does
`python -m experiments.gradient_check`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import jrnn
from tests import reference, reference_long


class Case(NamedTuple):
    """A cell under test, and a reference that shares no code with it."""

    name: str
    make: Callable[[int, int], jrnn.Cell]
    truth: tuple


def generic(make):
    """Returns the factory of the same cell without hand-derived derivatives."""
    return lambda k, h: make(k, h)._replace(gated=None, adjoint=None)


# To test a new cell, add one line.
CELLS = [
    Case("elman", jrnn.elman, reference.elman()),
    Case(
        "elman relu",
        lambda k, h: jrnn.elman(k, h, activation=jax.nn.relu, bias=False),
        reference.elman("relu"),
    ),
    Case(
        "elman sigmoid",
        lambda k, h: jrnn.elman(k, h, activation=jax.nn.sigmoid),
        reference.elman("sigmoid"),
    ),
    Case(
        "elman identity",
        lambda k, h: jrnn.elman(k, h, activation=jrnn.activations.linear),
        reference.elman("identity"),
    ),
    Case(
        "elman sin",
        lambda k, h: jrnn.elman(k, h, activation=jnp.sin),
        reference.elman("sin"),
    ),
    Case("lstm", jrnn.lstm, reference.lstm()),
    Case("lstm no bias", lambda k, h: jrnn.lstm(k, h, bias=False), reference.lstm()),
    Case(
        "lstm peepholes",
        lambda k, h: jrnn.lstm(k, h, peepholes=True),
        reference.lstm(),
    ),
    Case(
        "lstm projection",
        lambda k, h: jrnn.lstm(k, h, projection_size=2),
        reference.lstm(),
    ),
    Case(
        "lstm peepholes projection",
        lambda k, h: jrnn.lstm(k, h, peepholes=True, projection_size=2),
        reference.lstm(),
    ),
    Case("gru", jrnn.gru, reference.gru()),
    Case("gru no bias", lambda k, h: jrnn.gru(k, h, bias=False), reference.gru()),
    Case(
        "gru before",
        lambda k, h: jrnn.gru(k, h, reset_after=False),
        reference.gru(reset_after=False),
    ),
    Case("layer norm elman", jrnn.cells.layer_norm_elman, reference.layer_norm_elman()),
    Case("layer norm lstm", jrnn.cells.layer_norm_lstm, reference.layer_norm_lstm()),
    Case("layer norm gru", jrnn.cells.layer_norm_gru, reference.layer_norm_gru()),
    Case("min_gru", jrnn.cells.min_gru, reference.min_gru()),
    Case(
        "min_gru positive",
        lambda k, h: jrnn.cells.min_gru(
            k, h, activation=jrnn.activations.positive, bias=False
        ),
        reference.min_gru("positive"),
    ),
    Case(
        "min_lstm",
        lambda k, h: jrnn.cells.min_lstm(k, h, activation=jnp.tanh),
        reference.min_lstm("tanh"),
    ),
    Case("lru", jrnn.cells.lru, reference.lru()),
    Case("rg_lru", jrnn.cells.rg_lru, reference.rg_lru()),
    Case(
        "rg_lru without projection",
        lambda k, h: jrnn.cells.rg_lru(k, bias=False),
        reference.rg_lru(),
    ),
    Case("s5", lambda k, h: jrnn.cells.s5(k, h, blocks=2), reference.s5()),
    Case(
        "s5 irregular",
        lambda k, h: jrnn.cells.s5(k, h, irregular=True, output_size=h),
        reference.s5(irregular=True),
    ),
    Case("sru", jrnn.cells.sru, reference.sru()),
    Case("sru highway", lambda k, h: jrnn.cells.sru(k, k, bias=False), reference.sru()),
    Case("ind_rnn", jrnn.cells.ind_rnn, reference.ind_rnn()),
    Case("diagonal_lstm", jrnn.cells.diagonal_lstm, reference.diagonal_lstm()),
    Case(
        "diagonal_lstm coupled",
        lambda k, h: jrnn.cells.diagonal_lstm(k, h, coupled=True, peepholes=True),
        reference.diagonal_lstm(coupled=True),
    ),
    Case("diagonal_gru", jrnn.cells.diagonal_gru, reference.diagonal_gru()),
    Case("exp_rnn", jrnn.cells.exp_rnn, reference_long.exp_rnn()),
    Case(
        "antisymmetric_rnn",
        lambda k, h: jrnn.cells.antisymmetric_rnn(k, h, epsilon=0.7, gamma=0.3),
        reference_long.antisymmetric_rnn(0.7, 0.3),
    ),
    Case(
        "antisymmetric_rnn gated",
        lambda k, h: jrnn.cells.antisymmetric_rnn(k, h, gated=True, epsilon=0.7),
        reference_long.antisymmetric_rnn(0.7, 0.1, gated=True),
    ),
    Case(
        "co_rnn",
        lambda k, h: jrnn.cells.co_rnn(k, h, dt=0.3),
        reference_long.co_rnn(0.3, 2.7, 4.7),
    ),
    Case(
        "co_rnn implicit",
        lambda k, h: jrnn.cells.co_rnn(
            k, h, dt=0.6, gamma=0.8, implicit=True, bias=False
        ),
        reference_long.co_rnn(0.6, 0.8, 4.7, implicit=True),
    ),
    Case("lem", lambda k, h: jrnn.cells.lem(k, h, dt=0.8), reference_long.lem(0.8)),
    Case(
        "rg_lru unscaled start",
        lambda k, h: jrnn.cells.rg_lru(k, h, unscaled_start=True),
        reference.rg_lru(unscaled_start=True),
    ),
    Case(
        "feedforward",
        lambda k, h: jrnn.cells.feedforward(k, h, activation=jnp.tanh),
        reference.feedforward(),
    ),
    Case("generic lstm", generic(jrnn.lstm), reference.lstm()),
    Case("generic gru", generic(jrnn.gru), reference.gru()),
]
