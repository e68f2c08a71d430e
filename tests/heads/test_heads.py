"""Heads against SciPy: densities, samples, means, distribution functions, gradients."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import jrnn
from jrnn.heads.correlated_normal import CorrelatedNormal
from jrnn.heads.mixture import Mixture
from jrnn.heads.normal import Normal
from jrnn.heads.student_t import StudentT, independent
from tests.head_registry import (
    BINS,
    BY_NAME,
    GRID,
    HEADS,
    LEVELS,
    ask,
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


@pytest.mark.longer
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
    for x in (0.0, 1.0) if bounded else (3e38, 1e30, -2e19, -1e6, 0.0):
        for mask in (None, every_mask(xs)):
            if mask is not None and "full" in case.name and abs(x) > 1e6:
                continue  # what the docstring leaves out
            found = compiled(params, shown, jnp.full_like(xs, x), mask)
            kept = found[1] if abs(x) > 1e6 else found  # a sum may be infinite
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))


BIG = (0.0, 1.0, -1e-30, 1e10, -2e19, 3e38)
SCALES = (1e-37, 1e-30, 1.0, 3e38)


def extreme(name):
    """Float32 distributions of a head, and targets, of every size there is."""
    sizes = itertools.product(BIG, BIG, SCALES, (2.0001, 6.0, 1e30))
    x, loc, scale, dof = np.array(list(sizes), np.float32).T
    two = lambda a: np.stack([a, a[::-1]], -1)
    if "gaussian full" in name:
        rng = np.random.default_rng(0)
        mean, scale = (rng.choice(s, (len(x), 3)) for s in (BIG, SCALES))
        weights = np.tril(rng.choice((0, 0.5, -2, 1e10, 3e38), (len(x), 3, 3)), -1)
        predicted = CorrelatedNormal(mean, scale, weights)
        x = rng.choice(BIG, (len(x), 3))
    elif "student" in name:
        predicted = StudentT(loc, scale, dof)
    elif "mixture" in name or "discretised" in name:
        x = np.clip(np.round(x), 0, 1) if "discretised" in name else x
        predicted = Mixture(np.log(np.full((len(x), 2), 0.5)), two(loc), two(scale))
    else:
        predicted = Normal(loc, scale)
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (predicted, x))


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("gaussian", jrnn.gaussian),
        ("student_t", jrnn.heads.student_t),
        ("mixture", lambda: jrnn.heads.mixture(2)),
        pytest.param(
            "gaussian full",
            lambda: jrnn.gaussian(3, full=True),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "mixture of logistics",
            lambda: jrnn.heads.mixture(2, jrnn.heads.logistic_kernel),
            marks=pytest.mark.slow,
        ),
        ("discretised", lambda: jrnn.heads.mixture(2, BINS)),
    ],
)
def test_any_finite_number_has_a_finite_gradient(name, make):
    family = make().family
    score = lambda predicted, x: jrnn.heads.Distribution(family, predicted).log_prob(x)
    run = jax.jit(jax.vmap(jax.value_and_grad(score)))
    value, grads = run(*extreme(name))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    # Components are added up, and their sum may be below the lowest float.
    lowest = -np.inf if "full" in name else np.finfo(np.float32).min
    assert (lowest <= value).all()
    assert (value < np.inf).all()


def test_student_t_is_right_wherever_its_logarithm_is_a_float():
    (loc, scale, dof), x = extreme("student_t")
    usual = np.asarray(dof < 1e5)
    loc, scale, dof, x = (np.asarray(a, float)[usual] for a in (loc, scale, dof, x))
    z = (x - loc) / scale
    growth = np.where(np.abs(z) > 1e30, 2 * np.log(np.maximum(np.abs(z), 1)), 0)
    growth = np.where(growth > 0, growth - np.log(dof), np.log1p(z**2 / dof))
    at_0 = stats.t.logpdf(0.0, dof) - np.log(scale)
    predicted = StudentT(loc, scale, dof)
    narrow = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (predicted, x))
    family = independent(None)
    got = jax.jit(family.log_prob)(*narrow)
    np.testing.assert_allclose(got, at_0 - (dof + 1) / 2 * growth, rtol=1e-6, atol=1e-6)


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


@pytest.mark.longer
def test_every_level_of_a_quantised_signal_together_has_probability_one():
    head = BY_NAME["discretised"].make()
    params, shown, _ = drawn(head, scale=3.0)
    levels = GRID["lowest"] + GRID["step"] * np.arange(LEVELS)
    every = jnp.asarray(np.repeat(levels[:, None], 6, axis=1))
    wide = jnp.asarray(np.repeat(shown[None], LEVELS, axis=0))
    score, cdf = jax.jit(head.log_prob), jax.jit(ask(head, "cdf"))
    p = np.exp(score(params, wide, every))
    np.testing.assert_allclose(p.sum(0), 1, rtol=1e-12)
    mean = (p * every).sum(0)  # the mean of what is cut into bins, not of the logistic
    np.testing.assert_allclose(
        jax.jit(ask(head, "mean"))(params, shown), mean, rtol=1e-12
    )
    np.testing.assert_allclose(cdf(params, wide, every), p.cumsum(0), rtol=1e-12)
    assert not cdf(params, wide, every - 0.5)[0].any()
    strange = np.repeat(np.array([-1.5, -0.9, 2.0, np.nan, 0.5, 1.5])[:, None], 6, 1)
    off = np.isnan(score(params, wide, jnp.asarray(strange)))
    assert off.all(axis=1).tolist() == [True, True, True, True, False, False]
    assert not off[4:].any()


def test_far_bins_are_the_difference_of_exponentials_and_not_of_sigmoids():
    # At 50 scales from the location both sigmoids are 1 or both nearly 0: in the tail
    # F(z) = exp(z), and P = exp(upper) - exp(lower).
    kernel = jrnn.heads.discretised_logistic(
        0.0, 1.0, 101
    )  # read as -1..1, a bin is 0.02
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
    family = independent(None)
    score, cdf = jax.jit(family.log_prob), jax.jit(family.cdf)
    got = score(StudentT(*like), jnp.asarray(x))
    np.testing.assert_allclose(got, stats.t.logpdf(x, dof, 0.3, 1.7), rtol=1e-11)
    got = cdf(StudentT(*like), jnp.asarray(x))
    np.testing.assert_allclose(got, stats.t.cdf(x, dof, 0.3, 1.7), rtol=1e-8)
    narrow = [leaf.astype(jnp.float32) for leaf in like]
    got = score(StudentT(*narrow), jnp.asarray(x, jnp.float32))
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
    got = jax.jit(ask(head, "cdf"))(params, shown, xs)
    x = np.asarray(xs).reshape(6, -1)
    expected = DISTRIBUTION[name](x, *of_numbers(head, head.predict(params, shown)))
    assert got.shape == xs.shape
    np.testing.assert_allclose(got, expected.reshape(xs.shape), rtol=1e-9)


@pytest.mark.slow
def test_cdf_of_correlated_components_is_that_of_each_alone():
    head = BY_NAME["gaussian full"].make()
    params, shown, xs = drawn(head)
    mean, s, phi = (np.asarray(p) for p in head.predict(params, shown).parameters)
    for row, got in enumerate(head.predict(params, shown).cdf(xs)):
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
    xs = np.asarray(head.predict(params, many).sample(jax.random.key(5)))
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
    error = np.asarray(head.predict(params, shown).mean())[0] - xs.mean(0)
    assert (np.abs(error) <= 5 * xs.std(0) / np.sqrt(COUNT)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discretised", "discretised of 2", "bernoulli of 2"])
def test_samples_of_symbols_come_as_often_as_they_are_probable(name):
    head = BY_NAME[name].make()
    params, shown, _ = drawn(head, rows=1)
    many = jnp.broadcast_to(shown, (COUNT, shown.shape[-1]))
    xs = head.predict(params, many).sample(jax.random.key(6))
    rows, seen = np.unique(np.asarray(xs), axis=0, return_counts=True)
    log_p = head.log_prob(params, many[: len(rows)], jnp.asarray(rows))
    p, share = np.exp(log_p), seen / COUNT
    assert p.sum() > 0.99  # what was never drawn is improbable
    assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / COUNT)).all()
    error = np.asarray(head.predict(params, shown).mean())[0] - np.asarray(xs).mean(0)
    assert (np.abs(error) <= 5 * np.asarray(xs).std(0) / np.sqrt(COUNT)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian full", "student_t of 2", "discretised"])
def test_at_temperature_zero_a_sample_is_the_location(name):
    head = BY_NAME[name].make()
    params, shown, _ = drawn(head)
    predicted = head.predict(params, shown)
    cold = predicted.sample(jax.random.key(0), 0.0)
    if name == "discretised":
        log_w, loc, _ = predicted.parameters
        i = np.round((np.asarray(loc)[np.arange(6), log_w.argmax(-1)] + 1) * 2.5)
        expected = -1.0 + 0.5 * np.clip(i, 0, 5)
    else:
        expected = predicted.mean()
    assert_close(cold, jnp.asarray(expected), 1e-12)
    warm = predicted.sample(jax.random.key(0), 4.0)
    plain = predicted.sample(jax.random.key(0))
    if name != "discretised":
        assert_close(warm - cold, 2 * (plain - cold), 1e-10)


def test_heads_of_equal_arguments_are_identical():
    assert jrnn.heads.mixture(
        2, jrnn.heads.discretised_logistic(0.0, 1.0, 4)
    ) is jrnn.heads.mixture(
        components=2,
        kernel=jrnn.heads.discretised_logistic(lowest=0.0, step=1.0, levels=4),
    )
    assert jrnn.gaussian() is jrnn.gaussian(None, full=False)
    assert "kernel=logistic_kernel, size=2" in repr(
        jrnn.heads.mixture(3, jrnn.heads.logistic_kernel, 2)
    )


@pytest.mark.slow
def test_a_mixture_of_one_gaussian_is_the_gaussian():
    one, plain = jrnn.heads.mixture(1, size=2), jrnn.gaussian(2)
    params, shown, xs = drawn(plain)
    weights = jnp.zeros((4, 1)), jnp.zeros(1)
    wide = jax.tree.map(
        lambda w, p: jnp.concatenate([w, p], axis=-1), type(params)(*weights), params
    )
    assert_close(
        one.log_prob(wide, shown, xs), plain.log_prob(params, shown, xs), 1e-13
    )


def test_numbers_of_any_type_make_the_same_head_whatever_came_before():
    # Sizes that no other test asks for: nothing of them is in a cache.
    first = jrnn.heads.discretised_logistic(np.float32(0), np.float32(0.75), 5)
    assert first is jrnn.heads.discretised_logistic(0, 0.75, np.int64(5))
    least = np.float32(0.03125)
    assert jrnn.gaussian(least_scale=least) is jrnn.gaussian(least_scale=0.03125)
    switches = {"full": np.bool_(True), "missing": np.bool_(False)}
    assert jrnn.gaussian(2, **switches) is jrnn.gaussian(2, True)
    for least in (np.float32(0.0625), Fraction(1, 16), np.int32(1)):
        assert jrnn.heads.student_t(least_scale=least).spec.arguments[2][1] == float(
            least
        )


@pytest.mark.parametrize("name", ["gaussian", "student_t", "bernoulli"])
def test_what_is_refused_is_refused_after_its_equal_was_accepted(name):
    make = getattr(jrnn.heads, name)
    make(7, missing=True)
    with pytest.raises(TypeError, match="size to be an integer"):
        make(7.0, missing=True)
    with pytest.raises(TypeError, match="missing to be True or False"):
        make(7, missing=1)


@pytest.mark.slow
def test_zeros_and_ones_of_any_type_are_symbols():
    head = jrnn.heads.bernoulli()
    model = jrnn.sequence_model(jrnn.gru(1, 2), head)
    params = model.init(jax.random.key(0))
    xs = np.array([0, 1, 1, 0])
    _, expected = model.log_prob(params, xs.astype(np.float32))
    for kind in (bool, np.int32, np.uint8):
        assert_close(model.log_prob(params, xs.astype(kind))[1], expected, 0.0)
    _, logits = model.predictive(params, xs.astype(bool))
    scored = logits.log_prob(jnp.asarray(xs, bool))
    assert_close(scored, expected, 1e-6)
    with pytest.raises(ValueError, match="zeros and ones.*got 2.0"):
        model.log_prob(params, xs * 2)


P = np.array([1e-6, 0.01, 0.3, 0.5, 0.77, 0.999])
CLOSED = {
    "gaussian": (jrnn.gaussian, stats.norm, ()),
    "student_t": (jrnn.heads.student_t, stats.t, (3,)),
    "mixture of logistics": (
        lambda: jrnn.heads.mixture(1, jrnn.heads.logistic_kernel),
        stats.logistic,
        (),
    ),
}
RIGHT = {"float64": 1e-10, "float32": 1e-6}


def located(name, dtype):
    """A distribution of 6 numbers, and SciPy's of the same parameters."""
    make, law, _ = CLOSED[name]
    loc, scale = np.linspace(-2, 3, 6), np.linspace(0.1, 4, 6)
    dof = np.array([2.1, 3.0, 4.5, 8.0, 20.0, 40.0])
    predicted = {
        "gaussian": Normal(loc, scale),
        "student_t": StudentT(loc, scale, dof),
        "mixture of logistics": Mixture(np.zeros((6, 1)), loc[:, None], scale[:, None]),
    }[name]
    predicted = jax.tree.map(lambda a: jnp.asarray(a, dtype), predicted)
    exact = [np.asarray(a, float).ravel() for a in jax.tree.leaves(predicted)]
    exact = [*exact[2:], *exact[:2]] if name == "student_t" else exact[-2:]
    return jrnn.heads.Distribution(make().family, predicted), law(*exact)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", RIGHT)
@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "student_t",
        "mixture of logistics",
    ],
)
def test_quantile_and_variance_equal_scipy(name, dtype):
    predicted, law = located(name, dtype)
    p = jnp.asarray(P, dtype)
    quantile = jax.jit(jrnn.heads.Distribution.quantile)
    got = quantile(predicted, p)
    assert got.dtype == p.dtype
    expected, spread = law.ppf(np.asarray(p, float)), law.std()
    error = np.abs(np.asarray(got) - expected) / spread
    assert error.max() <= RIGHT[dtype] * np.abs(expected / spread).max()
    variance = np.asarray(jax.jit(jrnn.heads.Distribution.variance)(predicted))
    np.testing.assert_allclose(variance, law.var(), rtol=RIGHT[dtype])
    ends = quantile(predicted, jnp.asarray([0, 1, 0, 1, 1.5, np.nan], dtype))
    np.testing.assert_array_equal(ends, [*[-np.inf, np.inf] * 2, np.nan, np.nan])


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTION)
def test_quantiles_are_where_the_distribution_function_is(name):
    head = BY_NAME[name].make()
    params, shown, _ = drawn(head)
    for p in (1e-3, 0.05, 0.5, 0.9):
        at = jax.jit(ask(head, "quantile"))(params, shown, p)
        assert at.shape == (6, *head.event_shape)
        np.testing.assert_allclose(head.predict(params, shown).cdf(at), p, rtol=1e-7)
    one = jax.vmap(lambda f, p: head.predict(params, f).quantile(p))
    several = one(shown, jnp.full(6, 0.9))
    assert_close(several, at, 1e-12)
    assert not np.asarray(
        jax.grad(lambda f: head.predict(params, f).quantile(0.1).sum())(shown)
    ).any()


def test_moments_and_quantiles_of_a_quantised_signal_are_sums_over_its_levels():
    head = BY_NAME["discretised"].make()
    params, shown, _ = drawn(head, scale=3.0)
    levels = GRID["lowest"] + GRID["step"] * np.arange(LEVELS)
    every = jnp.asarray(np.repeat(levels[:, None], 6, axis=1))
    wide = jnp.asarray(np.repeat(shown[None], LEVELS, axis=0))
    p = np.exp(jax.jit(head.log_prob)(params, wide, every))
    variance = (p * every**2).sum(0) - (p * every).sum(0) ** 2
    got = jax.jit(ask(head, "variance"))(params, shown)
    np.testing.assert_allclose(got, variance, rtol=1e-9, atol=1e-12)
    quantile = jax.jit(ask(head, "quantile"))
    for probability in (0.0, 0.05, 0.4, 0.95):
        first = (p.cumsum(0) >= probability).argmax(0)
        at = quantile(params, shown, probability)
        np.testing.assert_allclose(at, levels[first], atol=1e-12)


@pytest.mark.slow
def test_variances_of_components_are_those_of_each_alone():
    head = BY_NAME["gaussian full"].make()
    params, shown, _ = drawn(head)
    mean, s, phi = (np.asarray(p) for p in head.predict(params, shown).parameters)
    S = np.array([covariance((mean[r], s[r], phi[r])) for r in range(6)])
    variance = np.einsum("rii->ri", S)
    predicted = head.predict(params, shown)
    np.testing.assert_allclose(predicted.variance(), variance, rtol=1e-12)
    at = stats.norm.ppf(0.05, mean, np.sqrt(variance))
    np.testing.assert_allclose(predicted.quantile(0.05), at, rtol=1e-10)
    pair = BY_NAME["mixture of logistics of 2"].make()
    params, shown, _ = drawn(pair)
    log_w, loc, scale = (np.asarray(p) for p in pair.predict(params, shown).parameters)
    w = np.exp(log_w)[:, None, :]
    within = (w * (stats.logistic.var(loc, scale) + loc**2)).sum(-1)
    expected = within - np.square((w * loc).sum(-1))
    variance = pair.predict(params, shown).variance()
    np.testing.assert_allclose(variance, expected, rtol=1e-10)
    coin = jrnn.heads.bernoulli()
    logits = jnp.array([-3.0, 0.0, 2.0])
    expected = stats.bernoulli.var(1 / (1 + np.exp(-logits)))
    variance = jrnn.heads.Distribution(coin.family, logits).variance()
    np.testing.assert_allclose(variance, expected, rtol=1e-12)


def test_a_student_t_without_a_variance_says_so():
    family = independent(None)
    dof = jnp.array([0.5, 1.5, 2.0, 3.0])
    got = family.variance(StudentT(0 * dof, 1 + 0 * dof, dof))
    np.testing.assert_array_equal(got[:3], [np.nan, np.inf, np.inf])
    np.testing.assert_allclose(got[3], 3.0, rtol=1e-12)


def test_nothing_is_broadcast_in_silence():
    wide = Normal(jnp.zeros((7, 5, 2)), jnp.ones((7, 5, 2)))
    wide = jrnn.heads.Distribution(jrnn.gaussian(2).family, wide)
    for shape in ((7, 5, 1), (7, 1, 2), (5, 2)):
        for function in (wide.log_prob, wide.cdf):
            with pytest.raises(ValueError, match="x, the values, of shape"):
                function(jnp.zeros(shape))
    names = jrnn.heads.Distribution(jrnn.categorical(3).family, jnp.zeros((7, 5, 3)))
    with pytest.raises(ValueError, match="x, the ids, of shape"):
        names.log_prob(jnp.zeros((7, 1), int))
