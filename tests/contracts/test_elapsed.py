"""Elapsed time is read only from its input feature, and no other is mistaken for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.diagnostics import gate_statistics, jacobian_bound, memory_capacity
from tests.helpers import assert_close, random_like

K, H = 3, 2
TIMED = jrnn.cells.s5(K, H, irregular=True, output_size=K)
HEADS = {
    "gaussian missing": lambda: jrnn.gaussian(missing=True),
    "gaussian of 2": lambda: jrnn.gaussian(2),
    "student_t": lambda: jrnn.heads.student_t(2),
    "bernoulli": lambda: jrnn.heads.bernoulli(2),
    "mixture": lambda: jrnn.heads.mixture(3, missing=True),
    "categorical": lambda: jrnn.categorical(2),
}


def around(cell):
    """Cells that read elapsed time because a cell inside does."""
    return {
        "alone": cell,
        "stack": jrnn.stack(cell, jrnn.gru(K, K)),
        "dropout": jrnn.dropout(cell, 0.5),
        "zoneout": jrnn.wrappers.zoneout(cell, 0.5),
        "variational": jrnn.wrappers.variational_dropout(cell, 0.5),
        "learnable": jrnn.wrappers.learned_initial_state(cell),
        "first": jrnn.bidirectional(cell, jrnn.gru(K, K)),
        "second": jrnn.bidirectional(jrnn.gru(K, K), cell),
        "both": jrnn.bidirectional(cell, cell),
        "deep": jrnn.stack(
            jrnn.dropout(jrnn.wrappers.zoneout(cell, 0.5), 0.5), jrnn.gru(K, K)
        ),
    }


@pytest.mark.parametrize("head", HEADS)
def test_no_symbol_is_elapsed_time(head):
    head = HEADS[head]()
    cell = jrnn.cells.s5(head.spec.input_size, H, irregular=True)
    for one in (cell, jrnn.stack(cell, jrnn.gru(cell.spec.output_size, H))):
        with pytest.raises(ValueError, match="elapsed time in sequence_model"):
            jrnn.sequence_model(one, head)


@pytest.mark.parametrize("name", around(TIMED))
def test_no_feature_of_a_layer_below_is_elapsed_time(name):
    cell = around(TIMED)[name]
    assert cell.elapsed == -1
    with pytest.raises(ValueError, match="elapsed time in a stack above the first"):
        jrnn.stack(jrnn.gru(2, K), cell)


def test_elapsed_time_is_added_to_no_output():
    with pytest.raises(ValueError, match="elapsed time in residual"):
        jrnn.residual(TIMED)
    assert jrnn.residual(jrnn.cells.s5(K, H)).elapsed is None


def test_two_directions_find_elapsed_time_in_one_place():
    moved = TIMED._replace(elapsed=0)
    with pytest.raises(ValueError, match="elapsed time from the same"):
        jrnn.bidirectional(TIMED, moved)
    jrnn.bidirectional(TIMED, TIMED._replace(elapsed=K - 1))


def test_memory_of_random_inputs_is_not_asked_of_it():
    params = TIMED.init(jax.random.key(0))
    with pytest.raises(ValueError, match="elapsed time in memory_capacity"):
        memory_capacity(TIMED, params, jax.random.key(1), max_delay=2)


@pytest.mark.longer
def test_dropout_leaves_elapsed_time_as_it_is():
    cell = jrnn.dropout(TIMED, 0.5)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jnp.abs(random_like(0, jnp.zeros((5, K))))
    key = jax.random.key(1)
    assert cell.noise is not None
    kept = cell.noise(jax.random.clone(key), 5, ())[0].at[:, -1].set(False)
    dropped = jnp.where(kept, 2 * xs, 0).at[:, -1].set(xs[:, -1])
    expected = jrnn.unroll(TIMED, params, dropped)[1]
    assert_close(jrnn.unroll(cell, params, xs, key=key)[1], expected)
    step = cell.step(params, cell.init_state(params), xs[0], (kept[0], None))
    assert_close(step[1], expected[0])


@pytest.mark.parametrize("wrong", [-1.0, -1e-30, jnp.nan, jnp.inf])
@pytest.mark.parametrize("name", ["alone", "stack", "second"])
def test_times_that_are_none_are_refused_where_they_are_read(name, wrong):
    cell = around(TIMED)[name]
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jnp.ones((4, 2, K)).at[2, 1, -1].set(wrong)
    expected = r"elapsed times of at least 0, finite.*at position \(2, 1\)"
    for run in (jrnn.unroll, jrnn.trajectory, gate_statistics):
        with pytest.raises(ValueError, match=expected):
            run(cell, params, xs)
    if not wrong < 0:
        return
    head = jrnn.categorical(2)
    model = jrnn.supervised_model(cell, head)
    with pytest.raises(ValueError, match=expected):
        model.predict(model.init(jax.random.key(0)), xs)
    with pytest.raises(ValueError, match=expected):
        jrnn.diagnostics.find_non_finite(cell, params, xs)


def test_times_of_one_step_are_refused():
    params = TIMED.init(jax.random.key(0))
    with pytest.raises(ValueError, match="elapsed times of at least 0"):
        TIMED.step(params, TIMED.init_state(params), jnp.array([1.0, 1.0, -1.0]))
    with pytest.raises(ValueError, match="elapsed times of at least 0"):
        jacobian_bound(TIMED, params, jnp.full((2, K), -1.0))


def test_times_that_are_not_read_are_not_looked_at():
    params = TIMED.init(jax.random.key(0), jnp.float64)
    xs, lengths = jnp.ones((4, 2, K)), jnp.array([4, 2])
    mask = jnp.ones((4, 2), bool).at[1, 0].set(False)
    padded = xs.at[2:, 1].set(jnp.nan).at[1, 0].set(-3.0)
    run = lambda xs: jrnn.unroll(TIMED, params, xs, lengths=lengths, mask=mask)[1]
    np.testing.assert_array_equal(run(padded), run(xs))


def test_times_that_are_none_give_nan_under_jit():
    params = TIMED.init(jax.random.key(0), jnp.float64)
    run = jax.jit(lambda xs: jrnn.unroll(TIMED, params, xs)[1])
    for wrong in (-1.0, jnp.nan, jnp.inf):
        ys = run(jnp.ones((4, 2, K)).at[2, 1, -1].set(wrong))
        assert np.isfinite(ys[:, 0]).all()
        assert np.isfinite(ys[:2, 1]).all()
        assert np.isnan(ys[2:, 1]).all()
