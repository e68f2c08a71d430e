"""Shared by tests: the cells left out of the quick suite, tolerances, comparisons."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.registry import CELLS

# Cells that only the slow suite runs, also in the gradient matrix.
RARE = {
    "min_gru positive",
    "min_lstm",
    "rg_lru",
    "rg_lru without projection",
    "rg_lru unscaled start",
    "s5",
    "s5 irregular",
    "sru",
    "sru highway",
    "diagonal_lstm",
    "diagonal_lstm coupled",
    "diagonal_gru",
    "exp_rnn",
    "antisymmetric_rnn",
    "antisymmetric_rnn gated",
    "co_rnn",
    "co_rnn implicit",
    "lem",
    "orthogonal elman identity",
    "bidirectional product",
    "feedforward",
    "skip connections",
}
# Variants of cells in the quick suite; only the slow suite runs them.
RELATIVES = {
    "elman relu",
    "elman sin",
    "layer norm lstm",
    "elman sigmoid",
    "elman identity",
    "lstm no bias",
    "lstm peepholes",
    "lstm projection",
    "lstm peepholes projection",
    "gru no bias",
    "generic gru",
    "layer norm elman",
    "layer norm gru",
} | RARE
MAIN = [case for case in CELLS if case.name in ("elman", "lstm", "gru", "gru before")]


def every_case():
    """Returns all cells for pytest's parametrize, RELATIVES marked slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(case, id=case.name, marks=slow if case.name in RELATIVES else ())
        for case in CELLS
    ]


def marked(cases):
    """Returns cells for pytest's parametrize, RARE ones marked slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(case, id=case.name, marks=slow if case.name in RARE else ())
        for case in cases
    ]


def two_of_main():
    """Returns MAIN for pytest's parametrize, the plain Elman cell and GRU marked slow.

    The LSTM and the other GRU stay: gates in one product, and an adjoint of its own.
    """
    slow = pytest.mark.slow
    quick = ("lstm", "gru before")
    return [
        pytest.param(case, id=case.name, marks=() if case.name in quick else slow)
        for case in MAIN
    ]


def ids(cases):
    """Returns names for pytest's parametrize."""
    return [case.name for case in cases]


def random_like(seed, tree, scale=1.0):
    """Returns random normal arrays with the shapes and dtypes of `tree`'s leaves."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        drawn = rng.normal(size=leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            drawn = drawn + 1j * rng.normal(size=leaf.shape)
        return jnp.asarray(scale * drawn, leaf.dtype)

    return jax.tree.map(draw, tree)


@functools.lru_cache(maxsize=512)
def shapes_of(init, dtype=jnp.float64):
    """Returns the shapes of the parameters that `init` draws, and draws none."""
    return jax.eval_shape(lambda: init(jax.random.key(0), dtype))


def state_shapes(cell, params, batch_shape=()):
    """Returns the shapes of the cell's state."""
    return jax.eval_shape(lambda: cell.init_state(params, batch_shape))


def forwards_in_time(cell, xs):
    """Returns inputs with nonnegative elapsed time, if the cell reads elapsed time."""
    if cell.elapsed is None:
        return xs
    return xs.at[..., cell.elapsed].set(jnp.abs(xs[..., cell.elapsed]))


def random_params(case, k=3, h=4, dtype=jnp.float64):
    """Returns non-symmetric weights and non-zero biases, the same on every run."""
    cell = case.make(k, h)
    params = shapes_of(cell.init, dtype)
    return cell, random_like(zlib.crc32(case.name.encode()), params, 0.5)


def to_numpy(tree):
    """Returns a NamedTuple as a dict of float64 or complex128 arrays, None kept."""
    return {
        name: None if leaf is None else wide(leaf)
        for name, leaf in tree._asdict().items()
    }


def wide(leaf):
    """Returns a leaf as a float64 or complex128 NumPy array."""
    is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
    return np.asarray(leaf, np.complex128 if is_complex else np.float64)


def paired(a, b):
    """Returns the real sum of products of two trees' leaves: a loss with gradient b."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((x * y).sum().real for x, y in pairs)


# Largest normwise relative error, max|a-b| / max|b|, by dtype.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}


def error(a, b):
    """Returns the normwise relative error of a, compared with b."""
    a, b = wide(np.asarray(a)), wide(np.asarray(b))
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


def command_line(settings, out):
    """Returns the command-line arguments for an experiment with `settings`."""
    arguments = ["--out", str(out)]
    for name, value in dataclasses.asdict(settings).items():
        if name != "out":
            several = value if isinstance(value, tuple) else (value,)
            arguments += ["--" + name.replace("_", "-"), *map(str, several)]
    return arguments
