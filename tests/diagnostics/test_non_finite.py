"""`find_non_finite` finds NaN and infinities that were put in on purpose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jrnn
from jrnn.core.seams import compose_step
from tests.helpers import random_like, shapes_of

T, B, K, H = 7, 2, 3, 4
FLAT = jnp.float32


def numbers(cell, scale=0.5):
    params = random_like(1, shapes_of(cell.init, None), scale)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, cell.spec.input_size), FLAT))
    return params, xs


def linear(k, h):
    return jrnn.elman(k, h, activation=jrnn.activations.linear)


def squares(state, ys):
    del state
    return (ys**2).sum()


def spiked(xs, t, b):
    return xs.at[t, b, 0].set(3e38)  # overflows where it is multiplied, and is finite


@pytest.mark.longer
def test_finite_is_none():
    cell = jrnn.stack(jrnn.lstm(K, H), jrnn.gru(H, H))
    params, xs = numbers(cell)
    assert jrnn.diagnostics.find_non_finite(cell, params, xs, loss=squares) is None


def test_the_first_step_and_array_forwards():
    cell = jrnn.stack(jrnn.gru(K, H), linear(H, H), jrnn.lstm(H, H))
    params, xs = numbers(cell)
    huge = params[1]._replace(W_h=params[1].W_h * 3e12)  # doubles the exponent by step
    found = jrnn.diagnostics.find_non_finite(cell, (params[0], huge, params[2]), xs)
    states = jrnn.trajectory(cell, (params[0], huge, params[2]), xs)
    bad = ~jnp.isfinite(states[1].h).all(axis=(1, 2))
    assert found is not None
    assert (found.layer, found.tensor, found.backward) == ("[1]", "state.h", False)
    assert found.step == int(jnp.argmax(bad))
    assert found.step > 0
    assert not jnp.isfinite(states[1].h[found.step][found.place])
    assert str(found).startswith(f"state.h of layer [1] at step {found.step}: ")


@pytest.mark.longer
@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_directions_are_read_each_in_its_order(reverse):
    pair = jrnn.bidirectional(linear(K, H), linear(K, H))
    cell = jrnn.stack(pair, jrnn.dropout(jrnn.gru(2 * H, H), 0.2))
    params, xs = numbers(cell, 2.0)
    xs, lengths = spiked(xs, 3, 1), jnp.array([7, 5])
    found = jrnn.diagnostics.find_non_finite(
        cell, params, xs, lengths=lengths, reverse=reverse, key=jax.random.key(0)
    )
    assert found is not None
    # Both directions of the pair overflow where they read step 3.
    assert (found.layer, found.step, found.place[0]) == ("[0][0]", 3, 1)
    quiet = (jax.tree.map(jnp.zeros_like, params[0][0]), params[0][1])
    found = jrnn.diagnostics.find_non_finite(
        cell, (quiet, params[1]), xs, lengths=lengths, reverse=reverse
    )
    assert found is not None
    assert (found.layer, found.step, found.place[0]) == ("[0][1]", 3, 1)


def test_padding_is_not_looked_at_and_inputs_are():
    cell = jrnn.gru(K, H)
    params, xs = numbers(cell)
    bad = xs.at[5, 1, 2].set(jnp.nan)
    lengths = jnp.array([7, 5])
    assert jrnn.diagnostics.find_non_finite(cell, params, bad, lengths=lengths) is None
    found = jrnn.diagnostics.find_non_finite(cell, params, bad)
    assert found is not None
    assert (found.tensor, found.place) == ("xs", (5, 1, 2))
    found = jrnn.diagnostics.find_non_finite(
        cell, params._replace(b=params.b.at[3].set(-jnp.inf)), xs
    )
    assert found is not None
    assert (found.tensor, found.place, found.value) == ("params.b", (3,), -jnp.inf)


def test_an_output_that_the_state_does_not_show():
    # float16 ends at 65504: the state, kept in float32, goes on.
    cell = linear(K, H)
    params, xs = numbers(cell)
    params = jax.tree.map(lambda leaf: jnp.abs(leaf) * 40, params)
    found = jrnn.diagnostics.find_non_finite(
        cell, params, jnp.abs(xs).astype(jnp.float16) * 10
    )
    assert found is not None
    assert (found.tensor, found.value) == ("y", jnp.inf)


def root(state, ys):
    """Infinite slope at 0, and a finite value."""
    del state
    return jnp.sqrt(ys[4, 0, 1] - ys[4, 0, 1]) + (ys**2).sum()


@pytest.mark.longer
def test_the_first_step_backwards():
    cell = jrnn.stack(jrnn.lstm(K, H), jrnn.residual(jrnn.gru(H, H)))
    params, xs = numbers(cell)
    found = jrnn.diagnostics.find_non_finite(cell, params, xs, loss=root)
    assert found is not None
    assert (found.backward, found.layer, found.step) == (True, "[1]", 4)
    assert found.tensor == "y"
    assert found.place == (0, 1)
    assert jnp.isnan(
        jax.grad(lambda p: root(*jrnn.unroll(cell, p, xs)))(params)[1].b
    ).any()


@pytest.mark.longer
@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_gradient_that_explodes_on_its_way_back(reverse):
    # What flows back grows with each step, until it is no longer finite.
    steep = lambda a: (
        jnp.clip(a, -1.0, 1.0) * 1e-9 + 1e13 * (a - jax.lax.stop_gradient(a))
    )
    cell = jrnn.elman(K, H, activation=steep)
    params, xs = numbers(cell)
    last = 0 if reverse else T - 1
    loss = lambda state, ys: ys[last].sum()
    found = jrnn.diagnostics.find_non_finite(
        cell, params, xs, loss=loss, reverse=reverse
    )
    assert found is not None
    assert (found.backward, found.tensor) == (True, "state.h")
    nudged = lambda n: loss(*run(cell, params, xs, n, reverse))
    dstates = jax.grad(nudged)(jnp.zeros((T, B, H), FLAT))
    bad = ~jnp.isfinite(dstates).all(axis=(1, 2))
    order = range(T) if reverse else range(T - 1, -1, -1)
    assert found.step == next(t for t in order if bad[t])
    assert 0 < found.step < T - 1


def run(cell, params, xs, nudges, reverse):
    """A loop of the step, with something added to each state."""
    state, ys = cell.init_state(params, (B,)), [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        state, _ = cell.step(params, state, xs[t])
        state = state._replace(h=state.h + nudges[t])
        ys[t] = state.h
    return state, jnp.stack(ys)


def test_a_loss_that_is_not_finite_where_all_else_is():
    cell = jrnn.gru(K, H)
    params, xs = numbers(cell)
    found = jrnn.diagnostics.find_non_finite(
        cell, params, xs, loss=lambda s, ys: jnp.log(-1 - ys.sum() ** 2)
    )
    assert found is not None
    assert (found.tensor, found.layer, found.step) == ("loss", "", None)


class Outer(NamedTuple):
    """The state of a cell that a user wrote: a matrix for every sequence."""

    m: jax.Array


def test_a_state_of_matrices_has_its_place_too():
    plain = linear(K, K)

    def init_state(params, batch_shape=()):
        del params
        return Outer(jnp.zeros((*batch_shape, K, 2), FLAT))

    def advance(params, state, u):
        del params
        return Outer(state.m * 1e20 + u[..., None])

    def output(params, state, x):
        del params, x
        return state.m.sum(axis=-1)

    cell = plain._replace(
        init_state=init_state,
        advance=advance,
        output=output,
        step=compose_step(plain.project, advance, output),
        gated=None,
        adjoint=None,
        linear=None,
    )
    params, xs = numbers(cell)
    found = jrnn.diagnostics.find_non_finite(cell, params, xs)
    assert found[:4] == (False, "", 2, "state.m")
    assert len(found.place) == 3
