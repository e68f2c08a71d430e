"""Buckets: the fewest padded steps, every sequence once, few shapes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jrnn
from jrnn.train.batching import bucket_bounds, padded_batches


def wasted(lengths, bounds):
    return sum(min(b for b in bounds if b >= n) - n for n in lengths)


@example([1, 4, 4, 4, 4, 4, 4, 5], 2)  # many of a length weigh more than one
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 4))
def test_no_other_bounds_waste_less(lengths, count):
    bounds = bucket_bounds(lengths, count)
    assert len(bounds) <= count
    assert bounds[-1] == max(lengths)
    candidates = sorted(set(lengths))
    fewest = min(
        wasted(lengths, (*some, max(lengths)))
        for size in range(min(count, len(candidates)))
        for some in itertools.combinations(candidates[:-1], size)
    )
    assert wasted(lengths, bounds) == fewest


def sequences(lengths, features=3):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, features)) for n in lengths]


@pytest.mark.parametrize("seed", [None, 5])
def test_every_sequence_comes_once_in_few_shapes(seed):
    lengths = [5, 0, 12, 3, 7, 7, 1, 12, 4]
    given_ = sequences(lengths)
    bounds = bucket_bounds(lengths, 3)
    batches = list(padded_batches(given_, 2, bounds, seed=seed))
    assert {batch.xs.shape for batch in batches} <= {(b, 2, 3) for b in bounds}
    seen = []
    for batch in batches:
        for column, member in enumerate(batch.members):
            n = batch.lengths[column]
            assert not batch.xs[n:, column].any()
            if member < 0:
                assert n == 0
                continue
            seen.append(int(member))
            np.testing.assert_array_equal(batch.xs[:n, column], given_[member])
    assert sorted(seen) == list(range(len(lengths)))
    if seed is not None:
        again = list(padded_batches(given_, 2, bounds, seed=seed))
        assert [b.members.tolist() for b in again] == [
            b.members.tolist() for b in batches
        ]
        assert seen != sorted(seen)


@pytest.mark.slow
def test_an_epoch_compiles_once_for_each_bucket_and_equals_each_alone():
    lengths = [5, 2, 12, 3, 7, 7, 1, 12, 4]
    given_ = sequences(lengths)
    cell = jrnn.gru(3, 4)
    params = cell.init(jax.random.key(0), jnp.float64)
    traced = []

    @jax.jit
    def total(params, xs, lengths):
        traced.append(xs.shape)
        final, ys = jrnn.unroll(cell, params, xs, lengths=lengths)
        return ys.sum() + final.h.sum()

    bounds = bucket_bounds(lengths, 2)
    batches = padded_batches(given_, 4, bounds, seed=0)
    value = sum(float(total(params, b.xs, b.lengths)) for b in batches)
    assert len(traced) == len(bounds) == 2
    alone = 0.0
    for sequence in given_:
        final, ys = jrnn.unroll(cell, params, sequence)
        alone += float(ys.sum() + final.h.sum())
    assert value == pytest.approx(alone, rel=1e-12)


def test_token_ids():
    (batch,) = padded_batches([np.array([3, 1]), np.array([2])], 2, (2,))
    assert batch.xs.tolist() == [[3, 2], [1, 0]]
    assert batch.lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: bucket_bounds([], 2), ValueError, "at least one sequence"),
        (lambda: bucket_bounds([1.5], 2), TypeError, "integer lengths, got float64"),
        (lambda: bucket_bounds([3, -1], 2), ValueError, "at least 0, got -1"),
        (lambda: bucket_bounds([3], 0), ValueError, "count to be at least 1"),
        (
            lambda: next(padded_batches(sequences([9]), 2, (4, 8))),
            ValueError,
            "longer than the last bound, 8, got one of 9",
        ),
        (
            lambda: next(padded_batches(sequences([3]), 2, (8, 4))),
            ValueError,
            "ascending bounds",
        ),
        (
            lambda: next(padded_batches([np.ones((2, 3)), np.ones((2, 4))], 2, (4,))),
            ValueError,
            "equal trailing axes",
        ),
    ],
)
def test_mistake(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
