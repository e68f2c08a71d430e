"""Glucose forecasts: the same pairs for all models, causal, blind to the test part."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.data._scale import Scale
from experiments.data.glucose import Glucose, Segment
from experiments.glucose import __main__ as command
from experiments.glucose import models, references, report
from experiments.glucose.judge import (
    compare,
    draw_days,
    lags,
    mard,
    readings_before,
    score,
)
from experiments.glucose.problem import (
    HORIZONS,
    Pairs,
    Scales,
    normal,
    pair,
    part_of,
    scales_of,
)
from experiments.lab.intervals import Groups
from tests.helpers import command_line

ROOT = Path(command.__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "glucose.json"
TINY = command.Settings(
    seeds=(0, 1),
    hidden=3,
    epochs=2,
    window=20,
    batch=4,
    every=1,
    orders=(1, 2, 3),
    widths=(20,),
    draws=20,
)
UNIT = Scales(Scale(np.array(0.0), np.array(1.0)), 1.0, np.ones(2))
START = np.datetime64("2010-01-01T22:00", "m")
slow = pytest.mark.slow
promotion = pytest.mark.usefixtures("standard_promotion")


def committed() -> dict:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def segment(minutes, glucose) -> Segment:
    return Segment(START + np.asarray(minutes), np.asarray(glucose, np.float64))


def made_up(seed: int, counts=(40, 31, 26), hole: int | None = 9) -> list[Segment]:
    """Segments a day apart, the first of them with an empty place of the grid."""
    rng, found = np.random.default_rng(seed), []
    for day, count in enumerate(counts):
        change = np.convolve(rng.normal(0, 4, count), [1, 0.9, 0.7, 0.4])[:count]
        glucose = np.clip(np.rint(140 + change.cumsum()), 40, 400)
        minutes = 1440 * day + 5 * np.arange(count)
        kept = np.arange(count) != (hole if day == 0 else None)
        found.append(segment(minutes[kept], glucose[kept]))
    return found


def whole() -> Glucose:
    return Glucose(made_up(0), made_up(1), made_up(2), {"name": "made up"})


def poison(segments: list[Segment]) -> list[Segment]:
    garbage = np.random.default_rng(9)
    return [
        Segment(s.times, garbage.choice([40.0, 400.0], len(s.times))) for s in segments
    ]


def bits(tree) -> list:
    leaves = jax.tree.leaves(tree)
    return [
        leaf if isinstance(leaf, str | float | int) else np.asarray(leaf).tobytes()
        for leaf in leaves
    ]


def chosen(fitted: command.Fitted) -> list:
    """All that was fitted and chosen; functions apart."""
    kept = [(r.name, r.fitted, r.valid_nats_by_choice) for r in fitted.references]
    return bits((fitted.scales, kept, fitted.learned))


def test_pairs_go_by_minutes_not_by_index():
    minutes = [0, 5, 15, 20, 24, 30, 35, 40, 60, 65]
    pairs = pair([segment(minutes, 100 + np.arange(10)), segment([0, 30], [50, 60])])
    expected = [
        [minutes.index(m + h) if m + h in minutes else -1 for h in HORIZONS]
        for m in minutes
    ]
    assert pairs.due[:10].tolist() == [[i >= 0 for i in row] for row in expected]
    shown = np.where(pairs.due[:10], pairs.later[:10] - 100, -1)
    assert shown.tolist() == expected
    assert pairs.due[10:].tolist() == [[True, False], [False, False]]
    assert pairs.later[10:].tolist() == [[60, 0], [0, 0]]


def test_scales_are_those_of_pairs_that_exist():
    scales = scales_of([segment([0, 5, 15, 30, 60], [100, 103, 90, 120, 160])])
    assert scales.level.mean == pytest.approx(114.6)
    # The step of 10 minutes is none of 5; the first reading has no change.
    assert scales.step == pytest.approx(math.sqrt(3**2 / 5))
    ahead = [math.sqrt((20**2 + 40**2) / 2), 60.0]
    np.testing.assert_allclose(scales.ahead, ahead)


@pytest.mark.longer
def test_autoregression_forecasts_at_every_reading_what_a_recursion_does():
    train, scales = made_up(3, (60, 50)), scales_of(made_up(3, (60, 50)))
    params = references.fit_autoregression(part_of(train, scales), 3)
    found = references.predict_autoregression(params, part_of(train, scales))
    A, b, Q = (np.asarray(a, np.float64) for a in params)
    level = scales.level
    # Readings 9 and 10 are parted by an empty place: after it one value is known.
    for reading, known in ((0, 1), (1, 2), (8, 3), (9, 1), (11, 3), (40, 3)):
        own = train[0].glucose[reading - known + 1 : reading + 1]
        xs = ((own - level.mean) / level.sd).tolist()
        for h in (0, 1):
            # The order grows with what is forecast, until it is 3.
            mean, shocks = _grow(xs, A, b, Q)[h]
            later = pair(train).later[reading, h]
            z = (later - (mean * level.sd + level.mean)) / (
                math.sqrt(shocks) * level.sd
            )
            want = mean * level.sd + level.mean
            assert found.mean[reading, h] == pytest.approx(want, rel=1e-9)
            below = 0.5 * math.erfc(-z / math.sqrt(2))
            assert found.below[reading, h] == pytest.approx(below, abs=1e-9)


def _grow(xs, A, b, Q) -> list[tuple[float, float]]:
    """Each step's weights on all shocks so far, by the order of what is known."""
    mean, weights, noise = list(xs), [np.zeros(12) for _ in xs], np.zeros(12)
    for step in range(12):
        m = min(len(mean), 3)
        a = A[m, :m, 0, 0]
        noise[step] = Q[m, 0, 0]
        mean.append(b[m, 0] + sum(a[j] * mean[-1 - j] for j in range(m)))
        own = sum(a[j] * weights[-1 - j] for j in range(m))
        own[step] += 1
        weights.append(own)
    n = len(xs)
    return [(mean[n + h - 1], weights[n + h - 1] ** 2 @ noise) for h in (6, 12)]


def test_lower_orders_are_cut_out_of_a_higher_fit():
    train = part_of(made_up(3, (60, 50)), scales_of(made_up(3, (60, 50))))
    cut = references.up_to(2, references.fit_autoregression(train, 3))
    assert bits(cut) == bits(references.fit_autoregression(train, 2))


def test_direct_regression_finds_the_weights_of_what_it_is_given():
    rng = np.random.default_rng(0)
    glucose = 150 + 30 * rng.normal(size=400)
    # Every sixth reading is told by the two six steps before it.
    for t in range(7, 400):
        glucose[t] = 20 + 0.5 * glucose[t - 6] + 0.3 * glucose[t - 7]
    train = part_of([segment(5 * np.arange(400), glucose)], UNIT)
    fitted = references.fit_direct(train, 2)
    np.testing.assert_allclose(fitted.A[2, :, 0], [-0.5, 0.3], atol=1e-6)
    assert fitted.b[2, 0] == pytest.approx(20, abs=1e-4)
    found = references.predict_direct(fitted, train)
    due = train.pairs.due[:, 0]
    due[0] = False  # where order 1 is all there is
    np.testing.assert_allclose(found.mean[due, 0], glucose[7:], atol=1e-5)


@pytest.mark.longer
def test_chain_is_propagated_from_the_bin_of_the_reading():
    # Bins of 180 mg/dL are three; the last, 400 alone, is never seen.
    # Levels last, so that a step more or less makes a difference.
    up = (np.random.default_rng(0).random(600) < 0.08).cumsum() % 2 == 1
    glucose = np.where(up, 300.0, 80.0) + np.arange(600) % 7
    train = part_of([segment(5 * np.arange(600), glucose)], UNIT)
    fitted = references.fit_chain(train, 180)
    counts = np.zeros((2, 2))
    np.add.at(counts, (up[:-1].astype(int), up[1:].astype(int)), 1)
    one = counts / counts.sum(axis=1, keepdims=True)
    for h, steps in enumerate((6, 12)):
        np.testing.assert_allclose(fitted.ahead[h].sum(axis=1), 1, rtol=1e-12)
        powers = np.linalg.matrix_power(one, steps)
        # Smoothing leaves a little for what was never seen.
        np.testing.assert_allclose(fitted.ahead[h, :2, :2], powers, atol=0.02)
    six, twelve = fitted.ahead
    np.testing.assert_allclose(six @ six, twelve, atol=1e-12)
    found = references.predict_chain(fitted, train)
    row, later = six[int(up[0])], train.pairs.later[0, 0]
    assert found.mean[0, 0] == pytest.approx(row @ [129.5, 309.5, 489.5])
    at = int(later >= 220)
    below = row[:at].sum() + row[at] * (later - 40 - 180 * at + 0.5) / 180
    assert found.below[0, 0] == pytest.approx(below)
    assert found.log_density[0, 0] == pytest.approx(math.log(row[at] / 180))


def test_chain_counts_no_step_across_a_gap():
    whole = [segment([0, 5, 15, 20], [50, 50, 250, 250])]
    parts = [segment([0, 5], [50, 50]), segment([0, 5], [250, 250])]
    one, other = (references.fit_chain(part_of(s, UNIT), 180) for s in (whole, parts))
    np.testing.assert_array_equal(one.ahead, other.ahead)


def days_of(count: int) -> tuple[Pairs, np.random.Generator]:
    rng = np.random.default_rng(1)
    times = START + 60 * np.arange(count)
    due = rng.random((count, 2)) < 0.8
    return Pairs(times, np.zeros(count), np.where(due, 100.0, 0), due), rng


def test_drawn_days_are_whole_and_the_same_for_every_model():
    pairs, rng = days_of(24 * 12)
    mean = rng.normal(size=(288, 2))
    run = normal(100 + mean, np.ones((288, 2)), pairs.later)
    days = draw_days(pairs, 50, seed=0)
    names = pairs.times.astype("datetime64[D]")
    count = len(np.unique(names))
    assert days.times.shape == (50, count)
    assert (days.times.sum(axis=1) == count).all()
    # Drawn once each, the days are the part.
    once = Groups(days.of, np.ones((1, count), int))
    found = score([run], pairs, once)["60"]
    due = pairs.due[:, 1]
    rmse = math.sqrt(np.square(mean[due, 1]).mean())
    assert found["rmse"]["mean"] == pytest.approx(rmse)
    np.testing.assert_allclose(found["rmse_interval"], rmse)
    assert found["pairs"] == due.sum()
    twice = normal(100 + 2 * mean, np.ones((288, 2)), pairs.later)
    lower = compare([run], [twice], pairs, days)["60"]
    assert lower["lower_by"] == pytest.approx(rmse)
    assert 0 < lower["interval"][0] < rmse < lower["interval"][1]


def test_days_that_go_together_make_intervals_wide():
    pairs, rng = days_of(24 * 40)
    apart = rng.normal(size=(960, 2))
    together = np.repeat(rng.normal(size=(40, 2)), 24, axis=0)
    days = draw_days(pairs, 400, seed=0)
    widths = []
    for mean in (apart, together):
        run = normal(100 + mean, np.ones((960, 2)), pairs.later)
        found = score([run], pairs, days)["30"]["coverage"]["50"]
        low, high = found["interval"]
        narrow = np.diff(found["binomial_interval"])[0]
        widths.append((high - low) / narrow)
        assert found["mean"] == pytest.approx(0.5, abs=0.2)
        assert low <= found["mean"] <= high
    assert widths[0] == pytest.approx(1, abs=0.35)
    assert widths[1] > 2.5


def test_a_lag_is_the_shift_that_fits_best():
    segments = made_up(3)
    pairs = pair(segments)
    for shift, horizon in ((10, 30), (45, 60), (0, 30)):
        h = HORIZONS.index(horizon)
        before, known = readings_before(segments, horizon)
        mean = np.zeros((len(pairs.now), 2))
        mean[:, h] = before[shift // 5] + 0.1
        run = normal(mean, np.ones_like(mean), pairs.later)
        found = lags([run, run], segments)[str(horizon)]
        assert found["lag"]["values"] == [shift, shift]
        assert found["rmse_by_shift"][shift // 5] == pytest.approx(0.1)
        assert 0 < known.sum() < pairs.due[:, h].sum()  # 10-minute steps are left out
        np.testing.assert_array_equal(before[0, known], pairs.later[known, h])
        np.testing.assert_array_equal(before[-1, known], pairs.now[known])


def test_relative_differences_are_of_the_reading_that_came():
    pairs = pair(made_up(1))
    run = normal(1.1 * pairs.later, np.ones_like(pairs.later), pairs.later)
    assert mard(run, pairs, 0) == pytest.approx(0.1)
    assert mard(run, pairs, 1) == pytest.approx(0.1)


def test_settings_that_make_no_sense_are_refused(tmp_path, capsys):
    for arguments, said in (
        (["--head", "cauchy"], "--head of student_t, gaussian, got cauchy"),
        (["--orders", "0"], "--orders of 1 or more, got 0"),
        (["--every", "0"], "--every of 1 or more"),
    ):
        out = tmp_path / "run"
        assert command.main([*arguments, "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()


def test_committed_results_are_of_the_default_run():
    results = committed()
    default = {**dataclasses.asdict(command.Settings()), "out": None}
    assert results["settings"] == json.loads(json.dumps(default))
    for found in results["test"].values():
        for horizon in map(str, HORIZONS):
            one = found[horizon]
            assert one["pairs"] == results["pairs"][horizon]
            low, high = one["rmse_interval"]
            assert low < one["rmse"]["mean"] < high
    for name, others in results["lower"].items():
        for other, found in others.items():
            for horizon, one in found.items():
                first, second = (
                    results["test"][n][horizon]["rmse"]["mean"] for n in (other, name)
                )
                assert one["lower_by"] == pytest.approx(first - second)
    shown = report.tables(results)
    assert all(name in shown for name in results["test"])


@pytest.fixture(scope="module")
def fitted() -> command.Fitted:
    with jax.numpy_dtype_promotion("standard"):  # which optax counts on
        return command.fit(whole(), TINY)


@slow
@promotion
def test_nothing_is_learned_of_the_test_part(fitted):
    data, kept = whole(), chosen(fitted)
    poisoned = data._replace(test=poison(data.test))
    again = command.fit(poisoned, TINY)
    assert chosen(again) == kept
    # It is poison: what is scored does change, and so does a choice that reads it.
    scores = [command.evaluate(fitted, TINY, d)["test"] for d in (data, poisoned)]
    assert scores[0] != scores[1]
    read = command.fit(data._replace(valid=poisoned.test), TINY)
    assert chosen(read) != kept
    assert bits(read.scales) == bits(fitted.scales)


@slow
@promotion
def test_no_forecast_sees_what_comes(fitted):
    # Garbage after reading 20 of a segment: what was told up to there stands.
    first, *others = whole().test
    late = np.where(np.arange(len(first.times)) > 20, 400.0, first.glucose)
    forecasts = lambda first: command.forecasts(
        fitted, TINY, part_of([first, *others], fitted.scales)
    )
    told, changed = forecasts(first), forecasts(Segment(first.times, late))
    assert told.keys() == changed.keys()
    for name, runs in told.items():
        for before, after in zip(runs, changed[name], strict=True):
            np.testing.assert_array_equal(before.mean[:21], after.mean[:21], name)
            assert (before.mean[21:30] != after.mean[21:30]).all(), name


@slow
@promotion
def test_networks_read_a_segment_as_if_alone(fitted):
    name, segments = "GRU, no clock", whole().test
    entrant = models.entrants(TINY.hidden, TINY.head)[name]
    params = fitted.learned[name].params
    together, alone = (
        models.forecast(entrant, params, part_of(of, fitted.scales))
        for of in (segments, segments[1:2])
    )
    start = len(segments[0].times)
    own = slice(start, start + len(segments[1].times))
    due = pair(segments[1:2]).due
    for many, one in zip(together, alone, strict=True):
        for a, b in zip(many, one, strict=True):
            np.testing.assert_allclose(a[own][due], b[due], rtol=2e-5)


@slow
@promotion
def test_the_command_writes_results_and_a_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.glucose, "load", whole)
    out = tmp_path / "run"
    assert command.main(command_line(TINY, out)) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert report.tables(results) in capsys.readouterr().out
    assert (out / "glucose.png").stat().st_size > 10_000
    assert results["settings"]["hidden"] == TINY.hidden
    low, mean, high = (np.asarray(results["day"][n]) for n in ("low", "mean", "high"))
    assert (low < mean).all()
    assert (mean < high).all()
