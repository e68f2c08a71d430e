"""Bits per base: all models fitted on one part, chosen on the next, scored on the last.

`fit_models` is given no test part; `score_models` changes nothing.
"""

import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from experiments import lab
from experiments.dna import references
from experiments.dna.models import log_probs, step_count, train
from experiments.dna.references import Chain, Mixture
from experiments.dna.repeats import in_repeats
from experiments.dna.settings import Settings
from experiments.dna.strands import blocks, both_strands, code_lengths, mean_interval
from experiments.lab.intervals import Groups
from experiments.lab.training import Trained

MIXTURE, EVERYTHING = "mixture of chains", "mixture of all"


class Models(NamedTuple):
    """All that was fitted and chosen; nothing here has seen the test part.

    Attributes:
      levels: Counts of all orders.
      chains: One per order, from 1.
      mixture: Of all chains.
      fitted: For each network one per seed.
      everything: For each seed the mixture of chains and networks.
      seconds: What each network's training took, all seeds together.
    """

    levels: Any
    chains: list[Chain]
    mixture: Mixture
    fitted: dict[str, list[Trained]]
    everything: list[Mixture]
    seconds: dict[str, float]


def work(settings: Settings, bases: int) -> int:
    """Returns by how much `fit_models` moves its bar."""
    steps = step_count(np.zeros((bases, 2), np.int8), settings, settings.epochs)
    chains = settings.largest_order * len(settings.smoothings)
    return chains + len(settings.networks) * len(settings.seeds) * steps


def fit_models(
    train_bases: np.ndarray, valid: np.ndarray, settings: Settings, bar: tqdm
) -> Models:
    """Fits all models on one part and chooses on another.

    Args:
      train_bases: What models are fitted to.
      valid: What smoothing, order, gamma and the best step are chosen by.
      settings: Of the run.
      bar: Says what is being fitted, and moves by as much as `work` says.
    """
    bar.set_description("markov")
    levels = references.fit_chains(train_bases, settings.largest_order)
    chains = [
        references.choose_smoothing(levels, m, settings.smoothings, valid, bar.update)
        for m in range(1, settings.largest_order + 1)
    ]
    experts = _experts(levels, chains, settings, valid)
    strands, fitted, seconds = both_strands(train_bases), {}, {}
    for name in settings.networks:
        bar.set_description(name)
        started, network = time.perf_counter(), settings.network(name)
        check = lambda params, network=network: float(
            code_lengths(log_probs(network, params, both_strands(valid))).mean()
        )
        fitted[name] = [
            train(network, strands, settings, settings.epochs, check, seed, bar.update)
            for seed in settings.seeds
        ]
        seconds[name] = time.perf_counter() - started
    mixture, *everything = (
        references.choose_gamma(each, settings.gammas)
        for each in (experts, *_with_networks(experts, fitted, settings, valid))
    )
    return Models(levels, chains, mixture, fitted, everything, seconds)


def _experts(
    levels: Any, chains: list[Chain], settings: Settings, bases: np.ndarray
) -> Float[np.ndarray, "K N 2"]:
    """Returns log P of every chain, and of one that takes a long repeat at its word."""
    trusting = Chain(settings.largest_order, min(settings.smoothings), np.nan)
    return np.stack(
        [
            references.chain_log_probs(levels, chain.order, chain.smoothing, bases)
            for chain in [*chains, trusting]
        ]
    )


def _with_networks(
    experts: np.ndarray,
    fitted: dict[str, list[Trained]],
    settings: Settings,
    bases: np.ndarray,
) -> list[Float[np.ndarray, "K N 2"]]:
    """Returns for each seed log P of the chains and of its networks."""
    strands, found = both_strands(bases), []
    for i in range(len(settings.seeds)):
        own = [
            log_probs(settings.network(name), fits[i].params, strands)
            for name, fits in fitted.items()
        ]
        found.append(np.concatenate([experts, *(log_p[None] for log_p in own)]))
    return found


def score_models(
    models: Models, train_bases: np.ndarray, test: np.ndarray, settings: Settings
) -> dict[str, Any]:
    """Returns bits per base on the test part, with intervals, for every model.

    Of networks the interval is that of the mean of the seeds' code lengths; the spread
    over seeds stands beside it.
    """
    found = _bits_of(models, test, settings)
    best = min(models.chains, key=lambda chain: chain.valid)
    against = {"best_markov": f"markov {best.order}", "mixture": MIXTURE}
    against = {name: found[reference][0][0] for name, reference in against.items()}
    repeated = in_repeats(train_bases, test, settings.repeat)
    drawn = blocks(len(test), settings.block)
    by_seed = lambda of: {k: list(map(of, runs)) for k, runs in models.fitted.items()}
    return {
        "models": {
            name: {
                "valid": lab.mean_sd(valid),
                "test": lab.mean_sd([of_seed.mean() for of_seed in bits]),
                **_row(np.mean(bits, axis=0), against, repeated, drawn),
            }
            for name, (bits, valid) in found.items()
        },
        "repeats": {"length": settings.repeat, "share": float(repeated.mean())},
        "best_markov": best._asdict(),
        "smoothing": {chain.order: chain.smoothing for chain in models.chains},
        "gamma": {
            MIXTURE: models.mixture.gamma,
            EVERYTHING: [mixture.gamma for mixture in models.everything],
        },
        "courses": by_seed(lambda one: one.looks),
        "steps_kept": by_seed(lambda one: one.step),
        "seconds": models.seconds,
        "lzma": references.lzma_bits(train_bases, test),
    }


def _bits_of(
    models: Models, test: np.ndarray, settings: Settings
) -> dict[str, tuple[list[np.ndarray], list[float]]]:
    """Returns by model the bits of each base, and those on validation, by seed."""
    experts = _experts(models.levels, models.chains, settings, test)
    everything = _with_networks(experts, models.fitted, settings, test)

    def mixed(each: list[np.ndarray], of: list[Mixture]) -> Any:
        pairs = zip(each, of, strict=True)
        bits = [code_lengths(references.mix(p, one.gamma)) for p, one in pairs]
        return bits, [one.valid for one in of]

    found = {
        f"markov {chain.order}": ([code_lengths(log_p)], [chain.valid])
        for chain, log_p in zip(models.chains, experts, strict=False)
    }
    found[MIXTURE] = mixed([experts], [models.mixture])
    for i, (name, fits) in enumerate(models.fitted.items(), len(experts)):
        bits = [code_lengths(of_seed[i]) for of_seed in everything]
        found[name] = (bits, [one.score for one in fits])
    return found | {EVERYTHING: mixed(everything, models.everything)}


def _row(
    bits: Float[np.ndarray, " N"],
    against: dict[str, np.ndarray],
    repeated: Bool[np.ndarray, " N"],
    drawn: Groups,
) -> dict[str, Any]:
    """Differences are paired: both models on the same bases, in the same blocks."""
    less = {name: bits - reference for name, reference in against.items()}
    apart = mean_interval(less["mixture"], drawn, ~repeated)
    return {
        "interval": mean_interval(bits, drawn)[1:],
        **{f"to_{k}": mean_interval(gap, drawn)._asdict() for k, gap in less.items()},
        "in_repeats": float(bits[repeated].mean()) if repeated.any() else None,
        "elsewhere": float(bits[~repeated].mean()),
        "elsewhere_interval": mean_interval(bits, drawn, ~repeated)[1:],
        "to_mixture_elsewhere": apart._asdict(),
    }
