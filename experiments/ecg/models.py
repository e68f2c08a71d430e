r"""Recurrent networks that tell the next difference by a mixture of logistics.

    P(d | d_<t) = sum_k w_k (F((d + 1/2 - mu_k) / s_k) - F((d - 1/2 - mu_k) / s_k))

w, mu and s are functions of h_t. Locations and scales are in standard deviations of the
training part's differences; the cell reads d_t in these, and asinh(d_t), in which the
baseline's steps of a unit or two are as large as the slopes of a beat. Training is
truncated backpropagation through time over streams that lie side by side.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import jrnn
from experiments import lab
from experiments.ecg.problem import (
    DIFFERENCES,
    LEAST_DIFFERENCE,
    Entrant,
    Stretch,
    differences,
    scored,
)
from experiments.lab import training
from jrnn.train import sequence_loss, streams, windows

CELLS = {"GRU": jrnn.gru, "LSTM": jrnn.lstm}
FLOAT = jnp.float32
# What a kernel is asked; the last two arguments of each are location and scale.
ASKED = ("log_prob", "sample", "mean", "cdf", "quantile", "variance")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How networks are trained."""

    steps: lab.Count = 1_200
    """Updates of each network."""
    streams: lab.Count = 32
    """Pieces of the training part that are read side by side."""
    window: lab.Count = 128
    """Samples that a gradient goes back; the state goes on."""
    rate: Annotated[float, lab.FINITE] = 1e-2
    """Learning rate of Adam at its highest; then it falls to 0 as a cosine."""
    warmup: Annotated[int, lab.at_least(0)] = 100
    """Updates in which the rate rises."""
    clip: Annotated[float, lab.FINITE] = 1.0
    """What the norm of a gradient is clipped to."""
    every: lab.Count = 100
    """Updates between two looks at the validation part, the best of which is kept."""

    def check(self) -> None:
        """Raises ValueError where settings do not go together."""
        if self.warmup >= self.steps:
            raise ValueError(
                f"Expected --warmup below --steps, {self.steps}, got {self.warmup}."
            )


@functools.cache
def kernel_in(sd: float) -> jrnn.heads.Kernel:
    """Returns logistics cut into whole numbers, measured in `sd` of them."""
    lowest = float(LEAST_DIFFERENCE)
    kernel = jrnn.heads.discretised_logistic(lowest, 1.0, DIFFERENCES)
    half = kernel.support.scale
    # The kernel's own units are half the range, around the range's middle of -1/2.
    inner = lambda loc, scale: ((loc * sd + 0.5) / half, scale * sd / half)
    asked = lambda name: (
        lambda *args: getattr(kernel, name)(*args[:-2], *inner(*args[-2:]))
    )
    return kernel._replace(
        **{name: asked(name) for name in ASKED},
        support=kernel.support._replace(shift=0.0, scale=sd),
        spec=kernel.spec._replace(arguments=(*kernel.spec.arguments, ("sd", sd))),
    )


@functools.cache
def make_model(
    cell: str, hidden: int, components: int, sd: float
) -> jrnn.models.SequenceModel:
    """Returns a model of differences; equal arguments give the identical one.

    Args:
      cell: GRU or LSTM.
      hidden: Units.
      components: Logistics that are mixed.
      sd: Standard deviation of the training part's differences.
    """
    plain = jrnn.heads.mixture(components, kernel_in(sd))

    def encode(symbols: Any) -> Array:
        read = plain.encode(symbols)
        return jnp.concatenate([read, jnp.arcsinh(read * sd) / 2], axis=-1)

    spec = plain.spec._replace(name="reading_both_mixture", input_size=2)
    head = plain._replace(encode=encode, spec=spec)
    return jrnn.sequence_model(CELLS[cell](2, hidden), head)


def read(units: Int[np.ndarray, " T"]) -> Float[Array, " T-1"]:
    """Returns differences as the networks take them."""
    return jnp.asarray(differences(units), FLOAT)


def batches(
    ds: Float[Array, " T"], recipe: Recipe, seed: int
) -> Iterator[tuple[bool, Array]]:
    """Yields windows without end, and whether each is the first of a pass.

    Each pass cuts the part anew, from a random start, so that windows differ; all
    passes are of one length, so that cutting is compiled once.
    """
    rng = np.random.default_rng(seed)
    length = len(ds) - recipe.window
    while True:
        start = int(rng.integers(recipe.window + 1))
        own = jax.lax.dynamic_slice_in_dim(ds, start, length)
        side_by_side = streams(own, recipe.streams)
        for i, window in enumerate(windows(side_by_side, recipe.window)):
            yield i == 0, window


def train(
    model: jrnn.models.SequenceModel,
    part: Stretch,
    valid: Stretch,
    recipe: Recipe,
    seed: int,
    on_step: Callable[[], object] = lambda: None,
) -> Entrant:
    """Trains one network, and keeps what did best on validation."""
    key_init, key = jax.random.split(jax.random.key(seed))
    params = model.init(key_init, FLOAT)
    drawn = batches(read(part.units), recipe, seed)
    best = training.train(
        sequence_loss(model),
        training.adam(recipe.rate, recipe.warmup, recipe.steps, recipe.clip),
        params,
        key,
        itertools.islice(drawn, recipe.steps),
        lambda params: -float(log_prob(model, params, valid).mean()),
        training.every(recipe.every, recipe.steps),
        model.init_state(params, (recipe.streams,)),
        lambda _: on_step(),
    )
    if best.params is None:
        raise ValueError(
            "Expected validation to be finite at least once, got NaN each time; lower "
            "--rate."
        )
    score = functools.partial(log_prob, model)
    return Entrant(best.params, score, {"step": best.step}, best.score)


def log_prob(
    model: jrnn.models.SequenceModel, params: Any, part: Stretch
) -> Float[np.ndarray, " scored"]:
    """Returns log P of each sample that is scored."""
    found = model.log_prob(params, read(part.units))[1]
    return scored(np.asarray(found), part)


def generate(
    model: jrnn.models.SequenceModel,
    params: Any,
    prompt: Int[np.ndarray, " T"],
    length: int,
    seed: int,
) -> Int[np.ndarray, " length"]:
    """Returns `length` samples that go on from a prompt, in recorded units."""
    key = jax.random.key(seed)
    drawn = model.sample(params, key, length, prompt=read(prompt))
    return prompt[-1] + np.cumsum(np.asarray(drawn).astype(np.int64))
