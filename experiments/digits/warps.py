"""Training examples, moved a little at random: the same digit, another picture.

Each draw is uniform, and `strength` times as wide as the constants say; 0 leaves the
example as it is. Only training examples are moved, and none is made anew.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

Key = Array

# A curve is shifted (points), stretched, scaled, sheared, and noise is added, as the
# recipe of MNIST-1D does to its templates: https://arxiv.org/abs/2011.14439
SHIFT, STRETCH, SCALE, SHEAR, NOISE = 4.0, 0.15, 0.2, 0.5, 0.05
# An image is shifted (pixels), turned (radians), stretched and slanted.
PIXELS, TURN, ZOOM, SLANT = 2.0, 0.2, 0.1, 0.15


def curves(key: Key, xs: Float[Array, "B T"], strength: float) -> Float[Array, "B T"]:
    """Returns x(c + (t - c) (1 + a) + b) (1 + d) + e (t - c) / c + noise.

    c is the middle; between points the curve is a straight line, beyond its ends level.
    """
    keys = jax.random.split(key, 5)
    drawn = lambda key, width: _uniform(key, xs, strength * width)
    middle = (xs.shape[1] - 1) / 2
    t = jnp.arange(xs.shape[1], dtype=xs.dtype)[None] - middle
    at = middle + t * (1 + drawn(keys[0], STRETCH)) + drawn(keys[1], SHIFT)
    moved = jax.vmap(lambda x, i: map_coordinates(x, [i], 1, mode="nearest"))(xs, at)
    moved = moved * (1 + drawn(keys[2], SCALE)) + drawn(keys[3], SHEAR) * t / middle
    noise = jax.random.normal(keys[4], xs.shape, xs.dtype)
    return moved + jnp.asarray(strength * NOISE, xs.dtype) * noise


def images(
    key: Key, xs: Float[Array, "B H W"], strength: float
) -> Float[Array, "B H W"]:
    """Returns images whose pixel i is the old one at c + A (i - c) + b, A near 1."""
    keys = jax.random.split(key, 6)
    drawn = lambda key, width: _uniform(key, xs, strength * width)[:, :, None]
    height, width = xs.shape[1:]
    rows = jnp.arange(height, dtype=xs.dtype)[None, :, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=xs.dtype)[None, None] - (width - 1) / 2
    turn, slant = drawn(keys[0], TURN), drawn(keys[1], SLANT)
    tall, wide = (1 + drawn(k, ZOOM) for k in keys[2:4])
    slanted = columns + slant * rows
    i = tall * (jnp.cos(turn) * rows - jnp.sin(turn) * slanted)
    j = wide * (jnp.sin(turn) * rows + jnp.cos(turn) * slanted)
    i = i + (height - 1) / 2 + drawn(keys[4], PIXELS)
    j = j + (width - 1) / 2 + drawn(keys[5], PIXELS)
    read = lambda x, i, j: map_coordinates(x, [i, j], 1, mode="nearest")
    return jax.vmap(read)(xs, i, j)


def _uniform(key: Key, xs: Array, width: float) -> Array:
    """One number for each example, in (-width, width), (B, 1)."""
    return jax.random.uniform(key, (xs.shape[0], 1), xs.dtype, -width, width)
