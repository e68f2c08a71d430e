"""Blocks of long products keep their precision, and products have derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.diagnostics import (
    jacobian_bound,
    jacobian_products,
    jacobian_products_by_lag,
    step_jacobians,
)
from tests.helpers import random_like, shapes_of

slow = pytest.mark.slow
LAGS = 1_200  # 0.5^1200 is below what a float64 holds
BOTTOM, TOP = "[0].h", "[1].h"
COUPLING = 0.7


def two_speeds(below, above, dtype):
    """A stack of linear layers that shrink by a factor, all along one rotation."""
    layer = jrnn.elman(3, 3, activation=jrnn.activations.linear)
    cell = jrnn.stack(layer, layer)
    params = cell.init(jax.random.key(0), dtype)
    rotation = params[0].W_h
    bottom = params[0]._replace(W_h=below * rotation)
    top = params[1]._replace(W_h=above * rotation, W_x=COUPLING * rotation)
    return cell, (bottom, top), jnp.zeros((LAGS, 3), dtype)


def in_closed_form(below, above, source, target):
    """Bottom and top alone; from one to the other sum_j below^j above^(t-j)."""
    lags = np.arange(LAGS + 1)
    if source == target:
        return lags * np.log(below if source == BOTTOM else above)
    if source == TOP:
        return np.full(LAGS + 1, -np.inf)
    large, small = max(below, above), min(below, above)
    with np.errstate(divide="ignore"):  # at lag 0 nothing has come through
        gap = np.log1p(-((small / large) ** lags)) - np.log(large - small)
    return np.log(COUPLING * below) + lags * np.log(large) + gap


PLACES = [(BOTTOM, BOTTOM), (BOTTOM, TOP), (TOP, TOP), (TOP, BOTTOM)]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param(*place, marks=() if place == PLACES[0] else slow)
        for place in PLACES
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(jnp.float64, 1e-13), pytest.param(jnp.float32, 5e-7, marks=slow)],
)
def test_a_block_keeps_its_digits_however_far_below_the_whole(
    source, target, dtype, tolerance
):
    for below, above in ((0.5, 1.0), (1.0, 0.5)):
        cell, params, xs = two_speeds(below, above, dtype)
        found = jacobian_products_by_lag(cell, params, xs, source=source, target=target)
        expected = in_closed_form(below, above, source, target)
        np.testing.assert_allclose(
            found[0], expected, rtol=tolerance, atol=LAGS * tolerance
        )


@slow
@pytest.mark.parametrize("source", [None, BOTTOM, TOP])
@pytest.mark.parametrize("target", [None, BOTTOM, TOP])
def test_blocks_of_a_stack_equal_brute_force(source, target):
    """Of three layers, the upper two one stack; at all pairs, so small lags."""
    cell = jrnn.stack(
        jrnn.gru(2, 2), jrnn.residual(jrnn.stack(jrnn.lstm(2, 2), jrnn.elman(2, 2)))
    )
    names = {BOTTOM: slice(0, 2), TOP: slice(4, 6), None: slice(0, 8)}
    fields = {BOTTOM: "[0].h", TOP: "[1][0].c", None: None}
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((5, 2)))
    how = {"source": fields[source], "target": fields[target]}
    found = jacobian_products(cell, params, xs, **how)
    steps = np.asarray(step_jacobians(cell, params, xs))
    for k in range(6):
        whole = np.eye(8)
        for t in range(k, 6):
            block = whole[names[source], names[target]]
            norm = np.linalg.norm(block, 2)
            np.testing.assert_allclose(np.exp(found[k, t]), norm, rtol=1e-10)
            whole = whole @ steps[t] if t < 5 else whole


SHUT = 60.0  # sigmoid(-60) is 1e-26, far below the rounding of 1


@pytest.mark.longer
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("c", "h"),
        pytest.param("h", "h", marks=slow),
        pytest.param("h", "c", marks=slow),
        pytest.param("c", "c", marks=slow),
    ],
)
def test_a_field_keeps_its_digits_beside_a_larger_one(source, target):
    """An LSTM at rest whose input and output gates are all but shut."""
    cell = jrnn.lstm(1, 2)
    params = cell.init(jax.random.key(0), jnp.float64)
    keep = np.array([0.0, 1.0])  # arguments of the forget gates
    params = params._replace(
        b=jnp.array([-SHUT] * 2 + [*keep] + [0.0] * 2 + [-SHUT] * 2)
    )
    shut, f = 1 / (1 + np.exp(SHUT)), 1 / (1 + np.exp(-keep))
    W_g = np.asarray(params.W_h)[:, 4:6]
    found = jacobian_products_by_lag(
        cell, params, jnp.zeros((100, 1)), source=source, target=target
    )[0]
    for lag in range(1, 101):
        block = shut * W_g * f ** (lag - 1) if source == "h" else np.diag(f**lag)
        expected = np.log(np.linalg.norm(block, 2))
        expected += np.log(shut) if target == "h" else 0
        assert float(found[lag]) == pytest.approx(expected, rel=1e-13, abs=1e-13)


@slow
def test_measured_blocks_bound_a_block_far_below_the_whole():
    cell, params, xs = two_speeds(0.5, 1.0, jnp.float64)
    xs = xs[:100]
    blocks = np.asarray(jacobian_bound(cell, params, xs).blocks)
    for i, source in enumerate((BOTTOM, TOP)):
        for j, target in enumerate((BOTTOM, TOP)):
            found = jacobian_products_by_lag(
                cell, params, xs, source=source, target=target
            )[0, -1]
            above = np.linalg.multi_dot(list(blocks))[i, j]
            with np.errstate(divide="ignore"):
                assert found <= np.log(above) + 1e-10


@pytest.mark.longer
def test_the_derivative_is_finite_at_any_lag():
    """Of l log a, at an a and a lag where a^l is no number any more."""
    cell = jrnn.elman(1, 3, activation=jrnn.activations.linear)
    params = cell.init(jax.random.key(0), jnp.float64)
    xs, W_h = jnp.zeros((1_500, 1)), params.W_h

    def last(a):
        scaled = params._replace(W_h=a * W_h)
        return jacobian_products_by_lag(cell, scaled, xs)[0, -1]

    assert float(jax.grad(last)(0.25)) == pytest.approx(1_500 / 0.25, rel=1e-10)


DIFFERENTIATED = {
    "lstm": (jrnn.lstm, None, None),
    "lstm block": (jrnn.lstm, "c", "h"),
    "orthogonal": (lambda k, h: jrnn.wrappers.orthogonal(jrnn.gru(k, h)), None, None),
    "stack": (lambda k, h: jrnn.stack(jrnn.gru(k, h), jrnn.elman(h, h)), BOTTOM, TOP),
}


@slow
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_the_derivative_is_that_of_the_plain_product(name):
    make, source, target = DIFFERENTIATED[name]
    cell = make(2, 3)
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((7, 2)))
    places = {"c": slice(3, 6), "h": slice(0, 3), BOTTOM: slice(0, 3), TOP: slice(3, 6)}
    rows, columns = (places.get(field, slice(None)) for field in (source, target))

    def graded(params):
        norms = jacobian_products_by_lag(cell, params, xs, source=source, target=target)
        return norms[0, 1:].sum()

    def plain(params):
        product, total = jnp.eye(cell_size), 0.0
        for J in step_jacobians(cell, params, xs):
            product = product @ J
            block = product[rows, columns]
            total += jnp.log(jnp.linalg.svd(block, compute_uv=False)[0])
        return total

    cell_size = step_jacobians(cell, params, xs).shape[-1]
    pairs = zip(
        jax.tree.leaves(jax.grad(graded)(params)),
        jax.tree.leaves(jax.grad(plain)(params)),
        strict=True,
    )
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


@slow
def test_the_derivative_is_nan_and_not_wrong_where_a_unit_is_shut():
    cell = jrnn.elman(1, 2, activation=jax.nn.relu)
    params = cell.init(jax.random.key(0), jnp.float64)
    params = params._replace(W_x=jnp.array([[1e3, -1e3]]))

    def last(params):
        return jacobian_products_by_lag(cell, params, jnp.ones((2, 1)))[0, -1]

    assert np.isfinite(last(params))
    assert np.isnan(jax.grad(last)(params).W_h).any()
