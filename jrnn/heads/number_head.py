"""Heads whose symbols are numbers, and how the cell reads missing values.

A cell reads each component x_i, or, if values may be missing, the pair

    (m_i x_i, m_i)        m_i = 1 where the component is known, 0 where it is missing

so that a measured 0 differs from a missing value (Lipton, Kale and Wetzel 2016,
https://proceedings.mlr.press/v56/Lipton16.html).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int8

from jrnn.core.cell import Spec
from jrnn.core.check import check_array, is_traced
from jrnn.heads.dense import dense_head
from jrnn.heads.distribution import Family
from jrnn.heads.head import Head
from jrnn.heads.numerics import hide


class Numbers(NamedTuple):
    """Symbols that are numbers, as a model's state keeps them.

    Attributes:
      x: The values; 0 where a value is missing.
      known: 1 where a value is known, 0 where it is missing, -1 before the first.
    """

    x: Float[Array, "..."]
    known: Int8[Array, "..."]


class Support(NamedTuple):
    """Which numbers can be symbols, and how a cell reads them.

    Attributes:
      holds: x -> bool, whether x is valid; for concrete and traced values.
      words: The valid numbers in words, for error messages.
      shift: Subtracted from x before a cell reads it.
      scale: x - shift is divided by this before a cell reads it.
      whole: Whether x may be given as integers or booleans.
      nearest: x -> the nearest number of the support.
    """

    holds: Callable[[Any], Any]
    words: str
    shift: float = 0.0
    scale: float = 1.0
    whole: bool = False
    nearest: Callable[[Array], Array] = lambda x: x

    def cast(self, x: Array) -> Array:
        """Returns integers and booleans as floats, if the support allows them."""
        kinds = jnp.integer, jnp.bool_
        whole = self.whole and any(jnp.issubdtype(x.dtype, kind) for kind in kinds)
        return x.astype(jnp.float32) if whole else x


def _finite(x: Any) -> Any:
    return abs(x) < np.inf


FINITE = Support(_finite, "finite numbers")


def number_head(
    name: str,
    outputs: int,
    shape: Callable[[Array], Any],
    family: Family,
    support: Support = FINITE,
    **arguments: Any,
) -> Head:
    """Returns a head whose symbols are numbers.

    Args:
      name: The name of the factory.
      outputs: The number of outputs of the dense layer.
      shape: Those outputs -> the parameters of the family.
      family: The family of the predicted distributions, with the same support.
      support: Which numbers can be symbols.
      **arguments: The arguments of the factory, including `size` and `missing`.
    """
    missing, event = arguments["missing"], family.event_shape
    inputs = math.prod(event) * (2 if missing else 1)
    return dense_head(
        Spec(name, tuple(arguments.items()), inputs, outputs),
        shape,
        family,
        functools.partial(check_numbers, name, event, support=support),
        check_values=functools.partial(check_held, name, support),
        symbols=_symbols,
        encode=functools.partial(_encode, support, event, missing),
        blank=functools.partial(_blank, event),
        seen=functools.partial(_seen, event),
        missing=missing,
    )


def mask_of(given: str) -> str:
    """Returns the name of the mask argument of the argument `given`."""
    return f"{given}_mask" if given in ("prompt", "labels") else "mask"


def check_mask(
    mask: Any, xs: Array, event: tuple[int, ...], given: str = "xs"
) -> Array | None:
    """Returns the mask broadcast to the shape of `xs`; raises unless it fits."""
    if mask is None:
        return None
    name = mask_of(given)
    mask = check_array(name, mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(
            f"Expected {name} to be boolean, True where a value is known, got "
            f"{mask.dtype}; compare with 0 to make it so."
        )
    if event and mask.shape == xs.shape[: -len(event)]:
        return jnp.broadcast_to(mask[..., None], xs.shape)
    if mask.shape != xs.shape:
        raise ValueError(
            f"Expected {name} of the shape of the values, {xs.shape}, or of that "
            f"without their components, got {mask.shape}."
        )
    return mask


def family_of_numbers(
    log_prob: Callable[..., Array],
    *functions: Callable[..., Any],
    size: int | None,
    support: Support = FINITE,
) -> Family:
    """Returns a family of numbers; a number outside the support scores NaN.

    Args:
      log_prob: Called with numbers of the support only.
      *functions: The other functions of the family, in its order.
      size: The number of components of a value; None: a value is one number.
      support: Which numbers are valid.
    """

    def held(parameters: Any, x: Array, mask: Array | None = None) -> Array:
        x = hide(mask, x)
        fits = support.holds(x) if mask is None else support.holds(x) | ~mask
        scored = log_prob(parameters, jnp.where(fits, x, 0), mask)
        fits = fits if size is None else fits.all(axis=-1)
        return jnp.where(fits, scored, jnp.nan)

    event = () if size is None else (size,)
    check = functools.partial(
        check_numbers, "this distribution", event, support=support
    )
    return Family(held, *functions, check=check, event_shape=event)


def check_numbers(
    name: str,
    event: tuple[int, ...],
    given: str,
    xs: Any,
    mask: Any = None,
    support: Support = FINITE,
) -> tuple[Array, Array | None]:
    """Returns numbers and their mask as arrays; raises on wrong types or shapes."""
    xs = support.cast(check_array(given, xs))
    if not jnp.issubdtype(xs.dtype, jnp.floating):
        raise TypeError(
            f"Expected {given} of a floating type, the symbols of {name}, got "
            f"{xs.dtype}; cast it with {given}.astype(jnp.float32)."
        )
    if event and xs.shape[-1:] != event:
        raise ValueError(
            f"Expected {given} of shape (..., {event[0]}), the size of {name}, got "
            f"{xs.shape}."
        )
    return xs, check_mask(mask, xs, event, given)


def check_held(
    name: str, support: Support, given: str, xs: Array, mask: Array | None = None
) -> None:
    """Raises ValueError if `name` cannot score a concrete number."""
    if is_traced(xs) or is_traced(mask):
        return
    shown = np.asarray(hide(mask, xs))
    wrong = ~np.asarray(support.holds(shown))
    wrong = wrong if mask is None else wrong & np.asarray(mask)
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"Expected {given} to hold {support.words}, the symbols of {name}, got "
            f"{shown[where]} at position {where}; mark missing values by False in "
            f"{mask_of(given)}."
        )


def _symbols(xs: Array, mask: Array | None = None) -> Numbers:
    known = jnp.ones(xs.shape, bool) if mask is None else mask
    return Numbers(hide(mask, xs), known.astype(jnp.int8))


def _encode(
    support: Support, event: tuple[int, ...], missing: bool, symbols: Numbers
) -> Array:
    x, known = symbols
    if not event:
        x, known = x[..., None], known[..., None]
    read = (x - support.shift) / support.scale
    if not missing:
        return read
    return jnp.concatenate(
        [hide(known > 0, read), (known > 0).astype(x.dtype)], axis=-1
    )


def _blank(
    event: tuple[int, ...],
    batch_shape: tuple[Any, ...],
    dtype: DTypeLike = jnp.float32,
) -> Numbers:
    shape = (*batch_shape, *event)
    return Numbers(jnp.zeros(shape, dtype), jnp.full(shape, -1, jnp.int8))


def _seen(event: tuple[int, ...], symbols: Numbers) -> Bool[Array, "*batch"]:
    return (symbols.known[..., 0] if event else symbols.known) >= 0
