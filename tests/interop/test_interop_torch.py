"""PyTorch's modules as cells: against golden arrays, and PyTorch if installed."""

import json
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.interop.torch import (
    TorchSpec,
    find_specs,
    from_arrays,
    from_torch,
    from_torch_state,
    to_arrays,
    to_torch,
    to_torch_state,
)
from tests.helpers import assert_close, random_like, state_shapes

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("torch_*.npz"))
FLOAT32, FLOAT64 = 1e-5, 1e-12  # normwise errors


def part(golden, prefix):
    """The arrays under a prefix, by PyTorch's names."""
    return {
        name.removeprefix(prefix): array
        for name, array in golden.items()
        if name.startswith(prefix)
    }


def packed(golden, name):
    """h, or an LSTM's pair, out of `h_0`, `c_0` and their kin."""
    arrays = [golden[name.format(x)] for x in "hc" if name.format(x) in golden]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def as_gradient(mode, gradients):
    """PyTorch's gradients, so that adding biases up gives the gradient of the sum.

    b = b_ih + b_hh has the gradient of either one; a GRU's b_hn stays apart.
    """
    kept = dict(gradients)
    for name, dL in gradients.items():
        if name.startswith("bias_hh"):
            beside = gradients[name.replace("hh", "ih")]
            shared = 2 * len(dL) // 3 if mode == "GRU" else len(dL)
            np.testing.assert_allclose(dL[:shared], beside[:shared], rtol=1e-4)
            kept[name] = np.concatenate([np.zeros_like(dL[:shared]), dL[shared:]])
    return kept


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem.removeprefix("torch_"))
def golden(request):
    with np.load(request.param) as arrays:
        return dict(arrays)


def reproduce(golden, cell, params, state, method):
    """Outputs, final state and gradients of the golden loss."""
    weights = from_torch_state(cell, packed(golden, "weight_{}_n"))

    def loss(params, xs, state):
        final, ys = jrnn.unroll(
            cell, params, xs, state, lengths=golden.get("lengths"), method=method
        )
        terms = jax.tree.map(lambda w, y: (w * y).sum(), weights, final)
        total = (golden["weight_ys"] * ys).sum() + sum(jax.tree.leaves(terms))
        return total, (ys, final)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    gradients, (ys, final) = gradient(params, jnp.asarray(golden["xs"]), state)
    return ys, final, *gradients


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "method",
    [pytest.param(jrnn.scan(), id="scan", marks=pytest.mark.slow), jrnn.bptt()],
    ids=[None, "bptt"],
)
def test_golden_arrays_are_reproduced(golden, method) -> None:
    spec = TorchSpec(**json.loads(str(golden["spec"])))
    cell, params = from_arrays(spec, part(golden, "param/"))
    state = from_torch_state(cell, packed(golden, "{}_0"))
    got = reproduce(golden, cell, params, state, method)
    gradients = as_gradient(spec.mode, part(golden, "grad/"))
    expected = (
        jnp.asarray(golden["ys"]),
        from_torch_state(cell, packed(golden, "{}_n")),
        from_arrays(spec, gradients)[1],
        jnp.asarray(golden["grad_xs"]),
        from_torch_state(cell, packed(golden, "grad_{}_0")),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    assert_close(got, expected, FLOAT32)


def test_golden_arrays_cover_what_users_pack() -> None:
    names = {path.stem.removeprefix("torch_") for path in GOLDEN}
    assert {"rnn_packed", "lstm_packed", "gru_packed", "lstm_projection_packed"} < names
    assert {"rnn", "rnn_relu", "lstm", "gru", "gru_no_bias"} < names
    assert sum(path.stat().st_size for path in GOLDEN) < 300_000


def zeros(spec_shapes):
    return {name: np.zeros(shape, "f4") for name, shape in spec_shapes.items()}


ELMAN = {
    "weight_ih_l0": (4, 3),
    "weight_hh_l0": (4, 4),
    "bias_ih_l0": (4,),
    "bias_hh_l0": (4,),
}


@pytest.mark.parametrize(
    ("spec", "changed", "words"),
    [
        (TorchSpec("RNN_TANH", 3, 4), {"bias_hh_l0": None}, "{'bias_hh_l0': None}; "),
        (TorchSpec("RNN_TANH", 3, 4), {"weight_hh_l1": (4, 4)}, "weight_hh_l1"),
        (TorchSpec("RNN_TANH", 3, 4), {"bias_ih_l0": (1,)}, r"\(4,\).*, got .*\(1,\)"),
        (TorchSpec("RNN_TANH", 3, 4, bias=False), {}, "bias_hh_l0.*bias_ih_l0"),
        (TorchSpec("LSTM", 3, 4), {}, r"\(16, 3\).*got .*\(4, 3\)"),
        (TorchSpec("RNN", 3, 4), {}, "RNN_TANH.*got 'RNN'"),
        (TorchSpec("RNN_TANH", 3, 4, 0), {}, "num_layers to be at least 1, got 0"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(spec, changed, words) -> None:
    shapes = {**ELMAN, **changed}
    arrays = zeros({name: shape for name, shape in shapes.items() if shape is not None})
    with pytest.raises(ValueError, match=words):
        from_arrays(spec, arrays)


@pytest.mark.parametrize(
    ("cell", "state", "words"),
    [
        (jrnn.lstm(3, 4), np.zeros((1, 2, 4)), r"\(h, c\).*got \[\(1, 2, 4\)\]"),
        (jrnn.gru(3, 4), np.zeros((2, 2, 4)), r"got \[\(2, 2, 4\)\]"),
        (jrnn.gru(3, 4), np.zeros((2, 4)), r"got \[\(2, 4\)\]"),
        (jrnn.gru(3, 4), np.zeros(4), r"got \[\(4,\)\]"),
        (jrnn.gru(3, 4), (), r"got \[\]"),
        (jrnn.lstm(3, 4), (np.zeros((1, 2, 4)), np.zeros((2, 4))), "got "),
        (jrnn.gru(3, 4), np.zeros((1, 2, 5)), r"state.h of shape \(2, 4\)"),
    ],
)
def test_states_that_do_not_fit_are_refused(cell, state, words) -> None:
    with pytest.raises(ValueError, match=words):
        from_torch_state(cell, state)


def test_states_come_apart_layer_by_layer_forwards_first() -> None:
    one, two = jrnn.lstm(3, 4, projection_size=2), jrnn.lstm(4, 4, projection_size=2)
    cell = jrnn.stack(
        jrnn.bidirectional(one, one), jrnn.dropout(jrnn.bidirectional(two, two), 0.5)
    )
    h, c = np.zeros((4, 5, 2)), np.zeros((4, 5, 4))
    for row in range(4):
        h[row], c[row] = row, 10 + row
    (below_f, below_b), (above_f, above_b) = from_torch_state(cell, (h, c))
    for row, state in enumerate((below_f, below_b, above_f, above_b)):
        np.testing.assert_array_equal(state.h, np.full((5, 2), row))
        np.testing.assert_array_equal(state.c, np.full((5, 4), 10 + row))


def test_a_sequence_without_batch_axis_has_a_state_without_one() -> None:
    state = from_torch_state(jrnn.gru(3, 4), np.ones((1, 4), "f4"))
    assert (state.h.shape, state.h.dtype) == ((4,), jnp.float32)


def test_dropout_goes_around_all_layers_but_the_first() -> None:
    spec = TorchSpec("RNN_RELU", 3, 4, num_layers=3, dropout=0.25)
    shapes = {
        name.replace("l0", f"l{i}"): (4, 4) if i and name == "weight_ih_l0" else shape
        for i in range(3)
        for name, shape in ELMAN.items()
    }
    relu = jax.nn.relu
    below, above = jrnn.elman(3, 4, activation=relu), jrnn.elman(4, 4, activation=relu)
    above = jrnn.dropout(above, 0.25)
    assert from_arrays(spec, zeros(shapes))[0] is jrnn.stack(below, above, above)


def test_biases_are_added_in_the_type_of_the_parameters() -> None:
    for dtype in (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16):
        arrays = {name: np.ones(shape, dtype) for name, shape in ELMAN.items()}
        params = from_arrays(TorchSpec("RNN_TANH", 3, 4), arrays)[1]
        assert {leaf.dtype for leaf in params} == {jnp.dtype(dtype)}
        np.testing.assert_array_equal(params.b, np.full(4, 2, dtype))


@pytest.fixture
def without_x64():
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.mark.usefixtures("without_x64")
def test_a_type_that_jax_would_narrow_is_refused() -> None:
    arrays = {name: np.ones(shape) for name, shape in ELMAN.items()}
    with pytest.raises(ValueError, match="jax_enable_x64"):
        from_arrays(TorchSpec("RNN_TANH", 3, 4), arrays)


def test_the_arrays_are_copies() -> None:
    spec = TorchSpec("RNN_TANH", 1, 1)
    arrays = {name: np.ones((1,) * len(shape)) for name, shape in ELMAN.items()}
    params = from_arrays(spec, arrays)[1]
    for array in arrays.values():
        array += 1
    assert params == (1, 1, 2)


def test_without_pytorch_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "torch.nn", None)
    with pytest.raises(ImportError, match="pip install torch"):
        from_torch(object())


# Back to PyTorch.

RELU = jax.nn.relu
PROJECTED = jrnn.lstm(3, 4, projection_size=2)
EXPRESSIBLE = {
    "tanh": jrnn.elman(3, 4),
    "relu": jrnn.elman(3, 4, activation=RELU, bias=False),
    "lstm": jrnn.lstm(3, 4),
    "gru": jrnn.gru(3, 4),
    "gru no bias": jrnn.gru(3, 4, bias=False),
    "two directions": jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4)),
    "deep": jrnn.stack(
        jrnn.bidirectional(PROJECTED, PROJECTED),
        jrnn.dropout(
            jrnn.bidirectional(*[jrnn.lstm(4, 4, projection_size=2)] * 2), 0.25
        ),
    ),
    "three": jrnn.stack(jrnn.gru(3, 4), jrnn.gru(4, 4), jrnn.gru(4, 4)),
}


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


@pytest.mark.parametrize("name", EXPRESSIBLE)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_parameters_come_back_from_arrays_bit_for_bit(name, dtype) -> None:
    cell = EXPRESSIBLE[name]
    params = drawn(cell, dtype)
    again, back = from_arrays(*to_arrays(cell, params))
    assert again is cell
    assert_bitwise(back, params)


def test_the_attributes_are_those_of_the_cell() -> None:
    spec = to_arrays(EXPRESSIBLE["deep"], drawn(EXPRESSIBLE["deep"]))[0]
    wanted = TorchSpec("LSTM", 3, 4, 2, dropout=0.25, bidirectional=True, proj_size=2)
    assert spec == wanted
    cell = jrnn.elman(3, 4, activation=RELU, bias=False)
    assert to_arrays(cell, drawn(cell))[0] == TorchSpec("RNN_RELU", 3, 4, bias=False)


def test_a_single_cell_has_names_without_a_layer() -> None:
    cell = jrnn.gru(3, 4)
    params = drawn(cell)
    spec, arrays = to_arrays(cell, params, as_cell=True)
    assert (spec.is_cell, set(arrays)) == (
        True,
        {"weight_ih", "weight_hh", "bias_ih", "bias_hh"},
    )
    assert_bitwise(from_arrays(spec, arrays)[1], params)
    deep = EXPRESSIBLE["three"]
    with pytest.raises(ValueError, match=r"one layer .* where is_cell .* num_layers=3"):
        to_arrays(deep, drawn(deep), as_cell=True)


def doubled():
    def advance(params, state, u):
        new = jrnn.gru(3, 4).advance(params, state, u)
        return new._replace(h=2 * new.h)

    return jrnn.gru(3, 4)._replace(advance=advance)


INEXPRESSIBLE = {
    "peepholes": (jrnn.lstm(3, 4, peepholes=True), "no peepholes"),
    "reset before": (
        jrnn.gru(3, 4, reset_after=False),
        "PyTorch resets after the product, .*train with reset_after=True",
    ),
    "activation": (jrnn.elman(3, 4, activation=jnp.sin), "must be tanh or relu"),
    "another cell": (jrnn.cells.lru(3, 4), "nothing that computes lru"),
    "layer norm": (jrnn.cells.layer_norm_gru(3, 4), "nothing that computes layer_norm"),
    "residual": (
        jrnn.residual(jrnn.gru(4, 4)),
        "nothing that computes residual; convert the cells inside",
    ),
    "residual above": (
        jrnn.stack(jrnn.gru(3, 4), jrnn.residual(jrnn.gru(4, 4))),
        r"at \[1\]: PyTorch has nothing that computes residual",
    ),
    "mixed": (jrnn.stack(jrnn.gru(3, 4), jrnn.lstm(4, 4)), r"at \[1\]: all layers"),
    "sizes": (jrnn.stack(jrnn.gru(3, 4), jrnn.gru(4, 5)), r"at \[1\]: all layers"),
    "one way above": (
        jrnn.stack(jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4)), jrnn.gru(8, 4)),
        r"at \[1\]: all layers",
    ),
    "directions": (
        jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 5)),
        "all layers must be alike",
    ),
    "dropout of inputs": (jrnn.dropout(jrnn.gru(3, 4), 0.5), "rates of dropout"),
    "two rates": (
        jrnn.stack(
            jrnn.gru(3, 4),
            jrnn.dropout(jrnn.gru(4, 4), 0.5),
            jrnn.dropout(jrnn.gru(4, 4), 0.25),
        ),
        "rates of dropout",
    ),
    "changed": (doubled(), "a function of it was replaced"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_pytorch_lacks_is_refused_with_the_reason(name) -> None:
    cell, words = INEXPRESSIBLE[name]
    params = drawn(cell)
    with pytest.raises(
        ValueError, match=f"Expected cell to be one that PyTorch.*{words}"
    ):
        to_arrays(cell, params)


def test_a_cell_with_other_initialisers_is_converted() -> None:
    init = jrnn.initializers.normal(0.1)
    cell = jrnn.bidirectional(*[jrnn.gru(3, 4, input_init=init)] * 2)
    params = drawn(cell)
    again, back = from_arrays(*to_arrays(cell, params))
    assert again is jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4))
    assert_bitwise(back, params)


def test_parameters_of_another_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="params"):
        to_arrays(jrnn.gru(3, 4), drawn(jrnn.gru(3, 5)))


def test_gradients_go_through_the_conversion() -> None:
    cell = jrnn.gru(3, 4)
    params = drawn(cell)

    def loss(params):
        again, back = from_arrays(*to_arrays(cell, params))
        return sum((leaf**3).sum() for leaf in back)

    expected = jax.tree.map(lambda leaf: 3 * leaf**2, params)
    assert_close(jax.jit(jax.grad(loss))(params), expected, 1e-6)


# The layout of data.


def test_batch_first_is_not_dropped_unseen() -> None:
    cell = jrnn.lstm(3, 4)
    spec, arrays = to_arrays(cell, drawn(cell), batch_first=True)
    assert spec.batch_first
    with pytest.raises(ValueError, match="Expected time_axis .*time_axis=1 .*unroll"):
        from_arrays(spec, arrays)
    for axis in (0, 1):
        assert from_arrays(spec, arrays, time_axis=axis)[0] is cell
    for wrong in (2, -1, True, "time"):
        with pytest.raises(ValueError, match="time_axis to be 0 or 1"):
            from_arrays(spec, arrays, time_axis=wrong)


# A whole state_dict.


def test_recurrent_modules_are_found_in_a_state_dict() -> None:
    cells = {
        "encoder.rnn.": EXPRESSIBLE["deep"],
        "decoder.": jrnn.gru(3, 4, bias=False),
        "": jrnn.lstm(3, 4),
    }
    whole = {"head.weight": np.zeros((2, 4)), "weight_hh_other": np.zeros(3)}
    told = {}
    for prefix, cell in cells.items():
        spec, arrays = to_arrays(cell, drawn(cell), as_cell=not prefix)
        told[prefix] = spec._replace(dropout=0.0)
        whole |= {prefix + name: array for name, array in arrays.items()}
    assert find_specs(whole) == told
    del whole["head.weight"], whole["weight_hh_other"]
    for prefix in ("encoder.rnn.", "decoder."):
        params = from_arrays(told[prefix], whole, prefix=prefix)[1]
        assert_bitwise(params, drawn(cells[prefix]))


def test_the_nonlinearity_must_be_told() -> None:
    cell = jrnn.elman(3, 4, activation=RELU)
    whole = {f"rnn.{n}": a for n, a in to_arrays(cell, drawn(cell))[1].items()}
    spec = find_specs(whole)["rnn."]
    with pytest.raises(ValueError, match=r"got 'RNN'; .*_replace\(mode="):
        from_arrays(spec, whole, prefix="rnn.")
    assert from_arrays(spec._replace(mode="RNN_RELU"), whole, prefix="rnn.")[0] is cell


def test_a_missing_prefix_is_named() -> None:
    cell = jrnn.gru(3, 4)
    spec, arrays = to_arrays(cell, drawn(cell))
    whole = {f"encoder.gru.{name}": array for name, array in arrays.items()}
    for prefix in ("", "gru."):
        with pytest.raises(ValueError, match=r"prefix=, one of \['encoder.gru.'\]"):
            from_arrays(spec, whole, prefix=prefix)


def test_swapped_axes_are_named() -> None:
    spec, arrays = to_arrays(jrnn.gru(3, 4), drawn(jrnn.gru(3, 4)))
    arrays["weight_ih_l0"] = arrays["weight_ih_l0"].T
    with pytest.raises(ValueError, match="axes of weight_ih_l0 are swapped"):
        from_arrays(spec, arrays)


@pytest.mark.parametrize("name", ["lstm", "gru", "deep", "three"])
def test_states_are_packed_again(name) -> None:
    cell = EXPRESSIBLE[name]
    state = random_like(1, state_shapes(cell, drawn(cell), (5,)))
    assert_bitwise(from_torch_state(cell, to_torch_state(cell, state)), state)


# What follows runs where PyTorch is installed.


@pytest.fixture
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, while it is imported
        return pytest.importorskip("torch")


def random_module(torch, seed):
    """A module of random kind, sizes and options, in float64; some without biases."""
    rng = np.random.default_rng(seed)
    kind = ("RNN", "LSTM", "GRU")[seed % 3]
    units, layers = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    options = {
        "bias": bool(rng.integers(4)),
        "bidirectional": bool(rng.integers(2)),
        "batch_first": bool(rng.integers(2)),
        "num_layers": layers,
        "dropout": 0.3 if layers > 1 else 0.0,
    }
    if kind == "RNN":
        options["nonlinearity"] = ("tanh", "relu")[rng.integers(2)]
    if kind == "LSTM":
        options["proj_size"] = int(rng.integers(units))
    torch.manual_seed(seed)
    sizes = int(rng.integers(1, 5)), units
    return getattr(torch.nn, kind)(*sizes, dtype=torch.float64, **options).eval()


def random_start(torch, module, batch):
    rows = module.num_layers * (1 + module.bidirectional)
    shown = module.proj_size or module.hidden_size
    h = torch.randn(rows, batch, shown, dtype=torch.float64)
    c = torch.randn(rows, batch, module.hidden_size, dtype=torch.float64)
    return (h, c) if module.mode == "LSTM" else h


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(18))
def test_a_module_and_its_cell_compute_the_same(torch, seed) -> None:
    module = random_module(torch, seed)
    cell, params = from_torch(module, time_axis=0)
    xs = torch.randn(7, 3, module.input_size, dtype=torch.float64)
    start = random_start(torch, module, 3)
    lengths = torch.randint(1, 8, (3,)) if seed % 2 else None
    with torch.no_grad():
        ys, final = run_module(torch, module, xs, start, lengths)
    got_final, got_ys = jrnn.unroll(
        cell,
        params,
        xs.numpy(),
        from_torch_state(cell, start),
        lengths=None if lengths is None else lengths.numpy(),
    )
    assert_close(got_ys, jnp.asarray(ys.numpy()), FLOAT64)
    assert_close(got_final, from_torch_state(cell, final), FLOAT64)


def run_module(torch, module, xs, start, lengths):
    """Outputs, time first, and final states, of a packed sequence if it has lengths."""
    first = module.batch_first
    xs = xs.transpose(0, 1) if first else xs
    if lengths is None:
        ys, final = module(xs, start)
    else:
        rnn = torch.nn.utils.rnn
        xs = rnn.pack_padded_sequence(xs, lengths, first, enforce_sorted=False)
        ys, final = module(xs, start)
        ys, _ = rnn.pad_packed_sequence(ys, first, total_length=7)
    return (ys.transpose(0, 1) if first else ys), final


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_type_is_kept_bit_for_bit(torch, dtype) -> None:
    module = torch.nn.GRU(3, 4, dtype=getattr(torch, dtype))
    cell, params = from_torch(module)
    assert cell is jrnn.gru(3, 4)
    assert {leaf.dtype for leaf in params} == {jnp.dtype(dtype)}
    W_h = module.weight_hh_l0.detach().double().numpy()
    np.testing.assert_array_equal(np.asarray(params.W_h, np.float64), W_h.T)


@pytest.mark.slow
def test_a_cell_does_not_follow_the_module_in_training(torch) -> None:
    module = torch.nn.LSTM(1, 1)
    params = from_torch(module)[1]
    kept = jax.tree.map(lambda leaf: np.array(leaf), params)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1
    assert_close(params, kept, 0)


@pytest.mark.slow
def test_reparametrised_weights_are_those_that_the_module_uses(torch) -> None:
    module = torch.nn.LSTM(3, 4)
    norm = torch.nn.utils.parametrizations.weight_norm
    norm(module, "weight_hh_l0").parametrizations.weight_hh_l0.original0.data *= 2
    W_h = module.weight_hh_l0.detach().numpy()
    np.testing.assert_array_equal(from_torch(module)[1].W_h, W_h.T)


@pytest.mark.slow
def test_other_modules_are_refused(torch) -> None:
    with pytest.raises(TypeError, match=r"torch.nn.LSTM.*got Linear\."):
        from_torch(torch.nn.Linear(3, 4))
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GRU(3, 4))
    with pytest.raises(TypeError, match=r"got Sequential; .*one by one: \['1'\]"):
        from_torch(model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_single_cell_computes_the_same(torch, kind, bias) -> None:
    options = {"nonlinearity": "relu"} if kind == "RNNCell" else {}
    make = getattr(torch.nn, kind)
    module = make(3, 4, bias=bias, dtype=torch.float64, **options)
    cell, params = from_torch(module)
    x, h, c = (torch.randn(5, n, dtype=torch.float64) for n in (3, 4, 4))
    given = (h, c) if kind == "LSTMCell" else h
    expected = module(x, given)
    batched = [one[None] for one in given] if kind == "LSTMCell" else given[None]
    state, y = cell.step(params, from_torch_state(cell, batched), x.numpy())
    packed = expected if kind == "LSTMCell" else (expected,)
    assert_close(
        list(state), [jnp.asarray(a.detach().numpy()) for a in packed], FLOAT64
    )
    again = to_torch(cell, params, as_cell=True)
    assert type(again) is make
    assert_bitwise(from_torch(again)[1], params)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPRESSIBLE)
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_a_module_made_of_a_cell_computes_the_same(torch, name, dtype) -> None:
    cell = EXPRESSIBLE[name]
    params = drawn(cell, dtype)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    module = to_torch(cell, params, batch_first=True).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert module.batch_first
    again, back = from_torch(module, time_axis=1)
    assert again is cell
    assert_bitwise(back, params)
    if dtype == jnp.bfloat16:
        return
    xs = torch.randn(3, 7, 3, dtype=torch.float64, requires_grad=True)
    ys, _ = module(xs)
    (ys**2).sum().backward()
    run = lambda p, x: jrnn.unroll(cell, p, jnp.swapaxes(x, 0, 1))[1]
    loss = lambda p, x: (run(p, x) ** 2).sum()
    data = jnp.asarray(xs.detach().numpy())
    assert_close(
        run(params, data), jnp.asarray(ys.transpose(0, 1).detach().numpy()), FLOAT64
    )
    dparams, dxs = jax.grad(loss, (0, 1))(params, data)
    assert_close(dxs, jnp.asarray(xs.grad.numpy()), FLOAT64)
    spec = to_arrays(cell, params)[0]
    given = {n: p.grad.numpy() for n, p in module.named_parameters()}
    told = from_arrays(spec, as_gradient(spec.mode, given))[1]
    assert_close(dparams, told, FLOAT64)


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e4m3b11fnuz])
def test_a_type_that_its_layers_lack_is_refused(dtype) -> None:
    cell = jrnn.gru(3, 4)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn(cell))
    with pytest.raises(ValueError, match="float64, float32, bfloat16, float16, got f"):
        to_torch(cell, params)


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
def test_traced_parameters_are_refused() -> None:
    cell = jrnn.gru(3, 4)
    convert = lambda params: to_torch(cell, params) and 0
    with pytest.raises(TypeError, match="traced ones.*to_torch outside of jit"):
        jax.jit(convert)(drawn(cell))


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
def test_a_module_of_two_types_is_refused() -> None:
    cell = jrnn.gru(3, 4)
    params = drawn(cell)._replace(b=jnp.zeros(12, jnp.float64))
    with pytest.raises(ValueError, match="one dtype.*float32.*float64"):
        to_torch(cell, params)


@pytest.mark.slow
def test_modules_are_found_in_a_model(torch) -> None:
    model = torch.nn.ModuleDict(
        {
            "encoder": torch.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
            "step": torch.nn.GRUCell(3, 4),
            "head": torch.nn.Linear(4, 2),
        }
    )
    whole = model.state_dict()
    found = find_specs(whole)
    assert list(found) == ["encoder.", "step."]
    for prefix, spec in found.items():
        expected = from_torch(model[prefix[:-1]])
        got = from_arrays(spec, whole, prefix=prefix)
        assert got[0] is expected[0]
        assert_bitwise(got[1], expected[1])
