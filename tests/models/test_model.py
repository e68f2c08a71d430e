"""Models of sequences: alignment, chunks, samples, labels; Markov and recurrent."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from jrnn import train
from jrnn.models.reading import SequenceState
from tests import reference
from tests.helpers import (
    MAIN,
    assert_close,
    error,
    random_like,
    shapes_of,
    to_numpy,
    two_of_main,
)

V = 3


def recurrent(case, h=4):
    model = jrnn.sequence_model(case.make(V, h), jrnn.categorical(V))
    params = model.init(jax.random.key(0), jnp.float64)
    return model, random_like(1, params, 0.7)


def markov(order):
    chain = jrnn.markov_chain(V, order)
    text = np.random.default_rng(0).integers(0, V, 60)
    return chain, chain.fit(text)


MODELS = {case.name: lambda case=case: recurrent(case) for case in MAIN}
MODELS |= {f"markov {k}": lambda k=k: markov(k) for k in (0, 2)}
QUICK = ("lstm", "gru before", "markov 2")
EACH = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, make in MODELS.items()
    ],
)


@pytest.mark.longer_but_the_first
@EACH
def test_probabilities_of_all_sequences_sum_to_one(make):
    model, params = make()
    every = jnp.array(list(itertools.product(range(V), repeat=4))).T  # (4, 81)
    _, log_probs = model.log_prob(params, every)
    assert abs(float(jnp.exp(log_probs.sum(0)).sum()) - 1) <= 1e-12


@pytest.mark.longer_but_the_first
@EACH
def test_chunks_with_the_state_handed_on_equal_the_whole(make):
    model, params = make()
    xs = jnp.asarray(np.random.default_rng(2).integers(0, V, (9, 2)))
    state, whole = model.log_prob(params, xs)
    parts, now = [], None
    for chunk in (xs[:1], xs[1:6], xs[6:]):
        now, log_probs = model.log_prob(params, chunk, now)
        parts.append(log_probs)
    assert_close(jnp.concatenate(parts), whole, 1e-12)
    assert_close(now, state, 1e-12)


@pytest.mark.longer_but_the_first
@EACH
def test_lengths(make):
    model, params = make()
    xs = jnp.asarray(np.random.default_rng(3).integers(0, V, (6, 3)))
    lengths = jnp.array([4, 0, 6])
    start, _ = model.log_prob(params, xs[:2])
    state, log_probs = model.log_prob(params, xs, start, lengths)
    dirty = jnp.where(jnp.arange(6)[:, None] < lengths[None], xs, 77)
    assert_close(model.log_prob(params, dirty, start, lengths), (state, log_probs), 0.0)
    whole, expected = model.log_prob(params, xs[:4], start)
    member = 0 if isinstance(start, SequenceState) else (slice(None), 0)
    pick = lambda tree: jax.tree.map(lambda leaf: leaf[member], tree)
    assert_close(log_probs[:4, 0], expected[:, 0], 1e-12)
    assert_close(pick(state), pick(whole), 1e-12)
    assert not log_probs[4:, 0].any()
    assert not log_probs[:, 1].any()
    member = 1 if isinstance(start, SequenceState) else (slice(None), 1)
    pick = lambda tree: jax.tree.map(lambda leaf: leaf[member], tree)
    assert_close(pick(state), pick(start), 0.0)


@pytest.mark.longer_but_the_first
@EACH
def test_samples_follow_the_model(make):
    model, params = make()
    count = 4000
    drawn = model.sample(params, jax.random.key(5), 2, batch_shape=(count,))
    assert drawn.shape == (2, count)
    assert drawn.dtype == jnp.int32
    pairs = jnp.array(list(itertools.product(range(V), repeat=2))).T
    p = np.exp(np.asarray(model.log_prob(params, pairs)[1].sum(0)))
    seen = np.bincount(np.asarray(drawn[0] * V + drawn[1]), minlength=V * V) / count
    # Five standard deviations of a binomial share.
    assert (np.abs(seen - p) <= 5 * np.sqrt(p * (1 - p) / count)).all()


@pytest.mark.longer_but_the_first
@EACH
def test_temperature_zero_takes_the_most_probable_after_the_prompt(make):
    model, params = make()
    prompt = jnp.array([2, 0, 1])
    drawn = model.sample(params, jax.random.key(6), 1, prompt=prompt, temperature=0.0)
    candidates = jnp.stack([jnp.append(prompt, k) for k in range(V)], axis=1)
    _, log_probs = model.log_prob(params, candidates)
    assert drawn.tolist() == [int(jnp.argmax(log_probs[-1]))]
    again = model.sample(params, jax.random.key(6), 5, prompt=prompt)
    assert (again == model.sample(params, jax.random.key(6), 5, prompt=prompt)).all()


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", two_of_main())
def test_the_state_that_predicts_has_not_read_what_it_predicts(case):
    model, params = recurrent(case)
    xs = jnp.array([0, 1, 2, 1, 0])
    _, before = model.log_prob(params, xs)
    for t in range(5):
        _, after = model.log_prob(params, xs.at[t].set((xs[t] + 1) % V))
        assert (before[:t] == after[:t]).all()
        assert before[t] != after[t]


def test_the_whole_model_is_that_of_the_notes():
    # Start vector, then the symbols so far, through Elman, dense and softmax.
    case = MAIN[0]
    model, params = recurrent(case)
    ys = np.random.default_rng(7).integers(0, V, (5, 2))
    start = np.broadcast_to(np.asarray(params.start), (1, 2, V))
    xs = np.concatenate([start, reference.one_hot(ys[:-1], V)])
    W_y, b_y = (np.asarray(leaf) for leaf in params.head)
    p = to_numpy(params.cell)
    loss, grads, _, _ = reference.notes_model(p, W_y, b_y, xs, ys, np.zeros((2, 4)))

    carry = model.init_state(params, (2,))
    compute = jax.value_and_grad(train.sequence_loss(model), has_aux=True)
    (value, _), got = compute(params, jnp.asarray(ys), carry, jax.random.key(0))
    assert abs(value - loss) < 1e-12
    for name in ("W_x", "W_h", "b"):
        assert error(getattr(got.cell, name), grads[name]) < 1e-10, name
    assert error(got.head.W_y, grads["W_y"]) < 1e-10
    assert error(got.head.b_y, grads["b_y"]) < 1e-10


def test_step_scores_one_symbol():
    model, params = recurrent(MAIN[2])
    state = model.init_state(params)
    xs, scores = jnp.array([2, 0, 1]), []
    for x in xs:
        state, log_p = model.step(params, state, x)
        scores.append(log_p)
    assert_close(jnp.stack(scores), model.log_prob(params, xs)[1], 1e-12)


def test_every_method_gives_the_same_score():
    model, params = recurrent(MAIN[1])
    xs = jnp.array([2, 0, 1, 1, 0])
    by_scan = model.log_prob(params, xs, method=jrnn.scan())
    assert_close(model.log_prob(params, xs, method=jrnn.bptt(chunk=2)), by_scan, 1e-12)


def test_foreign_symbol_under_jit_scores_nan():
    model, params = recurrent(MAIN[2])
    _, log_probs = jax.jit(model.log_prob)(params, jnp.array([0, 1, 5]))
    assert jnp.isfinite(log_probs[:2]).all()
    assert jnp.isnan(log_probs[2])


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("pool", [None, jrnn.models.last_pool, jrnn.models.mean_pool])
def test_supervised(pool):
    model = jrnn.supervised_model(jrnn.gru(2, 4), jrnn.categorical(V), pool)
    params = random_like(1, shapes_of(model.init))
    xs = random_like(2, jax.ShapeDtypeStruct((6, 2, 2), jnp.float64))
    lengths = jnp.array([4, 6])
    alone = model.predict(params, xs[:4, :1]).parameters
    both = model.predict(params, xs.at[4:, 0].set(jnp.nan), lengths=lengths).parameters
    member = (slice(4), 0) if pool is None else 0
    assert_close(both[member], alone[:, 0] if pool is None else alone[0], 1e-12)
    labels = jnp.zeros((6, 2) if pool is None else (2,), jnp.int32)
    log_probs = model.log_prob(params, xs, labels, lengths=lengths)
    if pool is None:
        assert_close(log_probs[:4, 0], both[:4, 0, 0], 1e-12)
        assert not log_probs[4:, 0].any()
    else:
        assert_close(log_probs, both[:, 0], 1e-12)
    with pytest.raises(ValueError, match="labels of shape"):
        model.log_prob(params, xs, labels[:1], lengths=lengths)


def test_pools_by_hand():
    ys = jnp.arange(6.0).reshape(3, 2, 1)
    active = jnp.array([[True, False], [True, False], [False, False]])
    assert jrnn.models.last_pool(ys, active).ravel().tolist() == [2.0, 0.0]
    assert jrnn.models.mean_pool(ys, active).ravel().tolist() == [1.0, 0.0]


def test_mean_over_steps_by_hand():
    values = jnp.array([[1.0, 2.0], [3.0, jnp.nan]])
    lengths = jnp.array([2, 1])
    assert float(jrnn.models.mean_over_steps(values, lengths)) == 2.0
    each = jrnn.models.mean_over_steps(
        jnp.array([[1.0, 5.0], [3.0, 0.0]]), lengths, per_sequence=True
    )
    assert float(each) == 3.5
    assert float(jrnn.models.bits_per_symbol(jnp.log(jnp.array([0.25])))) == 2.0


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_training_step_exports_for_every_platform():
    model, params = recurrent(MAIN[1])
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    carry = model.init_state(params, (2,))
    state = train.init_train_state(params, optimizer, jax.random.key(0), carry)
    state = state._replace(key=jax.random.key_data(state.key))
    step = train.make_train_step(train.sequence_loss(model), optimizer)

    def on_raw_keys(state, batch):
        typed = state._replace(key=jax.random.wrap_key_data(state.key))
        new, metrics = step(typed, batch)
        return new._replace(key=jax.random.key_data(new.key)), metrics

    batch = jnp.zeros((5, 2), jnp.int32)
    exported = jax.export.export(
        jax.jit(on_raw_keys), platforms=["cpu", "cuda", "tpu"]
    )(state, batch)
    new, metrics = exported.call(state, batch)
    assert math.isfinite(metrics["loss"])
    assert int(new.step) == 1


def test_models_print_as_the_calls_that_made_them():
    cell, head = jrnn.elman(3, 4), jrnn.categorical(3)
    made = f"cell={cell}, head=categorical(vocab_size=3)"
    assert repr(jrnn.sequence_model(cell, head)) == f"sequence_model({made})"
    pooled = jrnn.supervised_model(cell, head, jrnn.models.mean_pool)
    assert repr(pooled) == f"supervised_model({made}, pool=mean_pool)"
    chain = jrnn.markov_chain(3, 2)
    assert repr(chain) == "markov_chain(vocab_size=3, order=2, smoothing=1.0)"
    log_p = jrnn.heads.Distribution(head.family, np.zeros(3))
    assert repr(log_p) == "Distribution(parameters=array([0., 0., 0.]))"
