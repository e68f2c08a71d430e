"""The electrocardiogram: probabilities of integers, beats, and a blind test part."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.data import ecg
from experiments.ecg import __main__ as command
from experiments.ecg import judge, models, problem, references, report
from experiments.lab import intervals
from tests.helpers import command_line

ROOT = Path(command.__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "ecg.json"
TINY = command.Settings(
    seeds=(0, 1),
    hidden=4,
    components=2,
    steps=6,
    streams=4,
    window=20,
    warmup=2,
    every=3,
    draws=20,
)
slow = pytest.mark.slow
promotion = pytest.mark.usefixtures("standard_promotion")


def made_up(samples: int = 6_000, period: int = 240) -> ecg.Ecg:
    """Triangles on a noisy line, 0 to 300 units high, every third of them wide."""
    rng = np.random.default_rng(0)
    t = np.arange(samples)
    since = np.abs((t % period) - period // 2)
    half = np.where(t // period % 3 == 2, 40, 8)
    units = np.rint(
        300 * np.clip(1 - since / half, 0, None) + rng.normal(0, 2, samples)
    )
    return ecg.parse(units / ecg.UNITS_PER_MV)


def poison(data: ecg.Ecg, start: int) -> ecg.Ecg:
    units = data.units.copy()
    steps = np.random.default_rng(9).choice([-50, 50], len(units) - start)
    units[start:] = np.clip(units[start - 1] + steps.cumsum(), -600, 600)
    return data._replace(units=units)


@pytest.fixture
def few_choices(monkeypatch) -> None:
    """Each order and smoothing that is tried is compiled anew."""
    monkeypatch.setattr(references, "ORDERS", (2, 16))
    monkeypatch.setattr(references, "SMOOTHINGS", (0.1, 3.0))


def bits(tree) -> list:
    return [
        leaf if isinstance(leaf, str | float | int) else np.asarray(leaf).tobytes()
        for leaf in jax.tree.leaves(tree)
    ]


def chosen(fitted: command.Fitted) -> list:
    """All that was fitted and chosen; functions apart."""
    told = lambda one: one._replace(log_prob="")
    references = {name: told(one) for name, one in fitted.references.items()}
    learned = {name: list(map(told, runs)) for name, runs in fitted.learned.items()}
    return bits(fitted._replace(references=references, learned=learned))


def test_cells_hold_all_of_a_density_and_are_exact_in_the_tails():
    x = np.arange(-400.0, 401.0)
    normal = references.normal_cell(x, 3.3, 6.0)
    student = references.student_t_cell(x, 3.3, 2.0, 3.0)
    assert np.exp(normal).sum() == pytest.approx(1, abs=1e-12)
    edges = np.array([-400.5, 400.5])
    share = np.diff(stats.t.cdf((edges - 3.3) / 2, 3))[0]
    assert np.exp(student).sum() == pytest.approx(share, rel=1e-12)
    near = np.abs(x - 3) < 20
    upper, lower = (stats.norm.cdf(x[near] + e, 3.3, 6.0) for e in (0.5, -0.5))
    np.testing.assert_allclose(normal[near], np.log(upper - lower), rtol=1e-9)
    # Far out, the nearer edge and the Mills ratio say what the whole cell holds.
    z = (399.5 - 3.3) / 6
    tail = stats.norm.logpdf(z) - math.log(z + 1 / z)
    assert normal[-1] == pytest.approx(tail, abs=1e-3)
    assert normal[0] < normal[-1] < -2000


def test_errors_of_a_student_t_are_those_of_greatest_likelihood():
    xs = 5.0 * np.random.default_rng(0).standard_t(3.0, 400)
    dof, scale = references.student_t_fit(xs)
    expected = stats.t.fit(xs, floc=0.0)
    found = stats.t.logpdf(xs, dof, scale=scale).sum()
    assert found >= stats.t.logpdf(xs, *expected).sum() - 1e-4
    assert dof == pytest.approx(expected[0], rel=1e-2)


def test_autoregression_is_scored_on_the_samples_after_those_that_warm_up():
    rng = np.random.default_rng(1)
    units = np.rint(np.convolve(rng.normal(0, 9, 400), 0.9 ** np.arange(40))[:400])
    part = problem.Stretch(units[:60].astype(np.int64), 20)
    params = references.fit_autoregression(1, part._replace(units=units))
    X = np.stack([units[:-1], np.ones(399)], axis=1)
    a, b = np.linalg.lstsq(X, units[1:], rcond=None)[0]
    sd = np.std(units[1:] - X @ [a, b])
    mean, scale = references.forecast(1, params, part)
    np.testing.assert_allclose(mean, a * units[19:59] + b, atol=1e-3)
    np.testing.assert_allclose(scale, sd, rtol=1e-4)


@slow
def test_logistics_in_deviations_are_those_of_whole_numbers():
    kernel = models.kernel_in(14.5)
    d = jnp.arange(-128.0, 128.0)
    loc, scale = jnp.array(0.2), jnp.array(0.3)
    found = kernel.log_prob(d, loc, scale)
    assert float(jnp.exp(found).sum()) == pytest.approx(1, abs=1e-9)
    edge = lambda x: stats.logistic.cdf(x, 0.2 * 14.5, 0.3 * 14.5)
    np.testing.assert_allclose(
        jnp.exp(found[98:158]), edge(d + 0.5)[98:158] - edge(d - 0.5)[98:158], rtol=1e-6
    )
    assert float(kernel.mean(loc, scale)) == pytest.approx(2.9, abs=0.01)
    assert float(kernel.cdf(jnp.array(3.0), loc, scale)) == pytest.approx(edge(3.5))
    drawn = kernel.sample(jax.random.key(0), jnp.full(2000, 0.2), jnp.full(2000, 0.3))
    assert (drawn == drawn.round()).all()
    assert float(drawn.mean()) == pytest.approx(2.9, abs=0.7)
    assert models.kernel_in(14.5) is kernel


def test_differences_are_those_of_eight_bits():
    units = np.array([0, 127, -1, 4], np.int16)
    assert references.difference_ids(units).tolist() == [255, 0, 133]
    assert references.level_ids(np.array([-1024, 1023])).tolist() == [0, 2047]
    with pytest.raises(ValueError, match=r"8 bits.*got -5 to 128"):
        problem.differences(np.array([0, 128, 123]))


def test_every_pass_reads_windows_one_after_the_other():
    recipe = models.Recipe(1, 3, 10, 0.1, 0, 1.0, 1)
    ds = jnp.arange(103.0)
    pieces = models.batches(ds, recipe, seed=0)
    starts = []
    for _ in range(4):
        for i in range(3):  # 93 samples, 3 streams of 31
            first, window = next(pieces)
            assert first == (i == 0)
            if first:
                starts.append(float(window[0, 0]))
            expected = starts[-1] + 10 * i + np.arange(10)[:, None] + 31 * np.arange(3)
            np.testing.assert_array_equal(window, expected)
    assert len(set(starts)) > 1


def test_wide_beats_are_found_in_made_up_ones():
    data = made_up()
    found = judge.find_beats(data.units)
    assert np.abs(found.at % 240 - 120).max() <= 2
    assert len(found.at) == 24  # the last cannot be looked at whole
    limit = judge.least_wide(found)
    assert ((found.width > limit) == (found.at // 240 % 3 == 2)).all()
    # Half of the height is half of the half-width on each side.
    assert np.median(found.width) == pytest.approx(8 / ecg.HERTZ, rel=0.1)
    nats = np.where(np.arange(6_000) // 240 % 3 == 2, 1.0, 0.0)
    wide = found.width > limit
    drawn = intervals.draw_places(len(wide), 4, 10, 0)
    ranked = judge.rank([nats, -nats], found, wide, (0.1, 0.1), drawn)
    assert ranked["areas"] == [1.0, 0.0]
    # A window in which wide beats are the more surprising is chosen, not the first.
    late = np.zeros(6_000)
    late[found.at[wide] + 50] = 1.0
    assert judge.choose_window([late], found, wide) == (0.1, 0.25)
    assert judge.choose_window([late], found, wide & False) == judge.WINDOWS[0]


def test_an_area_is_drawn_in_stretches_of_beats():
    labels = np.arange(96) // 12 % 2 == 1  # in runs of 12
    scores = labels + np.random.default_rng(0).normal(0, 1.5, 96)
    scores[:48] += 2.0 * (np.arange(48) // 12 == 0)  # one calm run is surprising
    single, runs = (
        judge.area_interval(scores, labels, intervals.draw_places(96, n, 500, 0))
        for n in (1, 12)
    )
    assert np.diff(runs)[0] > 1.4 * np.diff(single)[0]
    assert runs[0] < intervals.area(intervals.curve(scores, labels)) < runs[1]


@pytest.mark.longer
def test_what_a_reference_chooses_is_the_best_on_validation():
    data = made_up()
    train, valid, _ = command.parts_of(data)
    params = references.fit_chain(references.DIFFERENCE, 1, train)
    score = lambda w: functools.partial(
        references._score_chain, references.DIFFERENCE, 1, w
    )
    tried = [problem.Entrant(params, score(w), {"w": w}) for w in (99.0, 3.0)]
    found = references.best(tried, valid)
    each = [-one.log_prob(params, valid).mean() for one in tried]
    assert found.valid == min(each)
    assert found.chosen == tried[int(np.argmin(each))].chosen
    assert each[0] > each[1]


def test_stretches_are_drawn_whole_and_the_same_for_every_model():
    values = np.random.default_rng(0).normal(size=50)
    starts = intervals.draw_starts(50, 8, 30, seed=0)
    assert starts.shape == (30, 7)
    index = (starts[..., None] + np.arange(8)) % 50
    expected = values[index].mean(axis=(1, 2))
    np.testing.assert_allclose(judge.redrawn(values, starts, 8), expected)
    found = judge.score({"a": [values], "b": [values - 1]}, "a", starts, 8)
    assert found["b"]["fewer"] == pytest.approx(1)
    np.testing.assert_allclose(found["b"]["fewer_interval"], 1)
    low, high = found["a"]["interval"]
    assert low < found["a"]["nats"]["mean"] < high


def test_settings_that_make_no_sense_are_refused(tmp_path, capsys):
    for arguments, said in (
        (["--cells", "RNN"], "--cells of GRU, LSTM, got RNN"),
        (["--streams", "0"], "--streams of 1 or more"),
        (["--warmup", "1200"], "--warmup below --steps"),
        (["--block-seconds", "0"], "--block-seconds above 0"),
    ):
        out = tmp_path / "run"
        assert command.main([*arguments, "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()


def test_committed_results_are_of_the_default_run():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    default = {**dataclasses.asdict(command.Settings()), "out": None}
    assert results["settings"] == json.loads(json.dumps(default))
    test = results["test"]
    for found in test.values():
        low, high = found["interval"]
        assert low < found["nats"]["mean"] < high
        reference = results["best_reference"]
        gap = test[reference]["nats"]["mean"] - found["nats"]["mean"]
        assert found["fewer"] == pytest.approx(gap)
    by_cell = results["fitted"]["networks"]
    tried = results["fitted"]["references"]
    assert min(tried, key=lambda name: tried[name]["valid_nats"]) == reference
    best = min(by_cell, key=lambda cell: by_cell[cell]["valid_nats"]["mean"])
    assert results["fitted"]["shown"] == best
    shown = report.tables(results)
    assert all(name in shown for name in [*test, *results["yardsticks"]])


@slow
@promotion
@pytest.mark.usefixtures("few_choices")
def test_no_model_sees_what_comes_and_nothing_is_learned_of_the_test_part():
    data = made_up()
    fitted = command.fit(data, TINY)
    kept, scored = chosen(fitted), command.evaluate(fitted, TINY, data)[0]
    poisoned = poison(data, data.parts.valid.stop)
    again = command.fit(poisoned, TINY)
    assert chosen(again) == kept
    # It is poison: what is scored does change, and so does a fit that reads it.
    assert command.evaluate(again, TINY, poisoned)[0]["test"] != scored["test"]
    read = command.fit(poison(data, data.parts.valid.start), TINY)
    assert chosen(read) != kept
    assert bits(read.references["AR(16)"].fitted) == bits(
        fitted.references["AR(16)"].fitted
    )
    # Garbage from sample 100 of the test part on: what was told up to there stands.
    _, _, before = command.parts_of(data)
    _, _, after = command.parts_of(poison(data, data.parts.test.start + 100))
    told = fitted.nats(before)
    changed = fitted.nats(after)
    for name, runs in told.items():
        for one, other in zip(runs, changed[name], strict=True):
            assert one.shape == (len(data.units[data.parts.test]),), name
            np.testing.assert_array_equal(one[:100], other[:100], name)
            assert (one[100:120] != other[100:120]).mean() > 0.5, name


@slow
@promotion
def test_networks_give_the_probability_of_the_recorded_integer():
    data = made_up()
    train, valid, _ = command.parts_of(data)
    model = command.model_of(TINY, 10.0, "GRU")
    recipe = models.Recipe(4, 4, 20, 1e-2, 1, 1.0, 2)
    learned = models.train(model, train, valid, recipe, 0)
    assert learned.valid == pytest.approx(
        -models.log_prob(model, learned.fitted, valid).mean()
    )
    # All 256 next integers, each scored as the last sample: they share all there is.
    before = valid.units[:30]
    every = [
        models.log_prob(
            model,
            learned.fitted,
            problem.Stretch(np.append(before, before[-1] + d), 30),
        )[0]
        for d in range(-128, 128)
    ]
    assert np.exp(every).sum() == pytest.approx(1, abs=1e-4)
    made = models.generate(model, learned.fitted, before, 50, seed=0)
    assert made.shape == (50,)
    assert np.abs(np.diff(np.append(before[-1], made))).max() <= 128


@slow
@promotion
@pytest.mark.usefixtures("few_choices")
def test_the_command_writes_results_and_a_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.ecg, "load", made_up)
    out = tmp_path / "run"
    assert command.main(command_line(TINY, out)) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert report.tables(results) in capsys.readouterr().out
    assert (out / "ecg.png").stat().st_size > 10_000
    assert results["settings"]["hidden"] == TINY.hidden
    with np.load(out / command.TRACES_FILE) as traces:
        assert len(traces["recorded"]) == results["samples"]
        assert traces["wide"].sum() == results["beats"]["wide"]
        assert len(traces["generated"]) == report.SECONDS * ecg.HERTZ
