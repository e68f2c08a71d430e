"""Forecasts of a user's table: scaling, references, scores, and the stream."""

import io
import json

import chex
import jax
import numpy as np
import pytest

import jrnn
from experiments.data import glucose
from experiments.forecast import commands, judge, networks, problem, references
from experiments.forecast.__main__ import main
from experiments.forecast.problem import Origin
from experiments.forecast.store import Forecaster, load, save
from experiments.forecast.streaming import Stream, run
from experiments.forecast.table import Columns, Series, Table

COLUMNS = Columns("t", "y")
DAY = problem.DAY


def series(n=200, step=1.0, seed=0, name=""):
    rng = np.random.default_rng(seed)
    times = step * np.arange(1, n + 1)
    return Series(name, times, 5 + rng.normal(size=n).cumsum())


def setup_of(table, **changed):
    given = {"horizon": 3, "history": 16, "season": None, "differences": False}
    return problem.setup_of(table, COLUMNS, **{**given, **changed})


@pytest.mark.parametrize("differences", [False, True])
def test_values_come_back_from_what_is_modelled(differences):
    table = Table((series(),), False, 0)
    setup = setup_of(table, differences=differences)
    track = problem.track_of(setup, table.series[0])
    at = 50
    ahead = problem.restored(setup, track.z[at + 1 : at + 6], track.values[at])
    np.testing.assert_allclose(ahead, track.values[at + 1 : at + 6], rtol=1e-12)
    np.testing.assert_allclose(setup.sd * track.z + track.base, track.values)


def test_scales_are_of_the_training_part_alone():
    one = series()
    changed = one.values.copy()
    changed[141:] = 1e6
    first, second = (
        setup_of(Table((one._replace(values=values),), False, 0))
        for values in (one.values, changed)
    )
    assert first == second


def test_the_time_since_the_last_value_and_phases_are_known():
    times = np.array([0.0, 1, 2, 4, 5, 6]) * DAY / 8
    one = Series("", times, np.arange(6.0))
    setup = setup_of(Table((series(),), False, 0))._replace(
        step=DAY / 8, periods=(DAY,)
    )
    inputs = problem.track_of(setup, one).inputs
    np.testing.assert_allclose(inputs[:, 0], np.log([1, 1, 1, 2, 1, 1]))
    np.testing.assert_allclose(inputs[2, 1:], [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("dated", "step", "season", "periods"),
    [
        (True, DAY / 24, None, (DAY, problem.WEEK)),
        (True, DAY, None, (problem.WEEK,)),
        (False, DAY / 24, None, ()),
        (False, 1.0, 24.0, (24.0,)),
    ],
)
def test_periods_are_read_where_the_series_hold_them(dated, step, season, periods):
    table = Table((series(600, step),), dated, 0)
    assert setup_of(table, season=season).periods == periods


def test_windows_count_each_value_once_and_read_the_ones_before():
    table = Table((series(name="a"), series(90, seed=1, name="b")), False, 0)
    setup = setup_of(table)
    tracks = [problem.track_of(setup, one) for one in table.series]
    sheet = problem.windows(tracks, 60.5, 120.5, length=16, history=5)
    counted = np.asarray(sheet.z)[np.asarray(sheet.counted)]
    expected = np.concatenate([tracks[0].z[60:120], tracks[1].z[60:90]])
    np.testing.assert_allclose(np.sort(counted), np.sort(expected), rtol=1e-6)
    assert sheet.lengths.tolist() == [21, 21, 21, 17, 21, 19]
    np.testing.assert_allclose(sheet.z[:5, 0], tracks[0].z[55:60], rtol=1e-6)


def test_origins_lie_before_the_test_part_and_see_a_whole_horizon():
    table = Table((series(),), False, 0)
    setup, cuts = setup_of(table), problem.cuts_of(table)
    tracks = [problem.track_of(setup, one) for one in table.series]
    origins = problem.origins_of(setup, tracks, cuts.test, 1000)
    assert tracks[0].times[origins[0].at + 1] == cuts.test
    assert origins[-1].at + setup.horizon == len(tracks[0].times) - 1
    assert len(problem.origins_of(setup, tracks, cuts.test, 7)) == 7


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (series(40), "50 values for training, got 28 of 40"),
        (series()._replace(values=np.ones(200)), "vary in column 'y'"),
    ],
)
def test_tables_that_cannot_be_learned_from_are_refused(one, word):
    with pytest.raises(ValueError, match=word):
        setup_of(Table((one,), False, 0))


def test_a_horizon_longer_than_the_test_part_is_refused():
    table = Table((series(),), False, 0)
    setup = setup_of(table, horizon=40)
    tracks = [problem.track_of(setup, table.series[0])]
    with pytest.raises(ValueError, match="lower --horizon"):
        problem.origins_of(setup, tracks, problem.cuts_of(table).test, 5)


def test_a_season_ago_is_the_value_measured_then():
    times = np.array([0.0, 1, 2, 3, 4, 5, 7])  # nothing at 6
    one = problem.Track(times, 10 * times, times, times, times[:, None])
    at = np.array([5, 5, 5, 6])
    wanted = np.array([[6.0, 7.0, 10.0, 10.0]])
    found = references.one_period_before(one, at, wanted, period=4.0, step=1.0)
    # From 5: 6 -> 2, 7 -> 3, 10 -> 2; from 7: 10 -> 6, of which there is none.
    assert found.tolist() == [[20.0, 30.0, 20.0, 70.0]]


def test_the_spread_is_that_of_past_errors():
    table = Table((series(),), False, 0)
    setup = setup_of(table)
    tracks = [problem.track_of(setup, one) for one in table.series]
    found = references.spread(setup, tracks, 100.5, None)
    y = tracks[0].values[:100]
    for h in (1, 3):
        error = np.sqrt(np.square(y[h:] - y[:-h]).mean())
        np.testing.assert_allclose(found[h - 1], error)


def test_crps_of_many_normal_samples_is_the_exact_one():
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.normal(size=200_000))
    # Gneiting and Raftery 2007, equation 21, at y = 0.
    exact = (np.sqrt(2) - 1) / np.sqrt(np.pi)
    np.testing.assert_allclose(judge.crps(drawn, np.array(0.0)), exact, rtol=5e-3)


def test_a_perfect_forecast_scores_zero_and_gains_all():
    y = np.arange(12.0).reshape(3, 4)
    perfect = [np.repeat(y[..., None], 5, axis=-1)]
    worse = [perfect[0] + 2]
    one = judge.Judge(4, 2, 50, 0)
    found = judge.judge_all(one, {"naive": worse, "network": perfect}, y, ("network",))
    assert abs(found["test"]["network"]["crps"]["mean"]) < 1e-12
    assert found["test"]["naive"]["crps"]["mean"] == pytest.approx(2)
    assert found["test"]["naive"]["inside"]["90"]["mean"] == 0
    gained = found["lower"]["network"]["naive"]
    assert gained["mean"] == pytest.approx(2)
    assert gained["interval"] == pytest.approx([2, 2])
    assert gained["relative"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["GRU", "LRU"])
def test_an_outlier_that_was_drawn_does_not_carry_its_path_away(name):
    """What follows a value far outside is as wide as what follows a larger one."""
    model = networks.entrants(networks.Recipe(hidden=4), 1)[name]
    params = model.init(jax.random.key(0))

    @jax.jit
    def after(x):
        state, _ = model.log_prob(params, x[None], inputs=np.ones((1, 1), "f4"))
        return model.predict(params, state, inputs=np.ones(1, "f4")).parameters

    far, further = after(np.float32(1e5)), after(np.float32(1e9))
    chex.assert_trees_all_close(far, further, rtol=1e-5)


@pytest.fixture(scope="module")
def forecaster():
    table = Table((series(),), False, 0)
    setup = setup_of(table, differences=True)
    model = jrnn.sequence_model(jrnn.gru(2, 3), jrnn.heads.student_t(), inputs=1)
    return Forecaster(setup, model, model.init(jax.random.key(0)))


def answers(forecaster, text, capsys, state=None):
    refused = run(forecaster, io.StringIO(text), state, ",")
    out, err = capsys.readouterr()
    return refused, [json.loads(line) for line in out.splitlines()], err


@pytest.mark.longer
def test_a_stream_scores_like_the_model_and_goes_on_bit_for_bit(
    forecaster, capsys, tmp_path
):
    one = series(12, seed=3)
    rows = [f"{t},{y!r}\n" for t, y in zip(one.times, one.values.tolist(), strict=True)]
    refused, whole, _ = answers(forecaster, "t,y\n" + "".join(rows), capsys)
    assert (refused, len(whole)) == (0, 12)
    kept = tmp_path / "state.json"
    parts = [
        answers(forecaster, "".join(p), capsys, kept)[1] for p in (rows[:5], rows[5:])
    ]
    assert parts[0] + parts[1] == whole
    setup, model, params = forecaster
    track = problem.track_of(setup, one)
    z, inputs = track.z.astype("f4"), track.inputs.astype("f4")
    log_p = model.log_prob(params, z, inputs=inputs)[1]
    found = [row["surprise"] for row in whole[1:]]
    np.testing.assert_allclose(found, np.log(setup.sd) - np.asarray(log_p), rtol=1e-5)
    assert whole[0]["surprise"] is None
    low, middle, high = (whole[3]["next"][name] for name in ("5%", "50%", "95%"))
    assert low < middle < high
    assert whole[3]["next"]["time"] == whole[4]["time"]


def test_wrong_rows_of_a_stream_are_refused_and_change_nothing(forecaster, capsys):
    good = "1,5\n2,6\n3,5.5\n"
    bad = "1,5\nx,1\n2,6\n2,7\n2.5,\n3,5.5\n"
    _, expected, _ = answers(forecaster, good, capsys)
    refused, found, told = answers(forecaster, bad, capsys)
    assert (refused, found) == (3, expected)
    for words in (
        "row 2: Expected a number",
        "row 4: Expected a time after 2",
        "row 5",
    ):
        assert words in told
    assert "3 rows answered, 3 refused; milliseconds a row: 50%" in told


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("\ufeffy,other,t\n5,9,1\n6,9,2\n5.5,9,3\n", 0),
        ("1,5\n2,6,9\n2,6\n3,5.5\n", 1),  # three columns and no header
        ('1,5\n"2,6\n2,6\n3,5.5\n', 1),  # a quotation mark
        ("1,5\n2,1e300\n2,6\n3,5.5\n", 1),
        ("1,5\n2,1_0\n2,6\n3,5.5\n", 1),
    ],
)
def test_rows_of_another_form(forecaster, capsys, text, count):
    expected = answers(forecaster, "1,5\n2,6\n3,5.5\n", capsys)[1]
    refused, found, _ = answers(forecaster, text, capsys)
    assert (refused, found) == (count, expected)


def test_a_header_without_a_column_is_refused(forecaster, capsys):
    with pytest.raises(ValueError, match="got none of y"):
        answers(forecaster, "t,z\n1,5\n", capsys)


def test_rows_of_several_series_need_their_name(forecaster, capsys):
    columns = COLUMNS._replace(id="who")
    named = forecaster._replace(setup=forecaster.setup._replace(columns=columns))
    refused, found, _ = answers(named, "1,5,a\n2,6,\n2,6\n1,5,b\n", capsys)
    assert (refused, [row["series"] for row in found]) == (2, ["a", "b"])


def test_a_complex_state_is_kept_bit_for_bit(forecaster, capsys, tmp_path):
    model = jrnn.sequence_model(jrnn.cells.lru(2, 3), jrnn.gaussian(), inputs=1)
    params = model.init(jax.random.key(1))
    one = forecaster._replace(model=model, params=params)
    rows, kept = ["1,5\n", "2,6\n", "3,5.5\n"], tmp_path / "state.json"
    whole = answers(one, "".join(rows), capsys)[1]
    parts = [answers(one, row, capsys, kept)[1] for row in rows]
    assert sum(parts, []) == whole


def test_times_of_another_kind_than_in_training(forecaster, tmp_path, capsys):
    save(tmp_path, forecaster)
    table = tmp_path / "table.csv"
    table.write_text("t,y\n2024-01-01,5\n2024-01-02,6\n")
    assert main(["predict", str(tmp_path), str(table)]) == 2
    assert "Expected numbers in column 't', as in training" in capsys.readouterr().err


def test_the_state_of_another_model_is_refused(forecaster, tmp_path):
    path = tmp_path / "state.json"
    for text in ("{}", '{"series": {"": {"state": [[1]], "time": 1, "value": 1}}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="state of a stream of this model"):
            Stream(forecaster).recall(path)


def test_a_forecaster_comes_back_from_its_folder(forecaster, tmp_path):
    save(tmp_path, forecaster)
    found = load(tmp_path)
    assert found.setup == forecaster.setup
    assert found.model is forecaster.model
    jax.tree.map(np.testing.assert_array_equal, found.params, forecaster.params)


@pytest.mark.slow
def test_sampled_paths_follow_the_model(forecaster):
    setup, model, params = forecaster
    one = series(30, seed=5)
    track = problem.track_of(setup, one)
    times = one.times[-1] + np.arange(1.0, 4)[:, None]
    origins = [Origin(0, len(track.times) - 1)]
    drawn = networks.paths(setup, model, params, [track], origins, times, 4000, 0)
    assert drawn.shape == (3, 1, 4000)
    history = slice(-setup.history, None)
    z, inputs = track.z[history].astype("f4"), track.inputs[history].astype("f4")
    state, _ = model.log_prob(params, z, inputs=inputs)
    ahead = model.predict(params, state, inputs=np.zeros(1, "f4"))
    base = track.values[-1] + setup.mean
    for p in (0.1, 0.5, 0.9):
        expected = base + setup.sd * float(ahead.quantile(p))
        found = np.quantile(drawn[0, 0], p)
        assert abs(found - expected) < 0.1 * setup.sd


def test_columns_without_a_table_and_a_table_without_columns(capsys, tmp_path):
    assert main(["--csv", str(tmp_path / "a.csv")]) == 2
    assert "add, for example, --time date --value price" in capsys.readouterr().err
    assert main(["--time", "t"]) == 2
    assert "add --csv FILE" in capsys.readouterr().err
    assert main(["predict", str(tmp_path), "a.csv"]) == 2
    assert "got no forecast.json there" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_way_from_a_table_to_a_forecast(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = ["day,load,who"]
    for name, seed in (("a", 0), ("b", 1)):
        one = series(300, seed=seed)
        days = np.datetime64("2024-01-01") + np.arange(300).astype("timedelta64[D]")
        rows += [f"{d},{y:.6f},{name}" for d, y in zip(days, one.values, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    given = ["--csv", "table.csv", "--time", "day", "--value", "load", "--id", "who"]
    small = ["--steps", "20", "--looks", "2", "--seeds", "0", "--hidden", "4"]
    less = ["--origins", "5", "--draws", "50", "--horizon", "4", "--out", "run"]
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
        assert main([*given, *small, *less]) == 0
    out = capsys.readouterr().out
    for word in ("series: 2, of 300", "persistence", "seasonal naive", "GRU below AR("):
        assert word in out
    assert (tmp_path / "run/forecast.png").stat().st_size > 10_000
    ahead = ["predict", "run", "table.csv", "--out", "ahead.csv"]
    assert main(ahead) == 0
    table = (tmp_path / "ahead.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 4
    assert table[1].startswith("a,2024-10-27 00:00:00,")
    monkeypatch.setattr("sys.stdin", io.StringIO("2024-10-27,5.0,a\n2024-10-28,6,a\n"))
    assert main(["stream", "run", "--state", "kept.json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["series"] == "a"


def test_the_readings_of_the_monitor_are_one_series(monkeypatch):
    start = np.datetime64("2010-01-01T00:00", "m")
    minutes = [np.array([0, 5]) + 60 * i for i in range(3)]
    times = [start + each.astype("timedelta64[m]") for each in minutes]
    parts = [[glucose.Segment(each, np.array([90.0, 95.0]))] for each in times]
    monkeypatch.setattr(glucose, "load", lambda: glucose.Glucose(*parts, {}))
    table, columns = commands._table(commands.Settings())
    assert columns == Columns("time", "glucose")
    assert np.diff(table.series[0].times).tolist() == [300.0, 3300.0] * 2 + [300.0]
    assert table.series[0].values.tolist() == [90.0, 95.0] * 3
