"""What small experiments are trained and judged by: updates in a loop, errors."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.lab import errors, training


def test_updates_made_in_a_loop_are_those_made_one_by_one():
    """By hand: w goes down by a tenth of 2 (w - x), x what each update is given."""
    loss = lambda w, x: jnp.square(w - x)
    optimizer, each = optax.sgd(0.1), jnp.array([1.0, 3.0, -2.0])
    state = jnp.array(5.0), optimizer.init(jnp.array(5.0))
    (last, _), (losses, norms) = training.descend(loss, optimizer, state, each)
    w, found = 5.0, []
    for x in each.tolist():
        found.append((np.square(w - x), abs(2 * (w - x))))
        w -= 0.1 * 2 * (w - x)
    np.testing.assert_allclose(last, w, rtol=1e-12)
    np.testing.assert_allclose((losses, norms), np.transpose(found), rtol=1e-12)
    both = lambda w, x: (loss(w, x), w)
    kept = training.update(both, optimizer, state, each[0], has_aux=True)
    np.testing.assert_allclose(kept[0][0], 5 - 0.1 * 8, rtol=1e-12)
    assert kept[1][0][1] == 5


def test_an_error_that_is_no_number_is_infinite():
    one, bad = np.ones(2), np.array([1.0, np.nan])
    assert errors.largest((one, 2 * one), (one, one)) == 1
    assert errors.largest((one, bad), (one, one)) == np.inf
    assert errors.largest((2j * one,), (2 * one,)) == pytest.approx(2**0.5)
    assert np.isnan(errors.normwise(bad, one))
