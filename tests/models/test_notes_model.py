"""The notes' whole model, P(x_t | x_1..x_{t-1}) with a mean over T, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from tests import reference
from tests.helpers import TOLERANCE, error, random_like, shapes_of, to_numpy

T, B, V, H = 5, 2, 3, 4
MODEL = jrnn.sequence_model(jrnn.elman(V, H), jrnn.categorical(V))
TOKENS = np.random.default_rng(0).integers(0, V, (T, B))


def parameters():
    return random_like(1, shapes_of(MODEL.init), 0.5)


def mean_loss(params):
    """L = (1/T) sum_t l(yhat_t, x_t)."""
    _, log_probs = MODEL.log_prob(params, jnp.asarray(TOKENS))
    return -jrnn.models.mean_over_steps(log_probs)


def expected(params):
    """Loss and gradients where the cell reads start, x_1 .. x_{T-1}."""
    inputs = np.zeros((T, B, V))
    inputs[0] = np.asarray(params.start)
    inputs[1:] = reference.one_hot(TOKENS[:-1], V)
    p, head = to_numpy(params.cell), to_numpy(params.head)
    h_0 = np.zeros((B, H))
    return reference.notes_model(p, head["W_y"], head["b_y"], inputs, TOKENS, h_0)


def test_the_loss_is_that_of_the_notes():
    params = parameters()
    assert error(mean_loss(params), expected(params)[0]) <= TOLERANCE["float64"]


def test_its_gradients_are_those_of_the_notes():
    params = parameters()
    got, grads = jax.grad(mean_loss)(params), expected(params)[1]
    named = got.cell._asdict() | got.head._asdict()
    for name in ("W_x", "W_h", "b", "W_y", "b_y"):
        assert error(named[name], grads[name]) <= TOLERANCE["float64"], name
