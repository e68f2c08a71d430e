"""python -m experiments.long_memory --help.

Which recurrent cells learn what lies a hundred or a thousand steps back? And after how
many sequences? The adding problem, copying, temporal order, and digits read pixel by
pixel. Results are kept in a store, one row for each task, length, cell and seed: a run
fills what is missing, can be stopped at any time, and goes on where it was.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm

from experiments import lab
from experiments._extras import require
from experiments.data import pixel_digits
from experiments.long_memory import report, store
from experiments.long_memory.entrants import ENTRANTS, rate_of
from experiments.long_memory.problems import LENGTHS, problem
from experiments.long_memory.training import Case, train

STORE = Path(__file__).parent.parent / "results" / "long_memory.json"
Preset = Literal["quick", "full"]
# Task -> hidden units, sequences in a batch, and in all at most.
PLANS = {
    "adding": (64, 32, 60_000),
    "copy": (128, 16, 20_000),
    "order_6a": (64, 32, 60_000),
    "order_6b": (64, 32, 60_000),
    "pixels": (128, 50, 40_000),
    "permuted_pixels": (128, 50, 40_000),
}
PRESETS: dict[Preset, dict[str, Any]] = {
    "full": {
        "only": tuple(LENGTHS),
        "lengths": None,
        "cells": tuple(ENTRANTS),
        "seeds": (0, 1, 2),
        "sequences": None,
        "seconds": 1200.0,
    },
    "quick": {
        "only": ("adding", "copy", "order_6a"),
        "lengths": (100, 110),
        "cells": ("elman_orthogonal", "lstm", "gru", "lru", "min_gru"),
        "seeds": (0,),
        "sequences": 20_000,
        "seconds": 20.0,
    },
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train cells on tasks that need a long memory."""

    preset: Preset = "quick"
    """What is left open below: a look in some minutes, or the whole table, for which
    hours are little: each of its cases may take 20 minutes."""
    only: Annotated[tuple[str, ...] | None, lab.among(LENGTHS)] = None
    """Which tasks; None leaves it to the preset."""
    lengths: tuple[int, ...] | None = None
    """Which of the tasks' lengths T; None: all of the preset's."""
    cells: Annotated[tuple[str, ...] | None, lab.among(ENTRANTS)] = None
    """Which cells; None leaves it to the preset."""
    seeds: lab.Seeds | None = None
    """Of weights and data; None leaves it to the preset."""
    sequences: Annotated[int | None, lab.ABOVE_0] = None
    """To train on at most, in each case; None: the preset's, or the task's own."""
    seconds: Annotated[float | None, lab.ABOVE_0] = None
    """After which a case ends at its next evaluation; None leaves it to the preset. A
    case that ended so is run again once it is given more."""
    every: Annotated[int, lab.ABOVE_0] = 2000
    """Sequences between two evaluations."""
    evaluated: Annotated[int, lab.ABOVE_0] = 512
    """Fresh sequences in each evaluation."""
    tested: Annotated[int, lab.ABOVE_0] = 2000
    """Fresh sequences that confirm a success, and give the final loss."""
    rate: float | None = None
    """Of Adam; None: what the cell was given for the task."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    hidden: Annotated[int | None, lab.ABOVE_0] = None
    """Units of each cell; None: the task's own number."""
    store: Path | None = None
    """The results; None: with --preset full and the plan's own --hidden, --rate,
    --clip, --sequences, --every, --evaluated and --tested those that are committed,
    else runs/long_memory/NUMBER/results.json, anew."""
    figure: Path | None = None
    """Where the figure goes; None: beside the store, that of the committed to runs/."""
    show: bool = False
    """Only tabulate and draw what the store holds: without --store the committed."""

    def check(self) -> None:
        """Raises ValueError where no case is left."""
        if not cases(self):
            raise ValueError(
                f"Expected --lengths of {LENGTHS}, got {self.lengths}: no case is "
                "left. Name others, or add --preset full."
            )


def cases(settings: Settings) -> list[Case]:
    """Returns all cases, one seed after the other: every cell before the next seed."""
    return [
        case_of(task, length, cell, seed, settings)
        for seed in settings.seeds or ()
        for task in settings.only or ()
        for length in LENGTHS[task]
        if settings.lengths is None or length in settings.lengths
        for cell in settings.cells or ()
    ]


def case_of(task: str, length: int, cell: str, seed: int, settings: Settings) -> Case:
    """Returns one case, with the task's own sizes and the cell's own rate."""
    hidden, batch, sequences = PLANS[task]
    same = ("clip", "every", "evaluated", "tested")
    return Case(
        task,
        length,
        cell,
        seed,
        hidden=settings.hidden or hidden,
        batch=batch,
        rate=settings.rate or rate_of(cell, task),
        sequences=settings.sequences or sequences,
        **{name: getattr(settings, name) for name in same},
    )


def run(settings: Settings) -> int:
    """Runs what the store does not hold, writing each row as soon as it is known."""
    path = _store(settings)
    rows = store.load(path)
    seconds = settings.seconds or 0.0
    all_ = [] if settings.show else cases(settings)
    done = lambda case: store.is_done(rows.get(store.name_of(case)), case, seconds)
    missing = [case for case in all_ if not done(case)]
    if len(missing) < len(all_):
        print(f"{len(all_) - len(missing)} of {len(all_)} cases are in {path}.")
    _require_data(missing)
    for task in {case.task for case in missing}:
        problem(task, LENGTHS[task][0]).data("train")  # missing data: now, not later
    if missing:
        with store.alone(path):  # what hinders writing: now, not later
            pass
    with tqdm(total=len(missing), unit="case", disable=not missing) as bar:
        for case in missing:
            found = _train(case, seconds, bar)
            rows = store.add(path, case, found)
            name = store.name_of(case)
            if not found.items() <= rows[name].items():
                bar.write(f"{name} was cut: the older row stays.")
            bar.update()
    print(f"\n{report.table(rows)}\n\n{report.NOTES}")
    beside = path.with_suffix(".png") if path != STORE else Path("runs/long_memory.png")
    figure = settings.figure or beside
    figure.parent.mkdir(parents=True, exist_ok=True)
    report.draw(figure, rows)
    print(f"\nRows in {path}, figure in {figure}.")
    return 0


def _store(settings: Settings) -> Path:
    if settings.store is not None:
        return settings.store
    if settings.show or (settings.preset == "full" and _as_planned(settings)):
        return STORE
    _require_data(cases(settings))  # and no empty folder is left behind
    return lab.claim_run_folder(None, store.EXPERIMENT, resume=False) / lab.RESULTS_FILE


def _require_data(planned: list[Case]) -> None:
    if any("pixels" in case.task for case in planned):
        require(pixel_digits.WHEEL)


def _as_planned(settings: Settings) -> bool:
    """Returns whether every case has the settings of the full table."""
    plan = Settings(preset="full")
    return all(
        case == case_of(case.task, case.length, case.cell, case.seed, plan)
        for case in cases(settings)
    )


def _train(case: Case, seconds: float, bar: Any) -> dict[str, Any]:
    name = store.name_of(case)

    shown = lambda x: "not finite" if x["loss"] is None else f"{x['loss']:.3g}"

    def report_row(row: dict[str, Any]) -> None:
        bar.set_description(f"{name} {row['sequences']:,}: {shown(row)}")

    bar.set_description(name)
    found = train(case, seconds, report_row)
    bar.write(
        f"{name:32} {found['stopped']:>9} after {found['sequences']:7,}"
        f"  loss {shown(found):>8}"
        f"  (constant {found['baseline']:.3g})  {found['seconds']:.0f} s"
    )
    return found


PROGRAM = "python -m experiments.long_memory"
main = lab.main_of(Settings, __doc__, run, presets=PRESETS, prog=PROGRAM)

if __name__ == "__main__":
    raise SystemExit(main())
