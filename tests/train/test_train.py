"""Training: windows, donated state, clipping, and bitwise equal resumed runs."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from jrnn import train
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("standard_promotion")

V, B = 5, 2
MODEL = jrnn.sequence_model(jrnn.gru(V, 6), jrnn.categorical(V))
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
TEXT = np.random.default_rng(0).integers(0, V, 402)


def start(optimizer=OPTIMIZER):
    params = MODEL.init(jax.random.key(0))
    carry = MODEL.init_state(params, (B,))
    return train.init_train_state(params, optimizer, jax.random.key(1), carry)


def batches(first=0):
    xs = train.streams(jnp.asarray(TEXT), B)
    return train.windows(xs, 20, start=first)


def same_bits(a, b):
    raw = lambda leaf: np.asarray(
        jax.random.key_data(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    ).tobytes()
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(raw(x) == raw(y) for x, y in leaves)


@pytest.mark.slow
def test_loss_falls():
    seen = []
    step = train.make_train_step(train.sequence_loss(MODEL), OPTIMIZER)
    note = lambda state, metrics: seen.append(float(metrics["loss"]))
    state = start()
    for _ in range(3):
        state = train.fit(step, state, batches(), on_step=note)
    assert int(state.step) == len(seen) == 30
    assert np.mean(seen[-10:]) < np.mean(seen[:10])


@pytest.mark.longer
def test_the_key_draws_the_noise_of_a_cell_that_has_some():
    xs = jnp.asarray(TEXT[:20]).reshape(10, B)
    noisy = jrnn.stack(jrnn.gru(V, 6), jrnn.dropout(jrnn.elman(6, 6), 0.5))
    for cell in (MODEL.cell, noisy):
        model = jrnn.sequence_model(cell, MODEL.head)
        params = model.init(jax.random.key(0))
        given = params, xs, model.init_state(params, (B,))
        loss = train.sequence_loss(model)
        first, again, other = (
            float(loss(*given, jax.random.key(seed))[0]) for seed in (1, 1, 2)
        )
        quiet = -float(model.log_prob(*given)[1].mean())
        assert first == again
        assert (first != other) is (cell is noisy)
        assert (abs(first - quiet) > 1e-4) is (cell is noisy)


@pytest.mark.longer
def test_fit_stops_when_asked():
    step = train.make_train_step(train.sequence_loss(MODEL), OPTIMIZER)
    state = train.fit(step, start(), batches(), on_step=lambda s, m: int(s.step) == 3)
    assert int(state.step) == 3


def test_resumed_run_equals_uninterrupted_to_the_bit(tmp_path):
    step = train.make_train_step(train.sequence_loss(MODEL), OPTIMIZER)
    whole = train.fit(step, start(), batches())
    half = train.fit(step, start(), batches(), on_step=lambda s, m: int(s.step) == 4)
    train.save_checkpoint(tmp_path / "last", half, {"windows": 4})
    loaded, metadata = train.load_checkpoint(tmp_path / "last", start())
    resumed = train.fit(step, loaded, batches(metadata["windows"]))
    assert same_bits(resumed, whole)


RESUME = """
import sys
from tests.train import test_train as t
from jrnn import train
step = train.make_train_step(train.sequence_loss(t.MODEL), t.OPTIMIZER)
state, metadata = train.load_checkpoint(sys.argv[1], t.start())
state = train.fit(step, state, t.batches(metadata["windows"]))
train.save_checkpoint(sys.argv[2], state)
"""


@pytest.mark.slow
def test_resumed_in_another_process_equals_to_the_bit(tmp_path):
    code = "import jax; jax.config.update('jax_enable_x64', True)\n" + RESUME
    step = train.make_train_step(train.sequence_loss(MODEL), OPTIMIZER)
    whole = train.fit(step, start(), batches())
    half = train.fit(step, start(), batches(), on_step=lambda s, m: int(s.step) == 4)
    train.save_checkpoint(tmp_path / "half", half, {"windows": 4})
    paths = [str(tmp_path / "half"), str(tmp_path / "end")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    assert same_bits(train.load_checkpoint(tmp_path / "end", start())[0], whole)


@pytest.mark.longer
def test_the_gradient_does_not_cross_windows_but_the_state_does():
    params = MODEL.init(jax.random.key(0))
    xs = train.streams(jnp.asarray(TEXT), B)[:20]
    loss = train.sequence_loss(MODEL)
    carry = MODEL.init_state(params, (B,))
    key = jax.random.key(0)

    def two(params, cut):
        first, (state, _) = loss(params, xs[:10], carry, key)
        state = jax.lax.stop_gradient(state) if cut else state
        return first + loss(params, xs[10:], state, key)[0]

    whole = jax.grad(lambda p: loss(p, xs, carry, key)[0])(params)
    joined = jax.grad(lambda p: two(p, False) / 2)(params)
    assert_close(joined, whole, 2e-5)

    sgd = optax.sgd(1.0)
    state = train.init_train_state(params, sgd, key, carry)
    step = train.make_train_step(loss, sgd)
    state, _ = step(state, xs[:10])
    before, handed_on = state.params, state.carry
    before = jax.tree.map(jnp.copy, before)
    handed_on = jax.tree.map(jnp.copy, handed_on)
    state, _ = step(state, xs[10:])
    cut = jax.grad(lambda p: loss(p, xs[10:], handed_on, key)[0])(before)
    moved = jax.tree.map(jnp.subtract, before, state.params)
    assert_close(moved, cut, 1e-4)
    fresh = MODEL.init_state(params, (B,))
    assert float(jnp.abs(handed_on.cell.h - fresh.cell.h).max()) > 0


@pytest.mark.longer
def test_one_window_is_full_backpropagation():
    params = MODEL.init(jax.random.key(0))
    xs = train.streams(jnp.asarray(TEXT), B)
    (only,) = train.windows(xs, xs.shape[0])
    assert (only == xs).all()
    state = train.init_train_state(
        params, optax.sgd(1.0), jax.random.key(0), MODEL.init_state(params, (B,))
    )
    step = train.make_train_step(train.sequence_loss(MODEL), optax.sgd(1.0))
    del step  # the same loss, by hand:
    loss = lambda p: -MODEL.log_prob(p, xs)[1].mean()
    by_loss = jax.grad(
        lambda p: train.sequence_loss(MODEL)(p, only, state.carry, state.key)[0]
    )(params)
    assert_close(by_loss, jax.grad(loss)(params), 2e-5)


def test_the_old_state_is_donated_and_the_callers_parameters_are_not():
    params = MODEL.init(jax.random.key(0))
    state = train.init_train_state(
        params, OPTIMIZER, jax.random.key(1), MODEL.init_state(params, (B,))
    )
    step = train.make_train_step(train.sequence_loss(MODEL), OPTIMIZER)
    step(state, next(iter(batches())))
    assert state.params.cell.W_h.is_deleted()
    assert not params.cell.W_h.is_deleted()


def test_equal_arguments_trace_once():
    traces = []

    def loss(params, batch, carry, key):
        del key
        traces.append(1)
        return (params * batch).sum(), (carry, {})

    optimizer = optax.sgd(0.1)
    state = train.init_train_state(jnp.ones(3), optimizer, jax.random.key(0))
    for _ in range(4):
        state, _ = train.make_train_step(loss, optimizer)(state, jnp.ones(3))
    assert len(traces) == 1


def test_clipping_and_norm():
    loss = lambda params, batch, carry, key: ((3.0 * params).sum(), (carry, {}))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    state = train.init_train_state(jnp.zeros(4), optimizer, jax.random.key(0))
    state, metrics = train.make_train_step(loss, optimizer)(state, None)
    assert float(metrics["gradient_norm"]) == 6.0
    np.testing.assert_allclose(state.params, -0.5 * np.ones(4), rtol=1e-6)


def test_a_loss_that_is_not_finite_shows():
    loss = lambda params, batch, carry, key: (params.sum() * batch, (carry, {}))
    sgd = optax.sgd(1.0)
    state = train.init_train_state(jnp.ones(2), sgd, jax.random.key(0))
    _, metrics = train.make_train_step(loss, sgd)(state, jnp.nan)
    assert np.isnan(metrics["loss"])
    assert np.isnan(metrics["gradient_norm"])


def test_the_key_is_new_at_each_step():
    drawn = []
    loss = lambda params, batch, carry, key: (
        params.sum(),
        (carry, {"draw": jax.random.uniform(key)}),
    )
    sgd = optax.sgd(0.0)
    state = train.init_train_state(jnp.ones(2), sgd, jax.random.key(0))
    for _ in range(3):
        state, metrics = train.make_train_step(loss, sgd)(state, None)
        drawn.append(float(metrics["draw"]))
    assert len(set(drawn)) == 3


def test_evaluate_is_no_mean_of_means():
    metric = lambda params, batch, carry: (batch.sum(), batch.size, carry + 1)
    values = [jnp.ones(9), jnp.zeros(1)]
    assert train.evaluate(metric, None, values, 0) == 0.9
    assert np.isnan(train.evaluate(metric, None, []))


def test_streams_and_windows():
    xs = train.streams(jnp.arange(11), 2)
    assert xs.T.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [w.shape[0] for w in train.windows(xs, 2)] == [2, 2]
    assert [w.shape[0] for w in train.windows(xs, 2, keep_last=True)] == [2, 2, 1]
    assert [w[0, 0].item() for w in train.windows(xs, 2, start=1)] == [2]
    with pytest.raises(ValueError, match="at least 3 tokens, one per stream, got 2"):
        train.streams(jnp.arange(2), 3)
