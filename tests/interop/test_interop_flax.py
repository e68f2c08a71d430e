"""Cells of jrnn as modules of Flax NNX: the numbers of Flax, and its tools work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx

import jrnn
from jrnn.interop.flax.nnx import RNN, Bidirectional, RNNCell, Stack
from tests.helpers import assert_close, random_like

K, H, B, T = 3, 4, 2, 5
LENGTHS = jnp.array([5, 3])
VALID = np.arange(T) < np.asarray(LENGTHS)[:, None]


def theirs(name):
    """A cell of Flax, float64, with weights that are not symmetric, and biases."""
    kind = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "elman": nnx.SimpleCell}
    f64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    cell = kind[name](K, H, **f64, rngs=nnx.Rngs(0))
    state = nnx.state(cell, nnx.Param)
    nnx.update(cell, random_like(7, state, 0.5))
    return cell


def ours(name, cell):
    """The cell of jrnn and the parameters that have the weights of Flax's."""
    made = getattr(jrnn, name)(K, H)
    W_x, W_h = cell.dense_i.kernel[...], cell.dense_h.kernel[...]
    b = (cell.dense_h if name == "lstm" else cell.dense_i).bias[...]
    like = jax.eval_shape(lambda: made.init(jax.random.key(0)))
    if name == "gru":
        return made, like._replace(W_x=W_x, W_h=W_h, b=b, b_h=jnp.zeros(H))
    return made, like._replace(W_x=W_x, W_h=W_h, b=b)


def inputs(seed=0, shape=(B, T, K), dtype=jnp.float64):
    return random_like(seed, jax.ShapeDtypeStruct(shape, dtype))


def as_theirs(state):
    """The carry of Flax with the numbers of a state."""
    return (state.c, state.h) if hasattr(state, "c") else state.h


slow = pytest.mark.slow


@pytest.fixture(
    params=["lstm", pytest.param("gru", marks=slow), pytest.param("elman", marks=slow)]
)
def pair(request, standard_promotion):
    """A cell of Flax, and the cell and the parameters of jrnn that equal it."""
    del standard_promotion
    cell = theirs(request.param)
    return cell, *ours(request.param, cell)


@pytest.mark.longer
@pytest.mark.parametrize(
    "options",
    [
        {"reverse": True, "seq_lengths": LENGTHS},
        pytest.param({}, marks=slow),
        pytest.param({"seq_lengths": LENGTHS}, marks=slow),
        pytest.param(
            {"reverse": True, "keep_order": True, "seq_lengths": LENGTHS}, marks=slow
        ),
        pytest.param({"reverse": True}, marks=slow),
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_outputs_and_carries_equal_those_of_flax(pair, options):
    cell, own, params = pair
    xs = inputs()
    carry, ys = nnx.RNN(cell)(xs, return_carry=True, **options)
    state, zs = RNN(own, params=params)(xs, return_carry=True, **options)
    valid = VALID if "seq_lengths" in options else np.ones((B, T), bool)
    assert_close(np.asarray(zs)[valid], np.asarray(ys)[valid], 1e-12)
    assert_close(as_theirs(state), carry, 1e-12)
    assert not np.asarray(zs)[~valid].any()


@slow
def test_time_major_and_several_batch_axes(standard_promotion):
    del standard_promotion
    cell = theirs("lstm")
    own, params = ours("lstm", cell)
    xs = inputs(shape=(2, 3, T, K))
    expected = nnx.RNN(cell)(xs)
    model = RNN(own, params=params)
    assert_close(model(xs), expected, 1e-12)
    first = jnp.moveaxis(xs, 2, 0)
    assert_close(model(first, time_major=True), jnp.moveaxis(expected, 2, 0), 1e-12)


@slow
def test_gradients_equal_those_of_flax(pair):
    cell, own, params = pair
    xs, w = inputs(), inputs(1, (B, T, H))

    def loss(model, xs):
        carry, ys = model(xs, seq_lengths=LENGTHS, return_carry=True)
        ends = sum((leaf**2).sum() for leaf in jax.tree.leaves(carry))
        return (w * jnp.where(VALID[..., None], ys, 0)).sum() + ends

    gradient = nnx.grad(loss, argnums=(0, 1))
    dmodel, dxs = gradient(nnx.RNN(cell), xs)
    mine, mine_xs = gradient(RNN(own, params=params), xs)
    assert_close(mine_xs, dxs, 1e-12)
    dcell, found = dmodel["cell"], mine["cell"]["weights"]
    assert_close(found["W_x"][...], dcell["dense_i"]["kernel"][...], 1e-12)
    assert_close(found["W_h"][...], dcell["dense_h"]["kernel"][...], 1e-12)


class Model(nnx.Module):
    """A model as users write one."""

    def __init__(self, rngs):
        learned = jrnn.wrappers.learned_initial_state(jrnn.gru(K, H))
        self.rnn = RNN(learned, rngs=rngs)
        self.out = nnx.Linear(H, 1, rngs=rngs)

    def __call__(self, xs):
        return self.out(self.rnn(xs))


def square(model, xs):
    return jnp.square(model(xs) - 1).mean()


@pytest.fixture
def model(standard_promotion):
    del standard_promotion
    return Model(nnx.Rngs(0))


@pytest.mark.longer
def test_an_optimizer_updates_plain_parameters(model):
    xs = inputs(dtype=jnp.float32)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model))

    @nnx.jit
    def step(model, optimizer, xs):
        loss, grads = nnx.value_and_grad(square)(model, xs)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer, xs)) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    after = nnx.to_pure_dict(nnx.state(model))
    moved = jax.tree.map(lambda a, b: (a != b).any(), before, after)
    assert all(jax.tree.leaves(moved))
    kinds = {type(leaf) for _, leaf in nnx.to_flat_state(nnx.state(model))}
    assert all(kind.__name__ in ("Param", "VariableState") for kind in kinds)
    paths = {path[:4] for path, _ in nnx.to_flat_state(nnx.state(model))}
    assert ("rnn", "cell", "weights", "state") in paths


def test_split_merge_clone_and_show(model):
    xs = inputs(dtype=jnp.float32)
    expected = model(xs)
    definition, params = nnx.split(model, nnx.Param)  # there is nothing else
    assert hash(definition) == hash(nnx.split(Model(nnx.Rngs(1)))[0])
    np.testing.assert_array_equal(nnx.merge(definition, params)(xs), expected)
    np.testing.assert_array_equal(nnx.clone(model)(xs), expected)
    assert "gru(input_size=3, hidden_size=4" in repr(model)
    shown = nnx.tabulate(model, xs)
    assert "gru" not in shown  # one row for the module, which is called as one
    assert f" {sum(leaf.size for leaf in jax.tree.leaves(model.rnn.cell.params))} " in (
        shown.replace("[1m", " ")
    )
    (cell, params) = model.rnn.cell.cell, model.rnn.cell.params
    _, ys = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1))
    np.testing.assert_array_equal(model.rnn(xs), jnp.swapaxes(ys, 0, 1))


@slow
def test_orbax_restores_every_bit(model, tmp_path):
    xs = inputs(dtype=jnp.float32)
    state = nnx.to_pure_dict(nnx.state(model))
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", state)
        saver.wait_until_finished()
        read = saver.restore(tmp_path / "state", jax.tree.map(np.asarray, state))
        saver.save(tmp_path / "whole", nnx.state(model))
        saver.wait_until_finished()
        whole = saver.restore(tmp_path / "whole", nnx.state(Model(nnx.Rngs(2))))
    expected = model(xs)
    other, another = Model(nnx.Rngs(1)), Model(nnx.Rngs(2))
    assert (other(xs) != expected).any()
    blank = nnx.state(other)
    nnx.replace_by_pure_dict(blank, read)
    nnx.update(other, blank)
    nnx.update(another, whole)
    np.testing.assert_array_equal(other(xs), expected)
    np.testing.assert_array_equal(another(xs), expected)


def dropped(**given):
    cell = jrnn.dropout(jrnn.gru(K, H), 0.5)
    return RNN(cell, rngs=nnx.Rngs(0), **given)


@slow
def test_noise_is_on_in_training_and_off_in_evaluation():
    model, xs = dropped(), inputs(dtype=jnp.float32)
    first, second = model(xs), model(xs)
    assert (first != second).any()
    model.eval()
    np.testing.assert_array_equal(model(xs), model(xs))
    cell, params = model.cell.cell, model.cell.params
    _, still = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1))
    np.testing.assert_array_equal(model(xs), jnp.swapaxes(still, 0, 1))
    key = jax.random.key(3)
    drawn = model(xs, deterministic=False, rngs=jax.random.clone(key))
    _, ys = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1), key=key)
    np.testing.assert_array_equal(drawn, jnp.swapaxes(ys, 0, 1))
    if hasattr(nnx, "view"):  # of later releases
        quiet = nnx.view(model, deterministic=True)
        np.testing.assert_array_equal(quiet(xs), model(xs))
    model.train()
    calls = nnx.jit(lambda model, xs: model(xs))
    assert (calls(model, xs) != calls(model, xs)).any()


@pytest.mark.longer
def test_noise_needs_rngs_and_a_sequence():
    cell = jrnn.dropout(jrnn.gru(K, H), 0.5)
    model = RNN(cell, params=cell.init(jax.random.key(0)))
    xs = inputs(dtype=jnp.float32)
    with pytest.raises(ValueError, match="Expected rngs for the noise .* got none"):
        model(xs)
    streams = nnx.Rngs(dropout=1)
    np.testing.assert_array_equal(
        model(xs, rngs=streams), model(xs, rngs=nnx.Rngs(dropout=1))
    )
    with pytest.raises(ValueError, match='a stream "dropout" .* got params'):
        model(xs, rngs=nnx.Rngs(params=1))
    carry = model.cell.initialize_carry((B, K))
    with pytest.raises(ValueError, match="deterministic=True for one step"):
        model.cell(carry, xs[:, 0])
    model.eval()
    assert model.cell(carry, xs[:, 0])[1].shape == (B, H)
    _, still = jrnn.unroll(cell, model.cell.params, jnp.swapaxes(xs, 0, 1))
    quiet = model(xs, rngs=streams)
    np.testing.assert_array_equal(quiet, jnp.swapaxes(still, 0, 1))


@slow
def test_streams_of_carries_draw_no_noise():
    xs = inputs(dtype=jnp.float32)
    # Streams of carries, which nnx.Bidirectional passes, draw no noise.
    both = nnx.Bidirectional(dropped(), dropped())
    seen = both(xs)
    assert (seen != both(xs)).any()
    both.eval()
    np.testing.assert_array_equal(both(xs), both(xs))


@slow
def test_flax_runs_our_cell_and_our_modules(standard_promotion):
    del standard_promotion
    xs = inputs(dtype=jnp.float32)
    ahead, back = (RNN(jrnn.lstm(K, H), rngs=nnx.Rngs(i)) for i in range(2))
    given = {"seq_lengths": LENGTHS, "return_carry": True}
    carry, ys = nnx.RNN(ahead.cell)(xs, **given)
    state, zs = ahead(xs, **given)
    assert_close(state, carry, 1e-6)
    assert_close(np.asarray(zs)[VALID], np.asarray(ys)[VALID], 1e-6)
    expected = nnx.Bidirectional(ahead, back)(xs, **given)
    got = Bidirectional(ahead, back)(xs, **given)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    both = jrnn.bidirectional(jrnn.lstm(K, H), jrnn.lstm(K, H))
    one = RNN(both, params=(ahead.cell.params, back.cell.params))
    jax.tree.map(np.testing.assert_array_equal, one(xs, **given), got)


@slow
def test_a_stack_runs_layer_after_layer(standard_promotion):
    del standard_promotion
    xs = inputs(dtype=jnp.float32)
    streams = nnx.Rngs(0)
    middle = Bidirectional(jrnn.gru(H, 2), jrnn.gru(H, 2), rngs=streams)
    theirs = nnx.RNN(nnx.GRUCell(H, H, rngs=streams))
    deep = Stack(jrnn.lstm(K, H), middle, theirs, rngs=streams)
    carries, ys = deep(xs, return_carry=True, seq_lengths=LENGTHS)
    assert ys.shape == (B, T, H)
    assert len(carries) == 3
    assert carries[1][1].h.shape == (B, 2)
    cells = jrnn.lstm(K, H), jrnn.gru(H, H)
    pile = Stack(*cells, rngs=nnx.Rngs(1), time_major=True, return_carry=True)
    params = tuple(layer.cell.params for layer in pile.layers)
    first = jnp.swapaxes(xs, 0, 1)
    whole = jrnn.unroll(jrnn.stack(*cells), params, first)
    jax.tree.map(np.testing.assert_array_equal, pile(first), whole)
    again = pile(first, initial_carry=whole[0])
    expected = jrnn.unroll(jrnn.stack(*cells), params, first, whole[0])
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    back = jrnn.unroll(jrnn.stack(*cells), params, first, reverse=True)
    kept = pile(first, reverse=True, keep_order=True)
    jax.tree.map(np.testing.assert_array_equal, kept, back)
    read = pile(first, reverse=True, return_carry=False)
    np.testing.assert_array_equal(read, back[1][::-1])


def test_resets_and_masks_are_laid_out_like_the_inputs():
    cell = jrnn.gru(K, H)
    model, xs = RNN(cell, rngs=nnx.Rngs(0)), inputs(dtype=jnp.float32)
    resets = jnp.zeros((B, T), bool).at[0, 2].set(True)
    mask = jnp.ones((B, T), bool).at[1, 1].set(False)
    _, ys = jrnn.unroll(
        cell, model.cell.params, jnp.swapaxes(xs, 0, 1), resets=resets.T, mask=mask.T
    )
    got = model(xs, resets=resets, mask=mask)
    np.testing.assert_array_equal(got, jnp.swapaxes(ys, 0, 1))
    first = jnp.swapaxes(xs, 0, 1)
    got = model(first, resets=resets.T, mask=mask.T, time_major=True)
    np.testing.assert_array_equal(got, ys)
    with pytest.raises(ValueError, match=r"resets of shape \(2, 5\).*got \(5, 2\)"):
        model(xs, resets=resets.T)


@slow
def test_token_ids_methods_and_other_types():
    cell = jrnn.gru(K, H)
    model = RNN(cell, method=jrnn.scan(), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    ids = jnp.array([[0, 2, 1], [1, 1, 0]])
    one_hot = jax.nn.one_hot(ids, K, dtype=jnp.bfloat16)
    ys = model(ids)
    assert ys.shape == (2, 3, H)
    assert ys.dtype == jnp.bfloat16
    assert_close(ys, model(one_hot), 1e-2)
    assert model.method == jrnn.scan()
    assert model.cell.weights.W_x[...].dtype == jnp.bfloat16
    assert model(ids.T, time_major=True).shape == (3, 2, H)


def test_the_initial_carry_takes_no_key_and_may_be_learned():
    cell = RNNCell(jrnn.lstm(K, H), rngs=nnx.Rngs(0))
    carry = cell.initialize_carry((B, K))
    assert carry.c.shape == (B, H)
    assert not carry.h.any()
    ones = cell.initialize_carry((B, K), nnx.Rngs(0), nnx.initializers.ones)
    assert (ones.c == 1).all()
    drawn = cell.initialize_carry((B, K), nnx.Rngs(0), nnx.initializers.normal(1.0))
    assert (drawn.c != drawn.h).all()
    with pytest.raises(TypeError, match="rngs=nnx.Rngs.*got None"):
        cell.initialize_carry((B, K), carry_init=nnx.initializers.ones)
    learned = RNNCell(
        jrnn.wrappers.learned_initial_state(jrnn.gru(K, H)), rngs=nnx.Rngs(0)
    )
    learned.weights.state.h[...] = jnp.ones(H, jnp.float32)
    assert (learned.initialize_carry((B, K)).h == 1).all()


def test_cells_may_be_shared():
    cell = RNNCell(jrnn.gru(K, H), rngs=nnx.Rngs(0))
    both = Bidirectional(RNN(cell), RNN(cell), merge_fn=jnp.add, return_carry=True)
    assert len(jax.tree.leaves(nnx.state(both))) == len(jax.tree.leaves(cell.params))
    (ahead, back), ys = both(inputs(dtype=jnp.float32))
    assert ys.shape == (B, T, H)
    assert (ahead.h != back.h).any()


def made(**given):
    return RNN(jrnn.gru(K, H), rngs=nnx.Rngs(0), **given)


XS = np.ones((B, T, K), np.float32)
WRONG = {
    "no cell": (lambda: RNN(jrnn.gru, rngs=nnx.Rngs(0)), "Expected a Cell"),
    "Flax's": (lambda: RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))), "GRUCell.*as_cell"),
    "no rngs": (lambda: RNN(jrnn.gru(K, H)), r"Expected rngs=nnx.Rngs.*got None"),
    "params": (lambda: made(params=jrnn.gru(K, 5)), "Expected params"),
    "switch": (lambda: made(reverse=1), "reverse to be True or False, got 1"),
    "method": (lambda: made(method=jrnn.scan), "Expected a Method"),
    "features": (
        lambda: made()(XS[..., :2]),
        r"\*batch, T, 3\).*time_major=True.*2\)",
    ),
    "integers": (lambda: made()(XS.astype(int)), r"inputs.astype\(jnp.float32\)"),
    "scalar": (lambda: made()(3), "inputs to be a sequence.*scalar"),
    "carry": (lambda: made()(XS, initial_carry=np.ones((B, H))), "Expected initial_c"),
    "two lengths": (
        lambda: made()(XS, lengths=LENGTHS, seq_lengths=LENGTHS),
        "one of lengths and seq_lengths, got both",
    ),
    "long": (lambda: made()(XS, seq_lengths=jnp.array([6, 1])), r"within 0\.\.5"),
    "keep_order": (lambda: made()(XS, keep_order="no"), "keep_order to be True or Fa"),
    "pair": (
        lambda: Bidirectional(made(), made())(XS, initial_carry=(1, 2, 3)),
        r"tuple of 2 carries \(forward, backward\)",
    ),
    "merge": (lambda: Bidirectional(made(), made(), merge_fn="sum"), "merge_fn to be"),
    "no layer": (Stack, "at least one layer to stack, got none"),
    "both": (
        lambda: RNN(RNNCell(jrnn.gru(K, H), rngs=nnx.Rngs(0)), param_dtype=jnp.float32),
        "beside an RNNCell",
    ),
    "two dtypes": (
        lambda: RNN(
            jrnn.gru(K, H),
            params=jrnn.gru(K, H).init(jax.random.key(0)),
            param_dtype=jnp.float32,
        ),
        "param_dtype=None beside params",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name):
    call, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_the_rnn_of_flax_names_the_remedy():
    cell = jrnn.gru(K, H)
    for run in (nnx.RNN(cell), lambda xs: nn.RNN(cell).init(jax.random.key(0), xs)):
        with pytest.raises(AttributeError, match="cell of Flax, got gru.*flax.nnx.RN"):
            run(XS)


def test_no_trace_is_made_twice():
    traced = []

    @nnx.jit
    def run(model, xs):
        traced.append(None)
        return model(xs)

    xs = inputs(dtype=jnp.float32)
    for seed in range(2):
        run(RNN(jrnn.lstm(K, H), rngs=nnx.Rngs(seed)), xs)
    assert len(traced) == 1


@slow
def test_an_ensemble_is_made_by_vmap():
    make = functools.partial(RNN, jrnn.gru(K, H))
    keys = jax.random.split(jax.random.key(0), 3)
    models = nnx.vmap(lambda key: make(rngs=nnx.Rngs(key)))(keys)
    ys = nnx.vmap(lambda model, xs: model(xs), in_axes=(0, None))(
        models, inputs(dtype=jnp.float32)
    )
    assert ys.shape == (3, B, T, H)
    assert (ys[0] != ys[1]).any()
