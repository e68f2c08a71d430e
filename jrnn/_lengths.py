"""Which steps of a padded sequence count."""

import jax.numpy as jnp
from jaxtyping import Array, Bool


def active_steps(
    steps: int, lengths: Array | None, mask: Array | None
) -> Bool[Array, "T *batch"] | None:
    """Returns at which steps the state moves on; None where it always does."""
    if lengths is None:
        return mask
    t = jnp.arange(steps).reshape(steps, *(1,) * lengths.ndim)
    within = t < lengths.astype(t.dtype)[None]
    return within if mask is None else within & mask
