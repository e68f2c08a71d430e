"""Heads under test, each with its reference in SciPy."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import logsumexp

import jrnn
from tests.helpers import random_like

LEVELS = 6
GRID = {"lowest": -1.0, "step": 0.5, "levels": LEVELS}
BINS = jrnn.heads.discretised_logistic(**GRID)


class HeadCase(NamedTuple):
    """A head, and its log-density by SciPy for one value (n,) and one prediction.

    `truth(predicted, x, known)` is the log-density of the known components; predicted
    is a tuple of arrays without leading axes.
    """

    name: str
    make: Callable[..., jrnn.Head]
    truth: Callable[..., float]
    slow: bool = False  # a variant of one in the quick suite


def _each(logpdf):
    """Independent components: the sum over known ones."""

    def truth(predicted, x, known):
        return sum(
            logpdf(x[i], *(p[i] for p in predicted)) for i in np.flatnonzero(known)
        )

    return truth


def covariance(predicted):
    """Sigma of a `CorrelatedNormal`, from its regressions."""
    _, s, phi = predicted
    inverse = np.linalg.inv(np.eye(len(s)) - phi)
    return inverse @ np.diag(s**2) @ inverse.T


def _correlated(predicted, x, known):
    o = np.flatnonzero(known)
    if not o.size:
        return 0.0
    S = covariance(predicted)[np.ix_(o, o)]
    return stats.multivariate_normal.logpdf(x[o], predicted[0][o], S)


def _mixed(logpdf):
    def truth(predicted, x, known):
        log_w, loc, scale = predicted
        if not known.any():
            return 0.0
        terms = [logpdf(x[i], loc[i], scale[i]) for i in np.flatnonzero(known)]
        return logsumexp(log_w + sum(terms))

    return truth


def bin_log_prob(x, loc, scale):
    """ln P of a level, by the difference of two distribution functions."""
    i = round((x - GRID["lowest"]) / GRID["step"])
    edge = lambda j: 2 * (j - 0.5) / (LEVELS - 1) - 1  # below level j
    upper = stats.logistic.cdf(edge(i + 1), loc, scale) if i < LEVELS - 1 else 1.0
    lower = stats.logistic.cdf(edge(i), loc, scale) if i > 0 else 0.0
    return np.log(upper - lower)


def _coin(x, logit):
    return stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-logit)))


def _t(x, loc, scale, dof):
    return stats.t.logpdf(x, dof, loc, scale)


def _full(**keywords):
    return jrnn.gaussian(3, full=True, **keywords)


HEADS = [
    HeadCase("gaussian", jrnn.gaussian, _each(stats.norm.logpdf), slow=True),
    HeadCase(
        "gaussian of 3",
        lambda **k: jrnn.gaussian(3, **k),
        _each(stats.norm.logpdf),
        slow=True,
    ),
    HeadCase("gaussian full", _full, _correlated),
    HeadCase("student_t", jrnn.heads.student_t, _each(_t), slow=True),
    HeadCase("student_t of 2", lambda **k: jrnn.heads.student_t(2, **k), _each(_t)),
    HeadCase(
        "mixture",
        lambda **k: jrnn.heads.mixture(3, **k),
        _mixed(stats.norm.logpdf),
        slow=True,
    ),
    HeadCase(
        "mixture of logistics of 2",
        lambda **k: jrnn.heads.mixture(3, jrnn.heads.logistic_kernel, 2, **k),
        _mixed(stats.logistic.logpdf),
    ),
    HeadCase(
        "discretised",
        lambda **k: jrnn.heads.mixture(2, BINS, **k),
        _mixed(bin_log_prob),
    ),
    HeadCase(
        "discretised of 2",
        lambda **k: jrnn.heads.mixture(2, BINS, 2, **k),
        _mixed(bin_log_prob),
        slow=True,
    ),
    HeadCase("bernoulli", jrnn.heads.bernoulli, _each(_coin), slow=True),
    HeadCase("bernoulli of 2", lambda **k: jrnn.heads.bernoulli(2, **k), _each(_coin)),
]
BY_NAME = {case.name: case for case in HEADS}


def ask(head, what):
    """Returns a method of the prediction as a function of (params, features, ...)."""
    return lambda params, shown, *rest: getattr(head.predict(params, shown), what)(
        *rest
    )


def of_numbers(head, predicted):
    """Returns the predicted parameters as arrays, with an axis of components."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(predicted)]
    if head.event_shape:
        return leaves
    if head.spec.name == "mixture":
        return [leaves[0], *(leaf[..., None, :] for leaf in leaves[1:])]
    return [leaf[..., None] for leaf in leaves]


def targets(head, rows, seed=3):
    """Returns values that the head can score."""
    rng = np.random.default_rng(seed)
    shape = (*np.atleast_1d(rows), *head.event_shape)
    if head.spec.name == "bernoulli":
        return jnp.asarray(rng.integers(0, 2, shape), float)
    if "discretised" in repr(head):
        i = rng.integers(0, LEVELS, shape)
        return jnp.asarray(GRID["lowest"] + GRID["step"] * i, float)
    return jnp.asarray(rng.normal(size=shape))


def drawn(head, rows=6, features=4, scale=0.7):
    """Returns parameters, features and targets in float64."""
    draw = lambda: head.init(jax.random.key(0), features, jnp.float64)
    params = random_like(1, jax.eval_shape(draw), scale)
    shown = random_like(2, jax.ShapeDtypeStruct((rows, features), jnp.float64))
    return params, shown, targets(head, rows)
