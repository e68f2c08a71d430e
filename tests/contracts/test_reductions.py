"""Sums and means of narrow types accumulate in float32 or wider; steps are integers.

Sizes are chosen so that float16 overflows, sums in bfloat16 stop growing (at 256) and
uint8 wraps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from jrnn import train

NARROW = ("bfloat16", "float16")


def _key():
    """A key that nothing has used: reuse is an error."""
    return jax.random.key(0)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("dtype", [*NARROW, "float32", "float64"])
@pytest.mark.parametrize("per_sequence", [False, True])
def test_means_over_steps_of_narrow_floats(dtype, per_sequence):
    wide = jnp.float64 if dtype == "float64" else jnp.float32
    mean = lambda a, n=None: jrnn.models.mean_over_steps(
        a, n, per_sequence=per_sequence
    )
    for value, shape in ((10.5, (100, 64)), (1.0, (512, 256))):
        found = mean(jnp.full(shape, value, dtype))
        assert found == value
        assert found.dtype == wide
    assert mean(jnp.ones((70_000, 1), dtype), jnp.array([66_000])) == 1
    ones = jnp.full((512, 256), 0.5, dtype)
    bits = jrnn.models.bits_per_symbol(-ones)
    assert bits.dtype == wide
    assert abs(float(bits) - 0.5 / np.log(2)) < 1e-6


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "uint32"])
def test_means_over_steps_of_hits(dtype):
    hits = jnp.arange(625).reshape(25, 25) % 5 > 0
    assert jnp.allclose(jrnn.models.mean_over_steps(hits.astype(dtype)), 0.8)
    lengths = jnp.full(25, 20, jnp.uint8)
    per_sequence = jrnn.models.mean_over_steps(
        hits.astype(dtype), lengths, per_sequence=True
    )
    assert jnp.allclose(per_sequence, 0.8)
    assert per_sequence.dtype == jnp.float32


def test_gradients_of_means_keep_the_type_of_the_values():
    values = jnp.ones((512, 256), jnp.bfloat16)
    gradient = jax.grad(jrnn.models.mean_over_steps)(values)
    assert gradient.dtype == jnp.bfloat16
    assert (gradient == 2.0**-17).all()


@pytest.mark.parametrize("dtype", NARROW)
def test_pools_sum_in_float32(dtype):
    ys = jnp.full((70_000, 1, 2), 3.0, dtype)
    found = jrnn.models.mean_pool(ys, jnp.ones((70_000, 1), bool))
    assert found.dtype == dtype
    assert (found == 3).all()


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("dtype", NARROW)
def test_the_norm_of_a_narrow_gradient_is_float32(dtype):
    """4,096 squares of 16 overflow float16, and leave bfloat16 at 256 terms."""
    params = {"a": jnp.zeros(4096, dtype), "b": jnp.zeros(3, jnp.float32)}
    loss = lambda params, batch, carry, key: (
        16 * params["a"].astype(jnp.float32).sum() + params["b"].sum(),
        (carry, {}),
    )
    sgd = optax.sgd(0.0)
    step = train.make_train_step(loss, sgd)
    _, metrics = step(train.init_train_state(params, sgd, _key()), None)
    assert metrics["gradient_norm"].dtype == jnp.float32
    assert jnp.allclose(metrics["gradient_norm"], np.sqrt(4096 * 256 + 3))


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("method", [jrnn.bptt(), jrnn.scan()], ids=["bptt", "scan"])
@pytest.mark.parametrize("dtype", NARROW)
def test_rows_of_equal_ids_are_summed_in_float32(dtype, method):
    """The gradient of a table that is looked up is a sum over time and batch."""
    cell = jrnn.elman(3, 2, activation=jrnn.activations.linear)
    params = jax.tree.map(jnp.zeros_like, cell.init(_key(), dtype))

    def loss(params):
        return jrnn.unroll(cell, params, jnp.ones((40, 50), int), method=method)[1].sum(
            dtype=jnp.float32
        )

    gradient = jax.grad(loss)(params)
    assert gradient.W_x.dtype == dtype
    assert gradient.W_x.tolist() == [[0, 0], [2000, 2000], [0, 0]]
    assert gradient.b.tolist() == [2000, 2000]


@pytest.mark.longer
def test_the_start_vector_sums_over_the_batch_in_float32():
    head = jrnn.categorical(3)
    cell = jrnn.elman(3, 2, activation=jrnn.activations.linear)
    model = jrnn.sequence_model(cell, head)
    params = jax.tree.map(jnp.zeros_like, model.init(_key(), jnp.bfloat16))
    params = params._replace(
        cell=params.cell._replace(W_x=jnp.ones_like(params.cell.W_x)),
        head=params.head._replace(W_y=params.head.W_y.at[:, 0].set(1)),
    )
    size = 3000

    def loss(params):
        return model.log_prob(params, jnp.zeros((1, size), int))[1].sum()

    one = jax.grad(lambda p: model.log_prob(p, jnp.zeros((1, 1), int))[1].sum())
    expected = one(params).start.astype(jnp.float32) * size
    found = jax.grad(loss)(params).start.astype(jnp.float32)
    assert (expected != 0).all()
    assert jnp.allclose(found, expected, rtol=0.02)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("dtype", NARROW)
def test_moments_of_narrow_distributions_are_float32(dtype):
    """What `predict` gives is float32; what a user makes by hand may be narrower."""
    levels = 64
    kernel = jrnn.heads.discretised_logistic(0.0, 1.0, levels)
    head = jrnn.heads.mixture(300, kernel)
    predicted = head.predict(head.init(_key(), 2), jnp.ones((3, 2), jnp.float32))
    narrow = jax.tree.map(lambda a: a.astype(dtype), predicted)
    widened = jax.tree.map(lambda a: a.astype(jnp.float32), narrow)
    for moment in (jrnn.heads.Distribution.mean, jrnn.heads.Distribution.variance):
        assert moment(narrow).dtype == jnp.float32
        assert (moment(narrow) == moment(widened)).all()
    loc, scale = jnp.zeros(3, dtype), jnp.full(3, 0.5, dtype)
    assert jnp.allclose(kernel.mean(loc, scale), (levels - 1) / 2)
    assert jnp.isfinite(kernel.variance(loc, scale)).all()
