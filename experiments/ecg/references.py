r"""What networks are compared with: autoregressions, Markov chains, a compressor.

The density of an autoregression is integrated over the cell of the recorded integer:

    P(x) = F((x + 1/2 - m) / s) - F((x - 1/2 - m) / s)

both ends on the lower tail, where a difference of small numbers loses nothing. Besides
Gaussian errors there are those of a Student-t, fitted to the training residuals by
maximum likelihood: what a practitioner would try against rare, large errors.

What a reference has to choose, the order of an autoregression and the smoothing of a
chain, the validation part chooses.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats
from scipy.special import gammaln, log_ndtr

import jrnn
from experiments.ecg.problem import (
    DIFFERENCES,
    LEAST_DIFFERENCE,
    LEAST_LEVEL,
    LEVELS,
    Entrant,
    Stretch,
    differences,
    scored,
)
from experiments.lab import compressors

AR_1, AR_16 = "AR(1)", "AR(16)"
AR_NORMAL, AR_T = "AR, order chosen", "AR, order chosen, Student-t errors"
ORDERS = (2, 4, 8, 16, 32, 64)
SMOOTHINGS = (0.1, 0.3, 1.0, 3.0, 10.0)
# Levels and differences are divided by this before a regression: float32 is exact.
UNIT = 128.0


def normal_cell(
    x: np.ndarray, mean: np.ndarray | float, sd: np.ndarray | float
) -> Float[np.ndarray, "..."]:
    """Returns log P(x - 1/2 < X < x + 1/2) for a normal X, exact in both tails.

    With a the end that is nearer to the mean, mirrored to the lower side, and b the
    other: ln(F(a) - F(b)) = ln F(a) + ln(1 - F(b) / F(a)).

    >>> normal_cell(np.array([0.0, 40.0, -40.0]), 0.0, 1.0).round(2).tolist()
    [-0.96, -784.72, -784.72]
    """
    away = np.abs(x - mean)
    near, far = log_ndtr((0.5 - away) / sd), log_ndtr((-0.5 - away) / sd)
    return near + np.log1p(-np.exp(far - near))


def student_t_cell(
    x: np.ndarray, mean: np.ndarray | float, scale: float, dof: float
) -> Float[np.ndarray, "..."]:
    """Returns log P(x - 1/2 < X < x + 1/2) for mean + scale times a Student-t.

    >>> student_t_cell(np.array([0.0, 1e6]), 0.0, 1.0, 1.0).round(2).tolist()
    [-1.22, -28.78]
    """
    away = np.abs(x - mean)
    near, far = (stats.t.cdf((e - away) / scale, dof) for e in (0.5, -0.5))
    return np.log(near - far)


def forecast(order: int, params: Any, part: Stretch) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each sample that is scored, in units."""
    model = jrnn.models.linear_gaussian_markov(order)
    xs = jnp.asarray(part.units / UNIT, float)
    leaves = model.predictive(params, xs)[1].parameters
    mean, sd = (scored(np.asarray(leaf), part) * UNIT for leaf in leaves)
    return mean, sd


def fit_autoregression(order: int, train: Stretch) -> Any:
    """Fits AR(order) by least squares, with an intercept."""
    model = jrnn.models.linear_gaussian_markov(order)
    return model.fit(jnp.asarray(train.units / UNIT, float))


def _score_normal(order: int, params: Any, part: Stretch) -> np.ndarray:
    return normal_cell(part.units[part.skip :], *forecast(order, params, part))


def sample_autoregression(
    order: int, params: Any, prompt: np.ndarray, length: int, seed: int
) -> Float[np.ndarray, " length"]:
    """Returns `length` samples that go on from a prompt, in units."""
    model = jrnn.models.linear_gaussian_markov(order)
    before = jnp.asarray(prompt / UNIT, float)
    drawn = model.sample(params, jax.random.key(seed), length, prompt=before)
    return np.asarray(drawn, np.float64) * UNIT


class StudentErrors(NamedTuple):
    """An autoregression whose errors are of a Student-t."""

    params: Any
    dof: float
    scale: float


def fit_student_errors(order: int, params: Any, train: Stretch) -> StudentErrors:
    """Fits the errors that AR(order) leaves in the training part."""
    part = train._replace(skip=order)
    left = part.units[order:] - forecast(order, params, part)[0]
    dof, scale = student_t_fit(left)
    return StudentErrors(params, dof, scale)


def student_t_fit(xs: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Returns degrees of freedom and scale of greatest likelihood, located at 0.

    The same optimum as scipy.stats.t.fit(xs, floc=0), without its general machinery.
    """
    square = np.square(xs)

    def loss(logs: np.ndarray) -> float:
        dof, scale2 = np.exp(logs)
        tail = (dof + 1) / 2 * np.log1p(square / (dof * scale2)).mean()
        return (
            tail - gammaln((dof + 1) / 2) + gammaln(dof / 2) + np.log(dof * scale2) / 2
        )

    start = np.log([4.0, np.median(square)])
    found = optimize.minimize(loss, start, method="Nelder-Mead", tol=1e-7)
    return float(np.exp(found.x[0])), float(np.exp(found.x[1] / 2))


def _score_student(order: int, fitted: StudentErrors, part: Stretch) -> np.ndarray:
    mean = forecast(order, fitted.params, part)[0]
    x = part.units[part.skip :]
    return student_t_cell(x, mean, fitted.scale, fitted.dof)


def level_ids(units: np.ndarray) -> Int[np.ndarray, " T"]:
    """Returns the recorder's own numbers, 0..2047."""
    return (units - LEAST_LEVEL).astype(np.int32)


def difference_ids(units: np.ndarray) -> Int[np.ndarray, " T-1"]:
    """Returns differences as 0..255."""
    return (differences(units) - LEAST_DIFFERENCE).astype(np.int32)


class Alphabet(NamedTuple):
    """Which symbols a Markov chain is of."""

    size: int
    ids: Callable[[np.ndarray], np.ndarray]


LEVEL = Alphabet(LEVELS, level_ids)
DIFFERENCE = Alphabet(DIFFERENCES, difference_ids)


def fit_chain(alphabet: Alphabet, order: int, train: Stretch) -> Any:
    """Counts the training part's strings."""
    chain = jrnn.markov_chain(alphabet.size, order)
    return chain.fit(jnp.asarray(alphabet.ids(train.units)))


def _score_chain(
    alphabet: Alphabet, order: int, smoothing: float, params: Any, part: Stretch
) -> np.ndarray:
    chain = jrnn.markov_chain(alphabet.size, order, smoothing)
    found = chain.log_prob(params, jnp.asarray(alphabet.ids(part.units)))[1]
    return scored(np.asarray(found), part)


def best(tried: Sequence[Entrant], valid: Stretch) -> Entrant:
    """Returns what does best on validation, and how well; the first of equals."""
    asked = [one._replace(valid=float(one.nats(valid).mean())) for one in tried]
    return min(asked, key=lambda one: one.valid)


def _autoregressions(train: Stretch, valid: Stretch) -> dict[str, Entrant]:
    fitted = {k: fit_autoregression(k, train) for k in sorted({1, 16, *ORDERS})}
    plain = lambda k: Entrant(fitted[k], partial(_score_normal, k))
    chosen = [plain(k)._replace(chosen={"order": k}) for k in ORDERS]
    student = [
        Entrant(
            fit_student_errors(k, fitted[k], train),
            partial(_score_student, k),
            {"order": k},
        )
        for k in ORDERS
    ]
    tried = {AR_1: [plain(1)], AR_16: [plain(16)], AR_NORMAL: chosen, AR_T: student}
    return {name: best(each, valid) for name, each in tried.items()}


def _chains(train: Stretch, valid: Stretch) -> dict[str, Entrant]:
    found = {}
    for of, alphabet, longest in (("", LEVEL, 2), (" of differences", DIFFERENCE, 3)):
        params = fit_chain(alphabet, longest, train)
        for order in range(1, longest + 1):
            tried = [
                Entrant(
                    params[: order + 1],
                    partial(_score_chain, alphabet, order, smoothing),
                    {"smoothing": smoothing},
                )
                for smoothing in SMOOTHINGS
            ]
            found[f"Markov chain{of}, order {order}"] = best(tried, valid)
    return found


def fit_references(train: Stretch, valid: Stretch) -> dict[str, Entrant]:
    """Fits every reference to the training part, and chooses on the validation part."""
    return {**_autoregressions(train, valid), **_chains(train, valid)}


def yardsticks(train: Stretch, test: Stretch) -> dict[str, float]:
    """Returns nats per sample of equal levels, and of LZMA on differences as bytes.

    LZMA is asked for what the test part adds once it has read the training part.
    """
    before = difference_ids(train.units).astype(np.uint8).tobytes()
    own = difference_ids(test.units[test.skip - 1 :]).astype(np.uint8).tobytes()
    added = compressors.added(compressors.lzma_size, before, own)
    return {
        f"uniform over {LEVELS} levels": math.log(LEVELS),
        "LZMA of differences, primed": 8 * math.log(2) * added / len(own),
    }
