r"""Drawing symbols: at a temperature, and from the most probable ones alone.

At temperature tau a symbol s is drawn with probability p(s), proportional to
exp(ln P(s) / tau). Truncation draws from the first symbols in the order of p, the most
probable first and of equal ones the smaller id first:

    top-k    from the first k
    top-p    from the first m, where m is the smallest number for which
             p(1) + ... + p(m) >= top_p                     (nucleus sampling)

With both, top-p is applied to what top-k leaves, divided by its sum. The remaining
symbols are drawn in proportion to p; the others never.

Sources: top-k, A. Fan, M. Lewis and Y. Dauphin, ACL 2018,
https://arxiv.org/abs/1805.04833; top-p, A. Holtzman et al., ICLR 2020,
https://arxiv.org/abs/1904.09751. The order (temperature, top-k, top-p) is that of
https://github.com/huggingface/transformers, which keeps every symbol that ties with
the k-th one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jrnn.core.arguments import tell
from jrnn.core.cell import Key
from jrnn.core.check_inputs import known_values
from jrnn.core.integers import as_array, saturate


class Truncation(NamedTuple):
    """Which symbols may be drawn; None: all. One number, or one for each sequence."""

    top_k: Int[Array, "*batch"] | None = None
    top_p: Float[Array, "*batch"] | None = None


NO_TRUNCATION = Truncation()


def sample_symbols(
    key: Key,
    log_p: Float[Array, "*batch v"],
    temperature: Num[Array, "..."],
    truncation: Truncation = NO_TRUNCATION,
) -> Int[Array, "*batch"]:
    """Draws from softmax(log_p / temperature); at 0, returns the most probable symbol.

    The temperature is one number, or an array of the batch shape. The result is -1,
    which is no symbol, where a probability, or a number that is traced, is NaN.
    """
    below = log_p - log_p.max(axis=-1, keepdims=True)
    # At temperature 0 the most probable symbol keeps 0 and all others become -inf; at
    # an infinite one all possible ones become 0. XLA may multiply by 1 / heat.
    tiny = float(jnp.finfo(log_p.dtype).tiny)
    heat = jnp.clip(temperature.astype(log_p.dtype), tiny, 1 / tiny)
    scaled = below / (heat[..., None] if heat.ndim else heat)
    failed = jnp.isnan(scaled).any(axis=-1)  # a maximum may leave NaN out on a CPU
    if any(part is not None for part in truncation):
        scaled = jnp.where(_kept(scaled, truncation), scaled, -jnp.inf)
    drawn = jax.random.categorical(key, scaled, axis=-1).astype(jnp.int32)
    return jnp.where((scaled.max(axis=-1) == 0) & ~failed, drawn, -1)


def _kept(
    scaled: Float[Array, "*batch v"], truncation: Truncation
) -> Bool[Array, "*batch v"]:
    """Returns which symbols may be drawn, given ln p up to a constant."""
    top_k, top_p = truncation
    order = jnp.argsort(-scaled, axis=-1, stable=True)
    ordered = jnp.take_along_axis(scaled, order, axis=-1)
    rank = jnp.arange(scaled.shape[-1], dtype=jnp.int32)
    rank = rank.reshape((1,) * (scaled.ndim - 1) + rank.shape)
    keep = jnp.ones(ordered.shape, bool)
    if top_k is not None:
        keep &= rank < jnp.maximum(_against(top_k, rank), 1)
    if top_p is not None:
        p = jax.nn.softmax(jnp.where(keep, ordered, -jnp.inf), axis=-1)
        before = jnp.cumsum(p, axis=-1)[..., :-1]
        before = jnp.concatenate([jnp.zeros_like(p[..., :1]), before], axis=-1)
        # The first is kept at top_p = 0, and the last at 1, whatever the rounding.
        top_p = _against(top_p.astype(p.dtype), rank)
        keep &= (before < jnp.maximum(top_p, jnp.finfo(p.dtype).tiny)) | (top_p >= 1)
    return jnp.take_along_axis(keep, jnp.argsort(order, axis=-1), axis=-1)


def _against(number: Array, rank: Array) -> Array:
    """Returns one number, or one for each sequence, to compare with ranks."""
    return number.reshape(number.shape or (1,) * (rank.ndim - 1))[..., None]


def check_truncation(
    top_k: Any, top_p: Any, batch: tuple[int, ...], refusal: str | None = None
) -> Truncation:
    """Returns arguments of `sample` as arrays of one number, or one for each sequence.

    Args:
      top_k: How many symbols may be drawn; None: all.
      top_p: The least sum of their probabilities; None: 1.
      batch: The shape of the batch.
      refusal: What has no most probable symbols, in words; None: something has.

    Raises:
      TypeError: An argument is neither a number nor an array of numbers, or is given
        though there are no most probable symbols.
      ValueError: It has another shape, or a concrete value is out of range.
    """
    for name, value in (("top_k", top_k), ("top_p", top_p)):
        if refusal is not None and value is not None:
            raise TypeError(
                f"Expected symbols that are token ids for {name}, as those of "
                f"jrnn.categorical(5), got {name}={tell(value)} for {refusal}; a low "
                "temperature keeps samples near the most probable value."
            )
    if top_k is not None:
        array = _numbers("top_k", top_k, jnp.integer, "an integer", batch)
        _check_range("top_k", top_k, array, 1, np.inf, "at least 1")
        top_k = saturate(array, jnp.int32)
    if top_p is not None:
        array = _numbers("top_p", top_p, jnp.number, "a number", batch)
        _check_range("top_p", top_p, array, 0, 1, "a probability within 0..1")
        top_p = array.astype(jnp.result_type(float))
    return Truncation(top_k, top_p)


def _numbers(name: str, value: Any, kind: Any, words: str, batch: Any) -> Array:
    """Returns an array of real numbers of one kind; raises unless its shape fits."""
    try:
        array = as_array(value)
        fits = jnp.issubdtype(array.dtype, kind)
        fits &= not jnp.issubdtype(array.dtype, jnp.complexfloating)
    except (TypeError, ValueError, OverflowError):
        array, fits = None, False
    if array is None or not fits:
        raise TypeError(
            f"Expected {name} to be {words}, or an array of one for each sequence, got "
            f"{tell(value)}."
        )
    if array.shape not in ((), batch):
        raise ValueError(
            f"Expected {name} to be one number, or one for each sequence, of shape "
            f"{batch}, got shape {array.shape}."
        )
    return array


def _check_range(
    name: str, given: Any, array: Array, least: float, most: float, words: str
) -> None:
    """Raises ValueError if a concrete number is out of range.

    Under `jax.jit` the array of a Python or NumPy number is traced, but not the number.
    """
    plain = isinstance(given, int | float | np.ndarray | np.generic)
    known = np.asarray(given) if plain else known_values(array)
    if known is None:
        return
    wrong = ~((known >= least) & (known <= most))
    if wrong.any():
        raise ValueError(f"Expected {name} to be {words}, got {known[wrong].flat[0]}.")
