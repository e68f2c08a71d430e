"""Digits as sequences: layout, augmentation and training, blind to the test part."""

import dataclasses
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import mnist1d
from experiments.digits import __main__ as command
from experiments.digits import models, report, tasks, warps
from experiments.digits.models import Plan

RESULTS = Path(tasks.__file__).parents[1] / "results"
TINY = Plan(hidden=3, layers=2, window=3, epochs=2, batch=10)


def made_up(name: str = "mnist1d", count: int = 60) -> tasks.Task:
    """Digits that a level at a place of their own tells apart."""
    rng = np.random.default_rng(0)
    shape = (40,) if name == "mnist1d" else (28, 28)
    labels = np.arange(count, dtype=np.int32) % 10
    examples = 0.1 * rng.random((count, *shape))
    for example, label in zip(examples, labels, strict=True):
        example[2 * label : 2 * label + 3] += 1 + label / 3
    parts = np.split(rng.permutation(count), [count // 2, 3 * count // 4])
    named = dict(zip(("train", "valid", "test"), parts, strict=True))
    return tasks.Task(name, examples, labels, named, {"name": name})


def with_poison(task: tasks.Task, part: str) -> tasks.Task:
    examples, labels = task.examples.copy(), task.labels.copy()
    examples[task.parts[part]] = 1e6
    labels[task.parts[part]] = (labels[task.parts[part]] + 1) % 10
    return task._replace(examples=examples, labels=labels)


def test_windows_hold_what_is_around_a_point():
    xs = jnp.arange(2 * 7.0).reshape(2, 7)
    found = tasks.windows(xs, 5)
    assert found.shape == (7, 2, 5)
    for t in range(7):
        around = [min(max(t + d, 0), 6) for d in range(-2, 3)]
        assert found[t].tolist() == xs[:, np.array(around)].tolist()
    with pytest.raises(ValueError, match="an odd window, got 4"):
        tasks.windows(xs, 4)


def test_images_are_read_in_order():
    xs = jnp.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    assert tasks.rows(xs, 1)[2].tolist() == xs[:, 2].tolist()
    read = tasks.pixels(xs, 1)
    assert read.shape == (12, 2, 1)
    assert read[:, 1, 0].tolist() == xs[1].ravel().tolist()


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("warp", "shape"), [("curves", (5, 40)), ("images", (5, 9, 9))]
)
def test_strength_0_moves_nothing_and_1_a_little(warp, shape):
    xs = jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)
    move = getattr(warps, warp)
    np.testing.assert_allclose(move(jax.random.key(0), xs, 0.0), xs, atol=1e-5)
    moved = move(jax.random.key(0), xs, 1.0)
    assert moved.dtype == xs.dtype
    assert np.abs(moved - xs).max() > 0.1
    assert (np.abs(moved - xs).reshape(5, -1).max(1) > 1e-3).all()  # each of its own


def test_a_curve_is_shifted_sheared_and_scaled_as_said(monkeypatch):
    xs = jnp.asarray(np.random.default_rng(0).random((1, 40)), jnp.float32)
    move = lambda name, value: monkeypatch.setattr(
        warps, "_uniform", lambda key, xs, w: jnp.full((1, 1), value * (w == name))
    )
    monkeypatch.setattr(warps, "NOISE", 0.0)
    move(warps.SHIFT, 3.0)
    moved = warps.curves(jax.random.key(0), xs, 1.0)
    np.testing.assert_allclose(moved[0, :37], xs[0, 3:], rtol=1e-4)
    np.testing.assert_allclose(moved[0, 37:], xs[0, -1], rtol=1e-4)
    move(warps.SHEAR, 0.4)
    slope = warps.curves(jax.random.key(0), xs, 1.0) - xs
    np.testing.assert_allclose(slope[0], np.linspace(-0.4, 0.4, 40), atol=1e-5)
    move(warps.SCALE, 0.1)
    moved = warps.curves(jax.random.key(0), xs, 1.0)
    np.testing.assert_allclose(moved, 1.1 * xs, rtol=1e-4)


def test_an_image_is_turned_as_said(monkeypatch):
    xs = jnp.asarray(np.random.default_rng(0).random((1, 9, 9)), jnp.float32)
    monkeypatch.setattr(
        warps,
        "_uniform",
        lambda key, xs, w: jnp.full((1, 1), np.pi / 2 * (w == warps.TURN), xs.dtype),
    )
    moved = warps.images(jax.random.key(0), xs, 1.0)
    np.testing.assert_allclose(moved[0], np.rot90(xs[0], -1), atol=1e-5)


def test_the_largest_value_is_that_of_active_steps():
    ys = jnp.array([[[1.0, 5.0]], [[3.0, -2.0]], [[9.0, 9.0]]])
    active = jnp.array([[True], [True], [False]])
    assert models.max_step(ys, active).tolist() == [[3.0, 5.0]]


def test_the_scale_is_that_of_known_examples():
    task = made_up()
    known = task.parts["train"]
    own = tasks.scaled(task, known)[known]
    assert own.dtype == np.float32
    assert own.mean() == pytest.approx(0, abs=1e-6)
    assert own.std() == pytest.approx(1, rel=1e-6)
    changed = tasks.scaled(with_poison(task, "test"), known)[known]
    assert changed.tobytes() == own.tobytes()


def test_an_epoch_takes_each_example_once():
    rng, known = np.random.default_rng(0), np.arange(100, 147)
    first, second = (list(models._batches(known, 10, rng)) for _ in range(2))
    for epoch in (first, second):
        taken = np.concatenate(epoch)
        assert len(taken) == len(set(taken.tolist())) == 40
        assert set(taken.tolist()) <= set(known.tolist())
    assert first[0].tolist() != second[0].tolist()
    assert [len(b) for b in models._batches(known[:4], 10, rng)] == [4]


def test_ablations_leave_out_one_thing_each():
    whole = dataclasses.asdict(models.CHOSEN["mnist1d"])
    found = models.ablations(models.CHOSEN["mnist1d"])
    assert len(found) == 5
    for name, plan in found.items():
        own = dataclasses.asdict(plan)
        changed = {key for key in own if own[key] != whole[key]}
        assert len(changed) == (6 if name == "plain GRU" else 1), name
    plain = found["plain GRU"]
    assert (plain.layers, plain.pool, plain.both_ways) == (1, "last", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--tasks", "letters"],
            "Expected --tasks of mnist1d, rows, pixels, got letters",
        ),
        (["--epochs", "0"], "Expected --epochs of 1 or more, got 0"),
        (["--hidden", "-1"], "Expected --hidden of 1 or more, got -1"),
    ],
)
def test_settings_that_mean_nothing(arguments, message, capsys):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_told(monkeypatch, capsys):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mnist1d, "version", missing)
    assert command.main(["--tasks", "mnist1d"]) == 2
    assert "Run: pip install mnist1d==0.0.2.post1" in capsys.readouterr().err


def bits(tree: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_the_test_part_changes_no_bit_of_what_is_chosen_or_fitted():
    task = made_up()
    found = []
    tried = [TINY, dataclasses.replace(TINY, dropout=0.5, rate=0.03)]
    for own in (task, with_poison(task, "test")):
        plan, rows = command.choose(own, tried, 0, lambda: None)
        fitted = models.fit(own, plan, command.known(own), 1)
        found.append((plan, rows, bits(fitted.params), fitted.losses))
    assert found[0] == found[1]
    # The same poison is felt where it is allowed to be.
    other = command.choose(with_poison(task, "valid"), tried, 0, lambda: None)
    assert other[1] != found[0][1]
    poisoned = with_poison(task, "valid")
    other = models.fit(poisoned, found[0][0], command.known(poisoned), 1)
    assert bits(other.params) != found[0][2]


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_search_takes_the_plan_that_validates_best():
    task = made_up(count=200)
    idle = dataclasses.replace(TINY, rate=1e-9, epochs=10)
    able = dataclasses.replace(TINY, rate=0.05, epochs=10, warp=0.0, hidden=8)
    for tried in ([idle, able], [able, idle]):
        plan, rows = command.choose(task, tried, 0, lambda: None)
        assert plan == able
        assert max(row["valid"] for row in rows) > 0.5
        assert [row["plan"]["rate"] for row in rows] == [p.rate for p in tried]


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_run_writes_what_it_prints(monkeypatch, tmp_path, capsys):
    made = {"mnist1d": made_up(), "pixels": made_up("pixels", 40)}
    # One pixel in sixteen, that 49 steps may do.
    small = made["pixels"]._replace(examples=made["pixels"].examples[:, ::4, ::4])
    made["pixels"] = small
    monkeypatch.setattr(
        models, "CHANGES", {"mnist1d": [{}, {"warp": 0.0}], "pixels": []}
    )
    monkeypatch.setattr(models, "LESS", {"forwards alone": {"both_ways": False}})
    settings = command.Settings(
        tasks=("mnist1d", "pixels"),
        seeds=(0, 1),
        search=True,
        ablations=True,
        epochs=1,
        hidden=2,
        out=tmp_path / "run",
    )
    assert command.run(settings, made) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    for task, rows in results["models"].items():
        for name, row in rows.items():
            assert f"{row['test']['mean']:.1%} ± {row['test']['sd']:.1%}" in shown
            assert len(row["test"]["values"]) == len(row["training_losses"]) == 2, name
            tested = len(made[task].parts["test"])
            assert np.sum(row["confusion"]) == 2 * tested
            right = np.trace(row["confusion"]) / (2 * tested)
            assert right == pytest.approx(row["test"]["mean"])
            assert row["plan"]["epochs"] == 1
    assert set(results["models"]["mnist1d"]) == {command.WHOLE, "forwards alone"}
    assert len(results["search"]["mnist1d"]) == 2
    for name, percent in models.PUBLISHED.items():
        assert f"published: {name}" in shown
        assert f"{percent}%" in shown
    assert (tmp_path / "run" / "digits.png").stat().st_size > 10_000


def test_pixels_of_long_memory_are_told(monkeypatch, tmp_path):
    row = {
        "task": "pixels",
        "wrong": 0.25,
        "cell": "lru",
        "seed": 0,
        "sequences": 10,
        "stopped": "seconds",
        "parameters": 5,
    }
    store = tmp_path / "store.json"
    rows = {"pixels/784/lru/0": row, "copy/10/lru/0": {**row, "task": "copy"}}
    store.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    monkeypatch.setattr(report, "STORE", store)
    found = report.long_memory_rows()
    assert list(found) == ["pixels/784/lru/0"]
    assert found["pixels/784/lru/0"]["accuracy"] == 0.75
    monkeypatch.setattr(report, "STORE", tmp_path / "none.json")
    assert report.long_memory_rows() == {}


def committed(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def best(tried: list[dict]) -> dict:
    return min(tried, key=lambda row: (-row["valid"], row["nats"]))["plan"]


def test_what_is_trained_is_what_the_search_chose():
    searched = committed("digits_search")["search"]
    assert set(searched) == {"mnist1d", "rows"}
    for task, tried in searched.items():
        assert [row["plan"] for row in tried] == [
            dataclasses.asdict(plan) for plan in models.candidates(task)
        ]
        assert dataclasses.asdict(models.CHOSEN[task]) == best(tried)


def test_the_committed_results_are_of_the_chosen_plans_and_reach_the_aim():
    found = {**committed("digits_pixels")["models"], **committed("digits")["models"]}
    for task, seeds in (("mnist1d", 3), ("rows", 3), ("pixels", 1)):
        row = found[task][command.WHOLE]
        assert row["plan"] == dataclasses.asdict(models.CHOSEN[task])
        assert len(row["test"]["values"]) == seeds
    assert found["mnist1d"][command.WHOLE]["test"]["mean"] >= 0.94


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_curves_are_learnt():
    # A fifth of the way: half of it would be more than the published GRU.
    task = tasks.READERS["mnist1d"].load()
    plan = dataclasses.replace(models.CHOSEN["mnist1d"], epochs=8, hidden=24)
    fitted = models.fit(task, plan, task.parts["train"], 0)
    asked = task.parts["valid"]
    log_p = models.predict(task, plan, fitted.params, task.parts["train"], asked)
    assert models.score(log_p, task.labels[asked])[0] > 0.85
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-5)
