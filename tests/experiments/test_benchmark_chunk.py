"""The benchmark of chunks and unrolled loops: what it times and what it reports."""

import json

import pytest

import jrnn
from experiments.benchmarks import chunk, grid
from experiments.benchmarks.peers.problems import GRID, Shape
from tests.experiments.test_peers import plain

__all__ = ["plain"]  # a fixture


@pytest.mark.parametrize(
    "given", [("--shapes", "9"), ("--cells", "rnn"), ("--chunks", "0")]
)
def test_what_there_is_not_is_refused(given, tmp_path, capsys):
    out = tmp_path / "chunk.json"
    assert chunk.main([*given, "--out", str(out)]) == 2
    assert f"Expected {given[0]} of" in capsys.readouterr().err
    assert not out.exists()


def test_the_chunk_that_is_told_is_the_one_that_runs():
    """Of 100 steps of 64 KiB, 64 would fit: two chunks of 50 run."""
    taken, size = chunk.choice(jrnn.lstm(64, 128), GRID[0])
    assert size == 4 * 32 * 4 * 128
    assert taken == 50


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_run_writes_every_choice(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid, "GRID", (Shape(5, 2, 3, 4),))
    out = tmp_path / "chunk.json"
    given = ["--cells", "gru", "--shapes", "0", "--rounds", "2", "--chunks", "2", "8"]
    assert chunk.main([*given, "--unrolls", "1", "4", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert list(row["ratio_to_default"]) == [
        "default",
        "chunk 2",  # 8 are more than there are steps
        "unroll 1",
        "unroll 4",
    ]
    assert row["ratio_to_default"]["default"] == 1
    assert all(len(times) == 2 for times in row["seconds_per_round"].values())
    assert f"{row['ratio_to_default']['unroll 4']:.2f}" in capsys.readouterr().out
