"""Generated tasks equal brute force; cells for parallel evaluation learn them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import lab, tasks
from experiments.parallel_in_time import cells, learners, learning, learning_report

RESULTS = Path(tasks.__file__).parent / "results" / "parallel_in_time_learning.json"
DRAWS = {"parity": tasks.parity, "recall": tasks.recall, "copy": tasks.copy}
PAIRS, KEYS, VALUES, FILLERS = 3, 5, 4, 2


def as_numpy(batch: tasks.Batch) -> tasks.Batch:
    return tasks.Batch(*(np.asarray(leaf) for leaf in batch))


def small_recall(key, batch: int) -> tasks.Batch:
    sizes = {"pairs": PAIRS, "keys": KEYS, "values": VALUES, "fillers": FILLERS}
    return as_numpy(tasks.recall(key, batch, **sizes))


def test_parity_is_the_exclusive_or_so_far(key):
    xs, targets, asked = as_numpy(tasks.parity(key, 50, length=33))
    assert xs.shape == targets.shape == asked.shape == (33, 50)
    assert set(np.unique(xs)) == {0, 1}
    assert asked.all()
    np.testing.assert_array_equal(np.bitwise_xor.accumulate(xs, axis=0), targets)


def test_recall_asks_for_what_a_dictionary_holds(key):
    xs, targets, asked = small_recall(key, 200)
    assert xs.shape == targets.shape == asked.shape == (4 * PAIRS, 200)
    for column in range(200):
        tokens = xs[:, column].tolist()
        own = dict(zip(tokens[: 2 * PAIRS : 2], tokens[1 : 2 * PAIRS : 2], strict=True))
        assert len(own) == len(set(own.values())) == PAIRS  # all are distinct
        assert set(own) <= set(range(KEYS))
        assert set(own.values()) <= set(range(KEYS, KEYS + VALUES))
        assert not asked[: 2 * PAIRS, column].any()
        found = []
        for t in range(2 * PAIRS, 4 * PAIRS):
            if asked[t, column]:
                found.append(tokens[t])
                assert targets[t, column] == own[tokens[t]] - KEYS
            else:
                assert KEYS + VALUES <= tokens[t] < KEYS + VALUES + FILLERS
                assert targets[t, column] == 0
        assert sorted(found) == sorted(own)  # each key once


def test_copy_shows_the_pattern_again_after_the_delay(key):
    xs, targets, asked = as_numpy(tasks.copy(key, 30, pattern=5, bits=3, delay=4))
    assert xs.shape == (14, 30, 4)
    assert targets.shape == (14, 30, 3)
    for t in range(14):
        assert (xs[t, :, 3] == (t == 9)).all()
        assert (asked[t] == (t >= 9)).all()
        if t < 5:
            assert set(np.unique(xs[t, :, :3])) == {-1, 1}
        else:
            assert not xs[t, :, :3].any()
        if t >= 9:
            np.testing.assert_array_equal(targets[t], (xs[t - 9, :, :3] + 1) / 2)
        else:
            assert not targets[t].any()


@pytest.mark.slow
def test_chance_is_as_told(key):
    """Four standard deviations of as many draws, of what knows nothing of the state."""
    xs, targets, _ = as_numpy(tasks.parity(key, 4000, length=9))
    for guess in (0, xs):
        right = (targets == guess).mean(axis=1)[1:]  # the first bit is its own parity
        np.testing.assert_allclose(right, 0.5, atol=0.032)
    xs, targets, asked = small_recall(jax.random.key(1), 4000)
    for own in range(PAIRS):  # whoever names the first value, the second, ...
        guess = xs[2 * own + 1] - KEYS
        right = (targets == guess)[asked].mean()
        np.testing.assert_allclose(right, 1 / PAIRS, atol=0.02)
    counts = np.bincount(targets[asked], minlength=VALUES) / asked.sum()
    np.testing.assert_allclose(counts, 1 / VALUES, atol=0.02)
    where = asked[2 * PAIRS :].mean(axis=1)  # keys among fillers, at any step
    np.testing.assert_allclose(where, 0.5, atol=0.032)
    _, targets, asked = as_numpy(
        tasks.copy(jax.random.key(2), 4000, pattern=3, bits=2, delay=1)
    )
    np.testing.assert_allclose(targets[asked[:, 0]].mean(axis=1), 0.5, atol=0.032)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", DRAWS)
def test_equal_keys_give_equal_batches(name):
    first, again, other = (DRAWS[name](jax.random.key(seed), 8) for seed in (3, 3, 4))
    for leaf, same in zip(first, again, strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(same).tobytes()
    assert (np.asarray(first.xs) != np.asarray(other.xs)).any()
    assert first.xs.dtype == (jnp.float32 if name == "copy" else jnp.int32)
    assert (first.targets.dtype, first.asked.dtype) == (jnp.int32, jnp.bool_)


def test_too_few_keys_are_refused(key):
    for sizes in ({"pairs": 5, "keys": 4}, {"pairs": 5, "values": 4}):
        with pytest.raises(ValueError, match="at least 5 keys and values"):
            tasks.recall(key, 2, **sizes)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_parity_grows_to_its_length():
    task, plan = learners.parity_task(8, 0.5), learners.Plan(2, 20, 3, 1.0, 0.1)
    batch = task.draw(jax.random.key(0), 3)
    found = [
        int(learners.counted(task, plan, jnp.asarray(step), batch).sum())
        for step in range(20)
    ]
    assert found[0] == 1
    assert found == sorted(found)
    assert found[9:] == [8] * 11
    still = learners.recall_task(2, 2, 2, 1)
    batch = still.draw(jax.random.key(0), 3)
    assert learners.counted(still, plan, jnp.asarray(0), batch).all()


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_bits_and_classes_are_scored_where_they_are_asked(key):
    task = learners.copy_task(2, 2, 1)
    batch = task.draw(key, 1)
    logits = np.where(np.asarray(batch.targets) == 1, 3.0, -3.0)
    wrong = logits.copy()
    wrong[-1, 0, 0] *= -1
    assert learners.right(task, wrong, batch)[-1, 0] == 0.5
    assert learners.right(task, logits, batch).all()
    nats = np.log1p(np.exp(-3.0))
    for given, more in ((logits, 0.0), (wrong, 3.0 / 4)):
        loss = learners.loss_of(task, given, batch, batch.asked)
        np.testing.assert_allclose(loss, nats + more, rtol=1e-6)
    task = learners.recall_task(2, 3, 4, 1)
    batch = task.draw(jax.random.key(1), 5)
    logits = 9.0 * np.eye(4)[np.asarray(batch.targets)]
    assert learners.right(task, logits, batch).all()
    loss = learners.loss_of(task, logits, batch, batch.asked)
    np.testing.assert_allclose(loss, np.log1p(3 * np.exp(-9.0)), rtol=1e-6)


@pytest.mark.longer
def test_a_shift_shows_the_input_before(key):
    cell = cells.make_cell("elman", 3)
    task = learners.recall_task(2, 2, 2, 1)
    params = learners.init(key, cell, task)
    us = learners.features(params, task, jnp.array([[4], [1]]))
    np.testing.assert_allclose(us[0, 0], params.W_e[4])
    np.testing.assert_allclose(us[1, 0], params.W_e[1] + params.W_s[4], rtol=1e-6)


def test_settings_that_mean_nothing_are_refused():
    for wrong in (
        {"cells": ("perceptron",)},
        {"seeds": ()},
        {"steps": (1, 0, 1)},
        {"longer": 40},
        {"newton": 1000},
    ):
        with pytest.raises(ValueError, match="Expected"):
            lab.resolve(learning.Settings(**wrong), learning.PRESETS)
    quick = lab.resolve(learning.Settings(preset="quick", seeds=(5,)), learning.PRESETS)
    assert quick.seeds == (5,)
    assert quick.cells == learning.PRESETS["quick"]["cells"]


def test_what_is_committed_separates_the_cells():
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    parity, recall = content["results"]["parity"], content["results"]["recall"]
    for cell in ("diagonal_gru", "diagonal_lstm"):
        assert min(parity[cell]["accuracy"]["values"]) >= 0.99
        assert min(recall[cell]["accuracy"]["values"]) >= 0.99
    for cell, kind in content["kinds"].items():
        assert len(parity[cell]["accuracy"]["values"]) == 3
        if kind == cells.LINEAR:
            assert max(parity[cell]["longer"]["values"]) < 0.6
    assert "Mamba2 (published)" in learning_report.table(content)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_diagonal_gru_learns_parity():
    task, plan = learners.parity_task(20, 0.5), learners.Plan(32, 300, 64, 1.0, 0.05)
    start, advance = learners.trainer("diagonal_gru", task, plan)
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    lanes, loss = advance(start(keys, jnp.full(2, 1e-2, jnp.float32)), plan.steps)
    assert loss.shape == (2,)
    batch = learners.parity_task(100, 0.5).draw(jax.random.key(7), 100)
    method = cells.method_of("diagonal_gru")
    for i in range(2):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], lanes.params)
        right, _ = learners.score(params, "diagonal_gru", task, method, batch)
        assert float(right.mean()) >= 0.99


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_command_reports_every_cell(tmp_path, capsys):
    arguments = "--cells min_gru ind_rnn --tasks parity --seeds 0 1 --steps 4 2 2"
    sizes = "--hidden 4 4 4 --batch 4 4 4 --length 5 --longer 9 --pattern 2"
    held_out = "--sequences 6 --newton 3 --learning-rates 1e-2 3e-2"
    out = tmp_path / "run"
    arguments = f"{arguments} {sizes} {held_out} --out {out}".split()
    assert learning.main(arguments) == 0
    assert "chance" in capsys.readouterr().out
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    row = content["results"]["parity"]["ind_rnn"]
    assert row["newton_converged"]["mean"] == 1.0
    assert row["newton_accuracy"] == row["steps_accuracy"]
    assert max(row["newton_difference"]["values"]) < 1e-4
    assert len(row["longer"]["values"]) == 2
    assert (out / "learning.png").stat().st_size > 1000
