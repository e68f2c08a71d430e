"""python -m experiments.parallel_in_time.learning --help.

Do cells that can be evaluated in parallel over time learn? And what does linearity in
the state cost? Twelve cells, in the same small network, learn parity, associative
recall and copying, from data that is drawn anew at each step. Parity is also tested on
sequences ten times as long as those of training. The nonlinear diagonal cells are
trained step by step, for speed on a CPU, and then tested once more under Newton's
method, which evaluates the whole sequence at once.
"""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jrnn
from experiments import lab
from experiments.parallel_in_time import learners
from experiments.parallel_in_time.cells import KINDS, NONLINEAR, method_of
from experiments.parallel_in_time.learners import Plan, Task
from experiments.parallel_in_time.learning_report import PUBLISHED, draw, table

Name = Literal["parity", "recall", "copy"]
Preset = Literal["full", "quick"]
PRESETS: dict[Preset, dict[str, Any]] = {
    "full": {
        "cells": tuple(KINDS),
        "seeds": (0, 1, 2),
        "learning_rates": (5e-3, 2e-2),
        "steps": (600, 500, 300),
    },
    "quick": {
        "cells": ("gru", "min_gru", "lru", "diagonal_gru"),
        "seeds": (0, 1),
        "learning_rates": (1e-2,),
        "steps": (300, 300, 150),
    },
}
# Parts of a folded key: no batch of one is ever a batch of another.
VALID, TEST = 1, 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train cells on parity, associative recall and copying."""

    preset: Preset = "full"
    """What is left open below: everything, or a look in a minute or two."""
    tasks: Annotated[tuple[Name, ...], lab.SOME] = ("parity", "recall", "copy")
    """Which tasks to learn."""
    cells: Annotated[tuple[str, ...] | None, lab.among(KINDS)] = None
    """Which cells; None leaves it to the preset."""
    seeds: lab.Seeds | None = None
    """Of weights and training data; None leaves it to the preset."""
    learning_rates: Annotated[tuple[float, ...] | None, lab.SOME] = None
    """Of Adam, at its largest; for each cell and task the one whose seeds are best in
    the mean on validation data is kept. None leaves it to the preset."""
    steps: Annotated[tuple[int, int, int] | None, lab.at_least(1)] = None
    """Training steps on parity, recall and copying; None leaves it to the preset."""
    hidden: Annotated[tuple[int, int, int], lab.at_least(1)] = (32, 64, 128)
    """h on parity, recall and copying, the same for all cells."""
    batch: Annotated[tuple[int, int, int], lab.at_least(1)] = (64, 64, 32)
    """Sequences per step on parity, recall and copying."""
    length: int = 40
    """Steps of a sequence of parity, in training."""
    longer: int = 400
    """Steps of a sequence of parity, in validation and test."""
    growth: float = 0.5
    """For this share of training only the first steps of parity count, at last all."""
    pairs: int = 4
    """Keys and values to be recalled, of 8 each."""
    pattern: int = 20
    """Steps to be copied, of 7 bits each, after a delay of 8."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; then it falls, a cosine."""
    sequences: int = 512
    """Validation sequences, and as many for the test."""
    newton: int = 64
    """The first test sequences, to be evaluated by Newton's method too."""
    test_seed: int = 1000
    """Of validation and test data."""
    out: Path | None = None
    """The run folder; None takes the next runs/parallel_in_time_learning/NUMBER."""

    def check(self) -> None:
        """Raises ValueError where settings do not go together."""
        if not 1 <= self.length < self.longer:
            raise ValueError("Expected 1 <= --length < --longer.")
        if not 1 <= self.newton <= self.sequences:
            raise ValueError("Expected 1 <= --newton <= --sequences.")


def task_of(name: Name, settings: Settings, *, test: bool = False) -> Task:
    """Returns a task as it is trained, or as it is tested: parity is then longer."""
    if name == "parity":
        length = settings.longer if test else settings.length
        return learners.parity_task(length, settings.growth)
    if name == "recall":
        return learners.recall_task(settings.pairs, keys=8, values=8, fillers=4)
    return learners.copy_task(settings.pattern, bits=7, delay=8)


def plan_of(name: Name, settings: Settings) -> Plan:
    """Returns how long and how the networks of one task are trained."""
    at = ("parity", "recall", "copy").index(name)
    hidden, steps, batch = (
        getattr(settings, field)[at] for field in ("hidden", "steps", "batch")
    )
    return Plan(hidden, steps, batch, settings.clip, settings.warmup)


def study(cell: str, name: Name, settings: Settings, bar: Any) -> dict[str, Any]:
    """Trains one cell on one task, all seeds and rates side by side, and tests it."""
    wall, cpu = time.perf_counter(), time.process_time()
    task, plan = task_of(name, settings), plan_of(name, settings)
    seeds, rates = settings.seeds or (), settings.learning_rates or ()
    start, advance = learners.trainer(cell, task, plan)
    keys = jax.vmap(jax.random.key)(jnp.asarray([*seeds] * len(rates)))
    lanes = start(keys, jnp.repeat(jnp.asarray(rates, jnp.float32), len(seeds)))
    losses, pieces = [], max(1, min(10, plan.steps))
    for piece in range(pieces):
        first, end = (plan.steps * i // pieces for i in (piece, piece + 1))
        lanes, loss = advance(lanes, end - first)
        losses.append(np.asarray(loss).reshape(len(rates), len(seeds)).tolist())
        bar.update()
    trained = time.perf_counter() - wall
    tested = task_of(name, settings, test=True)
    valid, test = (_held_out(tested, settings, part) for part in (VALID, TEST))
    method = method_of(cell)
    runs = [_lane(lanes.params, i) for i in range(len(keys))]
    params = [runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]
    score = lambda p: learners.score(p, cell, tested, method, valid)[0]
    on_valid = [[_accuracy(score(p), valid) for p in row] for row in params]
    # Of equals the one with the lower last loss, not to depend on the order of rates.
    last = np.mean(losses[-1], axis=1)
    best = max(range(len(rates)), key=lambda i: (np.mean(on_valid[i]), -last[i]))
    found = [test_one(p, cell, name, tested, settings, test) for p in params[best]]
    by_rate = zip(rates, on_valid, strict=True)
    return {
        **{name: lab.mean_sd([row[name] for row in found]) for name in found[0]},
        "parameters": lab.parameter_count(params[best][0]),
        "learning_rate": rates[best],
        "valid_by_rate": {f"{rate:g}": values for rate, values in by_rate},
        "losses": [[row[best][j] for row in losses] for j in range(len(seeds))],
        "sequences": plan.steps * plan.batch,
        "seconds_training": trained,
        "seconds": time.perf_counter() - wall,
        "seconds_of_cpu": time.process_time() - cpu,
    }


def _lane(lanes: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], lanes)


def _held_out(task: Task, settings: Settings, part: int) -> Any:
    key = jax.random.fold_in(jax.random.key(settings.test_seed), part)
    return task.draw(key, settings.sequences)


def test_one(
    params: Any, cell: str, name: Name, task: Task, settings: Settings, test: Any
) -> dict[str, Any]:
    """Returns one trained network's shares of right answers, and Newton's report."""
    right, logits = learners.score(params, cell, task, method_of(cell), test)
    found: dict[str, Any] = {"accuracy": _accuracy(right, test)}
    if name == "parity":
        n = settings.length
        found = {
            "accuracy": float(right[:n].mean()),
            "longer": float(right[n:].mean()),
            "last_step": float(right[n - 1].mean()),
            "last_step_longer": float(right[-1].mean()),
        }
    else:
        whole = jnp.where(test.asked, right, 1).min(axis=0) == 1
        found["whole_sequences"] = float(whole.mean())
    if KINDS[cell] == NONLINEAR:
        few = jax.tree.map(lambda leaf: leaf[:, : settings.newton], test)
        if name == "parity":
            info = learners.solve(params, cell, task, few)
            found["newton_converged_longer"] = float(info.converged.mean())
            few = jax.tree.map(lambda leaf: leaf[: settings.length], few)
        found |= test_newton(params, cell, task, few)
    return found


def test_newton(params: Any, cell: str, task: Task, batch: Any) -> dict[str, Any]:
    """Returns what Newton's method makes of some sequences, beside the scan.

    Accuracies and the difference are those of the sequences that converged, None of
    none: the others are NaN, by design.
    """
    info = learners.solve(params, cell, task, batch)
    solved, asked = np.asarray(info.converged), np.asarray(batch.asked)
    none = ("newton_accuracy", "steps_accuracy", "newton_difference")
    found: dict[str, Any] = {
        "newton_converged": float(solved.mean()),
        "newton_iterations": float(np.asarray(info.iterations).mean()),
        **dict.fromkeys(none),
    }
    if not solved.any():
        return found
    shown = {}
    for by, method in (("newton", jrnn.newton()), ("steps", method_of(cell))):
        right, logits = learners.score(params, cell, task, method, batch)
        shown[by] = np.asarray(logits)[:, solved]
        found[f"{by}_accuracy"] = _share(np.asarray(right)[:, solved], asked[:, solved])
    difference = np.abs(shown["newton"] - shown["steps"]).max()
    found["newton_difference"] = float(difference / np.abs(shown["steps"]).max())
    return found


def _accuracy(right: Any, batch: Any) -> float:
    return _share(np.asarray(right), np.asarray(batch.asked))


def _share(right: np.ndarray, asked: np.ndarray) -> float:
    """Share of right answers among those that were asked for; 0 of none."""
    return float((right * asked).sum() / max(1, asked.sum()))


def run(settings: Settings) -> int:
    """Runs the experiment, writing what is known after each cell."""
    run, cells = lab.begin(settings, "parallel_in_time.learning"), settings.cells or ()
    results: dict[str, Any] = {name: {} for name in settings.tasks}
    content = run.results(
        chance={name: task_of(name, settings).chance for name in settings.tasks},
        kinds={cell: KINDS[cell] for cell in cells},
        published=PUBLISHED,
        results=results,
    )
    with tqdm(total=10 * len(cells) * len(settings.tasks), unit="part") as bar:
        for name in settings.tasks:
            for cell in cells:
                bar.set_description(f"{name}, {cell}")
                row = results[name][cell] = study(cell, name, settings, bar)
                accuracy = row["accuracy"]
                bar.write(
                    f"{name:7} {cell:14} {accuracy['mean']:.1%} ± {accuracy['sd']:.1%}"
                    f"  rate {row['learning_rate']:g}  {row['seconds']:.0f} s"
                )
                run.write(content)
    return run.finish(content, draw, said=f"\n{table(content)}\n")


main = lab.main_of(Settings, __doc__, run, presets=PRESETS)

if __name__ == "__main__":
    raise SystemExit(main())
