"""Truncated BPTT: each output's gradient reaches back to the start of its window.

The oracle gives every step its own copy of parameters and input, differentiates each
output by each copy, and sums the pairs that are within one window.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests.helpers import assert_close, random_like, shapes_of, state_shapes

T, B, K, H = 9, 2, 3, 3
CELLS = {
    "elman": jrnn.elman(K, H),
    "lstm": jrnn.lstm(K, H),
    "stack": jrnn.stack(jrnn.gru(K, H), jrnn.elman(H, 2)),
    "generic": jrnn.wrappers.zoneout(jrnn.gru(K, H), 0.3),
}


def numbers(cell):
    params = random_like(1, shapes_of(cell.init), 0.5)
    state = random_like(2, state_shapes(cell, params, (B,)))
    xs = random_like(3, jax.ShapeDtypeStruct((T, B, K), "float64"))
    size = cell.spec.output_size
    weights = random_like(4, jax.ShapeDtypeStruct((T, B, size), "float64"))
    return params, state, xs, weights


@functools.cache
def jacobians(name, backwards=False, resets=()):
    """How each output, in the order of reading, depends on each step's own copies."""
    cell = CELLS[name]
    params, state, xs, weights = numbers(cell)
    initial = cell.init_state(params, (B,))

    def losses(copies, state, xs):
        shown = []
        for place, t in enumerate(order(backwards)):
            for b in (b for step, b in resets if step == t):
                state = jax.tree.map(
                    lambda old, new, b=b: old.at[b].set(new[b]), state, initial
                )
            own = jax.tree.map(lambda leaf, place=place: leaf[place], copies)
            state, y = cell.step(own, state, xs[t])
            shown.append((y * weights[t]).sum())
        return jnp.stack(shown)

    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * T), params)
    return jax.jit(jax.jacrev(losses, (0, 1, 2)))(copies, state, xs)


def order(backwards):
    return range(T - 1, -1, -1) if backwards else range(T)


def oracle(name, window, stride, backwards=False, resets=()):
    """Gradients of parameters, state and inputs."""
    by_copy, by_state, by_x = jacobians(name, backwards, resets)
    begins = np.minimum((np.arange(T) // stride + 1) * stride, T) - window
    allowed = (np.arange(T)[None] >= begins[:, None]).astype(float)  # (output, step)
    dparams = jax.tree.map(
        lambda leaf: jnp.tensordot(allowed, leaf, ((0, 1), (0, 1))), by_copy
    )
    reaching = (begins <= 0).astype(float)
    dstate = jax.tree.map(lambda leaf: jnp.tensordot(reaching, leaf, 1), by_state)
    places = np.array(order(backwards))
    dxs = jnp.einsum("ts,tsbk->sbk", allowed, by_x[:, places])
    return dparams, dstate, jnp.zeros_like(dxs).at[places].set(dxs)


def gradients(cell, method, params, state, xs, weights, **keywords):
    def loss(params, state, xs):
        run = functools.partial(jrnn.unroll, cell, method=method, **keywords)
        return (run(params, xs, state)[1] * weights).sum()

    return jax.grad(loss, (0, 1, 2))(params, state, xs)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("name", "window", "stride"),
    [
        ("elman", 4, 4),
        ("elman", 3, 1),
        pytest.param("elman", 5, 2, marks=pytest.mark.slow),
        pytest.param("elman", 1, 1, marks=pytest.mark.slow),
        ("lstm", 5, 2),
        pytest.param("stack", 5, 2, marks=pytest.mark.slow),
        pytest.param("generic", 5, 2, marks=pytest.mark.slow),
    ],
)
def test_only_pairs_within_a_window_count(name, window, stride):
    method = jrnn.truncated(window, stride=stride)
    got = gradients(CELLS[name], method, *numbers(CELLS[name]))
    assert_close(got, oracle(name, window, stride), 1e-10)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(jrnn.scan(), marks=pytest.mark.slow),
        pytest.param(jrnn.bptt(remat=1, chunk=1), marks=pytest.mark.slow),
    ],
)
def test_in_reverse_and_with_resets(method):
    cell = CELLS["lstm"]
    given = numbers(cell)
    truncated = jrnn.truncated(4, stride=3, method=method)
    expected = oracle("lstm", 4, 3, backwards=True)
    assert_close(gradients(cell, truncated, *given, reverse=True), expected, 1e-10)
    marked = (3, 0), (5, 1)
    resets = jnp.zeros((T, B), bool).at[tuple(zip(*marked, strict=True))].set(True)
    expected = oracle("lstm", 4, 3, resets=marked)
    assert_close(gradients(cell, truncated, *given, resets=resets), expected, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("window", [T, T + 3])
def test_a_window_as_long_as_the_sequence_is_no_truncation(window):
    for cell in CELLS.values():
        given = numbers(cell)
        full = gradients(cell, jrnn.bptt(), *given)
        for stride in (1, window):
            method = jrnn.truncated(window, stride=stride)
            assert_close(gradients(cell, method, *given), full, 1e-12)


@pytest.mark.slow
def test_what_is_shown_is_not_truncated():
    cell = CELLS["stack"]
    params, state, xs, _ = numbers(cell)
    lengths, mask = jnp.array([9, 5]), jnp.ones((T, B), bool).at[4, 0].set(False)
    for keywords in ({}, {"lengths": lengths}, {"lengths": lengths, "mask": mask}):
        for reverse in (False, True):
            run = functools.partial(
                jrnn.unroll, cell, params, xs, state, reverse=reverse, **keywords
            )
            assert_close(run(method=jrnn.truncated(4, stride=3)), run(), 1e-12)
    run = functools.partial(jrnn.trajectory, cell, params, xs, state)
    assert_close(run(method=jrnn.truncated(2)), run(), 1e-12)


@pytest.mark.longer
def test_the_gradient_of_the_final_state_comes_from_a_sequences_own_last_window():
    cell = CELLS["elman"]
    params, state, xs, _ = numbers(cell)
    lengths = jnp.array([9, 5])

    def loss(xs, **keywords):
        return jrnn.unroll(cell, params, xs, state, lengths=lengths, **keywords)[
            0
        ].h.sum()

    # Windows of 4 end with steps 4, 8 and 9 (the last one begins at 6).
    dxs = jax.grad(loss)(xs, method=jrnn.truncated(4))
    reached = dxs.any(axis=-1)
    assert np.flatnonzero(reached[:, 0]).tolist() == [5, 6, 7, 8]
    assert np.flatnonzero(reached[:, 1]).tolist() == [4]
    full = jax.grad(loss)(xs)
    assert_close(dxs[5:, 0], full[5:, 0], 1e-12)
    assert_close(dxs[4:, 1], full[4:, 1], 1e-12)


@pytest.mark.longer
def test_both_directions_are_cut_each_in_its_own_order():
    # The loss is on the forward half, then on the backward half alone.
    cell = CELLS["elman"]
    pair = jrnn.bidirectional(cell, cell)
    params, state, xs, weights = numbers(cell)
    for i in range(2):
        halves = [jnp.zeros_like(weights), jnp.zeros_like(weights)]
        halves[i] = weights
        both = (params, params), (state, state), xs, jnp.concatenate(halves, axis=-1)
        dparams, dstate, dxs = gradients(pair, jrnn.truncated(3), *both)
        expected = oracle("elman", 3, 3, backwards=i == 1)
        assert_close((dparams[i], dstate[i], dxs), expected, 1e-10)
