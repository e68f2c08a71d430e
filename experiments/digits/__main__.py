"""python -m experiments.digits --help.

How well does a recurrent network read digits? MNIST-1D by its published recipe, beside
the accuracies that were published with it; and, with --tasks, 5,000 handwritten digits
row by row and pixel by pixel. GRUs read from both ends, and the largest value of
each unit over all steps goes into a softmax. What was chosen was chosen on a validation
part; then the network is trained once more on both parts, and tested once.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments._extras import require
from experiments.digits import models
from experiments.digits.models import Plan
from experiments.digits.report import draw, long_memory_rows, tables
from experiments.digits.tasks import READERS, Task
from experiments.lab import intervals

WHOLE = "as chosen"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Read digits as curves, row by row, or pixel by pixel."""

    tasks: Annotated[tuple[str, ...], lab.among(READERS)] = ("mnist1d",)
    """Of mnist1d, rows and pixels; pixels take half an hour for each seed."""
    seeds: lab.Seeds = (0, 1, 2)
    """Of weights, batches and how training examples are moved."""
    search: bool = False
    """Choose among the candidates once more, instead of taking what was chosen."""
    ablations: bool = False
    """Also train the network of mnist1d less one thing at a time, with all seeds."""
    epochs: lab.Count | None = None
    """Times that all examples are seen; None: as many as was chosen."""
    hidden: lab.Count | None = None
    """Units of each GRU; None: as many as was chosen."""
    out: Path | None = None
    """The run folder; None takes the next runs/digits/NUMBER."""


def resized(plan: Plan, settings: Settings) -> Plan:
    """Returns a plan with the epochs and units that the command line asks for."""
    asked = {"epochs": settings.epochs, "hidden": settings.hidden}
    given = {name: value for name, value in asked.items() if value is not None}
    return dataclasses.replace(plan, **given)


def choose(
    task: Task, plans: list[Plan], seed: int, on_epoch: Callable[[], object]
) -> tuple[Plan, list[dict[str, Any]]]:
    """Returns the plan that does best on validation, and how each did.

    Each is trained on the training part; the test part is not looked at.
    """
    tried, parts = [], (task.parts["train"], task.parts["valid"])
    for plan in plans:
        accuracy, nats = models.attempt(task, plan, seed, *parts, on_epoch)[-1]
        row = {"plan": dataclasses.asdict(plan), "valid": accuracy, "nats": nats}
        tried.append(row)
    best = min(range(len(plans)), key=lambda i: (-tried[i]["valid"], tried[i]["nats"]))
    return plans[best], tried


def known(task: Task) -> np.ndarray:
    """Returns training and validation part together, where nothing is chosen."""
    return np.concatenate([task.parts["train"], task.parts["valid"]])


def study(
    task: Task, plan: Plan, seeds: tuple[int, ...], on_epoch: Callable[[], object]
) -> dict[str, Any]:
    """Returns test accuracy over seeds, its interval, and who is taken for whom."""
    started = time.perf_counter()
    asked, confusion = task.parts["test"], np.zeros((models.DIGITS, models.DIGITS), int)
    runs = [models.attempt(task, plan, s, known(task), asked, on_epoch) for s in seeds]
    for _, log_p, _ in runs:
        np.add.at(confusion, (task.labels[asked], log_p.argmax(1)), 1)
    right, nats = zip(*(scored for *_, scored in runs), strict=True)
    accuracy = lab.mean_sd(right)
    return {
        "plan": dataclasses.asdict(plan),
        "parameters": lab.parameter_count(runs[0][0].params),
        "test": accuracy,
        "test_interval": intervals.wilson(accuracy["mean"], len(asked)),
        "test_nats": lab.mean_sd(nats),
        "confusion": confusion.tolist(),
        "training_losses": [[round(x, 4) for x in one.losses] for one, *_ in runs],
        "seconds": round(time.perf_counter() - started, 1),
    }


def run(settings: Settings, tasks: dict[str, Task]) -> int:
    """Runs the experiment on tasks that are loaded, and writes what was found."""
    run, found, searched = lab.begin(settings, "digits"), {}, {}
    with tqdm(total=_epochs(settings), unit="epoch") as bar:
        for name, task in tasks.items():
            plan = resized(models.CHOSEN[name], settings)
            if settings.search:
                bar.set_description(f"{name}, search")
                plans = [resized(plan, settings) for plan in models.candidates(name)]
                seed = settings.seeds[0]
                plan, searched[name] = choose(task, plans, seed, bar.update)
            found[name] = {}
            for said, own in _studies(name, plan, settings).items():
                bar.set_description(f"{name}, {said}")
                found[name][said] = study(task, own, settings.seeds, bar.update)
    results = run.results(
        seconds=run.seconds(),
        data={name: task.card for name, task in tasks.items()},
        published=models.PUBLISHED,
        models=found,
        search=searched,
        long_memory=long_memory_rows(),
    )
    return run.finish(results, draw, said=f"{tables(results)}\n")


def _studies(name: str, plan: Plan, settings: Settings) -> dict[str, Plan]:
    less = models.ablations(plan) if settings.ablations and name == "mnist1d" else {}
    return {WHOLE: plan, **less}


def _epochs(settings: Settings) -> int:
    total = 0
    for name in settings.tasks:
        plans = models.candidates(name) if settings.search else []
        total += sum(resized(plan, settings).epochs for plan in plans)
        plans = _studies(
            name, resized(models.CHOSEN[name], settings), settings
        ).values()
        total += sum(plan.epochs for plan in plans) * len(settings.seeds)
    return total


def start(settings: Settings) -> int:
    """Loads what is asked for and runs the experiment."""
    require(*(READERS[name].wanted for name in settings.tasks))
    return run(settings, {name: READERS[name].load() for name in settings.tasks})


main = lab.main_of(Settings, __doc__, start, prog="python -m experiments.digits")


if __name__ == "__main__":
    raise SystemExit(main())
