"""Heads beside SciPy: densities, samples, means, distribution functions, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import jrnn
from jrnn.heads import student_t as of_student
from tests.heads import (
    BY_NAME,
    GRID,
    HEADS,
    LEVELS,
    covariance,
    drawn,
    of_numbers,
)
from tests.helpers import assert_close


def each(*quick):
    """All heads for pytest's parametrize, all but the named ones slow."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case.name, marks=() if case.name in quick else slow)
            for case in HEADS
        ],
    )


def truth(case, head, params, shown, xs, known):
    """What SciPy says of each row."""
    predicted = of_numbers(head, jax.jit(head.predict)(params, shown))
    xs, known = np.asarray(xs).reshape(len(xs), -1), np.asarray(known)
    known = known.reshape(len(xs), -1)
    return [
        case.truth([p[row] for p in predicted], xs[row], known[row])
        for row in range(len(xs))
    ]


@each(*(case.name for case in HEADS if not case.slow))
def test_log_prob_equals_scipy(case):
    head = case.make()
    params, shown, xs = drawn(head)
    got = jax.jit(head.log_prob)(params, shown, xs)
    expected = truth(case, head, params, shown, xs, np.ones(xs.shape, bool))
    assert got.shape == (6,)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


def every_mask(xs):
    """Rows with all, none and some of the components known."""
    n = xs[0].size
    bits = (np.arange(len(xs))[:, None] >> np.arange(n)[None]) & 1
    return jnp.asarray(bits.reshape(xs.shape) == 1)


@each("gaussian full")
def test_what_is_missing_adds_nothing_whatever_stands_there(case):
    head = case.make()
    params, shown, xs = drawn(head, rows=8)
    mask = every_mask(xs)

    def score(p, f, x):
        values = head.log_prob(p, f, x, mask)
        return values.sum(), values

    compiled = jax.jit(jax.value_and_grad(score, argnums=(0, 1, 2), has_aux=True))
    hidden = lambda garbage: jnp.asarray(np.where(mask, xs, garbage))
    (_, values), grads = first = compiled(params, shown, hidden(np.nan))
    expected = truth(case, head, params, shown, xs, mask)
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)
    assert float(values[0]) == 0.0  # row 0 has nothing known
    for garbage in (np.inf, 1e300):
        assert_close(compiled(params, shown, hidden(garbage)), first, 0.0)
    assert not np.where(mask, 0, grads[2]).any()


@each()
def test_gradients_stay_finite_at_extreme_features_and_targets(case):
    head = case.make()
    params = head.init(jax.random.key(0), 4, jnp.float32)
    signs = np.array([[1, 1, 1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1], [0, 0, 0, 0]])
    shown = jnp.asarray(np.concatenate([signs, -signs]) * 1e4, jnp.float32)
    xs = jnp.zeros((8, *head.event_shape), jnp.float32)
    total = lambda *arguments: head.log_prob(*arguments).sum()
    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    bounded = "discretised" in case.name or "bernoulli" in case.name
    for x in (0.0, 1.0) if bounded else (1e6, -1e6, 0.0):
        for mask in (None, every_mask(xs)):
            found = compiled(params, shown, jnp.full_like(xs, x), mask)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@each()
def test_gradients_equal_central_differences(case):
    head = case.make()
    params, shown, xs = drawn(head, rows=3)
    mask = None if not head.event_shape else every_mask(xs)
    flat, unflatten = ravel_pytree((params, shown, xs))
    moved = slice(None) if "discretised" not in case.name else slice(0, -xs.size)
    moved = slice(0, -xs.size) if "bernoulli" in case.name else moved

    def total(flat):
        return head.log_prob(*unflatten(flat), mask).sum()

    h = 1e-6
    steps = h * jnp.eye(flat.size)[moved]
    by = jax.jit(jax.vmap(total))
    central = (by(flat[None] + steps) - by(flat[None] - steps)) / (2 * h)
    assert_close(jax.jit(jax.grad(total))(flat)[moved], central, 1e-8)


def test_every_level_of_a_quantised_signal_together_has_probability_one():
    head = BY_NAME["discretised"].make()
    params, shown, _ = drawn(head, scale=3.0)
    levels = GRID["lowest"] + GRID["step"] * np.arange(LEVELS)
    every = jnp.asarray(np.repeat(levels[:, None], 6, axis=1))
    wide = jnp.asarray(np.repeat(shown[None], LEVELS, axis=0))
    score, cdf = jax.jit(head.log_prob), jax.jit(head.cdf)
    p = np.exp(score(params, wide, every))
    np.testing.assert_allclose(p.sum(0), 1, rtol=1e-12)
    mean = (p * every).sum(0)  # the mean of what is cut into bins, not of the logistic
    np.testing.assert_allclose(jax.jit(head.mean)(params, shown), mean, rtol=1e-12)
    np.testing.assert_allclose(cdf(params, wide, every), p.cumsum(0), rtol=1e-12)
    assert not cdf(params, wide, every - 0.5)[0].any()
    strange = np.repeat(np.array([-1.5, -0.9, 2.0, np.nan, 0.5, 1.5])[:, None], 6, 1)
    off = np.isnan(score(params, wide, jnp.asarray(strange)))
    assert off.all(axis=1).tolist() == [True, True, True, True, False, False]
    assert not off[4:].any()


def test_far_bins_are_the_difference_of_exponentials_and_not_of_sigmoids():
    # At 50 scales from the location both sigmoids are 1 or both nearly 0: in the tail
    # F(z) = exp(z), and P = exp(upper) - exp(lower).
    kernel = jrnn.discretised_logistic(0.0, 1.0, 101)  # read as -1..1, a bin is 0.02
    for dtype, tolerance in ((jnp.float64, 1e-13), (jnp.float32, 1e-6)):
        x, scale = jnp.array([70.0, 30.0], dtype), jnp.array(0.01, dtype)
        far = jnp.array([-0.6, 0.6], dtype)  # 0.99 and 1.01 from the edges, over 0.01
        got = jax.jit(kernel.log_prob)(x, far, jnp.broadcast_to(scale, 2))
        expected = -(0.99 / 0.01) + np.log1p(-np.exp(-2.0))
        np.testing.assert_allclose(got, expected, rtol=tolerance)
    wide = (jnp.array([50.0]), jnp.array([0.0]), jnp.array([1e9]))
    got = jax.jit(kernel.log_prob)(*wide)
    np.testing.assert_allclose(got, np.log(0.02 / 4 / 1e9), rtol=1e-12)


def test_student_t_at_many_degrees_of_freedom_is_the_normal():
    dof, x = np.meshgrid([2.001, 3.0, 40.0, 1e4, 1e6], np.linspace(-8, 8, 9))
    like = [jnp.full(x.shape, 0.3), jnp.full(x.shape, 1.7), jnp.asarray(dof)]
    family = of_student.independent(None)
    score, cdf = jax.jit(family.log_prob), jax.jit(family.cdf)
    got = score(of_student.StudentT(*like), jnp.asarray(x))
    np.testing.assert_allclose(got, stats.t.logpdf(x, dof, 0.3, 1.7), rtol=1e-11)
    got = cdf(of_student.StudentT(*like), jnp.asarray(x))
    np.testing.assert_allclose(got, stats.t.cdf(x, dof, 0.3, 1.7), rtol=1e-8)
    narrow = [leaf.astype(jnp.float32) for leaf in like]
    got = score(of_student.StudentT(*narrow), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, stats.t.logpdf(x, dof, 0.3, 1.7), rtol=2e-6)


DISTRIBUTION = {
    "gaussian": lambda x, mean, scale: stats.norm.cdf(x, mean, scale),
    "student_t of 2": lambda x, *p: stats.t.cdf(x, p[2], p[0], p[1]),
    "mixture of logistics of 2": lambda x, log_w, loc, scale: (
        np.exp(log_w)[..., None, :] * stats.logistic.cdf(x[..., None], loc, scale)
    ).sum(-1),
    "mixture": lambda x, log_w, loc, scale: (
        np.exp(log_w)[..., None, :] * stats.norm.cdf(x[..., None], loc, scale)
    ).sum(-1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTION)
def test_cdf_equals_scipy(name):
    head = BY_NAME[name].make()
    params, shown, xs = drawn(head)
    got = jax.jit(head.cdf)(params, shown, xs)
    x = np.asarray(xs).reshape(6, -1)
    expected = DISTRIBUTION[name](x, *of_numbers(head, head.predict(params, shown)))
    assert got.shape == xs.shape
    np.testing.assert_allclose(got, expected.reshape(xs.shape), rtol=1e-9)


@pytest.mark.slow
def test_cdf_of_correlated_components_is_that_of_each_alone():
    head = BY_NAME["gaussian full"].make()
    params, shown, xs = drawn(head)
    mean, s, phi = (np.asarray(p) for p in head.predict(params, shown))
    for row, got in enumerate(head.cdf(params, shown, xs)):
        deviation = np.sqrt(np.diag(covariance((mean[row], s[row], phi[row]))))
        expected = stats.norm.cdf(xs[row], mean[row], deviation)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


COUNT = 4000
LEAST = 1e-4  # a p-value below happens to one of ten thousand right samplers


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DISTRIBUTION, "gaussian full"])
def test_samples_follow_the_density(name):
    head = BY_NAME[name].make()
    params, shown, _ = drawn(head, rows=1)
    many = jnp.broadcast_to(shown, (COUNT, shown.shape[-1]))
    xs = np.asarray(head.sample(params, jax.random.key(5), many))
    assert xs.shape == (COUNT, *head.event_shape)
    predicted = of_numbers(head, head.predict(params, shown))
    if name == "gaussian full":  # the squared distance is chi-square
        one = [p[0] for p in predicted]
        z = np.linalg.solve(np.linalg.cholesky(covariance(one)), (xs - one[0]).T)
        assert stats.kstest((z**2).sum(0), stats.chi2(3).cdf).pvalue > LEAST
        cross = np.corrcoef(z)[np.triu_indices(3, 1)]
        assert np.abs(cross).max() < 5 / np.sqrt(COUNT)
        u = stats.norm.cdf(z.T)
    else:
        u = DISTRIBUTION[name](xs.reshape(COUNT, -1), *predicted)
    for i in range(u.shape[-1]):
        assert stats.kstest(u[:, i], "uniform").pvalue > LEAST
    error = np.asarray(head.mean(params, shown))[0] - xs.mean(0)
    assert (np.abs(error) <= 5 * xs.std(0) / np.sqrt(COUNT)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discretised", "discretised of 2", "bernoulli of 2"])
def test_samples_of_symbols_come_as_often_as_they_are_probable(name):
    head = BY_NAME[name].make()
    params, shown, _ = drawn(head, rows=1)
    many = jnp.broadcast_to(shown, (COUNT, shown.shape[-1]))
    xs = head.sample(params, jax.random.key(6), many)
    rows, seen = np.unique(np.asarray(xs), axis=0, return_counts=True)
    log_p = head.log_prob(params, many[: len(rows)], jnp.asarray(rows))
    p, share = np.exp(log_p), seen / COUNT
    assert p.sum() > 0.99  # what was never drawn is improbable
    assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / COUNT)).all()
    error = np.asarray(head.mean(params, shown))[0] - np.asarray(xs).mean(0)
    assert (np.abs(error) <= 5 * np.asarray(xs).std(0) / np.sqrt(COUNT)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian full", "student_t of 2", "discretised"])
def test_at_temperature_zero_a_sample_is_the_location(name):
    head = BY_NAME[name].make()
    params, shown, _ = drawn(head)
    cold = head.sample(params, jax.random.key(0), shown, 0.0)
    if name == "discretised":
        log_w, loc, _ = head.predict(params, shown)
        i = np.round((np.asarray(loc)[np.arange(6), log_w.argmax(-1)] + 1) * 2.5)
        expected = -1.0 + 0.5 * np.clip(i, 0, 5)
    else:
        expected = head.mean(params, shown)
    assert_close(cold, jnp.asarray(expected), 1e-12)
    warm = head.sample(params, jax.random.key(0), shown, 4.0)
    plain = head.sample(params, jax.random.key(0), shown)
    if name != "discretised":
        assert_close(warm - cold, 2 * (plain - cold), 1e-10)


def test_heads_of_equal_arguments_are_identical():
    assert jrnn.mixture(2, jrnn.discretised_logistic(0.0, 1.0, 4)) is jrnn.mixture(
        components=2, kernel=jrnn.discretised_logistic(lowest=0.0, step=1.0, levels=4)
    )
    assert jrnn.gaussian() is jrnn.gaussian(None, full=False)
    assert "kernel=logistic_kernel, size=2" in repr(
        jrnn.mixture(3, jrnn.logistic_kernel, 2)
    )


@pytest.mark.slow
def test_a_mixture_of_one_gaussian_is_the_gaussian():
    one, plain = jrnn.mixture(1, size=2), jrnn.gaussian(2)
    params, shown, xs = drawn(plain)
    weights = jnp.zeros((4, 1)), jnp.zeros(1)
    wide = jax.tree.map(
        lambda w, p: jnp.concatenate([w, p], axis=-1), type(params)(*weights), params
    )
    assert_close(
        one.log_prob(wide, shown, xs), plain.log_prob(params, shown, xs), 1e-13
    )
