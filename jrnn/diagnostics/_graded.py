r"""Long products of Jacobians, without overflow and without losing small directions.

Over long lags such a product under- or overflows and its directions become parallel, so
that rounding may erase a direction that matters later. The transposed product is
therefore stored as Q diag(2^d) T: Q orthonormal, the exponents d integers, and the
largest entry of each row of T between 1 and 2. One step computes

    J^T Q = Q' R        columns first ordered by size
    diag(2^d') T' = R diag(2^d) T

Multiplication by a power of 2 is exact, so that d accumulates no rounding error.

R is triangular, so that rounding errors of large rows do not reach small ones (the
stratification of Bai et al. 2011, Linear Algebra and its Applications 435,
https://doi.org/10.1016/j.laa.2010.06.023).

The derivative goes through Q, R and T. The derivative of Q divides by the diagonal of
R, so that it is NaN where a J is singular.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.products import spectral_norm


class Product(NamedTuple):
    """Rows of a product, transposed and factorised as Q diag(2^d) T."""

    Q: Array
    d: Array
    T: Array


Factor = Callable[[Array], tuple[Array, Array]]


def multiply(product: Product, J: Array, factor: Factor) -> Product:
    """Returns the product times the Jacobian of one more step.

    The exponents d only choose units, which cancel: no derivative goes through them.
    """
    order = jnp.argsort(-product.d, axis=-1)
    d = jnp.take_along_axis(product.d, order, axis=-1)
    T = jnp.take_along_axis(product.T, order[..., None], axis=-2)
    M = jnp.take_along_axis(J.mT @ product.Q, order[..., None, :], axis=-1)
    Q, R = factor(M)
    new = (_exponent(R) + d[..., None, :]).max(axis=-1)  # -inf where a row is 0
    T = _scaled(R, d, new) @ T
    more = _exponent(T).max(axis=-1)
    T = T * _power(-jnp.where(jnp.isneginf(more), 0.0, more))[..., None]
    return Product(Q, new + more, T)


def qr(M: Array) -> tuple[Array, Array]:
    """Returns M = Q R, by Householder reflections."""
    Q, R = jnp.linalg.qr(M)
    return Q, R


def gram_schmidt(M: Array) -> tuple[Array, Array]:
    """Returns M = Q R, by Gram-Schmidt with each column orthogonalised twice.

    Each row of Q depends only on the same row of M, so that rows far smaller than the
    rest keep their digits and zeros stay 0; a reflection would spread the rounding
    error of the largest row to all others. A linearly dependent column is 0 in Q and R.
    """

    def column(Q: Array, j: Array) -> tuple[Array, Array]:
        left = jax.lax.dynamic_index_in_dim(M, j, axis=-1)
        r = jnp.zeros((*M.shape[:-2], M.shape[-1], 1), M.dtype)
        for _ in range(2):
            along = Q.mT @ left
            left, r = left - Q @ along, r + along
        size = _norm(left)
        q = left / jnp.where(size == 0, 1.0, size)
        Q = jax.lax.dynamic_update_index_in_dim(Q, q, j, axis=-1)
        return Q, jax.lax.dynamic_update_index_in_dim(r, size, j, axis=-2)[..., 0]

    Q, R = jax.lax.scan(column, jnp.zeros_like(M), jnp.arange(M.shape[-1]))
    return Q, jnp.moveaxis(R, 0, -1)


def _norm(column: Array) -> Array:
    """Returns the norm of columns (..., n, 1), as (..., 1, 1)."""
    largest = jax.lax.stop_gradient(jnp.abs(column).max(axis=-2, keepdims=True))
    scale = jnp.where(largest == 0, 1.0, largest)
    return scale * jnp.sqrt(jnp.square(column / scale).sum(axis=-2, keepdims=True))


def _exponent(x: Array) -> Array:
    """Returns floor(log2|x|), -inf where x is 0, without gradients."""
    return jax.lax.stop_gradient(jnp.floor(jnp.log2(jnp.abs(x))))


def _power(exponent: Array) -> Array:
    """Returns 2^exponent, exact and finite; the exponent is clipped."""
    limits = jnp.finfo(exponent.dtype)
    within = jnp.clip(exponent, 2 * limits.minexp, limits.maxexp - 1)
    return jnp.ldexp(jnp.ones_like(exponent), within.astype(jnp.int32))


def _scaled(R: Array, d: Array, new: Array) -> Array:
    """Returns diag(2^-new) R diag(2^d), whose entries are at most 2 in magnitude."""
    units = jnp.where(jnp.isneginf(new), 0.0, new)
    return jnp.triu(R) * jnp.triu(_power(d[..., None, :] - units[..., None]))


def log_norm(product: Product, columns: slice) -> Array:
    """Returns the log of the spectral norm of the given columns; -inf if it is 0."""
    Q, d, T = product
    most = d.max(axis=-1)
    scale = jnp.where(jnp.isneginf(most), 0.0, most)
    graded = _power(d - scale[..., None])[..., None] * T
    if columns != slice(None):
        graded = Q[..., columns, :] @ graded
    norm = spectral_norm(graded)
    known = jnp.log(jnp.where(norm == 0, 1.0, norm))
    return jnp.where(norm == 0, -jnp.inf, scale * jnp.log(2.0) + known)
