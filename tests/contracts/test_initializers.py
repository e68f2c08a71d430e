"""Every initialiser has the property in its name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import initializers
from tests import reference_long
from tests.helpers import error, random_like, state_shapes

MANY = 4000


def uniform_between(drawn, low, high):
    """Mean and variance of a uniform draw, within four deviations of their own."""
    assert low <= drawn.min()
    assert drawn.max() <= high
    width, count = high - low, drawn.size
    assert abs(drawn.mean() - (low + high) / 2) < 4 * width / (12 * count) ** 0.5
    assert abs(drawn.var() / (width**2 / 12) - 1) < 4 * (0.8 / count) ** 0.5


def test_orthogonal_is_what_cells_draw_by_default(key):
    W = initializers.orthogonal(key, (20, 20), jnp.float64)
    assert error(W @ W.T, np.eye(20)) < 1e-14
    explicit = jrnn.elman(3, 4, recurrent_init=initializers.orthogonal)
    assert explicit is jrnn.elman(3, 4)


def test_an_irnn_keeps_state_and_gradient(key):
    cell = jrnn.elman(
        3,
        4,
        activation=jax.nn.relu,
        recurrent_init=initializers.identity(),
        input_init=initializers.normal(0.001),
    )
    params, xs = cell.init(key, jnp.float64), jnp.zeros((100, 3))
    start = abs(random_like(1, state_shapes(cell, params)).h) + 0.1
    run = lambda h: jrnn.unroll(cell, params, xs, type(cell.init_state(params))(h))[0].h
    assert (run(start) == start).all()
    assert (jax.jacrev(run)(start) == jnp.eye(4)).all()  # dh_T / dh_0
    assert 0 < abs(params.W_x).max() < 0.005


@pytest.mark.slow
def test_identity_has_its_scale_and_normal_its_deviation(key):
    W = initializers.identity(0.01)(key, (3, 3), jnp.float64)
    assert (W == 0.01 * np.eye(3)).all()
    gates = (
        jrnn.gru(2, 3, recurrent_init=initializers.identity())
        .init(jax.random.key(1))
        .W_h
    )
    assert (gates == jnp.tile(jnp.eye(3, dtype=gates.dtype), 3)).all()
    drawn = initializers.normal(0.3)(jax.random.key(2), (MANY,), jnp.float64)
    assert abs(drawn.std() / 0.3 - 1) < 4 / (2 * MANY) ** 0.5
    assert abs(drawn.mean()) < 4 * 0.3 / MANY**0.5


@pytest.mark.slow
def test_nothing_is_scaled_to_a_radius_that_has_none(key):
    nilpotent = fixed(np.triu(np.ones((4, 4)), 1))
    draw = initializers.spectral_radius(0.9, nilpotent)
    assert jnp.isnan(draw(key, (4, 4), jnp.float64)).any()


def fixed(W):
    return lambda key, shape, dtype: jnp.asarray(W, dtype)


def turning(size):
    """Rotations alone, in a basis that is not orthogonal: no eigenvalue is real."""
    rng = np.random.default_rng(1)
    P, blocks = rng.normal(size=(size, size)), np.zeros((size, size))
    for i in range(0, size, 2):
        angle, radius = rng.uniform(0.2, 3), rng.uniform(0.5, 3)
        c, s = np.cos(angle), np.sin(angle)
        blocks[i : i + 2, i : i + 2] = radius * np.array([[c, s], [-s, c]])
    return P @ blocks @ np.linalg.inv(P)


@pytest.mark.parametrize(
    "initializer",
    [None, initializers.orthogonal, fixed(turning(20))],
    ids=["normal", "orthogonal", "turning"],
)
def test_spectral_radius_is_the_one_asked_for(key, initializer):
    draw = initializers.spectral_radius(0.9, initializer)
    W = draw(jax.random.clone(key), (20, 20), jnp.float64)
    assert abs(max(abs(np.linalg.eigvals(np.asarray(W)))) / 0.9 - 1) < 1e-12
    inner = jax.nn.initializers.normal(1.0) if initializer is None else initializer
    drawn = inner(key, (20, 20), jnp.float64)
    assert error(W / W[0, 0], drawn / drawn[0, 0]) < 1e-12  # scaled, nothing else


@pytest.mark.slow
def test_spectral_radius_in_float32_for_every_gate(key):
    cell = jrnn.lstm(3, 50, recurrent_init=initializers.spectral_radius(1.2))
    for W in np.split(np.asarray(cell.init(key).W_h), 4, axis=1):
        assert abs(max(abs(np.linalg.eigvals(W))) / 1.2 - 1) < 1e-5


def test_spectral_radius_of_a_narrow_type_is_found_in_a_wider_one(key):
    draw = initializers.spectral_radius(0.9)
    narrow = draw(jax.random.clone(key), (20, 20), jnp.bfloat16)
    wide = draw(key, (20, 20), jnp.float32)
    assert narrow.dtype == jnp.bfloat16
    assert (narrow == wide.astype(jnp.bfloat16)).all()


def test_chrono_spreads_the_times_of_an_lstm(key):
    chrono = initializers.chrono_lstm(100)
    b = jnp.concatenate(chrono.draw(key, MANY, jnp.float64))
    b_i, b_f, b_g, b_o = np.split(np.asarray(b), 4)
    assert (b_i == -b_f).all()
    assert not b_g.any()
    assert not b_o.any()
    uniform_between(1 / (1 - 1 / (1 + np.exp(-b_f))), 2, 100)  # eq. 16, T_max = 100


@pytest.mark.slow
def test_chrono_keeps_for_as_long_as_it_says(key):
    # A GRU without weights: h_t = z^t h_0, and z = 1 - 1/time.
    cell = jrnn.gru(1, 50, bias_init=initializers.chrono_gru(30))
    params = cell.init(key, jnp.float64)
    b_r, b_z, b_n = np.split(np.asarray(params.b), 3)
    assert not b_r.any()
    assert not b_n.any()
    assert not params.b_h.any()
    times = 1 + np.exp(b_z)
    assert 2 < times.min() < 6
    assert 25 < times.max() < 30
    silent = params._replace(W_x=params.W_x * 0, W_h=params.W_h * 0)
    start = cell.init_state(params)._replace(h=jnp.ones(50))
    last = jrnn.unroll(cell, silent, jnp.zeros((10, 1)), start, method=jrnn.scan())[0]
    assert error(last.h, (1 - 1 / times) ** 10) < 1e-12


def test_chrono_in_the_cell(key):
    chrono = initializers.chrono_lstm(50)
    make = lambda: jrnn.lstm(
        3, 4, bias_init=initializers.chrono_lstm(longest=50), forget_bias=0.0
    )
    assert make() is jrnn.lstm(3, 4, bias_init=chrono, forget_bias=0.0)
    params = make().init(key, jnp.bfloat16)
    assert params.b.dtype == jnp.bfloat16
    assert (params.b[:4] == -params.b[4:8]).all()
    assert (params.b[4:8] > 0).all()
    peeping = jrnn.lstm(3, 4, peepholes=True, bias_init=chrono, forget_bias=0.0)
    assert not peeping.init(jax.random.key(1)).p.any()


def angles(A):
    """Those by which expm(A - A^T) turns, one of each pair."""
    turned = np.angle(np.linalg.eigvals(reference_long.rotation(np.asarray(A))[0]))
    return turned[turned > 0]


def test_henaff_turns_by_any_angle(key):
    A = initializers.henaff(key, (401, 401), jnp.float64)
    found = angles(A)
    assert found.size == 200  # and one unit keeps still
    uniform_between(found, 0, np.pi)
    assert (np.asarray(A)[np.arange(0, 400, 2), np.arange(1, 400, 2)] < 0).any()


@pytest.mark.slow
def test_cayley_turns_by_less(key):
    A = np.asarray(initializers.cayley(key, (400, 400), jnp.float64))
    S, eye = A - A.T, np.eye(400)
    by_cayley = np.angle(np.linalg.eigvals(np.linalg.solve(eye + S, eye - S)))
    uniform_between(by_cayley[by_cayley > 0], 0, np.pi / 2)
    assert 0.9 < angles(A).max() < 1


def test_equal_arguments_give_the_identical_initialiser():
    for make in (
        initializers.identity,
        initializers.normal,
        initializers.spectral_radius,
    ):
        assert make(0.5) is make(0.5)
        assert make(0.5) is not make(0.25)
    assert initializers.chrono_gru(9) is not initializers.chrono_gru(10)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: initializers.normal(0.0), "std above 0, got 0.0"),
        (lambda: initializers.identity(-1.0), "scale above 0, got -1.0"),
        (lambda: initializers.spectral_radius(0), "radius above 0, got 0"),
        (lambda: initializers.chrono_lstm(2), "in steps, above 2, got 2"),
        (lambda: initializers.chrono_gru(1.5), "in steps, above 2, got 1.5"),
        (
            lambda: jrnn.lstm(3, 4, bias_init=initializers.chrono_lstm(9)),
            "forget_bias=0.0 beside a bias_init that draws",
        ),
        (
            lambda: drawn(jrnn.gru(3, 4, bias_init=initializers.chrono_lstm(9))),
            "for the gates r z n, got one for i f g o",
        ),
        (
            lambda: drawn(jrnn.elman(3, 4, bias_init=initializers.chrono_gru(9))),
            "which jrnn.lstm or jrnn.gru takes as bias_init",
        ),
        (
            lambda: drawn(jrnn.elman(3, 4, input_init=initializers.identity())),
            r"shape of a square matrix, got \(3, 4\)",
        ),
        (
            lambda: drawn(jrnn.elman(3, 4, input_init=initializers.spectral_radius(1))),
            r"shape of a square matrix, got \(3, 4\)",
        ),
        (
            lambda: drawn(jrnn.elman(3, 4, input_init=initializers.henaff)),
            r"shape of a square matrix, got \(3, 4\)",
        ),
    ],
)
def test_mistakes(run, message):
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize("make", ["chrono_lstm", "chrono_gru", "spectral_radius"])
def test_what_is_no_number_is_refused(make):
    with pytest.raises(TypeError, match="to be a number, got '30'"):
        getattr(initializers, make)("30")


def drawn(cell):
    return cell.init(jax.random.key(0))


def test_what_is_no_function_draws_nothing():
    with pytest.raises(TypeError, match="initializer to be a function such as"):
        initializers.spectral_radius(0.9, 3)
