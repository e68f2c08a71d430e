"""Sequences: the meaning of lengths, resets, direction, depth and noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.core.chunks import nested_shape
from jrnn.core.seams import recur
from tests.helpers import assert_close, error, random_like, shapes_of, state_shapes
from tests.programs import count

T, B, K, H = 9, 3, 3, 4
METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(chunk=4),
    "checkpoints": jrnn.bptt(chunk=2, remat=2),
    "newton": jrnn.newton(),
    "associative": jrnn.associative(chunk=4),
}
SLOW = ("checkpoints", "newton", "associative")
LENGTHS = jnp.array([9, 4, 0])
every_method = pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=pytest.mark.slow if name in SLOW else ())
        for name, method in METHODS.items()
    ],
    ids=METHODS,
)


def drawn(seed, *shape):
    return random_like(seed, jax.ShapeDtypeStruct(shape, "float64"))


def prepared(cell):
    """Parameters, inputs, a starting state."""
    params = random_like(1, shapes_of(cell.init), 0.5)
    state = random_like(2, state_shapes(cell, params, (B,)))
    return params, drawn(3, T, B, cell.spec.input_size), state


def suited(method, factory):
    """A factory whose cells the method can run."""
    return jrnn.cells.min_gru if method is METHODS["associative"] else factory


def deep(method):
    """One of everything: both directions, depth, noise of every kind."""
    lstm, gru = suited(method, jrnn.lstm), suited(method, jrnn.gru)
    backward = gru(K, H)
    if gru is jrnn.gru:
        backward = jrnn.wrappers.variational_dropout(backward, 0.3)
    pair = jrnn.bidirectional(jrnn.wrappers.zoneout(lstm(K, H), 0.2), backward)
    return jrnn.stack(pair, jrnn.residual(jrnn.dropout(gru(2 * H, 2 * H), 0.3)))


def flags(seed, share=0.4):
    return jnp.asarray(np.random.default_rng(seed).random((T, B)) < share)


@pytest.mark.longer_but_the_first
@every_method
def test_padding_changes_no_bit(method):
    cell = deep(method)
    params, xs, state = prepared(cell)
    inside = (jnp.arange(T)[:, None] < LENGTHS[None])[..., None]
    weights = drawn(4, T, B, 2 * H)

    @jax.jit
    def run(xs):
        def loss(params, xs, state):
            last, ys = jrnn.unroll(
                cell,
                params,
                xs,
                state,
                lengths=LENGTHS,
                resets=flags(5),
                key=jax.random.key(0),
                method=method,
            )
            total = sum(leaf.sum() for leaf in jax.tree.leaves(last))
            return (ys * weights).sum() + total, (last, ys)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, state)

    clean = run(jnp.where(inside, xs, 0.0))
    for poison in (np.nan, np.inf, 1e30):
        dirty = run(jnp.where(inside, xs, poison))
        assert_close(dirty, clean, 0.0)
        assert not jnp.where(inside, 0.0, dirty[1][1]).any()


@pytest.mark.longer_but_the_first
@every_method
def test_a_ragged_batch_equals_each_sequence_alone(method):
    cell = deep(method)
    params, xs, state = prepared(cell)
    marks = flags(6)
    last, ys = jrnn.unroll(
        cell, params, xs, state, lengths=LENGTHS, resets=marks, method=method
    )
    for i, length in enumerate(LENGTHS.tolist()):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], state)
        final = jax.tree.map(lambda leaf, i=i: leaf[i], last)
        assert not ys[length:, i].any()
        if length == 0:
            assert_close(final, mine, 0.0)
            continue
        alone, alone_ys = jrnn.unroll(
            cell, params, xs[:length, i], mine, resets=marks[:length, i], method=method
        )
        assert_close((final, ys[:length, i]), (alone, alone_ys), 1e-12)


@pytest.mark.longer_but_the_first
@every_method
def test_reverse_is_the_flipped_sequence(method):
    cell = suited(method, jrnn.lstm)(K, H)
    params, xs, state = prepared(cell)
    last, ys = jrnn.unroll(cell, params, xs, state, reverse=True, method=method)
    other, flipped = jrnn.unroll(cell, params, xs[::-1], state, method=method)
    assert_close((last, ys), (other, flipped[::-1]), 1e-12)
    states = jrnn.trajectory(cell, params, xs, state, reverse=True, method=method)
    assert_close(jax.tree.map(lambda leaf: leaf[0], states), last, 0.0)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("reverse", [False, True])
@every_method
def test_no_gradient_crosses_a_reset(method, reverse):
    cell = suited(method, jrnn.gru)(K, H)
    params, xs, state = prepared(cell)
    marks = jnp.zeros((T, B), bool).at[5].set(True)

    def loss(xs, state, steps):
        ys = jrnn.unroll(
            cell, params, xs, state, resets=marks, reverse=reverse, method=method
        )[1]
        return (ys[steps] ** 2).sum()

    later, earlier = slice(5, None), slice(None, 5)
    shown, hidden = (earlier, later) if reverse else (later, earlier)
    dxs, dstate = jax.grad(loss, (0, 1))(xs, state, shown)
    assert not dxs[hidden].any()
    assert dxs[shown].all()
    assert not dstate.h.any()


@pytest.mark.longer_but_the_first
@every_method
def test_a_recorded_rollout_replays_step_by_step(method):
    # As an agent acts: a state of its own, put back where an episode ends.
    lower, upper = suited(method, jrnn.lstm), suited(method, jrnn.gru)
    cell = jrnn.stack(lower(K, H), upper(H, H))
    params, xs, state = prepared(cell)
    marks, ys, now = flags(7), [], state
    for t in range(T):
        fresh = cell.init_state(params, (B,))
        now = jax.tree.map(
            lambda a, b, t=t: jnp.where(marks[t][:, None], a, b), fresh, now
        )
        now, y = cell.step(params, now, xs[t])
        ys.append(y)
    got = jrnn.unroll(cell, params, xs, state, resets=marks, method=method)
    assert_close(got, (now, jnp.stack(ys)), 1e-12)


@pytest.mark.longer_but_the_first
@every_method
def test_a_learned_initial_state_has_its_own_gradient(method):
    cell = jrnn.wrappers.learned_initial_state(suited(method, jrnn.gru)(K, H))
    params, xs, state = prepared(cell)
    marks = flags(8)

    def loss(initial, state):
        ys = jrnn.unroll(
            cell, params._replace(state=initial), xs, state, resets=marks, method=method
        )[1]
        return (ys**2).sum()

    got = jax.grad(loss)(params.state, state)
    step = 1e-6
    for i in range(H):
        bump = type(params.state)(jnp.zeros(H).at[i].set(step))
        above = loss(jax.tree.map(jnp.add, params.state, bump), state)
        below = loss(jax.tree.map(jnp.subtract, params.state, bump), state)
        difference = float(above - below) / (2 * step)
        assert float(got.h[i]) == pytest.approx(difference, rel=1e-6)
    started = jrnn.unroll(cell, params, xs[:1], method=method)[0]
    expected = cell.step(params, cell.init_state(params, (B,)), xs[0])[0]
    assert_close(started, expected, 1e-12)


@every_method
def test_nothing_given_is_the_neutral_thing_given(method):
    cell = suited(method, jrnn.lstm)(K, H)
    params, xs, _ = prepared(cell)
    given = jrnn.unroll(
        cell,
        params,
        xs,
        cell.init_state(params, (B,)),
        lengths=jnp.full(B, T),
        resets=jnp.zeros((T, B), bool),
        mask=jnp.ones((T, B), bool),
        method=method,
    )
    assert_close(jrnn.unroll(cell, params, xs, method=method), given, 1e-14)


def test_both_directions_side_by_side():
    cells = jrnn.lstm(K, H), jrnn.gru(K, H)
    params = tuple(prepared(cell)[0] for cell in cells)
    xs = drawn(3, T, B, K)
    pair = jrnn.bidirectional(*cells)
    (last_f, last_b), ys = jrnn.unroll(pair, params, xs, lengths=LENGTHS)
    one = jrnn.unroll(cells[0], params[0], xs, lengths=LENGTHS)
    two = jrnn.unroll(cells[1], params[1], xs, lengths=LENGTHS, reverse=True)
    assert_close((last_f, ys[..., :H]), one, 0.0)
    assert_close((last_b, ys[..., H:]), two, 0.0)
    with pytest.raises(ValueError, match="has no single step"):
        pair.step(params, pair.init_state(params), xs[0, 0])


@pytest.mark.slow
def test_noise_is_the_same_under_every_method_and_absent_without_a_key():
    cell = deep(METHODS["scan"])
    params, xs, state = prepared(cell)
    run = functools.partial(jrnn.unroll, cell, params, xs, state)
    able = [method for name, method in METHODS.items() if name != "associative"]
    noisy = [run(key=jax.random.key(3), method=method) for method in able]
    for other in noisy[1:]:
        assert_close(other, noisy[0], 1e-12)
    assert error(run(key=jax.random.key(4))[1], noisy[0][1]) > 1e-3
    assert_close(run(), run(), 0.0)
    assert error(run()[1], noisy[0][1]) > 1e-3


@pytest.mark.longer
def test_dropout_drops_inputs_anew_at_each_step_and_keeps_their_mean():
    cell = jrnn.dropout(jrnn.elman(50, 2), 0.25)
    kept, inner = cell.noise(jax.random.key(0), 40, (30,))
    assert inner is None
    assert kept.shape == (40, 30, 50)
    assert abs(kept.mean() - 0.75) < 0.01
    assert not (kept[0] == kept[1]).all()
    params = cell.init(jax.random.key(0), jnp.float64)
    x = drawn(1, 30, 50)
    u = cell.project(params, x, (kept[0], None))
    expected = cell.project(params, jnp.where(kept[0], x / 0.75, 0.0))
    assert error(u, expected) < 1e-14
    assert jrnn.dropout(jrnn.elman(3, 3), 0.0) is jrnn.elman(3, 3)


def test_variational_dropout_keeps_one_mask_for_a_sequence():
    cell = jrnn.wrappers.variational_dropout(jrnn.lstm(K, 50), 0.25)
    kept, _ = cell.noise(jax.random.key(0), 20, (30,))
    assert kept.shape == (20, 30, 50)
    assert (kept == kept[:1]).all()
    assert abs(kept.mean() - 0.75) < 0.05
    # Only the product with W_h sees it: c is whole, and so is h where z keeps it.
    params, xs, state = prepared(jrnn.wrappers.variational_dropout(jrnn.gru(K, H), 0.5))
    gru = jrnn.wrappers.variational_dropout(jrnn.gru(K, H), 0.5)
    none_kept = (jnp.zeros((B, H), bool), None)
    moved, _ = gru.step(params, state, xs[0], none_kept)
    plain = jrnn.gru(K, H)
    zero = jax.tree.map(jnp.zeros_like, state)
    u, v = plain.project(params, xs[0]), recur(plain.gated, params, zero)
    expected = plain.gated.pointwise(
        state, tuple(jnp.split(u, 3, -1)), tuple(jnp.split(v, 3, -1))
    )[0]
    assert_close(moved, expected, 1e-14)


def test_zoneout_keeps_units_and_takes_the_expectation_without_a_key():
    plain = jrnn.lstm(K, H)
    cell = jrnn.wrappers.zoneout(plain, (0.25, 0.5))
    params, xs, state = prepared(cell)
    moved = plain.step(params, state, xs[0])[0]
    expected = type(state)(
        0.25 * state.h + 0.75 * moved.h, 0.5 * state.c + 0.5 * moved.c
    )
    assert_close(cell.step(params, state, xs[0])[0], expected, 1e-14)
    kept = cell.noise(jax.random.key(0), 1, (B,))[0]
    one = jax.tree.map(lambda leaf: leaf[0], kept)
    got = cell.step(params, state, xs[0], (one, None))[0]
    assert_close(got.h, jnp.where(one.h, state.h, moved.h), 0.0)
    assert_close(got.c, jnp.where(one.c, state.c, moved.c), 0.0)
    rates = cell.noise(jax.random.key(1), 200, (30,))[0]
    assert abs(rates.h.mean() - 0.25) < 0.01
    assert abs(rates.c.mean() - 0.5) < 0.01


def test_a_stack_steps_and_is_unrolled_layer_by_layer():
    cell = jrnn.stack(jrnn.lstm(K, H), jrnn.residual(jrnn.gru(H, H)))
    params, xs, state = prepared(cell)
    now, ys = state, []
    for x in xs:
        now, y = cell.step(params, now, x)
        ys.append(y)
    assert_close(jrnn.unroll(cell, params, xs, state), (now, jnp.stack(ys)), 1e-12)
    states = jrnn.trajectory(cell, params, xs, state)
    assert_close(jax.tree.map(lambda leaf: leaf[-1], states), now, 1e-12)
    jaxpr = jax.make_jaxpr(lambda p: jrnn.unroll(cell, p, xs, state))(params)
    assert count(jaxpr, "scan") == 4  # chunks and steps, for each layer


def test_equal_arguments_make_the_identical_combination():
    make = lambda: jrnn.stack(
        jrnn.wrappers.zoneout(jrnn.lstm(3, 4), 0.1),
        jrnn.dropout(jrnn.wrappers.variational_dropout(jrnn.gru(4, 4), 0.1), 0.2),
        jrnn.wrappers.learned_initial_state(jrnn.elman(4, 4)),
    )
    assert make() is make()
    assert jrnn.bidirectional(make(), make()) is jrnn.bidirectional(make(), make())
    assert repr(make()).startswith("stack(")


@pytest.mark.parametrize("levels", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 1000])
def test_checkpoints_cut_time_evenly(steps, levels):
    *segments, count, length = nested_shape(steps, 4, levels)
    filled = int(np.prod([*segments, count, length]))
    assert steps <= filled <= 1.35 * steps + 4
    assert length <= 6
    assert len(segments) <= levels
    if levels == 1 and steps == 1000:
        assert 25 <= segments[0] <= 40
    if levels == 9 and steps == 1000:
        assert set(segments) == {2}


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("levels", [1, 2, 9])
def test_checkpoints_keep_outputs_and_gradients(levels):
    cell = jrnn.lstm(K, H)
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs, weights = drawn(2, 67, B, K), drawn(3, 67, B, H)
    marks = jnp.asarray(np.random.default_rng(1).random((67, B)) < 0.1)

    def loss(params, xs, method):
        last, ys = jrnn.unroll(cell, params, xs, resets=marks, method=method)
        return (ys * weights).sum() + last.c.sum()

    grad = jax.value_and_grad(loss, (0, 1))
    expected = grad(params, xs, jrnn.bptt(chunk=4))
    assert_close(grad(params, xs, jrnn.bptt(chunk=4, remat=levels)), expected, 1e-12)


def temporary_bytes(steps, remat, chunk=32):
    cell = jrnn.lstm(8, 64)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((steps, 4), "int32")

    def loss(params, xs):
        method = jrnn.bptt(chunk=chunk, remat=remat)
        return jrnn.unroll(cell, params, xs, method=method)[0].h.sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_checkpoints_make_memory_grow_as_the_square_root():
    short, long = temporary_bytes(1024, 1), temporary_bytes(4096, 1)
    assert long <= 2.3 * short
    assert temporary_bytes(4096, 0) > 3.5 * temporary_bytes(1024, 0)
    assert long < 0.2 * temporary_bytes(4096, 0)
    assert temporary_bytes(16384, 99, 8) < 0.5 * temporary_bytes(16384, 1, 8)
