"""Layers without recurrence, and skip connections from the inputs to all layers."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.cells import feedforward, stateless
from jrnn.diagnostics import find_non_finite, gate_statistics, jacobian_products
from jrnn.wrappers import skip_connections
from tests.helpers import assert_close, error, random_like, shapes_of, state_shapes

T, B, K, H = 6, 3, 3, 4
LENGTHS = jnp.array([6, 2, 0])
RESETS = jnp.asarray(np.random.default_rng(0).random((T, B)) < 0.3)


def halved(x):
    """Another number of features than it reads."""
    return jnp.tanh(x[..., ::2])


DENSE = feedforward(H, 4, activation=jnp.tanh)
DEEP = jrnn.stack(jrnn.gru(K, H), DENSE, stateless(4, halved), jrnn.elman(2, H), DENSE)
SKIP = skip_connections(jrnn.elman(K, H), jrnn.gru(K + H, 2), feedforward(K + 2, 2))
METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(chunk=4),
    "remat": jrnn.bptt(chunk=2, remat=1),
    "newton": jrnn.newton(),
    "fused": jrnn.fused(interpret=True),
    "truncated": jrnn.truncated(T),
}


def drawn(cell):
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))
    return params, xs, random_like(3, state_shapes(cell, params, (B,)))


def by_steps(cell, params, xs, state):
    """A loop of the cell's own step, with resets and lengths written out."""
    ys = []
    for t, x in enumerate(xs):
        moved, y = cell.step(params, state, x, reset=RESETS[t] & (t < LENGTHS))
        inside = (t < LENGTHS)[:, None]
        state = jax.tree.map(lambda a, b: jnp.where(inside, a, b), moved, state)  # noqa: B023 called here
        ys.append(jnp.where(inside, y, 0.0))
    return state, jnp.stack(ys)


def differentiated(run):
    def loss(params, xs, state):
        last, ys = run(params, xs, state)
        return (ys**2).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(last))

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))


@pytest.fixture(
    scope="module", params=["deep", pytest.param("skip", marks=pytest.mark.slow)]
)
def expected(request):
    cell = {"deep": DEEP, "skip": SKIP}[request.param]
    run = differentiated(lambda *given: by_steps(cell, *given))
    return cell, run(*drawn(cell))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "bptt" else pytest.mark.slow) for n in METHODS],
)
def test_every_method_runs_them(expected, name):
    cell, truth = expected
    run = differentiated(
        lambda *given: jrnn.unroll(
            cell, *given, lengths=LENGTHS, resets=RESETS, method=METHODS[name]
        )
    )
    assert_close(run(*drawn(cell)), truth, 1e-12)


@pytest.mark.slow
def test_linear_layers_run_in_parallel_beside_them():
    cell = jrnn.stack(jrnn.cells.min_gru(K, H), DENSE, jrnn.cells.min_gru(4, H))
    params, xs, state = drawn(cell)
    run = lambda method: jrnn.unroll(cell, params, xs, state, method=method)
    assert_close(run(jrnn.associative()), run(jrnn.scan()), 1e-12)


def test_equations_of_a_dense_layer():
    cell = feedforward(K, 2, activation=jax.nn.relu)
    params, xs, state = drawn(cell)
    assert state == ()
    expected = np.maximum(
        np.asarray(xs) @ np.asarray(params.W_x) + np.asarray(params.b), 0
    )
    assert error(jrnn.unroll(cell, params, xs)[1], expected) < 1e-15
    assert error(cell.step(params, state, xs[0])[1], expected[0]) < 1e-15
    ids = jnp.array([2, 0, 1])
    table = feedforward(K, 2, bias=False, input_init=jrnn.initializers.embedding)
    rows = table.step(params._replace(b=None), state, ids)[1]
    assert_close(rows, params.W_x[ids], 0.0)


@pytest.mark.longer
def test_skip_connections_written_out():
    params, xs, state = drawn(SKIP)
    lower, upper, dense = jrnn.elman(K, H), jrnn.gru(K + H, 2), feedforward(K + 2, 2)
    one = jrnn.unroll(lower, params[0], xs, state[0])
    beside = lambda ys: jnp.concatenate([xs, ys], -1)
    two = jrnn.unroll(upper, params[1], beside(one[1]), state[1])
    three = jrnn.unroll(dense, params[2], beside(two[1]), state[2])
    last, ys = jrnn.unroll(SKIP, params, xs, state)
    assert_close(ys, jnp.concatenate([one[1], two[1], three[1]], -1), 1e-14)
    assert_close(last, (one[0], two[0], three[0]), 1e-14)
    assert SKIP.spec.output_size == H + 2 + 2
    states = jrnn.trajectory(SKIP, params, xs, state)
    assert_close(jax.tree.map(lambda leaf: leaf[-1], states), last, 1e-14)


def test_equal_arguments_make_the_identical_layer():
    for cell in (DEEP, SKIP, stateless(4, halved), feedforward(3, 2, bias=False)):
        assert pickle.loads(pickle.dumps(cell)) is cell
    assert stateless(4, halved) is stateless(input_size=4, function=halved)
    assert repr(stateless(4, halved)) == "stateless(input_size=4, function=halved)"


@pytest.mark.slow
def test_a_report_on_layers_without_state():
    params, xs, state = drawn(DEEP)
    info = jrnn.run.newton_trajectory(DEEP, params, xs, state)[1]
    assert all(report.converged.tolist() == [True] * B for report in info)
    assert [bool(report.iterations.any()) for report in info] == [1, 0, 0, 1, 0]


@pytest.mark.slow
def test_diagnostics_look_past_layers_without_state():
    params, xs, _ = drawn(DEEP)
    assert not jnp.isnan(jacobian_products(DEEP, params, xs)).any()
    assert {name.split(".")[0] for name in gate_statistics(DEEP, params, xs)} == {
        "[0]",
        "[3]",
    }
    assert find_non_finite(DEEP, params, xs, loss=lambda state, ys: ys.sum()) is None
    bad = find_non_finite(DEEP, params, xs.at[3, 1, 0].set(jnp.nan))
    assert (bad.layer, bad.tensor, bad.place[:2]) == ("", "xs", (3, 1))
    root = stateless(H, jnp.sqrt)  # NaN for negative numbers
    cell = jrnn.stack(jrnn.gru(K, H), root)
    bad = find_non_finite(cell, (params[0], root.init(jax.random.key(0))), xs)
    assert (bad.layer, bad.tensor) == ("[1]", "y")


def test_a_narrow_state_does_not_round_gradients():
    cell = jrnn.stack(DENSE)
    params, _, _ = drawn(cell)
    xs = random_like(4, jax.ShapeDtypeStruct((T, B, H), "float64"))
    loss = lambda params: jrnn.unroll(cell, params, xs)[1].sum()
    by_hand = lambda params: jnp.tanh(
        xs @ params[0].W_x + params[0].b[None, None]
    ).sum()
    assert_close(jax.grad(loss)(params), jax.grad(by_hand)(params), 1e-14)


class TestRefused:
    """What does not fit is told."""

    def test_sizes_of_skip_connections(self):
        with pytest.raises(
            ValueError, match=r"input_size=7 above .*3 inputs and its 4"
        ):
            skip_connections(jrnn.gru(3, 4), jrnn.gru(4, 4))
        with pytest.raises(ValueError, match="at least one cell"):
            skip_connections()
        timed = jrnn.cells.s5(7, 4, irregular=True, output_size=4)
        with pytest.raises(ValueError, match="would read an output"):
            skip_connections(jrnn.gru(3, 4), timed)

    def test_token_ids_have_no_skip_connections(self):
        params, _, _ = drawn(SKIP)
        with pytest.raises(TypeError, match="floating inputs to skip_connections"):
            jrnn.unroll(SKIP, params, jnp.zeros((T, B), int))
        layer = stateless(K, halved)
        params = layer.init(jax.random.key(0))
        with pytest.raises(TypeError, match="floating inputs to stateless"):
            jrnn.unroll(layer, params, jnp.zeros((T, B), int))

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda cell: jrnn.wrappers.zoneout(cell, 0.5),
            jrnn.wrappers.learned_initial_state,
        ],
    )
    def test_a_loop_without_a_state(self, wrap):
        with pytest.raises(ValueError, match="with a state, because .* nothing recurs"):
            wrap(DENSE)

    def test_a_jacobian_without_a_state(self):
        params = drawn(DENSE)[0]
        with pytest.raises(ValueError, match="there is no Jacobian"):
            jacobian_products(DENSE, params, jnp.ones((T, H)))

    @pytest.mark.parametrize(
        ("function", "kind", "words"),
        [
            (lambda x: x.sum(), ValueError, r"returned float32 of shape \(\)"),
            (lambda x: x.astype(int), ValueError, "returned int64"),
            (lambda a, b: a, ValueError, "which raised"),
            (3, TypeError, "function to be a function"),
        ],
    )
    def test_no_function_of_a_step(self, function, kind, words):
        with pytest.raises(kind, match=words):
            stateless(3, function)
