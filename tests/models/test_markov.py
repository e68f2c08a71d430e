"""Markov chains, against counts in Python dicts."""

import functools
import math
import subprocess
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn


class Counted:
    """The same chain from dicts: counts of (context, symbol), smoothed downwards."""

    def __init__(self, vocab_size, order, sequences, w=1.0):
        self.V, self.order, self.w = vocab_size, order, w
        self.counts = Counter()
        for text in sequences:
            for t, symbol in enumerate(text):
                for m in range(min(order, t) + 1):
                    self.counts[tuple(text[t - m : t]), symbol] += 1

    def p(self, symbol, history):
        p = 1 / self.V
        for m in range(min(self.order, len(history)) + 1):
            context = tuple(history[len(history) - m :])
            row = [self.counts[context, s] for s in range(self.V)]
            n, d = sum(row), sum(c > 0 for c in row)
            if n:
                p = (row[symbol] + self.w * d * p) / (n + self.w * d)
        return p

    def log_probs(self, text):
        return [math.log(self.p(s, text[:t])) for t, s in enumerate(text)]


def texts(seed, vocab_size, *lengths):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab_size, n).tolist() for n in lengths]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("vocab_size", "order", "w"), [(2, 3, 1.0), (5, 2, 0.3), (3, 0, 2.0)]
)
def test_equals_counts_in_dicts(vocab_size, order, w):
    (text, other) = texts(0, vocab_size, 80, 30)
    chain = jrnn.markov_chain(vocab_size, order, w)
    params = chain.fit(np.array(text))
    _, got = chain.log_prob(params, np.array(other))
    expected = Counted(vocab_size, order, [text], w).log_probs(other)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.slow
def test_contexts_cross_neither_sequences_nor_lengths():
    lengths = [9, 0, 5]
    sequences = texts(1, 3, *lengths)
    padded = np.full((9, 3), 2)
    for i, text in enumerate(sequences):
        padded[: len(text), i] = text
    chain = jrnn.markov_chain(3, 2)
    params = chain.fit(padded, np.array(lengths))
    other = texts(2, 3, 12)[0]
    expected = Counted(3, 2, sequences).log_probs(other)
    _, got = chain.log_prob(params, np.array(other))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.longer
def test_the_first_levels_are_the_lower_orders():
    text = np.array(texts(3, 4, 100)[0])
    params = jrnn.markov_chain(4, 2).fit(text)
    for order in range(3):
        chain = jrnn.markov_chain(4, order)
        for a, b in zip(params[: order + 1], chain.fit(text), strict=True):
            assert all((x == y).all() for x, y in zip(a, b, strict=True))
    with pytest.raises(ValueError, match="the 2 levels of a chain of order 1, got 3"):
        jrnn.markov_chain(4, 1).log_prob(params, text)


@pytest.mark.slow
def test_predict_is_the_distribution_that_log_prob_scores():
    chain = jrnn.markov_chain(4, 2)
    params = chain.fit(np.array(texts(4, 4, 60)[0]))
    history = jnp.array([[3, 1], [0, 2], [1, 1]])
    state, _ = chain.log_prob(params, history)
    predicted = chain.predict(params, state).parameters
    assert predicted.shape == (2, 4)
    np.testing.assert_allclose(jnp.exp(predicted).sum(-1), 1, rtol=1e-12)
    for symbol in range(4):
        _, log_probs = chain.log_prob(params, jnp.full((1, 2), symbol), state)
        np.testing.assert_allclose(log_probs[0], predicted[:, symbol], rtol=1e-12)


@pytest.mark.longer
@pytest.mark.parametrize("order", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_what_a_chain_predicts_of_a_text_is_what_it_scores(order):
    chain = jrnn.markov_chain(3, order)
    params = chain.fit(np.array(texts(4, 3, 60)[0]))
    xs, lengths = jnp.array([[0, 1], [2, 2], [1, 0], [1, 1]]), jnp.array([4, 2])
    state, expected = chain.log_prob(params, xs, lengths=lengths)
    after, predicted = chain.predictive(params, xs, lengths=lengths)
    assert (after == state).all()
    within = jnp.arange(4)[:, None] < lengths[None]
    np.testing.assert_allclose(predicted.log_prob(xs, within), expected, rtol=1e-12)


@pytest.mark.longer
def test_an_unseen_symbol_and_an_unseen_context_have_a_price():
    chain = jrnn.markov_chain(3, 1)
    params = chain.fit(np.array([0, 0, 0]))
    _, got = chain.log_prob(params, jnp.array([0, 1, 2]))
    # n = 3, d = 1: P(0) = (3 + 1/3) / 4, P(1) = P(2) = (1/3) / 4;
    # after 0, n = 2, d = 1: P(1|0) = (0 + P(1)) / 3; 1 was never a context.
    expected = [10 / 12, 1 / 36, 1 / 12]
    np.testing.assert_allclose(jnp.exp(got), expected, rtol=1e-12)


@pytest.mark.slow
def test_a_long_text_in_pieces_equals_the_whole(monkeypatch):
    text = np.array(texts(5, 3, 70)[0])
    chain = jrnn.markov_chain(3, 3)
    params = chain.fit(text)
    whole = chain.log_prob(params, text)[1]
    monkeypatch.setattr("jrnn.models.interpolation.PIECE", 16)
    np.testing.assert_array_equal(chain.log_prob(params, text)[1], whole)
    by_jit = jax.jit(chain.log_prob)(params, text)[1]
    np.testing.assert_allclose(by_jit, whole, rtol=1e-12)


@pytest.mark.longer
def test_an_order_beyond_the_text():
    chain = jrnn.markov_chain(3, 3)
    params = chain.fit(np.array([0, 1]))
    text = [0, 1, 0, 1, 2, 2, 0, 1]
    _, got = chain.log_prob(params, np.array(text))
    expected = Counted(3, 3, [[0, 1]]).log_probs(text)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    total = jnp.exp(chain.predict(params, chain.init_state(params)).parameters).sum()
    np.testing.assert_allclose(total, 1, rtol=1e-12)


@pytest.mark.longer
def test_bytes_count_as_wider_integers_do():
    xs, lengths = np.array([[1, 2], [3, 4], [255, 6]], np.uint8), np.array([3, 1])
    chain = jrnn.markov_chain(256, 1)
    narrow = chain.fit(xs, lengths.astype(np.int32))  # narrower than JAX's default
    wide = chain.fit(xs.astype(int), lengths)
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(a, b)
    _, log_probs = jax.jit(chain.log_prob)(wide, np.array([1, 1 + 2**32]))
    assert np.isnan(log_probs).tolist() == [False, True]


def test_counts_of_contexts():
    params = jrnn.markov_chain(3, 1).fit(np.array([0, 1, 0, 1, 0, 2]))
    counts = jrnn.models.context_counts(params)
    assert counts[0] == (1, 6.0)
    assert counts[1] == (2, 2.5)  # 0 was followed three times, 1 twice, 2 never


def test_foreign_symbols():
    chain = jrnn.markov_chain(3, 1)
    params = chain.fit(np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="within 0..2, got 3"):
        chain.log_prob(params, np.array([0, 3]))
    with pytest.raises(ValueError, match="within 0..2, got -1"):
        chain.fit(np.array([0, -1]))
    _, log_probs = jax.jit(chain.log_prob)(params, np.array([0, 7, -1, 1]))
    assert np.isnan(log_probs).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: jrnn.markov_chain(0, 1), ValueError, "vocab_size to be at least 1"),
        (lambda: jrnn.markov_chain(2, -1), ValueError, "order to be at least 0"),
        (lambda: jrnn.markov_chain(2, 1, 0.0), ValueError, "smoothing above 0"),
        (lambda: jrnn.markov_chain(2, 1, np.inf), ValueError, "smoothing to be finite"),
        (
            lambda: jrnn.markov_chain(2, 1).fit(np.ones(3)),
            TypeError,
            "integer token ids",
        ),
        (
            lambda: jrnn.markov_chain(2, 1).fit(np.ones(0, int)),
            ValueError,
            "at least one symbol",
        ),
        (
            lambda: jrnn.markov_chain(2, 1).fit(np.ones((2, 1), int), np.array([0])),
            ValueError,
            "got an empty text",
        ),
        (
            lambda: jax.jit(jrnn.markov_chain(2, 1).fit)(np.ones(2, int)),
            TypeError,
            "fit outside jax.jit",
        ),
        (
            lambda: jrnn.markov_chain(2, 1).predict(
                jrnn.markov_chain(2, 1).fit([0, 1]), jnp.zeros(2, jnp.int32)
            ),
            ValueError,
            r"state of shape .* = \(1,\)",
        ),
        (
            lambda: jrnn.markov_chain(2, 1).log_prob(
                jrnn.markov_chain(2, 1).fit([0, 1]), jnp.array([0]), jnp.array([0, 1])
            ),
            ValueError,
            r"state of shape .* = \(1,\), got \(2,\)",
        ),
    ],
)
def test_mistakes(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.slow
def test_order_twelve_over_four_symbols():
    text = np.array(texts(6, 4, 3000)[0])
    chain = jrnn.markov_chain(4, 12)
    params = chain.fit(text)
    other = texts(7, 4, 40)[0]
    expected = Counted(4, 12, [text.tolist()]).log_probs(other)
    _, got = chain.log_prob(params, np.array(other))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


FULL_TEXT = """
import pathlib, resource, sys, time
import numpy as np
import jrnn
from experiments.data.text import encode, load_corpus
corpus = load_corpus()
text = corpus.train + corpus.valid + corpus.test
V, order = int(sys.argv[1]), int(sys.argv[2])
ids = encode(corpus.alphabet, text) % V
chain = jrnn.markov_chain(V, order)
params = chain.fit(ids)
chain.log_prob(params, ids)[1].block_until_ready()
started = time.perf_counter()
chain.log_prob(params, ids)[1].block_until_ready()
rate = len(ids) / (time.perf_counter() - started)
status = pathlib.Path("/proc/self/status")
if status.exists():  # on Linux ru_maxrss is at least what the parent has
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / (1 << 10)
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
print(len(ids), rate, peak)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("vocab_size", "order"), [(256, 6), (4, 12)])
def test_full_text_within_two_gibibytes_and_fast(vocab_size, order):
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", FULL_TEXT, str(vocab_size), str(order)],
        capture_output=True,
        text=True,
        check=True,
    )
    symbols, rate, mebibytes = map(float, done.stdout.split())
    assert symbols > 4_000_000
    assert rate >= 200_000
    assert mebibytes <= 2048


@pytest.mark.slow
def test_samples_go_on_from_a_state():
    chain = jrnn.markov_chain(3, order=2)
    key = functools.partial(jax.random.key, 0)  # a new one for each use
    # 0, 0, 1, 0, 0, 1: what follows a 0 is told by the symbol before it.
    xs = (jnp.arange(20)[:, None] + jnp.arange(4)[None]) % 3 // 2
    params = chain.fit(xs)
    state, _ = chain.log_prob(params, xs)
    drawn = chain.sample(params, key(), 5, xs)
    assert (chain.sample(params, key(), 5, state=state) == drawn).all()
    half, _ = chain.log_prob(params, xs[:19])
    assert (chain.sample(params, key(), 5, xs[19:], state=half) == drawn).all()
    one = chain.sample(params, key(), 5, state=state[:, 1], batch_shape=(4,))
    assert (one == chain.sample(params, key(), 5, xs[:, 1], batch_shape=(4,))).all()
    with pytest.raises(ValueError, match="state.* of shape"):
        chain.sample(params, key(), 5, state=state, batch_shape=(3,))
