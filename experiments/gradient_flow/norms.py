r"""How the norm of dh_t/dh_k goes with the lag t - k, beside the notes' bound.

Two halves of one argument. With beta < 1 gradients must vanish, whatever the network
does. With beta > 1 they may explode; three networks of the same beta show that they
need not: one meets the bound, one is held back by the slopes of tanh, and one by
directions that no later step stretches again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jrnn
from jrnn.diagnostics import jacobian_bound, jacobian_products_by_lag

INPUTS = 2
# Rounding of measured norms against the bound, in their logarithms.
SLACK = 1e-12
# The counter-examples: their beta, and the spectral radius of the one that is not
# normal. Inputs of the saturated network are this many times as large. Chains are
# short: along long ones the rounding of a step would grow as gradients do.
BETA, RADIUS, LOUD, CHAIN = 1.5, 0.5, 20.0, 8


class Curve(NamedTuple):
    """Norms against lag; logarithms to base e.

    Attributes:
      log_norms: log ||ds_{k+l}/ds_k|| for l = 0..lags, the median over
        sequences: of one whose units have died it is -inf, here None.
      log_beta: Of the bound: l log beta.
      proven: Whether that bound is proven.
      broken: At how many lags of how many sequences a norm was above the bound.
    """

    log_norms: list[float | None]
    log_beta: float
    proven: bool
    broken: int


def measure(
    cell: jrnn.Cell, params: Any, xs: Array, state: Any = None, lags: int | None = None
) -> Curve:
    """Returns norms and bound of a cell along inputs (T, batch, k)."""
    found = jacobian_products_by_lag(cell, params, xs, state, lags=lags)
    norms = np.asarray(found[0], np.float64)
    bound = jacobian_bound(cell, params, xs, state)
    log_beta = np.asarray(bound.log_beta, np.float64)
    above = norms > np.arange(len(norms))[:, None] * log_beta[None] + SLACK
    middle = np.median(norms, axis=1)
    return Curve(
        log_norms=[float(x) if np.isfinite(x) else None for x in middle],
        log_beta=float(log_beta.max()),
        proven=bound.proven,
        broken=int(above.sum()),
    )


def by_radius(
    radii: tuple[float, ...], hidden: int, lags: int, batch: int, seed: int
) -> dict[str, Curve]:
    """Returns a curve for each spectral radius: an Elman network, W_h orthogonal.

    Every singular value of W_h is the radius, and so is beta.
    """
    cell = jrnn.elman(INPUTS, hidden)
    params = cell.init(jax.random.key(seed), jnp.float64)
    xs = _inputs(lags, batch, seed)
    return {
        f"{radius:g}": measure(cell, params._replace(W_h=radius * params.W_h), xs)
        for radius in radii
    }


def counter_examples(hidden: int, lags: int, batch: int, seed: int) -> dict[str, Curve]:
    """Returns curves of three networks, all with beta = `BETA`, and their names."""
    linear = jrnn.elman(INPUTS, hidden, activation=jrnn.activations.linear)
    squashed = jrnn.elman(INPUTS, hidden)
    params = linear.init(jax.random.key(seed), jnp.float64)
    params = params._replace(W_h=BETA * params.W_h)
    crooked = params._replace(W_h=not_normal(hidden))
    xs = _inputs(lags, batch, seed)
    return {
        "linear, orthogonal: meets the bound": measure(linear, params, xs),
        "tanh, saturated by its inputs": measure(squashed, params, LOUD * xs),
        f"linear, chains, spectral radius {RADIUS:g}": measure(linear, crooked, xs),
    }


def not_normal(size: int) -> Array:
    """Returns a triangular matrix of spectral radius `RADIUS` and norm `BETA`.

    Each unit keeps `RADIUS` of itself and hands itself on to the next: along a chain a
    gradient may grow, and where the chain ends it is gone.
    """
    links = np.diag(np.arange(1, size) % CHAIN != 0, k=1)
    matrix = lambda link: RADIUS * np.eye(size) + link * links
    least, most = 0.0, BETA
    for _ in range(60):  # the norm grows with the link: bisection, to rounding
        middle = (least + most) / 2
        short = np.linalg.norm(matrix(middle), 2) < BETA
        least, most = (middle, most) if short else (least, middle)
    return jnp.asarray(matrix(least))


def _inputs(steps: int, batch: int, seed: int) -> Array:
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return 0.3 * jax.random.normal(key, (steps, batch, INPUTS), jnp.float64)
