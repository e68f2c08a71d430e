"""The rule of RecurrentGemma's RG-LRU at the first step of a segment.

Compared with a plain loop of its equations in NumPy: at the start of a segment the
factor sqrt(1 - a^2) is 1, under every method, for any chunks and either direction.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from tests.helpers import assert_close, error, random_like, to_numpy
from tests.reference import sigmoid

T, B, K, H = 6, 4, 2, 3
CELL = jrnn.cells.rg_lru(K, H, unscaled_start=True)
SHAPES = jax.eval_shape(lambda: CELL.init(jax.random.key(0), jnp.float64))
PARAMS = random_like(1, SHAPES, 0.7)
# So that states last, and the factor is far from 1.
PARAMS = PARAMS._replace(Lambda=jnp.array([2.0, 4.0, 7.0]))
XS = random_like(2, jax.ShapeDtypeStruct((T, B, K), "float64"))
DYS = random_like(3, jax.ShapeDtypeStruct((T, B, H), "float64"))
DH = random_like(4, jax.ShapeDtypeStruct((B, H), "float64"))
LENGTHS = np.array([6, 4, 1, 0])
RESETS = np.zeros((T, B), bool)
# In the middle, twice in a row, on a masked step, and past the length of sequence 1.
RESETS[[2, 3, 4, 5], [0, 0, 0, 1]] = True
RESETS[1, 1] = True
MASK = np.ones((T, B), bool)
MASK[[0, 4, 2], [0, 0, 1]] = False
METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(chunk=2),
    "associative": jrnn.associative(),
    "associative in blocks": jrnn.associative(chunk=2),
    "newton": jrnn.newton(),
}


def loop(params, xs, state, reverse, features=True):
    """The outputs and the last h, one sequence after another, step after step."""
    p, ys = to_numpy(params), np.zeros((T, B, H))
    last = np.zeros((B, H))
    for i in range(B):
        h, begins = state
        h, begins = np.array(h[i]), bool(begins[i].all())
        length = LENGTHS[i] if features else T
        order = range(length)[::-1] if reverse else range(length)
        for t in order:
            place = t + 1 if reverse else t
            if features and place < length and RESETS[place, i]:
                h, begins = np.zeros(H), True
            if features and not MASK[t, i]:
                continue
            v = xs[t, i] @ p["W_x"]
            r, gate = np.split(sigmoid(v @ p["W_g"] + p["b"]), 2)
            a = sigmoid(p["Lambda"]) ** (8 * r)
            multiplier = 1 if begins else np.sqrt(1 - a**2)
            h, begins = a * h + multiplier * (gate * v), False
            ys[t, i] = h
        last[i] = h
    return ys, last


def start(given):
    fresh = CELL.init_state(PARAMS, (B,))
    h = random_like(5, fresh.h)
    return fresh._replace(h=h, fresh=jnp.zeros_like(h)) if given else fresh


def run(params, xs, state, reverse, method):
    features = {"lengths": jnp.array(LENGTHS), "resets": jnp.array(RESETS)}
    return jrnn.unroll(
        CELL,
        params,
        xs,
        state,
        reverse=reverse,
        mask=jnp.array(MASK),
        method=method,
        **features,
    )


def moved(at, by, along):
    """What lies `by` along a direction, in NumPy: nothing is compiled for it."""
    step = lambda x, dx: np.asarray(x) + by * np.asarray(dx)
    return jax.tree.map(step, at, along)


@functools.cache
def expected(reverse, given):
    """Outputs, last h, and the slope of the loss along one direction."""
    at = PARAMS, XS, start(given)
    along = random_like(6, at)
    # The start moves in h alone: the loop knows no state that is half fresh.
    h = along[2].h
    along = (*along[:2], along[2]._replace(fresh=jnp.zeros_like(h)))

    def loss(by):
        ys, h = loop(*moved(at, by, along), reverse)
        return (ys * np.asarray(DYS)).sum() + (h * np.asarray(DH)).sum()

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    return *loop(*moved(at, 0.0, along), reverse), along, slope


def cases():
    """Every method either way; in the quick suite each that has a rule of its own."""
    quick = ("bptt", "associative in blocks", "newton")
    for reverse in (False, True):
        for name in METHODS:
            slow = name not in quick or (reverse and name != "associative in blocks")
            marks = pytest.mark.slow if slow else ()
            yield pytest.param(name, reverse, marks=marks, id=f"{name}-{reverse}")


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(("method", "reverse"), list(cases()))
def test_outputs_and_gradients_are_those_of_the_loop(method, reverse):
    @jax.jit
    def by_method(params, xs, state):
        def loss(params, xs, state):
            last, ys = run(params, xs, state, reverse, METHODS[method])
            return (ys * DYS).sum() + (last.h * DH).sum(), (last, ys)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(params, xs, state)

    for given in (False, True):
        gradients, (last, ys) = by_method(PARAMS, XS, start(given))
        known, h, along, slope = expected(reverse, given)
        assert error(ys, known) < 1e-12
        assert error(last.h, h) < 1e-12
        # The last sequence has no step; it ends as it starts.
        begun = np.array([[0.0], [0.0], [0.0], [0.0 if given else 1.0]])
        assert (np.asarray(last.fresh) == begun).all()
        leaves = jax.tree.leaves((gradients, along))
        half = len(leaves) // 2
        pairs = zip(leaves[:half], leaves[half:], strict=True)
        found = sum((np.asarray(g) * np.asarray(d)).sum() for g, d in pairs)
        assert abs(found / slope - 1) < 1e-7  # of central differences


def test_chunks_and_single_steps_are_the_whole():
    ys, h = loop(PARAMS, np.asarray(XS), start(False), reverse=False, features=False)
    state, first = jrnn.unroll(CELL, PARAMS, XS[:3])
    state, second = jrnn.unroll(CELL, PARAMS, XS[3:], state)
    assert error(jnp.concatenate([first, second]), ys) < 1e-12
    assert error(state.h, h) < 1e-12
    state, shown = CELL.init_state(PARAMS, (B,)), []
    step = jax.jit(CELL.step)
    for x in XS:
        state, y = step(PARAMS, state, x)
        shown.append(y)
    assert error(jnp.stack(shown), ys) < 1e-12
    # The first input is written as it is, behind its gate; by default it is not.
    plain = jrnn.cells.rg_lru(K, H)
    y = plain.step(PARAMS, plain.init_state(PARAMS, (B,)), XS[0])[1]
    assert error(y, ys[0]) > 0.1
    assert CELL.init_state(PARAMS).fresh.tolist() == [1.0] * H


def test_zoneout_and_a_learned_start_leave_the_mark_alone():
    around = jrnn.wrappers.zoneout(CELL, 0.3)
    u = around.project(PARAMS, XS[0])
    state = start(False)._replace(h=DH)
    moved = around.advance(PARAMS, state, u)
    by_cell = CELL.step(PARAMS, state, XS[0])[0]
    assert error(moved.h, 0.3 * DH + 0.7 * by_cell.h) < 1e-12
    assert not moved.fresh.any()
    with pytest.raises(ValueError, match=r"which says where a .* pass \(0.3, 0.0\)"):
        jrnn.wrappers.zoneout(CELL, (0.3, 0.2))
    learned = jrnn.wrappers.learned_initial_state(CELL)
    params = learned.init(jax.random.key(0), jnp.float64)
    elsewhere = jax.tree.map(lambda leaf: leaf + 0.5, params)
    state = learned.init_state(elsewhere, (B,))
    assert (state.h == 0.5).all()
    assert (state.fresh == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, 1])
def test_zoneout_in_parallel(key):
    around = jrnn.wrappers.zoneout(CELL, 0.3)
    key = None if key is None else jax.random.key(key)
    runs = [
        jrnn.unroll(
            around,
            PARAMS,
            XS,
            resets=jnp.array(RESETS),
            key=key if key is None else jax.random.clone(key),
            method=method,
        )
        for method in (jrnn.scan(), jrnn.associative(chunk=2))
    ]
    assert_close(*runs, 1e-12)


def test_the_kept_share_is_that_of_the_units():
    found = jrnn.diagnostics.gate_statistics(CELL, PARAMS, XS)
    assert set(found) == {"a"}
