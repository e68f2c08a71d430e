"""The benchmark of kernels, as far as it can be tested without a GPU."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import jrnn
from experiments.benchmarks.kernels import __main__ as command
from experiments.benchmarks.kernels import agreement, report, systems, timing
from experiments.benchmarks.peers.jax_peers import jrnn_peer
from experiments.benchmarks.peers.problems import (
    INFERENCE,
    TRAINING,
    Shape,
    Weights,
    make_problem,
)
from experiments.benchmarks.peers.running import jax_runner
from tests.experiments.test_peers import plain

SMALL = Shape(5, 2, 3, 4)
__all__ = ["plain"]  # a fixture


def test_without_a_gpu_it_says_so_and_fails(tmp_path):
    with pytest.raises(
        SystemExit, match="Expected a GPU, got the backend 'cpu'"
    ) as end:
        command.main(["--linear-steps", "8", "--out", str(tmp_path / "kernels.json")])
    assert end.value.code != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("plain")
def test_weights_are_packed_as_cudnn_has_them():
    weights = make_problem("lstm", SMALL).weights
    flat = systems.cudnn_peer(SMALL).convert(Weights(*map(jnp.asarray, weights)))
    unpacked = rnn.unpack_lstm_weights(flat, SMALL.I, SMALL.H, 1, False)
    W_x, W_h, b, b_h = (np.asarray(each[0]) for each in unpacked)
    assert (weights.W_x == W_x.T).all()
    assert (weights.W_h == W_h.T).all()
    assert (weights.b == b).all()
    assert not b_h.any()


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_another_function_is_noticed_and_another_type_is_not():
    problem = make_problem("lstm", SMALL)
    run = lambda method, dtype: jax_runner(
        problem, systems.narrowed(jrnn_peer(problem, method), dtype)
    )
    kernel = jrnn.fused(interpret=True)
    found = {"bptt": run(jrnn.bptt(), "float32"), "fused": run(kernel, "bfloat16")}
    off = timing.check(found)
    assert off["bptt"] == 0 < off["fused"]
    swapped = jax.tree.map(lambda leaf: leaf[::-1], problem.weights.W_h)
    wrong = problem._replace(weights=problem.weights._replace(W_h=swapped))
    peer = jrnn_peer(problem, jrnn.bptt())
    with pytest.raises(ValueError, match="not the same function"):
        timing.check({**found, "wrong": jax_runner(wrong, peer)})


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_what_fails_is_named_and_the_rest_is_measured(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        cases = [
            systems.prepare("lstm", SMALL, "float32", pool),
            systems.prepare("gru", SMALL, "bfloat16", pool),
        ]
    rows = [row for case in cases for row in timing.time_cell(case, 0.1)]
    failed = {row["system"]: row["error"] for row in rows if "error" in row}
    assert {"jrnn fused", "PyTorch", "jax.experimental.rnn"} == set(failed)
    assert "float32 or float64" in failed["jrnn fused"]  # of the one in bfloat16
    timed = [
        (row["what"], row["system"]) for row in rows if row.get("pass") == TRAINING
    ]
    assert timed == [
        ("lstm 4 float32", "jrnn bptt"),
        ("lstm 4 float32", "jrnn scan"),
        ("lstm 4 float32", "jrnn fused"),
        ("lstm 4 float32", "flax.linen"),
        ("gru 4 bfloat16", "jrnn bptt"),
        ("gru 4 bfloat16", "jrnn scan"),
    ]
    for row in rows:
        if "error" not in row:
            assert len(row["seconds_per_round"]) == row["rounds"] >= 5
            assert row["temporary_bytes"] > 0
    assert report.show(rows) == 1
    report.draw(rows, tmp_path / "kernels.png", "a machine")
    assert (tmp_path / "kernels.png").stat().st_size > 10_000


def test_the_speed_of_memory_is_told_beside_a_copy():
    row = lambda system, which, speed: {
        "what": "linear",
        "system": system,
        "pass": which,
        "bytes_per_second": speed,
    }
    rows = [
        row("jrnn linear_recurrence", INFERENCE, 3e12),
        row("jrnn linear_recurrence", TRAINING, 2e12),
        row("copy", INFERENCE, 4e12),
    ]
    forwards, both = report.bandwidths(rows)
    assert "75% of a copy's 4.00" in forwards
    assert "50% of a copy's 4.00" in both
    assert report.bandwidths(rows[2:]) == []
    report.draw(rows, None, "a machine")  # no cell ran: nothing to draw


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", ["lstm", "lru"])
@pytest.mark.parametrize("mapped", [False, True])
def test_methods_are_compared_with_a_scan(name, mapped, monkeypatch):
    right = {"bptt": jrnn.bptt(), "associative": jrnn.associative(chunk=8)}
    fused = {"fused": jrnn.fused(interpret=True), "fused elsewhere": jrnn.fused()}
    monkeypatch.setattr(agreement, "METHODS", {**right, **fused})
    case = agreement.Compared(name, 4, 2, mapped=mapped)
    rows = agreement.agree(case)
    found = {row["system"]: row.get("difference", row.get("error")) for row in rows}
    other = "associative" if name == "lru" else "fused"
    assert found["bptt"] < 1e-5
    assert found[other] < 1e-5
    assert ("fused elsewhere" in found) == (name == "lstm")
    monkeypatch.setattr(agreement, "EXACT", 1e-9)
    assert any("outputs and gradients" in str(row) for row in agreement.agree(case))
