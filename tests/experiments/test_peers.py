"""The comparison with other libraries: same mathematics, honest ratios."""

import json
import math
import subprocess
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from experiments.benchmarks.peers import __main__ as peers
from experiments.benchmarks.peers import report
from experiments.benchmarks.peers.problems import (
    INFERENCE,
    PASSES,
    STEP,
    TRAINING,
    Shape,
    flops,
    make_problem,
)
from experiments.benchmarks.peers.running import merge
from experiments.lab.errors import normwise

SMALL = Shape(7, 3, 5, 4)
# Those that are not there wherever the tests run, by the modules they import.
PACKAGES = {
    "haiku": "haiku",
    "equinox": "equinox",
    "keras": "keras",
    "torch": "torch",
    "torch, without oneDNN": "torch",
}


@pytest.fixture
def plain():
    """JAX's own settings, which other libraries expect; the suite's are stricter."""
    jax.config.update("jax_enable_x64", False)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    jax.config.update("jax_enable_x64", True)


def _row(system, which, *seconds):
    return {
        "cell": "lstm",
        "shape": list(SMALL),
        "pass": which,
        "system": system,
        "median_seconds": float(np.median(seconds)),
        "seconds_per_round": list(seconds),
    }


def test_products_are_counted_forwards_and_backwards():
    # By hand: 7 steps of 3 rows, (5 + 4) x 16 weights, a multiply and an add each.
    assert flops("lstm", SMALL, INFERENCE) == 7 * 3 * (5 + 4) * 16 * 2
    assert flops("lstm", SMALL, TRAINING) == 3 * flops("lstm", SMALL, INFERENCE)


def test_ratios_are_medians_over_rounds_and_not_ratios_of_medians():
    group = {
        "jrnn": _row("jrnn", TRAINING, 1.0, 2.0, 8.0),
        "torch": _row("torch", TRAINING, 2.0, 1.0, 8.0),
    }
    assert report.ratio(group, "jrnn", "torch") == 1.0  # of 0.5, 2 and 1
    group["torch"] = _row("torch", TRAINING, 4.0, 1.0, 16.0)
    assert report.ratio(group, "jrnn", "torch") == 0.5  # medians would say 2 / 4


def test_comparisons_made_anew_are_one_of_all_their_rounds():
    first = [_row("jrnn", TRAINING, 1.0, 2.0), _row("torch", TRAINING, 2.0, 2.0)]
    second = [_row("jrnn", TRAINING, 9.0), _row("torch", TRAINING, 3.0)]
    for rows, seconds in ((first, 3.0), (second, 5.0)):
        rows[0] |= {"compile_seconds": seconds, "gflops": 6 / rows[0]["median_seconds"]}
    ours, torch = merge([first, second])
    assert ours["seconds_per_round"] == [1.0, 2.0, 9.0]
    assert ours["median_seconds"] == 2.0
    assert ours["rounds"] == 3
    assert ours["compile_seconds"] == 4.0
    assert math.isclose(ours["gflops"], 6 / 2.0)
    assert report.ratio({"jrnn": ours, "torch": torch}, "jrnn", "torch") == 1.0
    assert torch["median_seconds"] == 2.0


def test_the_fastest_peer_is_none_of_ours_and_no_floor():
    rows = [
        _row("jrnn", TRAINING, 2.0),
        _row("jrnn, scan", TRAINING, 1.0),
        _row("products alone", TRAINING, 0.5),
        _row("torch, without oneDNN", TRAINING, 0.7),
        _row("torch", TRAINING, 3.0),
        _row("keras", TRAINING, 4.0),
    ]
    group = report.groups(rows, TRAINING)[0]
    assert report.fastest_peer(group) == "torch"
    assert report.fastest_peer(group, jax_only=True) == "keras"
    (line, other) = report.summary(rows)
    assert "0.67 in the geometric mean" in line
    assert "0.50 in the geometric mean" in other


def test_every_system_has_a_place_in_the_figure(tmp_path):
    names = (*peers.EVERY, "jrnn, all devices", "products alone")
    rows = [_row(name, which, 1.0) for which in PASSES for name in names]
    report.draw(rows, tmp_path / "peers.png", "a machine")
    assert (tmp_path / "peers.png").stat().st_size > 10_000


def test_the_summary_tells_of_compiling_and_of_a_step():
    rows = [_row("jrnn", INFERENCE, 2.0), _row("flax.linen", INFERENCE, 1.0)]
    for row, seconds in zip(rows, (0.3, 0.2), strict=True):
        row["compile_seconds"] = seconds
    rows += [_row("jrnn", STEP, 3.0), _row("torch", STEP, 4.0)]
    found = {line.split(":")[0]: line for line in report.summary(rows)}
    compiling = found["jrnn, inference, compiling, to flax.linen"]
    assert "1.50 in the geometric mean" in compiling
    assert "0.75 in the geometric mean" in found["jrnn, one step, to the fastest peer"]


def test_geometric_mean():
    assert math.isclose(report.geometric_mean([0.5, 2.0, 1.0]), 1.0)


@pytest.mark.slow
def test_a_library_that_computes_something_else_is_refused(plain):
    del plain
    from experiments.benchmarks.peers import running

    problem = make_problem("gru", SMALL)
    found = running.runners(problem, ("jrnn", "jrnn, scan"))
    off = running.disagreements(problem, found)
    assert 0 < off["jrnn, scan"] < 1e-5
    wrong = found["jrnn, scan"]._replace(outputs=found["jrnn"].outputs * 1.01)
    with pytest.raises(ValueError, match="not the same function"):
        running.disagreements(problem, found | {"jrnn, scan": wrong})


def test_unknown_systems_are_named(capsys):
    assert peers.main(["--systems", "jrnn", "theano"]) == 2
    assert "theano" in capsys.readouterr().err
    assert peers.main(["--systems", "torch"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_every_installed_peer_agrees_with_jrnn(cell, plain):
    del plain
    from experiments.benchmarks.peers import running

    missing = {name for name, package in PACKAGES.items() if not find_spec(package)}
    problem = make_problem(cell, SMALL)
    found = running.runners(problem, tuple(s for s in peers.EVERY if s not in missing))
    off = running.disagreements(problem, found)
    assert set(off) >= {"jrnn", "jrnn, scan", "flax.linen", "flax.nnx"} - missing
    assert ("haiku" in off) == (cell != "elman" and "haiku" not in missing)
    assert ("keras" in off) == ("keras" not in missing)
    assert max(off.values()) < 1e-5


@pytest.mark.slow
def test_the_command_writes_what_it_measured(tmp_path):
    # In a process of its own: how many devices there are is settled at its start.
    out = tmp_path / "peers.json"
    arguments = ["--cells", "elman", "--shapes", "0", "3", "--seconds", "0.1"]
    systems = ["--systems", "jrnn", "flax.linen", "--devices", "2", "--out", str(out)]
    command = [sys.executable, "-m", "experiments.benchmarks.peers"]
    subprocess.run([*command, *arguments, *systems], check=True, timeout=300)
    rows = json.loads(out.read_text("utf-8"))["rows"]
    split = [row for row in rows if row["system"] == "jrnn, all devices"]
    assert {tuple(row["shape"]) for row in split} == {(100, 32, 64, 128)}  # not B = 1
    assert all(row["difference"] < 1e-5 for row in split)
    assert out.with_suffix(".png").exists()


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("torch"), reason="needs PyTorch")
def test_pytorch_without_onednn_is_the_same_function_and_used_for_lstms_alone(plain):
    del plain
    from experiments.benchmarks.peers import running, torch_peer

    names = ("jrnn", running.PLAIN_TORCH)
    assert list(running.runners(make_problem("gru", SMALL), names)) == ["jrnn"]
    problem = make_problem("lstm", SMALL)
    off = running.disagreements(problem, running.runners(problem, names))
    assert set(off) == set(names)
    assert max(off.values()) < 1e-5
    import torch  # pyright: ignore[reportMissingImports] optional

    seen = lambda: torch.backends.mkldnn.enabled
    assert seen()
    assert not torch_peer.without_onednn(seen)()
    assert seen()


def test_normwise_is_relative_to_the_largest():
    assert normwise([1.0, 2.0], [1.0, 4.0]) == 0.5
