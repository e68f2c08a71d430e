"""The C source of a gated cell, from the jaxprs of its gates.

    #define JRNN_GATES 4 ...
    #include "vectors.h"
    JRNN_INLINE void pointwise(...) {...}       s_t, saved_t from s_{t-1}, u_t, v_t
    JRNN_INLINE void pullback(...) {...}        ds_{t-1}, du_t, dv_t from ds_t
    #include "walk.h"

Both functions take one vector of each array, and are inlined in the walk over time. All
arrays have one element for each unit, so that the text depends on neither the number of
units nor on that of rows, and equal cells give equal text.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from jrnn.core.cell import Gated, State
from jrnn.kernels._gates import saved_like, shares_gates
from jrnn.kernels.cpu.program import Program, Unsupported

__all__ = ["Unsupported", "cell_source"]

ROWS = 2  # of the arrays that are traced
REAL = {"float32": "float", "float64": "double"}

HEAD = """\
/* The gates of one cell, written by jrnn/kernels/cpu/generate.py. */
#define JRNN_REAL {real}
#define JRNN_GATES {gates}
#define JRNN_FIELDS {fields} /* arrays of the state */
#define JRNN_SAVED {saved} /* arrays that pointwise saves for pullback */
#define JRNN_SHARED {shared} /* whether du and dv are equal: then dv is not written */
/* Bit i: pullback reads array i of these. */
#define JRNN_READS_TM1 {reads_tm1}u
#define JRNN_READS_STATE {reads_state}u
#define JRNN_READS_SAVED {reads_saved}u
#include "vectors.h"
"""
POINTWISE = """\
JRNN_INLINE void pointwise(const vec *state_tm1, const vec *u, const vec *v,
                           vec *state, vec *saved) {
"""
PULLBACK = """\
JRNN_INLINE void pullback(const vec *state_tm1, const vec *state, const vec *saved,
                          const vec *dstate, vec *dstate_tm1, vec *du, vec *dv) {
"""


class Written(NamedTuple):
    """The body of a function in C, and the arguments that it reads."""

    body: str
    reads: set[str]


def cell_source(gated: Gated, state: State) -> str:
    """Returns the C source of a cell's gates, which includes `walk.h`.

    Args:
      gated: The seam.
      state: A state, or its shapes and type: leaves (rows, n), float32 or float64.

    Returns:
      The text, the same for equal cells.

    Raises:
      Unsupported: The gates contain what cannot be written in C, or the cell's arrays
        are not all of n units and of one type.
    """
    _check(state)
    state = jax.tree.map(_short, state)
    fields = len(jax.tree.leaves(state))
    saved = saved_like(gated, state)
    _check((state, saved))
    gates = (jax.tree.leaves(state)[0],) * gated.gates
    shared = shares_gates(gated, state, saved)
    kept = len(jax.tree.leaves(saved))
    pointwise = _write(
        gated.pointwise,
        {"state_tm1": state, "u": gates, "v": gates},
        {"state": fields, "saved": kept},
    )
    pullback = _write(
        gated.pullback,
        {"state_tm1": state, "state": state, "saved": saved, "dstate": state},
        {"dstate_tm1": fields, "du": gated.gates, "dv": gated.gates},
        without="dv" if shared else None,
    )
    head = HEAD.format(
        real=REAL[str(jax.tree.leaves(state)[0].dtype)],
        gates=gated.gates,
        fields=fields,
        saved=kept,
        shared=int(shared),
        reads_tm1=_bits(pullback, "state_tm1", fields),
        reads_state=_bits(pullback, "state", fields),
        reads_saved=_bits(pullback, "saved", kept),
    )
    functions = POINTWISE + pointwise.body + "}\n\n" + PULLBACK + pullback.body + "}\n"
    return f'{head}\n{functions}\n#include "walk.h"\n'


def _short(leaf: Array) -> jax.ShapeDtypeStruct:
    """Returns the shape of the array that is traced in the place of a leaf."""
    return jax.ShapeDtypeStruct((ROWS, leaf.shape[-1]), leaf.dtype)


def _check(tree: Any) -> None:
    """Raises Unsupported unless all leaves have one shape and a type of C."""
    leaves = jax.tree.leaves(tree)
    kinds = {(leaf.shape, str(leaf.dtype)) for leaf in leaves}
    if len(kinds) != 1 or not {dtype for _, dtype in kinds} <= REAL.keys():
        given = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in leaves)
        raise Unsupported(
            "Expected a cell whose state and saved arrays have one size and one type, "
            f"float32 or float64, for jrnn.fused(), got {given}; run it with "
            "jrnn.bptt()."
        )


def _write(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    results: dict[str, int],
    without: str | None = None,
) -> Written:
    """Returns the C code of a function.

    Args:
      function: `pointwise` or `pullback`.
      arguments: The names of its arguments, and their shapes.
      results: The names of its results, and of how many arrays each consists.
      without: The result that is not written.
    """
    like = jax.tree.leaves(arguments)[0]
    name = getattr(function, "__name__", "a function")  # a partial has none
    place = f"{name} of {function.__module__}"
    program = Program(like.dtype, like.size, place)
    traced, found = jax.make_jaxpr(function, return_shape=True)(*arguments.values())
    given = [
        program.argument(f"{name}[{i}]")
        for name, tree in arguments.items()
        for i in range(len(jax.tree.leaves(tree)))
    ]
    counts = [len(jax.tree.leaves(tree)) for tree in found]
    if counts != list(results.values()):
        raise ValueError(f"Expected {results} arrays from {place}, got {counts}.")
    names = [f"{name}[{i}]" for name, count in results.items() for i in range(count)]
    values = zip(names, program.run(traced, given), strict=True)
    kept = [(name, value) for name, value in values if name.split("[")[0] != without]
    return _body(program, {name: program.vector(value) for name, value in kept})


def _body(program: Program, results: dict[str, int]) -> Written:
    """Returns the statements that compute the results, and nothing else."""
    names: dict[int | str, str] = {}
    lines, reads = [], set()
    for number in sorted(_needed(program, results.values())):
        type_, template, operands = program.expressions[number]
        text = template.format(*(names.get(one, one) for one in operands))
        names[number] = f"t{len(names)}"
        lines.append(f"  const {type_} {names[number]} = {text};\n")
        if not operands:
            reads.add(text)
    lines += [f"  {name} = {names[number]};\n" for name, number in results.items()]
    return Written("".join(lines), reads)


def _needed(program: Program, results: Iterable[int]) -> set[int]:
    """Returns the numbers of the expressions that these results need."""
    needed: set[int] = set()
    left = list(results)
    while left:
        number = left.pop()
        if number not in needed:
            needed.add(number)
            operands = program.expressions[number].operands
            left += [one for one in operands if isinstance(one, int)]
    return needed


def _bits(written: Written, name: str, count: int) -> int:
    """Returns a mask of the arrays of an argument that a function reads."""
    return sum(1 << i for i in range(count) if f"{name}[{i}]" in written.reads)
