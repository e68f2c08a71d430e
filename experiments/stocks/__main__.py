"""python -m experiments.stocks --help.

What can be forecast of tomorrow's return? The daily log returns of AAPL, IBM and MSFT:
held-out nats of independent Gaussian and Student-t returns, of the first-order Markov
model AR(1), of GARCH and GJR-GARCH with Student-t errors, fitted once and, as the field
uses them, again every month, and of recurrent networks; whether their quantiles hold;
and whether the mean is forecast at all.
"""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments.data import stocks
from experiments.data._parts import Parts
from experiments.data._scale import Scale, scale_of
from experiments.lab import intervals
from experiments.stocks import forecasts, networks, report, scores
from experiments.stocks.forecasts import (
    AR_1,
    GARCH,
    GARCH_LATE,
    GAUSSIAN,
    GJR,
    STUDENT_T,
    Forecast,
)
from experiments.stocks.networks import Fitted, Recipe
from experiments.stocks.refits import REFITS, refit_days, refit_forecast

UNIT = "nats per stock and day, of log returns in percent"
ENTRANTS = tuple(networks.entrants())


@dataclasses.dataclass(frozen=True)
class Settings(Recipe):
    """Forecast the daily returns of three stocks."""

    networks: Annotated[tuple[str, ...], lab.among(ENTRANTS)] = ENTRANTS
    """Which networks take part."""
    refit_every: lab.Count = 22
    """Days after which GARCH is estimated again from all days before, or the last."""
    block: lab.Count = 22
    """Days of a stretch that the bootstrap draws: a month of trading."""
    other_blocks: Annotated[tuple[int, ...], lab.ABOVE_0] = (1, 5, 66)
    """Lengths of a stretch with which the best network's intervals are drawn again."""
    draws: lab.Count = 10_000
    """Of the bootstrap."""
    out: Path | None = None
    """The run folder; None takes the next runs/stocks/NUMBER."""


class Learned(NamedTuple):
    """All that is taken from the training and validation parts.

    Attributes:
      scale: Mean and deviation of the training part.
      student_t: Of independent returns.
      autoregressions: Parameters by order, 0 and 1.
      garch: By name.
      networks: By name.
    """

    scale: Scale
    student_t: np.ndarray
    autoregressions: dict[int, list[Any]]
    garch: dict[str, forecasts.Garch]
    networks: dict[str, Fitted]


def learn(returns: np.ndarray, parts: Parts, settings: Settings, bar: Any) -> Learned:
    """Fits every model; no function that it calls is shown the test part."""
    train = returns[parts.train]
    scale = scale_of(train)
    late = returns[: parts.valid.stop]
    garch = {
        GARCH: forecasts.fit_garch(train),
        GJR: forecasts.fit_garch(train, asymmetric=True),
        GARCH_LATE: forecasts.fit_garch(late),
    }
    fitted = {}
    for name in settings.networks:
        bar.set_description(name)
        entrant = networks.entrants()[name]
        fitted[name] = networks.fit(entrant, scale, parts, late, settings, bar.update)
    return Learned(
        scale,
        forecasts.fit_student_t(train),
        {k: forecasts.fit_autoregression(k, scale, train) for k in (0, 1)},
        garch,
        fitted,
    )


def refit(
    data: stocks.Stocks, settings: Settings, bar: Any
) -> dict[str, list[Forecast]]:
    """Returns what models forecast that are estimated again from behind training on."""
    found, when = {}, (data.parts.train.stop, settings.refit_every)
    for name, how in REFITS.items():
        bar.set_description(name)
        found[name] = [refit_forecast(how, data.returns, *when, bar.update)]
    return found


def foretell(learned: Learned, returns: np.ndarray) -> dict[str, list[Forecast]]:
    """Returns every model's forecasts of all days, one for each seed where it has any.

    The parameters stay as they are; every forecast has read the returns before it.
    """
    found = {}
    for name, order in ((GAUSSIAN, 0), (AR_1, 1)):
        given = learned.scale, learned.autoregressions[order], returns
        found[name] = [forecasts.autoregression_forecast(order, *given)]
    found[STUDENT_T] = [forecasts.student_t_forecast(returns, *learned.student_t)]
    for name, garch in learned.garch.items():
        found[name] = [forecasts.garch_forecast(garch, returns)]
    for name, fitted in learned.networks.items():
        entrant = networks.entrants()[name]
        found[name] = networks.forecasts(entrant, learned.scale, fitted, returns)
    return found


def judge(
    foretold: dict[str, list[Forecast]],
    learned: Learned,
    data: stocks.Stocks,
    settings: Settings,
) -> dict[str, Any]:
    """Returns every model's scores on the test part, and its nats in validation."""
    part = data.parts.test
    days = part.stop - part.start
    drawn = intervals.draw_places(days, settings.block, settings.draws, seed=0)
    references = {name: foretold[name][0] for name in (*report.RIVALS, GAUSSIAN)}
    rows: dict[str, Any] = {}
    for name, own in foretold.items():
        row = scores.likelihood(own, references, part, drawn)
        row["valid_nats"] = float(scores.daily(own, data.parts.valid).mean())
        row |= scores.calibration(own, part)
        row |= scores.mean_forecast(own, data.returns, learned.scale, part, drawn)
        rows[name] = row
    prices = scores.r2_of_yesterdays_price(data.returns, part)
    best = min(learned.networks, key=lambda name: rows[name]["valid_nats"])
    by_block: dict[str, dict[int, list[float]]] = {name: {} for name in report.RIVALS}
    for block in settings.other_blocks:
        drawn = intervals.draw_places(days, block, settings.draws, seed=0)
        nats = {name: scores.daily(foretold[name], part) for name in (best, *by_block)}
        for name, own in by_block.items():
            gap = nats[best] - nats[name]
            own[block] = intervals.middle(gap[drawn].mean(axis=1))
    return {
        "models": rows,
        "best_in_validation": best,
        "best_less_by_block": by_block,
        "r2_of_yesterdays_price": prices,
    }


def parameters(learned: Learned) -> dict[str, Any]:
    """Returns what was learned, as far as a reader can make sense of it."""
    listed = lambda fields: {k: v.tolist() for k, v in fields._asdict().items()}
    rows = {name: listed(garch) for name, garch in learned.garch.items()}
    for name, fitted in learned.networks.items():
        row = {"says": networks.entrants()[name].says, **fitted._asdict()}
        del row["params"]  # about a thousand numbers for each seed
        rows[name] = {**row, "parameters": lab.parameter_count(fitted.params[0])}
    student_t = zip(("nu", "mean", "scale"), learned.student_t.tolist(), strict=True)
    return {"scale": listed(learned.scale), STUDENT_T: dict(student_t), **rows}


def run(settings: Settings, data: stocks.Stocks) -> int:
    """Runs the experiment; returns the exit status."""
    forecasts.load_arch()  # if it is missing, say so at once
    run = lab.begin(settings, "stocks", data.card)
    load, spent = lab.load_average(), time.process_time()
    first, last = data.parts.train.stop, len(data.returns)
    count = len(settings.networks) * len(settings.hidden) * settings.updates
    count += len(REFITS) * len(refit_days(first, last, settings.refit_every))
    with tqdm(total=count, unit="update") as bar:
        learned = learn(data.returns, data.parts, settings, bar)
        foretold = foretell(learned, data.returns) | refit(data, settings, bar)
    found = judge(foretold, learned, data, settings)
    results = run.results(
        seconds=run.seconds(),
        cpu_seconds=round(time.process_time() - spent, 1),
        load_before=load,
        data=data.card,
        unit=UNIT,
        parameters=parameters(learned),
        **found,
    )
    said = f"{report.tables(results)}\n\n{report.verdict(results)}"
    return run.finish(results, report.draw, data, foretold, said=said)


main = lab.main_of(Settings, __doc__, lambda settings: run(settings, stocks.load()))

if __name__ == "__main__":
    raise SystemExit(main())
