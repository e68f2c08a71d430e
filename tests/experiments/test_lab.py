"""The code that experiments share: settings, command line and training loop."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import lab
from experiments.lab import intervals, training


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of no experiment."""

    names: Annotated[tuple[str, ...], lab.among(("a", "b"))] = ("a",)
    seeds: lab.Seeds | None = (0,)
    rates: lab.Positives = (0.1,)
    size: lab.Count | None = 1
    least: Annotated[int, lab.at_least(2)] = 2
    middle: Annotated[int, lab.within(1, 3)] = 2
    finite: Annotated[float, lab.FINITE] = 1.0
    preset: str = "small"
    out: Path | None = None

    def check(self) -> None:
        """Holds two settings against each other."""
        if self.middle > self.least:
            raise ValueError("Expected --middle up to --least.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ("a", "x")}, "Expected --names of a, b, got x."),
        ({"names": ()}, "Expected --names of a, b, got none."),
        ({"seeds": ()}, "Expected at least one of --seeds, got none."),
        ({"rates": ()}, "Expected at least one of --rates, got none."),
        ({"rates": (0.1, 0.0)}, "Expected --rates above 0, got 0.1, 0.0."),
        ({"rates": (float("nan"),)}, "Expected --rates above 0, got nan."),
        ({"size": 0}, "Expected --size of 1 or more, got 0."),
        ({"least": 1}, "Expected --least of 2 or more, got 1."),
        ({"middle": 4}, "Expected --middle of 1 to 3, got 4."),
        ({"finite": float("inf")}, "Expected --finite above 0 and finite, got inf."),
        ({"middle": 3}, "Expected --middle up to --least."),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused(change, said):
    with pytest.raises(ValueError, match=".") as caught:
        lab.check(Settings(**change))
    assert str(caught.value) == said


def test_presets_fill_in_what_is_left_open_and_no_more():
    presets = {"small": {"size": 3, "seeds": (1, 2)}}
    lab.check(Settings(size=None, seeds=None))
    found = lab.resolve(Settings(size=None, seeds=(7,)), presets)
    assert (found.size, found.seeds) == (3, (7,))
    with pytest.raises(ValueError, match="--size of 1 or more, got 0"):
        lab.resolve(Settings(size=None), {"small": {"size": 0}})


def test_a_command_runs_checked_settings_alone(capsys):
    ran = []
    run = lambda settings: ran.append(settings) or 7
    assert lab.command(Settings, ["--size", "2"], "help", run) == 7
    assert ran == [Settings(size=2)]
    assert lab.command(Settings, ["--size", "0"], "help", run) == 2
    assert len(ran) == 1
    assert capsys.readouterr().err == "error: Expected --size of 1 or more, got 0.\n"


def test_a_run_leaves_settings_results_and_figure(tmp_path, capsys):
    run = lab.begin(Settings(out=tmp_path / "run"), "one.thing", {"name": "data"})
    results = run.results(found=1)
    draw = lambda path, results, more: path.write_text(f"{results['found']} {more}")
    assert run.finish(results, draw, "more", said="told") == 0
    written = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert list(written) == ["experiment", "settings", "environment", "found"]
    assert written["experiment"] == "one.thing"
    assert written["settings"]["out"] is None
    assert (tmp_path / "run" / "thing.png").read_text() == "1 more"
    assert capsys.readouterr().out == (
        f"name: data\ntold\nWritten to {tmp_path / 'run'}.\n"
    )


def descend(score, looks, losses=None, carry=0.0):
    """Five steps of p <- p - (p + c) / 2 from p = 1, c counting steps since a start."""

    def loss(params, batch, carry, key):
        del batch, key
        return (params + carry) ** 2 / 4, (carry + 1, {"carry": carry})

    batches = [(i in (0, 3), jnp.zeros(())) for i in range(5)]
    start = jnp.asarray(1.0), jax.random.key(0)
    kept = [] if losses is None else losses
    note = lambda metrics: kept.append(float(metrics["carry"]))
    carry = jnp.asarray(carry)
    step = optax.sgd(1.0)
    return training.train(loss, step, *start, batches, score, looks, carry, note)


@pytest.mark.usefixtures("standard_promotion")
def test_training_keeps_what_scored_lowest_and_starts_anew():
    expected, params, carry = [], 1.0, 0.0
    for i in range(5):
        carry = 0.0 if i in (0, 3) else carry
        params -= (params + carry) / 2
        carry += 1
        expected.append(params)
    carries: list[float] = []
    best = descend(lambda p: abs(float(p)), {1, 2, 4, 5}, carries)
    assert carries == [0, 1, 2, 0, 1]
    assert [number for number, _ in best.looks] == [1, 2, 4, 5]
    scores = {n: abs(expected[n - 1]) for n in (1, 2, 4, 5)}
    assert best.step == min(scores, key=lambda n: scores[n])
    assert float(best.params) == pytest.approx(expected[best.step - 1])
    assert best.score == abs(float(best.params))


@pytest.mark.longer
@pytest.mark.usefixtures("standard_promotion")
def test_training_without_a_score_keeps_the_last_and_none_of_nan():
    last = descend(None, ())
    assert (last.step, last.looks) == (5, [])
    none = descend(lambda _: float("nan"), {5})
    assert none.params is None
    assert [step for step, _ in none.looks] == [5]


def test_places_are_stretches_of_a_ring():
    places = intervals.draw_places(10, 4, 50, seed=0)
    starts = intervals.draw_starts(10, 4, 50, seed=0)
    assert places.shape == (50, 10)
    np.testing.assert_array_equal(places[:, ::4], starts)
    np.testing.assert_array_equal(places[:, 3], (starts[:, 0] + 3) % 10)


def test_drawn_groups_are_averaged_whole():
    rng = np.random.default_rng(0)
    groups = intervals.Groups(rng.integers(0, 4, 30), rng.integers(0, 3, (7, 4)))
    values, among = rng.normal(size=30), rng.random(30) < 0.6
    values[~among] = np.nan  # what is not among them is not looked at
    expected = []
    for times in groups.times:
        copies = times[groups.of] * among
        expected.append(np.repeat(values, copies).mean())
    np.testing.assert_allclose(groups.means(values, among), expected, rtol=1e-12)


@pytest.mark.longer_but_the_first
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("decay", [None, 0.1])
def test_adam_rises_and_falls_behind_a_clipped_gradient(decay):
    found = training.adam(0.5, 2, 6, 1.0, decay)
    assert found is training.adam(0.5, 2, 6, 1.0, decay)
    params, moved = jnp.asarray(4.0), []
    state = found.init(params)
    for _ in range(6):
        updates, state = found.update(jnp.asarray(100.0), state, params)
        moved.append(-float(updates))
    rates = [0.0, 0.25, 0.5, *(0.25 * (1 + np.cos(np.pi * i / 4)) for i in (1, 2, 3))]
    # Of equal gradients Adam makes steps of 1, less the rounding of its epsilon.
    expected = np.array(rates) * (1 + 4.0 * (decay or 0.0))
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_a_column_may_have_several_cells():
    columns = {"n": str, ("half", "twice"): lambda n: (f"{n / 2:g}", f"{2 * n}")}
    lines = lab.table_of([1, 20], columns).splitlines()
    assert [line.split() for line in lines] == [
        ["n", "half", "twice"],
        ["1", "0.5", "2"],
        ["20", "10", "40"],
    ]
