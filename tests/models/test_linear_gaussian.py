"""The linear-Gaussian Markov model, against NumPy's least squares and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jrnn
from tests.helpers import assert_close


def series(seed, *shape):
    """Random walks with a pull back to 0."""
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=shape)
    for t in range(1, len(xs)):
        xs[t] += 0.8 * xs[t - 1]
    return xs


def least_squares(sequences, m):
    """Intercept, weights and covariance, by a column of ones and NumPy's lstsq."""
    X, Y = [], []
    for xs in sequences:
        for t in range(m, len(xs)):
            X.append(np.concatenate([[1.0], *(xs[t - j] for j in range(1, m + 1))]))
            Y.append(xs[t])
    X, Y = np.array(X), np.array(Y)
    W = np.linalg.lstsq(X, Y, rcond=None)[0]
    e = Y - X @ W
    return W[0], W[1:].reshape(m, *[Y.shape[1]] * 2), e.T @ e / len(Y)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(("order", "size"), [(2, 2), (3, None), (0, None)])
def test_fit_equals_numpy(order, size):
    xs = series(0, 40, 2) if size is None else series(0, 40, 2, size)
    lengths = np.array([40, 25])
    dirty = xs.copy()
    dirty[25:, 1] = np.nan
    params = jrnn.models.linear_gaussian_markov(order, size).fit(dirty, lengths)
    wide = xs.reshape(40, 2, -1)
    for m in range(order + 1):
        b, A, Q = least_squares([wide[:, 0], wide[:25, 1]], m)
        np.testing.assert_allclose(params.b[m], b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(params.A[m, :m], A, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(params.Q[m], Q, rtol=1e-9)
        assert not params.A[m, m:].any()


def test_windows_cross_no_gap():
    xs = series(1, 30, 1, 2)
    mask = np.ones(xs.shape, bool)
    mask[12, 0, 1] = False  # one component is enough
    params = jrnn.models.linear_gaussian_markov(2, 2).fit(
        np.where(mask, xs, np.nan), mask=mask
    )
    for m in range(3):
        b, A, Q = least_squares([xs[:12, 0], xs[13:, 0]], m)
        np.testing.assert_allclose(params.b[m], b, rtol=1e-9)
        np.testing.assert_allclose(params.A[m, :m], A, rtol=1e-9)
        np.testing.assert_allclose(params.Q[m], Q, rtol=1e-9)


def test_a_large_offset_costs_no_digits():
    # Products of lagged values would be known to 1e-16 * 1e14, beside a spread of 1.
    xs = series(2, 400)
    model = jrnn.models.linear_gaussian_markov(2)
    near, far = model.fit(xs), model.fit(xs + 1e7)
    np.testing.assert_allclose(far.A, near.A, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(far.Q, near.Q, rtol=1e-7)


def test_known_coefficients_are_found():
    rng = np.random.default_rng(3)
    xs = np.zeros(20_000)
    e = rng.normal(size=xs.size)
    for t in range(2, xs.size):
        xs[t] = 0.5 + 1.2 * xs[t - 1] - 0.6 * xs[t - 2] + 0.3 * e[t]
    params = jrnn.models.linear_gaussian_markov(2).fit(xs[100:])
    # Standard errors are about sqrt((1 - 0.6**2) / N) = 0.006: five of them.
    np.testing.assert_allclose(params.A[2].ravel(), [1.2, -0.6], atol=0.03)
    np.testing.assert_allclose(params.b[2], [0.5], atol=0.02)
    np.testing.assert_allclose(params.Q[2], [[0.09]], rtol=0.05)


def by_hand(params, xs, known, order):
    """log p of each step, the order taken from what is known right before it."""
    A, b, Q = (np.asarray(leaf) for leaf in params)
    scores, whole = [], known.all(-1)
    for t in range(len(xs)):
        m = 0
        while m < min(order, t) and whole[t - 1 - m]:
            m += 1
        mean = b[m] + sum(xs[t - 1 - j] @ A[m, j] for j in range(m))
        o = np.flatnonzero(known[t])
        scores.append(
            stats.multivariate_normal.logpdf(xs[t][o], mean[o], Q[m][np.ix_(o, o)])
            if o.size
            else 0.0
        )
    return scores


@pytest.mark.slow
@pytest.mark.parametrize(("order", "size"), [(2, 2), (3, None), (0, None)])
def test_log_prob_by_hand(order, size):
    shape = (12, 2) if size is None else (12, 2, size)
    model = jrnn.models.linear_gaussian_markov(order, size)
    params = model.fit(series(4, 60, *shape[1:]))
    xs = series(5, *shape)
    known = np.random.default_rng(6).random(shape) < 0.8
    hidden = np.where(known, xs, np.nan)
    lengths = np.array([12, 7])
    state, got = model.log_prob(params, hidden, lengths=lengths, mask=known)
    wide = lambda a: a.reshape(12, 2, -1)
    for i, n in enumerate(lengths):
        expected = by_hand(params, wide(xs)[:n, i], wide(known)[:n, i], order)
        np.testing.assert_allclose(got[:n, i], expected, rtol=1e-9, atol=1e-12)
    assert not got[7:, 1].any()
    garbage = np.where(known, xs, np.inf)
    assert_close(
        model.log_prob(params, garbage, lengths=lengths, mask=known), (state, got), 0.0
    )
    # In chunks, and each sequence alone: the state is that after its own last step.
    now, first = model.log_prob(params, hidden[:5], mask=known[:5])
    _, second = model.log_prob(params, hidden[5:], now, mask=known[5:])
    whole = model.log_prob(params, hidden, mask=known)[1]
    assert_close(jnp.concatenate([first, second]), whole, 1e-12)
    alone, _ = model.log_prob(params, hidden[:7, 1:], mask=known[:7, 1:])
    assert_close(jax.tree.map(lambda leaf: leaf[:, 1:], state), alone, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, 2])
def test_predictions_are_what_is_scored(size):
    model = jrnn.models.linear_gaussian_markov(2, size)
    xs = series(7, *((30, 3) if size is None else (30, 3, size)))
    params = model.fit(xs)
    state, whole = model.log_prob(params, xs)
    _, predicted = model.predictive(params, xs)
    assert_close(predicted.log_prob(jnp.asarray(xs)), whole, 1e-12)
    _, more = model.log_prob(params, xs[:1], state)
    following = model.predict(params, state)
    scored = following.log_prob(jnp.asarray(xs[0]))
    assert_close(scored, more[0], 1e-12)
    u = predicted.cdf(jnp.asarray(xs))
    assert u.shape == xs.shape


def test_forecasts_of_order_one_in_closed_form():
    model = jrnn.models.linear_gaussian_markov(1)
    params = model.fit(series(8, 200))
    a, b, q = (
        float(params.A[1, 0, 0, 0]),
        float(params.b[1, 0]),
        float(params.Q[1, 0, 0]),
    )
    state, _ = model.log_prob(params, jnp.array([3.0]))
    mean, variance = model.forecast(params, state, 200)
    h = np.arange(1, 201)
    np.testing.assert_allclose(mean, b * (1 - a**h) / (1 - a) + a**h * 3.0, rtol=1e-10)
    np.testing.assert_allclose(
        variance, q * (1 - a ** (2 * h)) / (1 - a**2), rtol=1e-10
    )


@pytest.mark.slow
def test_forecasts_of_several_components_equal_the_companion_matrix():
    model = jrnn.models.linear_gaussian_markov(3, 2)
    params = model.fit(series(9, 200, 2))
    xs = series(10, 5, 4, 2)
    state, _ = model.log_prob(params, xs)
    mean, variance = model.forecast(params, state, 6)
    assert mean.shape == (6, 4, 2)
    assert variance.shape == (6, 4, 2, 2)
    A, b, Q = (np.asarray(leaf)[3] for leaf in params)
    F = np.eye(6, k=-2)  # column vectors: the latest value on top
    F[:2] = np.concatenate([a.T for a in A], axis=1)
    z = np.concatenate(xs[:-4:-1], axis=-1).T
    P, add = np.zeros((6, 6)), np.zeros((6, 6))
    add[:2, :2] = Q
    for h in range(6):
        z = F @ z
        z[:2] += b[:, None]
        P = F @ P @ F.T + add
        np.testing.assert_allclose(mean[h], z[:2].T, rtol=1e-10)
        np.testing.assert_allclose(
            variance[h], np.tile(P[:2, :2], (4, 1, 1)), rtol=1e-10
        )


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_forecasts_are_the_moments_of_samples(steps):
    # With less than the order known, the orders used grow from step to step.
    model = jrnn.models.linear_gaussian_markov(3)
    params = model.fit(series(11, 500))
    count = 40_000
    start = jnp.array([1.5, -0.5, 2.0, 0.3, 1.0])[:steps]
    drawn = np.asarray(
        model.sample(params, jax.random.key(0), 4, start, batch_shape=(count,))
    )
    state = model.init_state(params)
    if steps:
        state, _ = model.log_prob(params, start)
    mean, variance = model.forecast(params, state, 4)
    error = 5 * np.sqrt(np.asarray(variance) / count)
    assert (np.abs(drawn.mean(1) - mean) <= error).all()
    # The variance of a normal sample's variance is 2 sigma^4 / count.
    assert (np.abs(drawn.var(1) / variance - 1) <= 5 * np.sqrt(2 / count)).all()
    cold = model.sample(params, jax.random.key(0), 4, start, temperature=0.0)
    np.testing.assert_allclose(cold, mean, rtol=1e-10)


@pytest.mark.slow
def test_a_history_with_gaps_is_gone_on_from():
    model = jrnn.models.linear_gaussian_markov(2)
    key = functools.partial(jax.random.key, 0)  # a new one for each use
    xs, mask = series(12, 9, 3), np.ones((9, 3), bool)
    params = model.fit(xs)
    mask[7, 1] = mask[8, 2] = False
    gaps = np.where(mask, xs, np.nan)
    drawn = model.sample(params, key(), 4, gaps, prompt_mask=mask)
    state, _ = model.log_prob(params, gaps, mask=mask)
    assert_close(model.sample(params, key(), 4, state=state), drawn, 0.0)
    half, _ = model.log_prob(params, gaps[:8], mask=mask[:8])
    rest = {"prompt": gaps[8:], "prompt_mask": mask[8:]}
    assert_close(model.sample(params, key(), 4, state=half, **rest), drawn, 1e-12)
    assert (model.sample(params, key(), 4, xs) != drawn).any()
    one = {"prompt": gaps[:, 1], "prompt_mask": mask[:, 1]}
    many = model.sample(params, key(), 4, batch_shape=(3,), **one)
    alone = jax.tree.map(lambda leaf: leaf[:, 1], state)
    assert_close(
        model.sample(params, key(), 4, batch_shape=(3,), state=alone), many, 1e-12
    )
    with pytest.raises(ValueError, match="by False in prompt_mask"):
        model.sample(params, key(), 4, gaps)


MISTAKES = {
    "too few windows": (
        lambda model: model.fit(np.array([1.0, 0.0, 2.0, 5.0])),
        "at least 4 windows of 3 known values",
    ),
    "constant": (lambda model: model.fit(np.ones(20)), "residuals without variance"),
    "another order": (
        lambda model: model.log_prob(
            jrnn.models.linear_gaussian_markov(1).fit(series(0, 9)), np.ones(3)
        ),
        r"params.A of shape \(3, 2, 1, 1\)",
    ),
    "not a number": (
        lambda model: model.fit(np.array([1.0, np.nan, 2.0])),
        r"finite numbers.*got nan at position \(1, 0\); mark missing",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    call, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        call(jrnn.models.linear_gaussian_markov(2))


def test_fit_needs_values_that_are_known():
    model = jrnn.models.linear_gaussian_markov(1)
    with pytest.raises(TypeError, match=r"outside jax.jit"):
        jax.jit(model.fit)(jnp.ones(9))
