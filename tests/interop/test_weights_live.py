"""Layers of Keras and cells of Equinox that are at hand, read and made."""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.interop.equinox.weights import from_equinox, to_equinox
from jrnn.interop.keras import from_keras, to_keras
from tests.helpers import assert_close
from tests.interop.test_weights import assert_bitwise, drawn

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
FLOAT32 = 1e-6  # normwise error
B, T, K = 3, 6, 3
LENGTHS = (6, 2, 4)


@pytest.fixture
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield pytest.importorskip("keras")


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox")


def inputs():
    return jnp.asarray(np.random.default_rng(1).normal(size=(B, T, K)), jnp.float32)


def ys_of(cell, params, **options):
    xs = jnp.swapaxes(inputs(), 0, 1)
    return jnp.swapaxes(jrnn.unroll(cell, params, xs, **options)[1], 0, 1)


GRU, LSTM = jrnn.gru(K, 4), jrnn.lstm(K, 4)
MADE = {
    "elman": jrnn.elman(K, 4, activation=jax.nn.sigmoid, bias=False),
    "linear": jrnn.elman(K, 4, activation=jrnn.activations.linear),
    "lstm": LSTM,
    "gru": GRU,
    "gru before": jrnn.gru(K, 4, reset_after=False),
    "sum": jrnn.bidirectional(GRU, GRU, merge=jrnn.wrappers.sum_merge),
    "mean": jrnn.bidirectional(GRU, GRU, merge=jrnn.wrappers.mean_merge),
    "product": jrnn.bidirectional(LSTM, LSTM, merge=jrnn.wrappers.product_merge),
    "both": jrnn.bidirectional(LSTM, LSTM),
    "deep": jrnn.stack(
        jrnn.dropout(jrnn.bidirectional(GRU, GRU), 0.25),
        jrnn.elman(8, 4),
        jrnn.dropout(jrnn.gru(4, 5, reset_after=False), 0.5),
    ),
    "dropout": jrnn.dropout(GRU, 0.5),
}


@pytest.mark.usefixtures("keras")
@pytest.mark.parametrize("name", MADE)
def test_a_layer_of_keras_made_of_a_cell_computes_the_same(name) -> None:
    cell = MADE[name]
    params = drawn(cell)
    layer = to_keras(cell, params)
    assert_close(jnp.asarray(layer(inputs())), ys_of(cell, params), FLOAT32)
    again, back = from_keras(layer)
    assert again is cell
    assert_bitwise(back, params)


@pytest.mark.usefixtures("keras")
def test_a_mask_of_keras_is_lengths() -> None:
    cell = MADE["both"]
    params = drawn(cell)
    mask = np.arange(T) < np.reshape(LENGTHS, (B, 1))
    ys = to_keras(cell, params)(inputs(), mask=mask)
    expected = ys_of(cell, params, lengths=jnp.array(LENGTHS))
    assert_close(jnp.asarray(ys), expected, FLOAT32)


@pytest.mark.usefixtures("keras")
def test_the_last_output_of_keras_is_the_final_state() -> None:
    params = drawn(LSTM)
    ys = to_keras(LSTM, params, return_sequences=False)(inputs())
    assert_close(jnp.asarray(ys), ys_of(LSTM, params)[:, -1], FLOAT32)


def test_a_layer_that_goes_backwards(keras) -> None:
    layer = keras.layers.GRU(4, return_sequences=True, go_backwards=True)
    ys = jnp.asarray(layer(inputs()))
    with pytest.raises(ValueError, match="Expected reverse=True .*jrnn.unroll"):
        from_keras(layer)
    cell, params = from_keras(layer, reverse=True)
    assert_close(jnp.flip(ys, 1), ys_of(cell, params, reverse=True), FLOAT32)


def test_cells_of_keras_and_stacks_of_them(keras) -> None:
    cells = [keras.layers.LSTMCell(4), keras.layers.GRUCell(5, use_bias=False)]
    layer = keras.layers.RNN(cells, return_sequences=True)
    ys = jnp.asarray(layer(inputs()))
    cell, params = from_keras(layer)
    assert cell is jrnn.stack(LSTM, jrnn.gru(4, 5, bias=False))
    assert_close(ys, ys_of(cell, params), FLOAT32)
    assert from_keras(cells[0])[0] is LSTM


def built(layer, size=K):
    layer.build((None, None, size))
    return layer


def sequential(keras, *layers):
    return keras.Sequential([keras.Input((None, K)), *layers])


def deep(keras, **options):
    return keras.layers.GRU(4, return_sequences=True, **options)


REFUSED = {
    "unbuilt": (lambda k: k.layers.GRU(4), "a built layer"),
    "dropout": (
        lambda k: built(k.layers.LSTM(4, dropout=0.5)),
        "dropout=0 and recurrent_dropout=0, got 0.5 and 0.0",
    ),
    "gates": (
        lambda k: built(k.layers.LSTM(4, recurrent_activation="tanh")),
        "recurrent_activation to be sigmoid",
    ),
    "activation": (
        lambda k: built(k.layers.SimpleRNN(4, activation="gelu")),
        "activation of SimpleRNN",
    ),
    "dense": (lambda k: k.layers.Dense(4), "SimpleRNN, LSTM or GRU of Keras, .*Dense"),
    "above": (
        lambda k: sequential(k, deep(k), k.layers.Dropout(0.5)),
        "whose last layer is recurrent",
    ),
    "two": (
        lambda k: sequential(k, k.layers.Dropout(0.5), k.layers.Dropout(0.5), deep(k)),
        "two in a row; .*rate=0.75",
    ),
    "backwards inside": (
        lambda k: sequential(k, deep(k, go_backwards=True), deep(k)),
        "reverse=True",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_of_keras_that_are_no_cell_are_refused(keras, name) -> None:
    make, words = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=f"Expected.*{words}"):
        from_keras(make(keras))


@pytest.mark.usefixtures("eqx")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [jrnn.lstm, jrnn.gru])
def test_a_cell_of_equinox_made_of_a_cell(make, bias) -> None:
    cell = make(K, 4, bias=bias)
    params = drawn(cell)
    module = to_equinox(cell, params)
    assert type(module).__module__.startswith("equinox")
    again, back = from_equinox(module)
    assert again is cell
    assert_bitwise(back, params)
    state = cell.init_state(params)
    x = inputs()[0, 0]
    expected = cell.step(params, state, x)[0]
    got = module(x, tuple(state) if len(state) == 2 else state[0])
    assert_close(got if len(state) == 2 else (got,), tuple(expected), FLOAT32)


def test_gradients_reach_a_module_of_equinox(eqx) -> None:
    module = to_equinox(GRU, drawn(GRU))

    def loss(module):
        cell, params = from_equinox(module)
        return jrnn.unroll(cell, params, inputs()[0])[1].sum()

    grads = eqx.filter_grad(loss)(module)
    for name in ("weight_ih", "weight_hh", "bias", "bias_n"):
        assert abs(getattr(grads, name)).max() > 0


def test_what_equinox_lacks_is_refused(eqx) -> None:
    before = jrnn.gru(K, 4, reset_after=False)
    with pytest.raises(ValueError, match="Equinox resets after the product"):
        to_equinox(before, drawn(before))
    with pytest.raises(ValueError, match="nothing that computes elman"):
        to_equinox(jrnn.elman(K, 4), drawn(jrnn.elman(K, 4)))
    with pytest.raises(TypeError, match="eqx.nn.LSTMCell or eqx.nn.GRUCell, got"):
        from_equinox(eqx.nn.Linear(K, 4, key=jax.random.key(0)))


PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text("utf-8")
BLOCKS = {
    section.split("\n")[0]: re.findall(r"```py\n(.*?)```", section, re.DOTALL)
    for section in PAGE.split("\n## ")
}
MODULES = {"PyTorch": "torch", "Keras": "keras", "Haiku": "haiku", "Equinox": "equinox"}


@pytest.mark.parametrize("library", MODULES)
def test_the_code_for_a_library_runs(library) -> None:
    """Blocks marked `py`, which `test_documents.py` does not run."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    pytest.importorskip(MODULES[library])
    assert BLOCKS[library]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec("\n".join(BLOCKS[library]), {})
