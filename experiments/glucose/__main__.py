"""python -m experiments.glucose --help.

How well can blood glucose be forecast 30 and 60 minutes ahead? The readings of a
monitor that was off 181 times: segments of unequal length, nothing interpolated. GRU
and LSTM beside persistence, autoregressions and first-order Markov models, on the same
pairs of a reading and the one to come: root mean squared error in mg/dL, mean absolute
relative difference, by how many minutes forecasts lag, and how often the central 50%
and 90% intervals hold, with intervals from a bootstrap of whole days.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from tqdm import tqdm

from experiments import lab
from experiments.data import glucose
from experiments.data.glucose import Glucose
from experiments.glucose import judge, models, references, training
from experiments.glucose.problem import Part, Predicted, Scales, part_of, scales_of
from experiments.glucose.report import draw, tables

UNITS = {
    "rmse": "mg/dL",
    "mard": "mean absolute relative difference, percent of the reading",
    "lag": "minutes; the shift of 0 to the horizon with the least error",
    "nats": "mean of -log density (per mg/dL) over pairs of a reading and a horizon",
    "fitted.networks": "the same, but of changes divided by scales.ahead",
}
# The network whose forecasts the figure shows.
SHOWN = "GRU"


@dataclasses.dataclass(frozen=True)
class Settings(training.Recipe):
    """Forecast glucose 30 and 60 minutes ahead."""

    head: Annotated[str, lab.among(models.HEADS)] = "student_t"
    """What the networks predict: student_t or gaussian, for each horizon."""
    hidden: lab.Count = 32
    """Hidden units."""
    orders: lab.Counts = (1, 2, 3, 4, 6, 9, 12, 18, 24)
    """Orders of autoregression; chosen on the validation part."""
    widths: lab.Counts = (2, 3, 5, 10, 20)
    """Widths of bins of the Markov chain, mg/dL; chosen on the validation part."""
    draws: lab.Count = 2_000
    """Draws of days, for the intervals."""
    out: Path | None = None
    """The run folder; None takes the next runs/glucose/NUMBER."""

    def entrants(self) -> dict[str, models.Entrant]:
        """Returns the networks by name."""
        return models.entrants(self.hidden, self.head)


class Fitted(NamedTuple):
    """All that is fitted and chosen, before anyone has looked at the test part."""

    scales: Scales
    references: list[references.Reference]
    learned: dict[str, training.Learned]


def fit(
    data: Glucose, settings: Settings, on_epoch: Callable[[], object] = lambda: None
) -> Fitted:
    """Fits on the training part and chooses on the validation part."""
    scales = scales_of(data.train)
    train, valid = (part_of(of, scales) for of in (data.train, data.valid))
    chosen = references.fit_references(train, valid, settings.orders, settings.widths)
    learned = {
        name: training.fit(entrant, train, valid, settings, on_epoch)
        for name, entrant in settings.entrants().items()
    }
    return Fitted(scales, chosen, learned)


def forecasts(
    fitted: Fitted, settings: Settings, part: Part
) -> dict[str, list[Predicted]]:
    """Returns the forecasts of every model, one for each seed of a network."""
    found = {r.name: [r.predict(r.fitted, part)] for r in fitted.references}
    for name, entrant in settings.entrants().items():
        found[name] = models.forecast(entrant, fitted.learned[name].params, part)
    return found


def evaluate(fitted: Fitted, settings: Settings, data: Glucose) -> dict[str, Any]:
    """Scores every model on the same pairs of the test part; chooses nothing."""
    part = part_of(data.test, fitted.scales)
    pairs, found = part.pairs, forecasts(fitted, settings, part)
    days = judge.draw_days(pairs, settings.draws, settings.seeds[0])
    rivals = (references.PERSISTENCE, *(r.name for r in fitted.references[-2:]))
    shown = settings.entrants()[SHOWN], fitted.learned[SHOWN].params
    return {
        "days": int(days.times.shape[1]),
        "pairs": judge.by_horizon(pairs.due.sum(0).tolist()),
        "test": {name: judge.score(runs, pairs, days) for name, runs in found.items()},
        "lags": {name: judge.lags(runs, data.test) for name, runs in found.items()},
        "lower": {
            name: {
                rival: judge.compare(found[name], found[rival], pairs, days)
                for rival in rivals
            }
            for name in fitted.learned
        },
        "day": {"model": SHOWN, **judge.show_day(*shown, part)},
    }


def describe(fitted: Fitted) -> dict[str, Any]:
    """Returns what was fitted and how it was chosen."""
    scales = fitted.scales
    return {
        "scales": {
            "mean": float(scales.level.mean),
            "sd": float(scales.level.sd),
            "step": scales.step,
            "ahead": scales.ahead.tolist(),
        },
        "references": {
            r.name: {"valid_nats_by_choice": r.valid_nats_by_choice}
            for r in fitted.references
        },
        "networks": {
            name: {
                "parameters": lab.parameter_count(found.params) // len(found.nats),
                **{k: v for k, v in found._asdict().items() if k != "params"},
            }
            for name, found in fitted.learned.items()
        },
    }


def run(settings: Settings, data: Glucose) -> int:
    """Runs the experiment."""
    run = lab.begin(settings, "glucose", data.card)
    total = len(settings.entrants()) * settings.epochs
    with tqdm(total=total, unit="epoch") as bar:
        fitted = fit(data, settings, bar.update)
    results = run.results(
        data=data.card,
        units=UNITS,
        fitted=describe(fitted),
        **evaluate(fitted, settings, data),
        seconds=run.seconds(),
    )
    return run.finish(results, draw, said=f"\n{tables(results)}")


main = lab.main_of(Settings, __doc__, lambda settings: run(settings, glucose.load()))


if __name__ == "__main__":
    raise SystemExit(main())
