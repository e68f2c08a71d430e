"""The benchmark of profiles: time belongs to the innermost operation."""

import json
from importlib.util import find_spec

import pytest

from experiments.benchmarks import grid, profiles
from experiments.benchmarks.peers.problems import Shape
from tests.experiments.test_peers import plain

SMALL = Shape(5, 2, 3, 4)
__all__ = ["plain"]  # a fixture
PROGRAM = """
%fused_computation (p: f32[2,3], q: f32[3,4]) -> f32[2,4] {
  %p = f32[2,3]{1,0} parameter(0)
  %q = f32[3,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[2,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}
}

%other (p: f32[2,4]) -> f32[2,4] {
  %p.1 = f32[2,4]{1,0} parameter(0)
  ROOT %tanh.1 = f32[2,4]{1,0} tanh(%p.1)
}

ENTRY %main (a: f32[2,3]) -> f32[2,4] {
  %library = f32[2,4]{1,0} fusion(%a, %b), kind=kCustom, calls=%fused_computation
  %loop = f32[2,4]{1,0} fusion(%library), kind=kLoop, calls=%other, metadata={}
  %while.1 = (s32[], f32[2,4]{1,0}) while(%tuple), condition=%c, body=%d
  ROOT %dot.2 = f32[2,4]{1,0} dot(%loop, %w)
}
"""


def _event(op, started, took, thread=1):
    return {
        "pid": 1,
        "tid": thread,
        "ts": started,
        "dur": took,
        "args": {"hlo_op": op},
    }


def test_time_belongs_to_the_innermost():
    events = [
        _event("while.1", 0.0, 10.0),
        _event("dot.1", 1.0, 4.0),
        _event("tanh.1", 5.0, 2.0),
        _event("dot.2", 12.0, 3.0),
        _event("dot.1", 2.0, 5.0, thread=2),
    ]
    assert sorted(profiles.own_times(events)) == [
        ("dot.1", 4.0),
        ("dot.1", 5.0),
        ("dot.2", 3.0),
        ("tanh.1", 2.0),
        ("while.1", 4.0),
    ]


def test_products_are_told_from_the_rest():
    kinds = profiles.kinds_of(PROGRAM)
    assert kinds["library"] == kinds["dot.2"] == profiles.PRODUCTS
    assert kinds["loop"] == profiles.REST
    assert kinds["while.1"] == profiles.LOOPS


def test_small_shares_are_the_rest():
    found = profiles.shares({"a": 6.0, "b": 93.5, "c": 0.25, "d": 0.25})
    assert found == {"b": 0.935, "a": 0.06, "rest": 0.005}


@pytest.mark.parametrize("given", [("--shapes", "9"), ("--steps", "0")])
def test_what_there_is_not_is_refused(given, tmp_path, capsys):
    out = tmp_path / "profiles.json"
    assert profiles.main([*given, "--out", str(out)]) == 2
    assert f"Expected {given[0]} of" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_run_writes_shares(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid, "GRID", (SMALL,))
    out = tmp_path / "profiles.json"
    systems = ["jrnn", *(["torch"] if find_spec("torch") else [])]
    given = ["--shapes", "0", "--steps", "2", "--systems", *systems]
    assert profiles.main([*given, "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["system"] for row in rows] == systems
    for row in rows:
        assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert rows[0]["shares"][profiles.PRODUCTS] > 0
    assert f"{rows[0]['shares'][profiles.PRODUCTS]:.1%}" in capsys.readouterr().out
