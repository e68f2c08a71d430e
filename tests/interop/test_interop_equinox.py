"""Cells of jrnn as modules of Equinox, whose tools work on them."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from tests.helpers import assert_close, random_like

eqx = pytest.importorskip("equinox", reason="Equinox is in the extra `peers`")
from jrnn.interop.equinox import RNN  # noqa: E402 needs Equinox

K, H, B, T = 3, 4, 2, 5


def inputs(seed=0, shape=(T, B, K), dtype=jnp.float32):
    return random_like(seed, jax.ShapeDtypeStruct(shape, dtype))


@pytest.fixture
def model():
    return RNN(jrnn.stack(jrnn.elman(K, H), jrnn.gru(H, H)), key=jax.random.key(0))


@pytest.mark.slow
def test_it_is_unroll(model):
    xs, lengths = inputs(), jnp.array([5, 3])
    expected = jrnn.unroll(model.cell, model.params, xs, lengths=lengths)
    got = model(xs, lengths=lengths)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    given = {"reverse": True, "mask": jnp.ones((T, B), bool).at[1, 0].set(False)}
    expected = jrnn.unroll(model.cell, model.params, xs, expected[0], **given)
    jax.tree.map(np.testing.assert_array_equal, model(xs, got[0], **given), expected)
    alone = jax.vmap(model, in_axes=1, out_axes=(0, 1))(xs)
    assert_close(alone, model(xs), 1e-6)


def test_the_tools_of_equinox_work(model, tmp_path, standard_promotion):
    del standard_promotion
    xs = inputs()
    optimizer = optax.adam(1e-2)
    traced = []

    @eqx.filter_jit
    def step(model, state):
        traced.append(None)
        loss = lambda model: jnp.square(model(xs)[1] - 1).mean()
        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, updates), state, value

    state, losses, trained = optimizer.init(eqx.filter(model, eqx.is_array)), [], model
    for _ in range(4):
        trained, state, value = step(trained, state)
        losses.append(float(value))
    assert losses == sorted(losses, reverse=True)
    assert len(traced) == 1
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", trained)
    read = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", model)
    np.testing.assert_array_equal(read(xs)[1], trained(xs)[1])
    zeros = jnp.zeros_like(model.params[1].b)
    other = eqx.tree_at(lambda m: m.params[1].b, trained, zeros)
    assert (other(xs)[1] != trained(xs)[1]).any()
    assert "elman(input_size=3" in repr(model)
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    np.testing.assert_array_equal(eqx.combine(arrays, rest)(xs)[1], model(xs)[1])


def test_noise_is_off_in_inference():
    model = RNN(jrnn.dropout(jrnn.gru(K, H), 0.5), key=jax.random.key(0))
    xs, keys = inputs(), jax.random.split(jax.random.key(1), 2)
    drawn = [model(xs, key=key)[1] for key in keys]
    assert (drawn[0] != drawn[1]).any()
    with pytest.raises(ValueError, match=r"key for the noise of dropout.*got None"):
        model(xs)
    quiet = eqx.nn.inference_mode(model)
    _, ys = jrnn.unroll(model.cell, model.params, xs)
    np.testing.assert_array_equal(quiet(xs)[1], ys)
    np.testing.assert_array_equal(quiet(xs, key=keys[0])[1], ys)


def test_parameters_may_be_given():
    cell = jrnn.gru(K, H)
    params = cell.init(jax.random.key(0), jnp.bfloat16)
    given = RNN(cell, params=params, method=jrnn.scan())
    assert given.method == jrnn.scan()
    drawn = RNN(cell, dtype=jnp.bfloat16, key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, given.params, drawn.params)


@pytest.mark.slow
def test_the_page_runs():
    page = Path(__file__).parents[2] / "docs" / "flax.md"
    text = page.read_text(encoding="utf-8").partition("# Coming from Equinox")[2]
    (code,) = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    given = {"xs": inputs(), "lengths": jnp.array([5, 3]), "jax": jax, "jnp": jnp}
    names = given | {"RNN": RNN, "jrnn": jrnn, "eqx": eqx}
    exec(code, names)
    assert names["ys"].shape == (T, B, 8)
    assert not names["model"].params[0].b.any()


WRONG = {
    "no cell": (lambda: RNN(jrnn.gru, key=jax.random.key(0)), "Expected a Cell"),
    "no key": (lambda: RNN(jrnn.gru(K, H)), "key to be one key.*got None"),
    "params": (lambda: RNN(jrnn.gru(K, H), params=3), "Expected params"),
    "dtype": (
        lambda: RNN(
            jrnn.gru(K, H),
            params=jrnn.gru(K, H).init(jax.random.key(0)),
            dtype=jnp.bfloat16,
        ),
        "dtype=None beside params",
    ),
    "method": (
        lambda: RNN(jrnn.gru(K, H), key=jax.random.key(0), method=jrnn.scan),
        "Expected a Method",
    ),
    "inference": (
        lambda: RNN(jrnn.gru(K, H), key=jax.random.key(0), inference=1),
        "inference to be True or False",
    ),
    "inputs": (
        lambda: RNN(jrnn.gru(K, H), key=jax.random.key(0))(np.ones((2, 5, 4))),
        "Expected xs of shape",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name):
    call, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words):
        call()
