"""`cell.step(..., reset=)` does for one step what `unroll(resets=)` does for many."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests.helpers import (
    CELLS,
    assert_close,
    forwards_in_time,
    random_like,
    random_params,
    shapes_of,
    state_shapes,
)

T, B, K, H = 5, 3, 3, 4
GRU = jrnn.gru(K, K)
WRAPPED = {
    "stack": lambda: jrnn.stack(GRU, jrnn.residual(jrnn.lstm(K, K))),
    "dropout": lambda: jrnn.dropout(GRU, 0.5),
    "zoneout": lambda: jrnn.wrappers.zoneout(jrnn.lstm(K, K), 0.5),
    "learned start": lambda: jrnn.wrappers.learned_initial_state(jrnn.cells.lru(K, H)),
    "orthogonal": lambda: jrnn.wrappers.orthogonal(GRU),
    "around": lambda: jrnn.wrappers.around("twice", GRU, outputs=lambda y, x: 2 * y),
    "another start": lambda: GRU._replace(
        init_state=lambda params, batch_shape=(): jax.tree.map(
            lambda h: h + 0.5, GRU.init_state(params, batch_shape)
        )
    ),
    "another start in a stack": lambda: jrnn.stack(WRAPPED["another start"](), GRU),
}
QUICK = ("gru", "stack", "another start")
RESETS = np.random.default_rng(0).random((T, B)) < 0.4
RESETS[2] = True, False, True


def prepared(cell, seed=1):
    """Parameters, inputs, and a state that is not the initial one."""
    params = random_like(seed, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, cell.spec.input_size), "float64"))
    state = random_like(3, state_shapes(cell, params, (B,)))
    return params, forwards_in_time(cell, xs), state


def by_steps(cell, params, xs, state, resets):
    """A scan of `step`, as an agent acts."""

    def act(state, inputs):
        x, reset = inputs
        return cell.step(params, state, x, reset=reset)

    return jax.lax.scan(act, state, (xs, resets))


def check(cell, params, xs, state):
    resets = jnp.asarray(RESETS)
    run = lambda params: jrnn.unroll(
        cell, params, xs, state, resets=resets, method=jrnn.scan()
    )
    steps = jax.jit(functools.partial(by_steps, cell))
    assert_close(steps(params, xs, state, resets), run(params), 1e-12)


def mostly_slow(names):
    slow = lambda name: () if name in QUICK else pytest.mark.slow
    return [pytest.param(name, marks=slow(name)) for name in names]


@pytest.mark.parametrize("name", mostly_slow(case.name for case in CELLS))
def test_every_cell_resets_as_unroll_does(name):
    case = next(case for case in CELLS if case.name == name)
    cell, params = random_params(case, K, H)
    check(cell, params, *prepared(cell)[1:])


@pytest.mark.parametrize("name", mostly_slow(WRAPPED))
def test_every_wrapper_resets_as_unroll_does(name):
    cell = WRAPPED[name]()
    check(cell, *prepared(cell))


def test_no_gradient_crosses_and_a_learned_start_gets_its_own():
    cell = jrnn.wrappers.learned_initial_state(jrnn.lstm(K, H))
    params, xs, state = prepared(cell)

    def loss(params, state, reset):
        moved, y = cell.step(params, state, xs[0], reset=reset)
        return (y**2).sum() + moved.c.sum()

    slopes = jax.jit(jax.grad(loss, (0, 1)))
    dparams, dstate = slopes(params, state, jnp.array([True, False, True]))
    for leaf in dstate:
        assert not leaf[::2].any()
        assert leaf[1].all()
    assert all(leaf.all() for leaf in dparams.state)
    none = slopes(params, state, jnp.zeros(B, bool))[0]
    assert not any(leaf.any() for leaf in none.state)


def test_what_is_left_behind_may_be_nan():
    params, xs, state = prepared(GRU)
    lost = state._replace(h=state.h.at[0].set(jnp.nan))
    reset = jnp.array([True, False, False])
    loss = lambda params: GRU.step(params, lost, xs[0], reset=reset)[1].sum()
    value, slopes = jax.jit(jax.value_and_grad(loss))(params)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in slopes if leaf is not None)


def test_vmap_and_a_single_sequence():
    params, xs, state = prepared(GRU)
    reset = jnp.asarray(RESETS[2])
    expected = GRU.step(params, state, xs[0], reset=reset)
    one = lambda state, x, reset: GRU.step(params, state, x, reset=reset)
    assert_close(jax.vmap(one)(state, xs[0], reset), expected, 1e-14)
    first = jax.tree.map(lambda leaf: leaf[0], (state, xs[0]))
    alone = one(*first, True)
    assert_close(alone, jax.tree.map(lambda leaf: leaf[0], expected), 1e-14)
    assert_close(one(*first, np.False_), one(*first, None), 0.0)


def test_a_narrow_state_becomes_the_whole_initial_state():
    cell = jrnn.wrappers.learned_initial_state(GRU)
    params, xs, state = prepared(cell)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), state)
    started = cell.init_state(params, (B,))
    expected = cell.step(params, started, xs[0])
    got = cell.step(params, narrow, xs[0], reset=jnp.ones(B, bool))
    assert_close(got, expected, 0.0)


@pytest.mark.parametrize(
    ("reset", "error", "words"),
    [
        (jnp.zeros(B), TypeError, "reset to be boolean.* got float.*compare with 0"),
        (jnp.zeros(B, int), TypeError, "reset to be boolean.* got int"),
        (jnp.zeros(2, bool), ValueError, r"reset of shape \(\*batch,\) = \(3,\)"),
        (True, ValueError, r"to reset every sequence, pass jnp.full\(\(3,\), True\)"),
        ("yes", TypeError, "reset to be an array"),
    ],
)
def test_what_is_no_reset_is_refused(reset, error, words):
    params, xs, state = prepared(GRU)
    with pytest.raises(error, match=words):
        GRU.step(params, state, xs[0], reset=reset)


def test_a_wrong_state_is_refused_first_and_two_directions_have_no_step():
    params, xs, _ = prepared(GRU)
    reset = jnp.ones(B, bool)
    with pytest.raises(ValueError, match="Expected state with the structure"):
        GRU.step(params, 3.0, xs[0], reset=reset)
    pair = jrnn.bidirectional(GRU, GRU)
    with pytest.raises(ValueError, match="has no single step"):
        pair.step((params, params), None, xs[0], reset=reset)


def test_help_shows_it():
    assert "reset" in inspect.signature(GRU.step).parameters
