"""The cost of a step does not grow unnoticed: operations are counted, not timed.

The compiled training step and forward pass, by the default method of `unroll`, may have
no more operations and matrix products in their loops over chunks and over steps, and no
more temporary memory, than tests/results/counts.json.
`python -m tests.contracts.test_counts` writes that file again.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jrnn
from tests.hlo import Counts, count, scattered_products

RESULTS = Path(__file__).parents[1] / "results" / "counts.json"
CELLS = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm, "lru": jrnn.cells.lru}
# (T, B, I, H): several chunks; one row, whose products lie otherwise; chunks of which
# the last is filled up; as many steps in a chunk as fit the cache, but for Elman's.
SHAPES = ((256, 8, 16, 64), (256, 1, 16, 64), (257, 8, 16, 64), (64, 128, 32, 128))
CASES = [(name, shape) for name in CELLS for shape in SHAPES]
SLACK = 1.02  # of bytes, which compilers align
PASSES = ("training", "inference")


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(cell, method, params, xs):
    def loss(params, xs):
        return jnp.square(jrnn.unroll(cell, params, xs, method=method)[1]).sum()

    return jax.grad(loss, (0, 1))(params, xs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def infer(cell, method, params, xs):
    return jrnn.unroll(cell, params, xs, method=method)[1]


def measure(name, shape, which, method=None):
    steps, batch, inputs, units = shape
    cell = CELLS[name](inputs, units)
    params = cell.init(jax.random.key(0), jnp.float32)
    xs = jnp.ones((steps, batch, inputs), jnp.float32)
    function = train if which == "training" else infer
    return count(function.lower(cell, method, params, xs).compile())


def beyond(counts, bound):
    """Returns what exceeds the bound, in words."""
    found = []
    for field in ("operations", "products"):
        got, most = getattr(counts, field), getattr(bound, field)
        if len(got) > len(most) or any(a > b for a, b in zip(got, most, strict=False)):
            found.append(f"{field} in the loops: {got}, at most {most}")
    if counts.temporary_bytes > SLACK * bound.temporary_bytes:
        found.append(f"bytes: {counts.temporary_bytes}, of {bound.temporary_bytes}")
    return found


def bound_of(name, shape, which):
    return Counts(**json.loads(RESULTS.read_text())[name][str(shape)][which])


@pytest.mark.slow
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_step_costs_no_more_than_it_did(name, shape, which):
    assert not beyond(measure(name, shape, which), bound_of(name, shape, which))


@pytest.mark.slow
def test_the_guard_sees_a_costlier_step():
    case = "lstm", SHAPES[0], "training"
    assert len(beyond(measure(*case, jrnn.scan()), bound_of(*case))) >= 2


@pytest.mark.slow
def test_the_guard_sees_another_default(monkeypatch):
    monkeypatch.setattr(sys.modules["jrnn.run.unroll"], "_BPTT", jrnn.scan())
    jax.clear_caches()
    case = "gru", SHAPES[0], "training"
    try:
        assert beyond(measure(*case), bound_of(*case))
    finally:
        jax.clear_caches()


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("peepholes", "rows", "scattered"), [(False, 2, 0), (True, 2, 0), (False, 1, 1)]
)
def test_a_step_backwards_reads_the_matrix_along_its_rows(peepholes, rows, scattered):
    """Of two rows and more; a single one's product is faster as it is."""
    cell = jrnn.lstm(3, 8, peepholes=peepholes)
    params, xs = cell.init(jax.random.key(0)), jnp.ones((64, rows, 3), jnp.float32)
    compiled = train.lower(cell, jrnn.bptt(chunk=16), params, xs).compile()
    assert scattered_products(compiled) == scattered


if __name__ == "__main__":
    content = {
        name: {
            str(shape): {w: measure(name, shape, w)._asdict() for w in PASSES}
            for shape in SHAPES
        }
        for name in CELLS
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
