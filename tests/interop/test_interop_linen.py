"""Cells of jrnn as modules of Flax Linen: the numbers of Flax, and its tools work."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import serialization

import jrnn
from jrnn.interop.flax.linen import RNN, Bidirectional, RNNCell, Stack, nest, unnest
from tests.helpers import assert_close, random_like, shapes_of

slow = pytest.mark.slow
K, H, B, T = 3, 4, 2, 5
LENGTHS = jnp.array([5, 3])
VALID = np.arange(T) < np.asarray(LENGTHS)[:, None]


def inputs(seed=0, shape=(B, T, K), dtype=jnp.float64):
    return random_like(seed, jax.ShapeDtypeStruct(shape, dtype))


def lstm_variables(params):
    """Variables of Flax's LSTM with the weights of ours."""
    gates = {g: i for i, g in enumerate("ifgo")}
    part = lambda W, gate: W[..., gates[gate] * H : (gates[gate] + 1) * H]
    ins = {f"i{g}": {"kernel": part(params.W_x, g)} for g in gates}
    recurrent = {
        f"h{g}": {"kernel": part(params.W_h, g), "bias": part(params.b, g)}
        for g in gates
    }
    return {"params": {"cell": ins | recurrent}}


@pytest.fixture
def lstm(standard_promotion):
    """Flax's LSTM, its variables, our module and its variables, of equal weights."""
    del standard_promotion
    cell = jrnn.lstm(K, H)
    params = random_like(3, shapes_of(cell.init), 0.5)
    theirs = nn.RNN(nn.OptimizedLSTMCell(H, param_dtype=jnp.float64))
    mine = RNN(RNNCell(cell, param_dtype=jnp.float64))
    variables = {"params": {"cell": nest(cell, params)}}
    return theirs, lstm_variables(params), mine, variables


@pytest.mark.longer
@pytest.mark.parametrize(
    "options",
    [
        {"reverse": True, "keep_order": True, "seq_lengths": LENGTHS},
        pytest.param({}, marks=slow),
        pytest.param({"reverse": True, "seq_lengths": LENGTHS}, marks=slow),
        pytest.param({"time_major": True}, marks=slow),
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_outputs_carries_and_gradients_equal_those_of_flax(lstm, options):
    theirs, their_variables, mine, variables = lstm
    shape = (T, B, K) if "time_major" in options else (B, T, K)
    xs, w = inputs(shape=shape), inputs(1, (*shape[:2], H))
    valid = VALID if "seq_lengths" in options else np.ones(shape[:2], bool)

    def loss(xs, module, variables):
        carry, ys = module.apply(variables, xs, return_carry=True, **options)
        ys = jnp.where(valid[..., None], ys, 0)
        return (w * ys).sum() + (ys * ys).sum(), (carry, ys)

    gradient = jax.grad(loss, has_aux=True)
    dxs, (carry, ys) = gradient(xs, theirs, their_variables)
    mine_xs, (state, zs) = gradient(xs, mine, variables)
    assert_close(zs, ys, 1e-12)
    assert_close((state.c, state.h), carry, 1e-12)
    assert_close(mine_xs, dxs, 1e-12)


@pytest.mark.longer
def test_parameters_are_drawn_from_one_key_by_name():
    cell = jrnn.stack(jrnn.cells.lru(K, H), jrnn.gru(K, H))
    variables = RNN(cell).init(jax.random.key(0), inputs(dtype=jnp.float32))
    assert set(variables) == {"params"}
    held = variables["params"]["cell"]
    assert set(held) == {"cell_0", "cell_1"}
    params = unnest(cell, held)
    # LRU's gamma is computed from nu, so that all come from one draw.
    own = params[0]
    modulus = jnp.exp(-jnp.exp(own.nu_log))
    assert_close(jnp.exp(own.gamma_log), jnp.sqrt(1 - modulus**2), 1e-6)
    back = nest(cell, params)
    assert jax.tree.structure(back) == jax.tree.structure(flax.core.unfreeze(held))
    jax.tree.map(np.testing.assert_array_equal, back, flax.core.unfreeze(held))
    with pytest.raises(ValueError, match="missing: cell_1/W_x.*; unknown: none"):
        unnest(cell, held | {"cell_1": {k: held["cell_1"][k] for k in ("W_h", "b")}})
    with pytest.raises(ValueError, match=r"cell_1.*got 3"):
        unnest(cell, 3)


class Model(nn.Module):
    """A model as users write one."""

    @nn.compact
    def __call__(self, xs, *, train=False):
        cell = jrnn.stack(jrnn.lstm(K, H), jrnn.dropout(jrnn.gru(H, H), 0.5))
        ys = RNN(cell, deterministic=not train)(xs)
        return nn.Dense(1)(nn.Dropout(0.1, deterministic=not train)(ys))


@slow
def test_a_model_trains_and_its_file_restores_it(standard_promotion):
    del standard_promotion
    model, xs = Model(), inputs(dtype=jnp.float32)
    variables = model.init(jax.random.key(0), xs)
    assert set(variables["params"]) == {"RNN_0", "Dense_0"}
    assert set(variables["params"]["RNN_0"]) == {"cell"}
    optimizer = optax.adam(1e-2)
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state, key):
        def loss(variables):
            rngs = {"dropout": key}
            ys = model.apply(variables, xs, train=True, rngs=rngs)
            return jnp.square(ys - 1).mean()

        value, grads = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(variables, updates), state, value

    keys = jax.random.split(jax.random.key(1), 20)
    trained, losses = variables, []
    for key in keys:
        trained, state, value = step(trained, state, key)
        losses.append(float(value))
    assert losses[-1] < losses[0]
    text = serialization.to_bytes(trained)
    read = serialization.from_bytes(variables, text)
    expected = model.apply(trained, xs)
    np.testing.assert_array_equal(model.apply(read, xs), expected)
    np.testing.assert_array_equal(model.apply(trained, xs), expected)
    assert "RNNCell" in model.tabulate(jax.random.key(0), xs)


def test_noise_is_that_of_the_key_of_dropout():
    cell = jrnn.dropout(jrnn.gru(K, H), 0.5)
    model, xs = RNN(cell), inputs(dtype=jnp.float32)
    variables = model.init(jax.random.key(0), xs, deterministic=True)
    run = lambda seed: model.apply(
        variables, xs, deterministic=False, rngs={"dropout": jax.random.key(seed)}
    )
    assert (run(0) != run(1)).any()
    np.testing.assert_array_equal(run(0), run(0))
    params = unnest(cell, variables["params"]["cell"])
    _, ys = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1))
    quiet = model.apply(variables, xs, deterministic=True)
    np.testing.assert_array_equal(quiet, jnp.swapaxes(ys, 0, 1))
    with pytest.raises(ValueError, match="deterministic to be True or False .* None"):
        model.apply(variables, xs)
    with pytest.raises(ValueError, match=r'got none; pass rngs=\{"dropout": key\}'):
        model.apply(variables, xs, deterministic=False)


@slow
def test_flax_runs_our_cell_and_our_modules(standard_promotion):
    del standard_promotion
    xs = inputs(dtype=jnp.float32)
    given = {"seq_lengths": LENGTHS, "return_carry": True}
    mine, cell = RNN(jrnn.lstm(K, H)), RNNCell(jrnn.lstm(K, H))
    variables = mine.init(jax.random.key(0), xs)
    state, zs = mine.apply(variables, xs, **given)
    carry, ys = nn.RNN(cell).apply(variables, xs, **given)
    assert_close(state, carry, 1e-6)
    assert_close(np.asarray(zs)[VALID], np.asarray(ys)[VALID], 1e-6)
    drawn = nn.RNN(cell).init(jax.random.key(0), xs)
    assert jax.tree.structure(drawn) == jax.tree.structure(variables)

    both = Bidirectional(jrnn.lstm(K, H), jrnn.gru(K, 2))
    variables = both.init(jax.random.key(0), xs)
    assert set(variables["params"]) == {"forward_rnn", "backward_rnn"}
    theirs = nn.Bidirectional(RNN(jrnn.lstm(K, H)), RNN(jrnn.gru(K, 2)))
    expected = theirs.apply(variables, xs, **given)
    got = both.apply(variables, xs, **given)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert got[1].shape == (B, T, H + 2)


@slow
def test_a_step_is_that_of_the_cell_and_its_carry_may_be_learned():
    own = jrnn.wrappers.learned_initial_state(jrnn.gru(K, H))
    cell, xs = RNNCell(own), inputs(dtype=jnp.float32)
    carry = cell.initialize_carry(jax.random.key(0), (B, K))
    assert not carry.h.any()
    (moved, y), variables = cell.init_with_output(jax.random.key(1), carry, xs[:, 0])
    params = unnest(own, variables["params"])
    jax.tree.map(
        np.testing.assert_array_equal, (moved, y), own.step(params, carry, xs[:, 0])
    )
    set_to_one = params._replace(state=jax.tree.map(jnp.ones_like, params.state))
    variables = {"params": nest(own, set_to_one)}
    begun = cell.bind(variables).initialize_carry(jax.random.key(0), (B, K))
    assert (begun.h == 1).all()
    whole = {"params": {"cell": variables["params"]}}
    expected = RNN(own).apply(whole, xs)
    assert_close(nn.RNN(cell).apply(whole, xs), expected, 1e-6)


@slow
def test_lifted_transformations_make_an_ensemble():
    kinds = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    many = nn.vmap(RNN, in_axes=None, axis_size=3, **kinds)
    model, xs = (
        many(jrnn.gru(K, H), param_dtype=jnp.bfloat16),
        inputs(dtype=jnp.bfloat16),
    )
    ys, variables = model.init_with_output(jax.random.key(0), xs)
    assert ys.shape == (3, B, T, H)
    assert (ys[0] != ys[1]).any()
    assert variables["params"]["cell"]["W_x"].shape == (3, K, 3 * H)
    assert variables["params"]["cell"]["W_x"].dtype == jnp.bfloat16


@slow
def test_a_stack_names_its_layers():
    cells = jrnn.lstm(K, H), jrnn.gru(H, H)
    deep, xs = Stack(cells, return_carry=True), inputs(dtype=jnp.float32)
    variables = deep.init(jax.random.key(0), xs)
    assert set(variables["params"]) == {"layers_0", "layers_1"}
    names = ("layers_0", "layers_1")
    held = [variables["params"][name]["cell"] for name in names]
    params = tuple(map(unnest, cells, held))
    resets = jnp.zeros((B, T), bool).at[0, 2].set(True)
    state, ys = jrnn.unroll(
        jrnn.stack(*cells), params, jnp.swapaxes(xs, 0, 1), resets=resets.T
    )
    got = deep.apply(variables, xs, resets=resets)
    jax.tree.map(np.testing.assert_array_equal, got, (state, jnp.swapaxes(ys, 0, 1)))


WRONG = {
    "no cell": (lambda: RNN(jrnn.gru), "Expected a Cell"),
    "Flax's": (lambda: RNN(nn.GRUCell(4)), "GRUCell of Flax.*as_cell"),
    "dtype": (lambda: RNNCell(jrnn.gru(3, 4), int), "floating param_dtype"),
    "two dtypes": (
        lambda: RNN(RNNCell(jrnn.gru(3, 4)), param_dtype=jnp.bfloat16),
        "param_dtype=None beside an RNNCell",
    ),
    "noise": (
        lambda: RNNCell(jrnn.dropout(jrnn.gru(K, H), 0.5)).init(
            jax.random.key(0), None, inputs()
        ),
        "deterministic=True for one step of dropout",
    ),
    "key": (
        lambda: RNN(jrnn.gru(K, H)).init(
            jax.random.key(0), inputs(), init_key=jax.random.key(1)
        ),
        "init_key=None",
    ),
    "no layers": (lambda: Stack(()), "layers to be a tuple of at least one"),
    "a cell": (lambda: Stack(jrnn.gru(3, 4)), "layers to be a tuple .* got gru"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name):
    call, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words):
        call()
