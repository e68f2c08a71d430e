"""The kernels for CPUs beside the machine's peak."""

import json

import pytest

from experiments.benchmarks import walks
from jrnn.kernels.cpu import compilers
from jrnn.kernels.cpu.errors import NoCompiler
from tests.methods.test_fused_cpu import has_compiler


@pytest.mark.longer
@pytest.mark.skipif(not has_compiler(), reason="there is no C compiler")
def test_shares_are_of_what_was_measured(tmp_path, capsys):
    out = tmp_path / "walks.json"
    given = ("--cells", "elman", "--shapes", "3", "--seconds", "0.02")
    assert walks.main([*given, "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    speed, best = row["product"]["gflops"], row["product"]["best_gflops"]
    assert all(0 < speed[name] <= best[name] * (1 + 1e-9) for name in speed)
    assert row["product"]["best_share_of_peak"] == best["jrnn"] / best[walks.PEAK]
    for which in ("inference", "training"):
        walk = row["walk"][which]
        paper = walk["products_at_the_peak"] + walk["gates"]
        assert walk["best_share"] > 0
        assert walk["share"] == pytest.approx(paper / walk["seconds"], rel=0.5)
    training = row["walk"]["training"]
    assert training["gates"] > row["walk"]["inference"]["gates"]
    assert "elman (1000, 1, 32, 64)" in capsys.readouterr().out


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path, capsys):
    def missing():
        raise NoCompiler("There is no C compiler.")

    monkeypatch.setattr(compilers, "find_compiler", missing)
    assert walks.main(["--out", str(tmp_path / "walks.json")]) == 2
    assert "There is no C compiler." in capsys.readouterr().err
