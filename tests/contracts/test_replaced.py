"""What runs is what the cell consists of now, whatever was replaced of it before."""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.diagnostics import jacobian_bound
from tests.helpers import assert_close, random_like, shapes_of, state_shapes

AROUND = {
    "gru": lambda: jrnn.gru(3, 3),
    "exp_rnn": lambda: jrnn.cells.exp_rnn(3, 3),
    "stack": lambda: jrnn.stack(jrnn.elman(3, 4), jrnn.elman(4, 3)),
    "deep": lambda: jrnn.stack(jrnn.gru(3, 4), jrnn.cells.exp_rnn(4, 3)),
    "residual": lambda: jrnn.residual(jrnn.elman(3, 3)),
    "dropout": lambda: jrnn.dropout(jrnn.elman(3, 3), 0.5),
    "zoneout": lambda: jrnn.wrappers.zoneout(jrnn.gru(3, 3), 0.5),
    "variational_dropout": lambda: jrnn.wrappers.variational_dropout(
        jrnn.gru(3, 3), 0.5
    ),
    "learned_initial_state": lambda: jrnn.wrappers.learned_initial_state(
        jrnn.lstm(3, 3)
    ),
    "orthogonal": lambda: jrnn.wrappers.orthogonal(jrnn.elman(3, 3)),
}


def other(tree):
    return jax.tree.map(
        lambda leaf: leaf / 2 + 0.1 if leaf.dtype.kind == "f" else leaf, tree
    )


def otherwise(function):
    """A function that returns something else than another does."""
    return lambda *inputs: other(function(*inputs))


# All but `init`, whose results a run is given, and `step`, which no run makes.
FIELDS = ("init_state", "project", "advance", "output", "noise", "prepare")
SWEEP = [
    pytest.param(name, field, marks=() if quick else pytest.mark.slow)
    for name in AROUND
    for field in FIELDS
    for quick in [(name, field) in (("stack", "advance"), ("residual", "output"))]
    if field != "noise" or "out" in name
    if field != "prepare" or getattr(AROUND[name](), field) is not None
]


def by_hand(cell, params, xs, key=None):
    """Runs a cell by its functions alone, one step after the other."""
    noise = None if key is None else cell.noise(key, len(xs), ())
    state, ys = cell.init_state(params), []
    params = params if cell.prepare is None else cell.prepare(params)
    for t, x in enumerate(xs):
        at_t = jax.tree.map(operator.itemgetter(t), noise)
        drawn = () if noise is None else (at_t,)
        state = cell.advance(params, state, cell.project(params, x, *drawn))
        ys.append(cell.output(params, state, x))
    return state, jnp.stack(ys)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(("name", "field"), SWEEP)
def test_a_wrapper_runs_the_function_that_is_there(name, field):
    old = AROUND[name]()
    function = otherwise(getattr(old, field))
    if field == "noise":
        ones = lambda *inputs: jax.tree.map(jnp.ones_like, old.noise(*inputs))
        function = ones
    if field == "prepare":  # it returns what was prepared as it is
        like = jax.tree.structure(old.init(jax.random.key(0)))
        function = lambda params: (
            other(old.prepare(params)) if jax.tree.structure(params) == like else params
        )
    cell = old._replace(**{field: function})
    params = random_like(0, shapes_of(old.init))
    xs = random_like(1, jnp.zeros((4, 3)))
    key = jax.random.key(2) if field == "noise" else None
    again = lambda: None if key is None else jax.random.clone(key)
    found = jrnn.unroll(cell, params, xs, key=again())
    expected = jax.jit(lambda params, xs: by_hand(cell, params, xs, again()))
    jax.tree.map(assert_close, found, expected(params, xs))
    assert not np.allclose(found[1], jrnn.unroll(old, params, xs, key=again())[1])
    if key is not None:
        return
    state, y = cell.step(params, cell.init_state(params), xs[0])
    assert_close(y, found[1][0])
    run = lambda params, method: jrnn.unroll(cell, params, xs, method=method)[1].sum()
    by_jax = jax.grad(run)(params, jrnn.scan())
    jax.tree.map(assert_close, jax.grad(run)(params, jrnn.bptt()), by_jax)


@pytest.mark.parametrize("field", ["project", "advance", "output"])
def test_two_directions_have_no_function_to_replace(field):
    cell = jrnn.bidirectional(jrnn.gru(3, 2), jrnn.gru(3, 2))
    params = cell.init(jax.random.key(0))
    changed = cell._replace(**{field: lambda *inputs: inputs[1]})
    with pytest.raises(ValueError, match=r"replace functions of the cells\s+inside"):
        jrnn.unroll(changed, params, jnp.ones((4, 3)))


@pytest.mark.parametrize("field", ["project", "advance", "output"])
def test_a_step_is_composed_of_what_is_there(field):
    old = jrnn.gru(3, 4)
    cell = old._replace(**{field: otherwise(getattr(old, field))})
    again = jrnn.Cell(**cell._asdict())
    params = random_like(0, shapes_of(old.init))
    state, x = random_like(1, state_shapes(old, params)), random_like(2, jnp.zeros(3))
    moved = cell.advance(params, state, cell.project(params, x))
    expected = moved, cell.output(params, moved, x)
    outer = jrnn.stack(cell)
    shown = outer.step((params,), (state,), x)
    jax.tree.map(assert_close, shown, ((moved,), expected[1]))
    for one in (cell, again, jrnn.residual(jrnn.gru(4, 4))._replace(**cell._asdict())):
        jax.tree.map(assert_close, one.step(params, state, x), expected)
    with pytest.raises(ValueError, match=r"Expected x of shape .* for gru\(input_size"):
        cell.step(params, state, jnp.ones(7))
    assert cell.step is cell.step


def test_a_step_of_ones_own_is_kept():
    step = lambda params, state, x: (state, 7)
    cell = jrnn.gru(3, 4)._replace(step=step)
    assert cell.step is step
    assert cell._replace(output=lambda params, state, x: x).step is step
    assert jrnn.gru(3, 4).step is jrnn.gru(3, 4)[5]


@pytest.mark.longer
def test_a_model_reads_in_chunks_what_it_reads_whole():
    plain = jrnn.gru(3, 4)
    cell = plain._replace(output=otherwise(plain.output))
    for one in (cell, jrnn.stack(cell)):
        model = jrnn.sequence_model(one, jrnn.categorical(3))
        params = random_like(0, shapes_of(model.init))
        xs = jnp.array([0, 2, 1, 2])
        _, whole = model.log_prob(params, xs)
        state, first = model.log_prob(params, xs[:2])
        _, rest = model.log_prob(params, xs[2:], state)
        assert_close(jnp.concatenate([first, rest]), whole)
        state = model.init_state(params)
        greedy = model.sample(params, jax.random.key(1), 3, temperature=0.0)
        for x in greedy:
            likely = model.predict(params, state).parameters.argmax()
            assert int(x) == int(likely)
            state, _ = model.step(params, state, x)


def test_the_bound_of_a_stack_is_that_of_what_it_runs():
    plain = jrnn.elman(2, 3)
    thrice = lambda params, state, u: state._replace(h=3 * state.h)
    cell = jrnn.stack(plain._replace(advance=thrice))
    params = cell.init(jax.random.key(0), jnp.float64)
    for one in (cell, jrnn.stack(cell)):
        own = params if one is cell else (params,)
        bound = jacobian_bound(one, own, jnp.ones((4, 2)))
        assert not bound.proven
        np.testing.assert_allclose(jnp.exp(bound.log_beta), 3.0)


def test_parameters_of_a_replaced_init_are_taken():
    class Wider(NamedTuple):
        W_x: jax.Array
        W_h: jax.Array
        b: jax.Array
        gain: jax.Array

    plain = jrnn.elman(2, 3)
    init = lambda key, dtype=None: Wider(*plain.init(key, dtype), jnp.float64(2.0))
    cell = plain._replace(init=init)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = jnp.ones((4, 2))
    for one in (cell, cell._replace(project=lambda p, x: p.gain * (x @ p.W_x))):
        last, ys = jrnn.unroll(one, params, xs)
        assert ys.shape == (4, 3)
    assert one.step(params, last, xs[0])[1].shape == (3,)


@pytest.mark.longer
def test_a_head_scores_by_its_present_prediction():
    head = jrnn.gaussian()
    params = head.init(jax.random.key(0), 3)
    features, x = jnp.ones((2, 3)), jnp.ones(2)
    wider = lambda params, features: head.predict(params, 2 * features)
    expected = head.log_prob(params, 2 * features, x)
    changed = head._replace(predict=wider)
    assert_close(changed.log_prob(params, features, x), expected)
    model = jrnn.sequence_model(jrnn.gru(1, 3), changed)
    other = jrnn.sequence_model(jrnn.gru(1, 3), head)
    drawn = model.init(jax.random.key(1))
    scores = [one.log_prob(drawn, x)[1] for one in (model, other)]
    assert not np.allclose(*scores)
