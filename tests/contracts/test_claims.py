"""Claims about a cell apply to its functions, never to its name."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.core.claims import FUNCTIONS, SEAMS, current, held
from jrnn.diagnostics import GateView, claim, gate_statistics, jacobian_bound
from tests.helpers import assert_close, random_like, shapes_of
from tests.registry import CELLS

AROUND = {
    "zoneout": lambda k, h: jrnn.wrappers.zoneout(jrnn.lstm(k, h), (0.2, 0.5)),
    "zoneout lru": lambda k, h: jrnn.wrappers.zoneout(jrnn.cells.lru(k, h), 0.5),
    "variational_dropout": lambda k, h: jrnn.wrappers.variational_dropout(
        jrnn.gru(k, h), 0.5
    ),
    "learned_initial_state": lambda k, h: jrnn.wrappers.learned_initial_state(
        jrnn.elman(k, h)
    ),
    "orthogonal": lambda k, h: jrnn.wrappers.orthogonal(jrnn.gru(k, h)),
    "residual": lambda k, h: jrnn.residual(jrnn.gru(k, k)),
    "dropout": lambda k, h: jrnn.dropout(jrnn.elman(k, h), 0.5),
}
MAKERS = {case.name: case.make for case in CELLS} | AROUND
# Cells that are proven, or whose every gate is seen, in the sweep below.
PROVEN = 28


def thrice(cell):
    """`cell` with a step that is 3 times the state."""
    return cell._replace(
        advance=lambda params, state, u: jax.tree.map(lambda h: 3 * h, state)
    )


def replaced(cell):
    """Yields `cell` with each of its functions replaced, one at a time."""
    yield "advance", thrice(cell)
    for name in FUNCTIONS:
        old = getattr(cell, name)
        yield name, cell._replace(**{name: lambda *inputs, old=old: old(*inputs)})
    for name in SEAMS:
        seam = getattr(cell, name)
        if seam is None:
            yield name, cell._replace(**{name: lambda *inputs: inputs})
        else:
            changed = seam._replace(**{seam._fields[0]: None})
            yield name, cell._replace(**{name: changed})


def test_no_claim_outlives_a_function_that_it_was_made_for():
    proven = 0
    for name, make in MAKERS.items():
        cell = make(4, 4)
        assert held(cell, cell.gates) is cell.gates is not None, name
        assert held(cell, cell.bound) is cell.bound
        proven += cell.bound is not None
        for field, changed in replaced(cell):
            assert held(changed, changed.bound) is None, (name, field)
            assert held(changed, changed.gates) is None, (name, field)
            if field == "advance" and cell.children is None and "lstm" in name:
                changed = jrnn.wrappers.learned_initial_state(
                    jrnn.wrappers.zoneout(changed, 0.5)
                )
                assert changed.bound is changed.gates is None, (name, field)
    assert proven >= PROVEN


def test_every_function_of_a_cell_is_one_that_claims_stand_on():
    rest = {
        "init",
        "spec",
        "diagonal",
        "elapsed",
        "gates",
        "bound",
        "shows_state",
        "made",
    }
    assert set(jrnn.Cell._fields) - rest == {*FUNCTIONS, *SEAMS, "children"}


def proof_of(cell, k=4):
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0)))
    xs = jax.ShapeDtypeStruct((3, k), jnp.float32)
    return jax.eval_shape(lambda p, x: jacobian_bound(cell, p, x), params, xs).proof


@pytest.mark.parametrize("name", ["elman", "lstm", "lru", *AROUND])
def test_a_cell_of_another_advance_is_measured(name):
    cell = MAKERS[name](4, 4)
    assert proof_of(cell).proven
    changed = proof_of(thrice(cell))
    assert not changed.proven
    assert changed.label.startswith("measured")


def test_the_bound_of_another_advance_is_its_own():
    cell = thrice(jrnn.elman(2, 3))
    params = cell.init(jax.random.key(0), jnp.float64)
    bound = jacobian_bound(cell, params, jnp.ones((4, 2)))
    assert not bound.proven
    np.testing.assert_allclose(jnp.exp(bound.log_beta), 3.0)


@pytest.mark.longer
@pytest.mark.parametrize(
    ("method", "wrap"),
    [
        (jrnn.bptt(), jrnn.wrappers.learned_initial_state),
        pytest.param(jrnn.newton(), lambda cell: cell, marks=pytest.mark.slow),
    ],
    ids=["bptt", "newton"],
)
def test_methods_run_the_advance_that_is_there(method, wrap):
    """And not the one that its seams describe: gates, slopes, a diagonal Jacobian."""
    plain = jrnn.cells.ind_rnn(2, 2, activation=jnp.tanh)
    mix = lambda p, s, u: s._replace(h=jnp.sin(u + s.h @ jnp.ones((2, 2)) / 3))
    cell = wrap(plain._replace(advance=mix))
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = random_like(1, jnp.zeros((4, 2)))

    def loss(params, xs, method):
        return jnp.sum(jrnn.unroll(cell, params, xs, method=method)[1] ** 2)

    def by_hand(params, xs):
        state, total = cell.init_state(params), 0.0
        for x in xs:
            state = cell.advance(params, state, cell.project(params, x))
            total += jnp.sum(cell.output(params, state, x) ** 2)
        return total

    assert_close(loss(params, xs, method), by_hand(params, xs))
    found = jax.grad(loss, (0, 1))(params, xs, method)
    jax.tree.map(assert_close, found, jax.grad(by_hand, (0, 1))(params, xs))


def test_a_cell_that_was_linear_is_so_no_more():
    cell = thrice(jrnn.cells.lru(2, 2))
    params = cell.init(jax.random.key(0))
    with pytest.raises(ValueError, match="linear in its state"):
        jrnn.unroll(cell, params, jnp.ones((3, 2)), method=jrnn.associative())


def test_methods_read_the_inputs_as_the_cell_there_does():
    plain = jrnn.lstm(2, 2)
    cell = plain._replace(project=lambda p, x: 2 * plain.project(p, x))
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((3, 2)))
    state = cell.init_state(params)
    for x in xs:
        state = cell.advance(params, state, cell.project(params, x))
    assert_close(jrnn.unroll(cell, params, xs)[0].h, state.h)


def test_seams_that_are_left_out_change_neither_gates_nor_proofs():
    cell = jrnn.lstm(2, 3)
    bare = cell._replace(gated=None, adjoint=None)
    params = random_like(0, shapes_of(cell.init), 3.0)
    xs = random_like(1, jnp.zeros((9, 2)))
    found, expected = (
        gate_statistics(bare, params, xs),
        gate_statistics(cell, params, xs),
    )
    assert set(found) == {"i", "f", "o", "g", "tanh_c"}
    for name, gate in expected.items():
        for got, want in zip(found[name], gate, strict=True):
            assert_close(got, want)
    assert jacobian_bound(bare, params, xs).proven


def test_gates_that_nobody_tells_are_refused():
    xs = jnp.ones((3, 2))
    cell = jrnn.gru(2, 2)
    params = cell.init(jax.random.key(0))
    changed = thrice(cell)
    own = cell._replace(gates=None)
    both = params, params
    alone = changed, own, jrnn.residual(changed)
    for unseen, given in (*((c, params) for c in alone), (jrnn.stack(cell, own), both)):
        with pytest.raises(ValueError, match="Expected a cell with known gates"):
            gate_statistics(unseen, given, xs)


def test_gates_of_a_cell_of_ones_own_are_told_by_it():
    cell = thrice(jrnn.elman(2, 3))
    view = GateView((("h", (-1.0, 1.0)),), lambda params, state, u: {"h": 3 * state.h})
    cell = claim(cell, gates=view)
    params = cell.init(jax.random.key(0), jnp.float64)
    state = cell.init_state(params)._replace(h=jnp.array([0.1, 0.2, 0.3]))
    found = gate_statistics(cell, params, jnp.ones((2, 2)), state)["h"]
    np.testing.assert_allclose(found.mean, [0.6, 1.2, 1.8])
    np.testing.assert_array_equal(found.high, [0.5, 0.5, 1.0])


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", ["zoneout", "learned_initial_state", "lstm", "mine"])
def test_nothing_goes_by_a_name(name):
    cell = jrnn.gru(2, 3)
    spec = cell.spec._replace(name=name, arguments=(("cell", 1), ("rate", "x")))
    named = cell._replace(spec=spec)
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((3, 2))
    assert set(gate_statistics(named, params, xs)) == {"r", "z", "n"}
    same = jacobian_bound(named, params, xs), jacobian_bound(cell, params, xs)
    assert same[0].proof == same[1].proof
    np.testing.assert_array_equal(same[0].blocks, same[1].blocks)


# Where a spec is read outside of `interop`, whose tables say what others call a cell:
# to print it.
PRINTED = {
    ("core/cell.py", "describe"),
    ("heads/dense.py", "_check_dense"),
    ("heads/mixture_kernels.py", "__repr__"),
    ("models/summary.py", "_named"),
}
PACKAGE = pathlib.Path(jrnn.__file__).parent


def reads_a_spec(node):
    if not isinstance(node, ast.Attribute) or node.attr not in ("name", "arguments"):
        return False
    owner = node.value
    return getattr(owner, "attr", getattr(owner, "id", None)) == "spec"


def readers(tree):
    """Yields the functions in which the name or arguments of a spec are read."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            if any(map(reads_a_spec, ast.walk(function))):
                yield function.name


def test_specs_are_read_to_be_printed_alone():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith("interop/"):
            found |= {(place, name) for name in readers(tree)}
    assert found <= PRINTED, sorted(found - PRINTED)


def test_a_look_at_a_name_would_be_found():
    code = 'def f(cell):\n    return cell.spec.name == "lstm"\n'
    assert list(readers(ast.parse(code))) == ["f"]
    code = 'def f(spec):\n    return dict(spec.arguments)["rate"]\n'
    assert list(readers(ast.parse(code))) == ["f"]


def test_what_was_replaced_is_known_of_a_cell_that_claims_nothing():
    cell = jrnn.elman(2, 3)._replace(gates=None, bound=None)
    same = current(cell)
    assert same.gated is cell.gated is not None
    assert same.shows_state
    moved = current(cell._replace(advance=lambda params, state, u: state))
    assert moved.gated is None
    shown = current(cell._replace(output=lambda params, state, x: 3 * state.h))
    assert not shown.shows_state
    read = current(cell._replace(project=lambda params, x: x))
    assert read.gated is not None
    assert read.gated.inputs is None
