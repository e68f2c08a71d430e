"""Data with the batch first: `time_axis=1` equals swapping the axes by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests.helpers import assert_close, random_like, shapes_of, state_shapes

T, B, K, H = 6, 4, 3, 2
LENGTHS = jnp.array([6, 2, 0, 5])
swap = functools.partial(jnp.swapaxes, axis1=0, axis2=1)


def suited(method):
    """Both directions, depth and dropout; in the quick suite dropout alone."""
    if method == "bptt":
        return jrnn.dropout(jrnn.gru(K, H), 0.3)
    make = jrnn.cells.min_gru if method == "associative" else jrnn.gru
    pair = jrnn.bidirectional(make(K, H), make(K, H))
    return jrnn.stack(pair, jrnn.dropout(make(2 * H, H), 0.3))


def drawn(cell):
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))
    state = random_like(3, state_shapes(cell, params, (B,)))
    rng = np.random.default_rng(4)
    return params, xs, state, *(jnp.asarray(rng.random((T, B)) < p) for p in (0.3, 0.7))


METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(chunk=4),
    "remat": jrnn.bptt(chunk=2, remat=1),
    "associative": jrnn.associative(),
    "newton": jrnn.newton(),
    "truncated": jrnn.truncated(4),
}


@pytest.mark.longer
@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method",
    [pytest.param(n, marks=() if n == "bptt" else pytest.mark.slow) for n in METHODS],
)
def test_everything_with_an_axis_of_time_is_swapped(method, reverse):
    cell = suited(method)
    params, xs, state, resets, mask = drawn(cell)
    weights = random_like(5, jax.ShapeDtypeStruct((T, B, H), "float64"))

    @functools.partial(jax.jit, static_argnames="time_axis")
    def run(xs, resets, mask, weights, time_axis):
        def loss(params, xs, state):
            last, ys = jrnn.unroll(
                cell,
                params,
                xs,
                state,
                lengths=LENGTHS,
                resets=resets,
                mask=mask,
                reverse=reverse,
                time_axis=time_axis,
                key=jax.random.key(6),
                method=METHODS[method],
            )
            return (ys * weights).sum() + jax.tree.leaves(last)[-1].sum(), (last, ys)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, state)

    timed = xs, resets, mask, weights
    (value, (last, ys)), (dparams, dxs, dstate) = run(*timed, 0)
    expected = (value, (last, swap(ys))), (dparams, swap(dxs), dstate)
    assert_close(run(*map(swap, timed), 1), expected, 1e-12)


@pytest.mark.longer
def test_trajectories_and_token_ids():
    cell = jrnn.lstm(K, H)
    params, xs, state, resets, mask = drawn(cell)
    given = {"lengths": LENGTHS, "method": jrnn.scan()}
    states = jrnn.trajectory(cell, params, xs, state, resets=resets, mask=mask, **given)
    got = jrnn.trajectory(
        cell,
        params,
        swap(xs),
        state,
        resets=swap(resets),
        mask=swap(mask),
        time_axis=1,
        **given,
    )
    assert got.h.shape == (B, T, H)
    assert_close(got, jax.tree.map(swap, states), 1e-12)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, K, (T, B)))
    last, ys = jrnn.unroll(cell, params, tokens, **given)
    got = jrnn.unroll(cell, params, swap(tokens), time_axis=np.int8(1), **given)
    assert_close(got, (last, swap(ys)), 1e-12)


@pytest.mark.slow
def test_a_newton_trajectory_and_its_guess():
    cell = jrnn.elman(K, H)
    params, xs, state, *_ = drawn(cell)
    states, info = jrnn.run.newton_trajectory(cell, params, xs, state)
    got, report = jrnn.run.newton_trajectory(
        cell, params, swap(xs), state, time_axis=1, guess=jax.tree.map(swap, states)
    )
    assert_close(got, jax.tree.map(swap, states), 1e-9)
    assert report.iterations.shape == info.iterations.shape == (B,)
    assert (report.iterations < info.iterations).any()


@pytest.mark.slow
def test_several_axes_of_a_batch():
    cell = jrnn.gru(K, H)
    params = drawn(cell)[0]
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, 5, K), "float64"))
    lengths = jnp.arange(B * 5).reshape(B, 5) % (T + 1)
    last, ys = jrnn.unroll(cell, params, xs, lengths=lengths)
    got = jrnn.unroll(cell, params, swap(xs), lengths=lengths, time_axis=1)
    assert_close(got, (last, swap(ys)), 1e-12)


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param(jrnn.models.last_pool, marks=pytest.mark.slow),
        jrnn.models.mean_pool,
    ],
)
def test_a_supervised_model_reads_batches_first(pool):
    model = jrnn.supervised_model(jrnn.gru(K, H), jrnn.categorical(3), pool)
    params = random_like(1, shapes_of(model.init))
    _, xs, _, _, mask = drawn(jrnn.gru(K, H))
    shape = (T, B) if pool is None else (B,)
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 3, shape))
    turned = swap(labels) if pool is None else labels
    run = jax.jit(functools.partial(model.log_prob, lengths=LENGTHS, time_axis=0))
    turn = jax.jit(functools.partial(model.log_prob, lengths=LENGTHS, time_axis=1))
    expected = run(params, xs, labels, mask=mask)
    got = turn(params, swap(xs), turned, mask=swap(mask))
    assert_close(got, swap(expected) if pool is None else expected, 1e-12)
    predict = functools.partial(model.predict, time_axis=1)
    predicted = jax.eval_shape(predict, params, swap(xs))
    assert predicted.parameters.shape == (*turned.shape, 3)


def test_axes_are_swapped_inside_the_program_alone():
    cell = jrnn.gru(K, H)
    params, xs, *_ = drawn(cell)
    run = lambda xs, axis: jrnn.unroll(cell, params, xs, time_axis=axis)
    names = lambda axis, xs: [
        eqn.primitive.name for eqn in jax.make_jaxpr(lambda xs: run(xs, axis))(xs).eqns
    ]
    assert names(1, swap(xs)) == names(0, xs)
    assert "transpose" not in names(0, xs)


class TestSlips:
    """Data of the other layout is refused wherever its shapes tell."""

    CELL = jrnn.lstm(K, H)
    PARAMS, XS, STATE, RESETS, MASK = drawn(CELL)

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("name", ["lengths", "state", "resets and lengths"])
    def test_the_remedy_is_named(self, name, axis):
        xs, resets = self.XS, self.RESETS
        if axis == 0:
            xs, resets = swap(xs), swap(resets)
        given = {"lengths": LENGTHS} if "lengths" in name else {"state": self.STATE}
        if "resets" in name:
            given["resets"] = resets
        with pytest.raises(ValueError, match=f"With time_axis={1 - axis} all shapes"):
            jrnn.unroll(self.CELL, self.PARAMS, xs, time_axis=axis, **given)
        jrnn.unroll(self.CELL, self.PARAMS, xs, time_axis=1 - axis, **given)

    def test_no_remedy_is_named_that_is_none(self):
        with pytest.raises(ValueError, match=r"lengths of shape.*got \(7,\)\.$"):
            jrnn.unroll(self.CELL, self.PARAMS, self.XS, lengths=jnp.ones(7, int))
        # Its lengths would be too long as well.
        with pytest.raises(ValueError, match=r"got \(6,\)\.$"):
            jrnn.unroll(self.CELL, self.PARAMS, self.XS, lengths=jnp.full(T, 9))

    @pytest.mark.parametrize("axis", [2, -1, -2])
    def test_there_are_two_axes(self, axis):
        words = "to be 0, time first, or 1, batch first" if axis > 0 else "at least 0"
        with pytest.raises(ValueError, match=f"time_axis .*{words}.*got {axis}"):
            jrnn.unroll(self.CELL, self.PARAMS, self.XS, time_axis=axis)

    @pytest.mark.parametrize("axis", [True, 1.0, None, "batch"])
    def test_an_axis_is_an_integer(self, axis):
        with pytest.raises(TypeError, match="Expected time_axis to be an integer"):
            jrnn.unroll(self.CELL, self.PARAMS, self.XS, time_axis=axis)

    def test_shapes_are_told_as_they_are_laid_out(self):
        run = functools.partial(jrnn.unroll, self.CELL, self.PARAMS, time_axis=1)
        with pytest.raises(ValueError, match=r"xs of shape \(B, T, \*batch, 3\)"):
            run(self.XS[0])
        with pytest.raises(ValueError, match=r"token ids of shape \(B, T, \*batch\)"):
            run(jnp.zeros(T, int))
        with pytest.raises(ValueError, match="time is axis 1"):
            run(swap(self.XS[:0]))
        with pytest.raises(
            ValueError,
            match=r"mask of shape \(B, T, \*batch\) = \(4, 6\), got \(6, 4\)",
        ):
            run(swap(self.XS), mask=self.MASK)

    def test_a_wrong_token_is_found_at_its_place(self):
        tokens = jnp.zeros((B, T), int).at[1, 4].set(K)
        run = functools.partial(jrnn.unroll, self.CELL, self.PARAMS, time_axis=1)
        with pytest.raises(ValueError, match=r"got 3 at position \(1, 4\)"):
            run(tokens)
        run(tokens, lengths=LENGTHS)  # past the length of sequence 1
        run(tokens, mask=tokens == 0)
