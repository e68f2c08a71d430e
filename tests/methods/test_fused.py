"""Kernels for gated cells, interpreted by JAX, and lowered for GPUs and TPUs."""

import contextlib
import re
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback, pallas
from jax.experimental.pallas import triton

import jrnn
from jrnn.kernels import _exchange, _pallas, _plan, _shared
from jrnn.kernels._pallas import Target, find_target
from tests.helpers import (
    TOLERANCE,
    assert_close,
    paired,
    random_like,
    shapes_of,
    state_shapes,
)
from tests.programs import count, equations

CELLS = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm}
K = 3
EXACT = 1e-12
# What a launch is lowered to; neither is promised to mean the same in another jax.
CALLS = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}
DEPRECATED = (0, 11)  # since this jax Triton warns, and wants a GPU named


@contextlib.contextmanager
def lowering_for(platform):
    """Names a GPU and awaits the warning, as newer versions of jax lower for Triton."""
    if platform != "cuda" or jax.__version_info__ < DEPRECATED:
        yield
        return
    gpu = jax.sharding.AbstractDevice("NVIDIA H100", None, "gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=gpu)
    warned = pytest.warns(DeprecationWarning, match="Pallas Triton backend is depre")
    with jax.sharding.use_abstract_mesh(mesh), warned:
        yield


class Problem(NamedTuple):
    """A cell and the numbers that it is run on; the flags are T, B = 5, 3 at least."""

    cell: jrnn.Cell
    params: Any
    xs: jax.Array
    state: Any
    flags: dict


def problem(cell, dtype="float64", T=5, B=3, flags=True) -> Problem:
    params = random_like(1, shapes_of(cell.init, dtype), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, K), dtype))
    state = random_like(3, state_shapes(cell, params, (B,)))
    given = {}
    if flags:
        resets = jnp.zeros((T, B), bool).at[2, 0].set(True).at[1, 1].set(True)
        given = {
            "lengths": jnp.full(B, T).at[1].set(T - 2).at[2].set(0),
            "resets": resets,
            "mask": jnp.ones((T, B), bool).at[1, 0].set(False),
        }
    return Problem(cell, params, xs, state, given)


def differentiated(given: Problem, method: jrnn.Method, **options) -> Any:
    """Final state and outputs, and the gradients of all that has one."""
    cell, *leaves, flags = given

    def loss(params, xs, state):
        last, ys = jrnn.unroll(
            cell, params, xs, state, method=method, **flags, **options
        )
        weights = random_like(4, ys)
        total = (ys * weights).sum().astype(jnp.float64)
        end = paired(last, random_like(5, last)).astype(jnp.float64)
        return total + end, (last, ys)

    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*leaves)


def same(given: Problem, platform: str, tolerance=EXACT, **options) -> None:
    """Compares a kernel, interpreted, with `jax.grad` of a scan."""
    method = jrnn.fused(platform=platform, interpret=True, precision="highest")
    expected = differentiated(given, jrnn.scan(precision="highest"), **options)
    assert_close(differentiated(given, method, **options), expected, tolerance)


@pytest.fixture
def small(monkeypatch):
    """Blocks so small that a few units and steps make several.

    jax.jit does not see that they changed: such tests take sizes that no others take.
    """
    monkeypatch.setattr(_plan, "RESIDENT", 0)
    monkeypatch.setattr(_pallas, "PROGRAMS", 0)
    monkeypatch.setattr(_plan, "TILE", 8)
    monkeypatch.setattr(_plan, "MOST_STEPS", 2)


@pytest.fixture
def shared(monkeypatch):
    """Programs of 2 units of an LSTM or GRU, and of 8 of an Elman network."""
    monkeypatch.setattr(_plan, "RESIDENT", 0)
    monkeypatch.setattr(_plan, "SHARED", (8,))


@pytest.mark.longer
def test_a_kernel_whose_matrix_stays_equals_the_scan():
    same(problem(jrnn.lstm(K, 5)), "cuda")


@pytest.mark.longer
@pytest.mark.usefixtures("small")
def test_a_kernel_whose_matrix_is_read_in_tiles_equals_the_scan():
    same(problem(jrnn.gru(K, 19)), "cuda")


@pytest.mark.longer
@pytest.mark.usefixtures("shared")
def test_a_kernel_whose_programs_share_the_matrix_equals_the_scan():
    same(problem(jrnn.elman(K, 13)), "cuda")


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("make", "size", "B", "dtype", "flags"),
    [
        (jrnn.lstm, 9, 3, "float64", True),
        (jrnn.gru, 7, 18, "float64", False),
        (jrnn.gru, 8, 2, "float32", True),
        (jrnn.lstm, 15, 2, "bfloat16", False),
        (jrnn.cells.antisymmetric_rnn, 17, 2, "float64", True),
        (jrnn.gru, 10, 18, "float64", True),  # two blocks of rows
    ],
)
def test_every_cell_and_type_with_a_shared_matrix(make, size, B, dtype, flags):
    exact = {"float64": EXACT, "float32": 1e-5, "bfloat16": TOLERANCE["bfloat16"]}
    given = problem(make(K, size), dtype, B=B, flags=flags)
    same(given, "cuda", exact[dtype], reverse=flags)


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("T", [1, 2, 5])
def test_a_first_state_that_is_learned_and_resets_at_both_ends(T):
    # Only here is the gradient of what restarts put in the state's place seen.
    cell = jrnn.wrappers.learned_initial_state(jrnn.gru(K, 6))
    given = problem(cell, T=T, flags=False)
    resets = jnp.zeros((T, 3), bool).at[0, 0].set(True).at[-1, 1].set(True)
    same(given._replace(flags={"resets": resets}), "cuda")


@pytest.mark.usefixtures("shared")
def test_nobody_waits_for_a_nan(monkeypatch):
    monkeypatch.setattr(_exchange, "PATIENCE", 100)
    # The bits by which a kernel knows that nothing has arrived are those of one NaN.
    given = problem(jrnn.elman(K, 11), T=3, B=2, flags=False)
    nothing = jax.lax.bitcast_convert_type(jnp.int64(-1), jnp.float64)
    state = given.state._replace(h=given.state.h.at[0, 3].set(nothing))
    run = lambda state: jrnn.unroll(
        given.cell, given.params, given.xs, state, method=jrnn.fused(interpret=True)
    )[1]
    ys = run(state)
    assert jnp.isnan(ys[:, 0]).all()
    assert_close(ys[:, 1], run(given.state)[:, 1], EXACT)


def test_what_does_not_arrive_is_waited_for_and_given_up_for_good(monkeypatch):
    asked = []

    def read(place):
        jax.debug.callback(lambda: asked.append(1))
        return place

    monkeypatch.setattr(_exchange, "volatile", read)
    place = jnp.array([7, -1], "int32")
    wait = jax.jit(_exchange.arrived, static_argnums=1)
    for patience, times in ((jnp.int32(5), 5), (jnp.int32(1), 1)):
        asked.clear()
        values, left = wait([place], lambda bits: bits == -1, patience)
        jax.effects_barrier()
        assert len(asked) == times
        assert values[0].tolist() == [-1, -1]  # NaN, all of it
        assert left == 1
    values, left = wait([place], lambda bits: bits == 0, jnp.int32(5))
    assert values[0].tolist() == [7, -1]
    assert left == 5
    values, left = wait([place], lambda bits: bits == 0, left * 0 + 1)
    assert values[0].tolist() == [-1, -1]  # also where it comes after all


@pytest.mark.longer
@pytest.mark.usefixtures("shared")
def test_what_comes_late_is_what_is_taken(monkeypatch):
    # Interpreted, all has come before it is asked for: here every second answer is
    # that of a slot which nobody has written yet, or not for this turn.
    load, asked = _exchange.volatile, []

    def late(place):
        def absent():
            asked.append(1)
            return np.bool_(len(asked) % 2)

        bits = load(place)
        nothing = -1 if place.shape == (16, 16) else (bits ^ 1) ^ (37 << 40)
        like = jax.ShapeDtypeStruct((), bool)
        return jnp.where(io_callback(absent, like), nothing, bits)

    monkeypatch.setattr(_exchange, "volatile", late)
    same(problem(jrnn.elman(K, 14), T=6), "cuda")
    assert len(asked) > 2 * (6 + 7)


@pytest.mark.longer
@pytest.mark.usefixtures("shared")
def test_how_what_is_exchanged_begins_and_is_read(monkeypatch):
    begun, launch = {}, _shared.launch

    def watch(how, body, inputs, *rest, **options):
        jax.debug.callback(lambda **found: begun.update(found), **inputs["exchange"])
        return launch(how, body, inputs, *rest, **options)

    monkeypatch.setattr(_shared, "launch", watch)
    # What jax 0.7 calls pallas.load.
    module = triton if hasattr(triton, "load") else pallas
    load, volatile = module.load, []

    def recorded(*places, **options):
        volatile.append(options.get("volatile", False))
        return load(*places, **options)

    monkeypatch.setattr(module, "load", recorded)
    given = problem(jrnn.lstm(K, 12), T=4)
    method = jrnn.fused(interpret=True)

    run = lambda xs: differentiated(given._replace(xs=xs), method)
    jax.block_until_ready(jax.jit(run)(given.xs))
    jax.effects_barrier()
    found = {name: np.asarray(value) for name, value in begun.items()}
    assert (found["seen"][0] != -1).all()
    assert (found["seen"][1:] == -1).all()
    assert ((found["parts"][0] & 1) == 0).all()
    assert ((found["parts"][1] & 1) == 1).all()
    assert not (found["parts"][0] >> 1).any()
    # A GPU's program must not find these in its own cache.
    # Along, back, and after the last step; JAX may trace the body of a loop twice.
    assert len(volatile) >= 3
    assert all(volatile)


@pytest.mark.parametrize(
    ("H", "B", "dtype", "programs", "rows"),
    [
        (64, 16, "float32", 1, 16),  # it stays in one program
        (128, 16, "float32", 8, 16),
        (256, 256, "float32", 16, 64),  # 64 programs, where 16 rows would take 256
        (300, 16, "float32", 20, 16),
        (512, 16, "float32", 32, 16),
        (768, 16, "float32", 96, 16),  # 32 columns each, for want of room
        (1024, 16, "float32", 1, 16),  # too many programs: it is read at each step
        (768, 16, "bfloat16", 48, 16),
        (768, 256, "bfloat16", 48, 16),  # in turn: registers hold no more rows
    ],
)
def test_how_many_programs_share_the_matrix(H, B, dtype, programs, rows):
    cell = jrnn.lstm(K, H)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype))
    state = jax.eval_shape(lambda params: cell.init_state(params, (B,)), params)
    plan = _plan.make_plan(cell.gated, Target("cuda"), 9, params.W_h, state)
    assert (plan.programs, plan.block[1]) == (programs, rows)


@pytest.mark.longer
@pytest.mark.usefixtures("small")
def test_a_kernel_that_goes_block_by_block_equals_the_scan():
    same(problem(jrnn.gru(K, 18)), "tpu")


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
    ("make", "size", "B", "flags", "reverse"),
    [
        (jrnn.elman, 16, 3, False, True),
        (jrnn.gru, 20, 17, True, False),
        (jrnn.lstm, 70, 3, True, True),
    ],
)
def test_every_size_and_flag(platform, make, size, B, flags, reverse):
    same(problem(make(K, size), B=B, flags=flags), platform, reverse=reverse)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("make", [jrnn.elman, jrnn.lstm])
def test_other_cells_in_small_blocks(platform, make):
    same(problem(make(K, 17), B=18, flags=make is jrnn.lstm), platform)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "platform"),
    [
        ("elman", "float32", "cuda"),
        ("gru", "float32", "tpu"),
        ("lstm", "float32", "cuda"),
        ("elman", "bfloat16", "tpu"),
        ("gru", "bfloat16", "cuda"),
        ("lstm", "bfloat16", "tpu"),
    ],
)
def test_every_type(name, dtype, platform):
    tolerance = 1e-5 if dtype == "float32" else TOLERANCE[dtype]
    same(problem(CELLS[name](K, 20), dtype), platform, tolerance)


def test_bfloat16_is_accumulated_in_float32():
    # Read off the trace: on a CPU, XLA may keep more bits than it was asked for.
    method = jrnn.fused(platform="cuda", interpret=True)
    given = problem(jrnn.gru(K, 4), "bfloat16", T=2)
    run = lambda xs: differentiated(given._replace(xs=xs), method)
    products = [
        eqn
        for eqn, _ in equations(jax.make_jaxpr(run)(given.xs))
        if eqn.primitive.name == "dot_general"
    ]
    sums = [eqn.outvars[0].aval.dtype.name for eqn in products]
    assert sums == ["float32"] * 10  # one for each gate each way, and four outside


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_what_is_padded_reaches_nobody(platform):
    # 1 / 0 in the units of padding; infinity times the zeros around it is NaN.
    cell = jrnn.elman(K, 5, activation=jax.lax.reciprocal)
    same(problem(cell, T=4, flags=False), platform)


@pytest.mark.longer
def test_axes_of_the_batch_and_none():
    cell = jrnn.lstm(K, 4)
    given = problem(cell, T=4, B=6, flags=False)
    method = jrnn.fused(platform="cuda", interpret=True)
    run = lambda xs, state: jrnn.unroll(cell, given.params, xs, state, method=method)
    last, ys = run(given.xs, given.state)
    deep = lambda leaf, lead: leaf.reshape(*lead, 2, 3, leaf.shape[-1])
    got = run(deep(given.xs, (4,)), jax.tree.map(lambda a: deep(a, ()), given.state))
    assert_close(got[1], deep(ys, (4,)), EXACT)
    one = run(given.xs[:, 5], jax.tree.map(lambda leaf: leaf[5], given.state))
    assert_close(one, (jax.tree.map(lambda leaf: leaf[5], last), ys[:, 5]), EXACT)


def by_vmap(given: Problem, method: jrnn.Method, params_too: bool) -> Any:
    """Gradients for two sequences, and if asked two sets of parameters, by `vmap`."""
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), given.params)
    xs = jnp.stack([given.xs, -given.xs])

    def one(params, xs):
        return differentiated(given._replace(params=params, xs=xs), method)

    if params_too:
        return jax.vmap(one)(params, xs)
    return jax.vmap(one, (None, 0))(given.params, xs)


@pytest.mark.slow
@pytest.mark.parametrize("params_too", [False, True])
@pytest.mark.parametrize("blocks", ["small", "shared"])
def test_vmap(blocks, params_too, request):
    request.getfixturevalue(blocks)
    given = problem(jrnn.gru(K, 19 if blocks == "small" else 10))
    method = jrnn.fused(platform="cuda", interpret=True, precision="highest")
    expected = by_vmap(given, jrnn.scan(precision="highest"), params_too)
    assert_close(by_vmap(given, method, params_too), expected, EXACT)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_vmap_for_a_tpu():
    given = problem(jrnn.gru(K, 19))
    method = jrnn.fused(platform="tpu", interpret=True, precision="highest")
    expected = by_vmap(given, jrnn.scan(precision="highest"), True)
    assert_close(by_vmap(given, method, True), expected, EXACT)


def test_vmap_adds_rows_to_one_launch():
    cell = jrnn.lstm(K, 4)
    given = problem(cell, T=3, B=2, flags=False)
    method = jrnn.fused(platform="cuda", interpret=True)
    run = lambda xs: jrnn.unroll(cell, given.params, xs, method=method)[1]
    several = jnp.stack([given.xs, -given.xs, 2 * given.xs])
    assert_close(jax.vmap(run)(several)[2], run(2 * given.xs), EXACT)
    program = jax.make_jaxpr(jax.vmap(run))(several)
    assert count(program, "pallas_call") == 1
    shapes = {
        (var.aval.shape, var.aval.dtype.name)
        for eqn, _ in equations(program)
        for var in eqn.outvars
    }
    assert ((3, 6, 16), "float64") in shapes


def lowered(cell, dtype, platform, T=300, B=3) -> str:
    """Outputs and gradients, lowered for a machine that is not here."""
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype))
    state = jax.eval_shape(lambda params: cell.init_state(params, (B,)), params)
    flags = {
        "lengths": jax.ShapeDtypeStruct((B,), "int32"),
        "resets": jax.ShapeDtypeStruct((T, B), "bool"),
        "mask": jax.ShapeDtypeStruct((T, B), "bool"),
    }
    xs = jax.ShapeDtypeStruct((T, B, K), dtype)
    run = lambda *given: differentiated(
        Problem(cell, *given), jrnn.fused(platform=platform)
    )
    unchecked = list(map(jax.export.DisabledSafetyCheck.custom_call, CALLS.values()))
    export = jax.export.export(
        jax.jit(run), platforms=[platform], disabled_checks=unchecked
    )
    with lowering_for(platform):
        return export(params, xs, state, flags).mlir_module()


def launches(text, platform):
    return len(re.findall(rf"custom_call @{re.escape(CALLS[platform])}\(", text))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_one_launch_each_way_lowers_where_there_is_no_accelerator(platform):
    text = lowered(jrnn.lstm(K, 40), "bfloat16", platform)
    assert launches(text, platform) == 2
    assert "stablehlo.while" not in text  # no loop besides


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_cell_lowers(platform, name, dtype):
    for size in (17, 128, 256, 512, 768):
        text = lowered(CELLS[name](K, size), dtype, platform, B=16)
        assert launches(text, platform) == 2


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.sigmoid, jnp.sin])
def test_every_activation_lowers(platform, activation):
    cell = jrnn.elman(K, 32, activation=activation)
    assert launches(lowered(cell, "float32", platform), platform) == 2


def test_a_backend_without_a_kernel_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "metal")
    with pytest.raises(ValueError, match=r"got the backend 'metal'.*jrnn\.bptt\(\)"):
        find_target(None, False)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (jrnn.cells.co_rnn(K, 4), "one product with its state"),
        (jrnn.gru(K, 4, reset_after=False), "one product with its state"),
        (jrnn.lstm(K, 4, projection_size=2), "one product with its state"),
    ],
)
def test_other_cells_are_refused(cell, words):
    with pytest.raises(ValueError, match=rf"{words}.*run it with jrnn\.bptt"):
        differentiated(problem(cell), jrnn.fused(interpret=True))


@pytest.mark.parametrize(
    ("size", "dtype", "platform", "words"),
    [
        (4, "float64", "cuda", "at most 32 bits"),
        (2048, "float32", "tpu", "stays in a TPU's vector memory"),
    ],
)
def test_what_no_machine_can_do_is_refused(size, dtype, platform, words):
    cell = jrnn.gru(K, size)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype))
    xs = jax.ShapeDtypeStruct((4, 2, K), dtype)
    run = lambda params, xs: jrnn.unroll(
        cell, params, xs, method=jrnn.fused(platform=platform)
    )
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(run, params, xs)


def test_options_are_checked():
    with pytest.raises(ValueError, match='"cpu", "cuda" or "tpu"'):
        jrnn.fused(platform="metal")
    with pytest.raises(ValueError, match="precision"):
        jrnn.fused(precision="exact")


def test_second_derivatives_are_refused():
    cell = jrnn.elman(K, 4)
    given = problem(cell, T=2, flags=False)
    method = jrnn.fused(interpret=True)

    def slope(W_h):
        params = given.params._replace(W_h=W_h)
        loss = lambda p: jrnn.unroll(cell, p, given.xs, method=method)[1].sum()
        return jax.grad(loss)(params).W_h.sum()

    with pytest.raises(ValueError, match=r"first derivatives.*jrnn\.bptt\(\)"):
        jax.grad(slope)(given.params.W_h)
