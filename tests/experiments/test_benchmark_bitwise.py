"""The comparison of two commits reports equal, different and missing results."""

import json
import math

import numpy as np
import pytest

from experiments.benchmarks.bitwise import __main__ as command
from experiments.benchmarks.bitwise import cells, commands
from experiments.benchmarks.bitwise.arrays import (
    compare,
    compare_folders,
    difference,
    leaves_of,
    ulps,
)
from tests.registry import CELLS

FLOATS = (np.float16, np.float32, np.float64)
LSTM = "cells/lstm/scan/float32.npz"


def save(folder, name, **arrays):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_text(json.dumps(arrays), encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", FLOATS)
def test_neighbours_are_one_unit_apart(dtype):
    for value in (0.0, -0.0, 1.0, -1.0, 3e-5, -2.0):
        old = np.asarray([1.0, value], dtype)
        new = np.asarray([1.0, np.nextafter(dtype(value), dtype(np.inf))], dtype)
        assert ulps(old, old) == 0
        # 0.0 lies between -0.0 and what follows both.
        assert ulps(old, new) == (2 if str(value) == "-0.0" else 1)
        assert ulps(new, old) == ulps(old, new)


@pytest.mark.parametrize("dtype", FLOATS)
def test_ends_of_the_line_of_floats(dtype):
    values = lambda *given: np.asarray(given, dtype)
    assert ulps(values(0.0), values(-0.0)) == 1
    assert ulps(values(np.nan, 1), values(-np.nan, 1)) == 0
    assert ulps(values(np.nan), values(1.0)) == math.inf
    assert ulps(values(np.finfo(dtype).max), values(np.inf)) == 1
    assert ulps(values(-np.inf), values(np.inf)) > 2 ** (8 * dtype().itemsize - 2)
    assert ulps(values(), values()) == 0


def test_complex_numbers_differ_by_their_parts():
    old = np.asarray([1 + 1j], np.complex64)
    new = np.asarray(
        [complex(1, np.nextafter(np.float32(1), np.float32(2)))], np.complex64
    )
    assert ulps(old, new) == 1


def test_types_shapes_and_words_are_compared():
    one = np.ones(2, np.float32)
    assert difference("x", one, one) is None
    assert "dtype float32, now float64" in difference("x", one, one.astype(float)).why
    assert "shape (2,), now (1, 2)" in difference("x", one, one[None]).why
    assert difference("x", np.asarray([1, 2]), np.asarray([1, 3])).ulps == math.inf
    words = np.asarray("ValueError"), np.asarray("TypeError")
    assert difference("x", *words).why == "ValueError, now TypeError"
    assert difference("x", words[0], words[0]) is None
    assert difference("x", words[0], one).ulps == math.inf


def test_one_differing_number_is_found(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    ys = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    moved = ys.copy()
    moved[1, 1] = np.nextafter(moved[1, 1], 2, dtype=np.float32)
    for folder, given in ((old, ys), (new, moved)):
        save(folder, LSTM, **{"plain/ys": given, "plain/h": ys})
    assert compare_folders(old, old, [LSTM]) == (2, [])
    shared, (found,) = compare_folders(old, new, [LSTM])
    assert shared == 2
    assert (found.name, found.ulps) == ("cells/lstm/scan/float32/plain/ys", 1)


def test_what_is_missing_differs(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    save(old, LSTM, a=np.ones(1))
    save(new, LSTM, b=np.ones(1))
    save(new, "cells/gru/scan/float32.npz", a=np.ones(1))
    names = [LSTM, "cells/gru/scan/float32.npz", "experiments/ecg.json"]
    shared, found = compare_folders(old, new, names)
    assert shared == 0
    assert [one.why for one in found] == [
        "in the old commit alone",
        "in the new commit alone",
        "in the new commit alone",
        "in neither commit",
    ]
    assert all(one.ulps == math.inf for one in found)


def test_what_runs_on_neither_side_differs(tmp_path):
    path = save(tmp_path, "ecg.json", failed="status 2: error")
    shared, (found,) = compare(path, path, "ecg")
    assert (found.name, found.ulps, shared) == ("ecg/failed", math.inf, 1)
    assert found.why == "status 2: error, now status 2: error"


def test_losses_are_compared_and_clocks_are_not(tmp_path):
    loss = float(np.float32(0.1))
    after = float(np.nextafter(np.float32(0.1), np.float32(1)))
    shown = {"model": {"losses": [loss, 0.3], "best": None, "n": 2}}
    old = save(tmp_path, "old.json", **shown, training_seconds=1, commit="a")
    assert compare(old, old, "x") == (4, [])
    shown["model"]["losses"] = [after, np.nextafter(0.3, 1)]
    new = save(tmp_path, "new.json", **shown, training_seconds=2, commit="b")
    shared, found = compare(old, new, "x")
    # In units of float32 where both are numbers of float32's.
    assert [(one.name, one.ulps) for one in found] == [
        ("x/model/losses/0", 1),
        ("x/model/losses/1", 1),
    ]
    assert shared == 4
    assert list(leaves_of({"timely": 1, "wall_time": 2})) == [("timely", 1)]


def fake(monkeypatch, moved=0.0):
    """Runs that take no time: of each commit a cell's file, and an experiment's."""

    def run_share(job, environment):
        assert environment["PYTHONPATH"] == job["root"]
        value = np.float32(1 + moved * job["root"].endswith("new"))
        save(command.Path(job["folder"]), "gru/scan/float32.npz", ys=value)

    def run(name, target, root, environment):
        del root, environment
        target.write_text(json.dumps({"loss": 0.5, "name": name}), encoding="utf-8")

    monkeypatch.setattr(command, "run_share", run_share)
    monkeypatch.setattr(commands, "run", run)


@pytest.mark.parametrize(
    ("moved", "more", "status"),
    [
        (0.0, [], 0),
        (2.0**-23, [], 1),
        (2.0**-23, ["--ulps", "1"], 0),
        (2.0**-22, ["--ulps", "1"], 1),
    ],
)
def test_the_status_says_whether_anything_differs(
    monkeypatch, tmp_path, capsys, moved, more, status
):
    fake(monkeypatch, moved)
    for side in ("old", "new"):
        (tmp_path / side / "jrnn").mkdir(parents=True)
    given = [str(tmp_path / "old"), str(tmp_path / "new"), *more]
    assert command.main([*given, "--experiments", "ecg"]) == status
    shown = capsys.readouterr().out
    assert "Compared 3 arrays and numbers in 2 files" in shown
    assert ("cells/gru/scan/float32/ys" in shown) == bool(moved)


def test_nothing_compared_is_no_success(monkeypatch, tmp_path):
    fake(monkeypatch)
    (tmp_path / "jrnn").mkdir()
    given = [str(tmp_path)] * 2
    none = ["--skip-cells", "--experiments", "none"]
    assert command.main([*given, *none]) == 1


@pytest.mark.parametrize(
    "given", [("--methods", "rtrl"), ("--dtypes", "float16"), ("--jobs", "0")]
)
def test_what_there_is_not_is_refused(given, tmp_path, capsys):
    (tmp_path / "jrnn").mkdir()
    assert command.main([str(tmp_path), str(tmp_path), *given]) == 2
    assert f"Expected {given[0]} of" in capsys.readouterr().err


def test_no_commit_is_refused(tmp_path, capsys):
    assert command.main([str(tmp_path), str(tmp_path)]) == 2
    assert "Expected a commit or a folder with jrnn" in capsys.readouterr().err


def test_all_cells_of_the_registry_are_found(monkeypatch):
    monkeypatch.chdir(command.Path(__file__).parents[2])
    assert {case.name for case in CELLS} < set(cells.cells())


def test_arrays_are_drawn_by_name():
    like = {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}
    drawn = cells.draw("x", like)
    alone = cells.draw("x", {"b": like["b"]})
    assert np.array_equal(drawn["b"], alone["b"])
    assert not np.array_equal(drawn["a"], drawn["b"])


def test_every_method_of_a_cell_is_run_or_refused():
    shape = cells.Shape(3, 2, 2, 2, False)
    make = dict(cells.cells())["elman"]
    problem = cells.make_problem("elman", make, shape, "float64")
    found = cells.collect({"plain": problem}, "scan")
    assert found["plain/called/outputs"].shape == (3, 2, 2)
    assert np.abs(found["plain/gradient/params/W_h"]).max() > 0
    refused = cells.collect({"plain": problem}, "associative")
    assert refused == {"plain/refused": np.asarray("ValueError")}
