"""python -m experiments.variable_lengths --help.

What do lengths improve? Spoken digits of 6 to 92 frames, told apart by a GRU that reads
from both ends and is given each utterance's length, beside the same network that reads
the padding as if it were sound, a GRU that reads forwards alone, and a bag of frames
that knows no order. Then the same test utterances with more padding behind them. Voices
that training has heard, and voices that it has not, are scored apart.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments.data import spoken_digits
from experiments.data.spoken_digits import (
    Digits,
    find_leaks,
    normalise,
    split_new_voice,
)
from experiments.lab import intervals
from experiments.variable_lengths import models
from experiments.variable_lengths.models import (
    Classifier,
    Fitted,
    Task,
    predict,
    score,
)
from experiments.variable_lengths.report import draw, leak_table, tables

# The test utterances are padded to these multiples of the longest.
PADDINGS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
# With lengths, no log P(digit) may move by more than this when padding is added.
BOUND = 1e-5
LENGTHS, PADDED = models.LENGTHS, models.PADDED


@dataclasses.dataclass(frozen=True)
class Settings(models.Recipe):
    """Classify spoken digits of many lengths, with and without knowing the lengths."""

    seeds: lab.Seeds = (0, 1, 2)
    """Of weights and batches; learning rates are chosen with the first."""
    hidden: lab.Count = 32
    """h, in each direction."""
    learning_rates: lab.Positives = (5e-3, 1e-2, 3e-2)
    """Of Adam, ten times as large for the bag of frames, which has no recurrence; each
    model takes the one with the best validation loss."""
    new_voices: bool = True
    """Whether to train once more for each voice, leaving it out."""
    out: Path | None = None
    """The run folder; None takes the next runs/variable_lengths/NUMBER."""


def held_out(digits: Digits, settings: Settings) -> list[int]:
    """Returns the voices to be left out one by one."""
    return list(range(digits.voices.max() + 1)) if settings.new_voices else []


def study(
    classifier: Classifier, task: Task, settings: Settings, bar: Any
) -> tuple[dict[str, Any], list[Fitted]]:
    """Returns one model's results, and its parameters for each seed.

    The learning rate is chosen with the first seed by the validation loss; with it the
    other seeds are trained, and, with the first, once for each voice left out: so of a
    new voice's accuracy nothing but that one rate has been chosen with the voice heard.
    """

    def trained(task: Task, rate: float, seed: int) -> Fitted:
        return models.fit(classifier, task, rate, seed, settings, bar.update)

    def accuracy(task: Task, fitted: Fitted) -> np.ndarray:
        log_p = predict(classifier, fitted.params, task, task.split.test)
        return score(log_p, task.digits.labels[task.split.test])[0]

    started, (seed, *others) = time.perf_counter(), settings.seeds
    rates = [classifier.pace * rate for rate in settings.learning_rates]
    tried = [trained(task, rate, seed) for rate in rates]
    first = min(tried, key=lambda fitted: fitted.nats)
    fits = [first, *(trained(task, first.rate, other) for other in others)]
    right = [accuracy(task, fitted) for fitted in fits]
    new = []
    for voice in held_out(task.digits, settings):
        split = split_new_voice(task.digits, voice)
        apart = Task(normalise(task.digits, split.train), task.digits, split)
        new.append(accuracy(apart, trained(apart, first.rate, seed)).mean())
    test = lab.mean_sd([r.mean() for r in right])
    return {
        "parameters": lab.parameter_count(first.params),
        "learning_rate": first.rate,
        "valid_nats_by_rate": {f"{fitted.rate:g}": fitted.nats for fitted in tried},
        "steps_kept": [fitted.step for fitted in fits],
        "valid": lab.mean_sd([fitted.accuracy for fitted in fits]),
        "test": test,
        "test_interval": intervals.wilson(test["mean"], len(task.split.test)),
        "test_by_length": by_length(right, task),
        "new_voice": lab.mean_sd(new) if new else None,
        "seconds": time.perf_counter() - started,
    }, fits


def by_length(right: list[np.ndarray], task: Task) -> dict[str, Any]:
    """Returns test accuracy in three groups, cut at terciles of training lengths."""
    known = task.digits.lengths[task.split.train]
    low, high = (int(q) for q in np.quantile(known, (1 / 3, 2 / 3)))
    lengths = task.digits.lengths[task.split.test]
    groups = {
        f"up to {low}": lengths <= low,
        f"{low + 1} to {high}": (lengths > low) & (lengths <= high),
        f"{high + 1} and more": lengths > high,
    }
    mean = lambda of: lab.mean_sd([r[of].mean() for r in right])
    return {
        name: {"utterances": int(of.sum()), **mean(of)}
        for name, of in groups.items()
        if of.any()
    }


def pad_further(
    known: Classifier, classifier: Classifier, fits: list[Fitted], task: Task
) -> dict[str, Any]:
    """Returns what more padding does to the same test utterances.

    Args:
      known: The same network where it is given lengths: it sees no padding at all.
      classifier: The network.
      fits: Its parameters, one for each seed.
      task: Its test part is padded.

    Returns:
      Accuracy without padding, and at each of `PADDINGS` times the longest; the share
      of predictions that differ from those at the longest, and the largest change of
      any log P(digit), at twice the longest.
    """
    longest, labels = task.frames.shape[1], task.digits.labels[task.split.test]
    steps = [round(times * longest) for times in PADDINGS]
    shown = [
        [predict(classifier, f.params, task, task.split.test, n) for n in steps]
        for f in fits
    ]
    bare = [predict(known, f.params, task, task.split.test) for f in fits]
    share = lambda log_ps: lab.mean_sd([score(p, labels)[0].mean() for p in log_ps])
    twice = PADDINGS.index(2.0)
    changed = [(s[0].argmax(1) != s[twice].argmax(1)).mean() for s in shown]
    moved = [float(np.abs(s[0] - s[twice]).max()) for s in shown]
    return {
        "times": list(PADDINGS),
        "steps": steps,
        "accuracy": [share([s[i] for s in shown]) for i in range(len(steps))],
        "accuracy_without_padding": share(bare),
        "changed_at_twice": lab.mean_sd(changed),
        "log_p_moved_at_twice": max(moved),
    }


def run(settings: Settings, digits: Digits) -> int:
    """Runs the experiment; returns 1 where lengths did not keep padding out."""
    split = spoken_digits.split_same_voices(digits)
    data = spoken_digits.card(digits, split)
    run = lab.begin(settings, "variable_lengths", data)
    task = Task(normalise(digits, split.train), digits, split)
    leaks = {"same voices": find_leaks(digits, split)}
    for voice in held_out(digits, settings):
        apart = split_new_voice(digits, voice)
        leaks[f"voice {voice + 1}, new"] = find_leaks(digits, apart)
    print("\n" + leak_table(leaks) + "\n")

    made = models.classifiers(digits.frames.shape[2], settings.hidden)
    runs = len(settings.learning_rates) + len(settings.seeds) - 1
    runs += len(held_out(digits, settings))
    rows, padding = {}, {}
    with tqdm(total=len(made) * runs * settings.steps, unit="step") as bar:
        for name, classifier in made.items():
            bar.set_description(name)
            rows[name], fits = study(classifier, task, settings, bar)
            if name in (LENGTHS, PADDED):
                padding[name] = pad_further(made[LENGTHS], classifier, fits, task)
    print(tables(rows, padding))
    moved = padding[LENGTHS]["log_p_moved_at_twice"]
    kept = moved <= BOUND and not padding[LENGTHS]["changed_at_twice"]["mean"]
    results = run.results(data=data, leaks=leaks, models=rows, padding=padding)
    said = "Lengths keep padding out." if kept else "BROKEN: padding was read."
    run.finish(results, draw, said=f"\n{said}")
    return 0 if kept else 1


main = lab.main_of(
    Settings, __doc__, lambda settings: run(settings, spoken_digits.load_digits())
)

if __name__ == "__main__":
    raise SystemExit(main())
