"""Forecasts of irregular series, against Ornstein-Uhlenbeck processes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from jrnn.cells.s5 import S5Params
from tests.helpers import assert_close

THETA = 0.7


def relaxing(theta, dtype=jnp.float64):
    """An s5 whose output is x - h, where dh/dt = theta (x - h) and x is held."""
    one = lambda value, shape=(1, 1): jnp.full(shape, value, dtype)
    return S5Params(
        Lambda_re=one(-theta, (1,)),
        Lambda_im=one(0.0, (1,)),
        log_step=one(0.0, (1,)),
        B_re=one(theta),
        B_im=one(0.0),
        C_re=one(-0.5),
        C_im=one(0.0),
        D=one(1.0),
    )


def timed():
    """A model that reads times, with parameters made by hand."""
    cell = jrnn.cells.s5(2, 1, irregular=True)
    model = jrnn.sequence_model(cell, jrnn.gaussian(), inputs=1)
    params = model.init(jax.random.key(0), jnp.float64)
    W_y = jnp.array([[1.0, 0.0]])
    head = params.head._replace(W_y=W_y, b_y=jnp.zeros(2))
    return model, params._replace(cell=relaxing(THETA), head=head)


@pytest.mark.slow
def test_the_first_forecast_decays_over_the_time_that_it_looks_ahead():
    """E[x_2 | x_1] = exp(-theta dt) x_1 in an Ornstein-Uhlenbeck process."""
    model, params = timed()
    ahead = jnp.array([0.0, 0.01, 0.5, 3.0, 50.0])
    xs = jnp.stack([jnp.linspace(-2.0, 3.0, 5), jnp.zeros(5)])
    expected = jnp.exp(-THETA * ahead) * xs[0]
    for before in (0.0, 9.0):  # nothing has been read that could decay before x_1
        times = jnp.stack([jnp.full(5, before), ahead])[..., None]
        _, predicted = model.predictive(params, xs, inputs=times)
        assert_close(predicted.mean()[1], expected, 1e-12)
    start = model.init_state(params, (5,))
    state, _ = model.step(params, start, xs[0], inputs=times[0])
    assert_close(model.predict(params, state, times[1]).mean(), expected, 1e-12)


@pytest.mark.longer
def test_forecasts_follow_the_differential_equation_of_the_held_series():
    model, params = timed()
    rng = np.random.default_rng(0)
    xs, times = rng.normal(size=9), rng.exponential(size=9)
    h, means = 0.0, [0.0]
    for x, dt in zip(xs[:-1], times[1:], strict=True):
        for _ in range(2000):  # Heun's steps
            k = THETA * (x - h)
            h += dt / 2000 * (k + THETA * (x - h - dt / 2000 * k)) / 2
        means.append(x - h)
    given = jnp.asarray(times)[:, None]
    _, predicted = model.predictive(params, jnp.asarray(xs), inputs=given)
    np.testing.assert_allclose(predicted.mean(), means, atol=1e-6)
    late = jnp.asarray(np.append(times[1:], 1.0))[:, None]  # one step too late
    _, wrong = model.predictive(params, jnp.asarray(xs), inputs=late)
    assert np.abs(wrong.mean() - np.array(means)).max() > 0.1


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("wrong", [-1.0, jnp.nan, jnp.inf])
def test_times_that_are_none_are_refused_or_score_nan(wrong):
    model, params = timed()
    xs, times = jnp.ones((4, 2)), jnp.ones((4, 2, 1)).at[2, 1].set(wrong)
    expected = r"elapsed times of at least 0, finite.*at position \(2, 1\)"
    for function in (model.log_prob, model.predictive):
        with pytest.raises(ValueError, match=expected):
            function(params, xs, inputs=times)
    state = model.init_state(params, (2,))
    expected = r"elapsed times of at least 0, finite.*at position \(1,\)"
    with pytest.raises(ValueError, match=expected):
        model.step(params, state, xs[2], inputs=times[2])
    with pytest.raises(ValueError, match=expected):
        model.predict(params, state, times[2])
    draw = lambda **given: model.sample(params, jax.random.key(0), 4, **given)
    prompted = {"prompt": xs, "prompt_inputs": times, "inputs": jnp.ones_like(times)}
    for given in ({"inputs": times}, prompted):
        with pytest.raises(ValueError, match="elapsed times of at least 0, finite"):
            draw(**given)
    scores = jax.jit(lambda z: model.log_prob(params, xs, inputs=z)[1])(times)
    assert jnp.isnan(scores).tolist() == [[False, False]] * 2 + [[False, True]] * 2


def test_times_past_a_length_are_not_looked_at():
    model, params = timed()
    xs, times = jnp.ones((4, 2)), jnp.ones((4, 2, 1)).at[2:, 1].set(-3.0)
    _, scores = model.log_prob(params, xs, lengths=jnp.array([4, 2]), inputs=times)
    assert jnp.isfinite(scores).all()


def process(seed, steps=30, sequences=64):
    """Values and times of an Ornstein-Uhlenbeck process, and their log-densities."""
    rng = np.random.default_rng(seed)
    dt = rng.exponential(size=(steps, sequences))
    xs, scores = np.zeros((2, steps, sequences))
    decay, spread = np.exp(-dt), np.sqrt(-np.expm1(-2 * dt))
    decay[0], spread[0] = 0.0, 1.0
    for t in range(steps):
        mean = decay[t] * xs[t - 1]
        z = rng.normal(size=sequences)
        xs[t] = mean + spread[t] * z
        scores[t] = -0.5 * (np.log(2 * np.pi * spread[t] ** 2) + z**2)
    return jnp.asarray(xs, jnp.float32), jnp.asarray(dt, jnp.float32), scores


def distance(model, features, steps=300):
    """Nats per value by which a trained model is worse than the process itself."""
    schedule = optax.cosine_decay_schedule(1e-2, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    params = model.init(jax.random.key(0))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, xs, dt):
        loss = lambda p: -model.log_prob(p, xs, inputs=features(dt))[1].mean()
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for seed in range(steps):
        xs, dt, _ = process(seed)
        params, state = step(params, state, xs, dt)
    xs, dt, best = process(steps, sequences=2000)
    _, scores = model.log_prob(params, xs, inputs=features(dt))
    return best[1:].mean() - float(scores[1:].mean())


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_times_bring_forecasts_close_to_the_optimum():
    """Seen: 0.157 nats without times, 0.079 with the time alone, 0.011 with both."""

    def layers(inputs, irregular):
        steps = {"dt_min": 0.05, "dt_max": 2.0, "output_size": 16}
        below = jrnn.cells.s5(1 + inputs, 16, irregular=irregular, **steps)
        stacked = jrnn.stack(below, jrnn.gru(16, 16))
        return jrnn.sequence_model(stacked, jrnn.gaussian(), inputs)

    without = distance(layers(0, False), lambda dt: None)
    alone = distance(layers(1, True), lambda dt: dt[..., None])
    both = lambda dt: jnp.stack([jnp.log(dt + 1e-3), dt], axis=-1)
    with_both = distance(layers(2, True), both)
    assert without > 0.14
    assert alone < 0.7 * without
    assert 0 < with_both < 0.02
