"""Genes found by likelihood: models fitted to labelled DNA, windows chosen, areas.

`fit_finders` is given no test part; `score_finders` changes nothing.
"""

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments.data.genome import Genes
from experiments.dna import genes
from experiments.dna.models import log_probs, step_count, train
from experiments.dna.settings import Settings
from experiments.dna.strands import blocks, both_strands, in_place
from experiments.lab.intervals import area, curve
from experiments.lab.training import Trained

PLAIN, CODONS, NETWORK = "markov", "markov by codon place", "lstm"
# Resamplings of blocks for an area, each of which goes through all positions.
REPEATS = 500
SHOWN_EVERY = 10  # bases, in the figure


class Labelled(NamedTuple):
    """A part, and what the gene finder says of it."""

    bases: np.ndarray
    genes: Genes


class Finders(NamedTuple):
    """All that was fitted and chosen; nothing here has seen the test part.

    Attributes:
      chains: Counts of coding, of coding by codon place, and of other DNA.
      fitted: For each seed a network of coding and one of other DNA.
      windows: For each model (one list entry per seed) its window, and the area on
        validation.
    """

    chains: tuple[Any, Any, Any]
    fitted: list[list[Trained]]
    windows: dict[str, list[tuple[int, float]]]


def work(settings: Settings, part: Labelled) -> int:
    """Returns by how much `fit_finders` moves its bar."""
    lessons = zip(genes.segments(*part), _epochs(settings), strict=True)
    steps = sum(
        step_count(genes.shuffled(stretches, 0), settings, epochs)
        for stretches, epochs in lessons
    )
    models = 2 + len(settings.seeds)
    return len(settings.seeds) * steps + models * len(settings.gene_windows)


def _epochs(settings: Settings) -> tuple[float, float]:
    """Returns how often coding DNA and other DNA are read."""
    return settings.gene_epochs, settings.spacer_epochs


def fit_finders(
    train_part: Labelled, valid: Labelled, settings: Settings, bar: tqdm
) -> Finders:
    """Fits models of coding and of other DNA on one part, chooses windows on another.

    Args:
      train_part: What models are fitted to.
      valid: What windows and the networks' best steps are chosen by.
      settings: Of the run.
      bar: Says what is being fitted, and moves by as much as `work` says.
    """
    bar.set_description("genes, markov")
    order, stretches = settings.gene_order, genes.segments(*train_part)
    chains = (
        genes.fit_chain(stretches.coding, order),
        genes.fit_chain(stretches.coding, order, genes.CODON),
        genes.fit_chain(stretches.other, order),
    )
    bar.set_description(f"genes, {NETWORK}")
    fitted = [_fit_pair(train_part, valid, settings, s, bar) for s in settings.seeds]
    unchosen, grid = Finders(chains, fitted, {}), settings.gene_windows
    windows = {
        name: [
            genes.choose_window(ways, valid.genes.coding, grid, bar.update)
            for ways in readings
        ]
        for name, readings in _readings(unchosen, valid.bases, settings).items()
    }
    return unchosen._replace(windows=windows)


def _fit_pair(
    train_part: Labelled, valid: Labelled, settings: Settings, seed: int, bar: tqdm
) -> list[Trained]:
    """Returns a network of coding and one of other DNA."""
    network, pair = settings.network(NETWORK), []
    lessons = (genes.segments(*train_part), genes.segments(*valid), _epochs(settings))
    for stretches, unseen, epochs in zip(*lessons, strict=True):
        strands, asked = genes.shuffled(stretches, seed), genes.shuffled(unseen, 0)
        bits = lambda params, asked=asked: float(
            -np.mean(log_probs(network, params, asked), dtype=np.float64) / np.log(2)
        )
        pair.append(train(network, strands, settings, epochs, bits, seed, bar.update))
    return pair


def _readings(
    finders: Finders, bases: np.ndarray, settings: Settings
) -> dict[str, list[genes.Hypotheses]]:
    """Returns what every model says of a part, one entry per seed."""
    plain, codons, other = finders.chains
    order, network = settings.gene_order, settings.network(NETWORK)
    strands = both_strands(bases)
    read = lambda fitted: in_place(log_probs(network, fitted.params, strands))
    return {
        PLAIN: [genes.read_chains(plain, other, order, 1, bases)],
        CODONS: [genes.read_chains(codons, other, order, genes.CODON, bases)],
        NETWORK: [genes.Hypotheses(read(c), read(o)) for c, o in finders.fitted],
    }


def score_finders(
    finders: Finders, test: Labelled, settings: Settings
) -> dict[str, Any]:
    """Returns the area under the curve on the test part, with intervals.

    Of several seeds the interval and the curve are the first's; the spread over seeds
    stands beside it.
    """
    readings = _readings(finders, test.bases, settings)
    scores = {
        name: [
            genes.ratios(ways, window)
            for ways, (window, _) in zip(of, finders.windows[name], strict=True)
        ]
        for name, of in readings.items()
    }
    curves = {
        name: [curve(ratio, test.genes.coding) for ratio in of]
        for name, of in scores.items()
    }
    firsts = {name: of[0] for name, of in curves.items()}
    drawn = blocks(len(test.bases), settings.block)
    areas = genes.area_intervals(firsts, PLAIN, drawn, REPEATS)
    by_seed = lambda of: [list(map(of, pair)) for pair in finders.fitted]
    return {
        "models": {
            name: {
                "window": [window for window, _ in finders.windows[name]],
                "valid": lab.mean_sd([found for _, found in finders.windows[name]]),
                "test": lab.mean_sd([area(of) for of in curves[name]]),
                "interval": areas[name][0][1:],
                "to_plain_markov": areas[name][1]._asdict(),
                "roc": genes.roc(firsts[name]),
            }
            for name in scores
        },
        "steps_kept": by_seed(lambda one: one.step),
        "bits_on_own_kind": by_seed(lambda one: one.score),
        "coding_share": float(test.genes.coding.mean()),
        "shown": _stretch({name: of[0] for name, of in scores.items()}, test, settings),
    }


def _stretch(
    scores: dict[str, np.ndarray], test: Labelled, settings: Settings
) -> dict[str, Any]:
    """Returns the ratios at every tenth position of the stretch the figure shows.

    It lies in the middle of the test part, wherever genes are.
    """
    length = min(settings.shown, len(test.bases))
    first = (len(test.bases) - length) // 2
    shown = slice(first, first + length, SHOWN_EVERY)
    spans = [
        [int(max(a, first)), int(min(b, first + length)), int(strand)]
        for a, b, strand in test.genes.spans
        if a < first + length and b > first
    ]
    return {
        "first": first,
        "length": length,
        "every": SHOWN_EVERY,
        "genes": spans,
        "ratios": {
            name: [round(float(x), 3) for x in ratio[shown]]
            for name, ratio in scores.items()
        },
    }
