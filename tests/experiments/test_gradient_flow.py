"""Gradient flow: both halves of the argument are tested, and reported as found."""

import copy
import dataclasses
import json
import math
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.gradient_flow import __main__ as command
from experiments.gradient_flow import judge, norms, report, training
from experiments.gradient_flow.judge import AFTER, BEFORE

ROOT = Path(command.__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "gradient_flow.json"
FIGURE = ROOT / "docs" / "gradient_flow.png"
TINY = ["--hidden", "4", "--steps", "12", "--beyond", "5", "--batch", "3"]
TINY += ["--measured", "2", "--updates", "2", "--exploding-updates", "3"]
slow = pytest.mark.slow


def committed() -> dict:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def test_chains_have_the_norm_and_the_radius_they_are_said_to_have():
    W_h = np.asarray(norms.not_normal(16))
    assert np.linalg.norm(W_h, 2) == pytest.approx(norms.BETA, rel=1e-14)
    assert (np.diag(W_h) == norms.RADIUS).all()
    assert (np.tril(W_h, -1) == 0).all()  # so that the diagonal are the eigenvalues
    assert W_h[norms.CHAIN - 1, norms.CHAIN] == 0


def test_adding_marks_one_number_in_each_half():
    xs, targets = training.adding(jax.random.key(0), 9, 200)
    assert xs.dtype == targets.dtype == jnp.float32
    values, marks = np.asarray(xs[..., 0]), np.asarray(xs[..., 1])
    assert (marks[:4].sum(axis=0) == 1).all()
    assert (marks[4:].sum(axis=0) == 1).all()
    assert (marks.mean(axis=1) > 0).all()
    np.testing.assert_allclose(targets, (values * marks).sum(axis=0), rtol=1e-6)
    # Always answering 1 has this error, about.
    assert float(jnp.square(targets - 1).mean()) == pytest.approx(
        training.CHANCE, abs=0.04
    )


def test_adding_draws_what_the_committed_results_were_trained_on(key):
    """Markers as integers of the default type, which is int64 in the experiment."""
    xs, _ = training.adding(jax.random.clone(key), 200, 50)
    _, key_1, key_2 = jax.random.split(key, 3)
    first = jax.random.randint(key_1, (50,), 0, 100)
    second = jax.random.randint(key_2, (50,), 100, 200)
    assert first.dtype == second.dtype == jnp.int64
    found = np.nonzero(np.asarray(xs[..., 1]).T)[1].reshape(50, 2)
    np.testing.assert_array_equal(found, np.stack([first, second], axis=1))


def test_share_beyond_leaves_the_lag_itself_out():
    assert training.share_beyond(np.array([4.0, 2.0, 1.0, 1.0]), 1) == 0.25


def test_settings_that_make_no_sense_are_refused(tmp_path, capsys):
    for arguments, said in (
        (["--beyond", "199"], "within 0..198"),
        (["--cells", "esn"], "elman, irnn, gru, lstm, lru"),
        (["--updates", "1"], "--updates of 2 or more"),
    ):
        out = tmp_path / "run"
        assert command.main([*arguments, "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()


def test_verdict_notices_what_would_refute_the_notes():
    results = committed()
    said, good = judge.verdict(results)
    assert good
    assert said == results["verdict"]
    steps = results["settings"]["steps"]
    above = copy.deepcopy(results)
    above["cells"]["gru"][AFTER]["broken"] = 3
    assert judge.verdict(above)[1] is False
    assert "BROKEN: norms above their bound: 3." in judge.verdict(above)[0]
    alive = copy.deepcopy(results)
    alive["by_radius"]["0.5"]["log_norms"][steps] = -1.0
    assert judge.verdict(alive)[1] is False
    assert "BROKEN" in judge.verdict(alive)[0]


def made_up(*curves: tuple[float, float | None]) -> dict:
    """Results of networks of (log beta, log of the norm at lag 2), and no cells."""
    rows = {
        str(i): {"log_beta": beta, "log_norms": [0.0, 0.0, end], "broken": 0}
        for i, (beta, end) in enumerate(curves)
    }
    known = {"settings": {"steps": 2}, "cells": {}, "counter_examples": {}}
    return {**known, "by_radius": rows}


FREE = ((0.5, 1.0), (0.5, -1.0))  # beta > 1, one explodes and one vanishes


def test_verdict_counts_a_beta_of_1_for_neither_half():
    said, good = judge.verdict(made_up(*FREE, (4.4e-16, -9.0), (-4.4e-16, 0.0)))
    assert good
    assert "beta > 1: 1 of 2 end below norm 1, 1 not: explosion is permitted" in said
    assert "beta < 1: none was measured." in said
    assert "beta > 1: 3 of 5 end below norm 1" in committed()["verdict"]


@pytest.mark.parametrize(
    ("ends", "found"),
    [((1.0, 0.0, 2.0), "0 of 3"), ((-1.0, None, -2.0), "3 of 3"), ((), "0 of 0")],
)
def test_verdict_wants_some_and_not_all_that_may_explode_to_vanish(ends, found):
    said, good = judge.verdict(made_up((-0.5, -1.5), *((0.5, end) for end in ends)))
    assert not good
    assert f"BROKEN: beta > 1: {found} end below norm 1" in said
    assert "not forced." in said.splitlines()[-1]
    assert "beta < 1: all 1 end below their bound and norm 1: they vanish." in said


@pytest.mark.parametrize(
    ("end", "over", "large"), [(-0.5, 1, 0), (0.0, 1, 1), (3.0, 1, 1)]
)
def test_verdict_wants_all_of_beta_below_1_to_vanish(end, over, large):
    kept = ((-0.5, -1.0), (-0.5, None))  # one meets its bound, one has no gradient
    assert judge.verdict(made_up(*FREE, *kept))[1]
    said, good = judge.verdict(made_up(*FREE, *kept, (-0.5, end)))
    assert not good
    assert "Norms above their bound: 0." in said  # another question
    wanted = f"{over} of 3 end above their bound, {large} not below norm 1"
    assert f"BROKEN: beta < 1: {wanted}." in said


def test_committed_results_show_both_halves():
    results = committed()
    settings, steps = results["settings"], results["settings"]["steps"]
    default = dataclasses.asdict(command.Settings())
    assert settings == json.loads(json.dumps(default))
    assert len(settings["seeds"]) >= 3
    assert results["by_radius"].keys() == {"0.5", "0.75", "1", "1.25", "1.5"}
    for radius, curve in results["by_radius"].items():
        assert curve["proven"]
        assert curve["log_beta"] == pytest.approx(math.log(float(radius)), abs=1e-12)
    ends = [c["log_norms"][steps] for c in results["counter_examples"].values()]
    betas = [c["log_beta"] for c in results["counter_examples"].values()]
    assert betas == pytest.approx([math.log(norms.BETA)] * 3)
    assert ends[0] == pytest.approx(steps * betas[0], rel=1e-12)
    assert max(ends[1:]) < 0
    for found in results["cells"].values():
        for when in (BEFORE, AFTER):
            for by_lag, share in zip(
                found[when]["gradient_by_lag"],
                found[when]["share"]["values"],
                strict=True,
            ):
                beyond = training.share_beyond(by_lag, settings["beyond"])
                assert share == pytest.approx(beyond, rel=1e-5)  # six digits
    assert results["exploding"]["none"]["not_finite_at"] is not None
    assert results["exploding"]["norm"]["not_finite_at"] is None
    assert FIGURE.stat().st_size > 10_000


def test_tables_tell_what_was_measured():
    results = committed()
    shown = report.tables(results)
    share = results["cells"]["lstm"][AFTER]["share"]
    assert f"{100 * share['mean']:.2g} ± {100 * share['sd']:.2g}" in shown
    gone = results["exploding"]["none"]["not_finite_at"]
    assert f"not finite at update {gone + 1}" in shown
    assert f"1e{results['by_radius']['0.5']['log_norms'][-1] / math.log(10):+.1f}" in (
        shown
    )


def test_figure_tells_states_and_bounds_of_the_cells(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        report.figures, "save", lambda figure, path: drawn.append(figure)
    )
    results = committed()
    report.draw(Path("none.png"), results)
    for axes, when in zip(drawn[0].axes[3:5], (BEFORE, AFTER), strict=True):
        assert "ds_t / ds_k (s: h; LSTM: h, c)" in axes.get_ylabel()
        named = {line.get_label(): line for line in axes.get_lines()}
        markers = [named[name].get_marker() for name in results["cells"]]
        assert len(set(markers)) == len(markers)
        dashed = [x for x in axes.get_lines() if x.get_linestyle() == "--"][:-1]
        for line, found in zip(dashed, results["cells"].values(), strict=True):
            slope = sorted(found[when]["log_beta"]["values"])[1] / math.log(10)
            assert line.get_ydata()[-1] == pytest.approx(200 * slope)
            low, high = axes.get_ylim()
            ends = [curve[-1] for curve in found[when]["log_norms"]]
            assert all(low < e / math.log(10) < high for e in ends if e is not None)


def test_exploding_run_ends_where_numbers_do(monkeypatch):
    settings = command.Settings(hidden=2, steps=6, exploding_updates=4)
    plans = []

    def fit(_, learned, plan, updates, *rest):
        del rest
        plans.append(plan)
        sizes = np.array([1.0, 2.0, np.inf if plan.clip == "none" else 3.0, 4.0])
        return learned, np.ones(updates), sizes

    monkeypatch.setattr(training, "fit", fit)
    bar = types.SimpleNamespace(update=None)
    found = command.explode(settings, bar)
    assert found["none"]["gradient_norms"] == [1.0, 2.0]
    assert found["none"]["not_finite_at"] == 2
    assert found["norm"]["gradient_norms"] == [1.0, 2.0, 3.0, 4.0]
    assert found["value"]["not_finite_at"] is None
    assert [plan.clip for plan in plans] == ["none", "norm", "value"]


@slow
@pytest.mark.usefixtures("standard_promotion")
def test_run_measures_trains_and_draws(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*TINY, "--cells", "elman", "lstm", "--seeds", "0", "1"]
    assert command.main([*arguments, "--out", str(out)]) == 0
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert set(found["cells"]) == {"elman", "lstm"}
    for cell in found["cells"].values():
        for when in (BEFORE, AFTER):
            assert cell[when]["proven"]
            assert len(cell[when]["share"]["values"]) == 2
            assert len(cell[when]["log_norms"][1]) == 13
        assert cell[BEFORE]["share"] != cell[AFTER]["share"]
        assert cell[BEFORE]["log_norms"] != cell[AFTER]["log_norms"]
    shown = capsys.readouterr().out
    assert found["verdict"] in shown
    assert report.tables(found) in shown
    assert (out / "gradient_flow.png").stat().st_size > 10_000
    assert jax.config.read("jax_enable_x64")  # as it was before


@slow
@pytest.mark.usefixtures("standard_promotion")
def test_norms_are_told_before_clipping_and_updates_are_clipped():
    cell = training.CELLS["elman"](3)
    first, moved = {}, {}
    for clip in command.CLIPS:
        plan = training.Plan("sgd", 1.0, clip, 1e-3, 8, 4)
        learned = training.init(cell, 0)
        after, _, sizes = training.fit(cell, learned, plan, 1, 0, lambda count: None)
        first[clip] = float(sizes[0])
        change = jax.tree.map(lambda a, b: a - b, after, learned)
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(change)]
        moved[clip] = np.concatenate(leaves)
    assert first["none"] == first["norm"] == first["value"]
    assert np.linalg.norm(moved["none"]) == pytest.approx(first["none"], rel=1e-5)
    assert np.linalg.norm(moved["norm"]) == pytest.approx(1e-3, rel=1e-3)
    assert np.abs(moved["value"]).max() == pytest.approx(1e-3, rel=1e-3)


@slow
@pytest.mark.usefixtures("standard_promotion")
def test_training_goes_on_from_chunk_to_chunk():
    cell, told = training.CELLS["gru"](3), []
    plan = training.Plan("adam", 1e-2, "norm", 1.0, 8, 16)
    learned = training.init(cell, 0)
    after, losses, sizes = training.fit(
        cell, learned, plan, 120, 0, told.append, chunk=50
    )
    assert told == [50, 50, 20]
    assert losses.shape == sizes.shape == (120,)
    assert losses[-20:].mean() < 0.85 * losses[:20].mean()
    error = training.test_error(cell, after, 8, 0)
    assert error < training.test_error(cell, learned, 8, 0)
