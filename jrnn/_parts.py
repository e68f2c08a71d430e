"""What cells are made of: types of numbers, products, gates, and how parts compose.

Each function here is one that a cell's equations need more than once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact, Int, Num

from jrnn._base import Cell, Gated, Gates, Key, Linear, Params, Saved, State
from jrnn._integers import token_ids

# Keeps the division defined where all units agree; the value that most libraries take
# by default (torch.nn.LayerNorm, 1e-5).
EPSILON = 1e-5


def float_leaves(tree: Any) -> list[Array]:
    """Returns the leaves of `tree` that are of a floating or complex type."""
    leaves = jax.tree.leaves(tree)
    return [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]


def state_dtype(*trees: Any) -> DTypeLike:
    """Returns the type of a state beside parameters and inputs: float64 or float32.

    The widest floating type that occurs, and float32 where that is narrower: a state
    kept in bfloat16 or float16 drifts. Integer leaves (token ids) do not count.
    """
    bits = [jnp.finfo(x.dtype).bits for x in float_leaves(trees)]
    return jnp.float64 if max(bits, default=32) == 64 else jnp.float32


def cast_state(state: State, dtype: DTypeLike) -> State:
    """Casts each floating leaf to `dtype`, complex ones to the complex type beside."""
    pair = jnp.complex128 if jnp.dtype(dtype) == jnp.float64 else jnp.complex64

    def cast(leaf: Array) -> Array:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return leaf.astype(pair)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf.astype(dtype)
        return leaf

    return jax.tree.map(cast, state)


def product(
    x: Inexact[Array, "*batch k"], W: Inexact[Array, "k n"], dtype: DTypeLike
) -> Inexact[Array, "*batch n"]:
    """Returns x W: computed in the type of W, accumulated in `dtype`."""
    x, lead = x.astype(W.dtype), x.shape[:-1]
    merge = x.ndim > 2 and axes_merge()
    rows = x.reshape(-1, x.shape[-1]) if merge else x
    y = jnp.matmul(rows, W, preferred_element_type=jnp.dtype(dtype))
    return y.reshape(*lead, y.shape[-1]) if merge else y


def axes_merge() -> bool:
    """Whether axes that lie one after the other in memory should be made one.

    The gradient of W sums over time and batch, and over two axes a CPU's compiler first
    copies what it sums, transposed. Copies of a step's batch and units take it longer
    to compile as two axes. A batch that is split over devices cannot be merged.
    """
    return jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().empty


def contract(
    a: Inexact[Array, "*steps m"], b: Inexact[Array, "*steps n"]
) -> Inexact[Array, "m n"]:
    """Returns sum_t a_t^T b_t, over time and batch.

    On a mesh it is what a product with W hands back to W, W being of the type of a
    parameter: so JAX knows where the sum over a batch that is split is to be whole.
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

    A row lookup is the same as one-hot vectors times W_x. An id outside 0..k-1 gives
    NaN: a plain gather would clamp it in silence.
    """
    dtype = state_dtype(W_x, x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        # Cast first: the gradient sums the rows of equal ids in the type of the table.
        # JAX looks 64 bits up by their lower 32.
        u = (
            W_x.astype(dtype)
            .at[token_ids(x)]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        )
    else:
        u = product(x, W_x, dtype)
    return u if b is None else u + expand(b.astype(dtype), u.ndim)


def expand(vector: Array, ndim: int) -> Array:
    """Puts axes of size 1 in front, so that `vector` broadcasts against rank `ndim`."""
    return vector.reshape((1,) * (ndim - vector.ndim) + vector.shape)


def sample_symbols(
    key: Key, log_p: Float[Array, "*batch v"], temperature: Num[Array, "..."]
) -> Int[Array, "*batch"]:
    """Draws from softmax(log_p / temperature); at 0 the most probable symbol.

    The temperature is one number, or one for each sequence, of the batch shape.
    """
    below = log_p - log_p.max(axis=-1, keepdims=True)
    # At temperature 0 the most probable symbol keeps 0, all others fall to -inf.
    heat = jnp.maximum(temperature.astype(log_p.dtype), jnp.finfo(log_p.dtype).tiny)
    heat = heat[..., None] if heat.ndim else heat
    return jax.random.categorical(key, below / heat, axis=-1).astype(jnp.int32)


def show(y: Array, x: Array, W_x: Array) -> Array:
    """Casts an output to the type of the inputs; of the parameters, for token ids."""
    integer = jnp.issubdtype(x.dtype, jnp.integer)
    return y.astype(W_x.dtype if integer else x.dtype)


def split_gates(array: Array | Gates, gates: int) -> Gates:
    """Cuts the last axis into `gates` arrays of equal size; leaves what is cut."""
    return array if isinstance(array, tuple) else tuple(jnp.split(array, gates, -1))


def merge_gates(arrays: Gates) -> Array:
    """Puts gate arrays side by side: the inverse of `split_gates`."""
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=-1)


def dense_inputs(params: Params) -> tuple[Array, Array | None]:
    """Returns W_x and b: `Gated.inputs` of cells whose input's share is x W_x + b."""
    return params.W_x, params.b


def recur(gated: Gated, params: Params, state: State) -> Array:
    """Returns v = h W + b, the recurrent share of all gates, (*batch, gates * n)."""
    W, b = gated.product(params)
    h = state[0]
    if W.ndim == 1:
        v = expand(W.astype(h.dtype), h.ndim) * h
    else:
        fields = W.shape[0] // h.shape[-1]
        v = product(merge_gates(tuple(state[:fields])), W, h.dtype)
    v = v if b is None else v + expand(b.astype(v.dtype), v.ndim)
    return merge_gates((v,) * (gated.gates * h.shape[-1] // v.shape[-1]))


def packed_product(
    gated: Gated, params: Params, state: State
) -> tuple[Array, Array | None] | None:
    """Returns W (n, gates * n) and b, where v = h W + b is one product with h alone.

    It is what a kernel keeps on chip (`jrnn.fused`).

    Returns:
      W and b; None where W is a vector, or multiplies other fields too.
    """
    W, b = gated.product(params)
    size = state[0].shape[-1]
    if W.ndim != 2 or W.shape[0] != size:
        return None
    copies = gated.gates * size // W.shape[1]
    return merge_gates((W,) * copies), None if b is None else merge_gates((b,) * copies)


def gated_advance_saving(
    gated: Gated, params: Params, state: State, u: Array | Gates
) -> tuple[State, Saved]:
    """Returns the state after a step of a gated cell, and what the step saves."""
    v = recur(gated, params, state)
    return gated.pointwise(
        state, split_gates(u, gated.gates), split_gates(v, gated.gates)
    )


def gated_advance(gated: Gated) -> Callable[[Params, State, Array | Gates], State]:
    """Returns the `advance` that a gated seam describes."""
    return lambda params, state, u: gated_advance_saving(gated, params, state, u)[0]


def linear_advance(linear: Linear) -> Callable[[Params, State, Any], State]:
    """Returns the `advance` that a linear seam describes."""

    def one(h: Array, a: Array, b: Array) -> Array:
        if linear.full:
            return jnp.matmul(h, a.astype(h.dtype)) + b
        return expand(a, h.ndim) * h + b

    def advance(params: Params, state: State, u: Any) -> State:
        new = jax.tree.map(one, state, *linear.coefficients(params, u))
        if linear.start is None:
            return new
        (h, fresh), structure = jax.tree.flatten(new)
        h = h + linear.start(params, u) * jax.tree.leaves(state)[1]
        return jax.tree.unflatten(structure, (h, fresh))

    return advance


def projected_coefficients(
    params: Params, u: tuple[State, State]
) -> tuple[State, State]:
    """Returns a and b where `project` has already made them."""
    del params
    return u


def prepared(cell: Cell, params: Params) -> Params:
    """Returns what the cell's parts read: `params`, or what they are prepared to."""
    return params if cell.prepare is None else cell.prepare(params)


def noisy_project(
    project: Callable[..., Any], params: Params, x: Any, noise: Any
) -> Any:
    """Returns the input's share, with the noise in it where there is some."""
    return project(params, x) if noise is None else project(params, x, noise)


def compose_step(
    project: Callable[..., Any],
    advance: Callable[[Params, State, Any], State],
    output: Callable[[Params, State, Any], Array],
) -> Callable[..., tuple[State, Array]]:
    """Returns `step`: nothing but project, advance and output, one after the other."""

    def step(
        params: Params, state: State, x: Any, noise: Any = None
    ) -> tuple[State, Array]:
        state = cast_state(state, state_dtype(params, x))
        u = noisy_project(project, params, x, noise)
        state = advance(params, state, u)
        return state, output(params, state, x)

    return step


def normalise(a: Array, gain: Array, shift: Array | None = None) -> Array:
    """Returns LN(a; gain, shift) over the last axis, in the type of a."""
    centred = a - a.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + EPSILON)
    scaled = scaled * expand(gain.astype(a.dtype), a.ndim)
    return scaled if shift is None else scaled + expand(shift.astype(a.dtype), a.ndim)


def spectral_norm(matrix: Array) -> Array:
    """Returns the largest singular value of each matrix."""
    return jnp.linalg.svd(matrix, compute_uv=False)[..., 0]
