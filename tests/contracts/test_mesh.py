"""On a mesh of devices: inside `shard_map`, and with sharded arrays."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jrnn
from tests.helpers import assert_close, random_like, shapes_of
from tests.hlo import bodies, computations

# Where jax 0.7.0 has it, and where it has been since.
set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
T, B, K, H = 11, 4, 3, 4
CELLS = {
    "lstm": jrnn.lstm(K, H),
    "min_gru": jrnn.cells.min_gru(K, H),
    "s5": jrnn.cells.s5(K, H),
    "exp_rnn": jrnn.cells.exp_rnn(K, H),
    "lstm projected": jrnn.lstm(K, H, projection_size=2),
    "deep": jrnn.stack(
        jrnn.bidirectional(jrnn.gru(K, H), jrnn.wrappers.zoneout(jrnn.lstm(K, H), 0.2)),
        jrnn.residual(
            jrnn.dropout(jrnn.wrappers.learned_initial_state(jrnn.elman(8, 8)), 0.3)
        ),
    ),
}
METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(),
    "checkpoints": jrnn.bptt(chunk=4, remat=1),
    "truncated": jrnn.truncated(5),
    "newton": jrnn.newton(chunk=4),
    "newton diagonal": jrnn.newton(diagonal=True),
    "associative": jrnn.associative(),
    "associative blocks": jrnn.associative(chunk=4),
    "fused": jrnn.fused(platform="cpu"),
}
NOT_LINEAR = {"newton", "newton diagonal", "fused"}  # left out for min_gru
LENGTHS = jnp.array([11, 3, 0, 7])
RESETS = jnp.zeros((T, B), bool).at[4, :2].set(True)
PLACES = {"xs": P(None, "d", None), "lengths": P("d"), "resets": P(None, "d")}


EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
CASES = [("lstm", "bptt", EXPLICIT, True)]
CASES += [("lstm", "bptt", AUTO, True), ("lstm", "bptt", EXPLICIT, False)]
CASES += [("lstm", "fused", EXPLICIT, True), ("lstm", "fused", EXPLICIT, False)]
SLOW = [
    *(("lstm", name, EXPLICIT, True) for name in METHODS if "associative" not in name),
    *(("min_gru", name, EXPLICIT, True) for name in METHODS if name not in NOT_LINEAR),
    *(("lstm", name, EXPLICIT, False) for name in ("checkpoints", "newton")),
    ("s5", "associative blocks", EXPLICIT, True),
    ("s5", "associative blocks", EXPLICIT, False),
    ("deep", "bptt", EXPLICIT, False),
    ("exp_rnn", "bptt", EXPLICIT, False),
    ("lstm projected", "bptt", EXPLICIT, False),
    ("deep", "newton", EXPLICIT, False),
]
CASES += [pytest.param(*c, marks=pytest.mark.slow) for c in SLOW if c not in CASES]


def loss(name, method, params, xs, lengths, resets):
    state, ys = jrnn.unroll(
        CELLS[name],
        params,
        xs,
        lengths=lengths,
        resets=resets,
        key=jax.random.key(3) if name == "deep" else None,
        method=METHODS[method],
    )
    total = sum((leaf.real**2).sum() for leaf in jax.tree.leaves(state))
    return (ys**2).sum() + total


def graded(function, params, given):
    grad = jax.jit(jax.value_and_grad(function, (0, 1)))
    return grad(params, given["xs"], given["lengths"], given["resets"])


def compare(name, method, kind, mapped, devices):
    """Value and gradients on a mesh, beside those of one device."""
    params = random_like(1, shapes_of(CELLS[name].init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))
    given = {"xs": xs, "lengths": LENGTHS, "resets": RESETS}

    def whole(params, xs, lengths, resets):
        return loss(name, method, params, xs, lengths, resets)

    def part(params, xs, lengths, resets):
        return jax.lax.psum(loss(name, method, params, xs, lengths, resets), "d")

    mesh = jax.make_mesh((devices,), ("d",), axis_types=(kind,))
    place = lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec))
    placed = {key: place(leaf, PLACES[key]) for key, leaf in given.items()}
    expected = graded(whole, params, given)
    specs = (P(), *PLACES.values())
    function = (
        jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=P())
        if mapped
        else whole
    )
    with set_mesh(mesh):
        replicated = jax.tree.map(lambda leaf: place(leaf, P()), params)
        got = graded(function, replicated, placed)
    assert_close(jax.device_get(got), jax.device_get(expected), 1e-11)


LOSSES = {  # of (final state, states, outputs): each leaves out much
    "outputs": lambda last, states, ys: (ys**2).sum(),
    "the final state": lambda last, states, ys: (last[0].real ** 2).sum(),
    "one array of all states": lambda last, states, ys: (states[-1].real ** 2).sum(),
}
UNREAD = [
    ("lstm", "bptt", "outputs"),
    *(
        pytest.param(cell, method, name, marks=pytest.mark.slow)
        for cell, method, name in (
            ("lstm", "bptt", "the final state"),
            ("lstm", "bptt", "one array of all states"),
            ("lstm", "checkpoints", "one array of all states"),
            ("lstm", "truncated", "outputs"),
            ("lstm", "newton", "outputs"),
            ("lstm", "fused", "the final state"),
            ("lstm", "fused", "one array of all states"),
            ("min_gru", "associative", "one array of all states"),
            ("min_gru", "associative blocks", "outputs"),
        )
    ),
]


@pytest.mark.longer
@pytest.mark.parametrize(("cell", "method", "name"), UNREAD)
def test_what_no_loss_reads_has_the_types_of_a_mesh(cell, method, name):
    # Zeros that nobody computed stand for it on the way back.
    cell, method = CELLS[cell], METHODS[method]
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))

    def loss(params, xs):
        last, ys = jrnn.unroll(cell, params, xs, method=method)
        states = jrnn.trajectory(cell, params, xs, method=method)
        return LOSSES[name](last, states, ys)

    both = jax.jit(jax.grad(loss, (0, 1)))
    expected = both(params, xs)
    mesh = jax.make_mesh((1,), ("d",), axis_types=(EXPLICIT,))
    split = P(None, "d", None)
    inside = jax.shard_map(
        both, mesh=mesh, in_specs=(P(), split), out_specs=(P(), split)
    )
    with set_mesh(mesh):
        placed = jax.device_put(xs, NamedSharding(mesh, split))
        assert_close(jax.device_get(both(params, placed)), expected, 1e-11)
        assert_close(jax.device_get(inside(params, placed)), expected, 1e-11)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(("name", "method", "kind", "mapped"), CASES)
def test_the_types_of_a_mesh_go_together(name, method, kind, mapped):
    # What varies over a mesh of one device is as much of a type as over many.
    compare(name, method, kind, mapped, 1)


TWO = """
import jax
jax.config.update("jax_enable_x64", True)
from tests.contracts import test_mesh
assert jax.device_count() == 2
PAIRS = ("lstm", "bptt"), ("lstm", "newton"), ("s5", "associative blocks")
PAIRS += (("lstm", "fused"),)
for name, method in PAIRS:
    for mapped in (True, False):
        test_mesh.compare(name, method, test_mesh.EXPLICIT, mapped, 2)
test_mesh.compare("exp_rnn", "bptt", test_mesh.EXPLICIT, True, 2)
for name in ("lstm", "exp_rnn", "lstm projected"):
    # One sum over devices, of all parameters, and none in a loop over time.
    assert test_mesh.sums_over_devices(name) == (1, 0), name
"""


def sums_over_devices(name):
    """Counts them in a training step inside `shard_map`: in all, and in loops."""
    cell = CELLS[name]
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AUTO,))

    def loss(params, xs):
        return jax.lax.pmean((jrnn.unroll(cell, params, xs)[1] ** 2).mean(), "d")

    split = P(None, "d", None)
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=(P(), split), out_specs=P())
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((512, B, K), jnp.float32)
    compiled = jax.jit(jax.grad(mapped)).lower(params, xs).compile()
    found = computations(compiled.as_text())
    sums = lambda text: len(re.findall(r" all-reduce(?:-start)?\(", text))
    return sum(map(sums, found.values())), sum(map(sums, bodies(found)))


@pytest.mark.slow
def test_two_devices_give_the_numbers_of_one():
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO]
    subprocess.run(command, check=True, env=environment, timeout=600)
