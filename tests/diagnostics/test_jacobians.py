"""Products of Jacobians equal brute force, stay finite, and are below their bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import activations as activations
from jrnn.diagnostics import (
    gate_statistics,
    jacobian_bound,
    jacobian_products,
    jacobian_products_by_lag,
    lyapunov_spectrum,
    step_jacobians,
)
from tests.helpers import (
    CELLS,
    assert_close,
    forwards_in_time,
    random_like,
    random_params,
    shapes_of,
    state_shapes,
)
from tests.programs import equations, runs_over

SLACK = 1e-12  # relative, of norms: absolute of their logarithms
STEPS, BATCH = 4, 2
LINE = 600  # 2^600 / 2^-600 is beyond what a float64 can hold
QUICK = ("elman",)
slow = pytest.mark.slow

STACKS = {
    "stack": lambda k, h: jrnn.stack(jrnn.lstm(k, h), jrnn.residual(jrnn.gru(h, h))),
    "zoneout": lambda k, h: jrnn.wrappers.zoneout(jrnn.lstm(k, h), 0.3),
    "learnable": lambda k, h: jrnn.wrappers.learned_initial_state(jrnn.gru(k, h)),
    "dropout": lambda k, h: jrnn.dropout(jrnn.elman(k, h), 0.5),
}


def flat(state) -> jax.Array:
    """A state without batch axes as one real vector."""
    parts = []
    for leaf in jax.tree.leaves(state):
        pair = [leaf.real, leaf.imag] if jnp.iscomplexobj(leaf) else [leaf]
        parts += [part.reshape(-1) for part in pair]
    return jnp.concatenate(parts)


def unflat(vector, like):
    leaves, at = [], 0
    for leaf in jax.tree.leaves(like):
        pair = []
        for _ in range(2 if jnp.iscomplexobj(leaf) else 1):
            pair.append(vector[at : at + leaf.size].reshape(leaf.shape))
            at += leaf.size
        leaves.append(pair[0] if len(pair) == 1 else jax.lax.complex(*pair))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def brute_force(cell, params, xs, state) -> np.ndarray:
    """Returns ds_t/ds_k at [k, t], as rows of derivatives, of one sequence."""
    like, size = state, flat(state).size

    def states(nudges):
        states = [flat(state) + nudges[0]]
        for x, nudge in zip(xs, nudges[1:], strict=True):
            moved = cell.step(params, unflat(states[-1], like), x)[0]
            states.append(flat(moved) + nudge)
        return jnp.stack(states)

    J = jax.jit(jax.jacobian(states))(jnp.zeros((len(xs) + 1, size)))
    return np.transpose(J, (2, 0, 3, 1))  # t j k i -> k t i j


def check_against_brute_force(cell, params, xs, state):
    norms = jacobian_products(cell, params, xs, state)
    steps = step_jacobians(cell, params, xs, state)
    for b in range(xs.shape[1]):
        one = jax.tree.map(lambda leaf, b=b: leaf[b], state)
        expected = brute_force(cell, params, xs[:, b], one)
        for k in range(len(xs)):
            np.testing.assert_allclose(steps[k, b], expected[k, k + 1], atol=1e-12)
            assert (norms[k + 1 :, k, b] == -jnp.inf).all()
            for t in range(k, len(xs) + 1):
                truth = np.linalg.norm(expected[k, t], 2)
                np.testing.assert_allclose(
                    np.exp(norms[k, t, b]), truth, rtol=1e-10, err_msg=f"{k} {t}"
                )


@pytest.mark.longer
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name in QUICK else slow)
        for case in CELLS
        if case.name != "feedforward"  # it has no state
    ],
)
def test_products_equal_brute_force(case):
    cell, params = random_params(case, 3, 4 if case.name in ("s5",) else 2)
    xs = forwards_in_time(cell, random_like(1, jnp.zeros((STEPS, BATCH, 3))))
    state = random_like(2, state_shapes(cell, params, (BATCH,)))
    check_against_brute_force(cell, params, xs, state)


@slow
@pytest.mark.parametrize("name", STACKS)
def test_products_of_combinators_equal_brute_force(name):
    cell = STACKS[name](3, 2)
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((STEPS, BATCH, 3)))
    state = random_like(2, state_shapes(cell, params, (BATCH,)))
    check_against_brute_force(cell, params, xs, state)


@slow
def test_products_by_lag_are_the_rows_of_all_pairs():
    cell = jrnn.elman(3, 2)
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((STEPS, 3)))
    pairs = jacobian_products(cell, params, xs)
    found = jacobian_products_by_lag(cell, params, xs, lags=3, starts=(2, 0))
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found[0, :3], pairs[2, 2:], atol=1e-14)
    assert np.isnan(found[0, 3])
    np.testing.assert_allclose(found[1], pairs[0, :4], atol=1e-14)


@slow
def test_fields_are_blocks_of_the_whole():
    cell = jrnn.lstm(3, 2)
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((STEPS, 3)))
    state = random_like(2, state_shapes(cell, params))
    expected = brute_force(cell, params, xs, state)[0, STEPS, 2:, :2]  # dh_T/dc_0
    how = {"source": "c", "target": "h"}
    found = jacobian_products_by_lag(cell, params, xs, state, **how)[0, -1]
    np.testing.assert_allclose(np.exp(found), np.linalg.norm(expected, 2), rtol=1e-10)
    block = step_jacobians(cell, params, xs, state, **how)
    whole = step_jacobians(cell, params, xs, state)
    assert_close(block, whole[..., 2:, :2], 0)


def relu_line():
    """A unit that doubles, and dies at the end; another that halves, and feeds it."""
    cell = jrnn.elman(2, 2, activation=jax.nn.relu, bias=False)
    params = cell.init(jax.random.key(0), jnp.float64)
    W_h = jnp.array([[2.0, 0.0], [1.0, 0.5]])
    params = params._replace(W_x=jnp.eye(2), W_h=W_h)
    xs = jnp.ones((LINE, 2)).at[-1, 0].set(-1e200)
    return cell, params, xs


@pytest.mark.longer
def test_a_direction_that_matters_late_is_not_lost_to_rounding():
    cell, params, xs = relu_line()
    found = jacobian_products_by_lag(cell, params, xs)[0]
    for lag in range(0, LINE, 7):  # W_h^lag, over 2^lag
        power = [[1, 0], [(1 - 4.0**-lag) / 1.5, 4.0**-lag]]
        expected = lag * np.log(2) + np.log(np.linalg.norm(power, 2))
        assert float(found[lag]) == pytest.approx(expected, rel=1e-13, abs=1e-15)
    np.testing.assert_allclose(found[LINE], -LINE * np.log(2), rtol=1e-13)


def test_a_product_that_is_zero_has_the_logarithm_of_zero():
    cell, params, xs = relu_line()
    found = jacobian_products_by_lag(cell, params, xs.at[-1].set(-1e200))[0]
    assert np.isfinite(found[:LINE]).all()
    assert found[LINE] == -np.inf


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=slow)])
def test_growth_over_ten_thousand_steps_is_finite(dtype):
    """Far above what a float can hold: 1.5^10,000."""
    W = 1.5 * np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    cell = jrnn.elman(1, 3, activation=jrnn.activations.linear, bias=False)
    params = cell.init(jax.random.key(0), dtype)._replace(W_h=jnp.asarray(W, dtype))
    found = jacobian_products_by_lag(cell, params, jnp.zeros((10_000, 1), dtype))[0]
    expected = np.arange(10_001) * np.log(1.5)
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name", ["elman", pytest.param("lstm", marks=slow), pytest.param("gru", marks=slow)]
)
def test_lag_of_ten_thousand_is_finite(name):
    """Decaying, far below what a float64 can hold."""
    cell = getattr(jrnn.cells, name)(1, 3)
    params = cell.init(jax.random.key(0), jnp.float64)
    params = params._replace(W_h=0.5 * params.W_h)
    found = jacobian_products_by_lag(cell, params, jnp.zeros((10_000, 1)))[0]
    assert found.shape == (10_001,)
    assert np.isfinite(found).all()
    # At a fixed point the norm falls by the Jacobian's spectral radius at each step.
    J = step_jacobians(cell, params, jnp.zeros((2_000, 1)))[-1]
    rate = np.log(np.abs(np.linalg.eigvals(J)).max())
    assert float(found[-1] - found[-1_001]) == pytest.approx(1_000 * rate, rel=1e-9)
    assert found[-1] < np.log(np.finfo(np.float64).tiny)


def draws(make, count, seed=0):
    """Parameters, inputs and starting states over more than two decades of size.

    Not more: of a gate that is saturated so far that 1 - z is all rounding, two
    compilations of the same J agree to less than the slack.
    """
    cell = make(2, 3)
    like = jax.eval_shape(cell.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        sizes = 10 ** rng.uniform(-2, 0.5, (count, *(1,) * leaf.ndim))
        return jnp.asarray(sizes * rng.normal(size=(count, *leaf.shape)))

    params = jax.tree.map(lambda leaf: draw(leaf), like)
    state = jax.eval_shape(cell.init_state, like)
    state = jax.tree.map(lambda leaf: draw(leaf), state)
    xs = draw(jnp.zeros((6, 2)))
    return cell, params, xs, state


@pytest.mark.longer
@pytest.mark.parametrize(
    ("make", "label"),
    [
        pytest.param(jrnn.elman, "sup|phi'|", id="elman", marks=slow),
        pytest.param(
            lambda k, h: jrnn.elman(k, h, activation=jax.nn.sigmoid),
            "sup|phi'|",
            id="elman sigmoid",
            marks=slow,
        ),
        pytest.param(
            lambda k, h: jrnn.elman(k, h, activation=jax.nn.relu),
            "sup|phi'|",
            id="elman relu",
            marks=slow,
        ),
        pytest.param(jrnn.cells.ind_rnn, "sup|phi'|", id="ind_rnn", marks=slow),
        pytest.param(jrnn.cells.min_gru, "does not depend", id="min_gru", marks=slow),
        pytest.param(jrnn.gru, "(1 + B^2)", id="gru"),
        pytest.param(
            lambda k, h: jrnn.gru(k, h, reset_after=False),
            "(1 + B^2)",
            id="gru before",
            marks=slow,
        ),
        pytest.param(
            lambda k, h: jrnn.wrappers.learned_initial_state(
                jrnn.gru(k, h, bias=False)
            ),
            "(1 + B^2)",
            id="gru learnable",
            marks=slow,
        ),
        pytest.param(jrnn.lstm, "blocks", id="lstm", marks=slow),
        pytest.param(jrnn.cells.exp_rnn, "which is 1", id="exp_rnn", marks=slow),
        *[
            pytest.param(
                lambda k, h, gated=gated: jrnn.cells.antisymmetric_rnn(
                    k, h, gated=gated, epsilon=0.7
                ),
                "1 + epsilon s(M)",
                id=f"antisymmetric_rnn {gated=}",
                marks=slow,
            )
            for gated in (False, True)
        ],
        *[
            pytest.param(
                lambda k, h, make=make: jrnn.wrappers.orthogonal(make(k, h)),
                label,
                id=f"orthogonal {make.__name__}",
                marks=slow,
            )
            for make, label in (
                (jrnn.elman, "sup|phi'|"),
                (jrnn.gru, "(1 + B^2)"),
                (jrnn.lstm, "blocks"),
            )
        ],
        pytest.param(
            lambda k, h: jrnn.wrappers.zoneout(jrnn.gru(k, h), 0.3),
            "zoneout keeps",
            id="zoneout gru",
            marks=slow,
        ),
        pytest.param(
            lambda k, h: jrnn.wrappers.zoneout(jrnn.lstm(k, h), (0.05, 0.5)),
            "zoneout keeps",
            id="zoneout lstm",
            marks=slow,
        ),
        pytest.param(
            lambda k, h: jrnn.wrappers.variational_dropout(
                jrnn.wrappers.zoneout(jrnn.wrappers.orthogonal(jrnn.gru(k, h)), 0.9),
                0.5,
            ),
            "zoneout keeps",
            id="dropout zoneout orthogonal gru",
            marks=slow,
        ),
    ],
)
def test_norms_lie_below_step_norms_and_these_below_the_bound(make, label):
    cell, params, xs, state = draws(make, 1_000)

    def look(params, xs, state):
        norms = jacobian_products_by_lag(cell, params, xs, state)[0]
        steps = step_jacobians(cell, params, xs, state)
        singular = jnp.linalg.svd(steps, compute_uv=False)[..., 0]
        return norms, jnp.log(singular), jacobian_bound(cell, params, xs, state)

    norms, singular, bound = jax.vmap(look)(params, xs, state)
    assert bound.proven
    assert label in bound.label
    products = np.cumsum(singular, axis=1)
    lags = np.arange(1, 7)
    assert (norms[:, 1:] <= products + SLACK).all()
    assert (products <= np.cumsum(bound.log_steps, axis=1) + SLACK).all()
    assert (products <= lags * np.asarray(bound.log_beta)[:, None] + SLACK).all()
    assert np.isfinite(bound.log_beta).all()


def gru_zeros(reset_after, W_r, W_z, W_n, b):
    """A GRU of two units that keep to themselves, and whose gates are as set."""
    cell = jrnn.gru(1, 2, reset_after=reset_after)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), jnp.float64))
    W_h = jnp.concatenate([W * jnp.eye(2) for W in (W_r, W_z, W_n)], axis=1)
    return cell, params._replace(W_h=W_h, b=jnp.repeat(jnp.array(b), 2))


OPEN = 50.0  # a gate's argument that leaves it open, or, with a minus, shut


def worst_case(name, m):
    """Cells that nearly meet their bound, each term of it by itself; large weights."""
    if name == "z":  # z = 1/2, n = -1, h = m
        cell, params = gru_zeros(True, 0, 100.0, 0, [0, -100.0 * m, -OPEN])
    elif name == "r after" or name == "r before":  # r = 1/2, z = 0, n = 0, h = m
        b = [-100.0 * m, -OPEN, -m]
        cell, params = gru_zeros(name == "r after", 100.0, 0, 2.0, b)
    elif name == "r bias":  # r = 1/2, z = 0, n = 0, q = b_h
        cell, params = gru_zeros(True, 4.0, 0, 0, [-4.0 * m, -OPEN, -OPEN])
        params = params._replace(b_h=jnp.full(2, 2 * OPEN))
    if name != "f":
        return (
            cell,
            params,
            jnp.zeros((1, 1)),
            cell.init_state(params)._replace(h=jnp.full(2, m)),
        )
    # f = 1/2 at both steps, for what step 1 shows is taken off step 2's input
    cell = jrnn.lstm(1, 2)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), jnp.float64))
    ones, none = jnp.ones((1, 2)), jnp.zeros((1, 2))
    W_x = jnp.concatenate([none, ones, none, none], axis=1)
    W_h = jnp.pad(100.0 * jnp.eye(2), ((0, 0), (2, 4)))
    b = jnp.repeat(jnp.array([-OPEN, 0.0, 0.0, OPEN]), 2)
    xs = jnp.array([[0.0], [-100.0 * np.tanh(4.0 * m)]])
    state = cell.init_state(params)._replace(c=jnp.full(2, 8.0 * m))
    return cell, params._replace(W_x=W_x, W_h=W_h, b=b), xs, state


@slow
@pytest.mark.parametrize("m", [1.0, 3.0])
@pytest.mark.parametrize("name", ["z", "r after", "r before", "r bias", "f"])
def test_bounds_are_nearly_met_by_the_worst_cells(name, m):
    cell, params, xs, state = worst_case(name, m)
    J = np.asarray(step_jacobians(cell, params, xs, state))
    norms = np.linalg.norm(J, 2, axis=(-2, -1))
    bound = jacobian_bound(cell, params, xs, state)
    assert bound.proven
    betas = np.exp(bound.log_steps)
    assert (norms <= betas * (1 + SLACK)).all()
    # The LSTM's bound takes the slope of tanh(c) as 1, which here is nearly 0, and so
    # dh as large as dc; and f as 1 at step 1, which here was 1/2.
    shares = [0.7, 0.35] if name == "f" else [0.96]
    assert (norms >= np.array(shares) * betas).all()


@slow
def test_blocks_bound_the_blocks_of_a_product():
    cell, params, xs, state = draws(jrnn.lstm, 200, seed=1)

    def look(params, xs, state):
        found = [
            [
                jacobian_products_by_lag(
                    cell, params, xs, state, source=i, target=j, lags=6
                )[0, -1]
                for j in "hc"
            ]
            for i in "hc"
        ]
        return jnp.array(found), jacobian_bound(cell, params, xs, state).blocks

    found, blocks = jax.vmap(look)(params, xs, state)
    for each, one in zip(found, blocks, strict=True):
        above = np.linalg.multi_dot(list(one))
        assert (each <= np.log(above) + SLACK).all()


def test_orthogonal_linear_network_meets_the_bound():
    cell = jrnn.elman(2, 4, activation=jrnn.activations.linear)
    params = cell.init(jax.random.key(0), jnp.float64)
    params = params._replace(W_h=0.7 * params.W_h)
    xs = random_like(1, jnp.zeros((8, 2)))
    norms = jacobian_products_by_lag(cell, params, xs)[0]
    bound = jacobian_bound(cell, params, xs)
    lags = np.arange(9)
    np.testing.assert_allclose(norms, lags * np.log(0.7), atol=SLACK)
    np.testing.assert_allclose(norms, lags * float(bound.log_beta), atol=SLACK)


@slow
def test_orthogonal_linear_network_keeps_the_norm():
    cell = jrnn.elman(2, 8, activation=jrnn.activations.linear)
    params = cell.init(jax.random.key(0), jnp.float64)
    found = jacobian_products_by_lag(cell, params, jnp.zeros((10_000, 2)))
    assert np.abs(found).max() < 1e-10


@slow
@pytest.mark.parametrize("activation", activations.STEEPEST)
def test_steepest_slopes_are_reached_and_not_exceeded(activation):
    a = jnp.linspace(-40, 40, 160_001)
    slopes = jnp.abs(jax.vmap(jax.grad(activation))(a))
    steepest = activations.STEEPEST[activation]
    assert float(slopes.max()) <= steepest
    assert float(slopes.max()) == pytest.approx(steepest, rel=1e-12)


@slow
def test_the_bound_of_a_zoneout_counts_what_it_keeps_of_c():
    """c_{t-1}, which f's slope multiplies, falls by the rate, and not by f."""
    cell = jrnn.lstm(1, 1)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), jnp.float64))
    params = params._replace(W_h=jnp.array([[0.0, 0.5, 0.0, 0.0]]))
    params = params._replace(b=jnp.array([-OPEN, -2.0, 0.0, -OPEN]))
    state = cell.init_state(params)._replace(c=jnp.full(1, 4e3))
    cell, xs = jrnn.wrappers.zoneout(cell, 0.9), jnp.zeros((20, 1))
    J = np.asarray(step_jacobians(cell, params, xs, state))
    log_steps = jacobian_bound(cell, params, xs, state).log_steps
    assert (
        np.linalg.norm(J, 2, axis=(-2, -1)) <= np.exp(log_steps) * (1 + SLACK)
    ).all()


@pytest.mark.parametrize(
    "make",
    [
        jrnn.elman,
        pytest.param(jrnn.gru, marks=slow),
        pytest.param(jrnn.lstm, marks=slow),
        pytest.param(
            lambda k, h: jrnn.wrappers.zoneout(jrnn.cells.ind_rnn(k, h), 0.5),
            marks=slow,
        ),
        pytest.param(lambda k, h: jrnn.stack(jrnn.gru(k, h)), marks=slow),
    ],
)
def test_bounds_are_nan_from_the_first_step_that_reads_nan(make):
    cell = make(3, 2)
    params = cell.init(jax.random.key(0))
    xs = random_like(1, jnp.zeros((STEPS, BATCH, 3), jnp.float32))
    bound = jacobian_bound(cell, params, xs.at[2, 0, 0].set(jnp.nan))
    assert np.isfinite(bound.log_steps[:2]).all()
    assert np.isnan(bound.log_steps[2:, 0]).all()
    assert np.isnan(bound.blocks[2:, 0]).all()
    assert np.isfinite(bound.log_steps[:, 1]).all()
    assert np.isnan(bound.log_beta[0])
    assert np.isfinite(bound.log_beta[1])


def primitives(program):
    """Yields the name of each primitive, and whether it runs in a loop over time."""
    for equation, loops in equations(program):
        yield equation.primitive.name, any(runs_over(loop, LINE) for loop in loops)


@pytest.mark.longer
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(function, id=function.__name__, marks=slow if i else ())
        for i, function in enumerate(
            (
                jacobian_products_by_lag,
                step_jacobians,
                jacobian_bound,
                gate_statistics,
                lyapunov_spectrum,
            )
        )
    ],
)
def test_the_matrix_exponential_is_taken_once_and_not_at_each_step(function):
    cell = jrnn.stack(
        jrnn.cells.exp_rnn(2, 3), jrnn.wrappers.orthogonal(jrnn.gru(3, 3))
    )
    params, xs = cell.init(jax.random.key(0)), jnp.zeros((LINE, 2), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda params: jax.tree.leaves(function(cell, params, xs)))
    found = set(primitives(jaxpr(params)))
    assert ("lu", False) in found  # the exponential solves a system
    assert ("lu", True) not in found
    assert ("tanh", True) in found


@slow
def test_what_is_not_proven_is_measured_and_says_so():
    cell = jrnn.stack(jrnn.lstm(3, 2), jrnn.elman(2, 2))
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((STEPS, BATCH, 3)))
    bound = jacobian_bound(cell, params, xs)
    assert not bound.proven
    assert "measured" in bound.label
    assert bound.proof.fields == ("[0].h", "[0].c", "[1].h")
    J = np.asarray(step_jacobians(cell, params, xs))
    np.testing.assert_allclose(
        np.exp(bound.log_steps), np.linalg.norm(J, 2, axis=(-2, -1)), rtol=1e-12
    )
    block = np.linalg.norm(J[..., 2:4, 4:], 2, axis=(-2, -1))  # d[1].h/d[0].c
    np.testing.assert_allclose(bound.blocks[..., 1, 2], block, rtol=1e-12)
    assert (bound.blocks[..., 2, 0] == 0).all()  # the top tells the bottom nothing


def test_mistakes_are_refused():
    cell = jrnn.gru(3, 2)
    params, xs = cell.init(jax.random.key(0)), jnp.zeros((STEPS, 3), jnp.float32)
    pair = jrnn.bidirectional(cell, cell)
    both = pair.init(jax.random.key(0))
    for function in (step_jacobians, jacobian_products, jacobian_bound):
        with pytest.raises(ValueError, match="no product of Jacobians"):
            function(pair, both, xs)
    with pytest.raises(ValueError, match="one of h, or None"):
        jacobian_products(cell, params, xs, source="c")
    with pytest.raises(ValueError, match=r"within 0\.\.4"):
        jacobian_products_by_lag(cell, params, xs, lags=5)
    with pytest.raises(ValueError, match=r"within 0\.\.4"):
        jacobian_products_by_lag(cell, params, xs, starts=(5,))
    with pytest.raises(ValueError, match="shape"):
        step_jacobians(cell, params, xs[:, :2])
