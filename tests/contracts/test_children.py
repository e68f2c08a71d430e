"""Cells inside cells: `Cell.children`, the module that walks it, custom wrappers."""

import ast
import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jrnn
from jrnn.core.tree import leaves, reads_ahead
from jrnn.diagnostics import claim, gate_statistics, jacobian_bound, jacobian_products
from tests.helpers import assert_close, random_like, shapes_of

PACKAGE = Path(jrnn.__file__).parent
T, B, K = 3, 2, 2

# Who else may look: nobody does today.
READERS = {"core/tree.py"}


def readers(tree):
    """Yields each read of a field `children`, as an attribute or by its name."""
    for node in ast.walk(tree):
        loaded = isinstance(getattr(node, "ctx", None), ast.Load)
        if isinstance(node, ast.Attribute) and node.attr == "children" and loaded:
            yield node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            if any(getattr(one, "value", "") == "children" for one in node.args):
                yield node.lineno


def test_one_module_walks():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if list(readers(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == READERS


@pytest.mark.parametrize(
    "code", ["cell.children.cells", "f(c.children)", 'getattr(cell, "children")']
)
def test_a_walk_by_hand_would_be_found(code):
    assert list(readers(ast.parse(code)))


def test_leaves_in_their_places():
    gru = jrnn.gru(K, K)
    pair = jrnn.bidirectional(jrnn.stack(gru, jrnn.residual(gru)), gru)
    cell = jrnn.stack(jrnn.dropout(pair, 0.5), jrnn.lstm(2 * K, K))
    found = [(leaf.name, leaf.reverse, leaf.read) for leaf in leaves(cell)]
    first, second = ("[0][0][0]", False, True), ("[0][0][1]", False, True)
    assert found == [first, second, ("[0][1]", True, True), ("[1]", False, False)]
    assert [leaf.reverse for leaf in leaves(cell, reverse=True)] == [
        True,
        True,
        False,
        True,
    ]
    assert leaves(cell)[1].cells[0] is cell
    assert leaves(cell)[1].cell is gru
    assert reads_ahead(cell)
    assert not reads_ahead(jrnn.stack(gru, jrnn.residual(gru)))


@functools.cache
def scaled(cell, factor):
    """A wrapper of one's own: what `cell` shows, times a factor."""
    outputs = lambda y, x: factor * y
    return jrnn.wrappers.around("scaled", cell, outputs=outputs, factor=factor)


@functools.cache
def jittered(cell, sd):
    """Another: inputs with Gaussian noise."""

    def noise(key, steps, batch):
        own, inner = jax.random.split(key)
        drawn = None if cell.noise is None else cell.noise(inner, steps, batch)
        return jax.random.normal(own, (steps, *batch, cell.spec.input_size)), drawn

    def inputs(x, noise):
        drawn, inner = noise
        return x + sd * drawn.astype(x.dtype), inner

    return jrnn.wrappers.around("jittered", cell, inputs=inputs, noise=noise, sd=sd)


@functools.cache
def leaky(cell, rate):
    """Another, in the loop: a state that takes a share of a step."""

    def advance(params, state, u):
        new = cell.advance(params, state, u)
        return jax.tree.map(lambda a, b: rate * a + (1 - rate) * b, state, new)

    def step(params, state, x, noise=None):
        assert noise is None
        state = advance(params, state, cell.project(params, x))
        return state, cell.output(params, state, x)

    spec = cell.spec._replace(name="leaky", arguments=(("cell", cell), ("rate", rate)))
    made = cell._replace(advance=advance, step=step, spec=spec)
    return claim(made._replace(gated=None, adjoint=None, linear=None), gates=cell.gates)


ELMAN = jrnn.elman(K, K, activation=jnp.sin)
OWN = {
    "around": lambda: scaled(jittered(ELMAN, 0.1), 2.0),
    "inside": lambda: jrnn.residual(jrnn.stack(jittered(leaky(ELMAN, 0.3), 1.0))),
}
METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(),
    "truncated": jrnn.truncated(T),
    "newton": jrnn.newton(),
    "fused": jrnn.fused(interpret=True),
}
QUICK = {("around", "bptt"), ("inside", "newton")}
RUNS = [
    pytest.param(*run, marks=() if run in QUICK else pytest.mark.slow)
    for run in itertools.product(OWN, METHODS)
    if run != ("inside", "fused")  # its loop is not the one that `gated` describes
]


def numbers(cell):
    params = random_like(1, shapes_of(cell.init), 0.5)
    return params, random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))


def by_steps(cell, params, xs, key):
    state, ys = cell.init_state(params, (B,)), []
    noise = cell.noise(key, T, (B,))
    for t in range(T):
        drawn = jax.tree.map(lambda a, t=t: a[t], noise)
        state, y = cell.step(params, state, xs[t], drawn)
        ys.append(y)
    return jnp.stack(ys)


def test_a_step_shows_what_the_wrapper_makes_of_outputs():
    params, xs = numbers(ELMAN)
    given = params, ELMAN.init_state(params, (B,)), xs[0]
    y = ELMAN.step(*given)[1]
    assert_close(scaled(ELMAN, 2.0).step(*given)[1], 2.0 * y)
    assert_close(jrnn.residual(ELMAN).step(*given)[1], xs[0] + y)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(("name", "method"), RUNS)
def test_a_wrapper_of_ones_own_runs_by_every_method(name, method):
    cell = OWN[name]()
    assert OWN[name]() is cell

    def by_method(cell, params, xs, key):
        return jrnn.unroll(cell, params, xs, key=key, method=METHODS[method])[1]

    def gradients(run):
        loss = lambda params, xs: (run(cell, params, xs, jax.random.key(3)) ** 2).sum()
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(*numbers(cell))

    jax.tree.map(assert_close, gradients(by_method), gradients(by_steps))


def test_a_method_asks_a_wrapper_of_ones_own_for_what_it_needs():
    params, xs = numbers(OWN["inside"]())
    with pytest.raises(ValueError, match="leaky"):
        jrnn.unroll(OWN["inside"](), params, xs, method=jrnn.fused(interpret=True))
    with pytest.raises(ValueError, match="linear in its state"):
        jrnn.unroll(OWN["inside"](), params, xs, method=jrnn.associative())


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", OWN)
def test_a_wrapper_of_ones_own_is_looked_into(name):
    cell = OWN[name]()
    params, xs = numbers(cell)
    gates = gate_statistics(cell, params, xs)
    assert {gate.split(".")[-1] for gate in gates} == {"h"}
    assert not jnp.isnan(jacobian_products(cell, params, xs)).any()
    assert jacobian_bound(cell, params, xs).proven == (name == "around")


@pytest.mark.parametrize("name", OWN)
def test_a_nan_in_a_wrapper_of_ones_own_is_found(name):
    cell = OWN[name]()
    params, xs = numbers(cell)
    assert jrnn.diagnostics.find_non_finite(cell, params, xs) is None
    own = params if name == "around" else params[0]
    own = own._replace(W_x=jnp.full((K, K), 3.0))  # the sine of infinity is NaN
    huge = xs.at[2, 1].set(1e308)
    bad = jrnn.diagnostics.find_non_finite(
        cell, own if name == "around" else (own,), huge
    )
    assert bad is not None
    assert (bad.layer, bad.tensor, bad.step) == (leaves(cell)[0].name, "state.h", 2)
    assert bad.place == (1, 0)
