"""Names of `jrnn.core` under their former module, until nothing imports them here."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jrnn._base import Key
from jrnn.core.dtypes import cast_state as cast_state
from jrnn.core.dtypes import float_leaves as float_leaves
from jrnn.core.dtypes import show as show
from jrnn.core.dtypes import state_dtype as state_dtype
from jrnn.core.products import contract as contract
from jrnn.core.products import expand as expand
from jrnn.core.products import merge_gates as merge_gates
from jrnn.core.products import product as product
from jrnn.core.products import project_dense as project_dense
from jrnn.core.products import spectral_norm as spectral_norm
from jrnn.core.products import split_gates as split_gates
from jrnn.core.seams import compose_step as compose_step
from jrnn.core.seams import dense_inputs as dense_inputs
from jrnn.core.seams import gated_advance as gated_advance
from jrnn.core.seams import gated_advance_saving as gated_advance_saving
from jrnn.core.seams import linear_advance as linear_advance
from jrnn.core.seams import noisy_project as noisy_project
from jrnn.core.seams import packed_product as packed_product
from jrnn.core.seams import prepared as prepared
from jrnn.core.seams import projected_coefficients as projected_coefficients
from jrnn.core.seams import recur as recur

# Keeps the division defined where all units agree; the value that most libraries take
# by default (torch.nn.LayerNorm, 1e-5).
EPSILON = 1e-5


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


def normalise(a: Array, gain: Array, shift: Array | None = None) -> Array:
    """Returns LN(a; gain, shift) over the last axis, in the type of a."""
    centred = a - a.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + EPSILON)
    scaled = scaled * expand(gain.astype(a.dtype), a.ndim)
    return scaled if shift is None else scaled + expand(shift.astype(a.dtype), a.ndim)
