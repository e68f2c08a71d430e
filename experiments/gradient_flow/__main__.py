"""python -m experiments.gradient_flow --help.

Why do gradients vanish or explode? The notes' page on far back, measured: ||dh_t/dh_k||
and its bound beta^(t-k) against lag, for spectral radius 0.5 to 1.5; that beta < 1
forces gradients to vanish, and that beta > 1 only permits them to explode; five cells
before and after training on the adding problem; gradient norms of a training run that
explodes, with and without clipping; and how much of the gradient comes from far back,
in an Elman network, a GRU and an LSTM.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments.gradient_flow import norms, training
from experiments.gradient_flow.judge import AFTER, BEFORE, verdict
from experiments.gradient_flow.report import draw, tables
from experiments.gradient_flow.training import CELLS, Plan

CLIPS = ("none", "norm", "value")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measure how gradients travel back."""

    radii: Annotated[tuple[float, ...], lab.SOME] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Spectral radii of W_h, orthogonal but for that factor."""
    cells: Annotated[tuple[str, ...], lab.among(CELLS)] = tuple(CELLS)
    """Which cells are trained."""
    seeds: lab.Seeds = (0, 1, 2)
    """Of weights and data; the spread is over these."""
    hidden: Annotated[int, lab.at_least(2)] = 32
    """Hidden units."""
    steps: Annotated[int, lab.at_least(2)] = 200
    """T, and the longest lag."""
    beyond: int = 100
    """The share of the gradient is that from further back than this many steps."""
    batch: Annotated[int, lab.at_least(2)] = 32
    """Sequences of each update."""
    measured: Annotated[int, lab.at_least(2)] = 8
    """Sequences along which norms and gradients are measured."""
    updates: Annotated[int, lab.at_least(2)] = 1_000
    """Updates of each cell, by Adam behind a clipped norm."""
    rate_factor: float = 1.0
    """On the learning rates of Adam, each cell's own."""
    clip: float = 1.0
    """What the norm of a gradient, or each number of it, is clipped to."""
    exploding_updates: int = 60
    """Updates of the run that explodes: an IRNN, by plain gradient descent."""
    exploding_rate: float = 0.03
    """Its learning rate."""
    out: Path | None = None
    """The run folder; None takes the next runs/gradient_flow/NUMBER."""

    def check(self) -> None:
        """Raises ValueError where settings do not go together."""
        if not 0 <= self.beyond < self.steps - 1:
            raise ValueError(
                f"Expected --beyond within 0..{self.steps - 2}, for {self.steps} "
                f"steps reach no further back than {self.steps - 1}, got "
                f"{self.beyond}."
            )


def study(name: str, settings: Settings, bar: tqdm) -> dict[str, Any]:
    """Trains a cell once for each seed, and measures it before and after."""
    cell, found = CELLS[name](settings.hidden), []
    rate = settings.rate_factor * training.RATES[name]
    plan = Plan("adam", rate, "norm", settings.clip, settings.steps, settings.batch)
    for seed in settings.seeds:
        learned = training.init(cell, seed)
        row = {BEFORE: look(cell, learned, settings, seed)}
        given = learned, plan, settings.updates, seed, bar.update
        learned, _, _ = training.fit(cell, *given)
        found.append({**row, AFTER: look(cell, learned, settings, seed)})
    merged: dict[str, Any] = {"cell": repr(cell)}
    for when in (BEFORE, AFTER):
        rows = [row[when] for row in found]
        curves = [row["curve"] for row in rows]
        merged[when] = {
            "share": lab.mean_sd([row["share"] for row in rows]),
            "error": lab.mean_sd([row["error"] for row in rows]),
            "log_norms": [rounded(curve.log_norms) for curve in curves],
            "log_beta": lab.mean_sd([curve.log_beta for curve in curves]),
            "proven": curves[0].proven,
            "broken": sum(curve.broken for curve in curves),
            "gradient_by_lag": [rounded(row["by_lag"]) for row in rows],
        }
    return merged


def rounded(numbers: list[float | None]) -> list[float | None]:
    """Returns numbers with six digits, enough for a figure.

    >>> rounded([1 / 3, None])
    [0.333333, None]
    """
    return [None if x is None else float(f"{x:.6g}") for x in numbers]


def look(cell: Any, learned: Any, settings: Settings, seed: int) -> dict[str, Any]:
    """Measures a cell on sequences that it was not trained on."""
    key = jax.random.fold_in(jax.random.key(seed), training.TEST + 1)
    xs, targets = training.adding(key, settings.steps, settings.measured)
    wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype("float64"), tree)
    learned_64, xs_64, targets_64 = wide((learned, xs, targets))
    by_lag = np.asarray(training.by_lag(cell, learned_64, xs_64, targets_64))
    return {
        "curve": norms.measure(cell, learned_64.cell, xs_64),
        "share": training.share_beyond(by_lag, settings.beyond),
        "by_lag": [float(x) for x in by_lag],
        "error": training.test_error(cell, learned, settings.steps, seed),
    }


def explode(settings: Settings, bar: tqdm) -> dict[str, Any]:
    """Trains an IRNN by plain gradient descent, as it is and with clipped gradients.

    Returns:
      For each way to clip the norms of gradients before clipping, up to the first that
      is not finite, and at which update that came; None: it did not.
    """
    cell, found, seed = CELLS["irnn"](settings.hidden), {}, settings.seeds[0]
    how = settings.clip, settings.steps, settings.batch
    for clip in CLIPS:
        plan = Plan("sgd", settings.exploding_rate, clip, *how)
        given = training.init(cell, seed), plan, settings.exploding_updates, seed
        _, losses, sizes = training.fit(cell, *given, bar.update)
        gone = np.flatnonzero(~(np.isfinite(sizes) & np.isfinite(losses)))
        last = int(gone[0]) if len(gone) else None
        found[clip] = {
            "gradient_norms": [float(x) for x in sizes[:last]],
            "losses": [float(x) for x in losses[:last]],
            "not_finite_at": last,
        }
    return found


@lab.x64()
def run(settings: Settings) -> int:
    """Runs the experiment; returns 1 where a norm is above its bound."""
    run = lab.begin(settings, "gradient_flow")
    size = (settings.hidden, settings.steps, settings.measured, settings.seeds[0])
    count = len(settings.cells) * len(settings.seeds) * settings.updates
    count += len(CLIPS) * settings.exploding_updates
    with tqdm(total=count, unit="update") as bar:
        bar.set_description("norms and bounds")
        by_radius = norms.by_radius(settings.radii, *size)
        examples = norms.counter_examples(*size)
        cells = {}
        for name in settings.cells:
            bar.set_description(name)
            cells[name] = study(name, settings, bar)
        bar.set_description("exploding run")
        exploding = explode(settings, bar)
    results = run.results(
        seconds=run.seconds(),
        by_radius={name: curve._asdict() for name, curve in by_radius.items()},
        counter_examples={name: curve._asdict() for name, curve in examples.items()},
        cells=cells,
        chance=training.CHANCE,
        exploding=exploding,
    )
    said, good = verdict(results)
    results["verdict"] = said
    run.finish(results, draw, said=f"{tables(results)}\n\n{said}")
    return 0 if good else 1


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
