"""The kernel of the linear recurrence, interpreted by JAX and lowered for GPU, TPU."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.kernels import linear
from tests.helpers import assert_close, random_like, shapes_of
from tests.methods.test_fused import CALLS, lowering_for

EXACT = 1e-12


def coefficients(dtype, T, shape, constant):
    a = random_like(1, jax.ShapeDtypeStruct((T, *shape), dtype), 0.5)
    a = a / (1 + jnp.abs(a)).astype(a.dtype)  # forgets, or 300 steps would overflow
    a = a[:1, :1] if constant else a
    b = random_like(2, jax.ShapeDtypeStruct((T, *shape), dtype))
    return a, b, random_like(3, b[0])


def differentiated(a, b, h0, **options):
    """Every h_t, and the gradients of all three."""

    def loss(a, b, h0):
        hs = jrnn.methods.linear_recurrence(a, b, h0, **options)
        return (hs * random_like(4, hs)).sum().real, hs

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(a, b, h0)


@pytest.fixture
def groups(monkeypatch):
    """Groups of 4 steps: those of 32 take XLA's CPU compiler half a minute."""
    monkeypatch.setitem(linear.GROUP, "cuda", 4)


def same(platform, dtype, T, shape, constant, chunk, tolerance=EXACT):
    given = coefficients(dtype, T, shape, constant)
    got = differentiated(*given, kernel=platform, interpret=True, chunk=chunk)
    assert_close(got, differentiated(*given, chunk=T), tolerance)


@pytest.mark.longer_but_the_first
@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_time_in_blocks_equals_the_loop(dtype):
    same("cuda", dtype, 20, (2, 5), False, 7)  # a group and three more, and 6 at last


@pytest.mark.longer
def test_a_constant_in_time_equals_the_loop():
    same("tpu", "float64", 20, (2, 3), True, 12)


@pytest.mark.slow
@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
    ("dtype", "constant"),
    [("float32", False), ("float64", True), ("complex128", False)],
)
def test_every_type_in_one_block_and_in_several(platform, dtype, constant):
    tolerance = EXACT if dtype in ("float64", "complex128") else 1e-5
    for T, shape, chunk in ((1, (1, 1), None), (300, (3, 50), None), (41, (2, 2), 7)):
        same(platform, dtype, T, shape, constant, chunk, tolerance)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lanes_decide_whether_time_is_cut(platform):
    target = linear.Target(platform)
    many, few = 12288 // 32, 4
    assert linear._length(target, None, 65536, many) in (65536, linear.BLOCK)
    cut = linear._length(target, None, 65536, few)
    assert cut == (1024 if platform == "cuda" else linear.BLOCK)  # 4 x 64 programs


def cells(make, platform, **flags):
    """Outputs and gradients by the kernel, and by the loop of `jrnn.scan`."""
    cell = make(3, 4)
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((6, 2, 3), "float64"))

    def run(method):
        def loss(params, xs):
            _, ys = jrnn.unroll(cell, params, xs, method=method, **flags)
            return (ys * random_like(3, ys)).sum(), ys

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)

    return run(jrnn.associative(kernel=platform, interpret=True)), run(jrnn.scan())


@pytest.mark.slow
@pytest.mark.usefixtures("groups")
def test_a_cell_with_flags_equals_the_scan():
    flags = {
        "lengths": jnp.array([6, 4]),
        "resets": jnp.zeros((6, 2), bool).at[2, 0].set(True),
    }
    assert_close(*cells(jrnn.cells.min_gru, "cuda", **flags), EXACT)


@pytest.mark.slow
@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("make", [jrnn.cells.min_lstm, jrnn.cells.lru])
def test_other_cells_equal_the_scan(make, platform):
    mask = jnp.ones((6, 2), bool).at[3, 1].set(False)
    assert_close(*cells(make, platform, mask=mask, reverse=True), EXACT)


@pytest.mark.usefixtures("groups")
def test_what_came_before_a_restart_is_cut_off():
    # 0 times NaN is NaN, as in the loop; where a segment begins it is not handed on.
    a = jnp.array([[0.5], [0.0], [0.5]])
    b = jnp.array([[jnp.nan], [1.0], [1.0]])
    run = lambda severs: linear.walk(
        linear.Target("cuda", True), None, severs, False, a, b, jnp.zeros(1)
    )[1][:, 0]
    assert np.isnan(run(False)[1:]).all()
    assert run(True)[1:].tolist() == [1.0, 1.5]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_lowers_from_a_machine_without_an_accelerator(platform, dtype):
    T, shape = 65536, (8, 1536)
    given = [jax.ShapeDtypeStruct((T, *shape), dtype)] * 2
    loss = lambda a, b: jrnn.methods.linear_recurrence(a, b, kernel=platform).real.sum()
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(CALLS[platform])]
    export = jax.export.export(
        jax.jit(jax.grad(loss, (0, 1))), platforms=[platform], disabled_checks=unchecked
    )
    with lowering_for(platform):
        text = export(*given).mlir_module()
    # Time is not cut at this size: one launch forwards, one backwards.
    assert len(re.findall(rf"@{re.escape(CALLS[platform])}\(", text)) == 2


def test_mistakes_are_told():
    a, b, h0 = coefficients("float64", 4, (2, 3), False)
    run = jrnn.methods.linear_recurrence
    with pytest.raises(ValueError, match='"cuda" or "tpu"'):
        run(a, b, h0, kernel="cpu")
    with pytest.raises(ValueError, match="numbers of 32 bits"):
        run(a, b, h0, kernel="cuda")
    with pytest.raises(ValueError, match="a kernel to interpret"):
        run(a, b, h0, interpret=True)
    full = jnp.broadcast_to(jnp.eye(3), (4, 2, 3, 3))
    with pytest.raises(ValueError, match="not matrices"):
        run(full, b, h0, full=True, kernel="cuda", interpret=True)
    with pytest.raises(ValueError, match="a kernel to interpret"):
        jrnn.associative(interpret=True)
    slope = lambda a: jax.grad(lambda a: cubed(a, b, h0))(a).sum()
    with pytest.raises(ValueError, match="first derivatives of a linear recurrence"):
        jax.grad(slope)(a)


def cubed(a, b, h0):
    return (
        jrnn.methods.linear_recurrence(a, b, h0, kernel="cuda", interpret=True) ** 3
    ).sum()
