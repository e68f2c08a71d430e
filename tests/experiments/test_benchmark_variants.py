"""The benchmark of variants: each computes the same as the original."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import grid, variants
from experiments.benchmarks.peers.problems import INFERENCE, PASSES, Shape, make_problem
from tests.experiments.test_peers import plain

SMALL = Shape(5, 2, 3, 4)
__all__ = ["plain"]  # a fixture


@pytest.mark.parametrize(
    "given", [("--shapes", "-1"), ("--cells", "rnn"), ("--repeats", "0")]
)
def test_what_there_is_not_is_refused(given, tmp_path, capsys):
    out = tmp_path / "variants.json"
    assert variants.main([*given, "--out", str(out)]) == 2
    assert f"Expected {given[0]} of" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_run_writes_every_variant(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid, "GRID", (SMALL,))
    out = tmp_path / "variants.json"
    given = ["--cells", "lstm", "--shapes", "0", "--seconds", "0.01", "--repeats", "2"]
    assert variants.main([*given, "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["pass"] for row in rows] == list(PASSES)
    assert set(rows[0]["ratios"]) == {"512 bits", "sigmoid by tanh", "two halves"}
    assert set(rows[1]["ratios"]) == {"512 bits", "sigmoid by tanh"}
    for row in rows:
        assert max(row["difference"].values()) < 1e-5
        (rounds,) = {len(times) for times in row["seconds_per_round"].values()}
        assert rounds >= 2 * variants.FEWEST
    assert rows[0]["difference"]["sigmoid by tanh"] > 0  # it was another program
    assert f"{rows[0]['ratios']['two halves']:.2f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_another_function_is_refused(monkeypatch):
    monkeypatch.setattr(variants, "by_tanh", jnp.tanh)
    problem = make_problem("gru", SMALL)
    with pytest.raises(
        ValueError, match="Expected sigmoid by tanh to compute the same"
    ):
        variants.check(variants.compiled(problem, INFERENCE))


def test_the_logistic_function_by_tanh():
    a = np.linspace(-20.0, 20.0, 41)
    np.testing.assert_allclose(variants.by_tanh(a), 1 / (1 + np.exp(-a)), atol=1e-15)
