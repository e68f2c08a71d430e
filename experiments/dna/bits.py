"""Bits per base: all models fitted on one part, chosen on the next, scored on the last.

`fit_models` is given no test part; `score_models` changes nothing.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments import lab
from experiments.dna import baselines
from experiments.dna.baselines import Chain
from experiments.dna.networks import Fitted, log_probs, networks, step_count, train
from experiments.dna.repeats import in_repeats
from experiments.dna.settings import Settings
from experiments.dna.strands import both_strands, code_lengths, mean_interval

MIXTURE, EVERYTHING = "mixture of chains", "mixture of all"


class Mixture(NamedTuple):
    """What a mixture remembers, and its bits per base on validation."""

    gamma: float
    valid: float


class Models(NamedTuple):
    """All that was fitted and chosen; nothing here has seen the test part.

    Attributes:
      levels: Counts of all orders.
      chains: One per order, from 1.
      best: The chain that did best on validation.
      mixture: Of all chains.
      fitted: For each network one per seed.
      everything: For each seed the mixture of chains and networks.
      seconds: What each network's training took, all seeds together.
    """

    levels: Any
    chains: list[Chain]
    best: Chain
    mixture: Mixture
    fitted: dict[str, list[Fitted]]
    everything: list[Mixture]
    seconds: dict[str, float]


def work(settings: Settings, bases: int) -> int:
    """Returns how often `fit_models` calls `done`."""
    steps = step_count(np.zeros((bases, 2), np.int8), settings.recipe(settings.epochs))
    chains = settings.largest_order * len(settings.smoothings)
    return chains + len(settings.networks) * len(settings.seeds) * steps


def fit_models(
    train_bases: np.ndarray,
    valid: np.ndarray,
    settings: Settings,
    say: Callable[[str], object],
    done: Callable[[], object],
) -> Models:
    """Fits all models on one part and chooses on another.

    Args:
      train_bases: What models are fitted to.
      valid: What smoothing, order, gamma and the best step are chosen by.
      settings: Of the run.
      say: Told what is being fitted.
      done: Called as often as `work` says.
    """
    say("markov")
    levels = baselines.fit_chains(train_bases, settings.largest_order)
    orders = range(1, settings.largest_order + 1)
    chosen = [
        baselines.choose_smoothing(levels, m, settings.smoothings, valid, done)
        for m in orders
    ]
    chains = [chain for chain, _ in chosen]
    experts = _experts(levels, chains, settings, valid)
    mixture = Mixture(*baselines.choose_gamma(experts, settings.gammas))
    strands, fitted, seconds = both_strands(train_bases), {}, {}
    for name in settings.networks:
        say(name)
        started, network = time.perf_counter(), _network(name, settings)
        check = lambda params, network=network: _valid_bits(network, params, valid)
        fitted[name] = [
            train(network, strands, settings.recipe(settings.epochs), check, seed, done)
            for seed in settings.seeds
        ]
        seconds[name] = time.perf_counter() - started
    everything = [
        Mixture(*baselines.choose_gamma(all_experts, settings.gammas))
        for all_experts in _with_networks(experts, fitted, settings, valid)
    ]
    best = min(chains, key=lambda chain: chain.valid)
    return Models(levels, chains, best, mixture, fitted, everything, seconds)


def _network(name: str, settings: Settings) -> Any:
    return networks(settings.hidden, settings.word)[name]


def _valid_bits(network: Any, params: Any, valid: np.ndarray) -> float:
    log_p = log_probs(network, params, both_strands(valid))
    return float(code_lengths(log_p).mean())


def _experts(
    levels: Any, chains: list[Chain], settings: Settings, bases: np.ndarray
) -> Float[np.ndarray, "K N 2"]:
    """Returns log P of every chain, and of one that takes a long repeat at its word."""
    trusting = Chain(settings.largest_order, min(settings.smoothings), np.nan)
    return np.stack(
        [
            baselines.chain_log_probs(levels, chain.order, chain.smoothing, bases)
            for chain in [*chains, trusting]
        ]
    )


def _with_networks(
    experts: np.ndarray, fitted: dict[str, list[Fitted]], settings: Settings, bases: Any
) -> list[np.ndarray]:
    """Returns for each seed log P of the chains and of its networks."""
    strands = both_strands(bases)
    return [
        np.concatenate(
            [experts]
            + [
                log_probs(_network(name, settings), fits[i].params, strands)[None]
                for name, fits in fitted.items()
            ]
        )
        for i in range(len(settings.seeds))
    ]


def score_models(
    models: Models, train_bases: np.ndarray, test: np.ndarray, settings: Settings
) -> dict[str, Any]:
    """Returns bits per base on the test part, with intervals, for every model.

    Of networks the interval is that of the mean of the seeds' code lengths; the spread
    over seeds stands beside it.
    """
    experts = _experts(models.levels, models.chains, settings, test)
    orders = len(models.chains)
    bits = {f"markov {i + 1}": [code_lengths(experts[i])] for i in range(orders)}
    valid = {f"markov {c.order}": [c.valid] for c in models.chains}
    mixed = baselines.mix(experts, models.mixture.gamma)
    bits[MIXTURE] = [code_lengths(mixed)]
    valid[MIXTURE] = [models.mixture.valid]
    everything = _with_networks(experts, models.fitted, settings, test)
    for i, (name, fits) in enumerate(models.fitted.items()):
        place = len(experts) + i
        bits[name] = [code_lengths(of_seed[place]) for of_seed in everything]
        valid[name] = [fitted.valid for fitted in fits]
    bits[EVERYTHING] = [
        code_lengths(baselines.mix(of_seed, mixture.gamma))
        for of_seed, mixture in zip(everything, models.everything, strict=True)
    ]
    valid[EVERYTHING] = [mixture.valid for mixture in models.everything]
    against = {"best_markov": bits[f"markov {models.best.order}"][0]}
    against["mixture"] = bits[MIXTURE][0]
    repeated = in_repeats(train_bases, test, settings.repeat)
    return {
        "models": {
            name: _row(bits[name], valid[name], against, repeated, settings)
            for name in bits
        },
        "repeats": {"length": settings.repeat, "share": float(repeated.mean())},
        "best_markov": models.best._asdict(),
        "smoothing": {chain.order: chain.smoothing for chain in models.chains},
        "gamma": {
            MIXTURE: models.mixture.gamma,
            EVERYTHING: [mixture.gamma for mixture in models.everything],
        },
        "courses": {
            name: [fitted.course for fitted in fits]
            for name, fits in models.fitted.items()
        },
        "steps_kept": {
            name: [fitted.step for fitted in fits]
            for name, fits in models.fitted.items()
        },
        "seconds": models.seconds,
        "lzma": baselines.lzma_bits(train_bases, test),
    }


def _row(
    bits: list[np.ndarray],
    valid: list[float],
    against: dict[str, np.ndarray],
    repeated: np.ndarray,
    settings: Settings,
) -> dict[str, Any]:
    """Differences are paired: both models on the same bases, in the same blocks."""
    mean, block, rest = np.mean(bits, axis=0), settings.block, ~repeated
    less = {name: mean - reference for name, reference in against.items()}
    apart = mean_interval(less["mixture"], block, among=rest)
    return {
        "valid": lab.mean_sd(valid),
        "test": lab.mean_sd([of_seed.mean() for of_seed in bits]),
        "interval": mean_interval(mean, block)[1:],
        **{
            f"to_{name}": mean_interval(gap, block)._asdict()
            for name, gap in less.items()
        },
        "in_repeats": float(mean[repeated].mean()) if repeated.any() else None,
        "elsewhere": float(mean[rest].mean()),
        "elsewhere_interval": mean_interval(mean, block, among=rest)[1:],
        "to_mixture_elsewhere": apart._asdict(),
    }
