"""Parallel over time: the same numbers as step by step, or NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jrnn
from jrnn.methods._jacobian import jacobians, pack, unpack
from tests import hlo
from tests.helpers import assert_close, error, random_like, shapes_of, state_shapes
from tests.programs import count

K, H = 3, 4
LINEAR = {
    "min_gru": jrnn.cells.min_gru(K, H),
    "min_lstm": jrnn.cells.min_lstm(K, H),
    "lru": jrnn.cells.lru(K, H, r_min=0.9, r_max=0.999),
    "rg_lru": jrnn.cells.rg_lru(K, hidden_size=H),
    "s5": jrnn.cells.s5(K, H),
    "sru": jrnn.cells.sru(K, H),
    "elman identity": jrnn.elman(K, H, activation=jrnn.activations.linear),
}
METHODS = {"one block": jrnn.associative(), "blocks": jrnn.associative(chunk=37)}


# The recurrence.


@pytest.mark.longer
@settings(max_examples=6, deadline=None)
@given(
    steps=st.integers(1, 23),
    chunk=st.sampled_from([None, 1, 2, 5, 64]),
    full=st.booleans(),
    constant=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_closed_form(steps, chunk, full, constant, seed):
    """h_t = (sum over s of a_t ... a_{s+1} b_s) + a_t ... a_1 h_0, term by term."""
    rng = np.random.default_rng(seed)
    n, batch = 3, 2
    draw = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)
    lead = (1, 1) if constant else (steps, batch)
    a = draw(*lead, *(n,) * (1 + full)) * 0.6
    b, h0 = draw(steps, batch, n), draw(batch, n)
    whole = np.broadcast_to(a, (steps, batch, *a.shape[2:]))
    matrices = whole if full else whole[..., None] * np.eye(n)
    expected = np.zeros_like(b)
    for t in range(steps):
        for s in range(-1, t + 1):
            term = (h0 if s < 0 else b[s])[:, None]
            for between in matrices[max(s + 1, 0) : t + 1]:
                term = term @ between
            expected[t] += term[:, 0]
    a, b, h0 = map(jnp.asarray, (a, b, h0))
    got = jrnn.methods.linear_recurrence(a, b, h0, full=full, chunk=chunk)
    assert error(got, expected) < 1e-12


@pytest.mark.longer
def test_coefficients_without_leading_axes_are_those_with_them():
    b = random_like(1, jax.ShapeDtypeStruct((9, 2, 3), "float64"))
    for full in (False, True):
        a = random_like(2, jax.ShapeDtypeStruct((3,) * (1 + full), "float64"), 0.5)
        repeated = jnp.broadcast_to(a, (9, 2, *a.shape))
        run = functools.partial(jrnn.methods.linear_recurrence, full=full, chunk=4)

        def both(a, run=run):
            hs = run(a, b)
            return (hs**2).sum(), hs

        compute = jax.jit(jax.grad(both, has_aux=True))
        (slope, hs), (summed, expected) = compute(a), compute(repeated)
        assert_close(hs, expected, 1e-14)
        assert_close(slope, summed.sum(axis=(0, 1)), 1e-12)


def test_real_coefficients_beside_complex_inputs():
    a = random_like(1, jax.ShapeDtypeStruct((6, 2), "float64"), 0.5)
    b = random_like(2, jax.ShapeDtypeStruct((6, 2), "complex128"))
    with jax.numpy_dtype_promotion("standard"):
        run = functools.partial(jrnn.methods.linear_recurrence, chunk=2)
        loss = jax.jit(lambda a: (run(a, b).real ** 2).sum())
        slope = jax.jit(jax.grad(loss))(a)
        assert slope.dtype == a.dtype
        bump = jnp.zeros_like(a).at[1, 0].set(1e-6)
        difference = (loss(a + bump) - loss(a - bump)) / 2e-6
    assert float(slope[1, 0]) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((5, 2, 3), (2,), (3,)), "b of shape"),
        (((4, 2, 3), (5, 2, 3), (2, 3)), "a of shape"),
        (((5, 2, 3), (5, 2, 3), (3,)), "h0 of shape"),
    ],
)
def test_shapes_that_do_not_go_together(shapes, words):
    a, b, h0 = map(jnp.ones, shapes)
    with pytest.raises(ValueError, match=words):
        jrnn.methods.linear_recurrence(a, b, h0)


@pytest.mark.longer
def test_a_million_steps_in_float32():
    # Running products underflow and sums of logarithms lose digits; this does neither.
    steps = 1_000_000
    a = np.random.default_rng(0).uniform(0.9, 1.0, (steps, 1))
    b = np.random.default_rng(1).normal(size=(steps, 1))
    truth = jrnn.methods.linear_recurrence(jnp.asarray(a), jnp.asarray(b))
    for chunk in (None, 1000):
        narrow = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        got = jrnn.methods.linear_recurrence(*narrow, chunk=chunk)
        assert error(got, truth) < 2e-6
        assert error(got[-1000:], truth[-1000:]) < 2e-6


# The method.


def weighed(cell, method, weights, params, xs):
    state, ys = jrnn.unroll(cell, params, xs, method=method)
    total = sum((leaf.real**2).sum() for leaf in jax.tree.leaves(state))
    return (ys * weights).sum() + total, ys


def both(cell, method, weights, params, xs):
    """Outputs, and gradients of parameters and inputs."""
    run = functools.partial(weighed, cell, method, weights)
    (_, ys), slopes = jax.value_and_grad(run, (0, 1), has_aux=True)(params, xs)
    return ys, slopes


def numbers(cell, steps, dtype="float64"):
    params = cell.init(jax.random.key(0), jnp.dtype(dtype))
    xs = random_like(1, jax.ShapeDtypeStruct((steps, 2, K), "float64"))
    weights = random_like(
        2, jax.ShapeDtypeStruct((steps, 2, cell.spec.output_size), "float64")
    )
    return params, *(leaf.astype(dtype) for leaf in (xs, weights / steps))


def largest(got, truth):
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(truth), strict=True)
    return [error(a, b) for a, b in pairs]


SLOW = pytest.mark.slow
STEPS = [1, 3, *(pytest.param(n, marks=SLOW) for n in (2, 1000, 100_000))]
SEVERAL = [
    pytest.param(name, marks=() if name in ("min_gru", "lru") else pytest.mark.slow)
    for name in LINEAR
]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SEVERAL)
def test_associative_equals_scan_and_bptt(name, steps):
    cell = LINEAR[name]
    params, xs, weights = numbers(cell, steps)
    truth = both(cell, jrnn.scan(), weights, params, xs)
    for method in (*METHODS.values(), jrnn.bptt()):
        assert max(largest(both(cell, method, weights, params, xs), truth)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SEVERAL)
def test_associative_is_as_exact_as_the_scan_in_float32(name, steps):
    cell = LINEAR[name]
    narrow = numbers(cell, steps, "float32")
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), narrow)
    truth = both(cell, jrnn.scan(), wide[2], *wide[:2])
    scanned = largest(both(cell, jrnn.scan(), narrow[2], *narrow[:2]), truth)
    for method in METHODS.values():
        got = largest(both(cell, method, narrow[2], *narrow[:2]), truth)
        for mine, theirs in zip(got, scanned, strict=True):
            # One rounding is the least that can be asked of either.
            assert mine <= 3 * max(theirs, 6e-8)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0])
def test_blocks_of_slow_memory_are_as_exact_as_the_scan_in_float32(scale):
    # Coefficients near 1 round the same way at each step, and so does their product.
    cell = jrnn.cells.min_gru(K, H)
    params, xs, weights = numbers(cell, 100_000, "float32")
    slow = params.b.at[:H].set(-11.5)
    params = params._replace(W_x=scale * params.W_x, b=slow)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, xs, weights))
    truth = both(cell, jrnn.scan(), wide[2], *wide[:2])
    scanned = largest(both(cell, jrnn.scan(), weights, params, xs), truth)
    got = largest(both(cell, jrnn.associative(chunk=317), weights, params, xs), truth)
    for mine, theirs in zip(got, scanned, strict=True):
        assert mine <= 3 * max(theirs, 6e-8)


def test_blocks_of_constant_slow_memory_are_as_exact_as_a_loop():
    b = random_like(1, jax.ShapeDtypeStruct((10_000, 8), "float32"))
    a = (1 - 1e-4 * jnp.linspace(0.5, 1.5, 8)).astype(jnp.float32)
    weights = random_like(2, jax.ShapeDtypeStruct((10_000, 8), "float32"))

    @functools.partial(jax.jit, static_argnums=2)
    def found(a, b, chunk):
        run = lambda a, b: jrnn.methods.linear_recurrence(a, b, chunk=chunk)
        loss = lambda a, b: (run(a, b) * weights.astype(b.dtype)).sum()
        slopes = jax.grad(loss, (0, 1))(a, b)
        return run(a, b), slopes

    wide = found(a.astype(jnp.float64), b.astype(jnp.float64), None)
    loop, blocks = largest(found(a, b, None), wide), largest(found(a, b, 100), wide)
    for mine, theirs in zip(blocks, loop, strict=True):
        assert mine <= 2 * theirs


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "cell",
    [jrnn.cells.min_gru(K, H), jrnn.elman(K, H, activation=jrnn.activations.linear)],
)
def test_a_reset_stops_what_is_not_finite(cell):
    params, xs, _ = numbers(cell, 12)
    xs = xs.at[1, 0].set(jnp.nan)
    resets = jnp.zeros((12, 2), bool).at[4, 0].set(True)

    def shown(method):
        run = lambda xs: jrnn.unroll(cell, params, xs, resets=resets, method=method)[1]
        loss = lambda xs: ((ys := run(xs))[5:].sum(), ys)
        slope, ys = jax.jit(jax.grad(loss, has_aux=True))(xs)
        return ys, slope

    ys, dxs = shown(jrnn.scan())
    for method in (jrnn.associative(), jrnn.associative(chunk=3)):
        got, slope = shown(method)
        assert_close(got[4:], ys[4:], 1e-12)
        assert jnp.isnan(got[1:4, 0]).all()
        assert_close(slope[4:], dxs[4:], 1e-12)


def test_blocks_whose_product_overflows_are_those_of_a_loop():
    b = jnp.zeros((400, 1), jnp.float32).at[390].set(1.0)
    a = jnp.full((400, 1), 2.0, jnp.float32)
    loop = jrnn.methods.linear_recurrence(a, b, chunk=400)
    assert_close(jrnn.methods.linear_recurrence(a, b, chunk=200), loop, 0.0)


def test_narrow_types_are_added_up_in_float32():
    ones = jnp.ones((2000, 1), jnp.bfloat16)
    hs = jrnn.methods.linear_recurrence(ones, ones)
    assert hs.dtype == jnp.bfloat16
    assert hs[-1, 0] == 2000


@pytest.mark.parametrize("name", ["min_gru", pytest.param("lru", marks=SLOW)])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_batch_of_none_has_gradients(name, method):
    cell = LINEAR[name]
    params, xs, weights = numbers(cell, 80)
    ys, (dparams, dxs) = both(cell, method, weights[:, :0], params, xs[:, :0])
    assert ys.shape == (80, 0, cell.spec.output_size)
    assert dxs.shape == (80, 0, K)
    assert not any(leaf.any() for leaf in jax.tree.leaves(dparams))


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_starts_anew_where_a_segment_begins(reverse):
    cell = jrnn.wrappers.learned_initial_state(LINEAR["min_gru"])
    params, xs, _ = numbers(cell, 9)
    params = params._replace(state=random_like(3, params.state))
    resets = jnp.zeros((9, 2), bool).at[4, 0].set(True).at[2, 1].set(True)
    run = functools.partial(
        jrnn.unroll, cell, params, xs, resets=resets, reverse=reverse
    )
    assert_close(run(method=METHODS["blocks"]), run(method=jrnn.scan()), 1e-12)


def compiled_gradient(steps, method, cell):
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((steps, 1, K), "float32")

    def loss(params, xs):
        return jrnn.unroll(cell, params, xs, method=method)[1].sum()

    return jax.jit(jax.grad(loss)).lower(params, xs).compile()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_program_does_not_grow_with_time(method):
    size = lambda steps, method: hlo.instructions(
        compiled_gradient(steps, method, jrnn.cells.min_gru(K, 16))
    )
    sqrt = {"chunk": None if method is METHODS["one block"] else 1000}
    million = size(1_000_000, jrnn.associative(**sqrt))
    assert million <= 1.5 * size(1000, method)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 317])
def test_memory_of_the_gradient_of_a_recurrence(chunk):
    size = jax.ShapeDtypeStruct((100_000, 4, 16), "float32")

    def loss(a, b):
        return jrnn.methods.linear_recurrence(a, b, chunk=chunk).sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(size, size).compile()
    bytes_of_b = 4 * size.size
    assert compiled.memory_analysis().temp_size_in_bytes <= 3.1 * bytes_of_b


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("min_gru", 6.5), ("lru", 5.7)])
def test_memory_of_the_gradient_of_a_cell(name, most):
    cell = getattr(jrnn.cells, name)(K, 64)
    compiled = compiled_gradient(100_000, jrnn.associative(chunk=100_000), cell)
    taken = compiled.memory_analysis().temp_size_in_bytes
    size = 8 if name == "lru" else 4
    assert taken <= most * 100_000 * 64 * size


def test_associative_refuses_what_is_not_linear():
    cell = jrnn.lstm(K, H)
    params, xs, _ = numbers(cell, 5)
    with pytest.raises(ValueError, match="linear in its state.*got lstm"):
        jrnn.unroll(cell, params, xs, method=jrnn.associative())


# Newton's method.

NONLINEAR = {
    "elman": jrnn.elman(K, H),
    "lstm": jrnn.lstm(K, H),
    "gru": jrnn.gru(K, H),
    "gru before": jrnn.gru(K, H, reset_after=False),
    "ind_rnn": jrnn.cells.ind_rnn(K, H),
    "diagonal_lstm": jrnn.cells.diagonal_lstm(K, H),
}
OPTIONS = {
    "plain": {},
    "chunk": {"chunk": 16},
    "diagonal": {"diagonal": True},
    "damping": {"damping": 0.3, "tolerance": 1e-6},
}
OFTEN = {"elman plain", "elman damping", "ind_rnn chunk", "ind_rnn diagonal"}


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=own, marks=() if own in OFTEN else SLOW)
        for name in NONLINEAR
        for kind, options in OPTIONS.items()
        for own in [f"{name} {kind}"]
    ],
)
def test_newton_equals_scan(name, options):
    cell = NONLINEAR[name]
    params, xs, weights = numbers(cell, 200)
    truth = both(cell, jrnn.scan(), weights, params, xs)
    method = jrnn.newton(**options)
    bound = 1e-5 if "tolerance" in options else 1e-9
    assert max(largest(both(cell, method, weights, params, xs), truth)) < bound
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, xs, weights))
    ys, slopes = both(cell, method, narrow[2], *narrow[:2])
    assert error(ys, truth[0]) < 1e-5
    assert max(largest(slopes, truth[1])) < 1e-4


@pytest.mark.longer
@pytest.mark.parametrize(
    "cells",
    [
        [NONLINEAR["lstm"], NONLINEAR["ind_rnn"]],
        pytest.param(
            [*NONLINEAR.values(), jrnn.cells.layer_norm_gru(K, H)],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["two", "all"],
)
def test_the_jacobians_are_those_of_jax(cells):
    for cell in cells:
        params = random_like(3, shapes_of(cell.init), 0.5)
        states = random_like(4, state_shapes(cell, params, (5, 2)))
        us = cell.project(
            params, random_like(5, jax.ShapeDtypeStruct((5, 2, K), "float64"))
        )

        def step(vector, u, states=states, cell=cell, params=params):
            like = jax.tree.map(lambda leaf: leaf[0, 0], states)
            return pack(cell.advance(params, unpack(vector, like, False), u), False)

        vectors = pack(states, False)
        jacobian = jax.vmap(jax.vmap(jax.jacrev(step)))(vectors, us)
        expected = jnp.swapaxes(jacobian, -1, -2)
        got = jacobians(cell, params, states, us, False)
        assert_close(got, expected, 1e-12)
        count = len(jax.tree.leaves(states))
        units = expected.reshape(5, 2, count, H, count, H)
        own = jnp.moveaxis(jnp.diagonal(units, axis1=3, axis2=5), -1, 2)
        assert_close(jacobians(cell, params, states, us, True), own, 1e-12)


def chaotic(steps=60):
    """A network whose trajectory no linearisation foresees."""
    cell = jrnn.elman(K, 32)
    params = cell.init(jax.random.key(0), jnp.float64)
    params = params._replace(W_h=params.W_h * 6, W_x=params.W_x * 0.1)
    xs = random_like(1, jax.ShapeDtypeStruct((steps, 2, K), "float64"))
    return cell, params, xs.at[:, 1].set(0.0)  # the second never leaves the origin


@pytest.mark.longer
def test_what_did_not_converge_is_nan_and_its_gradient_too():
    cell, params, xs = chaotic()
    method = jrnn.newton(iterations=3)
    states, info = jrnn.run.newton_trajectory(cell, params, xs, method=method)
    assert info.converged.tolist() == [False, True]
    assert info.residual[0] > 1e-3
    assert jnp.isnan(states.h[:, 0]).all()
    assert_close(states.h[:, 1], jrnn.trajectory(cell, params, xs).h[:, 1], 1e-12)
    loss = lambda xs: (jrnn.unroll(cell, params, xs, method=method)[1][:, 0]).sum()
    assert jnp.isnan(jax.grad(loss)(xs)[:, 0]).any()


@pytest.mark.longer
def test_the_fallback_walks_what_did_not_converge():
    cell, params, xs = chaotic()
    method = jrnn.newton(iterations=3, fallback=True)
    loss = lambda xs, m: (jrnn.unroll(cell, params, xs, method=m)[1] ** 2).sum()
    got = jax.value_and_grad(loss)(xs, method)
    assert_close(got, jax.value_and_grad(loss)(xs, jrnn.scan()), 1e-9)
    _, info = jrnn.run.newton_trajectory(cell, params, xs, method=method)
    assert info.converged.tolist() == [False, True]


def test_after_as_many_iterations_as_steps_any_guess_is_exact():
    cell, params, xs = chaotic(12)
    states, info = jrnn.run.newton_trajectory(cell, params, xs)
    assert info.converged.all()
    assert info.iterations[0] <= 12 + 1
    assert_close(states, jrnn.trajectory(cell, params, xs), 1e-10)


@pytest.mark.slow
def test_a_warm_start_saves_iterations():
    cell = jrnn.gru(K, H)
    params, xs, _ = numbers(cell, 300)
    states, cold = jrnn.run.newton_trajectory(cell, params, xs)
    nearby = jax.tree.map(lambda leaf: leaf * 1.0001, params)
    again, warm = jrnn.run.newton_trajectory(cell, nearby, xs, guess=states)
    assert int(warm.iterations.max()) < int(cold.iterations.max())
    assert_close(again, jrnn.trajectory(cell, nearby, xs), 1e-10)
    wrong = jax.tree.map(lambda leaf: leaf[1:], states)
    with pytest.raises(ValueError, match="guess.h of shape"):
        jrnn.run.newton_trajectory(cell, params, xs, guess=wrong)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("inputs", [0.0, 0.3])
def test_a_hessian_does_not_depend_on_how_few_iterations_were_needed(inputs):
    # Without inputs the guess is the solution, and no iteration improves a tangent.
    cell = jrnn.elman(2, 3)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jnp.full((6, 2), inputs)

    def hessian(method):
        run = lambda p: jrnn.unroll(cell, p, xs, method=method)[1]
        return jax.hessian(lambda p: (run(p) ** 2).sum())(params)

    got = hessian(jrnn.newton(diagonal=True))
    assert_close(got, hessian(jrnn.scan()), 1e-9)


@pytest.mark.slow
def test_a_stack_reports_layer_by_layer():
    cell = jrnn.stack(
        jrnn.bidirectional(jrnn.gru(K, H), jrnn.gru(K, H)), jrnn.elman(2 * H, H)
    )
    params, xs, _ = numbers(cell, 20)
    lengths = jnp.array([20, 7])
    states, info = jrnn.run.newton_trajectory(cell, params, xs, lengths=lengths)
    (forward, backward), top = info
    assert forward.converged.all()
    assert backward.converged.all()
    assert top.converged.all()
    again = jrnn.run.newton_trajectory(cell, params, xs, lengths=lengths, guess=states)[
        1
    ]
    assert max(leaf.iterations.max() for leaf in (*again[0], again[1])) == 1
    assert_close(states, jrnn.trajectory(cell, params, xs, lengths=lengths), 1e-10)


@pytest.mark.longer
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"diagonal": True}, marks=SLOW),
        pytest.param({"damping": 0.3}, marks=SLOW),
    ],
    ids=str,
)
def test_a_small_residual_of_slow_memory_is_not_taken_for_the_solution(options):
    # Where c forgets nothing, each step is nearly solved by any trajectory; and where c
    # is large it hides h, of which alone the outputs are made.
    cell = jrnn.lstm(K, H, forget_bias=25.0)
    params, xs, _ = numbers(cell, 1000, "float32")
    state = cell.init_state(params, (2,))
    state = state._replace(c=jnp.full_like(state.c, 1e5))
    states, info = jrnn.run.newton_trajectory(
        cell, params, xs, state, method=jrnn.newton(**options)
    )
    assert info.converged.all()
    truth = jrnn.trajectory(cell, params, xs, state, method=jrnn.scan())
    assert error(states.h, truth.h) < 1e-5


def test_small_errors_of_many_steps_add_up_to_a_large_one():
    # Three thousand steps that each move the state by less than the tolerance.
    cell = jrnn.gru(1, 2)
    params = cell.init(jax.random.key(0), jnp.float32)
    slow = params.b.at[2:4].add(7.0)  # the gate that keeps
    params = params._replace(b=slow, W_h=3 * params.W_h)
    xs = random_like(1, jax.ShapeDtypeStruct((3000, 1), "float32"))
    state = cell.init_state(params)._replace(h=jnp.ones(2, jnp.float32))
    states, info = jrnn.run.newton_trajectory(
        cell, params, xs, state, method=jrnn.newton(tolerance=3e-3)
    )
    assert info.converged
    truth = jrnn.trajectory(cell, params, xs, state, method=jrnn.scan())
    assert error(states.h, truth.h) < 1e-4


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("diagonal", [False, True])
def test_no_trajectory_among_many_is_called_the_solution(diagonal):
    # Every step holds to rounding, and all of it is far from what the scan walks.
    cell = jrnn.elman(8, 32)
    params = cell.init(jax.random.key(0), jnp.float32)
    params = params._replace(W_h=3 * params.W_h)
    xs = jax.random.normal(jax.random.key(4), (100, 8, 8), jnp.float32)
    method = jrnn.newton(diagonal=diagonal)
    states, info = jrnn.run.newton_trajectory(cell, params, xs, method=method)
    truth = jrnn.trajectory(cell, params, xs, method=jrnn.scan())
    assert info.residual.min() < 2e-6
    for i in range(8):
        assert not info.converged[i] or error(states.h[:, i], truth.h[:, i]) < 1e-4


@pytest.mark.slow
def test_iterations_are_not_differentiated():
    cell = jrnn.gru(K, H)
    params, xs, _ = numbers(cell, 20)
    loss = lambda p: jrnn.unroll(cell, p, xs, method=jrnn.newton())[1].sum()
    jaxpr = jax.make_jaxpr(jax.grad(loss))(params)
    assert count(jaxpr, "while") == 1  # forwards alone
    hessian = jax.hessian(lambda b: loss(params._replace(b=b)))(params.b)
    plain = lambda b: jrnn.unroll(cell, params._replace(b=b), xs, method=jrnn.scan())[1]
    assert_close(hessian, jax.hessian(lambda b: plain(b).sum())(params.b), 1e-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jrnn.newton(damping=1.0), "damping in"),
        (lambda: jrnn.newton(tolerance=0.0), "tolerance above 0"),
        (lambda: jrnn.newton(tolerance=float("inf")), "tolerance to be finite"),
        (lambda: jrnn.newton(iterations=0), "iterations to be at least 1"),
        (
            lambda: jrnn.run.newton_trajectory(
                jrnn.gru(K, H), None, None, method=jrnn.scan()
            ),
            "made by jrnn.newton",
        ),
        (
            lambda: jrnn.unroll(
                LINEAR["lru"], *numbers(LINEAR["lru"], 3)[:2], method=jrnn.newton()
            ),
            "real state",
        ),
        (
            lambda: jrnn.unroll(
                jrnn.lstm(K, H, projection_size=2),
                *numbers(jrnn.lstm(K, H, projection_size=2), 3)[:2],
                method=jrnn.newton(diagonal=True),
            ),
            "arrays have one size",
        ),
    ],
)
def test_mistake(call, words):
    with pytest.raises(ValueError, match=words):
        call()
