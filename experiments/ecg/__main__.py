"""python -m experiments.ecg --help.

An electrocardiogram as it was recorded, integers at 360 Hz, record 208 of MIT-BIH: nats
per held-out sample of GRU and LSTM, beside autoregressions (AR(1) is the linear first-
order Markov model), Markov chains on the quantised values and on their differences, and
LZMA. All are asked for the probability of the recorded integer. Then ten seconds that a
network makes up by itself, and how well its surprise tells wide beats from others.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments.data import ecg
from experiments.data.ecg import GAP, HERTZ, UNITS_PER_MV, Ecg
from experiments.ecg import networks
from experiments.ecg.beats import (
    Beats,
    Window,
    choose_window,
    find_beats,
    least_wide,
    rank,
)
from experiments.ecg.networks import Learned, Recipe
from experiments.ecg.problem import Stretch, differences, stretch
from experiments.ecg.references import (
    AR_16,
    Reference,
    fit_references,
    sample_autoregression,
    yardsticks,
)
from experiments.ecg.report import SECONDS, Traces, draw, tables
from experiments.ecg.scoring import score
from experiments.ecg.settings import Settings
from experiments.lab import intervals

TRACES_FILE = "traces.npz"  # what the figure shows, sample by sample


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
    references: dict[str, Reference]
    learned: dict[str, list[Learned]]
    shown: str
    wide: float
    windows: dict[str, Window]


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
    return networks.make_model(cell, settings.hidden, settings.components, sd)


def fit(
    data: Ecg, settings: Settings, on_step: Callable[[], object] = lambda: None
) -> Fitted:
    """Fits on the training part and chooses on the validation part."""
    train, valid, _ = parts_of(data)
    sd = float(differences(train.units).std())
    recipe = Recipe(
        settings.steps,
        settings.streams,
        settings.window,
        settings.rate,
        settings.warmup,
        settings.clip,
        settings.every,
    )
    learned = {}
    for cell in settings.cells:
        model = model_of(settings, sd, cell)
        learned[cell] = [
            networks.train(model, train, valid, recipe, seed, on_step)
            for seed in settings.seeds
        ]
    shown = min(learned, key=lambda cell: np.mean([one.nats for one in learned[cell]]))
    wide = least_wide(find_beats(train.units))
    fitted = Fitted(sd, fit_references(train, valid), learned, shown, wide, {})
    return fitted._replace(windows=choose_windows(fitted, settings, valid))


def choose_windows(
    fitted: Fitted, settings: Settings, valid: Stretch
) -> dict[str, Window]:
    """Returns how much of a beat each model's surprise is the mean of."""
    beats = find_beats(valid.units[valid.skip :])
    return {
        name: choose_window(runs, beats, beats.width > fitted.wide)
        for name, runs in nats_of(fitted, settings, valid).items()
    }


def nats_of(
    fitted: Fitted, settings: Settings, part: Stretch
) -> dict[str, list[np.ndarray]]:
    """Returns nats of each sample under every model, one array for each seed."""
    found = {
        name: [-reference.log_prob(reference.fitted, part)]
        for name, reference in fitted.references.items()
    }
    for cell, runs in fitted.learned.items():
        model = model_of(settings, fitted.sd, cell)
        found[cell] = [-networks.log_prob(model, run.params, part) for run in runs]
    return found


def evaluate(
    fitted: Fitted, settings: Settings, data: Ecg
) -> tuple[dict[str, Any], Traces]:
    """Scores every model on the same samples of the test part; chooses nothing."""
    train, _, test = parts_of(data)
    seed = settings.seeds[0]
    nats = nats_of(fitted, settings, test)
    own = test.units[test.skip :]
    block = min(len(own), max(1, round(settings.block_seconds * HERTZ)))
    starts = intervals.draw_starts(len(own), block, settings.draws, seed)
    beats = find_beats(own)
    wide = beats.width > fitted.wide
    generated = _generate(fitted, settings, test)
    reference = min(fitted.references, key=lambda name: fitted.references[name].valid)
    results = {
        "samples": len(own),
        "best_reference": reference,
        "test": score(nats, reference, starts, block),
        "yardsticks": yardsticks(train, test),
        "beats": {
            "labels": "wide at half height: a rule, not a cardiologist's annotation",
            "least_wide_seconds": fitted.wide,
            "beats": len(beats.at),
            "wide": int(wide.sum()),
            "by_model": {
                name: rank(
                    runs,
                    beats,
                    wide,
                    fitted.windows[name],
                    settings.beats_in_stretch,
                    settings.draws,
                    seed,
                )
                for name, runs in nats.items()
            },
        },
        "generated": _describe_traces(fitted, own, generated),
    }
    told = np.mean(nats[fitted.shown], axis=0)
    traces = Traces(
        own, generated[0], _autoregressed(fitted, settings, test), told, beats, wide
    )
    return results, traces


def _prompt(test: Stretch) -> np.ndarray:
    """Returns what comes before the test part."""
    return test.units[: test.skip]


def _generate(fitted: Fitted, settings: Settings, test: Stretch) -> list[np.ndarray]:
    """Returns what each seed's network makes up where the test part would begin."""
    model = model_of(settings, fitted.sd, fitted.shown)
    return [
        networks.generate(model, run.params, _prompt(test), SECONDS * HERTZ, seed)
        for seed, run in zip(settings.seeds, fitted.learned[fitted.shown], strict=True)
    ]


def _autoregressed(fitted: Fitted, settings: Settings, test: Stretch) -> np.ndarray:
    params = fitted.references[AR_16].fitted
    return sample_autoregression(
        16, params, _prompt(test), SECONDS * HERTZ, settings.seeds[0]
    )


def _describe_traces(
    fitted: Fitted, own: np.ndarray, generated: list[np.ndarray]
) -> dict[str, Any]:
    """Returns beats in the test part's first seconds, and in each generated trace."""

    def describe(units: np.ndarray) -> dict[str, Any]:
        found: Beats = find_beats(units)
        return {
            "beats": len(found.at),
            "wide": int((found.width > fitted.wide).sum()),
            "least_mv": float(units.min() / UNITS_PER_MV),
            "greatest_mv": float(units.max() / UNITS_PER_MV),
        }

    return {
        "network": fitted.shown,
        "seconds": SECONDS,
        "recorded": describe(own[: SECONDS * HERTZ]),
        "by_seed": [describe(units) for units in generated],
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
                "parameters": lab.parameter_count(runs[0].params),
                "valid_nats": lab.mean_sd([run.nats for run in runs]),
                "kept_at_step": [run.step for run in runs],
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


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the experiment; returns the exit status."""
    start = lambda settings: run(settings, ecg.load())
    return lab.command(Settings, arguments, __doc__, start)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
