"""Gate statistics equal NumPy's, for every cell and inside every wrapper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.diagnostics import gate_statistics
from tests.helpers import assert_close, random_like, shapes_of, state_shapes

slow = pytest.mark.slow
STEPS = 30


def example(make, steps=STEPS, batch=2, k=3, h=2):
    cell = make(k, h)
    params = random_like(0, shapes_of(cell.init), 0.5)
    xs = random_like(1, jnp.zeros((steps, batch, k)))
    state = random_like(2, state_shapes(cell, params, (batch,)), 0.5)
    return cell, params, xs, state


def shares(gate, low, high):
    gate = np.asarray(gate).reshape(-1, gate.shape[-1])
    return gate.mean(axis=0), (gate < low).mean(axis=0), (gate > high).mean(axis=0)


def check_gates(found, gates):
    assert set(found) == set(gates)
    for name, (gate, low, high) in gates.items():
        for got, expected in zip(found[name], shares(gate, low, high), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "reset_after", [True, pytest.param(False, marks=slow)], ids=["after", "before"]
)
def test_gates_of_a_gru_are_counted(reset_after):
    make = lambda k, h: jrnn.gru(k, h, reset_after=reset_after)
    cell, params, xs, state = example(make)
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    h, gates = np.asarray(state.h), {"r": [], "z": [], "n": []}
    W, sigmoid = np.asarray(params.W_h), lambda a: 1 / (1 + np.exp(-a))
    W_x, b = np.asarray(params.W_x), np.asarray(params.b)
    b_h = 0 if params.b_h is None else np.asarray(params.b_h)
    for x in np.asarray(xs):
        u = np.split(x @ W_x + b, 3, axis=-1)
        v = np.split(h @ W, 3, axis=-1)
        r, z = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1])
        if reset_after:
            n = np.tanh(u[2] + r * (v[2] + b_h))
        else:
            n = np.tanh(u[2] + (r * h) @ W[:, 4:])
        h = (1 - z) * n + z * h
        for name, gate in zip("rzn", (r, z, n), strict=True):
            gates[name].append(gate)
    r, z, n = (np.stack(gates[name]) for name in "rzn")
    expected = {"r": (r, 0.1, 0.9), "z": (z, 0.1, 0.9), "n": (n, -0.8, 0.8)}
    found = gate_statistics(cell, params, xs, state)
    check_gates(found, expected)
    assert 0 < float(found["z"].low.mean()) < 1


@slow
def test_gates_inside_stacks_and_pairs_are_counted():
    pair = jrnn.bidirectional(jrnn.lstm(3, 2), jrnn.lstm(3, 2))
    cell = jrnn.stack(pair, jrnn.residual(jrnn.cells.lru(4, 4)))
    params = random_like(0, shapes_of(cell.init))
    xs = random_like(1, jnp.zeros((7, 2, 3)))
    found = gate_statistics(cell, params, xs)
    names = {f"[0][{i}].{gate}" for i in range(2) for gate in "ifgo"}
    assert set(found) == names | {"[0][0].tanh_c", "[0][1].tanh_c", "[1].a"}
    # Each direction as its own cell, the second on reversed inputs.
    for i, read in enumerate((xs, xs[::-1])):
        alone = gate_statistics(jrnn.lstm(3, 2), params[0][i], read)
        for name, gate in alone.items():
            assert_close(found[f"[0][{i}].{name}"], gate)
    moduli = np.exp(-np.exp(np.asarray(params[1].nu_log)))
    np.testing.assert_allclose(found["[1].a"].mean, moduli, rtol=1e-12)


@slow
def test_states_that_activations_bound_stand_in_for_gates():
    for activation, low, high in ((jnp.tanh, -0.8, 0.8), (jax.nn.sigmoid, 0.1, 0.9)):
        make = lambda k, h, phi=activation: jrnn.elman(k, h, activation=phi)
        cell, params, xs, state = example(make)
        params = jax.tree.map(lambda leaf: 3 * leaf, params)
        h = jrnn.trajectory(cell, params, xs, state).h
        check_gates(gate_statistics(cell, params, xs, state), {"h": (h, low, high)})


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normalise(a, gain, shift=0.0):
    centred = a - a.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return gain * centred / np.sqrt(variance + 1e-5) + shift


# The gates of each cell, (params, before, after, x) -> gates by name, as NumPy arrays.


def gru(p, old, new, x):
    del new
    u, v = np.split(x @ p.W_x + p.b, 3, -1), np.split(old.h @ p.W_h, 3, -1)
    r = sigmoid(u[0] + v[0])
    n = np.tanh(u[2] + r * (v[2] + p.b_h))
    return {"r": r, "z": sigmoid(u[1] + v[1]), "n": n}


def lstm(p, old, new, x):
    del new
    i, f, g, o = np.split(x @ p.W_x + p.b + old.h @ p.W_h, 4, -1)
    c = sigmoid(f) * old.c + sigmoid(i) * np.tanh(g)
    gates = {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o)}
    return gates | {"g": np.tanh(g), "tanh_c": np.tanh(c)}


def diagonal_gru(p, old, new, x):
    del new
    u, w = np.split(x @ p.W_x + p.b, 3, -1), np.split(p.w_h, 3)
    r, z = (sigmoid(u[i] + w[i] * old.h) for i in range(2))
    return {"r": r, "z": z, "n": np.tanh(u[2] + r * w[2] * old.h)}


def diagonal_lstm(p, old, new, x):
    u, w = np.split(x @ p.W_x + p.b, 4, -1), np.split(p.w_h, 4)
    i, f, g, o = (u[i] + w[i] * old.h for i in range(4))
    gates = {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o)}
    return gates | {"g": np.tanh(g), "tanh_c": np.tanh(new.c)}


def coupled(p, old, new, x):
    u, w = np.split(x @ p.W_x + p.b, 3, -1), np.split(p.w_h, 3)
    f, g, o = (u[i] + w[i] * old.h for i in range(3))
    gates = {"f": sigmoid(f + p.p[0] * old.c), "o": sigmoid(o + p.p[1] * new.c)}
    return gates | {"g": np.tanh(g), "tanh_c": np.tanh(new.c)}


def layer_norm_gru(p, old, new, x):
    del new
    u, v = x @ p.W_x, old.h @ p.W_h
    u_rz = normalise(u[..., :4], p.g_x[:4], p.b[:4])
    u_n = normalise(u[..., 4:], p.g_x[4:], p.b[4:])
    r, z = np.split(sigmoid(u_rz + normalise(v[..., :4], p.g_h[:4])), 2, -1)
    n = np.tanh(u_n + r * normalise(v[..., 4:], p.g_h[4:]))
    return {"r": r, "z": z, "n": n}


def layer_norm_lstm(p, old, new, x):
    a = normalise(x @ p.W_x, p.g_x, p.b) + normalise(old.h @ p.W_h, p.g_h)
    i, f, g, o = np.split(a, 4, -1)
    gates = {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o), "g": np.tanh(g)}
    return gates | {"tanh_c": np.tanh(normalise(new.c, p.g_c, p.b_c))}


def lem(p, old, new, x):
    u, v = np.split(x @ p.W_x + p.b, 4, -1), np.split(old.h @ p.W_h, 3, -1)
    gates = {"s": DT * sigmoid(u[0] + v[0]), "r": DT * sigmoid(u[1] + v[1])}
    return gates | {"n": np.tanh(u[2] + v[2]), "m": np.tanh(u[3] + new.z @ p.W_z)}


def antisymmetric(p, old, new, x):
    del new
    M = p.W_h - p.W_h.T - GAMMA * np.eye(2)
    *z, n = np.split(x @ p.W_x + p.b, p.b.size // 2, -1)
    gates = {"z": sigmoid(z[0] + old.h @ M)} if z else {}
    return gates | {"n": np.tanh(n + old.h @ M)}


def co_rnn(p, old, new, x):
    del new
    both = np.concatenate([old.h, old.z], axis=-1)
    return {"tanh_a": np.tanh(x @ p.W_x + both @ p.W_h + p.b)}


DT, GAMMA = 0.4, 0.3
TRUTHS = {
    "diagonal_gru": (jrnn.cells.diagonal_gru, diagonal_gru),
    "diagonal_lstm": (jrnn.cells.diagonal_lstm, diagonal_lstm),
    "diagonal_lstm coupled": (
        lambda k, h: jrnn.cells.diagonal_lstm(k, h, coupled=True, peepholes=True),
        coupled,
    ),
    "layer_norm_gru": (jrnn.cells.layer_norm_gru, layer_norm_gru),
    "layer_norm_lstm": (jrnn.cells.layer_norm_lstm, layer_norm_lstm),
    "lem": (lambda k, h: jrnn.cells.lem(k, h, dt=DT), lem),
    "antisymmetric_rnn": (
        lambda k, h: jrnn.cells.antisymmetric_rnn(k, h, gamma=GAMMA),
        antisymmetric,
    ),
    "antisymmetric_rnn gated": (
        lambda k, h: jrnn.cells.antisymmetric_rnn(k, h, gamma=GAMMA, gated=True),
        antisymmetric,
    ),
    "co_rnn": (jrnn.cells.co_rnn, co_rnn),
    "zoneout lstm": (
        lambda k, h: jrnn.wrappers.zoneout(jrnn.lstm(k, h), (0.2, 0.5)),
        lstm,
    ),
    "zoneout dropout gru": (
        lambda k, h: jrnn.wrappers.zoneout(
            jrnn.wrappers.variational_dropout(jrnn.gru(k, h), 0.5), 0.2
        ),
        gru,
    ),
    "dropout zoneout gru": (
        lambda k, h: jrnn.wrappers.variational_dropout(
            jrnn.wrappers.zoneout(jrnn.gru(k, h), 0.2), 0.5
        ),
        gru,
    ),
}
EDGES = {"i": (0.1, 0.9), "s": (0.1 * DT, 0.9 * DT), "n": (-0.8, 0.8)}
EDGES |= dict.fromkeys("frzo", EDGES["i"]) | dict.fromkeys("gm", EDGES["n"])
EDGES |= dict.fromkeys(("tanh_c", "tanh_a"), EDGES["n"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "zoneout lstm" else slow)
        for name in TRUTHS
    ],
)
def test_gates_of_every_cell_are_counted(name):
    make, truth = TRUTHS[name]
    cell, params, xs, state = example(make)
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    after = jrnn.trajectory(cell, params, xs, state)
    join = lambda first, rest: np.concatenate([first[None], rest[:-1]])
    before = jax.tree.map(join, state, after)
    numpy = lambda tree: jax.tree.map(np.asarray, tree)
    gates = truth(numpy(params), numpy(before), numpy(after), np.asarray(xs))
    edges = EDGES | ({"r": EDGES["s"]} if name == "lem" else {})
    found = gate_statistics(cell, params, xs, state)
    check_gates(found, {key: (gate, *edges[key]) for key, gate in gates.items()})
    assert any(0 < float(gate.low.mean() + gate.high.mean()) for gate in found.values())


@slow
def test_gates_are_those_of_the_cell_inside_that_is_made_orthogonal():
    cell, params, xs, state = example(
        lambda k, h: jrnn.wrappers.orthogonal(jrnn.gru(k, h))
    )
    inner = gate_statistics(jrnn.gru(3, 2), cell.prepare(params), xs, state)
    cell = jrnn.wrappers.learned_initial_state(cell)
    params = cell.init(jax.random.key(0), jnp.float64)._replace(cell=params)
    found = gate_statistics(cell, params, xs, state)
    assert set(found) == {"r", "z", "n"}
    for name, gate in inner.items():
        assert_close(found[name], gate)


@slow
def test_states_without_bounds_are_left_out():
    relu = lambda k, h: jrnn.elman(k, h, activation=jax.nn.relu)
    for make in (
        relu,
        jrnn.cells.exp_rnn,
        lambda k, h: jrnn.wrappers.zoneout(relu(k, h), 0.5),
    ):
        assert gate_statistics(*example(make)) == {}
    cell, params, xs, _ = example(lambda k, h: jrnn.stack(relu(k, h), jrnn.elman(h, h)))
    assert set(gate_statistics(cell, params, xs)) == {"[1].h"}


@slow
def test_of_zoneout_the_activation_is_looked_at_and_not_the_average():
    cell, params, xs, state = example(
        lambda k, h: jrnn.wrappers.zoneout(jrnn.elman(k, h), 0.9)
    )
    after = jrnn.trajectory(cell, params, xs, state).h
    before = jnp.concatenate([state.h[None], after[:-1]])
    W_x, W_h, b = (np.asarray(leaf) for leaf in params)
    h = np.tanh(np.asarray(xs) @ W_x + np.asarray(before) @ W_h + b)
    check_gates(gate_statistics(cell, params, xs, state), {"h": (h, -0.8, 0.8)})


def test_shares_of_a_unit_that_is_nan_are_nan():
    cell = jrnn.cells.ind_rnn(1, 2, activation=jnp.tanh)
    params = cell.init(jax.random.key(0))
    params = params._replace(W_x=jnp.array([[1.0, jnp.nan]]))
    found = gate_statistics(cell, params, jnp.ones((4, 1)))["h"]
    for share in found:
        assert np.isnan(share).tolist() == [False, True]
