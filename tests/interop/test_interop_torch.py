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
from jrnn.interop.torch import TorchSpec, from_arrays, from_torch, from_torch_state
from tests.helpers import assert_close

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


@pytest.mark.parametrize("method", [jrnn.scan(), jrnn.bptt()], ids=["scan", "bptt"])
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
    cell, params = from_torch(module)
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
@pytest.mark.parametrize("kind", ["Linear", "LSTMCell"])
def test_other_modules_are_refused(torch, kind) -> None:
    with pytest.raises(TypeError, match=rf"torch.nn.LSTM.*got {kind}; .*model\.lstm"):
        from_torch(getattr(torch.nn, kind)(3, 4))
