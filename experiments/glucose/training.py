"""Training of the networks: all runs of an entrant side by side, one program.

There is a run for each learning rate and seed. Segments are cut into windows, each of
which starts from the state of zeros, as a segment does; its first readings count as
all others do. Validation reads whole segments, as the test will.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import jrnn
from experiments import lab
from experiments.glucose.models import Entrant, Sheet, lay_out
from experiments.glucose.problem import Part


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How networks are trained."""

    seeds: lab.Seeds = (0, 1, 2)
    """Of weights and the order of windows; the spread is over these."""
    epochs: lab.Count = 45
    """Passes over the training part."""
    window: lab.Count = 144
    """Training cuts segments into windows of this many steps of 5 minutes."""
    batch: lab.Count = 32
    """Windows of each update; what is left over in an epoch is left out."""
    learning_rates: Annotated[tuple[float, ...], lab.SOME] = (3e-3, 1e-2, 3e-2)
    """Of Adam, at the first update; chosen on the validation part."""
    clip: float = 1.0
    """What the norm of a gradient is clipped to."""
    every: lab.Count = 3
    """Epochs between two looks at the validation part, the best of which is kept."""


class Learned(NamedTuple):
    """The runs of an entrant that were kept, one for each seed, side by side.

    Attributes:
      params: Those that did best on validation, (seeds, ...) each leaf.
      rate: The learning rate, chosen by the mean over seeds.
      nats: On validation, by seed.
      epoch: After which they were kept, by seed.
      by_rate: The mean of `nats` for each learning rate.
    """

    params: Any
    rate: float
    nats: list[float]
    epoch: list[int]
    by_rate: dict[str, float]


def mean_nats(model: jrnn.models.SupervisedModel, params: Any, sheet: Sheet) -> Array:
    """Returns the mean of -log density over the pairs, of scaled changes."""
    xs, labels, due, known, lengths = sheet
    log_p = model.log_prob(
        params, xs, labels, labels_mask=due, lengths=lengths, mask=known
    )
    return -log_p.sum() / jnp.maximum(due.sum(), 1).astype(log_p.dtype)


@functools.partial(jax.jit, static_argnames=("model", "recipe"))
def train_epoch(
    model: jrnn.models.SupervisedModel,
    recipe: Recipe,
    runs: Any,
    rates: Float[Array, " R"],
    chosen: Int[Array, "R updates batch"],
    sheet: Sheet,
) -> Any:
    """Makes one epoch's updates of every run, Adam under a cosine that falls to 0."""
    optimiser = make_optimiser(recipe, chosen.shape[1])

    def update(rate: Array, run: Any, index: Array) -> tuple[Any, None]:
        params, state = run
        batch = sheet.windows(index)
        gradient = jax.grad(lambda p: mean_nats(model, p, batch))(params)
        step, state = optimiser.update(gradient, state, params)
        step = jax.tree.map(lambda u: rate.astype(u.dtype) * u, step)
        return (optax.apply_updates(params, step), state), None

    def epoch(rate: Array, run: Any, indices: Array) -> Any:
        return jax.lax.scan(functools.partial(update, rate), run, indices)[0]

    return jax.vmap(epoch)(rates, runs, chosen)


def make_optimiser(recipe: Recipe, updates: int) -> optax.GradientTransformation:
    """Returns Adam for a learning rate of 1, which falls to 0, behind clipping."""
    fall = optax.cosine_decay_schedule(-1.0, recipe.epochs * updates)
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip),
        optax.scale_by_adam(),
        optax.scale_by_schedule(fall),
    )


@functools.partial(jax.jit, static_argnames="model")
def score_runs(model: jrnn.models.SupervisedModel, params: Any, sheet: Sheet) -> Array:
    """Returns the mean nats of each run."""
    return jax.vmap(lambda p: mean_nats(model, p, sheet))(params)


class Runs(NamedTuple):
    """Runs side by side, each leaf (R, ...), and what was best of each so far."""

    params: Any
    opt_state: Any
    best: Any
    nats: Float[np.ndarray, " R"]
    epoch: Int[np.ndarray, " R"]


def fit(
    entrant: Entrant,
    train: Part,
    valid: Part,
    recipe: Recipe,
    on_epoch: Callable[[], object] = lambda: None,
) -> Learned:
    """Trains each learning rate with each seed; keeps what did best on validation.

    Args:
      entrant: One of `entrants`.
      train: What is fitted to.
      valid: What is chosen by: when each run was best, and the learning rate.
      recipe: How is trained.
      on_epoch: Called after each epoch.
    """
    sheet = lay_out(train, entrant.clock, recipe.window)
    whole = lay_out(valid, entrant.clock)
    windows = len(sheet.lengths)
    runs = _start(entrant.model, recipe, windows)
    rates = jnp.asarray(recipe.learning_rates, jnp.float32)
    rates = jnp.repeat(rates, len(recipe.seeds))
    generators = [np.random.default_rng(seed) for seed in recipe.seeds]
    for epoch in range(1, recipe.epochs + 1):
        chosen = _shuffle(generators, recipe, windows)
        params, state = train_epoch(
            entrant.model, recipe, (runs.params, runs.opt_state), rates, chosen, sheet
        )
        runs = runs._replace(params=params, opt_state=state)
        if epoch % recipe.every == 0 or epoch == recipe.epochs:
            found = np.asarray(score_runs(entrant.model, params, whole), np.float64)
            runs = _keep(runs, found, epoch)
        on_epoch()
    return _choose(runs, recipe)


def updates_of(recipe: Recipe, windows: int) -> tuple[int, int]:
    """Returns how many updates an epoch has, and of how many windows each."""
    batch = min(recipe.batch, windows)
    return windows // batch, batch


def _start(model: jrnn.models.SupervisedModel, recipe: Recipe, windows: int) -> Runs:
    seeds = jnp.asarray(recipe.seeds * len(recipe.learning_rates))
    keys = jax.vmap(jax.random.key)(seeds)
    params = jax.vmap(lambda key: model.init(key, jnp.float32))(keys)
    optimiser = make_optimiser(recipe, updates_of(recipe, windows)[0])
    nats = np.full(len(keys), np.inf)
    state = jax.vmap(optimiser.init)(params)
    return Runs(params, state, params, nats, np.zeros(len(keys), int))


def _shuffle(
    generators: list[np.random.Generator], recipe: Recipe, windows: int
) -> Int[Array, "R updates batch"]:
    """Returns which windows each update reads; the same order for each rate."""
    updates, batch = updates_of(recipe, windows)
    drawn = [rng.permutation(windows)[: updates * batch] for rng in generators]
    chosen = np.stack(drawn * len(recipe.learning_rates)).astype(np.int32)
    return jnp.asarray(chosen.reshape(-1, updates, batch))


def _keep(runs: Runs, nats: np.ndarray, epoch: int) -> Runs:
    """Returns the runs, with the parameters of those that are better than before."""
    better = nats < runs.nats

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return runs._replace(
        best=jax.tree.map(pick, runs.params, runs.best),
        nats=np.where(better, nats, runs.nats),
        epoch=np.where(better, epoch, runs.epoch),
    )


def _choose(runs: Runs, recipe: Recipe) -> Learned:
    """Returns the runs of the learning rate that is best in the mean over seeds."""
    seeds, rates = len(recipe.seeds), recipe.learning_rates
    by_rate = runs.nats.reshape(-1, seeds).mean(axis=1)
    best = int(by_rate.argmin())
    own = slice(seeds * best, seeds * (best + 1))
    return Learned(
        jax.tree.map(lambda a: a[own], runs.best),
        rates[best],
        runs.nats[own].tolist(),
        runs.epoch[own].tolist(),
        {f"{r:g}": float(n) for r, n in zip(rates, by_rate, strict=True)},
    )
