"""`jrnn.summary`, compared with counts by hand."""

import importlib

import jax
import jax.numpy as jnp
import pytest

import jrnn
from jrnn.models import costs
from tests.registry import CELLS

K, H = 3, 5
MODULE = importlib.import_module("jrnn.models.summary")  # named as its function


@pytest.fixture(autouse=True)
def by_hand_alone(request, monkeypatch):
    """Traces the default method alone, which is quicker."""
    if "each_method" not in request.node.name:
        monkeypatch.setattr(MODULE, "METHODS", {"bptt()": jrnn.bptt()})


# Numbers: parameters, state, multiply-adds, and floats kept per step by `bptt`: the
# inputs, the states, and the gates (a GRU's also v_n).
COUNTS = {
    "elman": (jrnn.elman(K, H), K * H + H * H + H, H, K * H + H * H, K + H),
    "lstm": (
        jrnn.lstm(K, H),
        4 * (K * H + H * H + H),
        2 * H,
        4 * (K * H + H * H),
        K + 2 * H + 4 * H,
    ),
    "gru": (
        jrnn.gru(K, H),
        3 * (K * H + H * H + H) + H,
        H,
        3 * (K * H + H * H),
        K + H + 4 * H,
    ),
    "feedforward": (jrnn.cells.feedforward(K, H), K * H + H, 0, K * H, K),
    "lru": (  # B and C are complex, x, y and D real
        jrnn.cells.lru(K, H),
        3 * H + 2 * K * H + 2 * H * K + K * K,
        2 * H,
        2 * K * H + 2 * H * K + K * K,
        None,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_by_hand(name):
    cell, parameters, state, products, floats = COUNTS[name]
    found = jrnn.summary(cell)
    assert (found.parameters, found.state, found.multiply_adds) == (
        parameters,
        state,
        products,
    )
    if floats is not None:
        assert found.bytes_per_step == {"bptt()": 4 * floats}
    (part,) = found.parts
    sizes = f"{K} -> {cell.spec.output_size}"
    assert part == ("cell", f"{name} {sizes}", parameters, state, products)
    assert jrnn.summary(cell, steps=2048).bytes_per_step == found.bytes_per_step


@pytest.mark.slow
def test_types_and_depth():
    wide = jrnn.summary(jrnn.gru(K, H), dtype=jnp.float64)
    assert wide.bytes_per_step == {"bptt()": 8 * (K + 5 * H)}
    both = jrnn.bidirectional(
        jrnn.lstm(K, H), jrnn.wrappers.zoneout(jrnn.gru(K, 2), 0.1)
    )
    deep = jrnn.stack(both, jrnn.dropout(jrnn.elman(H + 2, 4), 0.5))
    rows = [(part.name, part.layer) for part in jrnn.summary(deep).parts]
    assert rows == [
        ("[0][0]", "lstm 3 -> 5"),
        ("[0][1]", "zoneout(gru) 3 -> 2"),
        ("[1]", "elman 7 -> 4"),
    ]
    orthogonal = jrnn.wrappers.orthogonal(jrnn.elman(K, H))  # prepared once
    assert jrnn.summary(orthogonal).multiply_adds == K * H + H * H


def test_models():
    cell, head = jrnn.gru(7, H), jrnn.categorical(7)
    found = jrnn.summary(jrnn.sequence_model(cell, head))
    rows = {part.name: part[2:] for part in found.parts}
    assert rows == {  # rows of token ids are looked up, not multiplied
        "cell": (3 * (7 * H + H * H + H) + H, H, 3 * H * H),
        "head": (H * 7 + 7, 0, H * 7),
        "start": (7, 0, 0),
    }
    assert found.parameters == sum(row[0] for row in rows.values())
    pooled = jrnn.supervised_model(jrnn.gru(K, H), head, jrnn.models.mean_pool)
    one, each = (
        jrnn.summary(model)
        for model in (pooled, jrnn.supervised_model(jrnn.gru(K, H), head))
    )
    assert one.parts == each.parts
    assert one.bytes_per_step["bptt()"] >= 4 * (K + 5 * H)
    assert each.bytes_per_step["bptt()"] > one.bytes_per_step["bptt()"]


def test_it_prints_a_table():
    cell = jrnn.stack(jrnn.elman(K, 300), jrnn.elman(300, 2))
    lines = str(jrnn.summary(cell)).split("\n")
    assert lines[:5] == [
        "part   layer           parameters  state  multiply-adds per step",
        "[0]    elman 3 -> 300      91,200    300                  90,900",
        "[1]    elman 300 -> 2         606      2                     604",
        "total                      91,806    302                  91,504",
        "",
    ]
    assert lines[5] == "bytes kept per step for training"
    assert lines[6].startswith("bptt()  ")


@pytest.mark.slow
def test_each_method_that_runs_a_cell():
    names = list(MODULE.METHODS)
    assert list(jrnn.summary(jrnn.gru(K, H)).bytes_per_step) == [
        name for name in names if name != "associative()"
    ]
    assert list(jrnn.summary(jrnn.cells.lru(K, H)).bytes_per_step) == [
        name for name in names if name != "newton()"
    ]
    kept = jrnn.summary(jrnn.lstm(K, H), steps=4096).bytes_per_step
    assert kept["bptt(remat=1)"] < 4 * (K + 1) < kept["bptt()"] < kept["scan()"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CELLS, ids=lambda case: case.name)
def test_every_cell_has_a_summary(case):
    found = jrnn.summary(case.make(K, 4))
    assert found.parameters > 0
    assert found.multiply_adds > 0
    assert "bptt()" in found.bytes_per_step


def test_products_of_complex_numbers_count_as_four():
    x, W = jnp.ones((2, 3), complex), jnp.ones((3, 4), complex)
    assert costs.multiply_adds(jnp.matmul, x, W) == 4 * 2 * 3 * 4
    assert costs.multiply_adds(jnp.matmul, x.real, W.real) == 2 * 3 * 4
    heads = lambda a, b: jnp.einsum("hij,hjk->hik", a, b)
    assert costs.multiply_adds(
        jax.jit(heads), jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4))
    ) == (5 * 2 * 3 * 4)
    assert costs.kept_bytes(lambda p, x: jnp.sin(p * x), 1.0, x.real) > 0


@pytest.mark.parametrize(
    "wrong", [None, "lstm", jrnn.lstm, jrnn.categorical(3), jrnn.markov_chain(3, 1)]
)
def test_what_is_no_cell_is_refused(wrong):
    with pytest.raises(TypeError, match="cell_or_model to be a cell, or made by"):
        jrnn.summary(wrong)
