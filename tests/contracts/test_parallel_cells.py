"""Particular properties of the cells for parallel evaluation over time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.cells.s5 import hippo
from tests import reference
from tests.helpers import (
    CELLS,
    assert_close,
    error,
    forwards_in_time,
    marked,
    paired,
    random_like,
    random_params,
    shapes_of,
    state_shapes,
    to_numpy,
)

T, B, K, H = 5, 2, 3, 4
PARALLEL = [case for case in CELLS if case.make(K, H).diagonal]
LINEAR = [case for case in PARALLEL if case.make(K, H).linear is not None]


def normal(seed, *shape, dtype="float64"):
    return random_like(seed, jax.ShapeDtypeStruct(shape, dtype))


def differences(f, array):
    """The gradient in the sense of tests/reference.py, of complex arrays as well."""
    if not np.iscomplexobj(array):
        return reference.differences(f, array)
    return reference.differences(f, array.real) - 1j * reference.differences(
        f, array.imag
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", marked(PARALLEL))
def test_the_reference_equals_central_differences(case):
    cell, params = random_params(case, K, H)
    p, state = to_numpy(params), cell.init_state(params, (B,))
    s_0, ds_T = to_numpy(random_like(1, state)), to_numpy(random_like(2, state))
    xs = np.array(normal(3, 3, B, K))
    dys = np.array(normal(4, 3, B, cell.spec.output_size))
    p, s_0 = ({k: v if v is None else v.copy() for k, v in d.items()} for d in (p, s_0))

    def loss():
        last, ys, _, _ = reference.unroll(case.truth, p, xs, s_0)
        return (ys * dys).sum() + sum((last[k] * ds_T[k]).sum().real for k in last)

    grads, dxs, ds_0, _ = reference.bptt(case.truth, p, xs, s_0, dys, ds_T)
    pairs = [(grads[name], p[name]) for name in grads] + [(dxs, xs)]
    pairs += [(ds_0[name], s_0[name]) for name in s_0]
    for gradient, array in pairs:
        expected = differences(loss, array)
        assert np.abs(gradient - expected).max() <= 1e-7 * np.abs(expected).max() + 1e-8


@pytest.mark.parametrize("case", marked(LINEAR))
def test_the_seam_is_the_recurrence(case):
    cell, params = random_params(case, K, H)
    xs, state = (
        forwards_in_time(cell, normal(1, T, B, K)),
        cell.init_state(params, (B,)),
    )
    state = random_like(2, state)
    a, b = cell.linear.coefficients(params, cell.project(params, xs))
    assert jax.tree.structure(a) == jax.tree.structure(b) == jax.tree.structure(state)
    start, u = cell.linear.start, cell.project(params, xs)
    assert (len(state) == 2) == (start is not None)
    e = jnp.zeros_like(b[0]) if start is None else start(params, u)
    (a, *_), (b, *_), (h, *fresh) = a, b, state
    assert b.shape == e.shape == (T, B, h.shape[-1])
    assert a.shape in (b.shape, b.shape[-1:])
    expected = []
    for t in range(T):
        first = fresh[0] if fresh and t == 0 else jnp.zeros_like(h)
        h = (a[t] if a.ndim == 3 else a[None]) * h + b[t] + e[t] * first
        expected.append(h)
    got = jrnn.trajectory(cell, params, xs, state, method=jrnn.scan())
    assert error(got[0], jnp.stack(expected)) < 1e-12


@pytest.mark.parametrize("case", marked(PARALLEL))
def test_each_unit_sees_only_itself(case):
    cell, params = random_params(case, K, H)
    state = random_like(1, state_shapes(cell, params))
    u = cell.project(params, forwards_in_time(cell, normal(2, K)))
    run = lambda state: cell.advance(params, state, u)
    holomorphic = jnp.iscomplexobj(state[0])
    jacobian = jax.tree.leaves(jax.jacfwd(run, holomorphic=holomorphic)(state))
    assert len(jacobian) == len(state) ** 2
    for block in jacobian:
        assert (block == jnp.diag(jnp.diag(block))).all()
    seen = [(jnp.diag(block) != 0).any() for block in jacobian]
    # No state is fresh after a step, whatever it was before.
    assert seen == [True, True, False, False] if "start" in case.name else all(seen)


@pytest.mark.slow
@pytest.mark.parametrize("case", marked(PARALLEL))
def test_token_ids_equal_one_hot(case):
    cell, params = random_params(case, K, H)
    tokens = jnp.array([[0, 2], [1, 1], [2, 0]])
    if case.name in ("rg_lru without projection", "s5 irregular"):
        with pytest.raises(TypeError, match="got token ids; pass"):
            jrnn.unroll(cell, params, tokens)
        return
    onehot = jax.nn.one_hot(tokens, K, dtype=jnp.float64)
    weights = normal(1, 3, B, cell.spec.output_size)

    def loss(params, xs):
        state, ys = jrnn.unroll(cell, params, xs, method=jrnn.bptt(chunk=2))
        return (ys * weights).sum() + paired(state, random_like(2, state))

    both = [jax.value_and_grad(loss)(params, xs) for xs in (tokens, onehot)]
    assert_close(*both)


@pytest.mark.parametrize("case", marked(PARALLEL))
@pytest.mark.parametrize(
    ("inner", "outer"),
    [("float32", "float32"), ("bfloat16", "float64"), ("float64", "bfloat16")],
)
def test_types(case, inner, outer):
    cell = case.make(K, H)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), inner))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {inner}
    complex_ = case.name.startswith(("lru", "s5"))
    wide = "float64" in (inner, outer)
    expected = {
        (False, False): "float32",
        (False, True): "float64",
        (True, False): "complex64",
        (True, True): "complex128",
    }[complex_, wide]
    xs = jax.ShapeDtypeStruct((T, B, K), outer)
    state, ys = jax.eval_shape(lambda p, xs: jrnn.unroll(cell, p, xs), params, xs)
    assert {leaf.dtype.name for leaf in state} == {expected}
    assert ys.dtype == outer
    once = jax.eval_shape(
        lambda p, x: cell.step(p, cell.init_state(p, (B,)), x),
        params,
        jax.ShapeDtypeStruct((B, K), outer),
    )
    assert {leaf.dtype.name for leaf in once[0]} == {expected}


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", marked(PARALLEL))
def test_gradients_of_closed_and_open_gates_are_finite(case):
    # The rates of lru and s5 are exponents, of which 1e4 overflows by itself.
    cell, params = random_params(case, K, H, jnp.float32)
    rates = ("nu_log", "theta_log", "gamma_log", "log_step", "Lambda_re", "Lambda_im")
    scaled = {
        name: leaf if leaf is None or name in rates else leaf * 1e4
        for name, leaf in params._asdict().items()
    }
    params, xs = type(params)(**scaled), normal(1, T, B, K, dtype="float32")
    xs = (
        forwards_in_time(cell, xs).at[0].set(0.0)
    )  # gates halfway, beside those at their ends

    def loss(params, xs):
        state, ys = jrnn.unroll(cell, params, xs, method=jrnn.bptt(chunk=2))
        return ys.mean() + paired(state, jax.tree.map(jnp.ones_like, state))

    for leaf in jax.tree.leaves(jax.grad(loss, (0, 1))(params, xs)):
        assert jnp.isfinite(leaf).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", marked(PARALLEL))
def test_initial_parameters_are_finite_in_narrow_types(case):
    cell = case.make(K, 64)
    for dtype in (jnp.bfloat16, jnp.float32):
        params = cell.init(jax.random.key(1), dtype)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    with pytest.raises(TypeError, match="floating dtype for parameters, got int32"):
        cell.init(jax.random.key(1), jnp.int32)


@pytest.mark.longer
def test_the_rates_of_an_lru_fill_the_ring():
    units = 4000
    cell = jrnn.cells.lru(2, units, r_min=0.5, r_max=0.9, max_phase=0.3)
    params = cell.init(jax.random.key(0), jnp.float64)
    square = jnp.exp(-2 * jnp.exp(params.nu_log))
    phase = jnp.exp(params.theta_log)
    low, high = 0.5**2, 0.9**2
    for drawn, a, b in ((square, low, high), (phase, 0, 0.3)):
        assert a < drawn.min() < a + 0.01 * (b - a)
        assert b - 0.01 * (b - a) < drawn.max() < b
        # Uniform: mean and variance, within four deviations of their own.
        assert abs(drawn.mean() - (a + b) / 2) < 4 * (b - a) / (12 * units) ** 0.5
        assert abs(drawn.var() / ((b - a) ** 2 / 12) - 1) < 4 * (0.8 / units) ** 0.5
    assert error(jnp.exp(2 * params.gamma_log), 1 - square) < 1e-12
    assert abs(params.B_re.var() * 2 * 2 - 1) < 0.1  # half of 1 / k each


@pytest.mark.parametrize("end", ["minval", "maxval"])
def test_the_ends_of_the_ring_have_finite_logarithms(monkeypatch, end):
    def at_the_end(_, shape, dtype, minval=0.0, maxval=1.0):
        return jnp.full(shape, {"minval": minval, "maxval": maxval}[end], dtype)

    monkeypatch.setattr(jax.random, "uniform", at_the_end)
    for leaf in jrnn.cells.lru(K, H).init(jax.random.key(0)):
        assert jnp.isfinite(leaf).all()


@pytest.mark.slow
def test_an_lru_keeps_the_size_of_independent_inputs():
    cell = jrnn.cells.lru(8, 512, r_min=0.8, r_max=0.95)
    params = cell.init(jax.random.key(0), jnp.float64)
    states = jrnn.trajectory(cell, params, normal(1, 400, 8), method=jrnn.scan())
    size = (jnp.abs(states.h[200:]) ** 2).mean()
    assert abs(size - 1) < 0.1


def legs(size):
    """The matrix A of HiPPO-LegS and the rank one that makes it normal."""
    A = np.zeros((size, size))
    for n in range(size):
        A[n, n] = -(n + 1)
        for m in range(n):
            A[n, m] = -(((2 * n + 1) * (2 * m + 1)) ** 0.5)
    P = np.sqrt(np.arange(size) + 0.5)
    return A, np.outer(P, P)


def test_the_rates_of_s5_are_the_eigenvalues_of_hippo():
    A, rank_one = legs(2 * H)
    normal_part = A + rank_one
    frequencies, V = hippo(H, 1)
    Lambda = -0.5 + 1j * frequencies
    assert (frequencies > 0).all()
    assert error(normal_part @ V, V * Lambda) < 1e-12
    found = np.sort_complex(np.linalg.eigvals(normal_part))
    both = np.sort_complex(np.concatenate([Lambda, Lambda.conj()]))
    assert error(np.sort(found.imag), np.sort(both.imag)) < 1e-10
    params = jrnn.cells.s5(K, 2 * H, blocks=2).init(jax.random.key(0), jnp.float64)
    assert error(params.Lambda_im, np.tile(frequencies, 2)) < 1e-12
    assert (params.Lambda_re == -0.5).all()


def counted(_, shape, dtype):
    """Known numbers in the place of a draw."""
    return jnp.cos(jnp.arange(shape[0] * shape[1], dtype=dtype)).reshape(shape)


def test_s5_is_the_state_space_that_it_stands_for():
    # A real space of size 2h, held inputs, with one step for all units.
    cell = jrnn.cells.s5(K, H, input_init=counted, output_init=counted)
    params = cell.init(jax.random.key(0), jnp.float64)
    dt, V = 0.3, hippo(H, 1)[1]
    # C' is drawn complex; that of a real state space is real.
    C = np.asarray(counted(None, (2 * H, K), "float64"))
    drawn = np.asarray(params.C_re) + 1j * np.asarray(params.C_im)
    assert error(drawn, V.T @ (C + 1j * C)) < 1e-12
    params = params._replace(
        log_step=jnp.full(H, jnp.log(dt)),
        C_re=jnp.asarray(V.real.T @ C),
        C_im=jnp.asarray(V.imag.T @ C),
    )
    A, p = sum(legs(2 * H)), to_numpy(params)
    matrix_B = 2 * np.real((p["B_re"] + 1j * p["B_im"]) @ V.T).T
    matrix_C = 2 * np.real(V.conj() @ (p["C_re"] + 1j * p["C_im"])).T
    assert error(matrix_B.T, counted(None, (K, 2 * H), "float64")) < 1e-12
    assert error(matrix_C.T, counted(None, (2 * H, K), "float64")) < 1e-12
    step = np.asarray(jax.scipy.linalg.expm(A * dt))
    held = np.linalg.solve(A, step - np.eye(2 * H)) @ matrix_B
    xs, h, expected = np.asarray(normal(1, T, K)), np.zeros(2 * H), []
    for x in xs:
        h = step @ h + held @ x
        expected.append(matrix_C @ h + x @ p["D"])
    ys = jrnn.unroll(cell, params, jnp.asarray(xs))[1]
    assert error(ys, np.stack(expected)) < 1e-10


@pytest.mark.slow
def test_s5_starts_with_steps_between_the_bounds():
    cell = jrnn.cells.s5(2, 1000, blocks=100, dt_min=0.01, dt_max=0.5)
    step = jnp.exp(cell.init(jax.random.key(0), jnp.float64).log_step)
    assert 0.01 < step.min() < 0.0105
    assert 0.47 < step.max() < 0.5
    assert abs(jnp.median(jnp.log(step)) - jnp.log(0.01 * 0.5) / 2) < 0.2


def test_irregular_steps_of_s5():
    cell = jrnn.cells.s5(K + 1, H, irregular=True)
    params = cell.init(jax.random.key(0), jnp.float64)
    state = random_like(1, state_shapes(cell, params, (B,)))
    x = normal(2, B, K)
    timed = lambda dt: jnp.concatenate([x, jnp.full((B, 1), dt)], axis=1)
    # Held inputs are integrated exactly: a step may be cut in two.
    once = cell.step(params, state, timed(2.0))
    half = cell.step(params, state, timed(1.0))[0]
    assert_close(cell.step(params, half, timed(1.0)), once, 1e-12)
    first = cell.step(params, state, timed(0.5))[0]
    assert_close(cell.step(params, first, timed(1.5)), once, 1e-12)
    # A step of 0 changes nothing, and one of 1 is a regular one.
    assert_close(cell.step(params, state, timed(0.0))[0], state, 0.0)
    regular = jrnn.cells.s5(K, H).step(params, state, x)
    assert_close(cell.step(params, state, timed(1.0)), regular, 1e-12)


def test_an_rg_lru_that_hardly_decays_keeps_its_digits():
    # a is 1 to the last bit in float32, and the input's weight is not 0.
    cell = jrnn.cells.rg_lru(1)
    params = cell.init(jax.random.key(0))._replace(
        Lambda=jnp.full(1, 20.0, jnp.float32),
        W_g=jnp.zeros((1, 2), jnp.float32),
        b=jnp.zeros(2, jnp.float32),
    )
    (a,), (b,) = cell.project(params, jnp.ones(1, jnp.float32))
    assert a == 1
    # log a = 8 / 2 log sigmoid(20); the input gate is one half.
    expected = 0.5 * np.sqrt(-np.expm1(-8 * np.log1p(np.exp(-20.0))))
    assert error(b, np.full(1, expected)) < 1e-6


@pytest.mark.parametrize("closed", [0.0, -1e3, -1e4])
def test_the_gates_of_a_min_lstm_sum_to_one(closed):
    cell = jrnn.cells.min_lstm(K, H)
    params = cell.init(jax.random.key(0), jnp.float64)
    k_f, k_i = jnp.arange(-2.0, 2.0), jnp.zeros(H)
    b = jnp.concatenate([closed + k_f, closed + k_i, jnp.ones(H)])
    params = params._replace(W_x=jnp.zeros_like(params.W_x), b=b)
    (f,), (i,) = cell.project(params, jnp.ones(K))
    assert error(f + i, np.ones(H)) < 1e-15
    if closed:  # then f / i = exp(k_f - k_i), where a quotient would be 0 / 0
        expected = reference.sigmoid(np.asarray(k_f - k_i))
    else:
        f_plain, i_plain = (reference.sigmoid(np.asarray(k)) for k in (k_f, k_i))
        expected = f_plain / (f_plain + i_plain)
    assert error(f, expected) < 1e-12


def test_a_min_gru_in_closed_form():
    # Without inputs' weights z is 3/4 and the candidate 3: h_t = 3 (1 - 4^-t).
    cell = jrnn.cells.min_gru(1, 1)
    params = cell.init(jax.random.key(0), jnp.float64)
    params = params._replace(W_x=jnp.zeros((1, 2)), b=jnp.array([np.log(3.0), 3.0]))
    ys = jrnn.unroll(cell, params, jnp.zeros((4, 1)))[1]
    assert error(ys.ravel(), 3 * (1 - 0.25 ** np.arange(1, 5))) < 1e-12


def dense(w_h, gates):
    """The recurrent matrix of which `w_h` holds the diagonals."""
    return jnp.concatenate([jnp.diag(w) for w in jnp.split(w_h, gates)], axis=1)


DENSE = {
    "diagonal_lstm": (
        jrnn.cells.diagonal_lstm(K, H, peepholes=True),
        jrnn.lstm(K, H, peepholes=True),
        4,
    ),
    "diagonal_gru": (jrnn.cells.diagonal_gru(K, H), jrnn.gru(K, H), 3),
    "diagonal_gru before": (
        jrnn.cells.diagonal_gru(K, H),
        jrnn.gru(K, H, reset_after=False),
        3,
    ),
    "ind_rnn": (jrnn.cells.ind_rnn(K, H), jrnn.elman(K, H, activation=jax.nn.relu), 1),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "ind_rnn" else pytest.mark.slow) for n in DENSE],
)
def test_equals_the_cell_with_a_diagonal_matrix(name):
    cell, full, gates = DENSE[name]
    params = random_like(1, shapes_of(cell.init))
    other = full.init(jax.random.key(0), jnp.float64)
    shared = {
        key: value
        for key, value in params._asdict().items()
        if key in other._fields and value is not None
    }
    if name == "diagonal_gru":
        shared["b_h"] = jnp.zeros(H)
    other = other._replace(W_h=dense(params.w_h, gates), **shared)
    xs, state = normal(2, T, B, K), random_like(3, state_shapes(cell, params, (B,)))
    last, ys = jrnn.unroll(cell, params, xs, state, method=jrnn.scan())
    expected = jrnn.unroll(
        full, other, xs, full.init_state(other)._replace(**state._asdict())
    )
    assert_close((tuple(last), ys), (tuple(expected[0]), expected[1]), 1e-12)


@pytest.mark.slow
def test_coupled_gates_are_an_lstm_with_opposite_arguments():
    # i = 1 - f is sigmoid of the opposite: the plain cell with its i turned round.
    cell, plain = (
        jrnn.cells.diagonal_lstm(K, H, coupled=True),
        jrnn.cells.diagonal_lstm(K, H),
    )
    params = random_like(1, shapes_of(cell.init))
    turned = type(params)(
        *(
            jnp.concatenate([-leaf[..., :H], leaf], axis=-1)
            for leaf in (params.W_x, params.w_h, params.b)
        )
    )
    xs = normal(2, T, B, K)
    got = jrnn.unroll(cell, params, xs, method=jrnn.scan())
    assert_close(got, jrnn.unroll(plain, turned, xs, method=jrnn.scan()), 1e-12)


@pytest.mark.slow
def test_initial_recurrent_weights():
    w_h = jrnn.cells.ind_rnn(K, 1000).init(jax.random.key(0)).w_h
    assert (w_h >= 0).all()
    assert 0.99 < w_h.max() < 1
    for make, gates in ((jrnn.cells.diagonal_lstm, 4), (jrnn.cells.diagonal_gru, 3)):
        w_h = make(K, 1000).init(jax.random.key(0)).w_h
        assert w_h.shape == (gates * 1000,)
        assert abs(w_h.var() * 1000 - 0.8) < 0.1
    b = jrnn.cells.diagonal_lstm(K, 2, coupled=True).init(jax.random.key(0)).b
    assert b.tolist() == [1, 1, 0, 0, 0, 0]
    b = jrnn.cells.diagonal_lstm(K, 2).init(jax.random.key(0)).b
    assert b.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


WRONG = {
    "ring": (
        lambda: jrnn.cells.lru(3, 4, r_min=0.9, r_max=0.5),
        "0 <= r_min < r_max <= 1",
    ),
    "circle": (lambda: jrnn.cells.lru(3, 4, r_max=1.5), "outside the unit circle"),
    "phase": (lambda: jrnn.cells.lru(3, 4, max_phase=0), "max_phase above 0, got 0"),
    "decay": (lambda: jrnn.cells.rg_lru(3, r_max=1.0), "0 < r_min < r_max < 1, got"),
    "blocks": (lambda: jrnn.cells.s5(3, 4, blocks=3), "blocks to divide hidden_size=4"),
    "dt": (lambda: jrnn.cells.s5(3, 4, dt_min=0.0), "0 < dt_min < dt_max, got"),
    "time alone": (
        lambda: jrnn.cells.s5(1, 4, irregular=True),
        "input_size to be at least",
    ),
    "output": (
        lambda: jrnn.cells.lru(3, 4, output_size=0),
        "output_size to be at least 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("case", marked(PARALLEL))
def test_sizes_and_identity(case):
    make = getattr(jrnn.cells, case.name.split(" ")[0])
    assert make(5, 4) is make(input_size=5, hidden_size=4)
    for sizes in ((0, 4), (3, 0)):
        with pytest.raises(ValueError, match="_size to be at least 1, got 0"):
            make(*sizes)
    with pytest.raises(TypeError, match="input_size to be an integer, got 3.5"):
        make(3.5, 4)
