"""The list of commands, and the comparison of runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as listing
from experiments import compare, lab
from tests.experiments.test_extras import WANTED

RESULTS = Path(__file__).parents[2] / "experiments/results"
RESULT = {
    "experiment": "one",
    "settings": {"seed": 0, "rates": [0.1]},
    "environment": {"cores": 2},
    "test": {"gru": {"mean": 1.5, "sd": 0.25, "values": [1.25, 1.75]}, "curve": [1.0]},
    "rows": [{"name": "gru", "n": 7, "bits": 2.0}, {"name": "lstm", "n": 8, "bits": 1}],
}


def test_every_command_is_listed_in_one_short_line():
    found = listing.commands()
    assert set(found) == {f"experiments.{name.strip()}" for name in WANTED}
    for line in found.values():
        assert len(line) <= 80
        assert line[-1] in ".?"


def test_the_list_needs_none_of_the_libraries():
    # -S: without site-packages.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "experiments"],
        cwd=RESULTS.parents[1],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "python -m experiments.stocks " in done.stdout


def test_a_name_behind_the_list_is_an_error_with_the_command(capsys):
    assert listing.main(["stocks"]) == 2
    assert "python -m experiments.stocks\n" in capsys.readouterr().err


def write(folder: Path, **changed):
    folder.mkdir()
    lab.write_json(folder / lab.RESULTS_FILE, {**RESULT, **changed})
    return str(folder)


def test_what_differs_is_shown_and_the_rest_counted(tmp_path, capsys):
    rows = [{"name": "gru", "n": 9, "bits": 2.5}, {"name": "elman", "n": 8, "bits": 1}]
    one = write(tmp_path / "0001")
    two = write(tmp_path / "0002", settings={"seed": 1, "rates": [0.1]}, rows=rows)
    assert compare.main([one, two]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "settings  0001  0002",
        "seed         0     1",
        "",
        "environment: equal",
        "",
        "results        0001  0002",
        "rows gru n        7     9",
        "rows gru bits     2   2.5",
        "",
        "1 more numbers are equal, 4 are not in all of the runs.",
    ]


def test_a_mean_of_data_is_no_mean_over_seeds():
    scales = {"mean": 2.0, "sd": 0.5, "step": 1.0}
    assert list(dict(compare.numbers(scales))) == ["mean", "sd", "step"]


def test_one_part_of_the_names_is_shown_whole(tmp_path, capsys):
    runs = [write(tmp_path / name) for name in "ab"]
    assert compare.main([*runs, "--only", "test"]) == 0
    out = capsys.readouterr().out
    assert "test gru  1.5 ± 0.25  1.5 ± 0.25" in out
    assert "rows" not in out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: [write(folder / "a")], "two runs or more to compare, got 1"),
        (
            lambda folder: [write(folder / "a"), write(folder / "b", experiment="two")],
            "one experiment, got one and two",
        ),
        (lambda folder: [write(folder / "a"), str(folder / "none")], "a JSON file"),
        (
            lambda folder: [write(folder / "a"), write(folder / "b", experiment=3)],
            "the results of an experiment",
        ),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, make, message):
    assert compare.main(make(tmp_path)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_committed_results_have_numbers_of_distinct_names(path):
    names = [name for name, _ in compare.numbers(compare.read(path))]
    assert len(names) > 3
    assert len(set(names)) == len(names)
