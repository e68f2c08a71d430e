"""Recurrent networks that forecast returns: one model of all three stocks.

P(r_t | r_<t) = p(r_t; head(h_t)), on returns that are scaled by the training part; the
stocks are the batch, so that each is forecast from its own past with parameters that
all share. A run reads the days from the first to the end of validation in one piece:
backpropagation through time goes back to the first day, the loss is the mean over
training days, and the parameters with the best validation day after day are kept.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import jrnn
from experiments import lab
from experiments.data._parts import Parts
from experiments.data._scale import Scale, normalise
from experiments.lab import training
from experiments.stocks.forecasts import Forecast, in_percent
from jrnn.heads.student_t import StudentT

# Below this share of a standard deviation a return says no more about volatility: it
# keeps the logarithm of a return of exactly 0 finite.
LEAST_SIZE = 0.1
COMPONENTS = 3
FLOAT = jnp.float32


class Entrant(NamedTuple):
    """A network that takes part.

    Attributes:
      model: hidden size -> its sequence model.
      says: What it is, in words.
    """

    model: Callable[[int], jrnn.models.SequenceModel]
    says: str


def reading_sizes(head: jrnn.Head) -> jrnn.Head:
    """Returns a head whose cell reads r, |r| and ln(r^2 + eps), not r alone.

    Volatility depends on the size of past returns, which a network that is given r has
    first to learn, from few and noisy days, and GARCH is given as e^2.
    """

    def encode(symbols: Any) -> Array:
        r = head.encode(symbols)
        sizes = [jnp.abs(r), 0.5 * jnp.log(jnp.square(r) + LEAST_SIZE**2)]
        return jnp.concatenate([r, *sizes], axis=-1)

    spec = head.spec._replace(name=f"reading_sizes_{head.spec.name}", input_size=3)
    return head._replace(encode=encode, spec=spec)


@functools.cache
def entrants() -> dict[str, Entrant]:
    """Returns the networks by name, the same ones at every call."""
    t = jrnn.heads.student_t()
    sized = reading_sizes(t)
    mixed = reading_sizes(jrnn.heads.mixture(COMPONENTS))

    def of(cell: Any, head: jrnn.Head) -> Callable[[int], jrnn.models.SequenceModel]:
        make = lambda hidden: cell(head.spec.input_size, hidden)
        return lambda hidden: jrnn.sequence_model(make(hidden), head)

    return {
        "gru, t, r alone": Entrant(of(jrnn.gru, t), "GRU, Student-t, reads r"),
        "gru, t": Entrant(of(jrnn.gru, sized), "GRU, Student-t, reads r and |r|"),
        "lstm, t": Entrant(of(jrnn.lstm, sized), "LSTM, Student-t, reads r and |r|"),
        "gru, mixture": Entrant(
            of(jrnn.gru, mixed),
            f"GRU, mixture of {COMPONENTS} Gaussians, reads r and |r|",
        ),
    }


class Run(NamedTuple):
    """One of the runs that are trained side by side, or all of them stacked.

    Attributes:
      params: As they are now.
      moments: Of the optimiser.
      best: The parameters with the lowest validation loss so far.
      valid: That loss, nats of standardised returns.
      kept: The number of updates behind them.
    """

    params: Any
    moments: Any
    best: Any
    valid: Float[Array, ""]
    kept: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How networks are trained, each with all seeds at every size and rate."""

    hidden: lab.Counts = (8, 16)
    """Hidden units to choose from, by the validation part."""
    rates: lab.Positives = (0.01, 0.03)
    """Learning rates of Adam to choose from, by the validation part."""
    seeds: lab.Seeds = (0, 1, 2)
    """Of weights; sizes and rates are chosen by their mean."""
    updates: lab.Count = 150
    """Of each run, each on all training days; the best in validation are kept."""
    clip: lab.Positive = 1.0
    """Largest norm of a gradient."""


class Fitted(NamedTuple):
    """What a network has learned.

    Attributes:
      params: One set for each seed.
      hidden: The hidden size with the best validation loss, mean over seeds.
      rate: The learning rate with it.
      kept: After how many updates each seed was best.
      valid: Each seed's validation loss then, nats of standardised returns.
      tried: The mean loss over seeds of every size and rate.
    """

    params: list[Any]
    hidden: int
    rate: float
    kept: list[int]
    valid: list[float]
    tried: dict[str, float]


def optimiser(clip: float, rate: Any) -> optax.GradientTransformation:
    """Adam behind a clipped norm, at a rate that may be traced."""
    clipped = optax.clip_by_global_norm(clip)
    return optax.chain(clipped, optax.scale_by_adam(), optax.scale(-rate))


@functools.partial(jax.jit, static_argnames=("model", "parts", "clip"))
def advance(
    model: jrnn.models.SequenceModel,
    parts: tuple[int, int, int],
    clip: float,
    runs: Run,
    rates: Float[Array, " runs"],
    xs: Float[Array, "T k"],
    number: Float[Array, ""],
) -> Run:
    """Returns all runs after one update each.

    Args:
      model: Of all the runs.
      parts: Where training ends, and where validation starts and ends: T.
      clip: Largest norm of a gradient.
      runs: Stacked.
      rates: Of each run.
      xs: Standardised returns, up to the end of validation.
      number: Updates behind the runs' parameters.
    """
    train, first, _ = parts

    def losses(params: Any) -> tuple[Array, Array]:
        log_probs = model.log_prob(params, xs)[1]
        return -log_probs[:train].mean(), -log_probs[first:].mean()

    def update(run: Run, rate: Array) -> Run:
        before = run.params, run.moments
        own = optimiser(clip, rate)
        after, ((_, valid), _) = training.update(losses, own, before, has_aux=True)
        pick = lambda new, old: jnp.where(valid < run.valid, new, old)
        best = jax.tree.map(pick, run.params, run.best)
        return Run(*after, best, pick(valid, run.valid), pick(number, run.kept))

    return jax.vmap(update)(runs, rates)


def fit(
    entrant: Entrant,
    scale: Scale,
    parts: Parts,
    returns: np.ndarray,
    recipe: Recipe,
    on_update: Callable[[], Any] = lambda: None,
) -> Fitted:
    """Returns what a network learns, at the size and the rate best in validation.

    Args:
      entrant: The network.
      scale: Of the training part.
      parts: Nothing behind the end of validation is looked at.
      returns: In percent, (T, k).
      recipe: How it is trained.
      on_update: Called after each update of all runs of one size.
    """
    xs = jnp.asarray(normalise(scale, returns[: parts.valid.stop]), FLOAT)
    ends = (parts.train.stop, parts.valid.start, parts.valid.stop)
    found: list[Fitted] = []
    for hidden in recipe.hidden:
        model = entrant.model(hidden)
        runs, rates = start(model, recipe)
        for number in range(recipe.updates):
            at = jnp.asarray(number)
            runs = advance(model, ends, recipe.clip, runs, rates, xs, at)
            jax.block_until_ready(runs.valid)  # so that progress is progress
            on_update()
        found += by_rate(runs, hidden, recipe)
    best = min(found, key=lambda fitted: np.mean(fitted.valid))
    tried = {k: v for fitted in found for k, v in fitted.tried.items()}
    return best._replace(tried=tried)


def start(model: jrnn.models.SequenceModel, recipe: Recipe) -> tuple[Run, Array]:
    """Returns a run for every rate and seed, stacked in that order, and their rates."""
    seeds = jnp.asarray(recipe.seeds * len(recipe.rates))
    rates = jnp.repeat(jnp.asarray(recipe.rates, FLOAT), len(recipe.seeds))
    params = jax.vmap(lambda seed: model.init(jax.random.key(seed)))(seeds)
    moments = jax.vmap(optimiser(recipe.clip, 1.0).init)(params)
    worst = jnp.full(len(seeds), jnp.inf, FLOAT)
    return Run(params, moments, params, worst, jnp.zeros_like(seeds)), rates


def by_rate(runs: Run, hidden: int, recipe: Recipe) -> list[Fitted]:
    """Returns what the runs of each rate have kept."""
    found, many = [], len(recipe.seeds)
    for i, rate in enumerate(recipe.rates):
        own = range(i * many, (i + 1) * many)
        valid = [float(runs.valid[j]) for j in own]
        params = [jax.tree.map(lambda leaf, j=j: leaf[j], runs.best) for j in own]
        kept = [int(runs.kept[j]) for j in own]
        tried = {f"{hidden} units, rate {rate:g}": float(np.mean(valid))}
        found.append(Fitted(params, hidden, rate, kept, valid, tried))
    return found


def forecasts(
    entrant: Entrant, scale: Scale, fitted: Fitted, returns: np.ndarray
) -> list[Forecast]:
    """Returns each seed's forecasts of all days."""
    model, found = entrant.model(fitted.hidden), []
    xs = jnp.asarray(normalise(scale, returns), FLOAT)
    for params in fitted.params:
        predicted = model.predictive(params, xs)[1]
        scored = predicted.log_prob(xs), predicted.cdf(xs), predicted.mean()
        found.append(in_percent(scale, *scored, deviation(predicted.parameters)))
    return found


def deviation(predicted: Any) -> Array:
    """Returns the standard deviation of Student-t numbers or of Gaussian mixtures.

    Var = sum_k w_k (s_k^2 + (mu_k - mu)^2), mu = sum_k w_k mu_k, for a mixture.
    """
    if isinstance(predicted, StudentT):
        return predicted.scale * jnp.sqrt(predicted.dof / (predicted.dof - 2))
    w = jnp.exp(predicted.log_weights)
    mean = (w * predicted.loc).sum(axis=-1, keepdims=True)
    spread = jnp.square(predicted.scale) + jnp.square(predicted.loc - mean)
    return jnp.sqrt((w * spread).sum(axis=-1))
