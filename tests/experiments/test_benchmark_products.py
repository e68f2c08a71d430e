"""The benchmark of products: all variants compute the same numbers."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import grid, products
from experiments.benchmarks.peers.problems import Shape
from tests.experiments.test_peers import plain

SMALL = Shape(5, 2, 3, 4)
__all__ = ["plain"]  # a fixture


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("gates", [1, 3])
@pytest.mark.parametrize("product", products.PRODUCTS)
def test_every_way_computes_the_same(product, gates):
    numbers = products.factors(product, SMALL, gates)
    arrays = tuple(map(jnp.asarray, numbers))
    ways = products.PRODUCTS[product][0](gates)
    first, *others = (np.asarray(way(*arrays)) for way in ways.values())
    assert first.any()
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("given", [("--shapes", "-1"), ("--cells", "rnn")])
def test_what_there_is_not_is_refused(given, tmp_path, capsys):
    out = tmp_path / "products.json"
    assert products.main([*given, "--out", str(out)]) == 2
    assert f"Expected {given[0]} of" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_run_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid, "GRID", (SMALL,))
    out = tmp_path / "products.json"
    given = ["--cells", "gru", "--shapes", "0", "--seconds", "0.01", "--repeats", "2"]
    assert products.main([*given, "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["product"] for row in rows] == list(products.PRODUCTS)
    assert rows[0]["operations"] == 2 * 2 * 4 * 12
    assert rows[2]["operations"] == products.CHUNK * rows[0]["operations"]
    shown = capsys.readouterr().out
    for row in rows:
        first = next(iter(row["seconds"].values()))
        assert f"{1e6 * first:.1f}" in shown
        assert next(iter(row["ratio_to_first"].values())) == 1
