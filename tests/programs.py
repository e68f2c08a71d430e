"""Reads what JAX traces: primitives by their names, loops, shapes of variables.

Only what JAX's guide to interpreters of jaxprs shows is read: equations, the names of
their primitives, their variables. Parameters of equations are searched for inner
programs and never asked for by name, for names change from one version to the next.

    https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

from collections.abc import Iterator
from typing import Any

import jax


def _plain(program: Any) -> Any:
    """Returns the jaxpr of a closed one, and anything else as it is."""
    return getattr(program, "jaxpr", program)


def _is_program(value: Any) -> bool:
    return hasattr(_plain(value), "eqns")


def _inner(equation: Any) -> list[Any]:
    """Returns the programs that an equation calls: bodies, branches, functions."""
    values = list(equation.params.values())
    leaves = jax.tree.leaves(values, is_leaf=_is_program)
    return [_plain(leaf) for leaf in leaves if _is_program(leaf)]


def equations(program: Any, loops: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yields (equation, the scans around it), those of inner programs included."""
    for equation in _plain(program).eqns:
        yield equation, loops
        around = (*loops, equation) if equation.primitive.name == "scan" else loops
        for inner in _inner(equation):
            yield from equations(inner, around)


def count(program: Any, name: str) -> int:
    """Counts how often a primitive occurs, inner programs included."""
    return sum(eqn.primitive.name == name for eqn, _ in equations(program))


def scans(program: Any) -> Iterator[tuple[int, Any]]:
    """Yields (depth, scan); depth 1 is a scan inside of no other."""
    for equation, loops in equations(program):
        if equation.primitive.name == "scan":
            yield len(loops) + 1, equation


def body(scan: Any) -> Any:
    """Returns what a scan repeats."""
    (only,) = _inner(scan)
    return only


def carried(scan: Any) -> set[tuple[int, ...]]:
    """Returns the shapes of what a scan hands on from step to step.

    A body returns this and what is stacked, and the scan returns the latter stacked.
    """
    pairs = zip(body(scan).outvars, scan.outvars, strict=True)
    shapes = [(one.aval.shape, all_of_it.aval.shape) for one, all_of_it in pairs]
    return {one for one, all_of_it in shapes if one == all_of_it}


def runs_over(scan: Any, steps: int) -> bool:
    """Whether a scan reads or writes arrays of so many rows."""
    variables = [*scan.invars, *scan.outvars]
    return any(v.aval.shape[:1] == (steps,) for v in variables)
