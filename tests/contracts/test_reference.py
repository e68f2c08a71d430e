"""The reference itself, compared with central differences and hand calculations."""

import ast
from pathlib import Path

import numpy as np
import pytest

from tests import reference

T, B, K, H = 5, 2, 3, 3


def draw(rng, shape):
    return rng.normal(size=shape)


def cases():
    rng = np.random.default_rng(1)
    for name in reference.ACTIVATIONS:
        p = {"W_x": draw(rng, (K, H)), "W_h": draw(rng, (H, H)), "b": draw(rng, H)}
        yield f"elman {name}", reference.elman(name), p, {"h": draw(rng, (B, H))}
    for peepholes in (False, True):
        for projected in (False, True):
            size = 2 if projected else H
            p = {
                "W_x": draw(rng, (K, 4 * H)),
                "W_h": draw(rng, (size, 4 * H)),
                "b": draw(rng, 4 * H),
                "p": draw(rng, (3, H)) if peepholes else None,
                "W_p": draw(rng, (H, size)) if projected else None,
            }
            state = {"h": draw(rng, (B, size)), "c": draw(rng, (B, H))}
            yield f"lstm {peepholes} {projected}", reference.lstm(), p, state
    for after in (True, False):
        p = {
            "W_x": draw(rng, (K, 3 * H)),
            "W_h": draw(rng, (H, 3 * H)),
            "b": draw(rng, 3 * H),
            "b_h": draw(rng, H) if after else None,
        }
        yield f"gru {after}", reference.gru(after), p, {"h": draw(rng, (B, H))}
    yield from layer_norm_cases(rng)


def layer_norm_cases(rng):
    p = {"W_x": draw(rng, (K, H)), "W_h": draw(rng, (H, H))}
    p |= {"g": draw(rng, H), "b": draw(rng, H)}
    yield "layer_norm_elman", reference.layer_norm_elman(), p, {"h": draw(rng, (B, H))}
    for name, gates in (("lstm", 4), ("gru", 3)):
        sizes = {"g_x": gates * H, "g_h": gates * H, "b": gates * H}
        sizes |= {"g_c": H, "b_c": H} if name == "lstm" else {}
        p = {"W_x": draw(rng, (K, gates * H)), "W_h": draw(rng, (H, gates * H))}
        p |= {key: draw(rng, size) for key, size in sizes.items()}
        state = {"h": draw(rng, (B, H))}
        state |= {"c": draw(rng, (B, H))} if name == "lstm" else {}
        yield f"layer_norm_{name}", getattr(reference, f"layer_norm_{name}")(), p, state


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0])
def test_gradients_equal_central_differences(case):
    _, cell, p, state = case
    rng = np.random.default_rng(2)
    xs = draw(rng, (T, B, K))
    dys = draw(rng, (T, *state["h"].shape))
    ds_T = {name: draw(rng, value.shape) for name, value in state.items()}

    def loss():
        last, ys, _, _ = reference.unroll(cell, p, xs, state)
        return (ys * dys).sum() + sum((last[k] * ds_T[k]).sum() for k in last)

    grads, dxs, ds_0, _ = reference.bptt(cell, p, xs, state, dys, ds_T)
    pairs = [(grads[name], p[name]) for name in grads]
    pairs += [(dxs, xs)] + [(ds_0[name], state[name]) for name in state]
    for gradient, array in pairs:
        expected = reference.differences(loss, array)
        assert np.abs(gradient - expected).max() <= 1e-7 * np.abs(expected).max() + 1e-8


def test_adjoints_are_gradients_of_each_state():
    rng = np.random.default_rng(3)
    cell = reference.elman()
    p = {"W_x": draw(rng, (K, H)), "W_h": draw(rng, (H, H)), "b": draw(rng, H)}
    xs, dys = draw(rng, (T, B, K)), draw(rng, (T, B, H))
    zero = {"h": np.zeros((B, H))}
    _, _, _, adjoints = reference.bptt(cell, p, xs, zero, dys, zero)
    states = reference.unroll(cell, p, xs, zero)[2]
    middle = states[1]["h"]

    def rest():
        ys = reference.unroll(cell, p, xs[2:], {"h": middle})[1]
        return (middle * dys[1]).sum() + (ys * dys[2:]).sum()

    expected = reference.differences(rest, middle)
    np.testing.assert_allclose(adjoints[1]["h"], expected, rtol=1e-7, atol=1e-9)


def test_worked_on_paper():
    # k = h = 1, phi the identity: h_1 = 2*1 + 3*5 + 1 = 18, h_2 = 2*4 + 3*18 + 1 = 63.
    p = {"W_x": np.array([[2.0]]), "W_h": np.array([[3.0]]), "b": np.array([1.0])}
    cell, h_0 = reference.elman("identity"), {"h": np.array([[5.0]])}
    xs = np.array([[[1.0]], [[4.0]]])
    _, ys, _, _ = reference.unroll(cell, p, xs, h_0)
    assert ys.ravel().tolist() == [18.0, 63.0]
    # L = h_1 + h_2: dL/dh_2 = 1, dL/dh_1 = 1 + 3 = 4, dL/dh_0 = 12;
    # dW_h = 5*4 + 18*1, dW_x = 1*4 + 4*1, db = 4 + 1.
    grads, dxs, ds_0, adjoints = reference.bptt(
        cell, p, xs, h_0, np.ones((2, 1, 1)), {"h": np.zeros((1, 1))}
    )
    assert [a["h"].item() for a in adjoints] == [4.0, 1.0]
    assert ds_0["h"].item() == 12.0
    assert grads["W_h"].item() == 38.0
    assert grads["W_x"].item() == 8.0
    assert grads["b"].item() == 5.0
    assert dxs.ravel().tolist() == [8.0, 2.0]


def test_notes_model_against_differences():
    rng = np.random.default_rng(4)
    p = {"W_x": draw(rng, (K, H)), "W_h": draw(rng, (H, H)), "b": draw(rng, H)}
    W_y, b_y, h_0 = draw(rng, (H, 4)), draw(rng, 4), draw(rng, (B, H))
    xs, ys = draw(rng, (T, B, K)), rng.integers(0, 4, (T, B))
    _, grads, _, _ = reference.notes_model(p, W_y, b_y, xs, ys, h_0)
    arrays = {**p, "W_y": W_y, "b_y": b_y}
    for name, array in arrays.items():
        expected = reference.differences(
            lambda: reference.notes_model(p, W_y, b_y, xs, ys, h_0)[0], array
        )
        np.testing.assert_allclose(grads[name], expected, rtol=1e-6, atol=1e-9)


def test_imports_neither_jax_nor_jrnn():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    found = {
        name.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert found == {"numpy"}
