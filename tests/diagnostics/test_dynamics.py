"""Gradients by lag, Lyapunov exponents, memory, gates and the penalty on gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.diagnostics import (
    gradient_by_lag,
    lyapunov_spectrum,
    memory_capacity,
    state_adjoints,
    step_jacobians,
)
from jrnn.train.regularisers import gradient_norm_penalty
from tests.helpers import assert_close, random_like, shapes_of, state_shapes

slow = pytest.mark.slow
MAKE = {
    "elman": jrnn.elman,
    "lstm": jrnn.lstm,
    "lru": jrnn.cells.lru,
    "stack": lambda k, h: jrnn.stack(jrnn.gru(k, h), jrnn.elman(h, h)),
    "exp_rnn": jrnn.cells.exp_rnn,  # reads what is prepared of its parameters
}
CELLS = [
    pytest.param(make, id=name, marks=() if name == "elman" else slow)
    for name, make in MAKE.items()
]


def example(make, steps=5, batch=2, k=3, h=2):
    cell = make(k, h)
    params = random_like(0, shapes_of(cell.init), 0.5)
    xs = random_like(1, jnp.zeros((steps, batch, k)))
    state = random_like(2, state_shapes(cell, params, (batch,)), 0.5)
    return cell, params, xs, state


def sum_of_squares(final, ys):
    weights = jnp.arange(1, ys.size + 1, dtype=ys.dtype).reshape(ys.shape)
    ends = [jnp.abs(leaf).sum() for leaf in jax.tree.leaves(final)]
    return (weights * jnp.square(ys)).sum() + jnp.stack(ends).sum()


def of_the_last_step(final, ys):
    del final
    return jnp.square(ys[-1]).sum()


def by_copies(cell, params, xs, state, loss):
    """dL/dtheta_t for parameters theta_1, ..., theta_T that are let differ by step."""

    def run(copies):
        s, ys = state, []
        for x, copy in zip(xs, copies, strict=True):
            s, _ = cell.step(copy, s, x)
            ys.append(cell.output(params, s, x))  # what only shows is no step
        return loss(s, jnp.stack(ys))

    return jax.jit(jax.grad(run))([params] * len(xs))


@pytest.mark.parametrize("make", CELLS)
def test_gradient_by_lag_is_that_of_each_step_by_itself(make):
    cell, params, xs, state = example(make)
    found = gradient_by_lag(cell, params, xs, of_the_last_step, state)
    copies = by_copies(cell, params, xs, state, of_the_last_step)
    total = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *copies)
    inner = lambda a, b: float(np.vdot(flat(a), flat(b)))
    for lag, G in enumerate(reversed(copies)):
        assert float(found.norms[lag]) == pytest.approx(inner(G, G) ** 0.5, rel=1e-10)
        share = inner(G, total) / inner(total, total)
        assert float(found.shares[lag]) == pytest.approx(share, rel=1e-9, abs=1e-12)
        norms = jax.tree.map(lambda leaf: leaf[lag], found.by_parameter)  # noqa: B023 used at once
        assert_close(norms, jax.tree.map(lambda leaf: jnp.linalg.norm(leaf.ravel()), G))


@pytest.mark.longer
def test_a_gradient_of_zero_has_no_shares_and_a_derivative():
    cell, params, xs, state = example(jrnn.elman)
    nothing = lambda final, ys: 0 * ys.sum()
    found = gradient_by_lag(cell, params, xs, nothing, state)
    np.testing.assert_array_equal(found.shares, 0)
    measured = lambda params: gradient_by_lag(
        cell, params, xs, of_the_last_step, state, lags=1
    ).norms.sum()
    slope = jax.grad(measured)(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slope))


def shrinking(factor, steps, dtype=jnp.float32):
    """A linear network whose gradients change by `factor` at each step back."""
    cell = jrnn.elman(1, 4, activation=jrnn.activations.linear)
    W = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    params = cell.init(jax.random.key(0), dtype)
    params = params._replace(W_h=jnp.asarray(factor * W, dtype))
    return cell, params, jnp.ones((steps, 1), dtype)


def sum_of_the_last(final, ys):
    del final
    return ys[-1].sum()


@pytest.mark.parametrize("factor", [0.5, pytest.param(2.0, marks=slow)])
def test_gradients_whose_squares_no_float32_holds_are_measured(factor):
    cell, params, xs = shrinking(factor, 110)
    found = gradient_by_lag(cell, params, xs, sum_of_the_last)
    far = np.asarray(found.by_parameter.b) / factor ** np.arange(110.0)
    np.testing.assert_allclose(far, 2, rtol=1e-4)  # the norm of (1, 1, 1, 1)
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-4)
    penalty = gradient_norm_penalty(cell, params, xs, sum_of_the_last)
    assert float(penalty) == pytest.approx(109 * (factor - 1) ** 2, rel=1e-4)


@pytest.mark.longer
@pytest.mark.parametrize("where", [pytest.param("xs", marks=slow), "b"])
def test_what_is_not_a_number_is_told(where):
    cell, params, xs = shrinking(1.0, 9)
    if where == "xs":
        xs = xs.at[3].set(jnp.nan)
    else:
        params = params._replace(b=params.b.at[0].set(jnp.nan))
    squares = lambda final, ys: jnp.square(ys).sum()
    found = gradient_by_lag(cell, params, xs, squares)
    assert np.isnan(found.norms).any()
    assert np.isnan(found.shares).all()
    cell, curved = jrnn.elman(1, 4), params  # whose Jacobians read the state
    assert np.isnan(gradient_norm_penalty(cell, curved, xs, squares))
    assert np.isnan(lyapunov_spectrum(cell, curved, xs).exponents).any()
    if where == "b":
        memory = memory_capacity(cell, curved, jax.random.key(0), max_delay=2)
        assert np.isnan(memory.total)


def test_a_run_that_overflows_has_no_memory_to_tell_of():
    cell, params, _ = shrinking(2.0, 1)
    found = memory_capacity(cell, params, jax.random.key(0), max_delay=2)
    assert np.isnan(found.total)


@pytest.mark.longer
def test_gradients_in_bfloat16_are_measured_in_float32():
    cell, params, xs, state = example(jrnn.elman)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    found = gradient_by_lag(cell, narrow, xs.astype(jnp.bfloat16), of_the_last_step)
    assert found.norms.dtype == jnp.float32


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.longer
@pytest.mark.parametrize("make", CELLS)
def test_shares_of_all_lags_are_one_in_sum(make):
    cell, params, xs, state = example(make)
    found = gradient_by_lag(cell, params, xs, sum_of_squares, state)
    assert found.norms.shape == (5,)
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-12)
    some = gradient_by_lag(cell, params, xs, sum_of_squares, state, lags=2)
    np.testing.assert_allclose(some.norms, found.norms[:3], rtol=1e-13)
    with pytest.raises(ValueError, match=r"within 0\.\.4"):
        gradient_by_lag(cell, params, xs, sum_of_squares, state, lags=5)


def linear(W_h):
    """h_t = h_{t-1} W_h, of float64."""
    size = len(W_h)
    cell = jrnn.elman(1, size, activation=jrnn.activations.linear, bias=False)
    params = cell.init(jax.random.key(0), jnp.float64)
    return cell, params._replace(W_h=jnp.asarray(W_h))


def rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def normal_matrix(seed=0):
    """Eigenvalues of moduli 1.2, 0.9 (a pair) and 0.5, in a random basis."""
    D = np.zeros((4, 4))
    D[0, 0], D[3, 3] = -1.2, 0.5
    D[1:3, 1:3] = 0.9 * rotation(1.0)
    U = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    return U @ D @ U.T


def moduli(W_h):
    return np.sort(np.log(np.abs(np.linalg.eigvals(W_h))))[::-1]


def test_exponents_of_a_normal_linear_network_are_log_moduli():
    cell, params = linear(normal_matrix())
    xs = jnp.zeros((1_000, 1))
    found = lyapunov_spectrum(cell, params, xs)
    np.testing.assert_allclose(found.exponents, moduli(params.W_h), atol=1e-6)
    assert (np.asarray(found.errors) < 1e-6).all()


@pytest.mark.longer
@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=slow), jnp.float64])
def test_a_direction_that_is_lost_has_no_exponent(dtype):
    tolerance = 20 * float(jnp.finfo(dtype).eps)

    def spectrum(cell, params, xs=None):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        xs = jnp.zeros((400, 1), dtype) if xs is None else xs
        return np.asarray(lyapunov_spectrum(cell, params, xs).exponents)

    U = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    found = spectrum(*linear(U @ np.diag([1, 0.5, 0]) @ U.T))
    np.testing.assert_allclose(found[:2], np.log([1, 0.5]), atol=tolerance)
    assert found[2] == -np.inf
    # What is small, and no rounding, stays.
    found = spectrum(*linear(U @ np.diag([1, 0.5, 1e-3]) @ U.T))
    np.testing.assert_allclose(found[2], np.log(1e-3), rtol=1e-3)
    # A layer norm's Jacobian lacks a rank, and one unit of a relu network is dead.
    normed = jrnn.cells.layer_norm_elman(1, 4)
    xs = jax.random.normal(jax.random.key(1), (400, 1), dtype)
    found = spectrum(normed, normed.init(jax.random.key(0), dtype), xs)
    assert np.isfinite(found[0])
    assert found[-1] == -np.inf
    dead = jrnn.elman(1, 3, activation=jax.nn.relu)
    params = dead.init(jax.random.key(0), jnp.float64)
    params = params._replace(b=jnp.array([5.0, 5.0, -50.0]), W_h=jnp.asarray(U))
    assert spectrum(dead, params)[-1] == -np.inf


@slow
def test_exponents_of_any_linear_network_are_log_moduli():
    """Random matrices are not normal: pairs of one modulus are right in their sum."""
    xs = jnp.zeros((20_000, 1))
    for seed in range(3):
        W_h = np.random.default_rng(seed).normal(size=(6, 6))
        cell, params = linear(W_h / np.abs(np.linalg.eigvals(W_h)).max())
        found = np.asarray(lyapunov_spectrum(cell, params, xs).exponents)
        expected = moduli(params.W_h)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert found.sum() == pytest.approx(expected.sum(), abs=1e-6)
        for modulus in np.unique(expected.round(9)):
            group = np.isclose(expected, modulus, atol=1e-8)
            total = expected[group].sum()
            assert found[group].sum() == pytest.approx(total, abs=1e-6)


@slow
def test_fewer_exponents_are_the_largest():
    cell, params = linear(normal_matrix(1))
    found = lyapunov_spectrum(cell, params, jnp.zeros((1_000, 1)), count=1)
    np.testing.assert_allclose(found.exponents, moduli(params.W_h)[:1], atol=1e-6)


@slow
def test_errors_are_those_of_the_mean_over_independent_steps():
    """h_t = exp(x_t) h_{t-1}: the exponent is the mean input, its error known."""
    linear_unit = jrnn.cells.min_gru(1, 1)._replace(
        project=lambda params, x: x,
        advance=lambda params, state, u: state._replace(h=jnp.exp(u) * state.h),
    )
    params = linear_unit.init(jax.random.key(0), jnp.float64)
    xs = 0.3 * jax.random.normal(jax.random.key(1), (4_000, 200, 1))
    found = lyapunov_spectrum(linear_unit, params, xs, discard=0)
    np.testing.assert_allclose(found.exponents, xs.mean(axis=0), atol=1e-12)
    expected = 0.3 / 4_000**0.5
    assert float(found.exponents.std()) == pytest.approx(expected, rel=0.2)
    assert float(found.errors.mean()) == pytest.approx(expected, rel=0.1)


@slow
def test_random_network_is_chaotic_above_gain_one():
    """Sompolinsky, Crisanti and Sommers 1988: W_h of deviation g / sqrt(n)."""
    size, found = 200, {}
    cell = jrnn.elman(1, size, bias=False)
    params = cell.init(jax.random.key(0), jnp.float64)
    W = jax.random.normal(jax.random.key(1), (size, size)) / size**0.5
    state = random_like(2, state_shapes(cell, params), 0.5)
    for gain in (0.8, 1.5, 2.0):
        scaled = params._replace(W_h=gain * W)
        xs = jnp.zeros((2_000, 1))
        found[gain] = lyapunov_spectrum(cell, scaled, xs, state, count=2)
    for gain in (1.5, 2.0):
        assert found[gain].exponents[0] > 5 * found[gain].errors[0]
    assert found[0.8].exponents[0] < -5 * found[0.8].errors[0]
    # Near the fixed point at 0 differences shrink by the spectral radius, nearly 0.8.
    assert float(found[0.8].exponents[0]) == pytest.approx(np.log(0.8), abs=0.1)
    assert found[2.0].exponents[0] > found[1.5].exponents[0]


def test_exponents_refuse_what_they_cannot_answer():
    cell, params = linear(normal_matrix())
    with pytest.raises(ValueError, match=r"within 1\.\.4"):
        lyapunov_spectrum(cell, params, jnp.zeros((9, 1)), count=5)
    with pytest.raises(ValueError, match="at least 2 steps"):
        lyapunov_spectrum(cell, params, jnp.zeros((9, 1)), discard=8)


def test_a_delay_line_recalls_as_many_steps_as_it_has_units():
    cell, params = linear(np.eye(4, k=1))
    params = params._replace(W_x=jnp.eye(1, 4))
    found = memory_capacity(cell, params, jax.random.key(0), max_delay=6)
    np.testing.assert_allclose(found.by_delay[:4], 1, atol=1e-12)
    assert (np.asarray(found.by_delay[4:]) < 0.02).all()  # chance: 1 / 1000
    assert float(found.total) == pytest.approx(3, abs=0.03)


def delay_line(n, dtype=jnp.float64):
    """Unit i holds x_{t-i}."""
    cell, params = linear(np.eye(n, k=1))
    params = params._replace(W_x=jnp.eye(1, n))
    return cell, jax.tree.map(lambda leaf: leaf.astype(dtype), params)


@pytest.mark.longer
def test_delays_without_memory_add_up_to_none():
    cell, params = delay_line(4)
    how = {"max_delay": 500, "steps": 1000}
    found = memory_capacity(cell, params, jax.random.key(0), **how)
    # Chance alone would be 497 / 499.
    assert float(found.total) == pytest.approx(3, abs=0.2)


@slow
def test_readouts_are_judged_on_steps_that_they_were_not_fitted_to():
    cell, params = delay_line(20)
    how = {"max_delay": 120, "steps": 160}
    found = memory_capacity(cell, params, jax.random.key(0), **how)
    np.testing.assert_allclose(found.by_delay[:20], 1, atol=1e-9)
    # Fitted to the steps that judge, 20 numbers would explain 20 / 160 of anything.
    assert abs(float(found.by_delay[20:].mean())) < 0.01


@slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_small_signals_are_memory_in_float32_too(dtype):
    ring = 0.3 * np.roll(np.eye(16), 1, axis=1)  # down to 4e-9
    cell, params = linear(ring)
    params = params._replace(W_x=jnp.eye(1, 16))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    how = {"max_delay": 40, "steps": 2000}
    found = memory_capacity(cell, params, jax.random.key(0), **how)
    assert float(found.by_delay.sum()) == pytest.approx(16, abs=0.1)


@slow
def test_a_linear_ring_recalls_as_many_numbers_as_it_has_units():
    """White, Lee and Sompolinsky 2004: a scaled orthogonal network has MC = n."""
    ring = 0.9 * np.roll(np.eye(10), 1, axis=1)
    cell, params = linear(ring)
    params = params._replace(W_x=jnp.eye(1, 10))
    how = {"max_delay": 60, "steps": 20_000}
    found = memory_capacity(cell, params, jax.random.key(0), **how)
    assert float(found.by_delay.sum()) == pytest.approx(10, abs=0.05)
    # The unit that read x_{t-k} has read 0.9^10 x_{t-k-10} too: 1 - 0.9^20 is its own.
    np.testing.assert_allclose(found.by_delay[:10], 1 - 0.9**20, atol=0.02)
    saturated = jrnn.elman(1, 10, bias=False)
    less = memory_capacity(saturated, params, jax.random.key(0), scale=5.0, **how)
    assert float(less.total) < float(found.total) - 1


def test_memory_refuses_too_few_steps():
    cell, params = linear(np.eye(4))
    with pytest.raises(ValueError, match="at least 16"):
        memory_capacity(cell, params, jax.random.key(0), max_delay=2, steps=15)
    with pytest.raises(ValueError, match="at least 3"):
        memory_capacity(cell, params, jax.random.key(0), max_delay=3, washout=2)


def penalty_by_numpy(cell, params, xs, state, loss):
    """The formula, sequence by sequence, from adjoints and Jacobians."""
    lambdas = jax.tree.leaves(state_adjoints(cell, params, xs, loss, state))
    lambdas = np.concatenate(lambdas, axis=-1)
    J = np.asarray(step_jacobians(cell, params, xs, state))
    total = 0.0
    for b in range(xs.shape[1]):
        for t in range(1, len(xs)):
            later = lambdas[t, b]
            norm = np.linalg.norm
            total += (norm(J[t, b] @ later) / norm(later) - 1) ** 2
    return total / xs.shape[1]


@pytest.mark.parametrize("make", [CELLS[0], CELLS[1]])
def test_penalty_equals_its_formula(make):
    cell, params, xs, state = example(make)
    found = gradient_norm_penalty(cell, params, xs, sum_of_squares, state)
    expected = penalty_by_numpy(cell, params, xs, state, sum_of_squares)
    assert float(found) == pytest.approx(expected, rel=1e-10)
    assert float(found) > 0.1


@pytest.mark.parametrize(
    "immediate",
    [pytest.param(True, id="immediate", marks=slow), pytest.param(False, id="full")],
)
def test_penalty_has_the_gradient_it_says(immediate):
    """By central differences; with states and adjoints held fixed if immediate."""
    cell, params, xs, state = example(jrnn.elman)
    lambdas = state_adjoints(cell, params, xs, sum_of_squares, state).h
    states = jrnn.trajectory(cell, params, xs, state).h

    def fixed(W_h):
        """The penalty as a function of W_h in one step alone."""
        a = xs[1:] @ params.W_x + params.b + states[:-1] @ W_h
        passed = (lambdas[1:] * (1 - np.tanh(a) ** 2)) @ W_h.T
        ratio = np.linalg.norm(passed, axis=-1) / np.linalg.norm(lambdas[1:], axis=-1)
        return ((ratio - 1) ** 2).sum(axis=0).mean()

    def whole(W_h):
        moved = params._replace(W_h=jnp.asarray(W_h))
        return penalty_by_numpy(cell, moved, xs, state, sum_of_squares)

    penalty = lambda params: gradient_norm_penalty(
        cell, params, xs, sum_of_squares, state, immediate=immediate
    )
    with jax.numpy_rank_promotion("allow"):
        got = jax.grad(penalty)(params).W_h
        function, W_h = (fixed if immediate else whole), np.asarray(params.W_h)
        for i, j in ((0, 0), (1, 0)):
            nudge = np.zeros_like(W_h)
            nudge[i, j] = 1e-6
            slope = (function(W_h + nudge) - function(W_h - nudge)) / 2e-6
            assert float(got[i, j]) == pytest.approx(float(slope), rel=1e-6)


@slow
def test_penalty_and_its_gradient_are_finite_where_no_gradient_flows():
    cell, params, xs, state = example(jrnn.elman)
    nothing = lambda final, ys: 0 * ys.sum()
    first = lambda final, ys: ys[1].sum()  # all adjoints behind it are 0
    for loss in (nothing, first):
        for immediate in (True, False):
            penalty = lambda params, loss=loss, immediate=immediate: (
                gradient_norm_penalty(cell, params, xs, loss, immediate=immediate)
            )
            value, gradient = jax.value_and_grad(penalty)(params)
            assert np.isfinite(value)
            assert (value == 0) == (loss is nothing)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@slow
def test_penalty_and_its_gradient_are_finite_where_units_are_dead():
    """A gradient arrives and none passes: a ratio of 0, whose root has no slope."""
    cell = jrnn.elman(3, 2, activation=jax.nn.relu)
    params = random_like(0, shapes_of(cell.init))
    params = params._replace(b=jnp.full(2, -100.0))
    xs = random_like(1, jnp.zeros((5, 2, 3)))
    penalty = lambda params: gradient_norm_penalty(
        cell, params, xs, lambda final, ys: ys.sum()
    )
    value, gradient = jax.value_and_grad(penalty)(params)
    assert float(value) == 4  # (0 - 1)^2 at each step but the last
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@slow
def test_penalty_lowered_brings_the_norm_back_to_one():
    cell, params, xs, _ = example(jrnn.elman, steps=20)
    params = params._replace(W_h=0.5 * params.W_h)
    penalty = lambda params: gradient_norm_penalty(cell, params, xs, of_the_last_step)
    step = jax.jit(
        lambda params: jax.tree.map(
            lambda leaf, slope: leaf - 0.01 * slope, params, jax.grad(penalty)(params)
        )
    )
    before = float(penalty(params))
    for _ in range(200):
        params = step(params)
    assert float(penalty(params)) < 0.2 * before
