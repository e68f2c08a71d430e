"""The reference of all tests: NumPy loops in float64, one step after the other.

It imports neither jax nor jrnn. Row vectors, the notes' letters, time on axis 0, one
batch axis: xs is (T, B, k), a state's arrays are (B, h). Parameters are dicts with the
field names of jrnn's NamedTuples; an absent bias is None.

Each cell is a pair of functions; a cell whose output is not h_t has a third entry, the
pair of functions of its output:

    forward(p, x_t, s_{t-1})    -> s_t, the residuals of the backward step
    backward(p, needs, ds_t)    -> ds_{t-1}, dx_t, this step's gradients
    output(p, x_t, s_t)         -> y_t
    its backward(p, x_t, s_t, dy_t) -> the direct ds_t, dx_t, this step's gradients

`bptt` follows the notes: the gradient of s_t is the direct one from the loss plus that
from step t + 1; the parameters' gradients are sums over the steps.
"""

import numpy as np


def sigmoid(a):
    """Returns 1 / (1 + e^-a), without overflow on either side."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


# phi and phi', the latter from a and h = phi(a).
ACTIVATIONS = {
    "tanh": (np.tanh, lambda _, h: 1 - h**2),
    "relu": (lambda a: np.maximum(a, 0), lambda a, _: (a > 0) * 1.0),
    "sigmoid": (sigmoid, lambda _, h: h * (1 - h)),
    "identity": (lambda a: a, lambda a, _: np.ones_like(a)),
    "sin": (np.sin, lambda a, _: np.cos(a)),
    "positive": (
        lambda a: np.where(a >= 0, a + 0.5, sigmoid(a)),
        lambda a, h: np.where(a >= 0, 1.0, h * (1 - h)),
    ),
}


def plus(a, b):
    """Returns a + b, or a if b is None."""
    return a if b is None else a + b


def elman(activation="tanh"):
    """h_t = phi(x_t W_x + h_{t-1} W_h + b)."""
    phi, slope = ACTIVATIONS[activation]

    def forward(p, x, s):
        a = plus(x @ p["W_x"] + s["h"] @ p["W_h"], p["b"])
        h = phi(a)
        return {"h": h}, (x, s["h"], a, h)

    def backward(p, needs, ds):
        x, h_tm1, a, h = needs
        delta = ds["h"] * slope(a, h)
        grads = {"W_x": x.T @ delta, "W_h": h_tm1.T @ delta, "b": delta.sum(0)}
        return {"h": delta @ p["W_h"].T}, delta @ p["W_x"].T, grads

    return forward, backward


def lstm():
    """Gates i f g o; peepholes p (rows i f o) and projection W_p if present."""

    def forward(p, x, s):
        h_tm1, c_tm1 = s["h"], s["c"]
        n = c_tm1.shape[1]
        a = plus(x @ p["W_x"] + h_tm1 @ p["W_h"], p["b"])
        a_i, a_f, a_g, a_o = (a[:, j * n : (j + 1) * n] for j in range(4))
        if p["p"] is not None:
            a_i, a_f = a_i + p["p"][0] * c_tm1, a_f + p["p"][1] * c_tm1
        i, f, g = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g)
        c = f * c_tm1 + i * g
        o = sigmoid(a_o if p["p"] is None else a_o + p["p"][2] * c)
        m = o * np.tanh(c)
        h = m if p["W_p"] is None else m @ p["W_p"]
        return {"h": h, "c": c}, (x, h_tm1, c_tm1, i, f, g, o, c, m)

    def backward(p, needs, ds):
        x, h_tm1, c_tm1, i, f, g, o, c, m = needs
        dh, dc = ds["h"], ds["c"]
        dm = dh if p["W_p"] is None else dh @ p["W_p"].T
        da_o = dm * np.tanh(c) * o * (1 - o)
        dc = dc + dm * o * (1 - np.tanh(c) ** 2)
        if p["p"] is not None:
            dc = dc + da_o * p["p"][2]
        da_i, da_f = dc * g * i * (1 - i), dc * c_tm1 * f * (1 - f)
        da_g = dc * i * (1 - g**2)
        dc_tm1 = dc * f
        if p["p"] is not None:
            dc_tm1 = dc_tm1 + da_i * p["p"][0] + da_f * p["p"][1]
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        rows = [(da_i * c_tm1).sum(0), (da_f * c_tm1).sum(0), (da_o * c).sum(0)]
        grads = {
            "W_x": x.T @ da,
            "W_h": h_tm1.T @ da,
            "b": da.sum(0),
            "p": np.stack(rows),
            "W_p": m.T @ dh,
        }
        return {"h": da @ p["W_h"].T, "c": dc_tm1}, da @ p["W_x"].T, grads

    return forward, backward


def gru(reset_after=True):
    """Gates r z n; the reset after the matrix product, or before it."""

    def forward(p, x, s):
        h_tm1 = s["h"]
        n_h = h_tm1.shape[1]
        u = plus(x @ p["W_x"], p["b"])
        v = h_tm1 @ p["W_h"][:, : 2 * n_h]
        r = sigmoid(u[:, :n_h] + v[:, :n_h])
        z = sigmoid(u[:, n_h : 2 * n_h] + v[:, n_h:])
        W_n = p["W_h"][:, 2 * n_h :]
        q = plus(h_tm1 @ W_n, p["b_h"]) if reset_after else None
        inner = r * q if reset_after else (r * h_tm1) @ W_n
        n = np.tanh(u[:, 2 * n_h :] + inner)
        h = (1 - z) * n + z * h_tm1
        return {"h": h}, (x, h_tm1, r, z, n, q)

    def backward(p, needs, ds):
        x, h_tm1, r, z, n, q = needs
        n_h, dh = h_tm1.shape[1], ds["h"]
        W_n = p["W_h"][:, 2 * n_h :]
        da_n = dh * (1 - z) * (1 - n**2)
        da_z = dh * (h_tm1 - n) * z * (1 - z)
        if reset_after:
            dq = da_n * r
            dr = da_n * q
            dh_tm1, dW_n, db_h = dq @ W_n.T, h_tm1.T @ dq, dq.sum(0)
        else:
            d_reset = da_n @ W_n.T
            dr = d_reset * h_tm1
            dh_tm1, dW_n, db_h = d_reset * r, (r * h_tm1).T @ da_n, None
        da_r = dr * r * (1 - r)
        da_rz = np.concatenate([da_r, da_z], axis=1)
        da = np.concatenate([da_rz, da_n], axis=1)
        dh_tm1 = dh_tm1 + dh * z + da_rz @ p["W_h"][:, : 2 * n_h].T
        dW_h = np.concatenate([h_tm1.T @ da_rz, dW_n], axis=1)
        grads = {"W_x": x.T @ da, "W_h": dW_h, "b": da.sum(0), "b_h": db_h}
        return {"h": dh_tm1}, da @ p["W_x"].T, grads

    return forward, backward


EPSILON = 1e-5


def normalise(a, gain, shift):
    """Layer normalisation over the last axis, and what its backward step needs."""
    spread = np.sqrt(a.var(-1, keepdims=True) + EPSILON)
    z = (a - a.mean(-1, keepdims=True)) / spread
    return z * gain + shift, (z, spread, gain)


def denormalise(needs, dy):
    """The derivative of `normalise`: for a, gain and shift."""
    z, spread, gain = needs
    dz = dy * gain
    mean = lambda b: b.mean(-1, keepdims=True)
    return (dz - mean(dz) - z * mean(dz * z)) / spread, (dy * z).sum(0), dy.sum(0)


def layer_norm_elman():
    """h_t = tanh(LN(x_t W_x + h_{t-1} W_h; g, b))."""

    def forward(p, x, s):
        a, needs = normalise(x @ p["W_x"] + s["h"] @ p["W_h"], p["g"], p["b"])
        return {"h": np.tanh(a)}, (x, s["h"], needs, np.tanh(a))

    def backward(p, needs, ds):
        x, h_tm1, norm, h = needs
        delta, dg, db = denormalise(norm, ds["h"] * (1 - h**2))
        grads = {"W_x": x.T @ delta, "W_h": h_tm1.T @ delta, "g": dg, "b": db}
        return {"h": delta @ p["W_h"].T}, delta @ p["W_x"].T, grads

    return forward, backward


def layer_norm_lstm():
    """Gates i f g o of LN(x W_x) + LN(h W_h); h = o tanh(LN(c))."""

    def forward(p, x, s):
        u, norm_x = normalise(x @ p["W_x"], p["g_x"], p["b"])
        v, norm_h = normalise(s["h"] @ p["W_h"], p["g_h"], 0.0)
        a_i, a_f, a_g, a_o = np.split(u + v, 4, axis=1)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c = f * s["c"] + i * g
        m, norm_c = normalise(c, p["g_c"], p["b_c"])
        h = o * np.tanh(m)
        needs = (x, s["h"], s["c"], i, f, g, o, np.tanh(m), norm_x, norm_h, norm_c)
        return {"h": h, "c": c}, needs

    def backward(p, needs, ds):
        x, h_tm1, c_tm1, i, f, g, o, shown, norm_x, norm_h, norm_c = needs
        dh = ds["h"]
        through, dg_c, db_c = denormalise(norm_c, dh * o * (1 - shown**2))
        dc = ds["c"] + through
        da_i, da_f = dc * g * i * (1 - i), dc * c_tm1 * f * (1 - f)
        da_g, da_o = dc * i * (1 - g**2), dh * shown * o * (1 - o)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        du, dg_x, db = denormalise(norm_x, da)
        dv, dg_h, _ = denormalise(norm_h, da)
        grads = {"W_x": x.T @ du, "W_h": h_tm1.T @ dv, "g_x": dg_x, "g_h": dg_h}
        grads |= {"b": db, "g_c": dg_c, "b_c": db_c}
        return {"h": dv @ p["W_h"].T, "c": dc * f}, du @ p["W_x"].T, grads

    return forward, backward


def layer_norm_gru():
    """Gates r z normalised together and n alone, reset after the product."""

    def apart(a, gain, shift):
        two = 2 * a.shape[1] // 3
        shift = np.zeros_like(gain) if shift is None else shift
        rz, needs_rz = normalise(a[:, :two], gain[:two], shift[:two])
        n, needs_n = normalise(a[:, two:], gain[two:], shift[two:])
        return rz, n, (needs_rz, needs_n)

    def together(needs, d_rz, d_n):
        pairs = zip(
            denormalise(needs[0], d_rz), denormalise(needs[1], d_n), strict=True
        )
        return [np.concatenate(pair, axis=-1) for pair in pairs]

    def forward(p, x, s):
        u_rz, u_n, norm_x = apart(x @ p["W_x"], p["g_x"], p["b"])
        v_rz, v_n, norm_h = apart(s["h"] @ p["W_h"], p["g_h"], None)
        r, z = np.split(sigmoid(u_rz + v_rz), 2, axis=1)
        n = np.tanh(u_n + r * v_n)
        h = (1 - z) * n + z * s["h"]
        return {"h": h}, (x, s["h"], r, z, n, v_n, norm_x, norm_h)

    def backward(p, needs, ds):
        x, h_tm1, r, z, n, v_n, norm_x, norm_h = needs
        dh = ds["h"]
        da_n = dh * (1 - z) * (1 - n**2)
        da_z = dh * (h_tm1 - n) * z * (1 - z)
        da_r = da_n * v_n * r * (1 - r)
        da_rz = np.concatenate([da_r, da_z], axis=1)
        du, dg_x, db = together(norm_x, da_rz, da_n)
        dv, dg_h, _ = together(norm_h, da_rz, da_n * r)
        grads = {"W_x": x.T @ du, "W_h": h_tm1.T @ dv}
        grads |= {"g_x": dg_x, "g_h": dg_h, "b": db}
        return {"h": dh * z + dv @ p["W_h"].T}, du @ p["W_x"].T, grads

    return forward, backward


# Cells for parallel evaluation. The gradient of a complex state is the d for which a
# small change e of the state changes the loss by Re(d e): products then have the same
# backward formulas as for real numbers, and real parameters take the real part.


def min_gru(activation="identity"):
    """h_t = (1 - z) h_{t-1} + z n, with z and n functions of the input only."""
    phi, slope = ACTIVATIONS[activation]

    def forward(p, x, s):
        u_z, u_n = np.split(plus(x @ p["W_x"], p["b"]), 2, axis=1)
        z, n = sigmoid(u_z), phi(u_n)
        return {"h": (1 - z) * s["h"] + z * n}, (x, s["h"], u_n, z, n)

    def backward(p, needs, ds):
        x, h_tm1, u_n, z, n = needs
        da_z = ds["h"] * (n - h_tm1) * z * (1 - z)
        da_n = ds["h"] * z * slope(u_n, n)
        da = np.concatenate([da_z, da_n], axis=1)
        grads = {"W_x": x.T @ da, "b": da.sum(0)}
        return {"h": ds["h"] * (1 - z)}, da @ p["W_x"].T, grads

    return forward, backward


def min_lstm(activation="identity"):
    """h_t = (f h_{t-1} + i n) / (f + i)."""
    phi, slope = ACTIVATIONS[activation]

    def forward(p, x, s):
        u_f, u_i, u_n = np.split(plus(x @ p["W_x"], p["b"]), 3, axis=1)
        f, i, n = sigmoid(u_f), sigmoid(u_i), phi(u_n)
        return {"h": (f * s["h"] + i * n) / (f + i)}, (x, s["h"], u_n, f, i, n)

    def backward(p, needs, ds):
        x, h_tm1, u_n, f, i, n = needs
        both = f + i
        d = ds["h"] * (h_tm1 - n) / both**2
        da_f, da_i = d * i * f * (1 - f), -d * f * i * (1 - i)
        da_n = ds["h"] * i / both * slope(u_n, n)
        da = np.concatenate([da_f, da_i, da_n], axis=1)
        grads = {"W_x": x.T @ da, "b": da.sum(0)}
        return {"h": ds["h"] * f / both}, da @ p["W_x"].T, grads

    return forward, backward


def complex_output(scale, features=None):
    """y_t = scale Re(h_t C) + x_t D, and its derivative; D reads the first features."""

    def output(p, x, s):
        C = p["C_re"] + 1j * p["C_im"]
        return scale * (s["h"] @ C).real + x[:, :features] @ p["D"]

    def backward(p, x, s, dy):
        C = p["C_re"] + 1j * p["C_im"]
        dC = scale * s["h"].T @ dy
        grads = {"C_re": dC.real, "C_im": -dC.imag, "D": x[:, :features].T @ dy}
        dx = np.zeros_like(x)
        dx[:, :features] = dy @ p["D"].T
        return {"h": scale * dy @ C.T}, dx, grads

    return output, backward


def lru():
    """h_t = exp(-exp(nu) + i exp(theta)) h_{t-1} + exp(gamma) (x_t B)."""

    def parts(p):
        lam = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
        return lam, np.exp(p["gamma_log"]), p["B_re"] + 1j * p["B_im"]

    def forward(p, x, s):
        lam, gamma, B = parts(p)
        return {"h": lam * s["h"] + gamma * (x @ B)}, (x, s["h"])

    def backward(p, needs, ds):
        (x, h_tm1), (lam, gamma, B), d = needs, parts(p), ds["h"]
        dlam, dB = (d * h_tm1).sum(0), x.T @ (d * gamma)
        grads = {
            "nu_log": (-dlam * lam * np.exp(p["nu_log"])).real,
            "theta_log": (1j * dlam * lam * np.exp(p["theta_log"])).real,
            "gamma_log": (d * gamma * (x @ B)).sum(0).real,
            "B_re": dB.real,
            "B_im": -dB.imag,
        }
        return {"h": d * lam}, ((d * gamma) @ B.T).real, grads

    return forward, backward, complex_output(1)


def s5(irregular=False):
    """h_t = exp(lam dt) h_{t-1} + (exp(lam dt) - 1) / lam (x_t B)."""
    features = -1 if irregular else None

    def parts(p, x):
        step = np.exp(p["log_step"])
        dt = step * x[:, -1:] if irregular else step * np.ones((len(x), 1))
        lam = p["Lambda_re"] + 1j * p["Lambda_im"]
        a = np.exp(lam * dt)
        return step, dt, lam, a, (a - 1) / lam, p["B_re"] + 1j * p["B_im"]

    def forward(p, x, s):
        _, _, _, a, held, B = parts(p, x)
        return {"h": a * s["h"] + held * (x[:, :features] @ B)}, (x, s["h"])

    def backward(p, needs, ds):
        (x, h_tm1), d = needs, ds["h"]
        step, dt, lam, a, held, B = parts(p, x)
        da, dheld = d * h_tm1, d * (x[:, :features] @ B)
        dlam = (da * dt * a + dheld * (dt * a - held) / lam).sum(0)
        ddt = (da * lam * a + dheld * a).real
        dB = x[:, :features].T @ (d * held)
        grads = {"Lambda_re": dlam.real, "Lambda_im": -dlam.imag}
        grads |= {"log_step": (ddt * dt).sum(0), "B_re": dB.real, "B_im": -dB.imag}
        dx = np.zeros_like(x)
        dx[:, :features] = ((d * held) @ B.T).real
        if irregular:
            dx[:, -1] = (ddt * step).sum(1)
        return {"h": d * a}, dx, grads

    return forward, backward, complex_output(2, features)


def rg_lru(unscaled_start=False):
    """h_t = a h_{t-1} + sqrt(1 - a^2) i x_t, a = sigmoid(Lambda)^(8 r).

    With `unscaled_start` the root is 1 where the state is fresh; for values of `fresh`
    between 0 and 1, which central differences need, it is interpolated.
    """
    if unscaled_start:
        return _rg_lru_from_starts()

    def forward(p, x, s):
        v = x if p["W_x"] is None else x @ p["W_x"]
        r, i = np.split(sigmoid(plus(v @ p["W_g"], p["b"])), 2, axis=1)
        a = sigmoid(p["Lambda"]) ** (8 * r)
        root = np.sqrt(1 - a**2)
        return {"h": a * s["h"] + root * i * v}, (x, v, s["h"], r, i, a, root)

    def backward(p, needs, ds):
        x, v, h_tm1, r, i, a, root = needs
        dlog_a = ds["h"] * (h_tm1 - i * v * a / root) * a
        dr = dlog_a * 8 * np.log(sigmoid(p["Lambda"]))
        di = ds["h"] * root * v
        du = np.concatenate([dr * r * (1 - r), di * i * (1 - i)], axis=1)
        dv = ds["h"] * root * i + du @ p["W_g"].T
        dLambda = (dlog_a * 8 * r * (1 - sigmoid(p["Lambda"]))).sum(0)
        grads = {"Lambda": dLambda, "W_g": v.T @ du, "b": du.sum(0), "W_x": x.T @ dv}
        dx = dv if p["W_x"] is None else dv @ p["W_x"].T
        return {"h": ds["h"] * a}, dx, grads

    return forward, backward


def _rg_lru_from_starts():
    forward, backward = rg_lru()

    def with_starts(p, x, s):
        plain, needs = forward(p, x, s)
        _, v, _, _, i, _, root = needs
        extra = (1 - root) * s["fresh"] * i * v
        fresh = np.zeros_like(extra)
        return {"h": plain["h"] + extra, "fresh": fresh}, (needs, s["fresh"])

    def backward_with_starts(p, needs, ds):
        (x, v, h_tm1, r, i, a, root), fresh = needs
        ds_tm1, dx, grads = backward(p, needs[0], ds)
        # The gradient of (1 - root) fresh i v; d root / da = -a / root.
        written = ds["h"] * fresh
        dlog_a = written * i * v * a * a / root
        dr = dlog_a * 8 * np.log(sigmoid(p["Lambda"]))
        di = written * (1 - root) * v
        du = np.concatenate([dr * r * (1 - r), di * i * (1 - i)], axis=1)
        dv = written * (1 - root) * i + du @ p["W_g"].T
        grads["Lambda"] += (dlog_a * 8 * r * (1 - sigmoid(p["Lambda"]))).sum(0)
        grads["W_g"] += v.T @ du
        grads["b"] += du.sum(0)
        grads["W_x"] += x.T @ dv
        dx += dv if p["W_x"] is None else dv @ p["W_x"].T
        ds_tm1["fresh"] = ds["h"] * (1 - root) * i * v
        return ds_tm1, dx, grads

    return with_starts, backward_with_starts


def sru(highway=3**0.5):
    """c_t = f c_{t-1} + (1 - f) n; y_t = r c_t + (1 - r) times the input, scaled."""

    def forward(p, x, s):
        u_f, n = np.split(x @ p["W_x"], 2, axis=1)
        f = sigmoid(plus(u_f, p["b_f"]))
        return {"c": f * s["c"] + (1 - f) * n}, (x, s["c"], f, n)

    def backward(p, needs, ds):
        x, c_tm1, f, n = needs
        da_f = ds["c"] * (c_tm1 - n) * f * (1 - f)
        da = np.concatenate([da_f, ds["c"] * (1 - f)], axis=1)
        grads = {"W_x": x.T @ da, "b_f": da_f.sum(0)}
        return {"c": ds["c"] * f}, da @ p["W_x"].T, grads

    def gates(p, x):
        passed = highway * x if p["W_s"] is None else x @ p["W_s"]
        return sigmoid(plus(x @ p["W_r"], p["b_r"])), passed

    def output(p, x, s):
        r, passed = gates(p, x)
        return r * s["c"] + (1 - r) * passed

    def output_backward(p, x, s, dy):
        r, passed = gates(p, x)
        da_r, dpassed = dy * (s["c"] - passed) * r * (1 - r), dy * (1 - r)
        grads = {"W_r": x.T @ da_r, "b_r": da_r.sum(0), "W_s": x.T @ dpassed}
        dx = da_r @ p["W_r"].T
        down = highway * dpassed if p["W_s"] is None else dpassed @ p["W_s"].T
        dx = dx + down
        return {"c": dy * r}, dx, grads

    return forward, backward, (output, output_backward)


def ind_rnn(activation="relu"):
    """h_t = phi(x_t W_x + w_h h_{t-1} + b)."""
    phi, slope = ACTIVATIONS[activation]

    def forward(p, x, s):
        a = plus(x @ p["W_x"] + p["w_h"] * s["h"], p["b"])
        return {"h": phi(a)}, (x, s["h"], a, phi(a))

    def backward(p, needs, ds):
        x, h_tm1, a, h = needs
        delta = ds["h"] * slope(a, h)
        grads = {"W_x": x.T @ delta, "w_h": (h_tm1 * delta).sum(0), "b": delta.sum(0)}
        return {"h": delta * p["w_h"]}, delta @ p["W_x"].T, grads

    return forward, backward


def diagonal_lstm(coupled=False):
    """Gates i f g o, or f g o with i = 1 - f; peepholes p if present."""
    gates = 3 if coupled else 4

    def forward(p, x, s):
        h_tm1, c_tm1 = s["h"], s["c"]
        a = plus(x @ p["W_x"] + p["w_h"] * np.tile(h_tm1, gates), p["b"])
        *before, a_g, a_o = np.split(a, gates, axis=1)
        if p["p"] is not None:
            before = [before[j] + p["p"][j] * c_tm1 for j in range(gates - 2)]
        f, g = sigmoid(before[-1]), np.tanh(a_g)
        i = 1 - f if coupled else sigmoid(before[0])
        c = f * c_tm1 + i * g
        o = sigmoid(a_o if p["p"] is None else a_o + p["p"][-1] * c)
        return {"h": o * np.tanh(c), "c": c}, (x, h_tm1, c_tm1, i, f, g, o, c)

    def backward(p, needs, ds):
        x, h_tm1, c_tm1, i, f, g, o, c = needs
        da_o = ds["h"] * np.tanh(c) * o * (1 - o)
        dc = ds["c"] + ds["h"] * o * (1 - np.tanh(c) ** 2)
        if p["p"] is not None:
            dc = dc + da_o * p["p"][-1]
        df = dc * (c_tm1 - g) if coupled else dc * c_tm1
        before = [] if coupled else [dc * g * i * (1 - i)]
        before.append(df * f * (1 - f))
        dc_tm1 = dc * f
        if p["p"] is not None:
            dc_tm1 = dc_tm1 + sum(p["p"][j] * d for j, d in enumerate(before))
        da = np.concatenate([*before, dc * i * (1 - g**2), da_o], axis=1)
        rows = [*((d * c_tm1).sum(0) for d in before), (da_o * c).sum(0)]
        through = np.split(da * p["w_h"], gates, axis=1)
        grads = {
            "W_x": x.T @ da,
            "w_h": (np.tile(h_tm1, gates) * da).sum(0),
            "b": da.sum(0),
            "p": np.stack(rows),
        }
        return {"h": sum(through), "c": dc_tm1}, da @ p["W_x"].T, grads

    return forward, backward


def diagonal_gru():
    """Gates r z n; the reset before and after an elementwise product is the same."""

    def forward(p, x, s):
        w_r, w_z, w_n = np.split(p["w_h"], 3)
        u_r, u_z, u_n = np.split(plus(x @ p["W_x"], p["b"]), 3, axis=1)
        r, z = sigmoid(u_r + w_r * s["h"]), sigmoid(u_z + w_z * s["h"])
        n = np.tanh(u_n + w_n * (r * s["h"]))
        return {"h": (1 - z) * n + z * s["h"]}, (x, s["h"], r, z, n)

    def backward(p, needs, ds):
        (x, h_tm1, r, z, n), dh = needs, ds["h"]
        w_r, w_z, w_n = np.split(p["w_h"], 3)
        da_n = dh * (1 - z) * (1 - n**2)
        da_z = dh * (h_tm1 - n) * z * (1 - z)
        da_r = da_n * w_n * h_tm1 * r * (1 - r)
        da = np.concatenate([da_r, da_z, da_n], axis=1)
        seen = np.concatenate([h_tm1, h_tm1, r * h_tm1], axis=1)
        grads = {"W_x": x.T @ da, "w_h": (seen * da).sum(0), "b": da.sum(0)}
        dh_tm1 = dh * z + w_r * da_r + w_z * da_z + w_n * r * da_n
        return {"h": dh_tm1}, da @ p["W_x"].T, grads

    return forward, backward


def show(cell):
    """Returns output(p, x_t, s_t) of a cell, and its derivative; the default is h_t."""
    if len(cell) == 3:
        return cell[2]
    return lambda p, x, s: s["h"], lambda p, x, s, dy: ({"h": dy}, 0.0, {})


def feedforward(activation="tanh"):
    """y_t = phi(x_t W_x + b), without a state."""
    phi, slope = ACTIVATIONS[activation]

    def output(p, x, s):
        del s
        return phi(plus(x @ p["W_x"], p["b"]))

    def output_backward(p, x, s, dy):
        del s
        a = plus(x @ p["W_x"], p["b"])
        delta = dy * slope(a, phi(a))
        return {}, delta @ p["W_x"].T, {"W_x": x.T @ delta, "b": delta.sum(0)}

    forward = lambda p, x, s: ({}, x)
    backward = lambda p, x, ds: ({}, np.zeros_like(x), {})
    return forward, backward, (output, output_backward)


def unroll(cell, p, xs, s):
    """Returns the final state, outputs (T, B, m), all states, and BPTT's residuals."""
    forward, (output, _) = cell[0], show(cell)
    states, ys, needs = [], [], []
    for x in xs:
        s, need = forward(p, x, s)
        states.append(s)
        ys.append(output(p, x, s))
        needs.append(need)
    return s, np.stack(ys), states, needs


def bptt(cell, p, xs, s_0, dys, ds_T):
    """Backpropagation through time, given the direct dL/dy_t and the final dL/ds_T.

    Returns the parameters' gradients, dL/dxs, dL/ds_0, and every total dL/ds_t.
    """
    backward, (_, output_backward) = cell[1], show(cell)
    _, _, states, needs = unroll(cell, p, xs, s_0)
    ds = {name: np.array(d) for name, d in ds_T.items()}
    totals = {name: 0.0 for name, value in p.items() if value is not None}
    dxs, adjoints = [None] * len(xs), [None] * len(xs)
    for t in reversed(range(len(xs))):
        direct, dx, shown = output_backward(p, xs[t], states[t], dys[t])
        ds = {name: d + direct.get(name, 0.0) for name, d in ds.items()}
        adjoints[t] = ds  # the direct gradient plus what flows back
        ds, dxs[t], grads = backward(p, needs[t], ds)
        dxs[t] = dxs[t] + dx
        for name in totals:
            totals[name] = totals[name] + grads.get(name, 0.0) + shown.get(name, 0.0)
    return totals, np.stack(dxs), ds, adjoints


def one_hot(ids, size):
    """Returns rows of the identity."""
    return np.eye(size)[ids]


def log_softmax(a):
    """Returns a - log sum exp a, without overflow."""
    a = a - a.max(-1, keepdims=True)
    return a - np.log(np.exp(a).sum(-1, keepdims=True))


def notes_model(p, W_y, b_y, xs, ys, h_0):
    """The notes' whole model: Elman, dense, softmax, L = (1/T) sum_t l(yhat_t, y_t).

    xs (T, B, k), ys (T, B) labels; the mean over the batch as well. Returns L, the
    gradients of W_x, W_h, b, W_y, b_y, and every dL/dh_t, (T, B, h).
    """
    T, B = ys.shape
    cell = elman("tanh")
    hs = unroll(cell, p, xs, {"h": h_0})[1]
    log_p = log_softmax(hs @ W_y + b_y)
    onehot = one_hot(ys, len(b_y))
    loss = -(log_p * onehot).sum() / (T * B)
    dlogits = (np.exp(log_p) - onehot) / (T * B)
    dW_y = sum(hs[t].T @ dlogits[t] for t in range(T))
    direct = dlogits @ W_y.T
    grads, _, _, adjoints = bptt(
        cell, p, xs, {"h": h_0}, direct, {"h": np.zeros_like(h_0)}
    )
    grads = {**grads, "W_y": dW_y, "b_y": dlogits.sum((0, 1))}
    return loss, grads, np.stack([a["h"] for a in adjoints]), direct


def differences(f, array, step=1e-6):
    """Returns the gradient of f() with respect to `array`, by central differences.

    Changes the entries of `array` in place, one at a time, and restores them.
    """
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = f()
        array[index] = kept - step
        below = f()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient
