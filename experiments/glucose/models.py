"""Recurrent networks that forecast 30 and 60 minutes ahead.

A cell reads a segment; a head tells the changes 30 and 60 minutes ahead, as multiples
of the training part's root mean square, by two Student-t (or Gaussian) distributions.
Forecasts read whole segments, the state carried through, as a user's monitor would.
Lengths end what is padded, a mask passes over an empty place of the grid, and where no
reading stands 30 or 60 minutes later the label is masked.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import jrnn
from experiments.data.glucose import Segment
from experiments.glucose.problem import (
    HORIZONS,
    Part,
    Predicted,
    Scales,
    ahead,
    features,
    on_grid,
)
from jrnn.train.batching import padded_batches

HEADS = {"student_t": jrnn.heads.student_t, "gaussian": jrnn.gaussian}
CELLS = {"GRU": jrnn.gru, "LSTM": jrnn.lstm}
# Quantiles of changes are sought within this many root mean squares, by bisection.
QUANTILES_WITHIN, BISECTIONS = 32.0, 24


class Entrant(NamedTuple):
    """A model, and whether it reads the time of day."""

    model: jrnn.models.SupervisedModel
    clock: bool


class Sheet(NamedTuple):
    """Segments, or windows of them, side by side on the grid, time first.

    Attributes:
      xs: Features, (T, B, k), float32.
      labels: Scaled changes 30 and 60 minutes ahead, (T, B, 2).
      due: Which of these there are, (T, B, 2).
      known: Places of the grid that hold a reading, (T, B).
      lengths: (B,), int32.
    """

    xs: Float[Array, "T B k"]
    labels: Float[Array, "T B 2"]
    due: Bool[Array, "T B 2"]
    known: Bool[Array, "T B"]
    lengths: Int[Array, " B"]

    def windows(self, index: Int[Array, " b"]) -> "Sheet":
        """Returns some of the windows."""
        xs, labels, due, known = (a[:, index] for a in self[:-1])
        return Sheet(xs, labels, due, known, self.lengths[index])


@functools.cache
def entrants(hidden: int, head: str) -> dict[str, Entrant]:
    """Returns the networks by name; equal arguments give the identical ones."""
    make = lambda cell, inputs: jrnn.supervised_model(
        CELLS[cell](inputs, hidden), HEADS[head](len(HORIZONS))
    )
    return {
        "GRU": Entrant(make("GRU", 4), True),
        "GRU, no clock": Entrant(make("GRU", 2), False),
        "LSTM": Entrant(make("LSTM", 4), True),
    }


def columns_of(segment: Segment, scales: Scales, clock: bool) -> np.ndarray:
    """Returns features, labels, due and known of a segment, (length, k + 5)."""
    later, due = ahead(segment)
    change = np.where(due, later - segment.glucose[:, None], 0) / scales.ahead
    known = np.ones((len(change), 1))
    columns = [features(segment, scales, clock), change, due, known]
    return on_grid(segment, np.concatenate(columns, axis=1))


def lay_out(part: Part, clock: bool, window: int | None = None) -> Sheet:
    """Returns whole segments side by side, or the windows that they are cut into."""
    pieces = [columns_of(segment, part.scales, clock) for segment in part.segments]
    if window is not None:
        pieces = [p[i : i + window] for p in pieces for i in range(0, len(p), window)]
    (batch,) = padded_batches(pieces, len(pieces), (max(map(len, pieces)),))
    xs, labels, due, known = np.split(batch.xs, [-5, -3, -1], axis=-1)
    return Sheet(
        jnp.asarray(xs, jnp.float32),
        jnp.asarray(labels, jnp.float32),
        jnp.asarray(due == 1),
        jnp.asarray(known[..., 0] == 1),
        jnp.asarray(batch.lengths),
    )


@functools.partial(jax.jit, static_argnames="model")
def _predict(model: jrnn.models.SupervisedModel, params: Any, sheet: Sheet) -> Any:
    def one(p: Any) -> jrnn.heads.Distribution:
        return model.predict(p, sheet.xs, lengths=sheet.lengths, mask=sheet.known)

    return jax.vmap(one)(params)


def distributions(entrant: Entrant, params: Any, part: Part) -> Any:
    """Returns what each seed predicts at each reading, (seeds, N, 2) each leaf."""
    sheet = lay_out(part, entrant.clock)
    known = np.asarray(sheet.known).T  # segment after segment, as in `Pairs`
    at_readings = lambda a: jnp.swapaxes(a, 1, 2)[:, known]
    return jax.tree.map(at_readings, _predict(entrant.model, params, sheet))


def forecast(entrant: Entrant, params: Any, part: Part) -> list[Predicted]:
    """Returns the forecasts of each seed, in mg/dL."""
    predicted, pairs = distributions(entrant, params, part), part.pairs
    now, scale = pairs.now[:, None], part.scales.ahead
    scaled = np.where(pairs.due, pairs.later - now, 0) / scale
    mean = predicted.mean()
    labels = jnp.broadcast_to(jnp.asarray(scaled, jnp.float32), mean.shape)
    own = jnp.broadcast_to(
        jnp.eye(len(HORIZONS), dtype=bool)[:, None, None], (2, *mean.shape)
    )
    log_p = [predicted.log_prob(labels, mask) for mask in own]
    mean, below = (np.asarray(a, np.float64) for a in (mean, predicted.cdf(labels)))
    density = np.stack([np.asarray(a, np.float64) for a in log_p], axis=-1)
    density -= np.log(scale)
    return [
        Predicted(now + scale * m, u, d)
        for m, u, d in zip(mean, below, density, strict=True)
    ]


def quantile(predicted: jrnn.heads.Distribution, p: float) -> np.ndarray:
    """Returns where the scaled change's distribution function is p, by bisection."""
    low = jnp.full_like(predicted.mean(), -QUANTILES_WITHIN)
    high = -low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        under = predicted.cdf(middle) < p
        low, high = jnp.where(under, middle, low), jnp.where(under, high, middle)
    return np.asarray(high, np.float64)
