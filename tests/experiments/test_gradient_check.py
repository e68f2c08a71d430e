"""The gradient check runs, and fails for a wrong gradient."""

import json

import pytest

import jrnn
from experiments import gradient_check
from tests import reference
from tests.registry import CELLS

ARGUMENTS = ["--steps", "6", "--batch", "2", "--inputs", "3", "--hidden", "4"]


def only(monkeypatch, cell):
    chosen = {"gru": (cell, reference.gru())}
    monkeypatch.setattr(gradient_check, "cells", lambda k, h: chosen)


@pytest.mark.slow
def test_a_right_gradient_passes(monkeypatch, tmp_path, capsys):
    only(monkeypatch, jrnn.gru(3, 4))
    assert gradient_check.main([*ARGUMENTS, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "All bounds hold." in shown
    assert shown.count("flowing back") == 2  # T = 3: all but the last state
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["broken"] == []
    assert 0 < results["cells"]["gru"]["numpy"] < 1e-12


@pytest.mark.slow
def test_a_wrong_pullback_is_called_broken(monkeypatch, tmp_path, capsys):
    cell = jrnn.gru(3, 4)

    def wrong(state_tm1, state, saved, dstate):
        direct, du, dv = cell.gated.pullback(state_tm1, state, saved, dstate)
        return direct, du, (*dv[:2], du[2])  # the reset gate is forgotten

    only(monkeypatch, cell._replace(gated=cell.gated._replace(pullback=wrong)))
    assert gradient_check.main([*ARGUMENTS, "--out", str(tmp_path / "run")]) == 1
    assert "BROKEN: gru" in capsys.readouterr().out


def test_every_cell_of_the_registry_is_checked():
    assert set(gradient_check.cells(3, 4)) == {case.name for case in CELLS}


def test_mistakes(monkeypatch, tmp_path, capsys):
    only(monkeypatch, jrnn.gru(3, 4))
    run = str(tmp_path / "run")
    assert gradient_check.main(["--steps", "0", "--out", run]) == 2
    assert "--steps of 1 or more, got 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}", "utf-8")
    assert gradient_check.main(["--out", run]) == 2
    assert "already holds a run" in capsys.readouterr().err
