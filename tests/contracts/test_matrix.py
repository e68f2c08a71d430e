"""The gradient matrix: pairs, triples, and at night all combinations.

    pytest test_matrix.py             one in 36 of the pairs' programs
    pytest -m slow test_matrix.py     the other pairs, and half of the triples
    pytest -m nightly test_matrix.py  the other half; everything, for three cells

Pairs: every two axes take every joint value. Triples: every three.

The number of cases is printed at the end of each run (tests/conftest.py).
"""

import itertools
import json
from pathlib import Path
from zlib import crc32

import jax
import jax.numpy as jnp
import pytest

import jrnn
from tests import matrix
from tests.helpers import RARE, assert_close, error, random_like, state_shapes

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "support.md"
RESULTS = ROOT / "tests" / "results" / "gradient_matrix.json"
EXHAUSTIVE = ("elman", "lstm", "elman identity")
# Came after the committed run of everything, and take part in pairs and triples alone.
LATER = ("fused", matrix.ON_A_CPU)
BOUND = 1e-9
# The quick suite runs one test in so many of this matrix; the slow one runs them all.
STRIDE = 36


def check(rows, record_property):
    """Compares every row's outputs and gradients."""
    largest = 0.0
    for row in rows:
        cell, data = matrix.data_of(row)
        shape = row["method"], row["direction"], row["checkpoints"]
        got = matrix.by_method(cell, *shape)(data)
        expected = matrix.by_loop(cell, row["direction"])(data)
        assert_close(got, expected, BOUND)
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
        largest = max(largest, *(error(a, b) for a, b in pairs))
    record_property("cases", len(rows))
    record_property("largest", float(largest))


def grouped(rows, stride=None):
    """One test for all rows that share a compiled function.

    With a stride all tests are slow but one in so many, and those of rare cells.
    """
    groups = {}
    for row in rows:
        shape = "-".join(str(row[name]) for name in matrix.SHAPING)
        groups.setdefault(shape, []).append(row)
    slow = lambda number, rows: number % stride or rows[0]["cell"] in RARE
    return [
        pytest.param(
            rows,
            id=shape,
            # What runs at night must not be slow as well: `-m slow` would run it.
            marks=pytest.mark.slow if stride and slow(number, rows) else (),
        )
        for number, (shape, rows) in enumerate(groups.items())
    ]


def halved(rows):
    """One test for all rows that share a compiled function, every other one at night.

    Which is drawn by its name, and thus goes by no axis.
    """
    marks = (pytest.mark.slow, pytest.mark.nightly)
    return [
        pytest.param(*test.values, id=test.id, marks=marks[crc32(test.id.encode()) % 2])
        for test in grouped(rows)
    ]


def everything():
    methods = tuple(name for name in matrix.METHODS if name not in LATER)
    axes = {**matrix.AXES, "cell": EXHAUSTIVE, "method": methods}
    rows = itertools.product(*axes.values())
    named = [dict(zip(axes, values, strict=True)) for values in rows]
    return [row for row in named if matrix.accepted(row)]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("rows", grouped(matrix.covering(2, matrix.AXES), STRIDE))
def test_every_two(rows, record_property):
    check(rows, record_property)


@pytest.mark.parametrize("rows", halved(matrix.covering(3, matrix.AXES)))
def test_every_three(rows, record_property):
    check(rows, record_property)


@pytest.mark.nightly
@pytest.mark.parametrize("rows", grouped(everything()))
def test_everything(rows, record_property):
    check(rows, record_property)


def test_what_covers_covers():
    rows = matrix.covering(2, matrix.AXES)
    for one, two in itertools.combinations(matrix.AXES, 2):
        met = {(row[one], row[two]) for row in rows}
        every = set(itertools.product(matrix.AXES[one], matrix.AXES[two]))
        refused = {(name, method) for method, name in matrix.REFUSED}
        assert met == every - refused
    assert all(map(matrix.accepted, rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("direction", "structure"),
    [("forward", "plain"), ("forward", "dropout"), ("bidirectional", "stacked")],
)
def test_what_the_table_refuses_is_refused_by_an_error(direction, structure):
    for method, name in sorted(matrix.REFUSED):
        row = dict.fromkeys(matrix.AXES, "none")
        row |= {"cell": name, "structure": structure, "direction": direction}
        cell, data = matrix.data_of({**row, "state": "given", "loss": "both"})
        run = lambda d, cell=cell, method=method: jrnn.unroll(
            cell, d.params, d.xs, method=matrix.METHODS[method][False]
        )
        with pytest.raises(ValueError, match=r"run it (with|in parallel)"):
            jax.eval_shape(run, data)


def test_the_committed_table_is_the_one_that_is_tested():
    assert TABLE.read_text(encoding="utf-8") == matrix.table()


@pytest.mark.slow
def test_batch_time_and_units_of_equal_number():
    # Where B = H = T = k a transposed product or a swapped axis raises nothing.
    size = 5
    for make in (jrnn.elman, jrnn.lstm, jrnn.gru):
        cell = make(size, size)
        params = matrix.draw_params(cell, cell.spec.name)
        xs = random_like(1, jax.ShapeDtypeStruct((size,) * 3, "float64"))
        state = random_like(2, state_shapes(cell, params, (size,)))
        weights = random_like(3, jax.ShapeDtypeStruct((size,) * 3, "float64"))

        def loop(params, xs, state, cell=cell):
            ys = []
            for x in xs:
                state, y = cell.step(params, state, x)
                ys.append(y)
            return jnp.stack(ys)

        loss = lambda run, weights=weights: lambda *a: (run(*a) * weights).sum()
        expected = jax.grad(loss(loop), (0, 1, 2))(params, xs, state)
        for method in (jrnn.scan(), jrnn.bptt(chunk=2), jrnn.bptt(remat=1, chunk=1)):
            run = lambda params, xs, state, cell=cell, method=method: jrnn.unroll(
                cell, params, xs, state, method=method
            )[1]
            got = jax.grad(loss(run), (0, 1, 2))(params, xs, state)
            assert_close(got, expected, BOUND)


def test_the_results_of_the_full_product_are_those_of_this_matrix():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert results["cases"] == len(everything())
    assert results["failed"] == 0
    assert results["largest_error"] <= BOUND
