"""Every transformation of JAX around `unroll`; programs do not grow with length."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest

import jrnn
from tests import hlo
from tests.helpers import assert_close, error, random_like

T, B, K, H = 6, 2, 3, 4
CELL = jrnn.lstm(K, H)
PARAMS = random_like(1, jax.eval_shape(CELL.init, jax.random.key(0)), 0.5)
PARAMS = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS)
XS = random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))
LENGTHS = jnp.array([6, 4])
RESETS = jnp.zeros((T, B), bool).at[3, 0].set(True)
METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(chunk=4),
    "remat": jrnn.bptt(remat=1),
    "newton": jrnn.newton(),
}


def loop(xs):
    """The oracle: a Python loop of `step`, with the same lengths and resets."""
    state = initial = CELL.init_state(PARAMS, (B,))
    total = 0.0

    def where(flags, new, old):
        over = lambda a, b: jnp.where(flags[:, None], a, b)
        return jax.tree.map(over, new, old)

    for t in range(T):
        state = where(RESETS[t] & (t < LENGTHS), initial, state)
        new, y = CELL.step(PARAMS, state, xs[t])
        state = where(t < LENGTHS, new, state)
        total += (jnp.where((t < LENGTHS)[:, None], y, 0) ** 3).sum()
    return total + (state.c**3).sum()


def loss(method, xs):
    last, ys = jrnn.unroll(
        CELL, PARAMS, xs, lengths=LENGTHS, resets=RESETS, method=METHODS[method]
    )
    return (ys**3).sum() + (last.c**3).sum()


REVERSE = {
    "grad": jax.grad,
    "hessian": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "jit of grad": lambda f: jax.jit(jax.grad(f)),
}
FORWARD = {
    "jvp": lambda f: lambda xs: jax.jvp(f, (xs,), (jnp.cos(xs),))[1],
    "jacfwd": jax.jacfwd,
    "jvp of grad": lambda f: lambda xs: jax.jvp(jax.grad(f), (xs,), (jnp.cos(xs),))[1],
}


@functools.cache
def expected(name):
    return jax.jit((REVERSE | FORWARD)[name](loop))(XS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", REVERSE)
def test_reverse_mode(name, method):
    if (name, method) == ("reverse over reverse", "newton"):
        with pytest.raises(ValueError, match="while_loop"):  # as its docstring says
            REVERSE[name](functools.partial(loss, method))(XS)
        return
    got = REVERSE[name](functools.partial(loss, method))(XS)
    assert_close(got, expected(name), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(name):
    got = FORWARD[name](functools.partial(loss, "scan"))(XS)
    assert_close(got, expected(name), 1e-9)
    if name != "jvp of grad":  # forward over reverse is what bptt can do
        with pytest.raises(TypeError, match="custom_vjp"):
            FORWARD[name](functools.partial(loss, "bptt"))(XS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_vmap_and_an_outer_scan(method):
    several = jnp.stack([XS, 2 * XS, -XS])
    one = functools.partial(loss, method)
    by_vmap = jax.vmap(jax.grad(one))(several)
    by_scan = jax.lax.scan(lambda _, xs: (None, jax.grad(one)(xs)), None, several)[1]
    outside = jax.grad(lambda many: jax.lax.map(one, many).sum())(several)
    by_loop = jnp.stack([jax.grad(loop)(xs) for xs in several])
    for got in (by_vmap, by_scan, outside):
        assert_close(got, by_loop, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_export(method):
    grad = jax.jit(jax.grad(functools.partial(loss, method)))
    exported = jax.export.export(grad, platforms=["cpu", "cuda", "tpu"])(XS)
    assert_close(exported.call(XS), expected("grad"), 1e-9)


def instructions(steps, method):
    """How many instructions the compiled gradient has."""
    cell = jrnn.lstm(32, 64)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((steps, 8, 32), "float32")
    run = lambda p, xs: (jrnn.unroll(cell, p, xs, method=method)[1] ** 2).sum()
    compiled = jax.jit(jax.grad(run, (0, 1))).lower(params, xs).compile()
    return hlo.instructions(compiled)


@pytest.mark.slow
@pytest.mark.parametrize("remat", [0, 1])
def test_the_program_does_not_grow_with_time(remat):
    # Short, but of several chunks and segments: XLA takes a loop of one round away.
    short = instructions(1024, jrnn.bptt(remat=remat))
    for steps in (4096, 4099):
        assert instructions(steps, jrnn.bptt(remat=remat)) <= 1.3 * short


def test_one_tangent_is_a_difference():
    step = 1e-6
    one = functools.partial(loss, "scan")
    tangent = FORWARD["jvp"](one)(XS)
    ahead, behind = (one(XS + sign * step * jnp.cos(XS)) for sign in (1, -1))
    assert error(tangent, (ahead - behind) / (2 * step)) < 1e-7
