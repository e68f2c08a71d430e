"""The benchmark of compiling: every round of every library starts cold."""

import json

import jax
import pytest

from experiments.benchmarks import compiling, grid
from experiments.benchmarks.peers.jax_peers import jrnn_peer
from experiments.benchmarks.peers.problems import PASSES, TRAINING, Shape, make_problem
from tests.experiments.test_peers import plain

SMALL = Shape(5, 2, 3, 4)
__all__ = ["plain"]  # a fixture


@pytest.mark.parametrize(
    "given",
    [("--shapes", "-1"), ("--cells", "rnn"), ("--systems", "jrnn"), ("--rounds", "0")],
)
def test_what_there_is_not_is_refused(given, tmp_path, capsys):
    out = tmp_path / "compiling.json"
    assert compiling.main([*given, "--out", str(out)]) == 2
    assert f"Expected {given[0]} of" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_run_writes_every_round(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid, "GRID", (SMALL,))
    out = tmp_path / "compiling.json"
    given = ["--cells", "elman", "--shapes", "0", "--rounds", "2"]
    given += ["--systems", "jrnn, scan", "--out", str(out)]
    assert compiling.main(given) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["pass"] for row in rows] == list(PASSES)
    for row in rows:
        assert list(row["ratios"]) == ["jrnn, scan"]
        for name in ("jrnn", "jrnn, scan"):
            whole, traced = row["seconds_per_round"][name], row["of_it_tracing"][name]
            assert len(whole) == 2
            assert all(
                0 < part < all_ for part, all_ in zip(traced, whole, strict=True)
            )
    assert f"{rows[1]['ratios']['jrnn, scan']:.2f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_each_compilation_starts_cold(monkeypatch):
    problem = make_problem("gru", SMALL)
    peer, traced = jrnn_peer(problem), []
    cell_forward = peer.forward
    forward = lambda params, xs: traced.append(1) or cell_forward(params, xs)
    cleared = []
    clear = jax.clear_caches
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(1) or clear())
    for _ in range(2):
        compiling.seconds_of(problem, peer._replace(forward=forward), TRAINING)
    assert len(traced) == len(cleared) == 2
