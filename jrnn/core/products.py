"""Matrix products: their dtype and precision, input projections, gates side by side.

A product is computed in the type of its matrix, and accumulated in that of the state.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, Num

from jrnn.core.arguments import tell
from jrnn.core.cell import Gates
from jrnn.core.dtypes import state_dtype
from jrnn.core.integers import token_ids
from jrnn.core.layout import axes_merge

Precision = str | None  # what `jax.default_matmul_precision` takes


def check_precision(precision: Any) -> None:
    """Raises ValueError unless JAX accepts the precision."""
    try:
        with products_at(precision):
            pass
    except (TypeError, ValueError) as error:
        raise ValueError(
            'Expected precision to be None, "default", "high", "highest" or another '
            f"that jax.default_matmul_precision takes, got {tell(precision)}."
        ) from error


def products_at(precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which every matrix product runs at `precision`."""
    if precision is None:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(precision)


def product(
    x: Inexact[Array, "*batch k"], W: Inexact[Array, "k n"], dtype: DTypeLike
) -> Inexact[Array, "*batch n"]:
    """Returns x W: computed in the type of W, accumulated in `dtype`."""
    x, lead = x.astype(W.dtype), x.shape[:-1]
    merge = x.ndim > 2 and axes_merge()
    rows = x.reshape(-1, x.shape[-1]) if merge else x
    y = jnp.matmul(rows, W, preferred_element_type=jnp.dtype(dtype))
    return y.reshape(*lead, y.shape[-1]) if merge else y


def contract(
    a: Inexact[Array, "*steps m"], b: Inexact[Array, "*steps n"]
) -> Inexact[Array, "m n"]:
    """Returns sum_t a_t^T b_t, over time and batch.

    On a mesh it is computed as the gradient of a product with W, where W has the type
    of a parameter: from it JAX derives over which devices a split batch is summed.
    """
    if jax.sharding.get_abstract_mesh().empty:
        steps = tuple(range(a.ndim - 1))
        return jnp.tensordot(a, b, axes=(steps, steps))
    W = jnp.zeros((a.shape[-1], b.shape[-1]), a.dtype) + jnp.zeros_like(a).sum()
    return jax.vjp(lambda W: product(a, W, b.dtype), W)[1](b)[0]


def project_dense(
    W_x: Inexact[Array, "k n"],
    b: Inexact[Array, " n"] | None,
    x: Num[Array, "..."],
) -> Inexact[Array, "*batch n"]:
    """Returns u = x W_x + b, or the rows W_x[x] + b where x holds token ids.

    A row lookup equals a product of one-hot vectors with W_x. An id outside 0..k-1
    gives NaN; a plain gather would clamp it without an error.
    """
    dtype = state_dtype(W_x, x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        # Cast first: the gradient sums the rows of equal ids in the type of the table.
        # `token_ids`, because JAX would use the lower 32 bits of a 64-bit index.
        u = (
            W_x.astype(dtype)
            .at[token_ids(x)]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        )
    else:
        u = product(x, W_x, dtype)
    return u if b is None else u + expand(b.astype(dtype), u.ndim)


def expand(vector: Array, ndim: int) -> Array:
    """Prepends axes of size 1, so that `vector` broadcasts against rank `ndim`."""
    return vector.reshape((1,) * (ndim - vector.ndim) + vector.shape)


def split_gates(array: Array | Gates, gates: int) -> Gates:
    """Splits the last axis into `gates` equal arrays; returns a tuple unchanged."""
    return array if isinstance(array, tuple) else tuple(jnp.split(array, gates, -1))


def merge_gates(arrays: Gates) -> Array:
    """Concatenates gate arrays along the last axis: the inverse of `split_gates`."""
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def spectral_norm(matrix: Array) -> Array:
    """Returns the largest singular value of each matrix."""
    return jnp.linalg.svd(matrix, compute_uv=False)[..., 0]
