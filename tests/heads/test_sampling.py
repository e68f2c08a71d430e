"""Drawing symbols: top-k, top-p and temperature against distributions by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.heads.distribution import Distribution
from jrnn.heads.sampling import Truncation, _kept

FAMILY = jrnn.categorical(5).family
P = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
TIED = np.array([0.2, 0.2, 0.2, 0.2, 0.2])


def truncated(p, tau=1.0, top_k=None, top_p=None):
    """The probabilities that are left, by the definition."""
    with np.errstate(divide="ignore"):
        heated = np.exp(np.log(p) / tau)
    heated = heated / heated.sum()
    order = sorted(range(len(p)), key=lambda s: (-heated[s], s))[:top_k]
    kept, total = [], 0.0
    for s in order if top_p != 1 else ():
        if total >= (top_p or 0) and kept:
            break
        kept.append(s)
        total += heated[s] / heated[order].sum()
    kept = order if top_p in (None, 1) else kept
    left = np.where(np.isin(np.arange(len(p)), kept), heated, 0)
    return left / left.sum()


COUNT = 3000  # draws of one shape in every test, so that programs are shared


def draw(p, seed=0, count=COUNT, **given):
    with np.errstate(divide="ignore"):
        log_p = np.broadcast_to(np.log(p), (count, len(p)))
    drawn = Distribution(FAMILY, jnp.asarray(log_p)).sample(
        jax.random.key(seed), **given
    )
    return np.asarray(drawn)


CASES = [
    {"top_k": 2},
    {"top_k": 5},
    {"top_k": 99},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.5},
    {"top_p": 0.84},
    {"top_p": 0.86},
    {"top_p": 1.0},
    {"top_k": 3, "top_p": 0.6},
    {"temperature": 2.0, "top_p": 0.6},
    {"temperature": 0.25, "top_k": 4, "top_p": 0.9},
]


@pytest.mark.parametrize("p", [P, TIED, np.array([0.5, 0.0, 0.5, 0.0, 0.0])])
@pytest.mark.parametrize("given", CASES, ids=str)
def test_truncated_draws_are_those_of_the_truncated_distribution(p, given):
    """With the same key the same draws: noise is added to each log-probability."""
    tau = given.get("temperature", 1.0)
    expected = truncated(p, tau, given.get("top_k"), given.get("top_p"))
    drawn = draw(p, **given)
    np.testing.assert_array_equal(drawn, draw(expected))
    assert set(drawn) <= set(np.flatnonzero(expected))


def test_shares_are_those_of_the_truncated_distribution():
    drawn = draw(P, top_k=4, top_p=0.8, temperature=1.5)
    expected = truncated(P, 1.5, 4, 0.8)
    assert np.count_nonzero(expected) == 3
    shares = np.bincount(drawn, minlength=5) / COUNT
    # Five standard deviations of a binomial share.
    spread = 5 * np.sqrt(expected * (1 - expected) / COUNT)
    assert (np.abs(shares - expected) <= spread).all()


def test_of_equal_symbols_the_first_are_kept():
    assert set(draw(TIED, top_k=2)) == {0, 1}
    assert set(draw(TIED, top_p=0.5)) == {0, 1, 2}
    assert set(draw(TIED, top_p=1.0)) == set(range(5))
    assert set(draw(TIED, top_p=0.0)) == {0}


def test_at_1_rounding_leaves_nothing_out():
    scaled = jnp.array([0.0, -50.0])  # the first sums to 1 in 64 bits
    assert _kept(scaled, Truncation(top_p=jnp.array(1.0))).all()
    assert not _kept(scaled, Truncation(top_p=jnp.array(0.99))).all()


def test_each_sequence_has_its_own_numbers():
    k = jnp.tile(jnp.array([1, 2, 5], jnp.int8), COUNT // 3)
    p = jnp.tile(jnp.array([0.0, 0.5, 1.0], jnp.float32), COUNT // 3)
    seen = lambda **given: [set(column) for column in draw(P, **given).reshape(-1, 3).T]
    assert seen(top_k=k) == [{1}, {1, 3}, set(range(5))]
    assert seen(top_p=p, temperature=jnp.ones(COUNT)) == [{1}, {1, 3}, set(range(5))]
    assert seen(top_p=p, top_k=2) == [{1}, {1}, {1, 3}]


@pytest.mark.parametrize("given", [{}, {"top_k": 2}, {"top_p": 0.5}])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_failed_prediction_gives_no_symbol(wrong, given):
    log_p = np.tile(np.log(P), (COUNT, 1))
    log_p[1, 2], log_p[2] = wrong, -np.inf
    drawn = Distribution(FAMILY, jnp.asarray(log_p)).sample(jax.random.key(0), **given)
    assert drawn[1] == drawn[2] == -1
    assert (np.delete(drawn, [1, 2]) >= 0).all()


def test_traced_numbers_that_are_none_give_no_symbol():
    log_p = jnp.log(jnp.asarray(P))

    @jax.jit
    def sample(tau, p, k):
        return Distribution(FAMILY, log_p).sample(jax.random.key(0), tau, k, p)

    assert sample(1.0, 1.0, 5) >= 0
    assert sample(jnp.nan, 1.0, 5) == -1
    assert sample(1.0, jnp.nan, 5) == -1
    assert sample(1.0, -1.0, 5) == sample(1.0, 1.0, -1) == 1  # as 0 and 1


def test_an_infinite_temperature_draws_what_is_possible():
    p = np.array([0.9, 0.0, 0.1, 0.0, 0.0])
    assert set(draw(p, temperature=np.inf)) == {0, 2}


WRONG = [
    ({"top_k": 0}, ValueError, "top_k to be at least 1, got 0"),
    ({"top_k": 1.0}, TypeError, "top_k to be an integer.*got 1.0"),
    ({"top_k": True}, TypeError, "top_k to be an integer.*got True"),
    (
        {"top_k": jnp.ones(3, int)},
        ValueError,
        r"top_k .*shape \(2,\), got shape \(3,\)",
    ),
    ({"top_p": 1.5}, ValueError, "top_p to be a probability within 0..1, got 1.5"),
    ({"top_p": float("nan")}, ValueError, "top_p to be a probability.*got nan"),
    ({"top_p": np.array([0.5, -0.1])}, ValueError, "top_p to be a prob.*got -0.1"),
    ({"top_p": "most"}, TypeError, "top_p to be a number.*got 'most'"),
    ({"top_p": 1j}, TypeError, "top_p to be a number"),
    ({"top_p": True}, TypeError, "top_p to be a number"),
]


@pytest.mark.parametrize(("given", "kind", "words"), WRONG, ids=lambda x: str(x)[:20])
def test_wrong_numbers_are_refused(given, kind, words):
    predicted = Distribution(FAMILY, jnp.log(jnp.stack([jnp.asarray(P)] * 2)))
    with pytest.raises(kind, match=words):
        predicted.sample(jax.random.key(0), **given)


@pytest.mark.parametrize("name", ["top_k", "top_p"])
def test_numbers_have_no_most_probable_symbols(name):
    predicted = Distribution(jrnn.heads.bernoulli().family, jnp.zeros(3))
    with pytest.raises(TypeError, match=f"token ids for {name}, .*got {name}=1 for a"):
        predicted.sample(jax.random.key(0), **{name: 1})


@pytest.mark.longer
def test_a_mixture_whose_weights_are_nan_draws_nan():
    head = jrnn.heads.mixture(2)
    parameters = jax.tree.map(
        lambda leaf: jnp.ones((3, *leaf.shape)),
        head.predict(head.init(jax.random.key(0), 1), jnp.zeros(1)).parameters,
    )
    log_w = jnp.full((3, 2), np.log(0.5)).at[1].set(jnp.nan)
    predicted = Distribution(head.family, parameters._replace(log_weights=log_w))
    drawn = predicted.sample(jax.random.key(0))
    assert jnp.isnan(drawn).tolist() == [False, True, False]
