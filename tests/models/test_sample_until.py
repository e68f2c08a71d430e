"""Sampling token ids: up to an end symbol, truncated, compiled once."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests.helpers import random_like, shapes_of

V, END = 3, 2


def key(seed=0):
    return jax.random.key(seed)


@functools.cache
def recurrent():
    model = jrnn.sequence_model(jrnn.gru(V, 4), jrnn.categorical(V))
    return model, random_like(1, shapes_of(model.init), 0.7)


@functools.cache
def markov():
    chain = jrnn.markov_chain(V, 1)
    return chain, chain.fit(np.random.default_rng(0).integers(0, V, 60))


EACH = pytest.mark.parametrize("make", [recurrent, markov])
QUICK = pytest.mark.parametrize(
    "make", [recurrent, pytest.param(markov, marks=pytest.mark.slow)]
)
MOST, COUNT = 4, 4000  # of every test, so that programs are shared


def numbers(tau: float = 1.0, top_k: Any = V, top_p: Any = 1.0):
    """Arguments of which each sequence has its own."""
    full = lambda value: jnp.broadcast_to(jnp.asarray(value), (COUNT,))
    return {"temperature": tau, "top_k": full(top_k), "top_p": full(top_p)}


@pytest.mark.longer_but_the_first
@EACH
def test_tokens_are_those_of_sample_up_to_the_end(make):
    model, params = make()
    given = {"prompt": jnp.array([0, 1]), "batch_shape": (COUNT,)} | numbers(1.5)
    tokens = np.asarray(model.sample(params, key(), MOST, **given))
    drawn = model.sample_until(params, key(), MOST, END, **given)
    assert drawn.tokens.dtype == drawn.lengths.dtype == jnp.int32
    found = tokens == END
    first = np.where(found.any(axis=0), found.argmax(axis=0) + 1, MOST)
    np.testing.assert_array_equal(drawn.lengths, first)
    within = np.arange(MOST)[:, None] < first
    np.testing.assert_array_equal(drawn.tokens, np.where(within, tokens, END))
    assert set(first) == {1, 2, 3, 4}


def test_no_tokens_are_drawn_for_a_length_of_0():
    model, params = recurrent()
    none = model.sample_until(params, key(), 0, END, batch_shape=(2,))
    assert none.tokens.shape == (0, 2)
    assert none.lengths.tolist() == [0, 0]


@pytest.mark.longer
@QUICK
def test_stopped_sequences_have_their_probabilities(make):
    model, params = make()
    most, count = MOST, COUNT
    drawn = model.sample_until(
        params, key(5), most, END, batch_shape=(count,), **numbers()
    )
    seen = {}
    for tokens, length in zip(drawn.tokens.T.tolist(), drawn.lengths, strict=True):
        one = tuple(tokens[: int(length)])
        seen[one] = seen.get(one, 0) + 1
    every = [
        (*body, last)
        for n in range(most)
        for body in itertools.product(range(V), repeat=n)
        for last in range(V)
        if END not in body and (last == END or n == most - 1)
    ]
    assert set(seen) <= set(every)
    padded = jnp.array([[*one, *[END] * (most - len(one))] for one in every]).T
    lengths = jnp.array([len(one) for one in every])
    p = np.exp(model.log_prob(params, padded, lengths=lengths)[1].sum(0))
    assert abs(p.sum() - 1) <= 1e-12
    shares = np.array([seen.get(one, 0) for one in every]) / count
    # Five standard deviations of a binomial share.
    assert (np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / count)).all()


def counting(model, calls):
    """The model with a head that notes when it is traced, and when it runs."""

    def predict(params, features):
        calls["traced"] += 1
        jax.debug.callback(lambda: calls.update(ran=calls["ran"] + 1))
        return model.head.predict(params, features)

    return jrnn.sequence_model(model.cell, model.head._replace(predict=predict))


def test_drawing_stops_when_every_sequence_has_ended():
    model, params = recurrent()
    calls = {"traced": 0, "ran": 0}
    drawn = counting(model, calls).sample_until(
        params, key(), 1000, END, batch_shape=(3,)
    )
    jax.block_until_ready(drawn)
    jax.effects_barrier()
    assert calls["ran"] == drawn.lengths.max() < 100


@pytest.mark.slow
def test_another_number_needs_no_other_program():
    model, params = recurrent()
    calls = {"traced": 0, "ran": 0}
    counted = counting(model, calls)
    several = [(1, 1, 1), (0.5, 2, 0.3), (jnp.float32(2), np.int8(3), np.float32(0.9))]
    for tau, top_k, top_p in several:
        given = {"temperature": tau, "top_k": top_k, "top_p": top_p}
        counted.sample(params, key(), 2, **given)
        counted.sample_until(params, key(), 2, int(top_k) - 1, **given)
    assert calls["traced"] == 2


@pytest.mark.longer_but_the_first
@EACH
def test_truncation_reaches_every_symbol_of_a_sample(make):
    model, params = make()

    def draw(**given):
        given = {"batch_shape": (COUNT,), "prompt": jnp.array([0, 1])} | given
        return np.asarray(model.sample(params, key(), MOST, **given))

    free, greedy = draw(**numbers()), draw(**numbers(tau=0.0))
    assert (free[:, ::2] != greedy[:, ::2]).any()
    np.testing.assert_array_equal(draw(**numbers(top_p=0.0)), greedy)
    mixed = draw(**numbers(top_k=np.tile([1, V], COUNT // 2)))
    np.testing.assert_array_equal(mixed[:, ::2], greedy[:, ::2])
    np.testing.assert_array_equal(mixed[:, 1::2], free[:, 1::2])
    if make is recurrent:  # without truncation the same symbols
        np.testing.assert_array_equal(draw(), free)


def test_a_failed_model_draws_no_symbol():
    model, params = recurrent()
    failed = params._replace(start=params.start.at[0].set(jnp.nan))
    assert model.sample(failed, key(), 3).tolist() == [-1] * 3
    drawn = model.sample_until(failed, key(), 3, END)
    assert drawn.tokens.tolist() == [-1] * 3
    assert int(drawn.lengths) == 3


@pytest.mark.slow
@EACH
def test_under_jit_and_vmap(make):
    model, params = make()
    run = lambda key, end: model.sample_until(params, key, 6, end)
    keys = jax.random.split(key(), 4)
    alone = [run(jax.random.clone(k), 1) for k in keys]
    mapped = jax.jit(jax.vmap(run, (0, None)))(keys, jnp.int8(1))
    for row, one in enumerate(alone):
        np.testing.assert_array_equal(mapped.tokens[row], one.tokens)
        assert mapped.lengths[row] == one.lengths


@EACH
@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (V, ValueError, r"end to be a token id within 0\.\.2, got 3"),
        (-1, ValueError, r"end to be a token id within 0\.\.2, got -1"),
        (1.0, TypeError, "end to be one token id, got 1.0"),
        (None, TypeError, "end to be "),
        (jnp.array([1, 2]), TypeError, r"end to be one token id, got int.* of shape"),
        (True, TypeError, "end to be one token id, got True"),
    ],
)
def test_wrong_ends_are_refused(make, end, kind, words):
    model, params = make()
    with pytest.raises(kind, match=words):
        model.sample_until(params, key(), 3, end)


def test_models_of_numbers_refuse_what_needs_token_ids():
    model = jrnn.sequence_model(jrnn.gru(1, 2), jrnn.gaussian())
    params = model.init(key())
    with pytest.raises(
        TypeError, match=r"a head of token ids for the symbol end.*gaus"
    ):
        model.sample_until(params, key(), 3, 0)
    linear = jrnn.models.linear_gaussian_markov(1)
    fitted = linear.fit(np.random.default_rng(0).normal(size=30))
    for one, its, name in ((model, params, "gaussian"), (linear, fitted, "linear")):
        for given in ("top_k", "top_p"):
            with pytest.raises(TypeError, match=f"token ids for {given}.*for {name}"):
                one.sample(its, key(), 3, **{given: 1})


@pytest.mark.slow
def test_inside_shard_map():
    """A batch that is split draws what its part draws alone, and stops by itself."""
    cell = jrnn.cells.s5(V + 1, 2, irregular=True)
    model = jrnn.sequence_model(cell, jrnn.categorical(V), inputs=1)
    params = random_like(1, shapes_of(model.init), 0.7)
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec(None, "d")

    def run(params, inputs, prompt):
        given = {"inputs": inputs, "prompt": prompt, "prompt_inputs": inputs}
        fresh = model.sample(params, key(1), 4, inputs=inputs, top_k=2)
        return fresh, model.sample_until(params, key(2), 4, END, **given).tokens

    given = params, jnp.ones((4, 6, 1)), jnp.zeros((4, 6), int)
    specs = jax.sharding.PartitionSpec(), split, split
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=split)
    for got, expected in zip(mapped(*given), run(*given), strict=True):
        np.testing.assert_array_equal(got, expected)
