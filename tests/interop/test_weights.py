"""Weights of Keras, Flax, Haiku and Equinox: numbers, errors, round trips."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jrnn
from jrnn.interop.flax.weights import from_linen, from_nnx, to_linen, to_nnx
from jrnn.interop.haiku import from_haiku, to_haiku
from jrnn.interop.keras import KerasSpec
from jrnn.interop.keras import from_arrays as keras_from_arrays
from jrnn.interop.keras import to_arrays as keras_to_arrays
from jrnn.interop.torch import to_arrays as torch_to_arrays
from jrnn.wrappers import mean_merge, product_merge, sum_merge
from tests.helpers import assert_close, random_like
from tests.interop.peers import CASES, HAIKU_GRU, compute, draw, jrnn_ys

GOLDEN = Path(__file__).parents[1] / "golden"
FLOAT32, FLOAT64 = 1e-6, 1e-12  # normwise errors
# One case for each library, and for each rule of a layout.
QUICK = {"keras gru", "linen lstm", "haiku lstm", "haiku gru", "equinox gru"}


def cases(*libraries):
    """Returns the cases of libraries for pytest's parametrize, most of them slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(name, marks=() if name in QUICK else slow)
        for name in CASES
        if name.split()[0] in libraries
    ]


def converted(case):
    return lambda arrays, xs, lengths: jrnn_ys(case, arrays, xs, lengths)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", cases("keras", "haiku", "equinox"))
def test_golden_arrays_are_reproduced(name) -> None:
    with np.load(GOLDEN / f"weights_{name.split()[0]}.npz") as file:
        held = {n.removeprefix(f"{name}/"): file[n] for n in file if n.startswith(name)}
    held = {n: jnp.asarray(a) for n, a in held.items() if not n.startswith("/")}
    case = CASES[name]
    arrays = {n: held[f"param/{n}"] for n in case.shapes}
    got = compute(case, converted(case), arrays, held["xs"])
    assert_close(got, {n: held[n] for n in got}, FLOAT32)


@pytest.mark.longer
@pytest.mark.parametrize("name", cases("linen", "nnx"))
def test_flax_computes_the_same(name) -> None:
    case = CASES[name]
    arrays, xs = draw(name, case, jnp.float64)
    expected = compute(case, case.ys, arrays, xs)
    assert_close(compute(case, converted(case), arrays, xs), expected, FLOAT64)


def peer(name):
    """Skips a test where a library is missing."""
    return pytest.importorskip(name.split()[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other libraries
@pytest.mark.parametrize("name", [n for n in CASES if n[:5] in ("haiku", "equin")])
def test_a_library_computes_the_same_in_float64(name) -> None:
    peer(name)
    case = CASES[name]
    arrays, xs = draw(name, case, jnp.float64)
    expected = compute(case, case.ys, arrays, xs)
    assert_close(compute(case, converted(case), arrays, xs), expected, FLOAT64)


# Keras computes in float32 on JAX, whatever its weights are; here are its equations.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def keras_step(spec, w, state, x):
    n, U, b = spec.units, w["recurrent_kernel"], w["bias"]
    h = state[0]
    if spec.layer == "SimpleRNN":
        return (np.tanh(x @ w["kernel"] + b + h @ U),)
    if spec.layer == "LSTM":
        i, f, c, o = np.split(x @ w["kernel"] + b + h @ U, 4, axis=-1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(c)
        return sigmoid(o) * np.tanh(c), c
    b_x, b_h = b if spec.reset_after else (b, np.zeros(3 * n))
    x_z, x_r, x_h = np.split(x @ w["kernel"] + b_x, 3, axis=-1)
    h_z, h_r, h_h = np.split(h @ U + b_h, 3, axis=-1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    last = r * h_h if spec.reset_after else (r * h) @ U[:, 2 * n :]
    return (z * h + (1 - z) * np.tanh(x_h + last),)


SPECS = [
    KerasSpec("SimpleRNN", 3, 4),
    KerasSpec("LSTM", 3, 4),
    KerasSpec("GRU", 3, 4),
    KerasSpec("GRU", 3, 4, reset_after=False),
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_equations_of_keras_hold_in_float64(spec) -> None:
    before = " before" if not spec.reset_after else ""
    name = "keras " + spec.layer.lower().replace("simplernn", "simple_rnn") + before
    arrays, xs = draw(name, CASES[name], jnp.float64)
    cell, params = keras_from_arrays(spec, arrays)
    got = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1))[1]
    state, ys = (np.zeros((len(xs), 4)),) * 2, []
    arrays = {own: np.asarray(array) for own, array in arrays.items()}
    for x in np.swapaxes(xs, 0, 1):
        state = keras_step(spec, arrays, state, np.asarray(x))
        ys.append(state[0])
    assert_close(got, jnp.asarray(np.stack(ys)), FLOAT64)


# Bad input: every array of every layer.


def swept():
    """Returns all cases; those of nnx, which take longest to make, slow but one."""
    slow = pytest.mark.slow
    late = lambda name: name.startswith("nnx") and name != "nnx gru"
    return [pytest.param(name, marks=slow if late(name) else ()) for name in CASES]


def one_more(array):
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 1)])


@pytest.mark.parametrize("name", swept())
def test_an_array_that_is_missing_or_misshaped_is_named(name) -> None:
    case = CASES[name]
    arrays, _ = draw(name, case, jnp.float32)
    for own, array in arrays.items():
        last = own.removeprefix("forward_rnn/").removeprefix("backward_rnn/")
        last = last.removeprefix("cell/").removeprefix("lstm_1/").removeprefix("lstm/")
        last = last.removeprefix("0/").removeprefix("1/").removeprefix("gru/")
        last = last.removeprefix("vanilla_rnn/")
        with pytest.raises(
            ValueError, match=f"Expected .*{last}.* got .*{one_more(array).shape[-1]}"
        ):
            case.convert(arrays | {own: one_more(array)})
        others = {n: a for n, a in arrays.items() if n != own}
        optional = own in ("vanilla_rnn/linear_1/b", "0/bias", "1/bias")
        if name.startswith("nnx") or optional:
            continue  # a module has what it was made with; without is another layer
        with pytest.raises(ValueError, match=f"Expected .*{last}"):
            case.convert(others)
        if array.ndim == 2 and array.shape[0] != array.shape[1] and "bias" not in own:
            with pytest.raises(ValueError, match=f"axes of {last} are swapped"):
                case.convert(arrays | {own: array.T})


# Round trips.

GRU = jrnn.gru(3, 4)
BOTH = jrnn.bidirectional(GRU, jrnn.gru(3, 4))
TANH, RELU = jrnn.elman(3, 4), jrnn.elman(3, 4, activation=jax.nn.relu)
BEFORE, LSTM = jrnn.gru(3, 4, reset_after=False), jrnn.lstm(3, 4)


def merged(merge):
    return jrnn.bidirectional(GRU, GRU, merge=merge)


def drawn(cell, dtype=jnp.float32):
    """Returns random parameters, with -0 in each, which only its bits tell from 0."""

    def draw(leaf):
        array = np.array(leaf)
        array[0] = -0.0
        return jnp.asarray(array)

    like = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype))
    return jax.tree.map(draw, random_like(0, like))


def assert_bitwise(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def through_haiku(cell, params):
    core = {"elman": "VanillaRNN", "lstm": "LSTM", "gru": "GRU"}[cell.spec.name]
    return from_haiku(type(core, (), {}), to_haiku(cell, params, "a/~/b"), "a/~/b")


THROUGH = {
    "keras": lambda cell, params: keras_from_arrays(*keras_to_arrays(cell, params)),
    "linen": lambda cell, params: from_linen(*to_linen(cell, params)),
    "nnx": lambda cell, params: from_nnx(to_nnx(cell, params)),
    "haiku": through_haiku,
}
TRIPS = [
    *(("keras", cell) for cell in (TANH, RELU, LSTM, GRU, BEFORE, BOTH)),
    ("keras", jrnn.gru(3, 4, bias=False)),
    *(("keras", merged(merge)) for merge in (sum_merge, mean_merge, product_merge)),
    ("linen", merged(jnp.maximum)),
    ("nnx", jrnn.bidirectional(TANH, TANH, merge=mean_merge)),
    *(("linen", cell) for cell in (TANH, RELU, LSTM, GRU, BOTH)),
    *(("nnx", cell) for cell in (TANH, RELU, LSTM)),
    *(("haiku", cell) for cell in (RELU, BEFORE)),
]


@pytest.mark.parametrize(("library", "cell"), TRIPS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_parameters_come_back_bit_for_bit(library, cell, dtype) -> None:
    params = drawn(cell, dtype)
    again, back = THROUGH[library](cell, params)
    assert again is cell
    assert_bitwise(back, params)


def test_nnx_has_no_bias_that_the_reset_gate_multiplies() -> None:
    params = drawn(GRU)
    with pytest.raises(ValueError, match="params.b_h to be 0.* nnx|params.b_h to be 0"):
        to_nnx(GRU, params)
    params = params._replace(b_h=jnp.zeros(4, jnp.float32))
    assert_bitwise(from_nnx(to_nnx(GRU, params))[1], params)


def test_haiku_rounds_the_bias_of_the_forget_gate() -> None:
    near = drawn(LSTM)._replace(b=jnp.linspace(0.5, 2, 16, dtype=jnp.float32))
    assert_bitwise(through_haiku(LSTM, near)[1], near)
    far = drawn(LSTM)._replace(b=jnp.linspace(-0.1, 0.1, 16, dtype=jnp.float32))
    back = through_haiku(LSTM, far)[1]
    assert abs(back.b - far.b).max() <= 2**-24
    assert_bitwise(back._replace(b=far.b), far)


def test_a_cell_without_biases_gets_zeros_where_a_library_has_them() -> None:
    cell = jrnn.lstm(3, 4, bias=False)
    params = drawn(cell)
    for through in (THROUGH["linen"], THROUGH["nnx"]):
        again, back = through(cell, params)
        assert again is LSTM
        assert_bitwise(back, params._replace(b=jnp.zeros(16, jnp.float32)))


# What a library cannot express.

REFUSED = [
    (keras_to_arrays, jrnn.lstm(3, 4, peepholes=True), "Keras has no peepholes"),
    (keras_to_arrays, jrnn.lstm(3, 4, projection_size=2), "Keras has no projection"),
    (keras_to_arrays, jrnn.residual(jrnn.gru(4, 4)), "residual; convert the cells in"),
    (keras_to_arrays, jrnn.stack(GRU), "more than one layer: take to_keras"),
    (keras_to_arrays, jrnn.bidirectional(GRU, LSTM), "one kind and one size"),
    (keras_to_arrays, merged(jnp.maximum), "one that Keras has: concat, sum"),
    (torch_to_arrays, merged(sum_merge), "PyTorch concatenates the outputs"),
    (keras_to_arrays, jrnn.elman(3, 4, activation=jnp.sin), "activation must be tanh"),
    (to_linen, BEFORE, "train with reset_after=True"),
    (to_nnx, jrnn.cells.min_gru(3, 4), "nothing that computes min_gru"),
    (to_linen, jrnn.stack(GRU), "convert its cells one by one"),
    (to_haiku, GRU, "train with reset_after=False"),
    (to_haiku, TANH, "activation must be relu"),
    (to_haiku, BOTH, "nothing that computes bidirectional; convert the cells"),
]


@pytest.mark.parametrize(("convert", "cell", "words"), REFUSED)
def test_what_a_library_lacks_is_refused_with_the_reason(convert, cell, words) -> None:
    with pytest.raises(ValueError, match=f"Expected cell to be one that .*{words}"):
        convert(cell, drawn(cell))


FLAX = [
    (linen.SimpleCell(4, residual=True), ValueError, "residual=False.*identity"),
    (linen.GRUCell(4, gate_fn=jnp.tanh), ValueError, "gate_fn sigmoid"),
    (linen.SimpleCell(4, activation_fn=jnp.sin), ValueError, "one of .*relu"),
    (linen.MGUCell(4), TypeError, "one of .*got a MGUCell"),
    (linen.Dense(4), TypeError, "one of .*got a Dense"),
    (linen.RNN(linen.SimpleCell(4), reverse=True), ValueError, "Expected reverse=True"),
]


@pytest.mark.parametrize(("module", "error", "words"), FLAX)
def test_modules_of_linen_that_are_no_cell_are_refused(module, error, words) -> None:
    with pytest.raises(error, match=words):
        from_linen(module, to_linen(TANH, drawn(TANH))[1])


def test_the_direction_of_flax_is_not_dropped_unseen() -> None:
    cell = nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), reverse=True)
    with pytest.raises(ValueError, match="Expected reverse=True .*jrnn.unroll"):
        from_nnx(cell)
    assert from_nnx(cell, reverse=True)[0] is GRU
    with pytest.raises(ValueError, match="Expected reverse=False"):
        from_nnx(cell.cell, reverse=True)
    with pytest.raises(TypeError, match="one of .*got "):
        from_nnx(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))


def test_the_convention_of_a_keras_gru_is_told_by_its_bias() -> None:
    arrays, _ = draw("keras gru", CASES["keras gru"], jnp.float32)
    words = r"\(2, 3 \* units\) with reset_after=True"
    with pytest.raises(ValueError, match=f"'bias': .*{words}"):
        keras_from_arrays(SPECS[3], arrays)
    arrays["bias"] = arrays["bias"][0]
    with pytest.raises(ValueError, match=f"'bias': .*{words}"):
        keras_from_arrays(SPECS[2], arrays)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (KerasSpec("RNN", 3, 4), "layer in .*got 'RNN'"),
        (KerasSpec("LSTM", 3, 4, activation="relu"), "activation of LSTM .*got 'relu'"),
        (KerasSpec("SimpleRNN", 3, 4, activation="gelu"), "got 'gelu'"),
        (KerasSpec("GRU", 3, 0), "units to be at least 1"),
    ],
)
def test_layers_that_keras_or_jrnn_lacks_are_refused(spec, words) -> None:
    with pytest.raises(ValueError, match=words):
        keras_from_arrays(spec, {})


def test_the_path_of_a_haiku_core_is_asked_for() -> None:
    arrays = {n.removeprefix("gru/"): jnp.ones(s) for n, s in HAIKU_GRU.items()}
    core = type("GRU", (), {})
    with pytest.raises(ValueError, match=r"at 'gru', got \['net/~/gru'\].*as name"):
        from_haiku(core, {"net/~/gru": arrays})
    assert from_haiku(core, {"net/~/gru": arrays, "net/~/linear": {}}, "net/~/gru")
    for wrong in ("GRU", type("IdentityCore", (), {}), None):
        with pytest.raises(TypeError, match="core to be hk.VanillaRNN"):
            from_haiku(wrong, {"gru": arrays})
