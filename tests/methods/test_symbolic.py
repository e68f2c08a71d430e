"""Sizes that are symbols of `jax.export`: one program for every length and batch."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest

import jrnn
from tests.helpers import assert_close, forwards_in_time, random_like
from tests.registry import CELLS

K, H = 3, 4
MIN_GRU = jrnn.cells.min_gru(K, H)
BOTH = jrnn.stack(
    jrnn.bidirectional(jrnn.gru(K, 2), MIN_GRU), jrnn.gru(6, H, reset_after=False)
)
LINEAR = jrnn.stack(MIN_GRU, jrnn.cells.rg_lru(H))
SERVED = {
    "scan": (BOTH, jrnn.scan(unroll=4)),
    "bptt": (jrnn.gru(K, H), jrnn.bptt()),
    "bptt of a tree": (BOTH, jrnn.bptt()),
    "bptt chunk": (jrnn.lstm(K, H), jrnn.bptt(chunk=3)),
    "bptt remat": (jrnn.lstm(K, H), jrnn.bptt(chunk=2, remat=1)),
    "bptt remat 2": (jrnn.elman(K, H), jrnn.bptt(chunk=1, remat=2)),
    "associative": (MIN_GRU, jrnn.associative(chunk=4)),
    "associative of a tree": (LINEAR, jrnn.associative()),
}
QUICK = {("bptt", False), ("associative", True)}


def run(cell, method, flagged, params, state, xs, lengths, resets):
    """The loss, and its gradients by parameters, state and inputs."""

    def loss(params, state, xs):
        flags = {"lengths": lengths, "resets": resets} if flagged else {}
        made = jrnn.unroll(cell, params, xs, state, method=method, **flags)
        return sum((jnp.abs(leaf) ** 2).sum() for leaf in jax.tree.leaves(made))

    return jax.value_and_grad(loss, (0, 1, 2))(params, state, xs)


def arguments(cell, steps, batch, dtype=jnp.float64):
    """Arguments of any sizes; placeholders if a size is a symbol."""
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype))
    state = jax.eval_shape(lambda p: cell.init_state(p, (batch,)), params)
    xs = jax.ShapeDtypeStruct((steps, batch, cell.spec.input_size), dtype)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    resets = jax.ShapeDtypeStruct((steps, batch), bool)
    if not isinstance(steps, int):
        return params, state, xs, lengths, resets
    params, state, xs = (random_like(i, t) for i, t in enumerate((params, state, xs)))
    lengths = jnp.minimum(jnp.arange(1, batch + 1) * 7 % (steps + 1), steps)
    resets = (jnp.arange(steps * batch) % 5 == 2).reshape(steps, batch)
    xs = forwards_in_time(cell, xs)
    return params, state, xs, lengths.astype(jnp.int32), resets


def exported(function, cell):
    steps, batch = jax.export.symbolic_shape("t, b")
    platforms = ["cpu", "cuda", "tpu"]
    export = jax.export.export(jax.jit(function), platforms=platforms)
    return export(*arguments(cell, steps, batch))


def each():
    for name in SERVED:
        for flagged in (False, True):
            marks = [] if (name, flagged) in QUICK else [pytest.mark.slow]
            yield pytest.param(name, flagged, marks=marks)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(("name", "flagged"), list(each()))
def test_one_program_serves_every_size(name, flagged):
    cell, method = SERVED[name]
    once = exported(functools.partial(run, cell, method, flagged), cell)
    truth = jax.jit(functools.partial(run, cell, jrnn.scan(), flagged))
    every = (1, 1), (16, 3), (37, 2)
    for steps, batch in ((18, 2),) if (name, flagged) in QUICK else every:
        given = arguments(cell, steps, batch)
        assert_close(once.call(*given), truth(*given), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("case", CELLS, ids=lambda case: case.name)
def test_every_cell(case):
    cell = case.make(K, K if "highway" in case.name else H)
    methods = [jrnn.bptt()] + [jrnn.associative()] * (cell.linear is not None)
    for method in methods:
        once = exported(functools.partial(run, cell, method, True), cell)
        given = arguments(cell, 21, 2)
        truth = jax.jit(functools.partial(run, cell, jrnn.scan(), True))(*given)
        assert_close(once.call(*given), truth, 1e-9)


def test_a_fixed_number_of_steps_with_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("b")
    cell = jrnn.gru(K, H)
    params, _, _, _, _ = arguments(cell, 1, 1)
    xs = jax.ShapeDtypeStruct((5, batch, K), jnp.float64)
    run = jax.jit(lambda params, xs: jrnn.unroll(cell, params, xs)[1])
    once = jax.export.export(run)(params, xs)
    xs = random_like(3, jax.ShapeDtypeStruct((5, 3, K), jnp.float64))
    assert_close(once.call(params, xs), run(params, xs), 1e-12)


REFUSED = {
    "newton": jrnn.newton(),
    "fused": jrnn.fused(interpret=True),
    "truncated": jrnn.truncated(3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_refuse_in_their_own_words(name):
    cell = jrnn.gru(K, H)
    run = lambda p, xs: jrnn.unroll(cell, p, xs, method=REFUSED[name])
    (steps,) = jax.export.symbolic_shape("t")
    params, _, _, _, _ = arguments(cell, 1, 1, jnp.float32)
    xs = jax.ShapeDtypeStruct((steps, 2, K), jnp.float32)
    words = rf"numbers for jrnn.{name}\(\), got the symbol t; take jrnn.bptt\(\)"
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(run, params, xs)
