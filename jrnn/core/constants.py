"""Letting the library's constants, but no user's array, pass JAX's transfer guard.

Under `jax.transfer_guard("disallow")` an eager `jnp.zeros(3)` or `x + 1` raises,
because it sends a number to the device. Functions that create such constants lift the
guard while they run, unless an argument is a NumPy array: that is a transfer which the
guard is meant to report.
"""

import functools
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")
_MARK = "_jrnn_own_constants"


def own_constants(function: Callable[P, R]) -> Callable[P, R]:
    """Lets `function` send its own constants to the device under a transfer guard.

    The guard stays in force if an argument is traced or is a NumPy array.
    """

    @functools.wraps(function)
    def lifted(*args: P.args, **kwargs: P.kwargs) -> R:
        for leaf in jax.tree.leaves((args, kwargs)):
            if isinstance(leaf, Tracer | np.ndarray | np.generic):
                return function(*args, **kwargs)
        with (
            jax.transfer_guard_host_to_device("allow"),
            jax.transfer_guard_device_to_host("allow"),  # for checks of values
        ):
            return function(*args, **kwargs)

    setattr(lifted, _MARK, True)
    return lifted


def with_own_constants(made: Any) -> Any:
    """Applies `own_constants` to each function of a NamedTuple.

    Any other object is returned unchanged. A cell's claims about its functions are
    transferred to the wrapped ones.
    """
    fields = getattr(made, "_fields", None)
    if fields is None:
        return made
    functions = {
        name: function
        for name, function in zip(fields, made, strict=True)
        if isinstance(function, types.FunctionType | functools.partial)
        and not hasattr(function, _MARK)
    }
    # One wrapper per function, so that fields holding the same function still do.
    each = {id(function): own_constants(function) for function in functions.values()}
    lifted = {name: each[id(function)] for name, function in functions.items()}
    return resealed(made, made._replace(**lifted)) if lifted else made


def resealed(before: Any, after: Any) -> Any:
    """Returns `after` with the functions in its claims mapped from `before` to `after`.

    A claim about functions that are not among those of `before` stays without effect.
    """
    places = {id(old): new for old, new in zip(before, after, strict=True)}
    claims = {
        name: claim._replace(
            functions=tuple(places.get(id(f), f) for f in claim.functions)
        )
        for name, claim in zip(after._fields, after, strict=True)
        if getattr(claim, "functions", None) is not None
    }
    return after._replace(**claims)
