"""What JAX's transfer guard lets through: constants of the library, no user's array.

Under `jax.transfer_guard("disallow")` an eager `jnp.zeros(3)` or `x + 1` raises, for a
number is sent to the device. Functions that do such things of their own accord lift the
guard while they run, unless they were given an array of NumPy's: whoever sets the guard
wants to hear of that.
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
    """Makes `function` send its constants to the device whatever the transfer guard.

    Traced, it is called as it is, and so it is with arrays of NumPy's.
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
    """Returns a NamedTuple whose functions are `own_constants`; anything else as it is.

    What was claimed of the functions of a cell is claimed of those around them.
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
    # One for each function: two fields may hold the same, and tell so.
    each = {id(function): own_constants(function) for function in functions.values()}
    lifted = {name: each[id(function)] for name, function in functions.items()}
    return resealed(made, made._replace(**lifted)) if lifted else made


def resealed(before: Any, after: Any) -> Any:
    """Returns `after` with the claims of `before` about functions put around its own.

    A claim of functions that `before` did not consist of stays without effect.
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
