"""The commands: train and compare; forecast on; answer a stream."""

import functools
import sys
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import jrnn
from experiments import lab
from experiments._extras import require
from experiments.data import glucose
from experiments.forecast import networks, references, report, store, streaming
from experiments.forecast.judge import Judge, judge_all
from experiments.forecast.networks import Learned
from experiments.forecast.problem import (
    Origin,
    Setup,
    Sheet,
    Track,
    cuts_of,
    origins_of,
    setup_of,
    track_of,
    windows,
)
from experiments.forecast.settings import Predict, Settings, Stream
from experiments.forecast.store import Forecaster
from experiments.forecast.table import Columns, Series, Table, card, read
from experiments.lab.files import write_csv

SHOWN_PAST = 3  # horizons of past values in the figure
PRINTED = 60  # rows of forecasts on the screen
STRETCH = 2  # horizons of a stretch that the bootstrap draws
OTHER_STEP = 1.5  # times the step of training: worth a note
SEED = 0  # of paths and bootstrap
FAR = 1e18  # later than all


def train(settings: Settings) -> int:
    """Trains, compares, draws and saves; returns 0."""
    require("safetensors", glucose.WHEEL if settings.csv is None else "pandas")
    table, columns = _table(settings)
    cuts = cuts_of(table)
    setup, tracks, sheet, valid, line = _prepare(settings, table, columns)
    origins = origins_of(setup, tracks, cuts.test, settings.origins)
    run = lab.begin(settings, "forecast", {**card(table, columns), **_told(setup)})
    models = networks.entrants(settings, setup.inputs)
    learned = _fit(settings, models, sheet, valid)
    ahead = [_after(tracks, origin, setup.horizon) for origin in origins]
    times, came = np.stack(ahead, axis=-1)
    asked = {"tracks": tracks, "origins": origins, "times": times}
    asked["draws"] = settings.draws
    drawn = _naive(setup, asked, cuts.valid)
    sampled = functools.partial(networks.paths, setup, **asked, seed=SEED)
    drawn[f"AR({line.order})"] = [sampled(references.model_of(line), line.params)]
    for name, runs in learned.items():
        drawn[name] = [sampled(models[name], one.params) for one in runs]
    spacing = max(1, sum(len(one.times) for one in tracks) * 15 // 100 // len(origins))
    judge = Judge(len(origins), -(-STRETCH * setup.horizon // spacing), 2000, SEED)
    best = min(learned, key=lambda name: min(one.nats for one in learned[name]))
    own = min(learned[best], key=lambda one: one.nats)
    store.save(run.folder, Forecaster(setup, models[best], own.params))
    results = run.results(
        data=card(table, columns),
        setup={**setup._asdict(), "columns": columns._asdict()},
        networks=_described(learned),
        autoregression={"order": line.order, "valid_nats": line.nats},
        kept=best,
        **judge_all(judge, drawn, came, tuple(learned)),
        fan=_fan(setup, tracks, origins, times, drawn[best][0], best),
        seconds=run.seconds(),
    )
    said = f"{report.tables(results)}\nKept: {best}."
    return run.finish(results, report.draw, said=said)


def _table(settings: Settings) -> tuple[Table, Columns]:
    """Returns the user's table, or the readings of the glucose monitor."""
    if settings.csv is not None:
        columns = Columns(settings.time or "", settings.value or "", settings.id)
        return read(settings.csv, columns, settings.separator), columns
    data = glucose.load()
    parts = [*data.train, *data.valid, *data.test]
    times = np.concatenate([one.times for one in parts]).astype("datetime64[s]")
    values = np.concatenate([one.glucose for one in parts])
    series = Series("", times.astype(np.float64), values)
    return Table((series,), True, 0), Columns("time", "glucose")


class Prepared(NamedTuple):
    """A table as it is modelled, and the autoregression that is chosen for it."""

    setup: Setup
    tracks: list[Track]
    train: Sheet
    valid: Sheet
    line: references.Autoregression

    def nats(self) -> float:
        """Returns -log density of a value on validation, in the table's own unit."""
        return min(self.line.nats.values()) + float(np.log(self.setup.sd))


def _prepare(settings: Settings, table: Table, columns: Columns) -> Prepared:
    """Returns values or differences, whichever autoregressions do better with."""
    cuts, own = cuts_of(table), settings.differences
    found = []
    for differences in (False, True) if own is None else (own,):
        setup = setup_of(
            table,
            columns,
            settings.horizon,
            settings.history,
            settings.season,
            differences=differences,
        )
        tracks = [track_of(setup, one) for one in table.series]
        train = windows(tracks, -FAR, cuts.valid, settings.window, history=0)
        valid = windows(
            tracks, cuts.valid, cuts.test, settings.window, settings.history
        )
        line = references.fit_autoregression(train, valid)
        found.append(Prepared(setup, tracks, train, valid, line))
    return min(found, key=Prepared.nats)


def _told(setup: Setup) -> dict[str, str]:
    """Returns what was chosen from the training part."""
    what = "differences of neighbours" if setup.differences else "values"
    periods = ", ".join(f"{period:g}" for period in setup.periods) or "none"
    return {"modelled": what, "periods": periods}


def _fit(
    settings: Settings,
    models: dict[str, jrnn.models.SequenceModel],
    train: Sheet,
    valid: Sheet,
) -> dict[str, list[Learned]]:
    """Trains every network with every seed."""
    looks = min(settings.looks, settings.steps)
    total = len(models) * len(settings.seeds) * looks
    with tqdm(total=total, unit="look") as bar:
        return {
            name: [
                networks.fit(model, settings, seed, train, valid, bar.update)
                for seed in settings.seeds
            ]
            for name, model in models.items()
        }


def _after(tracks: list[Track], origin: Origin, horizon: int) -> np.ndarray:
    """Returns times and values that follow an origin, (2, H)."""
    one, own = tracks[origin.track], slice(origin.at + 1, origin.at + 1 + horizon)
    return np.stack([one.times[own], one.values[own]])


def _naive(
    setup: Setup, asked: dict[str, Any], fitted_until: float
) -> dict[str, list[np.ndarray]]:
    """Returns the forecasts that repeat a value, by name."""
    periods: dict[str, float | None] = {"persistence": None}
    if setup.periods:
        periods["seasonal naive"] = setup.periods[0]
    return {
        name: [references.normal_paths(setup, **asked, end=fitted_until, period=period)]
        for name, period in periods.items()
    }


def _described(learned: dict[str, list[Learned]]) -> dict[str, Any]:
    return {
        name: {
            "parameters": lab.parameter_count(runs[0].params),
            "valid_nats": lab.mean_sd([one.nats for one in runs]),
            "steps_kept": [one.step for one in runs],
        }
        for name, runs in learned.items()
    }


def _fan(
    setup: Setup,
    tracks: list[Track],
    origins: list[Origin],
    times: np.ndarray,
    drawn: np.ndarray,
    name: str,
) -> dict[str, Any]:
    """Returns the forecast in the middle of the test part, with the values around."""
    at = len(origins) // 2
    origin, one = origins[at], tracks[origins[at].track]
    own = slice(
        max(0, origin.at + 1 - SHOWN_PAST * setup.horizon),
        origin.at + 1 + setup.horizon,
    )
    shown = report.fan_of(drawn[:, at], times[:, at], one.times[own], one.values[own])
    return {"model": name, "from": float(one.times[origin.at]), **shown}


def predict(settings: Predict) -> int:
    """Prints the values to come of every series; returns 0."""
    require("pandas", "safetensors")
    setup, model, params = store.load(settings.model)
    table = read(settings.csv, setup.columns, settings.separator)
    _check_times(table, setup)
    setup = setup._replace(horizon=settings.horizon or setup.horizon)
    tracks = [track_of(setup, one) for one in table.series]
    origins = [Origin(i, len(one.times) - 1) for i, one in enumerate(tracks)]
    last = np.array([one.times[-1] for one in tracks])
    times = last + setup.step * np.arange(1, setup.horizon + 1)[:, None]
    drawn = networks.paths(
        setup, model, params, tracks, origins, times, settings.draws, settings.seed
    )
    names = [one.name for one in table.series]
    rows = report.rows_of(names, times, drawn, setup.dated)
    print(report.forecast_table(rows[:PRINTED]))
    if len(rows) > PRINTED:
        print(f"and {len(rows) - PRINTED} more rows")
    if settings.out is not None:
        write_csv(settings.out, rows)
        print(f"Written to {settings.out}.")
    return 0


def _check_times(table: Table, setup: Setup) -> None:
    """Raises unless times are of the kind of training; notes steps of another size."""
    kinds = {True: "dates", False: "numbers"}
    if table.dated != setup.dated:
        raise ValueError(
            f"Expected {kinds[setup.dated]} in column {setup.columns.time!r}, as in "
            f"training, got {kinds[table.dated]}."
        )
    step = float(np.median(table.steps()))
    if not 1 / OTHER_STEP < step / setup.step < OTHER_STEP:
        print(
            f"note: the median step is {step:g}, in training it was {setup.step:g}; "
            "forecasts are made one of the latter apart"
        )


def stream(settings: Stream) -> int:
    """Answers rows until there are none; returns 2 if one was refused."""
    require("safetensors")
    forecaster = store.load(settings.model)
    refused = streaming.run(forecaster, sys.stdin, settings.state, settings.separator)
    return 2 if refused else 0
