"""python -m experiments.ecg --help.

How well do networks predict an electrocardiogram? Record 208 of MIT-BIH as it was
recorded, integers at 360 Hz: nats per held-out sample of GRU and LSTM, beside
autoregressions (AR(1) is the linear first-order Markov model), Markov chains on the
quantised values and on their differences, and LZMA. All are asked for the probability
of the recorded integer. Then ten seconds that a network makes up by itself, and how
well its surprise tells wide beats from others.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments.data import ecg
from experiments.data.ecg import GAP, HERTZ, UNITS_PER_MV, Ecg
from experiments.ecg import judge, models, references
from experiments.ecg.problem import Entrant, Stretch, differences, stretch
from experiments.ecg.report import SECONDS, Traces, draw, tables
from experiments.lab import intervals

SHOWN = SECONDS * HERTZ  # samples
TRACES_FILE = "traces.npz"  # what the figure shows, sample by sample
LABELS = "wide at half height: a rule, not a cardiologist's annotation"


@dataclasses.dataclass(frozen=True)
class Settings(models.Recipe):
    """Predict the next sample of an electrocardiogram."""

    seeds: lab.Seeds = (0, 1, 2)
    """Of weights and of where windows start; the spread is over these."""
    cells: Annotated[tuple[str, ...], lab.among(models.CELLS)] = ("GRU", "LSTM")
    """GRU, LSTM, or both: the one that is better on validation is looked at closely."""
    hidden: lab.Count = 48
    """Units."""
    components: lab.Count = 5
    """Discretised logistics that are mixed."""
    block_seconds: Annotated[float, lab.FINITE] = 2.0
    """Length of the stretches that the bootstrap draws."""
    beats_in_stretch: lab.Count = 8
    """Beats that the bootstrap of the area draws in a row: they come in runs."""
    draws: lab.Count = 2_000
    """Draws, for intervals."""
    out: Path | None = None
    """The run folder; None takes the next runs/ecg/NUMBER."""


class Fitted(NamedTuple):
    """All that is fitted and chosen, before anyone has looked at the test part.

    Attributes:
      sd: Standard deviation of the training part's differences.
      references: By name, orders and smoothings chosen.
      learned: For each network, one for each seed.
      shown: The network with the lowest mean validation loss.
      wide: Seconds above which a beat is called wide.
      windows: For each model, seconds around the peak that its surprise is taken over.
    """

    sd: float
    references: dict[str, Entrant]
    learned: dict[str, list[Entrant]]
    shown: str
    wide: float
    windows: dict[str, judge.Window]

    def nats(self, part: Stretch) -> dict[str, list[np.ndarray]]:
        """Returns nats of each sample under every model, one array for each seed."""
        every = {name: [one] for name, one in self.references.items()} | self.learned
        return {name: [one.nats(part) for one in runs] for name, runs in every.items()}


def parts_of(data: Ecg) -> tuple[Stretch, Stretch, Stretch]:
    """Returns the parts; models read the gap before validation and test to warm up."""
    train, valid, test = data.parts
    return (
        stretch(data.units, train, 0),
        stretch(data.units, valid, GAP),
        stretch(data.units, test, GAP),
    )


def model_of(settings: Settings, sd: float, cell: str) -> Any:
    """Returns the model of a cell."""
    return models.make_model(cell, settings.hidden, settings.components, sd)


def fit(
    data: Ecg, settings: Settings, on_step: Callable[[], object] = lambda: None
) -> Fitted:
    """Fits on the training part and chooses on the validation part."""
    train, valid, _ = parts_of(data)
    sd = float(differences(train.units).std())
    learned = {
        cell: [
            models.train(
                model_of(settings, sd, cell), train, valid, settings, seed, on_step
            )
            for seed in settings.seeds
        ]
        for cell in settings.cells
    }
    shown = min(learned, key=lambda cell: np.mean([one.valid for one in learned[cell]]))
    wide = judge.least_wide(judge.find_beats(train.units))
    tried = references.fit_references(train, valid)
    fitted = Fitted(sd, tried, learned, shown, wide, {})
    beats = judge.find_beats(valid.units[valid.skip :])
    windows = {
        name: judge.choose_window(runs, beats, beats.width > wide)
        for name, runs in fitted.nats(valid).items()
    }
    return fitted._replace(windows=windows)


def evaluate(
    fitted: Fitted, settings: Settings, data: Ecg
) -> tuple[dict[str, Any], Traces]:
    """Scores every model on the same samples of the test part; chooses nothing."""
    train, _, test = parts_of(data)
    prompt, own = np.split(test.units, [test.skip])
    nats = fitted.nats(test)
    block = min(len(own), max(1, round(settings.block_seconds * HERTZ)))
    random = (settings.draws, settings.seeds[0])
    starts = intervals.draw_starts(len(own), block, *random)
    beats = judge.find_beats(own)
    wide = beats.width > fitted.wide
    drawn = intervals.draw_places(len(wide), settings.beats_in_stretch, *random)
    generated = _generate(fitted, settings, prompt)
    reference = min(fitted.references, key=lambda name: fitted.references[name].valid)
    results = {
        "samples": len(own),
        "best_reference": reference,
        "test": judge.score(nats, reference, starts, block),
        "yardsticks": references.yardsticks(train, test),
        "beats": {
            "labels": LABELS,
            "least_wide_seconds": fitted.wide,
            "beats": len(beats.at),
            "wide": int(wide.sum()),
            "by_model": {
                name: judge.rank(runs, beats, wide, fitted.windows[name], drawn)
                for name, runs in nats.items()
            },
        },
        "generated": {
            "network": fitted.shown,
            "seconds": SECONDS,
            "recorded": _describe_trace(own[:SHOWN], fitted.wide),
            "by_seed": [_describe_trace(units, fitted.wide) for units in generated],
        },
    }
    regressed = references.sample_autoregression(
        16, fitted.references[references.AR_16].fitted, prompt, SHOWN, settings.seeds[0]
    )
    told = np.mean(nats[fitted.shown], axis=0)
    return results, Traces(own, generated[0], regressed, told, beats, wide)


def _generate(
    fitted: Fitted, settings: Settings, prompt: np.ndarray
) -> list[np.ndarray]:
    """Returns what each seed's network makes up where the test part would begin."""
    model = model_of(settings, fitted.sd, fitted.shown)
    return [
        models.generate(model, run.fitted, prompt, SHOWN, seed)
        for seed, run in zip(settings.seeds, fitted.learned[fitted.shown], strict=True)
    ]


def _describe_trace(units: np.ndarray, wide: float) -> dict[str, Any]:
    found = judge.find_beats(units)
    return {
        "beats": len(found.at),
        "wide": int((found.width > wide).sum()),
        "least_mv": float(units.min() / UNITS_PER_MV),
        "greatest_mv": float(units.max() / UNITS_PER_MV),
    }


def describe(fitted: Fitted) -> dict[str, Any]:
    """Returns what was chosen on validation, and how large the networks are."""
    return {
        "sd_of_differences": fitted.sd,
        "shown": fitted.shown,
        "references": {
            name: {"valid_nats": one.valid, "chosen": one.chosen}
            for name, one in fitted.references.items()
        },
        "networks": {
            cell: {
                "parameters": lab.parameter_count(runs[0].fitted),
                "valid_nats": lab.mean_sd([run.valid for run in runs]),
                "kept_at_step": [run.chosen["step"] for run in runs],
            }
            for cell, runs in fitted.learned.items()
        },
    }


def run(settings: Settings, data: Ecg) -> int:
    """Runs the experiment."""
    run, load = lab.begin(settings, "ecg", data.card), lab.load_average()
    total = len(settings.cells) * len(settings.seeds) * settings.steps
    with tqdm(total=total, unit="step") as bar:
        fitted = fit(data, settings, bar.update)
    found, traces = evaluate(fitted, settings, data)
    results = run.results(
        data=data.card,
        fitted=describe(fitted),
        **found,
        seconds=run.seconds(),
        cpu_seconds=round(time.process_time(), 1),
        load_average={"before": load, "after": lab.load_average()},
    )
    arrays = {k: v for k, v in traces._asdict().items() if k != "beats"}
    np.savez_compressed(run.folder / TRACES_FILE, **arrays, **traces.beats._asdict())
    return run.finish(results, draw, traces, said=f"\n{tables(results)}")


main = lab.main_of(Settings, __doc__, lambda settings: run(settings, ecg.load()))


if __name__ == "__main__":
    raise SystemExit(main())
