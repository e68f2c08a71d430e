r"""Regressions of a value on the values before it, for each order from 0 to k.

    x_t = b_m + x_{t-1} A_{m,1} + ... + x_{t-m} A_{m,m} + e_t,    e_t ~ N(0, Q_m)

Each is fitted by least squares on all windows of m + 1 known values that do not cross a
gap or the end of a sequence. Values are centred, and the system is solved by a singular
value decomposition of the lagged values; the normal equations would square its
condition number.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


class Regressions(NamedTuple):
    """The regressions of order 0 to k, stacked; n is 1 if there is no size.

    Attributes:
      A: A[m, j - 1] multiplies x_{t-j} in the regression of order m; 0 for j > m.
      b: Intercepts.
      Q: Covariances of residuals over the number of windows (maximum likelihood).
    """

    A: Float[Array, "m k n n"]
    b: Float[Array, "m n"]
    Q: Float[Array, "m n n"]


def regress_orders(
    xs: np.ndarray, known: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits A, b and Q of every order up to `order`, in float64.

    Args:
      xs: (T, B, n).
      known: (T, B), whether all components of a value are known.
      order: k.

    Raises:
      ValueError: There are too few windows for an order, or residuals have no variance.
    """
    n = xs.shape[-1]
    A = np.zeros((order + 1, order, n, n))
    b, Q = np.zeros((order + 1, n)), np.zeros((order + 1, n, n))
    for m in range(order + 1):
        Y, X = _windows(xs, known, m)
        _check_count(len(Y), m, n)
        A[m, :m], b[m], Q[m] = _regress(Y, X)
        _check_spread(Q[m], m)
    return A, b, Q


def _windows(
    xs: np.ndarray, known: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each value that follows m known ones, (N, n), and those, (N, m, n)."""
    T = max(len(xs) - m, 0)
    lags = [slice(m - j, m - j + T) for j in range(m + 1)]  # 0 is the value itself
    whole = np.all([known[lag] for lag in lags], axis=0)
    values = np.stack([xs[lag][whole] for lag in lags], axis=1)
    return values[:, 0], values[:, 1:]


def _regress(Y: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    N, m, n = X.shape
    y_mean, x_mean = Y.mean(axis=0), X.mean(axis=0)
    flat = (X - x_mean).reshape(N, m * n)
    A = np.linalg.lstsq(flat, Y - y_mean, rcond=None)[0]
    e = Y - y_mean - flat @ A
    b = y_mean - x_mean.reshape(m * n) @ A
    return A.reshape(m, n, n), b, e.T @ e / N


def _check_count(count: int, m: int, n: int) -> None:
    least = (m + 1) * n + 1  # the intercept, the lags, and n for the residuals
    if count < least:
        raise ValueError(
            f"Expected at least {least} windows of {m + 1} known values to fit order "
            f"{m}, got {count}; take a lower order, or more or longer sequences."
        )


def _check_spread(Q: np.ndarray, m: int) -> None:
    try:
        np.linalg.cholesky(Q)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"Expected values that the regression of order {m} does not predict "
            "exactly, got residuals without variance in some direction; leave out "
            "components that are constant or sums of others."
        ) from error
