"""Symbols that are numbers, some of which may be missing: what the cell reads of them.

A cell reads each component x_i, or, where values may be missing, the pair

    (m_i x_i, m_i)        m_i = 1 where the component is known, 0 where it is missing

so that a 0 that was measured is told from a 0 that stands for nothing (Lipton, Kale and
Wetzel 2016, https://proceedings.mlr.press/v56/Lipton16.html).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int8

from jrnn._base import Spec, check_size
from jrnn._check import check_array, is_traced
from jrnn.heads._dense import Functions, functions, hide
from jrnn.likelihood import Distribution, Head


class Numbers(NamedTuple):
    """Symbols that are numbers, as a model's state keeps them.

    Attributes:
      x: The values; 0 where there is none.
      known: 1 where a value is known, 0 where it is missing, -1 before the first.
    """

    x: Float[Array, "..."]
    known: Int8[Array, "..."]


class Support(NamedTuple):
    """Which numbers can be symbols, and how a cell reads them.

    Attributes:
      holds: x -> bool, at concrete and traced values alike.
      words: What it holds of, in an error.
      shift: Subtracted from x before a cell reads it.
      scale: What it is then divided by.
    """

    holds: Callable[[Any], Any]
    words: str
    shift: float = 0.0
    scale: float = 1.0


def _finite(x: Any) -> Any:
    return abs(x) < np.inf


FINITE = Support(_finite, "finite numbers")


def number_head(
    name: str,
    arguments: tuple[tuple[str, Any], ...],
    outputs: int,
    shape: Callable[[Array], Any],
    distribution: Distribution,
    support: Support = FINITE,
) -> Head:
    """Returns a head whose symbols are numbers.

    Args:
      name: The factory's.
      arguments: The factory's, `size` and `missing` among them.
      outputs: How many numbers the dense layer shows.
      shape: Those numbers -> the distribution's parameters.
      distribution: The family.
      support: Which numbers can be symbols.
    """
    settings = dict(arguments)
    size, missing = settings["size"], settings["missing"]
    components = 1 if size is None else size
    spec = Spec(name, arguments, components * (2 if missing else 1), outputs)
    event = () if size is None else (size,)
    made: Functions = functions(outputs, shape, _supported(distribution, support, size))
    return Head(
        *made,
        check=functools.partial(check_numbers, spec.name, event),
        check_values=functools.partial(check_held, spec.name, support),
        symbols=_symbols,
        encode=functools.partial(_encode, support, event, missing),
        blank=functools.partial(_blank, event),
        seen=functools.partial(_seen, event),
        distribution=_supported(distribution, support, size),
        spec=spec,
        event_shape=event,
        missing=missing,
    )


def check_event(size: Any, missing: Any) -> int:
    """Returns the number of components, or raises where an argument is wrong."""
    if not isinstance(missing, bool):
        raise TypeError(
            f"Expected missing to be True or False, whether values may be missing, got "
            f"{missing!r}; which ones are is the mask of log_prob."
        )
    return 1 if size is None else check_size("size", size)


def check_switch(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected {name} to be True or False, got {value!r}.")


def check_least(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Expected {name} to be a number, got {value!r}.")
    if not 0 < value < np.inf:
        raise ValueError(f"Expected {name} to be finite and above 0, got {value!r}.")


def check_mask(mask: Any, xs: Array, event: tuple[int, ...]) -> Array | None:
    """Returns a mask of the shape of `xs`; one without components holds for all."""
    if mask is None:
        return None
    mask = check_array("mask", mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(
            f"Expected mask to be boolean, True where a value is known, got "
            f"{mask.dtype}; compare with 0 to make it so."
        )
    if event and mask.shape == xs.shape[: -len(event)]:
        return jnp.broadcast_to(mask[..., None], xs.shape)
    if mask.shape != xs.shape:
        raise ValueError(
            f"Expected mask of the shape of the values, {xs.shape}, or of that without "
            f"their components, got {mask.shape}."
        )
    return mask


def _supported(
    distribution: Distribution, support: Support, size: int | None
) -> Distribution:
    """Scores what is no symbol as NaN, and what is missing without a look at it."""

    def log_prob(predicted: Any, x: Array, mask: Array | None = None) -> Array:
        x = jnp.asarray(x)
        event = () if size is None else (size,)
        mask = check_mask(mask, x, event)
        x = hide(mask, x)
        fits = support.holds(x) if mask is None else support.holds(x) | ~mask
        scored = distribution.log_prob(predicted, jnp.where(fits, x, 0), mask)
        fits = fits if size is None else fits.all(axis=-1)
        return jnp.where(fits, scored, jnp.nan)

    return distribution._replace(log_prob=log_prob)


def check_numbers(
    name: str, event: tuple[int, ...], given: str, xs: Any, mask: Any = None
) -> tuple[Array, Array | None]:
    """Returns numbers and their mask as arrays, or raises on shapes and types."""
    xs = check_array(given, xs)
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
    return xs, check_mask(mask, xs, event)


def check_held(
    name: str, support: Support, given: str, xs: Array, mask: Array | None = None
) -> None:
    """Raises ValueError where a concrete number is none that `name` can score."""
    if is_traced(xs) or is_traced(mask):
        return
    shown = np.asarray(hide(mask, xs))
    wrong = ~np.asarray(support.holds(shown))
    wrong = wrong if mask is None else wrong & np.asarray(mask)
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"Expected {given} to hold {support.words}, the symbols of {name}, got "
            f"{shown[where]} at position {where}; mark missing values by False in mask."
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
    batch_shape: tuple[int, ...],
    dtype: DTypeLike = jnp.float32,
) -> Numbers:
    shape = (*batch_shape, *event)
    return Numbers(jnp.zeros(shape, dtype), jnp.full(shape, -1, jnp.int8))


def _seen(event: tuple[int, ...], symbols: Numbers) -> Bool[Array, "*batch"]:
    return (symbols.known[..., 0] if event else symbols.known) >= 0
