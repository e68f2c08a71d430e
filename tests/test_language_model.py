"""The main job, end to end, on a text that takes seconds."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.data import load_corpus
from experiments.language_model import baselines, networks
from experiments.language_model.__main__ import main
from experiments.language_model.settings import Settings, resolve

pytestmark = pytest.mark.usefixtures("standard_promotion")

STORY = "It was a dark and stormy night; the rain fell in torrents. " * 60
TINY = ["--model", "gru", "--parameters", "600", "--streams", "4", "--window", "16"]
TINY += ["--steps", "6", "--evaluations", "2", "--sample-length", "20"]


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def few_orders(monkeypatch):
    """Each order compiles on its own; two are enough here."""
    monkeypatch.setattr(baselines, "MARKOV_ORDERS", (1, 2))


@pytest.fixture(autouse=True)
def narrow():
    """As a user runs it: without x64."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def run(story, out, *more):
    return main(["--text", str(story), "--out", str(out), *TINY, *more])


def test_end_to_end_then_sample_and_score(story, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(story, out) == 0
    results = json.loads((out / "results.json").read_text("utf-8"))
    names = [row["name"] for row in results["rows"]]
    assert names[:2] == ["uniform", "markov 1"]
    assert {"gru", "markov 2", "bz2 alone", "lzma primed", "ppmd primed"} <= set(names)
    test = {row["name"]: row["test"] for row in results["rows"]}
    assert test["markov 2"] < test["markov 1"] < test["uniform"]
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]
    for name in ("learning_curves.png", "markov_orders.png", "config.json"):
        assert (out / name).stat().st_size > 0
    shown = capsys.readouterr().out
    assert "From gru to each" in shown
    assert "median count" in shown

    checkpoint = str(out / "checkpoints" / "gru")
    command = ["sample", "--checkpoint", checkpoint, "--prompt", "It was", "--length"]
    assert main([*command, "9"]) == 0
    assert capsys.readouterr().out.startswith("It was")
    assert main(["score", "--checkpoint", checkpoint, "--text", str(story)]) == 0
    assert "bits per character, 3,540 characters" in capsys.readouterr().out

    assert main(["--out", str(out), "--text", str(story)]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_stopped_and_resumed_equals_uninterrupted(story, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(story, whole) == 0
    append = networks.append_metrics

    def stop_at_first_row(folder, row):
        append(folder, row)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(networks, "append_metrics", stop_at_first_row)
        assert run(story, parts) == 130
    assert not (parts / "results.json").exists()
    assert main(["--resume", "--out", str(parts)]) == 0
    first, second = (
        networks.load_network(p / "checkpoints/gru") for p in (whole, parts)
    )
    for a, b in zip(jax.tree.leaves(first[1]), jax.tree.leaves(second[1]), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    rows = [
        [
            (row["name"], row["test"])
            for row in json.loads((p / "results.json").read_text("utf-8"))["rows"]
        ]
        for p in (whole, parts)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_ctrl_c_from_outside(story, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.language_model", "--text", str(story)]
    command += ["--out", str(out), *TINY, "--steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"--resume" in shown
    assert (out / "checkpoints" / "gru" / "MANIFEST.json").exists()


def test_networks_have_equal_numbers_of_parameters():
    counts = []
    for name in ("elman", "gru", "lstm"):
        size = networks.match_hidden_size(name, 69, 220_000)
        counts.append(networks.count_parameters(networks.build(name, 69, size)))
    assert max(counts) / min(counts) < 1.01
    assert all(abs(count - 220_000) < 2200 for count in counts)


def test_every_character_is_scored_once_whatever_the_length():
    model = networks.build("gru", 3, 4)
    params = model.init(jax.random.key(0))
    ids = np.random.default_rng(0).integers(0, 3, 997).astype(np.int32)
    bits = networks.bits_per_character(model, params, ids)
    piece, total = 63, 0.0  # 997 characters in 16 pieces
    for at in range(0, 997, piece):
        total -= float(model.log_prob(params, ids[at : at + piece])[1].sum())
    assert bits == pytest.approx(total / np.log(2) / 997, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "nowhere.txt"], "Expected --text to be a file or a folder"),
        (["--steps", "0"], "Expected --steps of 1 or more"),
        (["--learning-rate", "0"], "Expected --learning-rate"),
        (["--resume", "--out", "nowhere"], "Start without --resume"),
        (["--fraction", "2"], "Expected --fraction in"),
        (["sample", "--checkpoint", "nowhere"], "Expected a checkpoint in nowhere"),
    ],
)
def test_mistakes(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_an_unwritable_run_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert main(["--out", str(tmp_path / "file" / "run")]) == 2
    assert "run folder that can be written to" in capsys.readouterr().err


def test_presets_fill_in_what_was_left_open():
    assert resolve(Settings()).model == "all"
    long = resolve(Settings(preset="long", steps=7))
    assert (long.model, long.steps) == ("gru", 7)
    assert load_corpus(fraction=0.01).fraction == 0.01


def results_of(tmp_path, name, **card):
    """A results file as a run leaves it, with two models."""
    rows = [{"name": "markov 1", "test": 3.0}, {"name": "gru", "test": card["gru"]}]
    content = {
        "experiment": "language_model",
        "settings": {"seed": card["seed"]},
        "corpus": {"name": "story", "train_characters": card["characters"]},
        "rows": rows,
    }
    path = tmp_path / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_compare_prints_a_table_and_draws(tmp_path, capsys):
    files = [
        results_of(tmp_path, "a.json", seed=0, characters=1000, gru=2.0),
        results_of(tmp_path, "b.json", seed=1, characters=1000, gru=2.5),
        results_of(tmp_path, "c.json", seed=0, characters=100, gru=2.75),
    ]
    figure = tmp_path / "sizes.png"
    assert main(["compare", "--results", *files, "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    assert "gru, 1,000 characters: 2.250, standard deviation 0.354 over 2 runs" in shown
    assert "markov 1, " not in shown  # no spread: it has no seed
    assert figure.stat().st_size > 0
    assert main(["compare", "--results", files[0], "--figure", str(figure)]) == 2
    assert "several --fraction" in capsys.readouterr().err
    assert main(["compare", "--results", str(figure)]) == 2
    assert "results file of language_model" in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_parameters_are_kept(story, tmp_path, monkeypatch):
    # A validation that gets worse after the first point: early stopping.
    seen = iter([1.0, 2.0])
    real = networks.bits_per_character
    shown = lambda *a: next(seen, None) or real(*a)
    monkeypatch.setattr(networks, "bits_per_character", shown)
    assert run(story, tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    row = next(row for row in results["rows"] if row["name"] == "gru")
    assert row["extra"]["step"] == 3
