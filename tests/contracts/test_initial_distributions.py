"""Initial distributions of all cells match the formulas of their authors' code.

Each cell is drawn DRAWS times, without compiling the whole. A sample of n numbers
follows a distribution if its empirical distribution function stays within
DEVIATIONS / sqrt(n) of it (Kolmogorov and Smirnov: by chance one sample in 8,000 does
not, and seeds are fixed). With 20,000 numbers of a matrix, the test distinguishes
scales that differ by 7%, and a normal distribution from a truncated one of the same
variance; with 2,240 of a vector, scales that differ by 20%.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import variance_scaling

import jrnn
from jrnn.cells.s5 import hippo
from tests.helpers import CELLS, error

K, H, DRAWS = 150, 140, 16
DEVIATIONS = 2.2
MOST = 20_000  # of a larger sample, evenly spread


# Distribution functions, from the formulas alone.


def uniform(low, high):
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


def within(bound):
    return uniform(-bound, bound)


def normal(variance):
    phi = np.vectorize(math.erf, otypes=[float])
    return lambda x: 0.5 * (1 + phi(x / math.sqrt(2 * variance)))


def truncated(variance):
    """Normal, cut off at two deviations, and then of that variance (as JAX's own)."""
    deviation = math.sqrt(variance) / 0.87962566103423978
    at = normal(deviation**2)
    low, high = at(np.array([-2 * deviation, 2 * deviation]))
    return lambda x: np.clip((at(x) - low) / (high - low), 0, 1)


def triangular(bound):
    """The sum of two numbers within the bound."""
    z = lambda x: np.clip(x / (2 * bound), -1, 1)
    return lambda x: 0.5 + z(x) - np.sign(x) * z(x) ** 2 / 2


def follows(cdf):
    def check(drawn):
        drawn = np.asarray(drawn, np.float64).ravel()
        drawn = np.sort(drawn[:: max(1, drawn.size // MOST)])
        n = drawn.size
        F, steps = cdf(drawn), np.arange(n + 1) / n
        worst = max(np.abs(F - steps[1:]).max(), np.abs(F - steps[:-1]).max())
        assert worst < DEVIATIONS / math.sqrt(n), (worst, DEVIATIONS / math.sqrt(n))

    return check


# What is no sample.


def is_all(value):
    return is_(np.full((), value))


def is_(values):
    def check(drawn):
        all_ = np.broadcast_to(values, drawn.shape)
        np.testing.assert_allclose(drawn, all_, rtol=1e-6, atol=1e-7)

    return check


def orthogonal(drawn):
    W = np.asarray(drawn[0], np.float64)
    for W_gate in np.split(W, W.shape[1] // W.shape[0], axis=1):
        assert error(W_gate @ W_gate.T, np.eye(W.shape[0])) < 1e-5
        # An entry of a uniformly drawn one is nearly normal.
        follows(normal(1 / W.shape[0]))(W_gate)


def gates(*checks):
    """One check for each gate side by side."""

    def check(drawn):
        parts = np.split(np.asarray(drawn), len(checks), axis=-1)
        for part, one in zip(parts, checks, strict=True):
            one(part)

    return check


def by(transform, check):
    return lambda drawn: check(transform(np.asarray(drawn, np.float64)))


def diagonal(drawn):
    on = np.diagonal(drawn, axis1=1, axis2=2)
    follows(normal(1.0))(on)
    assert np.count_nonzero(drawn) == on.size


def planes(drawn):
    """Angles in planes of two units, and nothing else."""
    first = np.arange(0, H, 2)
    angles = drawn[:, first, first + 1]
    follows(within(math.pi))(angles)
    assert np.count_nonzero(drawn) == angles.size


class Start(NamedTuple):
    """A cell, and what each of its parameters is drawn like; None: `together` says."""

    make: object
    params: dict
    together: object = None
    draws: int = DRAWS  # 1 where matrices alone are random


def same(names, check):
    return dict.fromkeys(names.split(), check)


zeros, ones = is_all(0.0), is_all(1.0)
lecun = follows(truncated(1 / K))
sigmoid = lambda x: 1 / (1 + np.exp(-x))
linear = follows(within(K**-0.5))
lem, co = H**-0.5, (K + 2 * H) ** -0.5
glorot = follows(within((6 / (K + H)) ** 0.5))
para = follows(normal(0.8 / H))
spread = is_(np.linspace(0, 1, H))
random_W = {"W_x": lecun, "W_h": orthogonal}


def rates_of_lru(params):
    """Radii and phases: uniform over the ring's area, and gamma made for them."""
    square = np.exp(-2 * np.exp(np.asarray(params.nu_log, np.float64)))
    follows(uniform(0.8**2, 0.9**2))(square)
    follows(uniform(0, 0.3))(np.exp(np.asarray(params.theta_log, np.float64)))
    assert error(np.exp(2 * np.asarray(params.gamma_log)), 1 - square) < 1e-5


def spaces_of_s5(params, blocks, k):
    """B and C in the real space of size 2h, in which the authors draw them."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params._asdict().items()}
    frequencies, V = hippo(H, blocks)
    is_(frequencies)(p["Lambda_im"])
    B = 2 * ((p["B_re"] + 1j * p["B_im"]) @ V.T).real
    assert B.shape == (DRAWS, k, 2 * H)
    follows(truncated(1 / (2 * H)))(B)
    assert error((p["B_re"] + 1j * p["B_im"]), B @ V.conj()) < 1e-5
    # V^T C', of columns of norm 1: sums of so many terms are normal.
    for name in ("C_re", "C_im"):
        follows(normal(1 / (2 * H)))(p[name])
    # The two halves of C' are apart: what is made of both is not correlated.
    pairs = (p["C_re"] * p["C_im"]).mean() * 2 * H
    assert abs(pairs) < 4 / p["C_re"].size ** 0.5


S5 = {"Lambda_re": is_all(-0.5), **same("Lambda_im B_re B_im C_re C_im", None)}
S5["log_step"] = follows(uniform(math.log(0.001), math.log(0.1)))
ring = by(lambda x: sigmoid(x) ** 2, follows(uniform(0.9**2, 0.999**2)))
SRU = follows(within((3 / K) ** 0.5))

# By the factory's name, or that and what is particular: as the cell is by default.
STARTS = {
    "elman": Start(jrnn.elman, {**random_W, "b": zeros}, draws=1),
    "feedforward": Start(
        jrnn.cells.feedforward, {"W_x": random_W["W_x"], "b": zeros}, draws=1
    ),
    "lstm": Start(
        functools.partial(jrnn.lstm, peepholes=True),
        {**random_W, "b": gates(zeros, ones, zeros, zeros), "p": zeros},
        draws=1,
    ),
    "gru": Start(jrnn.gru, {**random_W, **same("b b_h", zeros)}, draws=1),
    "layer_norm_elman": Start(
        jrnn.cells.layer_norm_elman, {**random_W, "g": ones, "b": zeros}, draws=1
    ),
    "layer_norm_lstm": Start(
        jrnn.cells.layer_norm_lstm,
        {
            **random_W,
            **same("g_x g_h g_c", ones),
            "b": gates(zeros, ones, zeros, zeros),
            "b_c": zeros,
        },
        draws=1,
    ),
    "layer_norm_gru": Start(
        jrnn.cells.layer_norm_gru,
        {**random_W, **same("g_x g_h", ones), "b": zeros},
        draws=1,
    ),
    "min_gru": Start(jrnn.cells.min_gru, same("W_x b", linear)),
    "min_lstm": Start(
        functools.partial(jrnn.cells.min_lstm, forget_bias=3.0),
        {"W_x": linear, "b": gates(by(lambda b: b - 3, linear), linear, linear)},
    ),
    "lru": Start(
        lambda k, h: jrnn.cells.lru(k, h, r_min=0.8, r_max=0.9, max_phase=0.3),
        {
            **same("nu_log theta_log gamma_log", None),
            **same("B_re B_im", follows(normal(0.5 / K))),
            **same("C_re C_im", follows(normal(1 / H))),
            "D": diagonal,
        },
        rates_of_lru,
    ),
    "lru of other outputs": Start(
        lambda k, h: jrnn.cells.lru(k, h, output_size=h),
        {"D": follows(normal(1 / K))},
    ),
    "rg_lru": Start(
        lambda k, h: jrnn.cells.rg_lru(k, h),
        {
            "Lambda": ring,
            "W_g": follows(normal(1 / H)),
            "b": zeros,
            "W_x": follows(normal(1 / K)),
        },
    ),
    "s5": Start(
        lambda k, h: jrnn.cells.s5(k, h, blocks=7),
        {**S5, "D": diagonal},
        lambda params: spaces_of_s5(params, 7, K),
    ),
    "s5 irregular": Start(
        lambda k, h: jrnn.cells.s5(k + 1, h, irregular=True, output_size=h, blocks=7),
        {**S5, "D": follows(normal(1 / K))},
        lambda params: spaces_of_s5(params, 7, K),
    ),
    "sru": Start(
        jrnn.cells.sru,
        {
            **same("W_x W_r", SRU),
            "W_s": follows(within((9 / K) ** 0.5)),
            **same("b_f b_r", zeros),
        },
    ),
    "sru without rescale": Start(
        lambda k, h: jrnn.cells.sru(k, h, rescale=False), {"W_s": SRU}
    ),
    "ind_rnn": Start(
        jrnn.cells.ind_rnn, {"W_x": lecun, "w_h": follows(uniform(0, 1)), "b": zeros}
    ),
    "diagonal_gru": Start(
        jrnn.cells.diagonal_gru,
        {"W_x": glorot, "w_h": para, "b": gates(zeros, spread, zeros)},
    ),
    "diagonal_lstm": Start(
        lambda k, h: jrnn.cells.diagonal_lstm(k, h, peepholes=True),
        {
            "W_x": glorot,
            "w_h": para,
            "b": gates(zeros, ones, zeros, zeros),
            "p": para,
        },
    ),
    "exp_rnn": Start(
        jrnn.cells.exp_rnn,
        {"W_x": follows(normal(2 / K)), "A": planes, "b": follows(within(0.01))},
    ),
    "antisymmetric_rnn": Start(
        lambda k, h: jrnn.cells.antisymmetric_rnn(k, h, gated=True),
        {"W_x": follows(normal(1 / K)), "W_h": follows(normal(1 / H)), "b": zeros},
    ),
    "co_rnn": Start(jrnn.cells.co_rnn, same("W_x W_h b", follows(within(co)))),
    "lem": Start(
        jrnn.cells.lem,
        {**same("W_x W_h W_z", follows(within(lem))), "b": follows(triangular(lem))},
    ),
}
# By one argument, as the authors' code or the paper has it, where that is no default.
AUTHORS = {
    "gru": Start(
        lambda k, h: jrnn.gru(k, h, input_init=jrnn.initializers.normal(0.01)),
        {"W_x": follows(normal(0.01**2)), "W_h": orthogonal},
        draws=1,
    ),
    "layer_norm_lstm": Start(
        lambda k, h: jrnn.cells.layer_norm_lstm(
            k, h, input_init=jrnn.initializers.normal(0.01)
        ),
        {"W_x": follows(normal(0.01**2)), "W_h": orthogonal},
        draws=1,
    ),
    "ind_rnn": Start(
        lambda k, h: jrnn.cells.ind_rnn(
            k, h, input_init=variance_scaling(2 / 65, "fan_in", "uniform")
        ),
        # nn.init.kaiming_uniform_(a=8): gain sqrt(2 / (1 + a^2)), bound gain sqrt(3/k).
        {
            "W_x": follows(within((6 / 65 / K) ** 0.5)),
            "w_h": follows(uniform(0, 1)),
        },
    ),
    "diagonal_lstm": Start(
        lambda k, h: jrnn.cells.diagonal_lstm(
            k, h, coupled=True, bias_init=jrnn.initializers.para_lstm
        ),
        {"W_x": glorot, "w_h": para, "b": gates(by(np.negative, spread), zeros, zeros)},
    ),
    "rg_lru as the paper has it": Start(
        lambda k, h: jrnn.cells.rg_lru(
            k, h, decay_init=jrnn.initializers.strongest_decay()
        ),
        {"Lambda": by(lambda x: sigmoid(x) ** 8, follows(uniform(0.9, 0.999)))},
    ),
    "antisymmetric_rnn of another variance": Start(
        lambda k, h: jrnn.cells.antisymmetric_rnn(
            k, h, recurrent_init=jrnn.initializers.normal(2 / h**0.5)
        ),
        {"W_h": follows(normal(4 / H))},
    ),
    "elman of PyTorch": Start(
        lambda k, h: jrnn.elman(k, h, input_init=jrnn.initializers.uniform(h**-0.5)),
        {"W_x": follows(within(H**-0.5))},
        draws=1,
    ),
}


# The others are in the slow suite: a formula does not change by accident.
QUICK = ("elman", "lstm", "lru", "s5", "rg_lru", "sru", "diagonal_gru", "lem")
KINDS = [
    pytest.param(start, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name, start in STARTS.items()
]
KINDS += [
    pytest.param(start, id=f"{name}, authors", marks=pytest.mark.slow)
    for name, start in AUTHORS.items()
]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("start", KINDS)
def test_parameters_are_drawn_as_the_formulas_say(start):
    cell = start.make(K, H)
    keys = jax.random.split(jax.random.key(3), start.draws)
    drawn = [cell.init(key) for key in keys]
    stacked = {
        name: np.stack([getattr(params, name) for params in drawn])
        for name in start.params
    }
    for name, check in start.params.items():
        if check is not None:
            check(stacked[name])
    if start.together is not None:
        start.together(type(drawn[0])(**{**drawn[0]._asdict(), **stacked}))


def test_every_cell_and_every_parameter_has_its_formula():
    known = {}
    for start in STARTS.values():
        spec = start.make(4, 7).spec
        known.setdefault(spec.name, set()).update(start.params)
    for case in CELLS:
        cell = case.make(4, 4)
        params = jax.eval_shape(lambda cell=cell: cell.init(jax.random.key(0)))
        given = {name for name, leaf in params._asdict().items() if leaf is not None}
        assert given - {"W_p"} <= known[cell.spec.name], case.name


def test_what_a_factory_is_given_is_what_it_draws():
    # Where None stands for the authors' start, each argument still replaces its own.
    seven = lambda key, shape, dtype: jnp.full(shape, 7, dtype)
    for make, names in (
        (jrnn.cells.lem, "input_init recurrent_init bias_init"),
        (jrnn.cells.co_rnn, "input_init recurrent_init bias_init"),
        (jrnn.cells.min_gru, "input_init bias_init"),
        (jrnn.cells.min_lstm, "input_init bias_init"),
        (jrnn.cells.lru, "input_init output_init skip_init"),
        (jrnn.cells.rg_lru, "input_init gate_init bias_init decay_init"),
        (jrnn.cells.diagonal_gru, "input_init recurrent_init bias_init"),
        (jrnn.cells.diagonal_lstm, "input_init recurrent_init bias_init"),
    ):
        cell = make(3, 4, **dict.fromkeys(names.split(), seven))
        rates = ("nu_log", "theta_log", "gamma_log")
        for name, leaf in cell.init(jax.random.key(0))._asdict().items():
            if leaf is None or name in rates:
                continue
            shown = {"B_re": 7 * 0.5**0.5, "B_im": 7 * 0.5**0.5}.get(name, 7)
            first = np.asarray(leaf).ravel()[0]
            assert abs(first / shown - 1) < 1e-6, (make, name)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: jrnn.initializers.uniform(0.0), "bound above 0, got 0.0"),
        (lambda: jrnn.initializers.strongest_decay(0.9, 0.8), "0 < least < largest"),
        (
            lambda: jrnn.cells.lru(
                3, 4, output_size=5, skip_init=jrnn.initializers.diagonal_normal
            ).init(jax.random.key(0)),
            r"square matrix, got \(3, 5\)",
        ),
        (
            lambda: jrnn.cells.diagonal_lstm(
                3, 4, bias_init=jrnn.initializers.para_lstm
            ).init(jax.random.key(0)),
            "gates i f g o, got one for f g o",
        ),
    ],
)
def test_mistakes(run, message):
    with pytest.raises(ValueError, match=message):
        run()
