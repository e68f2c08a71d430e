"""Cells designed against vanishing gradients: a published claim of each is verified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests import reference
from tests.helpers import (
    CELLS,
    assert_close,
    error,
    ids,
    paired,
    random_like,
    random_params,
    to_numpy,
)

T, B, K, H = 5, 2, 3, 4
NAMES = (
    "exp_rnn",
    "antisymmetric_rnn",
    "antisymmetric_rnn gated",
    "co_rnn",
    "co_rnn implicit",
    "lem",
)
LONG = [case for case in CELLS if case.name in NAMES]


def normal(seed, *shape, dtype="float64"):
    return random_like(seed, jax.ShapeDtypeStruct(shape, dtype))


# The reference of each cell, and what is common to all of them.


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG, ids=ids(LONG))
def test_the_reference_equals_central_differences(case):
    cell, params = random_params(case, K, H)
    state = cell.init_state(params, (B,))
    copied = lambda tree: {k: v if v is None else v.copy() for k, v in tree.items()}
    p, s_0 = copied(to_numpy(params)), copied(to_numpy(random_like(1, state)))
    ds_T = to_numpy(random_like(2, state))
    xs, dys = np.array(normal(3, 3, B, K)), np.array(normal(4, 3, B, H))

    def loss():
        last, ys, _, _ = reference.unroll(case.truth, p, xs, s_0)
        return (ys * dys).sum() + sum((last[k] * ds_T[k]).sum() for k in last)

    grads, dxs, ds_0, _ = reference.bptt(case.truth, p, xs, s_0, dys, ds_T)
    pairs = [(grads[name], p[name]) for name in grads] + [(dxs, xs)]
    pairs += [(ds_0[name], s_0[name]) for name in s_0]
    for gradient, array in pairs:
        expected = reference.differences(loss, array)
        assert np.abs(gradient - expected).max() <= 1e-7 * np.abs(expected).max() + 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG, ids=ids(LONG))
def test_token_ids_equal_one_hot(case):
    cell, params = random_params(case, K, H)
    tokens = jnp.array([[0, 2], [1, 1], [2, 0]])
    onehot = jax.nn.one_hot(tokens, K, dtype=jnp.float64)

    def loss(params, xs):
        state, ys = jrnn.unroll(cell, params, xs, method=jrnn.bptt(chunk=2))
        return (ys * normal(1, 3, B, H)).sum() + paired(state, random_like(2, state))

    assert_close(*[jax.value_and_grad(loss)(params, xs) for xs in (tokens, onehot)])


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG, ids=ids(LONG))
@pytest.mark.parametrize(
    ("inner", "outer"),
    [("float32", "float32"), ("bfloat16", "float64"), ("float16", "bfloat16")],
)
def test_types(case, inner, outer):
    cell = case.make(K, H)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), inner))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {inner}
    xs = jax.ShapeDtypeStruct((T, B, K), outer)

    def loss(params, xs):
        state, ys = jrnn.unroll(cell, params, xs, method=jrnn.bptt(chunk=2))
        wide = "float64" if outer == "float64" else "float32"
        assert {leaf.dtype.name for leaf in state} == {wide}
        assert ys.dtype == outer
        return ys.sum()

    dparams, dxs = jax.eval_shape(jax.grad(loss, (0, 1)), params, xs)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(dparams)} == {inner}
    assert dxs.dtype == outer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: jrnn.cells.antisymmetric_rnn(3, 4, epsilon=0),
            "epsilon above 0, got 0",
        ),
        (
            lambda: jrnn.cells.antisymmetric_rnn(3, 4, gamma=-1),
            "gamma of at least 0, got -1",
        ),
        (lambda: jrnn.cells.co_rnn(3, 4, dt=0.0), "dt above 0, got 0.0"),
        (lambda: jrnn.cells.co_rnn(3, 4, gamma=-1.0), "gamma above 0, got -1.0"),
        (lambda: jrnn.cells.co_rnn(3, 4, epsilon=-1), "epsilon of at least 0, got -1"),
        (lambda: jrnn.cells.lem(3, 4, dt=1.5), r"dt in \(0, 1\], got 1.5; above 1"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The antisymmetric network.


def draws(cell, count):
    """The eigenvalues of the step's Jacobian at random weights, states and inputs."""
    params = cell.init(jax.random.key(0), jnp.float64)
    jacobian = jax.jit(lambda *a: jax.jacrev(run)(*a))
    state = cell.init_state(params)

    def run(h, params, x):
        return cell.step(params, state._replace(h=h), x)[0].h

    for seed in range(count):
        drawn = random_like(seed, params)
        h, x = normal(seed + count, 8), normal(seed + 2 * count, K)
        yield np.linalg.eigvals(np.asarray(jacobian(h, drawn, x)))


def test_without_diffusion_the_flow_neither_amplifies_nor_damps():
    # Chang et al. 2019, stability of ODEs: Re(lambda_i(J)) = 0 at gamma = 0.
    cell, worst = jrnn.cells.antisymmetric_rnn(K, 8, epsilon=1.0, gamma=0.0), 0.0
    for found in draws(cell, 100):
        flow = found - 1  # ds_t / ds_{t-1} = I + epsilon J
        worst = max(worst, abs(flow.real).max() / abs(flow).max())
        assert abs(found).max() > 1  # so that Euler's step is unstable
    assert worst < 1e-12


def test_with_diffusion_every_step_is_stable():
    # |1 + epsilon lambda_i(J)| <= 1, at a step small enough for the diffusion.
    cell = jrnn.cells.antisymmetric_rnn(K, 8, epsilon=0.01, gamma=2.0)
    for found in draws(cell, 100):
        # A unit whose slope is 0 keeps what it has, to rounding.
        assert abs(found).max() <= 1 + 1e-14
        assert found.real.min() < 1 - 1e-6


# The coupled oscillators.


def driven(cell, params, steps, seed, scale):
    """A trajectory from zero under strong inputs that change sign slowly."""
    drive = np.sign(np.sin(np.arange(steps)[:, None] * np.linspace(0.05, 2, 40)))
    xs = jnp.asarray(np.repeat(drive[:, :, None], K, 2)) * scale
    return jrnn.trajectory(cell, random_like(seed, params, scale), xs)


@pytest.mark.longer
def test_the_energy_of_oscillators_is_bounded():
    # Rusch and Mishra 2021, proposition 3.1: |h_n|^2 + |z_n|^2 <= m n dt.
    units, steps = 6, 200
    n, largest = jnp.arange(1.0, steps + 1)[:, None], 0.0
    for dt in (0.05, 0.5, 1.0):
        cell = jrnn.cells.co_rnn(K, units, dt=dt, gamma=1.0, epsilon=1.0, implicit=True)
        params = cell.init(jax.random.key(0), jnp.float64)
        for seed in range(4):
            states = driven(cell, params, steps, seed, 10.0 ** (seed - 1))
            energy = (states.h**2 + states.z**2).sum(-1)
            assert (energy <= units * n * dt).all()
            largest = max(largest, float((energy / (units * n * dt)).max()))
    assert largest > 0.4  # the bound is not idle


def within(W, bound):
    """W scaled until no absolute row or column sum is above `bound`."""
    return W * (bound / max(abs(W).sum(0).max(), abs(W).sum(1).max()))


@pytest.mark.slow
def test_no_gradient_of_oscillators_explodes():
    # Rusch and Mishra 2021, proposition 3.2: |dE/dtheta| <= 3/2 (m + Y sqrt(m)).
    m, steps, largest = 2, 100, 0.0
    dt = 1 / steps
    cell = jrnn.cells.co_rnn(K, m, dt=dt, gamma=1.0, epsilon=1.0, implicit=True)
    drawn = cell.init(jax.random.key(0), jnp.float64)
    most = dt**0.5 * (1 + dt) / dt  # dt (1 + |W|) / (1 + dt) <= dt^r, r = 1/2

    @jax.jit
    def gradient(params, xs, wanted):
        def E(params):
            ys = jrnn.unroll(cell, params, xs)[1]
            return ((ys - wanted) ** 2).sum(-1).mean() / 2

        return jax.grad(E)(params)

    for seed in range(20):
        params = random_like(seed, drawn)
        by_h, by_z = jnp.split(params.W_h, 2)
        W_h = jnp.concatenate([within(by_h, most - 1), within(by_z, most)])
        xs = jnp.tanh(normal(seed + 20, steps, K))
        for size in (0.1, 10.0):
            wanted = jnp.full((steps, m), size)
            bound = 1.5 * (m + size * m**0.5)
            for leaf in gradient(params._replace(W_h=W_h), xs, wanted):
                assert abs(leaf).max() <= bound
                largest = max(largest, float(abs(leaf).max()) / bound)
    assert largest > 0.05


@pytest.mark.slow
def test_the_energy_bound_of_any_constants():
    units, steps = 6, 200
    n, largest = jnp.arange(1.0, steps + 1)[:, None], 0.0
    for dt, gamma, epsilon in ((0.4, 3.0, 0.7), (0.1, 2.7, 4.7), (0.9, 0.3, 0.2)):
        cell = jrnn.cells.co_rnn(
            K, units, dt=dt, gamma=gamma, epsilon=epsilon, implicit=True
        )
        params = cell.init(jax.random.key(0), jnp.float64)
        states = driven(cell, params, steps, 1, 10.0)
        energy = (gamma * states.h**2 + states.z**2).sum(-1)
        bound = units * n * dt / (2 * epsilon - gamma * dt)
        assert (energy <= bound).all()
        largest = max(largest, float((energy / bound).max()))
    assert largest > 0.1


@pytest.mark.parametrize("implicit", [False, True])
def test_constants_are_refused_with_which_an_oscillator_grows_by_itself(implicit):
    random, refused = np.random.default_rng(0), 0
    for _ in range(200):
        dt, gamma, epsilon = 10 ** random.uniform([-2, -1, -2], [0.5, 1.5, 1.5])
        q = 1 / (1 + dt * epsilon) if implicit else 1
        z = q * np.array([-dt * gamma, 1 if implicit else 1 - dt * epsilon])
        step = np.stack([np.array([1, 0]) + dt * z, z])  # of (h, z)
        constants = {"dt": dt, "gamma": gamma, "epsilon": epsilon}
        if abs(np.linalg.eigvals(step)).max() < 1:
            jrnn.cells.co_rnn(K, 2, implicit=implicit, **constants)
            continue
        refused += 1
        with pytest.raises(ValueError, match="does not grow by itself"):
            jrnn.cells.co_rnn(K, 2, implicit=implicit, **constants)
    assert 20 < refused < 180


# Long expressive memory.


@pytest.mark.parametrize("dt", [0.1, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_states_of_a_lem_are_bounded(dt):
    # Rusch et al. 2022, proposition 4.1: min(1, D sqrt(n dt)) for each unit.
    cell, steps = jrnn.cells.lem(K, H, dt=dt), 50
    params = cell.init(jax.random.key(0), jnp.float64)
    n = np.arange(1, steps + 1)
    published = np.minimum(1, (1 + dt) / (2 - dt) ** 0.5 * np.sqrt(n * dt))
    sharp = 1 - (1 - dt) ** n
    for scale in (0.3, 3.0, 30.0):
        states = jrnn.trajectory(
            cell, random_like(1, params, scale), normal(2, steps, 5, K) * scale
        )
        for leaf in states:
            largest = np.asarray(abs(leaf).max(axis=(1, 2)))
            assert (largest <= published * (1 + 1e-14)).all()
            assert (largest <= sharp * (1 + 1e-14)).all()
    # Gates wide open attain the sharp one.
    open_wide = params._replace(
        W_x=params.W_x * 0, b=jnp.full(4 * H, 50.0), W_h=params.W_h * 0
    )
    open_wide = open_wide._replace(W_z=params.W_z * 0)
    states = jrnn.trajectory(cell, open_wide, jnp.zeros((steps, K)))
    for leaf in states:
        assert error(leaf, np.repeat(sharp[:, None], H, 1)) < 1e-12


def test_modrelu_does_not_hide_what_is_no_number():
    cell = jrnn.cells.exp_rnn(2, 3)
    params = cell.init(jax.random.key(0))
    state = cell.init_state(params)
    state, _ = cell.step(params, state, jnp.full(2, jnp.nan, jnp.float32))
    assert bool(jnp.isnan(state.h).all())
