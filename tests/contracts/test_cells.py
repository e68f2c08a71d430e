"""Every cell, by every method, compared with a loop of its own step and with NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jrnn
from jrnn.core.products import project_dense
from jrnn.core.seams import packed_product, recur
from tests import reference
from tests.helpers import (
    CELLS,
    MAIN,
    TOLERANCE,
    assert_close,
    error,
    every_case,
    forwards_in_time,
    marked,
    paired,
    random_like,
    random_params,
    state_shapes,
    to_numpy,
    two_of_main,
)
from tests.programs import body, carried, count, scans

T, B, K = 7, 2, 3
CHUNKED = jrnn.bptt(chunk=3)  # does not divide T
METHODS = [jrnn.scan(), CHUNKED]


def inputs(case, dtype=jnp.float64):
    """Cell, parameters, inputs, starting state, and cotangents of outputs and state."""
    cell, params = random_params(case, K, 4, dtype)
    xs = forwards_in_time(cell, random_like(1, jax.ShapeDtypeStruct((T, B, K), dtype)))
    state = random_like(2, state_shapes(cell, params, (B,)))
    out = (T, B, cell.spec.output_size)
    dys = random_like(3, jax.ShapeDtypeStruct(out, dtype))
    return cell, params, xs, state, dys, random_like(4, state)


def weighed(cell, method, params, xs, state, dys, dstate, **keywords):
    """A loss on outputs and on the final state."""
    last, ys = jrnn.unroll(cell, params, xs, state, method=method, **keywords)
    return (ys * dys).sum() + paired(last, dstate)


def gradients(cell, method, params, xs, state, dys, dstate, **keywords):
    """Gradients for parameters, inputs (if they are floats) and starting state."""
    floats = jnp.issubdtype(xs.dtype, jnp.floating)
    which = (2, 3, 4) if floats else (2, 4)
    return jax.grad(weighed, which)(
        cell, method, params, xs, state, dys, dstate, **keywords
    )


@pytest.mark.parametrize("case", every_case())
def test_step_equals_reference(case):
    cell, params, xs, state, _, _ = inputs(case)
    new, y = cell.step(params, state, xs[0])
    expected, ys, _, _ = reference.unroll(
        case.truth, to_numpy(params), np.asarray(xs[:1]), to_numpy(state)
    )
    for name, value in expected.items():
        assert error(getattr(new, name), value) <= TOLERANCE["float64"]
    assert error(y, ys[0]) <= TOLERANCE["float64"]


@pytest.mark.parametrize("case", every_case())
def test_step_is_project_advance_output(case):
    cell, params, xs, state, _, _ = inputs(case)
    new = cell.advance(params, state, cell.project(params, xs[0]))
    expected = new, cell.output(params, new, xs[0])
    assert_close(cell.step(params, state, xs[0]), expected, 0.0)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", every_case())
def test_unroll_and_trajectory_equal_loop_of_step(case):
    cell, params, xs, state, _, _ = inputs(case)
    states, ys, now = [], [], state
    for x in xs:
        now, y = cell.step(params, now, x)
        states.append(now)
        ys.append(y)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    for method in METHODS:
        got = jrnn.unroll(cell, params, xs, state, method=method)
        assert_close(got, (now, jnp.stack(ys)), 1e-12)
        got = jrnn.trajectory(cell, params, xs, state, method=method)
        assert_close(got, stacked, 1e-12)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", every_case())
def test_gradients_equal_reference(case):
    cell, params, xs, state, dys, dstate = inputs(case)
    grads, dxs, ds_0, _ = reference.bptt(
        case.truth,
        to_numpy(params),
        np.asarray(xs),
        to_numpy(state),
        np.asarray(dys),
        to_numpy(dstate),
    )
    for method in METHODS:
        got = gradients(cell, method, params, xs, state, dys, dstate)
        for name, expected in grads.items():
            assert error(getattr(got[0], name), expected) <= TOLERANCE["float64"], name
        assert error(got[1], dxs) <= TOLERANCE["float64"]
        for name, expected in ds_0.items():
            assert error(getattr(got[2], name), expected) <= TOLERANCE["float64"], name


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", two_of_main())
def test_token_ids_equal_one_hot(case):
    cell, params, _, state, dys, dstate = inputs(case)
    tokens = jnp.asarray(np.random.default_rng(5).integers(0, K, (T, B)), jnp.int32)
    onehot = jax.nn.one_hot(tokens, K, dtype=jnp.float64)
    for method in METHODS:
        got = gradients(cell, method, params, tokens, state, dys, dstate)
        expected = gradients(cell, method, params, onehot, state, dys, dstate)
        assert_close(got, (expected[0], expected[2]))


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", two_of_main())
def test_gradient_from_trajectory(case):
    cell, params, xs, state, _, _ = inputs(case)

    def loss(params, method):
        states = jrnn.trajectory(cell, params, xs, state, method=method)
        weights = random_like(6, states)
        pairs = zip(jax.tree.leaves(states), jax.tree.leaves(weights), strict=True)
        return sum((a * b).sum() for a, b in pairs)

    assert_close(
        jax.grad(loss)(params, CHUNKED), jax.grad(loss)(params, jrnn.scan()), 1e-12
    )


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", two_of_main())
def test_batch_equals_vmap_and_members_alone(case):
    cell, params, xs, state, dys, dstate = inputs(case)
    run = functools.partial(jrnn.unroll, cell, method=CHUNKED)
    axes = (None, 1, 0)
    _, ys = jax.vmap(run, in_axes=axes, out_axes=(0, 1))(params, xs, state)
    assert_close(ys, run(params, xs, state)[1], 1e-12)

    def alone(xs, state, dys, dstate):
        return gradients(cell, CHUNKED, params, xs, state, dys, dstate)

    each = jax.vmap(alone, in_axes=(1, 0, 1, 0), out_axes=(0, 1, 0))
    by_vmap = each(xs, state, dys, dstate)
    summed = jax.tree.map(lambda leaf: leaf.sum(0), by_vmap[0])
    expected = gradients(cell, CHUNKED, params, xs, state, dys, dstate)
    assert_close((summed, *by_vmap[1:]), expected, 1e-12)


@pytest.mark.parametrize("case", two_of_main())
def test_vmap_over_parameters(case):
    cell, params, xs, state, _, _ = inputs(case)
    other = jax.tree.map(lambda leaf: leaf * 0.9, params)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, other)
    run = lambda params: jrnn.unroll(cell, params, xs, state)[1]
    assert_close(jax.vmap(run)(both), jnp.stack([run(params), run(other)]), 1e-12)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("case", two_of_main())
def test_jit_equals_no_jit(case):
    cell, params, xs, state, _, _ = inputs(case)
    with jax.disable_jit():
        eager = jrnn.unroll(cell, params, xs[:4], state, method=CHUNKED)
    assert_close(jrnn.unroll(cell, params, xs[:4], state, method=CHUNKED), eager, 1e-12)


def test_ten_calls_with_equal_cells_and_methods_trace_once():
    traced = []

    def activation(a):
        traced.append(a.shape)
        return jnp.tanh(a)

    make = lambda: jrnn.elman(3, hidden_size=4, activation=activation)
    params = make().init(jax.random.key(0))
    xs = jnp.ones((5, 2, 3), jnp.float32)
    jrnn.unroll(make(), params, xs, method=jrnn.bptt())
    once = len(traced)
    for _ in range(9):
        jrnn.unroll(make(), params, xs, method=jrnn.bptt())
    assert len(traced) == once


def test_equal_arguments_give_the_identical_cell_and_method():
    assert jrnn.lstm(3, 4) is jrnn.lstm(input_size=3, hidden_size=4, forget_bias=1.0)
    assert jrnn.lstm(3, 4) is not jrnn.lstm(3, 5)
    assert jrnn.bptt(chunk=4) is jrnn.bptt(chunk=4)
    assert hash(jrnn.gru(3, 4)) == hash(jrnn.gru(3, 4))
    with pytest.raises(TypeError, match="hashable arguments for elman, got activation"):
        jrnn.elman(3, 4, activation=[1])


WIDTHS = ["float64", "float32", "bfloat16", "float16"]
MIXED = [("bfloat16", "float32"), ("float64", "float16")]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        pytest.param(a, b, marks=() if (a, b) in MIXED else pytest.mark.slow)
        for a in WIDTHS
        for b in WIDTHS
    ],
)
def test_types(inner, outer):
    if inner == "bfloat16" and (0, 8) <= jax.__version_info__ < (0, 10):
        pytest.skip("XLA refuses a bfloat16 product of so few numbers in a loop")
    case = MAIN[2]
    cell, params = random_params(case, K, 4, jnp.dtype(inner))
    xs = random_like(1, jax.ShapeDtypeStruct((T, B, K), jnp.dtype(outer)))
    for method in METHODS:
        state, ys = jrnn.unroll(cell, params, xs, method=method)
        assert ys.dtype == outer
        wide = "float64" if "float64" in (inner, outer) else "float32"
        assert state.h.dtype == wide
        loss = lambda p, x, m=method: jrnn.unroll(cell, p, x, method=m)[1].sum()
        dparams, dxs = jax.grad(loss, (0, 1))(params, xs)
        assert dxs.dtype == outer
        assert {leaf.dtype.name for leaf in jax.tree.leaves(dparams)} == {inner}
        exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        _, expected = jrnn.unroll(cell, exact, xs.astype(jnp.float64))
        loosest = max(TOLERANCE[inner], TOLERANCE[outer])
        assert error(ys, expected) <= loosest


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "poison",
    [
        np.nan,
        pytest.param(np.inf, marks=pytest.mark.slow),
        pytest.param(1e30, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", two_of_main())
def test_padding_changes_no_bit(case, poison):
    cell, params, xs, state, dys, dstate = inputs(case)
    lengths = jnp.array([4, 0])
    keep = (jnp.arange(T)[:, None] < lengths[None])[..., None]
    clean, dirty = jnp.where(keep, xs, 0), jnp.where(keep, xs, poison)
    for method in METHODS:
        run = functools.partial(jrnn.unroll, cell, params, lengths=lengths)
        assert_close(
            run(dirty, state, method=method), run(clean, state, method=method), 0.0
        )
        got = gradients(
            cell, method, params, dirty, state, dys, dstate, lengths=lengths
        )
        expected = gradients(
            cell, method, params, clean, state, dys, dstate, lengths=lengths
        )
        assert_close(got, expected, 0.0)
        assert not jnp.where(keep, 0, got[1]).any()


@pytest.mark.parametrize("case", two_of_main())
def test_ragged_batch_equals_each_alone(case):
    cell, params, xs, state, _, _ = inputs(case)
    lengths = jnp.array([5, 0])
    for method in METHODS:
        last, ys = jrnn.unroll(cell, params, xs, state, lengths=lengths, method=method)
        first = jax.tree.map(lambda leaf: leaf[0], state)
        alone, alone_ys = jrnn.unroll(cell, params, xs[:5, 0], first)
        assert_close(jax.tree.map(lambda leaf: leaf[0], last), alone, 1e-12)
        assert_close(ys[:5, 0], alone_ys, 1e-12)
        assert not ys[5:, 0].any()
        assert not ys[:, 1].any()
        untouched = jax.tree.map(lambda a, b: (a[1] == b[1]).all(), last, state)
        assert all(jax.tree.leaves(untouched))


@pytest.mark.longer
def test_mask_lets_the_state_pass():
    cell, params, xs, state, dys, dstate = inputs(MAIN[1])
    mask = jnp.ones((T, B), bool).at[2].set(False).at[4, 1].set(False)
    left = jnp.array([0, 1, 3, 5, 6])  # both sequences skip 2 and 4
    both = mask.at[4].set(False)
    for method in METHODS:
        last, ys = jrnn.unroll(cell, params, xs, state, mask=both, method=method)
        expected, expected_ys = jrnn.unroll(cell, params, xs[left], state)
        assert_close((last, ys[left]), (expected, expected_ys), 1e-12)
        assert not ys[2].any()
        got = gradients(cell, method, params, xs, state, dys, dstate, mask=mask)
        wanted = gradients(cell, METHODS[0], params, xs, state, dys, dstate, mask=mask)
        assert_close(got, wanted)


def test_an_unstable_cell_is_not_driven_on_through_the_filling():
    # A chunk that is filled up must not run the state to infinity, nor its gradient.
    cell = jrnn.elman(1, 1, activation=jrnn.activations.linear, bias=False)
    params = cell.init(jax.random.key(0))._replace(
        W_x=jnp.ones((1, 1), jnp.float32), W_h=jnp.full((1, 1), 1e3, jnp.float32)
    )
    xs = jnp.ones((11, 1), jnp.float32)
    loss = lambda p, m: jrnn.unroll(cell, p, xs, method=m)[0].h.sum()
    got = jax.grad(loss)(params, jrnn.bptt(chunk=9))
    assert_close(got, jax.grad(loss)(params, jrnn.scan()), TOLERANCE["float32"])


BUDGET = {
    "gru before": 2,
    "lstm projection": 2,
    "lstm peepholes projection": 2,
    "lem": 2,
}
OTHERS = ("generic", "layer norm", "feedforward")
OWN = [case for case in CELLS if not case.name.startswith(OTHERS)]


@pytest.mark.parametrize("case", marked(OWN))
def test_one_product_per_recurrent_matrix_and_no_weight_in_the_carry(case):
    cell, params, xs, state, dys, dstate = inputs(case)
    grad = jax.grad(weighed, (2, 3, 4))
    jaxpr = jax.make_jaxpr(functools.partial(grad, cell, CHUNKED))(
        params, xs, state, dys, dstate
    )
    inner = [scan for depth, scan in scans(jaxpr) if depth == 2]
    assert len(inner) == 2  # forward and backward
    weights = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 2}
    weights -= {leaf.shape for leaf in state}  # two rows of peepholes look like one
    most = 0 if cell.diagonal else BUDGET.get(case.name, 1)
    for scan in inner:
        assert min(1, most) <= count(body(scan), "dot_general") <= most
        assert carried(scan)
        assert not carried(scan) & weights


def test_no_product_for_gradients_of_inputs_that_nobody_asks_for():
    cell, params, xs, state, dys, dstate = inputs(MAIN[1])
    counts = [
        count(
            jax.make_jaxpr(jax.grad(functools.partial(weighed, cell, CHUNKED), which))(
                params, xs, state, dys, dstate
            ),
            "dot_general",
        )
        for which in ((0,), (0, 1))
    ]
    assert counts[1] == counts[0] + 1


def test_a_chunk_that_does_not_divide_compiles_no_second_body():
    cell, params = random_params(MAIN[1])
    counts = []
    for steps in (64, 67):
        xs = jnp.ones((steps, B, K))
        loss = lambda p, xs=xs: jrnn.unroll(cell, p, xs, method=jrnn.bptt(chunk=16))[
            1
        ].sum()
        jaxpr = jax.make_jaxpr(jax.grad(loss))(params)
        counts.append(count(jaxpr, "scan"))
    assert counts == [4, 4]


@pytest.mark.slow
def test_transformations_around_bptt():
    cell, params, xs, state, _, _ = inputs(MAIN[2])
    loss = lambda h, m: (
        jrnn.unroll(cell, params, xs, type(state)(h), method=m)[1] ** 2
    ).sum()
    two = jnp.stack([state.h, 2 * state.h])
    for transform, h in (
        (jax.hessian, state.h),
        (lambda f: jax.jacrev(jax.jacrev(f)), state.h),
        (lambda f: jax.grad(jax.checkpoint(f)), state.h),
        (lambda f: jax.vmap(jax.grad(f)), two),
    ):
        bptt = transform(lambda h: loss(h, CHUNKED))
        scan = transform(lambda h: loss(h, METHODS[0]))
        assert_close(bptt(h), scan(h))


@pytest.mark.slow
def test_outer_scan_through_bptt():
    cell, params, xs, state, _, _ = inputs(MAIN[2])

    def loss(params, method):
        def body(state, x):
            return jrnn.unroll(cell, params, x[None], state, method=method)

        return jax.lax.scan(body, state, xs)[1].sum()

    assert_close(jax.grad(loss)(params, CHUNKED), jax.grad(loss)(params, METHODS[0]))


def test_forward_mode_needs_scan():
    cell, params, xs, state, _, _ = inputs(MAIN[2])
    run = lambda xs, m: jrnn.unroll(cell, params, xs, state, method=m)[1]
    _, tangent = jax.jvp(lambda xs: run(xs, METHODS[0]), (xs,), (xs,))
    step = 1e-6
    difference = (run(xs + step * xs, METHODS[0]) - run(xs - step * xs, METHODS[0])) / (
        2 * step
    )
    assert error(tangent, difference) < 1e-6
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda xs: run(xs, CHUNKED), (xs,), (xs,))


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(
    steps=st.integers(1, 9),
    batch=st.lists(st.integers(1, 3), max_size=2),
    chunk=st.integers(1, 5),
)
def test_any_shape(steps, batch, chunk):
    cell, params = random_params(MAIN[2], 2, 3)
    xs = random_like(7, jax.ShapeDtypeStruct((steps, *batch, 2), jnp.float64))
    loss = lambda p, m: (jrnn.unroll(cell, p, xs, method=m)[1] ** 2).sum()
    got = jax.grad(loss)(params, jrnn.bptt(chunk=chunk))
    assert_close(got, jax.grad(loss)(params, jrnn.scan()))


def test_state_adjoints_are_those_of_the_notes():
    cell, params, xs, state, dys, dstate = inputs(MAIN[1])
    loss = lambda last, ys: (
        (ys * dys).sum() + sum((a * b).sum() for a, b in zip(last, dstate, strict=True))
    )
    got = jrnn.diagnostics.state_adjoints(cell, params, xs, loss, state)
    adjoints = reference.bptt(
        MAIN[1].truth,
        to_numpy(params),
        np.asarray(xs),
        to_numpy(state),
        np.asarray(dys),
        to_numpy(dstate),
    )[3]
    for name in ("h", "c"):
        assert error(getattr(got, name), np.stack([a[name] for a in adjoints])) < 1e-10


def test_initial_parameters():
    params = jrnn.lstm(3, 8, forget_bias=2.0).init(jax.random.key(1))
    for W in jnp.split(params.W_h, 4, axis=1):
        assert error(W.T @ W, jnp.eye(8)) < 1e-5
    assert params.b.reshape(4, 8).sum(1).tolist() == [0, 16, 0, 0]
    narrow = jrnn.gru(3, 8).init(jax.random.key(1), jnp.bfloat16)
    assert {leaf.dtype.name for leaf in narrow} == {"bfloat16"}
    with pytest.raises(TypeError, match="floating dtype for parameters, got int32"):
        jrnn.gru(3, 8).init(jax.random.key(1), jnp.int32)


def test_reverse_over_reverse_adds_no_whole_sequences_in_its_loops():
    # A backward pass that reads rows of whole arrays has a derivative that adds an
    # array of T rows at each step, and time would grow as T squared.
    cell, steps = jrnn.lstm(3, 4), 24
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (steps, 2, 3))

    def norm(params):
        loss = lambda p: jrnn.unroll(cell, p, xs, method=jrnn.bptt(chunk=4))[1].sum()
        return sum((g**2).sum() for g in jax.tree.leaves(jax.grad(loss)(params)))

    jaxpr = jax.make_jaxpr(jax.grad(norm))(params)
    added = [
        eqn.outvars[0].aval.shape
        for _, scan in scans(jaxpr)
        for eqn in body(scan).eqns
        if eqn.primitive.name == "add_any"
    ]
    assert added
    assert not [shape for shape in added if shape[:1] == (steps,)]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "own", [(0, 1, 2), pytest.param((0,), marks=pytest.mark.slow), (1, 2)]
)
def test_gates_of_u_may_be_arrays_of_their_own(own):
    """A cell of a user's need not give u and v the same array where they agree."""
    cell = jrnn.gru(3, 4)
    gated = cell.gated
    assert gated is not None

    def pullback(*step):
        direct, du, dv = gated.pullback(*step)
        du = tuple(a + 0 if gate in own else a for gate, a in enumerate(du))
        return direct, du, dv

    other = cell._replace(gated=gated._replace(pullback=pullback))
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (5, 2, 3), jnp.float64)

    def gradients(cell, method):
        run = lambda p, xs: jrnn.unroll(cell, p, xs, method=method)[1]
        return jax.grad(lambda p, xs: jnp.sin(run(p, xs)).sum(), (0, 1))(params, xs)

    found = gradients(other, jrnn.bptt(chunk=2))
    chex.assert_trees_all_close(found, gradients(cell, jrnn.scan()), rtol=1e-12)


GATED = [case for case in CELLS if case.make(4, 4).gated is not None]


@pytest.mark.parametrize("case", GATED, ids=lambda case: case.name)
def test_a_gated_cell_declares_the_products_that_it_computes(case):
    """From `inputs` and `product`, methods and kernels compute what the cell does."""
    cell, gated, K = case.make(4, 4), case.make(4, 4).gated, 4
    params = cell.init(jax.random.key(0), jnp.float64)
    prepared = params if cell.prepare is None else cell.prepare(params)
    x = jax.random.normal(jax.random.key(1), (2, K), jnp.float64)
    state = jax.tree.map(lambda leaf: leaf + 0.5, cell.init_state(params, (2,)))
    W_x, b = gated.inputs(prepared)
    chex.assert_trees_all_equal(cell.project(params, x), project_dense(W_x, b, x))
    v = recur(gated, prepared, state)
    assert v.shape == (2, gated.gates * K)
    packed = packed_product(gated, prepared, state)
    if packed is not None:
        W, b = packed
        expected = state[0] @ W + (0 if b is None else b[None])
        chex.assert_trees_all_close(v, expected, rtol=1e-13)
