"""Orthogonal matrices stay orthogonal, and are computed once per sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from tests.helpers import assert_close, error, random_like, shapes_of, state_shapes
from tests.programs import body, count, scans

T, B, K, H = 5, 2, 3, 4
linear = jrnn.elman(K, 16, activation=jrnn.activations.linear, bias=False)
LINEAR_ORTHOGONAL = {"drawn": linear, "kept": jrnn.wrappers.orthogonal(linear)}


def normal(seed, *shape):
    return random_like(seed, jax.ShapeDtypeStruct(shape, "float64"))


def orthogonality(W):
    return float(abs(W @ W.T - jnp.eye(len(W), dtype=W.dtype)).max())


# Orthogonal by the exponential map.


@pytest.mark.longer
@pytest.mark.parametrize(
    "name", ["kept", pytest.param("drawn", marks=pytest.mark.slow)]
)
def test_an_orthogonal_linear_network_keeps_every_norm(name, key):
    cell, steps = LINEAR_ORTHOGONAL[name], 10_000
    params = cell.init(key, jnp.float64)
    start, weights = normal(1, B, 16), normal(2, B, 16)
    first = cell.init_state(params, (B,))
    xs = jnp.zeros((steps, B, K))

    def last(h):
        final = jrnn.unroll(cell, params, xs, first._replace(h=h))[0].h
        return (final * weights).sum(), final

    (_, final), dh_0 = jax.value_and_grad(last, has_aux=True)(start)
    size = lambda h: jnp.linalg.norm(h, axis=-1)
    assert abs(size(final) / size(start) - 1).max() < 1e-10
    assert abs(size(dh_0) / size(weights) - 1).max() < 1e-10
    assert error(final, start) > 0.1  # it turned


@pytest.mark.longer
def test_whatever_a_is_the_matrix_is_a_rotation():
    cell = jrnn.cells.exp_rnn(K, 16)
    params = cell.init(jax.random.key(0), jnp.float64)
    for scale in (0.1, 1.0, 30.0):
        W_h = cell.prepare(params._replace(A=normal(3, 16, 16) * scale)).W_h
        assert orthogonality(W_h) < 1e-12
        assert abs(jnp.linalg.det(W_h) - 1) < 1e-12
    symmetric = params.A + normal(4, 16, 16) * 0 + jnp.eye(16)
    assert_close(
        cell.prepare(params._replace(A=symmetric)), cell.prepare(params), 1e-13
    )


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_in_float32_rounding_grows_with_a_as_the_docs_say(scale):
    cell = jrnn.cells.exp_rnn(K, 16)
    params = cell.init(jax.random.key(0), jnp.float32)
    A = (normal(3, 16, 16) * scale).astype(jnp.float32)
    assert orthogonality(cell.prepare(params._replace(A=A)).W_h) < 1e-6 * scale


@pytest.mark.slow
def test_every_rotation_is_reached():
    # The paper's ground for the map: it is onto SO(n). Any Q has such an A.
    Q = np.linalg.qr(np.random.default_rng(5).normal(size=(8, 8)))[0]
    Q[0] *= np.linalg.det(Q)
    turns, V = np.linalg.eig(Q)
    S = (V * np.log(turns)) @ np.linalg.inv(V)
    assert abs(S.imag).max() < 1e-10
    cell = jrnn.cells.exp_rnn(K, 8)
    params = cell.init(jax.random.key(0), jnp.float64)
    reached = cell.prepare(params._replace(A=jnp.asarray(S.real / 2))).W_h
    assert error(reached, Q) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_no_gradient_of_an_exp_rnn_explodes_and_open_units_lose_none(sign):
    cell, steps = jrnn.cells.exp_rnn(K, 16), 1000
    params = random_like(6, shapes_of(cell.init))
    params = params._replace(b=sign * abs(params.b) * 0.05)
    first, xs = cell.init_state(params, (B,)), normal(7, steps, B, K)
    weights = normal(8, B, 16)

    def last(h):
        return (jrnn.unroll(cell, params, xs, first._replace(h=h))[0].h * weights).sum()

    size = lambda h: jnp.linalg.norm(h, axis=-1)
    ratio = size(jax.grad(last)(normal(9, B, 16))) / size(weights)
    if sign > 0:
        assert abs(ratio - 1).max() < 1e-10
    else:
        assert (ratio < 1).all()


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_orthogonality_is_kept_in_training():
    xs, wanted = normal(10, 20, 8, K), normal(11, 8, 16)

    def trained(cell):
        params = cell.init(jax.random.key(0), jnp.float64)
        optimiser = optax.adam(0.1)

        def loss(params):
            state, _ = jrnn.unroll(cell, params, xs)
            return ((state.h - wanted) ** 2).mean()

        @jax.jit
        def step(carry, _):
            params, memory = carry
            value, gradient = jax.value_and_grad(loss)(params)
            change, memory = optimiser.update(gradient, memory, params)
            return (optax.apply_updates(params, change), memory), value

        carry = params, optimiser.init(params)
        (params, _), losses = jax.lax.scan(step, carry, length=200)
        return params, losses

    free, _ = trained(jrnn.elman(K, 16))
    assert orthogonality(free.W_h) > 0.1  # drawn orthogonal, and not for long
    for cell in (
        jrnn.cells.exp_rnn(K, 16),
        jrnn.wrappers.orthogonal(jrnn.elman(K, 16)),
    ):
        params, losses = trained(cell)
        before = cell.init(jax.random.key(0), jnp.float64)
        assert losses[-1] < 0.5 * losses[0]
        assert error(params.A, before.A) > 0.1  # it learned
        assert orthogonality(cell.prepare(params).W_h) < 1e-13


@pytest.mark.slow
def test_each_gate_of_a_gated_cell_is_a_rotation(key):
    cell = jrnn.wrappers.orthogonal(jrnn.gru(K, H))
    params = cell.init(key, jnp.float64)
    assert params.A.shape == (H, 3 * H)
    assert params.cell.W_h is None
    own = cell.prepare(params)
    for block in jnp.split(own.W_h, 3, axis=1):
        assert orthogonality(block) < 1e-14
    assert cell.prepare(own) is own
    state = random_like(1, state_shapes(cell, params, (B,)))
    assert cell is jrnn.wrappers.orthogonal(jrnn.gru(K, H))
    x = normal(2, B, K)
    assert_close(cell.step(params, state, x), jrnn.gru(K, H).step(own, state, x), 0.0)
    assert_close(cell.step(own, state, x), cell.step(params, state, x), 0.0)


# What is prepared is prepared once, and never inside a loop.


def around(cell):
    """Every combinator there is around a cell that prepares its parameters."""
    return {
        "alone": cell,
        "stack": jrnn.stack(cell, jrnn.residual(jrnn.cells.exp_rnn(H, H))),
        "bidirectional": jrnn.bidirectional(cell, jrnn.dropout(cell, 0.2)),
        "learnable": jrnn.wrappers.learned_initial_state(cell),
        "zoneout": jrnn.wrappers.zoneout(cell, 0.5),
        "variational": jrnn.wrappers.variational_dropout(cell, 0.5),
    }


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "name",
    [
        "stack",
        "learnable",
        pytest.param("alone", marks=pytest.mark.slow),
        pytest.param("bidirectional", marks=pytest.mark.slow),
        pytest.param("zoneout", marks=pytest.mark.slow),
        pytest.param("variational", marks=pytest.mark.slow),
    ],
)
def test_the_exponential_is_taken_outside_of_the_loop(name):
    cell = around(jrnn.cells.exp_rnn(K, H))[name]
    params = cell.init(jax.random.key(0), jnp.float64)
    xs, once = jnp.ones((T, B, K)), jax.make_jaxpr(cell.prepare)(params)
    assert count(once, "lu") == (2 if name in ("stack", "bidirectional") else 1)
    for method in (jrnn.scan(), jrnn.bptt(chunk=2), jrnn.newton()):
        run = lambda p, m=method: jrnn.unroll(
            cell, p, xs, method=m, key=jax.random.key(1)
        )[1].sum()
        jaxpr = jax.make_jaxpr(jax.grad(run))(params)
        assert count(jaxpr, "lu") == count(once, "lu")
        assert not any(count(body(scan), "lu") for _, scan in scans(jaxpr))


@pytest.mark.slow
def test_combinators_around_a_cell_that_prepares_equal_a_loop_of_step():
    cell = jrnn.wrappers.learned_initial_state(
        jrnn.wrappers.zoneout(jrnn.cells.exp_rnn(K, H), 0.3)
    )
    params = random_like(12, shapes_of(cell.init))
    xs, weights = normal(13, T, B, K), normal(14, T, B, H)
    noise, step = cell.noise(jax.random.key(1), T, (B,)), jax.jit(cell.step)

    def by_loop(params, xs):
        state, total = cell.init_state(params, (B,)), 0.0
        for t in range(T):
            drawn = jax.tree.map(lambda leaf, t=t: leaf[t], noise)
            state, y = step(params, state, xs[t], drawn)
            total = total + (y * weights[t]).sum()
        return total

    expected = jax.value_and_grad(by_loop, (0, 1))(params, xs)
    for method in (jrnn.scan(), jrnn.bptt(chunk=2), jrnn.newton()):
        run = lambda params, xs, m=method: (
            jrnn.unroll(cell, params, xs, key=jax.random.key(1), method=m)[1] * weights
        ).sum()
        assert_close(jax.value_and_grad(run, (0, 1))(params, xs), expected, 1e-10)


@pytest.mark.parametrize("what", ["sample", "log_prob"])
def test_a_model_prepares_once(what):
    model = jrnn.sequence_model(jrnn.cells.exp_rnn(K, H), jrnn.categorical(K))
    params = model.init(jax.random.key(0))
    run = {
        "sample": lambda params: model.sample(params, jax.random.key(1), 5),
        "log_prob": lambda params: model.log_prob(params, jnp.array([0, 1, 2]))[1],
    }[what]
    jaxpr = jax.make_jaxpr(run)(params)
    assert count(jaxpr, "lu") == 1
    assert not any(count(body(scan), "lu") for _, scan in scans(jaxpr))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jrnn.cells.exp_rnn(3, 0), "hidden_size to be at least 1, got 0"),
        (
            lambda: jrnn.wrappers.orthogonal(jrnn.cells.lru(3, 4)),
            "W_h of their own, got lru",
        ),
        (
            lambda: jrnn.wrappers.orthogonal(jrnn.cells.exp_rnn(3, 4)),
            "already reparametrised",
        ),
        (
            lambda: jrnn.wrappers.orthogonal(jrnn.residual(jrnn.gru(4, 4))),
            "around the cells inside",
        ),
        (
            lambda: jrnn.wrappers.orthogonal(jrnn.lstm(3, 4, projection_size=2)),
            "one square block for each gate, got 2 x 16",
        ),
        (lambda: jrnn.wrappers.orthogonal(jrnn.cells.co_rnn(3, 4)), "got 8 x 4"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
