"""The main experiment, end to end, on a text that takes seconds."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import lab
from experiments.data.text import load_corpus
from experiments.lab import files, stopping
from experiments.language_model import baselines, models, networks, report
from experiments.language_model.__main__ import main
from experiments.language_model.settings import PRESETS, Settings

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


def read(path):
    return json.loads(path.read_text("utf-8"))


def interrupt(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def stopped(shared, story, tmp_path, monkeypatch):
    """A run that Ctrl-C stopped after the first point of its curve."""
    if not (shared / "run").exists():
        append = files.append_metrics

        def stop_at_first_row(folder, row):
            append(folder, row)
            interrupt()

        with monkeypatch.context() as patch:
            patch.setattr(files, "append_metrics", stop_at_first_row)
            assert run(story, shared / "run") == 130
    out = shutil.copytree(shared / "run", tmp_path / "stopped")
    config = read(out / "config.json")
    config["settings"]["text"] = str(story)
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return out


@pytest.fixture
def no_training(monkeypatch):
    """Ends a run where its first network would be trained."""

    def train_network(*_):
        raise ValueError("training begins")

    monkeypatch.setattr(networks, "train_network", train_network)


@pytest.mark.slow
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

    assert results["wall_seconds"] > sum(
        row["seconds"] for row in results["rows"] if row["name"] == "gru"
    )

    assert main(["sample", "--checkpoint", str(out)]) == 2
    assert f"which holds several things; give {checkpoint}." in capsys.readouterr().err
    folder = ["score", "--checkpoint", checkpoint, "--text", str(tmp_path)]
    assert main(folder) == 2
    assert f"got {tmp_path}: a folder" in capsys.readouterr().err

    assert run(story, out) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.slow
def test_stopped_and_resumed_equals_uninterrupted(story, stopped, tmp_path):
    whole, parts = tmp_path / "whole", stopped
    assert run(story, whole) == 0
    assert not (parts / "results.json").exists()
    assert read(parts / "clock.json")["wall_seconds"] > 0
    (parts / "clock.json").write_text('{"wall_seconds": 1000}', encoding="utf-8")
    began = time.perf_counter()
    # A flag that says what is stored changes nothing; torn by a crash: the last line.
    with (parts / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"model": "gr')
    assert main(["--resume", "--out", str(parts), "--steps", "6"]) == 0
    spent = 1000 + time.perf_counter() - began
    assert 1000 < read(parts / "results.json")["wall_seconds"] <= spent
    lines = [(p / "metrics.jsonl").read_text("utf-8") for p in (whole, parts)]
    assert lines[0] == lines[1]
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


def test_the_first_ctrl_c_is_acknowledged_and_the_second_stops_at_once(capfd):
    with stopping.stop_on_signal() as stop:
        interrupt()
        assert stop.asked
        assert "press Ctrl-C again to stop at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            interrupt()


@pytest.mark.parametrize(
    "place", [pytest.param("append_metrics", marks=pytest.mark.slow), "keep_metrics"]
)
def test_a_second_ctrl_c_tells_how_to_go_on(
    place, story, stopped, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(files, place, lambda *_: interrupt(2))
    assert main(["--resume", "--out", str(stopped)]) == 130
    shown = capfd.readouterr()
    assert f"Go on with: --resume --out {stopped}" in shown.out
    assert "Traceback" not in shown.err
    assert run(story, tmp_path / "first") == 130
    assert "Stopped before the first checkpoint" in capfd.readouterr().out
    assert not (tmp_path / "first").exists()


@pytest.mark.slow
def test_ctrl_c_after_the_networks(stopped, monkeypatch, capfd):
    count, compress = baselines.context_counts, baselines.compressor_rows
    resume = ["--resume", "--out", str(stopped)]
    with monkeypatch.context() as patch:
        patch.setattr(
            baselines, "context_counts", lambda levels: interrupt() or count(levels)
        )
        patch.setattr(baselines, "compressor_rows", None)
        assert main(resume) == 130
    assert not (stopped / "results.json").exists()
    assert "Go on with" in capfd.readouterr().out
    monkeypatch.setattr(
        baselines, "compressor_rows", lambda corpus: interrupt() or compress(corpus)
    )
    assert main(resume) == 0  # every row is there
    assert (stopped / "results.json").exists()


def test_resume_refuses_another_text_and_other_settings(story, stopped, capsys):
    resume = ["--resume", "--out", str(stopped)]
    assert main([*resume, "--seed", "1", "--steps", "9", "--model", "gru"]) == 2
    shown = capsys.readouterr().err
    assert "--steps 9 where it was started with 6, --seed 1 where it was" in shown
    assert "--model" not in shown
    first = load_corpus(text=story).sha256
    assert read(stopped / "config.json")["corpus"]["sha256"] == first
    story.write_text(STORY.replace("dark", "calm"), encoding="utf-8")
    second = load_corpus(text=story).sha256
    assert main(resume) == 2
    shown = capsys.readouterr().err
    assert f"of sha256 {first}, got sha256 {second} from story.txt" in shown
    assert "start a new run without --resume" in shown


@pytest.mark.usefixtures("no_training")
def test_resume_takes_the_newest_folder_that_holds_a_run(
    stopped, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs" / "language_model"
    shutil.copytree(stopped, runs / "0001")
    (runs / "0002").mkdir()
    assert main(["--resume"]) == 2
    assert "training begins" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_finds_what_a_crash_between_two_moves_leaves(stopped, monkeypatch):
    checkpoint = stopped / "checkpoints" / "gru"
    checkpoint.rename(checkpoint.with_name(".gru.old"))
    steps = []
    monkeypatch.setattr(
        files,
        "append_metrics",
        lambda _, row: steps.append(row["step"]) or interrupt(),
    )
    assert main(["--resume", "--out", str(stopped)]) == 130
    assert steps == [6]


def test_a_damaged_line_of_the_metrics_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl, line 2, got .*Remove that"):
        files.read_metrics(tmp_path)
    path.write_bytes(b'{"step": 1}\n{"step": \xff')
    assert files.read_metrics(tmp_path) == [{"step": 1}]


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


@pytest.mark.slow
def test_networks_have_equal_numbers_of_parameters():
    counts = []
    for name in ("elman", "gru", "lstm"):
        size = models.match_hidden_size(name, 69, 220_000)
        counts.append(models.count_parameters(models.build(name, 69, size)))
    assert max(counts) / min(counts) < 1.01
    assert all(abs(count - 220_000) < 2200 for count in counts)


@pytest.mark.longer
def test_every_character_is_scored_once_whatever_the_length():
    model = models.build("gru", 3, 4)
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
        (["--text", "empty.txt"], "the file is empty"),
        (["--text", "binary.txt"], "a NUL byte"),
        (["--text", "short.txt"], "Expected at least 1000 characters"),
        (["--text", "story.txt", "--streams", "8000"], "at least 8000 x 100 training"),
        (["--steps", "0"], "Expected --steps of 1 or more, got 0."),
        (["--learning-rate", "0"], "Expected --learning-rate above 0, got 0.0."),
        (["--sample-length", "-1"], "Expected --sample-length of 0 or more, got -1."),
        (["--device", "tpu"], "Expected a device of kind 'tpu'"),
        (["--resume", "--out", "nowhere"], "Start without --resume"),
        (["--resume"], "no config.json there"),
        (["--fraction", "2"], "Expected --fraction in"),
        (["sample", "--checkpoint", "nowhere"], "Expected a checkpoint in nowhere"),
    ],
)
@pytest.mark.usefixtures("story")
def test_mistakes(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    (tmp_path / "short.txt").write_text("short", encoding="utf-8")
    before = set(tmp_path.iterdir())
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before  # no folder is left


@pytest.mark.usefixtures("no_training")
def test_what_fails_before_the_first_checkpoint_leaves_nothing(story, tmp_path, capsys):
    assert run(story, tmp_path / "a" / "b") == 2
    assert "training begins" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    assert run(story, tmp_path / "mine") == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_training_that_is_not_finite_says_so(story, stopped, monkeypatch, capsys):
    make = networks.train.make_train_step

    def broken(*arguments):
        step = make(*arguments)

        def take(*arguments):
            state, metrics = step(*arguments)
            return state, {**metrics, "loss": metrics["loss"] * math.nan}

        return take

    monkeypatch.setattr(networks.train, "make_train_step", broken)
    assert main(["--resume", "--out", str(stopped)]) == 2
    shown = capsys.readouterr().err
    assert "gru to stay finite, got {'loss': nan} at step 4" in shown
    assert "--learning-rate below 0.01" in shown
    assert (stopped / "checkpoints" / "gru").exists()
    with pytest.raises(SystemExit):
        run(story, stopped.parent / "half", "--dtype", "float16")


@pytest.mark.parametrize(
    ("gru", "words"),
    [
        (1.0, "gru (1.000)? at no order up to 4."),
        (1.9, "gru (1.900)? at order 3 only."),
        (2.2, "gru (2.200)? at orders 3 to 4."),
    ],
)
def test_a_chain_of_too_high_order_is_worse_again(gru, words):
    bits = {1: 3.0, 2: 2.5, 3: 1.8, 4: 2.0}
    rows = [
        baselines.Row(f"markov {order}", None, test, 0, 0.0, {"order": order})
        for order, test in bits.items()
    ]
    rows.append(baselines.Row("gru", None, gru, 0, 0.0))
    assert f"When does a Markov chain catch up with {words}" in report.answers(rows)


def test_the_committed_answers_are_those_of_the_committed_numbers():
    files = sorted(Path("experiments/results").glob("language_model_*.json"))
    assert files
    for file in files:
        content = read(file)
        rows = [baselines.Row(**row) for row in content["rows"]]
        assert content["answers"] == report.answers(rows), file


def test_an_unwritable_run_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert main(["--out", str(tmp_path / "file" / "run")]) == 2
    assert "run folder that can be written to" in capsys.readouterr().err


def test_presets_fill_in_what_was_left_open():
    assert lab.resolve(Settings(), PRESETS).model == "all"
    long = lab.resolve(Settings(preset="long", steps=7), PRESETS)
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
