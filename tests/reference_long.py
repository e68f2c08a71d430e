"""The reference of the cells for long memory: NumPy loops, as in tests/reference.py.

The exponential of a skew-symmetric S is taken by the eigenvalues of the Hermitian iS,
which shares no idea with scaling and squaring, and its derivative by divided
differences.
"""

import numpy as np

from tests.reference import plus, sigmoid


def rotation(A):
    """Returns expm(A - A^T), and the pullback from its gradient to that of A."""
    w, U = np.linalg.eigh(1j * (A - A.T))  # A - A^T = U diag(-i w) U^H
    W = (U * np.exp(-1j * w)) @ U.conj().T

    def pull(dW):
        # Divided differences of exp between -i w_i and -i w_j.
        middle = np.exp(-0.5j * (w[:, None] + w[None]))
        slopes = middle * np.sinc((w[:, None] - w[None]) / (2 * np.pi))
        dS = U @ (slopes.conj() * (U.conj().T @ dW @ U)) @ U.conj().T
        return (dS - dS.T).real

    return W.real, pull


def exp_rnn():
    """h_t = modReLU(x_t W_x + h_{t-1} expm(A - A^T))."""

    def forward(p, x, s):
        a = x @ p["W_x"] + s["h"] @ rotation(p["A"])[0]
        return {"h": np.sign(a) * np.maximum(np.abs(a) + p["b"], 0)}, (x, s["h"], a)

    def backward(p, needs, ds):
        x, h_tm1, a = needs
        W_h, pull = rotation(p["A"])
        da = ds["h"] * (np.abs(a) + p["b"] > 0)
        grads = {"W_x": x.T @ da, "A": pull(h_tm1.T @ da)}
        grads["b"] = (da * np.sign(a)).sum(0)
        return {"h": da @ W_h.T}, da @ p["W_x"].T, grads

    return forward, backward


def antisymmetric_rnn(epsilon, gamma, gated=False):
    """h_t = h_{t-1} + epsilon [z_t] n_t, both gates by M = W_h - W_h^T - gamma I."""

    def matrix(p):
        return p["W_h"] - p["W_h"].T - gamma * np.eye(len(p["W_h"]))

    def forward(p, x, s):
        v = s["h"] @ matrix(p)
        u = plus(x @ p["W_x"], p["b"])
        z = sigmoid(u[:, : v.shape[1]] + v) if gated else np.ones_like(v)
        n = np.tanh(u[:, -v.shape[1] :] + v)
        return {"h": s["h"] + epsilon * z * n}, (x, s["h"], z, n)

    def backward(p, needs, ds):
        x, h_tm1, z, n = needs
        da_n = epsilon * ds["h"] * z * (1 - n**2)
        da_z = epsilon * ds["h"] * n * z * (1 - z)
        da = np.concatenate([da_z, da_n], axis=1) if gated else da_n
        dv = da_n + da_z  # without a gate z = 1, and da_z = 0
        dM = h_tm1.T @ dv
        grads = {"W_x": x.T @ da, "W_h": dM - dM.T, "b": da.sum(0)}
        return {"h": ds["h"] + dv @ matrix(p).T}, da @ p["W_x"].T, grads

    return forward, backward


def co_rnn(dt, gamma, epsilon, implicit=False):
    """h'' = tanh(a) - gamma h - epsilon h', damped before or after the step."""

    def forward(p, x, s):
        h_tm1, z_tm1 = s["h"], s["z"]
        half = h_tm1.shape[1]
        v = h_tm1 @ p["W_h"][:half] + z_tm1 @ p["W_h"][half:]
        drive = np.tanh(plus(x @ p["W_x"] + v, p["b"]))
        if implicit:
            z = (z_tm1 + dt * (drive - gamma * h_tm1)) / (1 + dt * epsilon)
        else:
            z = z_tm1 + dt * (drive - gamma * h_tm1 - epsilon * z_tm1)
        return {"h": h_tm1 + dt * z, "z": z}, (x, h_tm1, z_tm1, drive)

    def backward(p, needs, ds):
        x, h_tm1, z_tm1, drive = needs
        half = h_tm1.shape[1]
        dz = ds["z"] + dt * ds["h"]
        if implicit:
            dz = dz / (1 + dt * epsilon)
        da = dz * dt * (1 - drive**2)
        grads = {"W_x": x.T @ da, "b": da.sum(0)}
        grads["W_h"] = np.concatenate([h_tm1.T @ da, z_tm1.T @ da])
        dh_tm1 = ds["h"] - dt * gamma * dz + da @ p["W_h"][:half].T
        dz_tm1 = dz * (1 if implicit else 1 - dt * epsilon) + da @ p["W_h"][half:].T
        return {"h": dh_tm1, "z": dz_tm1}, da @ p["W_x"].T, grads

    return forward, backward


def lem(dt):
    """Two averages, z and h, with their own step sizes s and r."""

    def forward(p, x, s):
        h_tm1, z_tm1 = s["h"], s["z"]
        u_s, u_r, u_n, u_m = np.split(plus(x @ p["W_x"], p["b"]), 4, axis=1)
        v_s, v_r, v_n = np.split(h_tm1 @ p["W_h"], 3, axis=1)
        g_s, g_r, n = sigmoid(u_s + v_s), sigmoid(u_r + v_r), np.tanh(u_n + v_n)
        z = z_tm1 + dt * g_s * (n - z_tm1)
        m = np.tanh(u_m + z @ p["W_z"])
        h = h_tm1 + dt * g_r * (m - h_tm1)
        return {"h": h, "z": z}, (x, h_tm1, z_tm1, g_s, g_r, n, z, m)

    def backward(p, needs, ds):
        x, h_tm1, z_tm1, g_s, g_r, n, z, m = needs
        dh = ds["h"]
        da_m = dh * dt * g_r * (1 - m**2)
        da_r = dh * dt * (m - h_tm1) * g_r * (1 - g_r)
        dz = ds["z"] + da_m @ p["W_z"].T
        da_s = dz * dt * (n - z_tm1) * g_s * (1 - g_s)
        da_n = dz * dt * g_s * (1 - n**2)
        through = np.concatenate([da_s, da_r, da_n], axis=1)
        da = np.concatenate([through, da_m], axis=1)
        grads = {"W_x": x.T @ da, "W_h": h_tm1.T @ through, "W_z": z.T @ da_m}
        grads["b"] = da.sum(0)
        dh_tm1 = dh * (1 - dt * g_r) + through @ p["W_h"].T
        return {"h": dh_tm1, "z": dz * (1 - dt * g_s)}, da @ p["W_x"].T, grads

    return forward, backward
