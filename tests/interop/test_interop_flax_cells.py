"""Cells of Flax as cells of jrnn: every way of running them gives Flax's numbers."""

import pickle
from typing import Any

import jax
import jax.export  # older jax does not import it
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jrnn
from jrnn.interop.flax import linen as jlinen
from jrnn.interop.flax import nnx as jnnx
from jrnn.interop.flax._adopting import FlaxState
from tests.helpers import assert_close, random_like, shapes_of

pytestmark = pytest.mark.usefixtures("standard_promotion")

slow = pytest.mark.slow
K, H, B, T = 3, 4, 2, 5
F64 = (("dtype", jnp.float64), ("param_dtype", jnp.float64))
LENGTHS = jnp.array([5, 3])


def inputs(seed=0, shape=(B, T, K), dtype=jnp.float64):
    return random_like(seed, jax.ShapeDtypeStruct(shape, dtype))


class Windowed(nn.RNNCellBase):
    """A cell whose output is no part of its carry, which is a dictionary."""

    features: int
    param_dtype: Any = jnp.float64

    @nn.compact
    def __call__(self, carry, inputs):
        dense = nn.Dense(self.features, param_dtype=self.param_dtype)
        mean = 0.5 * carry["mean"] + dense(inputs)
        return {"mean": mean}, jnp.sin(mean) * carry["mean"]

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        del rng
        shape = (*input_shape[:-1], self.features)
        return {"mean": jnp.ones(shape, self.param_dtype)}

    @property
    def num_feature_axes(self):
        return 1


def of_nnx(kind):
    own = kind(K, H, **dict(F64), rngs=nnx.Rngs(0))
    nnx.update(own, random_like(7, nnx.state(own, nnx.Param), 0.5))
    cell = jnnx.as_cell(kind, K, H, **dict(F64))
    return cell, jnnx.params_of(own), nnx.RNN(own)


def of_linen(module):
    cell = jlinen.as_cell(module, K)
    params = random_like(7, shapes_of(cell.init, None), 0.5)
    variables = {"params": {"cell": params}}
    run = lambda xs, **given: nn.RNN(module).apply(variables, xs, **given)
    return cell, params, run


CASES = {
    "nnx LSTMCell": lambda: of_nnx(nnx.LSTMCell),
    "nnx OptimizedLSTMCell": lambda: of_nnx(nnx.OptimizedLSTMCell),
    "nnx GRUCell": lambda: of_nnx(nnx.GRUCell),
    "nnx SimpleCell": lambda: of_nnx(nnx.SimpleCell),
    "linen OptimizedLSTMCell": lambda: of_linen(nn.OptimizedLSTMCell(H, **dict(F64))),
    "linen MGUCell": lambda: of_linen(nn.MGUCell(H, **dict(F64))),
    "linen output beside the carry": lambda: of_linen(Windowed(H)),
}
METHODS = {"bptt": jrnn.bptt(), "scan": jrnn.scan(), "newton": jrnn.newton()}


QUICK = "nnx GRUCell", "linen output beside the carry"
EACH = [pytest.param(n, marks=() if n in QUICK else slow) for n in CASES]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", EACH)
def test_numbers_equal_those_of_flax(name):
    cell, params, theirs = CASES[name]()
    xs = inputs()
    given = {"seq_lengths": LENGTHS, "return_carry": True}
    carry, ys = theirs(xs, **given)
    state, zs = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1), lengths=LENGTHS)
    valid = np.arange(T) < np.asarray(LENGTHS)[:, None]
    assert_close(np.asarray(zs).swapaxes(0, 1)[valid], np.asarray(ys)[valid], 1e-12)
    assert_close(getattr(state, "carry", state), carry, 1e-12)
    assert isinstance(state, FlaxState) == (name == "linen output beside the carry")


@slow
@pytest.mark.parametrize("name", QUICK)
def test_every_method_gives_the_same_gradient(name):
    cell, params, _ = CASES[name]()
    xs, w = inputs(shape=(T, B, K)), inputs(1, (T, B, H))
    resets = jnp.zeros((T, B), bool).at[2, 0].set(True)

    def loss(params, xs, method):
        _, ys = jrnn.unroll(
            cell, params, xs, lengths=LENGTHS, resets=resets, method=method
        )
        return (w * ys).sum()

    def stepped(params, xs):
        state, total = cell.init_state(params, (B,)), 0.0
        for t in range(T):
            fresh = cell.init_state(params, (B,))
            again = lambda a, b, t=t: jnp.where(resets[t][:, None], a, b)
            state = jax.tree.map(again, fresh, state)
            state, y = cell.step(params, state, xs[t])
            total += (w[t] * y * (t < LENGTHS)[:, None]).sum()
        return total

    expected = jax.grad(stepped, (0, 1))(params, xs)
    for method in METHODS.values():
        got = jax.grad(loss, (0, 1))(params, xs, method)
        assert_close(got, expected, 1e-10)


@slow
def test_they_stack_with_ours_in_both_directions():
    theirs = jnnx.as_cell(nnx.GRUCell, K, H, **dict(F64))
    both = jrnn.bidirectional(theirs, jrnn.gru(K, 2))
    deep = jrnn.stack(both, jrnn.dropout(jlinen.as_cell(nn.GRUCell(H), H + 2), 0.5))
    params = deep.init(jax.random.key(0), jnp.float64)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    xs, key = inputs(shape=(T, B, K)), jax.random.key(1)
    state, ys = jrnn.unroll(deep, params, xs, lengths=LENGTHS, key=key)
    assert ys.shape == (T, B, H)
    assert not ys[3:, 1].any()
    # A GRU of Flax is one of ours, with b_h = 0.
    own, held = jrnn.gru(K, H), params[0][0]
    like = jax.eval_shape(lambda: own.init(jax.random.key(0)))
    same = like._replace(
        W_x=held["dense_i"]["kernel"],
        W_h=held["dense_h"]["kernel"],
        b=held["dense_i"]["bias"],
        b_h=jnp.zeros(H),
    )
    expected = jrnn.unroll(own, same, xs, lengths=LENGTHS)
    got = jrnn.unroll(theirs, held, xs, lengths=LENGTHS)
    assert_close((got[0], got[1]), (expected[0].h, expected[1]), 1e-12)


@slow
def test_a_convolutional_cell_has_spatial_axes_of_the_batch():
    module = nn.ConvLSTMCell(2, (3, 3), param_dtype=jnp.float64)
    cell = jlinen.as_cell(module, K)
    params, xs = cell.init(jax.random.key(0)), inputs(shape=(B, T, 4, 3, K))
    carry, ys = nn.RNN(module).apply(
        {"params": {"cell": params}}, xs, return_carry=True
    )
    for method in (jrnn.scan(), jrnn.bptt()):
        state, zs = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1), method=method)
        assert_close((state, jnp.swapaxes(zs, 0, 1)), (carry, ys), 1e-12)


def test_equal_arguments_give_the_same_cell_which_pickles():
    cell = jnnx.as_cell(nnx.GRUCell, K, H)
    assert cell is jnnx.as_cell(nnx.GRUCell, K, H)
    assert cell is not jnnx.as_cell(nnx.GRUCell, K, H, param_dtype=jnp.float64)
    assert pickle.loads(pickle.dumps(cell)) is cell
    linen = jlinen.as_cell(nn.GRUCell(H), K)
    assert linen is jlinen.as_cell(nn.GRUCell(H), input_size=K)
    drawn = cell.init(jax.random.key(0)), cell.init(jax.random.key(1))
    kernels = [params["dense_h"]["kernel"] for params in drawn]
    assert (kernels[0] != kernels[1]).any()
    assert kernels[0].dtype == jnp.float32


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("interface", ["nnx", "linen"])
def test_a_file_cannot_hold_them_but_a_program_can(interface, tmp_path):
    own = {"nnx": lambda: jnnx.as_cell(nnx.SimpleCell, K, H)}
    own["linen"] = lambda: jlinen.as_cell(nn.SimpleCell(H), K)
    cell = own[interface]()
    params = random_like(7, jax.eval_shape(cell.init, jax.random.key(0)), 0.5)
    with pytest.raises(TypeError, match=r"as_cell made of a cell of Flax.*jrnn.export"):
        jrnn.save(tmp_path / "file", cell, params)
    jrnn.export(cell, params, tmp_path / "it", platforms=["cpu"])
    raw = (tmp_path / "it" / "unroll.jax").read_bytes()
    flat = dict(np.load(tmp_path / "it" / "params.npz"))
    start = np.load(tmp_path / "it" / "state.npz")
    state = {name: np.stack([start[name]] * B) for name in start.files}
    xs = inputs(shape=(T, B, K), dtype=jnp.float32)
    lengths = LENGTHS.astype(jnp.int32)
    found = jax.export.deserialize(bytearray(raw)).call(flat, state, xs, lengths)[1]
    assert_close(found, jrnn.unroll(cell, params, xs, lengths=lengths)[1], 1e-6)


class Noisy(nnx.GRUCell):
    def __init__(self, size, features, *, rngs):
        super().__init__(size, features, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, carry, inputs):
        return super().__call__(self.dropout(carry), inputs)


class Quiet(Noisy):
    """Holds random streams and draws from none of them."""

    def __call__(self, carry, inputs):
        return nnx.GRUCell.__call__(self, carry, inputs)


class Averaging(Noisy):
    def __init__(self, size, features, *, rngs):
        super().__init__(size, features, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)


@slow
def test_random_streams_may_lie_unused_in_a_cell():
    cell = jnnx.as_cell(nnx.GRUCell, K, H)
    quiet = jnnx.as_cell(Quiet, K, H)
    params = jax.tree.map(jnp.ones_like, jax.eval_shape(quiet.init, jax.random.key(0)))
    xs = inputs(shape=(T, K), dtype=jnp.float32)
    expected = jrnn.unroll(cell, {k: params[k] for k in ("dense_h", "dense_i")}, xs)
    jax.tree.map(
        np.testing.assert_array_equal, jrnn.unroll(quiet, params, xs), expected
    )


class NoisyLinen(Windowed):
    @nn.compact
    def __call__(self, carry, inputs):
        del inputs
        return carry, nn.Dropout(0.5, deterministic=False)(carry["mean"])


class Counting(Windowed):
    @nn.compact
    def __call__(self, carry, inputs):
        del inputs
        self.variable("counts", "steps", lambda: jnp.zeros(()))
        return carry, carry["mean"]


class Growing(Windowed):
    @nn.compact
    def __call__(self, carry, inputs):
        del inputs
        return carry | {"other": carry["mean"]}, carry["mean"]


WRONG = {
    "random": (lambda: jnnx.as_cell(Noisy, K, H), "Noisy to draw no random numbers"),
    "averages": (
        lambda: jnnx.as_cell(Averaging, K, H),
        "only variables of Averaging, got others too, norm.mean, norm.var",
    ),
    "no cell": (lambda: jnnx.as_cell(nnx.Linear, K, H), "a cell of Flax.*Linear"),
    "instance": (
        lambda: jnnx.as_cell(nnx.GRUCell(K, H, rngs=nnx.Rngs(0)), K),
        r"got a module GRUCell; pass the class .*params_of\(module\)",
    ),
    "no function": (lambda: jnnx.as_cell(3, K, H), "make to be a function"),
    "size": (lambda: jnnx.as_cell(nnx.GRUCell, 0, H), "input_size to be at least 1"),
    "array": (lambda: jnnx.as_cell(nnx.GRUCell, K, np.ones(2)), "hashable arguments"),
    "module": (lambda: jnnx.params_of(jrnn.gru(K, H)), "an nnx.Module, got gru"),
    "linen random": (lambda: jlinen.as_cell(NoisyLinen(H), K), "no random numbers"),
    "linen counts": (lambda: jlinen.as_cell(Counting(H), K), '"params".*got counts'),
    "linen grows": (lambda: jlinen.as_cell(Growing(H), K), "carry of Growing to keep"),
    "linen class": (
        lambda: jlinen.as_cell(nn.GRUCell, K),
        r"got the class GRUCell; pass an instance, such as GRUCell\(4\)",
    ),
    "linen no cell": (
        lambda: jlinen.as_cell(nn.Dense(H), K),
        "module to give a cell of Flax.*Dense",
    ),
    "ids": (
        lambda: jrnn.unroll(
            jnnx.as_cell(nnx.GRUCell, K, H),
            jnnx.params_of(nnx.GRUCell(K, H, rngs=nnx.Rngs(0))),
            jnp.array([1, 2]),
        ),
        "floating inputs to GRUCell",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name):
    call, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words):
        call()
