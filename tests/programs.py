"""Reads traced programs: primitives by name, loops, shapes of variables.

It reads only what JAX's guide to jaxpr interpreters documents: equations, the names of
their primitives, their variables. Parameters of equations are searched for inner
programs, but never looked up by name, as names change between versions.

    https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

from collections.abc import Iterator
from typing import Any

import jax


def _plain(program: Any) -> Any:
    """Returns the jaxpr of a closed jaxpr, and anything else unchanged."""
    return getattr(program, "jaxpr", program)


def _is_program(value: Any) -> bool:
    return hasattr(_plain(value), "eqns")


def _inner(equation: Any) -> list[Any]:
    """Returns the programs that an equation calls: bodies, branches, functions."""
    values = list(equation.params.values())
    leaves = jax.tree.leaves(values, is_leaf=_is_program)
    return [_plain(leaf) for leaf in leaves if _is_program(leaf)]


def equations(program: Any, loops: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yields (equation, the scans around it), including those of inner programs."""
    for equation in _plain(program).eqns:
        yield equation, loops
        around = (*loops, equation) if equation.primitive.name == "scan" else loops
        for inner in _inner(equation):
            yield from equations(inner, around)


def count(program: Any, name: str) -> int:
    """Counts how often a primitive occurs, including inner programs."""
    return sum(eqn.primitive.name == name for eqn, _ in equations(program))


def scans(program: Any) -> Iterator[tuple[int, Any]]:
    """Yields (depth, scan); an outermost scan has depth 1."""
    for equation, loops in equations(program):
        if equation.primitive.name == "scan":
            yield len(loops) + 1, equation


def body(scan: Any) -> Any:
    """Returns the body of a scan."""
    (only,) = _inner(scan)
    return only


def carried(scan: Any) -> set[tuple[int, ...]]:
    """Returns the shapes of a scan's carry.

    A body returns the carry and one slice of each output, which the scan stacks.
    """
    pairs = zip(body(scan).outvars, scan.outvars, strict=True)
    shapes = [(one.aval.shape, all_of_it.aval.shape) for one, all_of_it in pairs]
    return {one for one, all_of_it in shapes if one == all_of_it}


def runs_over(scan: Any, steps: int) -> bool:
    """Returns whether a scan reads or writes arrays with `steps` rows."""
    variables = [*scan.invars, *scan.outvars]
    return any(v.aval.shape[:1] == (steps,) for v in variables)
