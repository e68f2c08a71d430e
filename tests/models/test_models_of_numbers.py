"""Models of numbers: chunks, lengths, missing values, samples, labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jrnn
from jrnn.heads.normal import Normal
from tests.head_registry import BY_NAME, targets
from tests.helpers import assert_close, random_like, shapes_of

T, B = 7, 2


# Every head, size and switch is in one of these at least, and each fact in one pair.
MODELS = [
    ("gaussian", False),
    ("gaussian full", True),
    ("student_t of 2", True),
    ("mixture of logistics of 2", False),
    ("discretised", True),
    ("bernoulli of 2", True),
]


def models(quick):
    """The models for pytest's parametrize, all but the named ones slow."""
    for name, missing in MODELS:
        marks = () if name in quick else pytest.mark.slow
        yield pytest.param((BY_NAME[name], missing), id=name, marks=marks)


def each(*quick):
    return pytest.mark.parametrize("which", list(models(quick)))


def built(which):
    """A model, its parameters, a sequence, and a mask or None."""
    case, missing = which
    head = case.make(missing=missing)
    model = jrnn.sequence_model(jrnn.gru(head.spec.input_size, 3), head)
    params = random_like(1, shapes_of(model.init), 0.6)
    xs = targets(head, (T, B))
    known = np.random.default_rng(4).random(xs.shape) < 0.6
    return model, params, xs, jnp.asarray(known) if missing else None


def at(mask, steps):
    return None if mask is None else mask[steps]


@each()
def test_chunks_and_steps_equal_the_whole(which):
    model, params, xs, mask = built(which)
    state, whole = model.log_prob(params, xs, mask=mask)
    assert whole.shape == (T, B)
    now, parts = None, []
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        now, log_probs = model.log_prob(params, xs[part], now, mask=at(mask, part))
        parts.append(log_probs)
    assert_close(jnp.concatenate(parts), whole, 1e-12)
    assert_close(now, state, 1e-12)
    now = model.init_state(params, (B,))
    for t in range(2):
        now, log_p = model.step(params, now, xs[t], mask=at(mask, t))
        assert_close(log_p, whole[t], 1e-12)


@each()
def test_padding_changes_no_bit_and_a_length_is_a_shorter_sequence(which):
    model, params, xs, mask = built(which)
    lengths = jnp.array([4, 0])
    start, _ = model.log_prob(params, xs[:2], mask=at(mask, slice(2)))

    def score(params, xs):
        state, log_probs = model.log_prob(params, xs, start, lengths, mask=mask)
        return log_probs.sum(), (state, log_probs)

    past = (np.arange(T)[:, None] >= lengths[None]).reshape(T, B, *[1] * (xs.ndim - 2))
    dirty = jnp.asarray(np.where(past, np.nan, xs))
    run = jax.value_and_grad(score, argnums=(0, 1), has_aux=True)
    assert_close(run(params, dirty), run(params, xs), 0.0)
    (_, (state, log_probs)), (_, dxs) = run(params, dirty)
    assert not log_probs[4:].any()
    assert not log_probs[:, 1].any()
    assert not np.where(past, dxs, 0).any()
    first = jax.tree.map(lambda leaf: leaf[0], (state.cell, state.last))
    whole, expected = model.log_prob(params, xs[:4], start, mask=at(mask, slice(4)))
    assert_close(log_probs[:4, 0], expected[:, 0], 1e-12)
    shorter = jax.tree.map(lambda leaf: leaf[0], (whole.cell, whole.last))
    assert_close(first, shorter, 1e-12)
    second = jax.tree.map(lambda leaf: leaf[1], state)
    assert_close(second, jax.tree.map(lambda leaf: leaf[1], start), 0.0)


@pytest.mark.longer
@each("student_t of 2")
def test_missing_values_change_no_bit_and_the_next_step_knows(which):
    model, params, xs, mask = built(which)
    if mask is None:
        with pytest.raises(ValueError, match="with missing=True"):
            model.log_prob(params, xs, mask=jnp.ones(xs.shape, bool))
        return

    def run(garbage):
        score = lambda params, xs: model.log_prob(params, xs, mask=mask)[1].sum()
        hidden = jnp.asarray(np.where(mask, xs, garbage))
        return jax.value_and_grad(score, argnums=(0, 1))(params, hidden)

    first = run(np.nan)
    assert_close(run(np.inf), first, 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    # A zero that was measured is told from nothing, from the next step on.
    zero = xs.at[2].set(0.0) if "discretised" not in repr(model.head) else xs
    known = jnp.ones(xs.shape, bool)
    _, seen = model.log_prob(params, zero, mask=known)
    _, unseen = model.log_prob(params, zero, mask=known.at[2].set(False))
    assert (seen[:2] == unseen[:2]).all()
    assert not unseen[2].any()
    assert (seen[3] != unseen[3]).all()
    by_step = jnp.ones((T, B), bool).at[2].set(False)  # all components of a step
    assert_close(model.log_prob(params, zero, mask=by_step)[1], unseen, 0.0)


@each()
def test_the_state_that_predicts_has_not_read_what_it_predicts(which):
    model, params, xs, mask = built(which)
    _, before = model.predictive(params, xs, mask=mask)
    known = None if mask is None else mask.at[3].set(True)
    other = xs.at[3].set(1.0 - xs[3] if "bernoulli" in repr(model.head) else xs[4])
    _, after = model.predictive(params, other, mask=known)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (a[:4] == b[:4]).all()
    assert (model.log_prob(params, other, mask=known)[1][4:] != 0).any()


@each()
def test_predictions_are_what_is_scored(which):
    model, params, xs, mask = built(which)
    _, whole = model.log_prob(params, xs, mask=mask)
    state, predicted = model.predictive(params, xs, mask=mask)
    scored = predicted.log_prob(xs, mask)
    assert_close(scored, whole, 1e-12)
    following = model.predict(params, state)
    _, more = model.log_prob(params, xs[:1], state, mask=at(mask, slice(1)))
    scored = following.log_prob(xs[0], at(mask, 0))
    assert_close(scored, more[0], 1e-12)


@pytest.mark.slow
@each()
def test_samples_go_on_from_the_prompt(which):
    model, params, xs, _ = built(which)
    key = functools.partial(jax.random.key, 7)  # a new one for each use
    drawn = model.sample(params, key(), 3, prompt=xs)
    assert drawn.shape == (3, *xs.shape[1:])
    assert (drawn == model.sample(params, key(), 3, prompt=xs)).all()
    model.log_prob(params, drawn)  # they are values that the head can score
    one = model.sample(params, key(), 3, prompt=xs[:, 0], batch_shape=(5,))
    assert one.shape == (3, 5, *xs.shape[2:])
    state, _ = model.log_prob(params, xs)
    cold = model.sample(params, key(), 1, prompt=xs, temperature=0.0)
    expected = model.predict(params, state).sample(key(), 0.0)
    assert_close(cold[0], expected, 1e-12)


@pytest.mark.slow
def test_a_history_with_gaps_is_gone_on_from():
    model, params, xs, mask = built((BY_NAME["gaussian"], True))
    key = functools.partial(jax.random.key, 7)  # a new one for each use
    gaps = jnp.where(mask, xs, jnp.nan)
    drawn = model.sample(params, key(), 3, prompt=gaps, prompt_mask=mask)
    state, _ = model.log_prob(params, gaps, mask=mask)
    assert_close(model.sample(params, key(), 3, state=state), drawn, 1e-12)
    half, _ = model.log_prob(params, gaps[:4], mask=mask[:4])
    rest = {"prompt": gaps[4:], "prompt_mask": mask[4:]}
    assert_close(model.sample(params, key(), 3, state=half, **rest), drawn, 1e-12)
    full = model.sample(params, key(), 3, prompt=jnp.where(mask, xs, 0))
    assert (full != drawn).any()
    # One state, or one prompt with its gaps, serves a batch.
    alone, _ = model.log_prob(params, gaps[:, 0], mask=mask[:, 0])
    many = model.sample(params, key(), 3, batch_shape=(2,), state=alone)
    one = {"prompt": gaps[:, 0], "prompt_mask": mask[:, 0]}
    assert_close(model.sample(params, key(), 3, batch_shape=(2,), **one), many, 1e-12)
    start = model.init_state(params)
    again = model.sample(params, key(), 3, batch_shape=(2,), state=start, **one)
    assert_close(again, many, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "discretised", "bernoulli of 2"])
def test_what_a_model_says_of_the_next_step_is_what_it_predicts(name):
    which = BY_NAME[name], name != "gaussian"
    model, params, xs, mask = built(which)
    lengths = jnp.array([T, 4])
    state, predicted = model.predictive(params, xs, lengths=lengths, mask=mask)
    within = jnp.arange(T)[:, None] < lengths[None]
    counts = within.reshape(T, B, *(1,) * (xs.ndim - 2))
    scored = predicted.log_prob(xs, within if mask is None else counts & mask)
    after, expected = model.log_prob(params, xs, lengths=lengths, mask=mask)
    assert_close(after, state, 0.0)
    assert_close(scored, expected, 1e-12)
    # One distribution, whole or in parts, compiled or not.
    compiled = jax.jit(lambda p: model.predictive(p, xs, lengths=lengths, mask=mask)[1])
    for function in (jrnn.heads.Distribution.mean, jrnn.heads.Distribution.variance):
        value = function(predicted)
        assert value.shape == predicted.shape == xs.shape
        assert_close(jax.jit(function)(compiled(params)), value, 1e-12)
        assert_close(jax.vmap(function)(predicted), value, 1e-12)
        last = jax.tree.map(lambda a: a[-1], predicted)
        assert_close(function(last), value[-1], 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "student_t", "mixture"])
def test_samples_are_uniform_under_their_own_distribution_functions(name):
    model, params, _, _ = built((BY_NAME[name], False))
    xs = model.sample(params, jax.random.key(8), 3, batch_shape=(4000,))
    _, predicted = model.predictive(params, xs)
    u = np.asarray(predicted.cdf(xs))
    for t in range(3):
        assert stats.kstest(u[t], "uniform").pvalue > 1e-4
    later = np.corrcoef(u)[np.triu_indices(3, 1)]
    assert np.abs(later).max() < 5 / np.sqrt(4000)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("float32", "float64"), ("bfloat16", "float32")])
def test_types_mix(kinds):
    model = jrnn.sequence_model(jrnn.lstm(4, 3), jrnn.gaussian(2, True, True))
    params = model.init(jax.random.key(0), jnp.dtype(kinds[0]))
    xs = jnp.ones((5, 2), jnp.dtype(kinds[1]))
    mask = jnp.ones((5, 2), bool).at[1, 1].set(False)
    state, log_probs = model.log_prob(params, xs, mask=mask)
    assert log_probs.dtype == state.last.x.dtype == jnp.dtype(kinds[1])
    again, _ = model.log_prob(params, xs, state, mask=mask, lengths=jnp.array(2))
    like = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)
    assert like(again) == like(state)
    assert jnp.isfinite(model.sample(params, jax.random.key(0), 2, prompt=xs)).all()
    assert jnp.isfinite(model.sample(params, jax.random.key(0), 2)).all()


def labelled(pool=None):
    model = jrnn.supervised_model(jrnn.gru(3, 4), jrnn.gaussian(2), pool)
    params = random_like(1, shapes_of(model.init))
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, 3), jnp.float64))
    shape = (T, B, 2) if pool is None else (B, 2)
    return model, params, xs, random_like(3, jax.ShapeDtypeStruct(shape, jnp.float64))


@pytest.mark.slow
@pytest.mark.parametrize("pool", [None, jrnn.models.last_pool])
def test_numbers_as_labels(pool):
    model, params, xs, labels = labelled(pool)
    lengths = jnp.array([T, 3])
    known = jnp.asarray(np.random.default_rng(0).random(labels.shape) < 0.5)
    dirty = jnp.asarray(np.where(known, labels, np.nan))
    if pool is None:
        dirty = dirty.at[3:, 1].set(jnp.inf)  # past its length
    got = model.log_prob(params, xs, dirty, labels_mask=known, lengths=lengths)
    predicted = model.predict(params, xs, lengths=lengths)
    mean, scale = predicted.parameters
    terms = np.where(known, stats.norm.logpdf(labels, mean, scale), 0).sum(-1)
    if pool is None:
        terms[3:, 1] = 0
    np.testing.assert_allclose(got, terms, rtol=1e-10, atol=1e-13)
    assert_close(predicted.mean(), mean, 0.0)
    counts = known if pool is not None else known.at[3:, 1].set(False)
    below = predicted.cdf(dirty, counts)
    expected = np.where(counts, stats.norm.cdf(labels, mean, scale), 0)
    np.testing.assert_allclose(below, expected, rtol=1e-10)
    np.testing.assert_allclose(predicted.variance(), scale**2, rtol=1e-12)
    at = predicted.quantile(0.05)
    np.testing.assert_allclose(at, stats.norm.ppf(0.05, mean, scale), rtol=1e-10)
    with pytest.raises(ValueError, match="labels of shape"):
        model.log_prob(params, xs, labels[:1])
    with pytest.raises(ValueError, match="finite numbers"):
        model.log_prob(params, xs, labels.at[0].set(jnp.nan))


def test_labels_are_checked_wherever_they_are_given():
    model = jrnn.supervised_model(jrnn.gru(3, 4), jrnn.gaussian())
    params = model.init(jax.random.key(0))
    xs = jnp.ones((7, 5, 3), jnp.float32)
    for shape in ((7, 1), (5,)):
        with pytest.raises(ValueError, match=r"labels of shape \(7, 5\)"):
            model.log_prob(params, xs, jnp.zeros(shape, jnp.float32))
    with pytest.raises(TypeError, match="labels of a floating type"):
        model.log_prob(params, xs, jnp.zeros((7, 5), int))


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("garbage", [0.0, np.nan, np.inf])
def test_a_distribution_function_is_0_where_a_mask_says_so(garbage):
    predicted = Normal(jnp.ones((7, 5, 2)), jnp.full((7, 5, 2), 2.0))
    predicted = jrnn.heads.Distribution(jrnn.gaussian(2).family, predicted)
    lengths = jnp.array([7, 7, 0, 7, 2])
    steps = np.arange(7)[:, None] < lengths[None]
    xs = jnp.where(steps[..., None], jnp.zeros((7, 5, 2)), garbage)
    below = predicted.cdf(xs, jnp.arange(len(xs))[:, None] < lengths[None])
    expected = np.broadcast_to(steps[..., None], xs.shape)
    np.testing.assert_array_equal(below > 0, expected)
    np.testing.assert_allclose(below[0, 0], stats.norm.cdf(-0.5), rtol=1e-12)
    one = jnp.ones((7, 5, 2), bool).at[3, 1, 0].set(False)
    assert (predicted.cdf(xs, one)[3, 1] > 0).tolist() == [False, True]
    with pytest.raises(ValueError, match="mask of the shape of the values"):
        predicted.cdf(xs, one[:1])
