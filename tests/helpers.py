"""The registry of cells, tolerances, and what tests share."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests import reference


class Case(NamedTuple):
    """A cell under test, beside the reference that shares no code with it."""

    name: str
    make: Callable[[int, int], jrnn.Cell]
    truth: tuple


def generic(make):
    """The same cell as a user would write it, without hand-derived derivatives."""
    return lambda k, h: make(k, h)._replace(gated=None, adjoint=None)


# A new cell is tested by adding one line.
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
        lambda k, h: jrnn.elman(k, h, activation=jrnn.identity),
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
    Case("layer norm elman", jrnn.layer_norm_elman, reference.layer_norm_elman()),
    Case("layer norm lstm", jrnn.layer_norm_lstm, reference.layer_norm_lstm()),
    Case("layer norm gru", jrnn.layer_norm_gru, reference.layer_norm_gru()),
    Case("generic lstm", generic(jrnn.lstm), reference.lstm()),
    Case("generic gru", generic(jrnn.gru), reference.gru()),
]
# Close relatives of a cell that the quick suite runs; the slow suite runs them too.
RELATIVES = {
    "elman relu",
    "elman sin",
    "layer norm lstm",
    "elman sigmoid",
    "elman identity",
    "lstm no bias",
    "lstm peepholes",
    "lstm projection",
    "gru no bias",
    "generic gru",
    "layer norm elman",
    "layer norm gru",
}
MAIN = [case for case in CELLS if case.name in ("elman", "lstm", "gru", "gru before")]


def every_case():
    """All cells for pytest's parametrize, close relatives marked slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(case, id=case.name, marks=slow if case.name in RELATIVES else ())
        for case in CELLS
    ]


def ids(cases):
    """Names for pytest's parametrize."""
    return [case.name for case in cases]


def random_like(seed, tree, scale=1.0):
    """Random normal arrays of the shapes and types of `tree`'s leaves."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, tree)


def random_params(case, k=3, h=4, dtype=jnp.float64):
    """Non-symmetric weights and non-zero biases, the same on every run."""
    cell = case.make(k, h)
    params = cell.init(jax.random.key(0), dtype)
    return cell, random_like(zlib.crc32(case.name.encode()), params, 0.5)


def to_numpy(tree):
    """A NamedTuple as a dict of float64 arrays, None kept."""
    return {
        name: None if leaf is None else np.asarray(leaf, np.float64)
        for name, leaf in tree._asdict().items()
    }


# Largest normwise relative error, max|a-b| / max|b|, by type.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}


def error(a, b):
    """Normwise relative error of a beside b."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300) if b.size else 0.0


def assert_close(a, b, tolerance=TOLERANCE["float64"]):
    """Compares two trees leaf by leaf, normwise; NaN fails."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        found = error(x, y)
        assert found <= tolerance, f"{jax.tree_util.keystr(path)}: {found:.2e}"
