"""The merges of `bidirectional`, and outputs at inactive steps."""

import pickle

import jax
import jax.numpy as jnp
import pytest

import jrnn
from jrnn import wrappers
from tests.helpers import assert_close, random_like, shapes_of

T, B, K, H = 5, 3, 3, 3
GRU, LENGTHS = jrnn.gru(K, H), jnp.array([5, 2, 0])
MERGES = {
    "concat": (wrappers.concat_merge, lambda a, b: jnp.concatenate([a, b], -1)),
    "sum": (wrappers.sum_merge, lambda a, b: a + b),
    "mean": (wrappers.mean_merge, lambda a, b: (a + b) / 2),
    "product": (wrappers.product_merge, lambda a, b: a * b),
    "maximum": (jnp.maximum, lambda a, b: jnp.where(a > b, a, b)),
}


def gated(y_f, y_b):
    """A merge of one's own, with another size, that is not 0 where both are."""
    return jax.nn.sigmoid(y_f[..., :2]) * (1 + y_b[..., 1:])


def drawn(cell):
    params = random_like(1, shapes_of(cell.init), 0.5)
    return params, random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))


@pytest.fixture(scope="module")
def directions():
    """The outputs of each direction alone."""
    pair = drawn(jrnn.bidirectional(GRU, GRU))
    runs = [
        jrnn.unroll(GRU, pair[0][i], pair[1], lengths=LENGTHS, reverse=bool(i))[1]
        for i in range(2)
    ]
    return *pair, runs


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", MERGES)
def test_outputs_are_merged(directions, name):
    params, xs, (forward, backward) = directions
    merge, expected = MERGES[name]
    cell = jrnn.bidirectional(GRU, GRU, merge=merge)
    ys = jrnn.unroll(cell, params, xs, lengths=LENGTHS)[1]
    assert ys.shape[-1] == cell.spec.output_size
    assert_close(ys, expected(forward, backward), 1e-15)
    assert jrnn.bidirectional(GRU, GRU, merge) is cell
    assert pickle.loads(pickle.dumps(cell)) is cell
    assert f"merge={merge.__name__}" in repr(cell)


def test_concatenation_is_the_default():
    cell = jrnn.bidirectional(GRU, jrnn.lstm(K, 2), merge=wrappers.concat_merge)
    assert jrnn.bidirectional(GRU, jrnn.lstm(K, 2)) is cell
    assert jrnn.bidirectional(GRU, GRU, wrappers.sum_merge) != jrnn.bidirectional(
        GRU, GRU, wrappers.mean_merge
    )


def test_inactive_steps_show_zeros_whatever_a_merge_returns(directions):
    params, xs, runs = directions
    cell = jrnn.bidirectional(GRU, GRU, gated)
    assert cell.spec.output_size == 2
    ys = jrnn.unroll(cell, params, xs, lengths=LENGTHS)[1]
    active = (jnp.arange(T)[:, None] < LENGTHS[None])[..., None]
    assert_close(ys, jnp.where(active, gated(*runs), 0.0), 1e-15)
    # And so of a wrapper of one's own.
    plus = wrappers.around("plus", GRU, outputs=lambda y, x: y + 1 + x)
    mask = active[..., 0]
    shown = jrnn.unroll(plus, params[0], xs, mask=mask)[1]
    assert not jnp.where(active, 0.0, shown).any()
    assert_close(shown[0], jnp.where(active[0], runs[0][0] + 1 + xs[0], 0.0), 1e-15)


@pytest.mark.slow
def test_the_padding_changes_no_gradient():
    cell = jrnn.stack(jrnn.bidirectional(GRU, GRU, gated), jrnn.elman(2, 2))
    params, xs = drawn(cell)

    @jax.jit
    def slopes(xs):
        loss = lambda params, xs: jrnn.unroll(cell, params, xs, lengths=LENGTHS)[
            1
        ].sum()
        return jax.grad(loss, (0, 1))(params, xs)

    active = (jnp.arange(T)[:, None] < LENGTHS[None])[..., None]
    clean = slopes(jnp.where(active, xs, 0.0))
    assert_close(slopes(jnp.where(active, xs, jnp.nan)), clean, 0.0)


@pytest.mark.slow
def test_gradients_in_a_stack_by_hand_and_by_jax():
    merged = jrnn.bidirectional(GRU, GRU, wrappers.product_merge)
    cell = jrnn.stack(jrnn.residual(merged), jrnn.elman(H, 2))
    params, xs = drawn(cell)

    def slopes(method):
        loss = lambda p, xs: (jrnn.unroll(cell, p, xs, method=method)[1] ** 2).sum()
        return jax.jit(jax.grad(loss, (0, 1)))(params, xs)

    assert_close(slopes(jrnn.bptt()), slopes(jrnn.scan()), 1e-12)


@pytest.mark.parametrize(
    ("merge", "error", "words"),
    [
        (wrappers.sum_merge, ValueError, "sum_merge, which raised.*concat_merge takes"),
        (lambda y: y, ValueError, "merge to take floats of shape .*which raised"),
        (lambda a, b: (a, b), ValueError, "returned a tuple"),
        (lambda a, b: a.sum(), ValueError, r"returned float32 of shape \(\)"),
        (lambda a, b: a > 0, ValueError, "returned bool of shape"),
        (lambda a, b: a[0], ValueError, r"returned float32 of shape \(3, 3\)"),
        ("sum", TypeError, "merge to be a function"),
    ],
)
def test_what_is_no_merge_is_refused(merge, error, words):
    with pytest.raises(error, match=words):
        jrnn.bidirectional(GRU, jrnn.gru(K, 4), merge)
