r"""What a practitioner compares with: persistence, autoregressions, Markov chains.

    persistence        y_{t+h} ~ N(y_t, s_h^2), s_h the training part's own
    AR(k)              x_t = b + sum_j a_j x_{t-j} + e_t, carried h steps on, exactly
    AR(k), direct      y_{t+h} - y_t = b + sum_j a_j x_{t-j} + e_t, each h on its own
    Markov chain       readings in bins: the matrix of 5-minute steps to the power h

AR(1) is the first-order Markov model, linear and Gaussian; the chain is the one that
is neither. Where a segment has fewer than k readings so far, the regression of that
lower order is used. Orders and the width of bins are chosen on the validation part.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

import jrnn
from experiments.data._scale import Scale, normalise
from experiments.data.glucose import REPORTED, Segment
from experiments.glucose.problem import (
    STEPS,
    Part,
    Predicted,
    nats,
    normal,
    on_grid,
    places,
)
from jrnn.train.batching import padded_batches

Fitted = Any
PERSISTENCE, MARKOV = "persistence", "AR(1), linear Markov"
Predict = Callable[[Fitted, Part], Predicted]


class Reference(NamedTuple):
    """A fitted model, what it was chosen from, and how it forecasts a part."""

    name: str
    fitted: Fitted
    valid_nats_by_choice: dict[str, float]
    predict: Predict


class Direct(NamedTuple):
    """Regressions of orders 0 to k on the change h ahead, as (k + 1, ...).

    Attributes:
      A: (k + 1, k, 2); A[m, j] belongs to x_{t-j}, 0 for j >= m.
      b: (k + 1, 2).
      sd: Of what is left, (k + 1, 2).
    """

    A: Float[np.ndarray, "m k 2"]
    b: Float[np.ndarray, "m 2"]
    sd: Float[np.ndarray, "m 2"]


class Chain(NamedTuple):
    """P(bin h ahead | bin now), for both horizons, (2, V, V)."""

    width: int
    ahead: Float[np.ndarray, "2 V V"]


def lags(
    part: Part, k: int
) -> tuple[Float[np.ndarray, "k N"], Bool[np.ndarray, "k N"]]:
    """Returns the k normalised values up to each reading, the latest last, and which.

    >>> from experiments.data._scale import Scale
    >>> from experiments.glucose.problem import Scales, part_of
    >>> times = np.datetime64("2010-01-01T00:00", "m") + np.array([0, 5, 15])
    >>> scales = Scales(Scale(np.array(0.0), np.array(1.0)), 1.0, np.ones(2))
    >>> segments = [Segment(times, np.array([1.0, 2.0, 3.0]))]
    >>> x, known = lags(part_of(segments, scales), 2)
    >>> x.tolist(), known.tolist()
    ([[0.0, 1.0, 0.0], [1.0, 2.0, 3.0]], [[False, True, False], [True, True, True]])
    """
    found, before = [], np.zeros((k - 1, 2))
    for segment in part.segments:
        grid = np.concatenate([before, _normalised(segment, part.scales.level)])
        windows = np.lib.stride_tricks.sliding_window_view(grid, k, axis=0)
        found.append(windows[places(segment)])  # (n, 2, k)
    x, known = np.moveaxis(np.concatenate(found), 0, -1)
    return x, known == 1


def _normalised(segment: Segment, level: Scale) -> Float[np.ndarray, "length 2"]:
    """Returns values on the grid, and 1 where there is one."""
    values = normalise(level, segment.glucose)
    return on_grid(segment, np.stack([values, np.ones_like(values)], axis=1))


def predict_persistence(fitted: None, part: Part) -> Predicted:
    """The current value, with the training part's spread of changes around it."""
    del fitted
    mean = np.repeat(part.pairs.now[:, None], len(STEPS), axis=1)
    sd = np.broadcast_to(part.scales.ahead, mean.shape)
    return normal(mean, sd, part.pairs.later)


def fit_autoregression(train: Part, k: int) -> Any:
    """Fits the regressions of orders 0 to k; the first m + 1 of them are AR(m)."""
    level = train.scales.level
    batch = _side_by_side([_normalised(segment, level) for segment in train.segments])
    x, known = np.moveaxis(batch.xs, -1, 0)
    model = jrnn.models.linear_gaussian_markov(k)
    return model.fit(x, jnp.asarray(batch.lengths), jnp.asarray(known == 1))


def _side_by_side(sequences: list[np.ndarray]) -> Any:
    """Returns all sequences as one padded batch."""
    longest = max(map(len, sequences))
    return next(iter(padded_batches(sequences, len(sequences), (longest,))))


def up_to(order: int, params: Any) -> Any:
    """Returns the regressions of AR(order) out of those of a higher order.

    Each is fitted on its own, so that they are what a fit of that order would give.
    """
    A, b, spread = params
    return type(params)(A[: order + 1, :order], b[: order + 1], spread[: order + 1])


def predict_autoregression(params: Any, part: Part) -> Predicted:
    """Forecasts at every reading: the last k values are one sequence each."""
    k = params.A.shape[1]
    model = jrnn.models.linear_gaussian_markov(k)
    x, known = (jnp.asarray(a) for a in lags(part, k))
    state, _ = model.log_prob(params, x.astype(float), mask=known)
    forecast = model.forecast(params, state, max(STEPS))
    at, level = np.array(STEPS) - 1, part.scales.level
    mean, variance = (np.asarray(a, np.float64)[at].T for a in forecast)
    mean, sd = mean * level.sd + level.mean, np.sqrt(variance) * level.sd
    return normal(mean, sd, part.pairs.later)


def fit_direct(train: Part, k: int) -> Direct:
    """Fits the changes 30 and 60 minutes ahead on the last m values, m up to k."""
    (x, known), pairs = lags(train, k), train.pairs
    changes = pairs.later - pairs.now[:, None]
    A, b, sd = np.zeros((k + 1, k, 2)), np.zeros((k + 1, 2)), np.zeros((k + 1, 2))
    for m in range(1, k + 1):
        whole = known[k - m :].all(axis=0)
        for h in range(len(STEPS)):
            rows = whole & pairs.due[:, h]
            X = np.concatenate([x[::-1][:m, rows].T, np.ones((rows.sum(), 1))], axis=1)
            found = np.linalg.lstsq(X, changes[rows, h], rcond=None)[0]
            A[m, :m, h], b[m, h] = found[:-1], found[-1]
            sd[m, h] = np.std(changes[rows, h] - X @ found)
    return Direct(A, b, sd)


def predict_direct(fitted: Direct, part: Part) -> Predicted:
    """Forecasts at every reading by the highest order that its past allows."""
    k = fitted.A.shape[1]
    x, known = lags(part, k)
    m = np.cumprod(known[::-1], axis=0).sum(axis=0)
    change = fitted.b[m] + np.einsum("kn,nkh->nh", x[::-1], fitted.A[m])
    mean = part.pairs.now[:, None] + change
    return normal(mean, fitted.sd[m], part.pairs.later)


def fit_chain(train: Part, width: int) -> Chain:
    """Counts 5-minute steps between bins of `width` mg/dL, smoothed, in powers."""
    bins = (REPORTED[1] - REPORTED[0]) // width + 1
    runs = []
    for segment in train.segments:
        holes = 1 + np.flatnonzero(np.diff(places(segment)) > 1)
        runs += np.split(_bin(segment.glucose, width), holes)
    batch = _side_by_side(runs)
    chain = jrnn.markov_chain(bins, order=1)
    params = chain.fit(jnp.asarray(batch.xs), batch.lengths.astype(int))
    every = jnp.arange(bins, dtype=jnp.int32)[None]
    P = np.exp(np.asarray(chain.predict(params, every).parameters, np.float64))
    P /= P.sum(axis=1, keepdims=True)  # of single precision
    return Chain(width, np.stack([np.linalg.matrix_power(P, h) for h in STEPS]))


def predict_chain(fitted: Chain, part: Part) -> Predicted:
    """Forecasts at every reading from its bin; within a bin all values are alike."""
    pairs, width = part.pairs, fitted.width
    P = np.moveaxis(fitted.ahead[:, _bin(pairs.now, width)], 0, 1)  # (N, 2, V)
    lowest = REPORTED[0] + width * np.arange(P.shape[-1])
    came = np.where(pairs.due, pairs.later, pairs.now[:, None])
    at = _bin(came, width)[..., None]
    p = np.take_along_axis(P, at, axis=-1)[..., 0]
    before = np.take_along_axis(P.cumsum(axis=-1), at, axis=-1)[..., 0] - p
    # Readings are whole numbers: half of the value's own share counts as below it.
    share = (came - lowest[at[..., 0]] + 0.5) / width
    mean = P @ (lowest + (width - 1) / 2)
    return Predicted(mean, before + share * p, np.log(p / width))


def _bin(glucose: np.ndarray, width: int) -> np.ndarray:
    return ((glucose - REPORTED[0]) // width).astype(np.int32)


def choose(
    name: str, candidates: dict[str, Fitted], predict: Predict, valid: Part
) -> Reference:
    """Returns the candidate with the fewest nats on the validation part."""
    found = {
        choice: nats(predict(fitted, valid), valid.pairs)
        for choice, fitted in candidates.items()
    }
    best = min(found, key=lambda choice: found[choice])
    return Reference(name.format(best), candidates[best], found, predict)


def fit_references(
    train: Part, valid: Part, orders: Sequence[int], widths: Sequence[int]
) -> list[Reference]:
    """Returns the five references, fitted and chosen."""
    whole = fit_autoregression(train, max(orders))
    apart = fit_direct(train, max(orders))
    up_to_each = lambda params: {str(k): up_to(k, params) for k in orders}
    chains = {str(width): fit_chain(train, width) for width in widths}
    return [
        Reference(PERSISTENCE, None, {}, predict_persistence),
        Reference(MARKOV, up_to(1, whole), {}, predict_autoregression),
        choose("Markov chain, {} mg/dL", chains, predict_chain, valid),
        choose("AR({})", up_to_each(whole), predict_autoregression, valid),
        choose("AR({}), direct", up_to_each(apart), predict_direct, valid),
    ]
