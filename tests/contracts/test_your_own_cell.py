"""Cells made only from public names run like jrnn's own: those of your_own_cell.md.

pytest test_your_own_cell.py           one combination, and errors
pytest -m slow test_your_own_cell.py   matrix, wrappers, diagnostics
"""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.cells import Field, Linear, Weight, build, drawn, factory, initial
from tests import matrix
from tests.contracts.test_matrix import check, grouped
from tests.helpers import assert_close, random_like, shapes_of

PAGE = Path(__file__).parents[2] / "docs" / "your_own_cell.md"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
OWN = ("leaky", "mgu")
REFUSED = {("associative", "leaky"), ("associative", "mgu"), ("fused", "leaky")}
AXES = {**matrix.AXES, "cell": OWN}


def code() -> str:
    return "\n".join(CODE.findall(PAGE.read_text(encoding="utf-8")))


@functools.cache
def makers():
    """The factories that the page writes, without the runs that it shows."""
    defining = ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef
    body = [
        node
        for node in ast.parse(code()).body
        if isinstance(node, defining)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper())
    ]
    found = {"__name__": "own"}
    exec(compile(ast.Module(body, []), str(PAGE), "exec"), found)  # noqa: S102 our page
    return {name: found[name] for name in OWN}


@pytest.fixture
def registered(monkeypatch):
    """The page's cells in the registry of the gradient matrix."""
    monkeypatch.setattr(matrix, "REGISTRY", matrix.REGISTRY | makers())
    monkeypatch.setattr(matrix, "REFUSED", matrix.REFUSED | REFUSED)


def rows():
    every = matrix.covering(2, AXES)
    return [row for row in every if (row["method"], row["cell"]) not in REFUSED]


def test_the_page_uses_public_names_alone():
    for node in ast.walk(ast.parse(code())):
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("typing", "jrnn.cells")
        names = [getattr(node, field, None) for field in ("attr", "id", "name")]
        assert not any(str(name).startswith("_") for name in names)


@pytest.mark.usefixtures("registered")
def test_one_combination(record_property):
    row = dict.fromkeys(AXES, "plain") | {"direction": "forward", "checkpoints": False}
    row |= {"cell": "mgu", "method": "bptt", "loss": "both", "state": "given"}
    check([{**row, "data": "lengths and resets"}], record_property)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("rows", grouped(rows()))
def test_every_two(rows, record_property):
    check(rows, record_property)


def gradients(cell, method):
    key, drawing = jax.random.split(jax.random.key(0))
    params = random_like(1, jax.eval_shape(lambda: cell.init(drawing, jnp.float64)))
    xs = random_like(2, jax.ShapeDtypeStruct((5, 2, 3), "float64"))
    run = functools.partial(jrnn.unroll, cell, method=method)
    key = None if cell.noise is None else key
    return jax.grad(lambda p: (run(p, xs, key=key)[1] ** 2).sum())(params)


WRAPPERS = {
    "stack": lambda make: jrnn.stack(make(3, 4), make(4, 2)),
    "bidirectional": lambda make: jrnn.bidirectional(make(3, 4), make(3, 4)),
    "residual": lambda make: jrnn.residual(make(3, 3)),
    "dropout": lambda make: jrnn.dropout(make(3, 4), 0.5),
    "zoneout": lambda make: jrnn.wrappers.zoneout(make(3, 4), 0.3),
    "variational_dropout": lambda make: jrnn.wrappers.variational_dropout(
        make(3, 4), 0.3
    ),
    "learned_initial_state": lambda make: jrnn.wrappers.learned_initial_state(
        make(3, 4)
    ),
    "orthogonal": lambda make: jrnn.wrappers.orthogonal(make(3, 4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper(wrapper, name):
    cell = WRAPPERS[wrapper](makers()[name])
    by_hand = gradients(cell, jrnn.bptt(chunk=2))
    assert_close(by_hand, gradients(cell, jrnn.scan()))


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_diagnostic(name):
    cell = makers()[name](3, 4)
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((40, 2, 3), "float64"))
    loss = lambda state, ys: (ys[-1] ** 2).sum()
    d = jrnn.diagnostics
    products = d.jacobian_products(cell, params, xs[:6])
    one = jnp.linalg.norm(d.step_jacobians(cell, params, xs[:6]), 2, axis=(-2, -1))
    np.testing.assert_allclose(jnp.exp(products[0, 1]), one[0], rtol=1e-9)
    by_lag = d.jacobian_products_by_lag(cell, params, xs)
    bound = d.jacobian_bound(cell, params, xs)
    assert not bound.proven
    found = d.gate_statistics(cell, params, xs)
    assert list(found) == [name for name, _ in cell.gates.ranges]
    rest = (
        d.state_adjoints(cell, params, xs, loss),
        d.gradient_by_lag(cell, params, xs, loss).norms,
        d.lyapunov_spectrum(cell, params, xs),
        d.memory_capacity(cell, params, jax.random.key(1), max_delay=3, steps=60),
        by_lag[0],
        found,
    )
    for leaf in jax.tree.leaves(rest):
        assert not jnp.isnan(leaf).any()


ONE = {"z": (0.0, 1.0)}


class Params(NamedTuple):
    W_x: jax.Array
    b: jax.Array
    g: jax.Array


class State(NamedTuple):
    h: jax.Array
    S: jax.Array


class Average(NamedTuple):
    h: jax.Array


@factory
def moving(input_size: int, hidden_size: int, output_size: int | None = None):
    """An average in the state's first array, and a complex matrix that stays."""
    del output_size
    normal, size = jax.nn.initializers.normal(), hidden_size
    return build(
        drawn(
            Params,
            b=Weight(0.5, (size,), gates="a i", plus=(1, 2.0)),
            g=None,
            W_x=Weight(normal, (input_size, size), gates=2),
        ),
        initial(State, h=size, S=Field((size, 2), complex=True, start=3.0)),
        hidden_size,
        advance=lambda params, state, u: State(
            0.5 * state.h + 0.5 * u[..., :size] * u[..., size:], state.S
        ),
    )


def test_parameters_and_states_start_as_they_are_told_to():
    cell = moving(3, 2)
    params = cell.init(jax.random.key(0), jnp.bfloat16)
    assert params.b.tolist() == [0.5, 0.5, 2.5, 2.5]
    assert params.g is None
    keys = jax.random.split(jax.random.key(0), 2)  # b takes none, g takes one
    draw = jax.nn.initializers.normal()
    halves = [draw(k, (3, 2), jnp.float32) for k in jax.random.split(keys[1], 2)]
    expected = jnp.concatenate(halves, axis=-1).astype(jnp.bfloat16)
    np.testing.assert_array_equal(params.W_x, expected)
    state = cell.init_state(cell.init(jax.random.key(0), jnp.float64), (5,))
    assert state.h.shape == (5, 2)
    assert not state.h.any()
    assert state.S.dtype == jnp.complex128
    assert (state.S == jnp.full((5, 2, 2), 3.0 + 0j)).all()
    assert cell.init_state(params).S.dtype == jnp.complex64


def test_the_factory_writes_the_spec():
    cell = moving(3, hidden_size=2)
    assert cell is moving(np.int32(3), 2, None)
    assert repr(cell) == "moving(input_size=3, hidden_size=2, output_size=None)"
    assert cell.spec == ("moving", cell.spec.arguments, 3, 2)
    assert cell.gates is None
    assert cell.bound is None


def test_a_linear_cell_is_its_coefficients():
    coefficients = lambda params, u: (Average(params.g), Average(u))

    @factory
    def average(input_size: int):
        return build(
            drawn(
                Params,
                W_x=Weight(jax.nn.initializers.normal(), (input_size, 4)),
                b=Weight(0.0, (4,)),
                g=Weight(0.25, (4,)),
            ),
            initial(Average, h=4),
            4,
            linear=Linear(coefficients),
            diagonal=True,
        )

    cell = average(3)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs = random_like(2, jax.ShapeDtypeStruct((9, 3), "float64"))
    expected, h = [], jnp.zeros(4)
    for u in xs @ params.W_x:
        h = 0.25 * h + u
        expected.append(h)
    for method in (jrnn.scan(), jrnn.associative()):
        ys = jrnn.unroll(cell, params, xs, method=method)[1]
        assert_close(ys, jnp.stack(expected))
    assert cell.gates.ranges == (("a", (0.0, 1.0)),)
    assert cell.bound.label.startswith("proven")


def test_gates_that_no_field_holds():
    cell = moving(3, 2)
    move = lambda params, state, u: state._replace(h=u[..., :2])
    made = factory(
        lambda input_size: build(cell.init, cell.init_state, 2, advance=move, gates=ONE)
    )(3)
    params = cell.init(jax.random.key(0))
    with pytest.raises(ValueError, match="the gates z among .*, got h, S; name each"):
        jrnn.diagnostics.gate_statistics(made, params, jnp.ones((4, 3), jnp.float32))


def test_mistakes():
    with pytest.raises(ValueError, match="hidden_size to be at least 1, got 0"):
        moving(3, 0)
    with pytest.raises(ValueError, match="output_size to be at least 1, got -1"):
        moving(3, 2, -1)
    with pytest.raises(TypeError, match="input_size to be an integer, got 2.5"):
        moving(2.5, 2)
    with pytest.raises(TypeError, match="function with an argument input_size"):
        factory(lambda size: moving(size, 2))
    with pytest.raises(TypeError, match="how the state advances"):
        build(moving(3, 2).init, moving(3, 2).init_state, 2)


class Matrix(NamedTuple):
    W_x: jax.Array


def weight(**more):
    return drawn(Matrix, W_x=Weight(1.0, **{"shape": (2, 3), **more}))


def advancing(size=4, **more):
    plain = jrnn.elman(3, 4)
    return build(plain.init, plain.init_state, size, advance=plain.advance, **more)


@factory
def timed(input_size: int, place: int) -> jrnn.Cell:
    del input_size
    return advancing(elapsed=place)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: weight(shape=()), "W_x.shape to have at least one axis"),
        (lambda: weight(gates=0), "the gates of W_x to be at least 1, got 0"),
        (lambda: weight(gates=""), "the gates of W_x to be at least 1, got 0"),
        (lambda: weight(plus=(1, 5.0)), r"W_x.plus within 0\.\.0, got 1"),
        (lambda: drawn(int, W_x=None), "a function with a signature"),
        (lambda: factory(int), "a function with a signature"),
        (lambda: factory(functools.partial(moving, 3)), "Expected make to be"),
        (lambda: advancing(gates={"h": 3}), r"gates\['h'\] to be"),
        (lambda: timed(3, 3), "elapsed to be one of 3 input features, got 3"),
        (lambda: timed(3, -4), "elapsed to be one of 3 input features, got -4"),
    ],
)
def test_what_cells_are_made_with_is_refused_in_words_of_our_own(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_narrow_numbers_do_not_wrap():
    init = weight(shape=(2, np.uint8(100)), gates=3, plus=(np.uint8(2), 5.0))
    start = init(jax.random.key(0)).W_x
    assert start.shape == (2, 300)
    assert start[:, 200:].tolist() == [[6.0] * 100] * 2
    cell = advancing(np.uint8(200))
    assert jrnn.bidirectional(cell, cell).spec.output_size == 400


LATE = """
from __future__ import annotations
from jrnn.cells import build, factory
import jrnn

@factory
def late(input_size: int, leak: float = 1.0) -> jrnn.Cell:
    plain = jrnn.elman(input_size, 4)
    return build(plain.init, plain.init_state, 4, advance=plain.advance)
"""


def test_annotations_that_are_strings_are_checked_too():
    found = {"__name__": "late"}
    exec(compile(LATE, "late", "exec"), found)  # noqa: S102 ours, above
    late = found["late"]
    assert late(3, leak=1) is late(3, leak=1.0)
    with pytest.raises(TypeError, match="leak to be a number"):
        late(3, leak="a")
    with pytest.raises(ValueError, match="leak to be finite"):
        late(3, leak=float("nan"))
