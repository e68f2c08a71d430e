"""Counts operations, products and bytes of a compiled program, from its text."""

import re
from typing import NamedTuple

import jax

# Instructions that take no time in a compiled loop.
FREE = frozenset(
    {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "while"}
)
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%\S+ = (\(.*?\)|\S+) ([\w-]+)\(")


class Counts(NamedTuple):
    """The counts of a compiled training step or forward pass.

    Attributes:
      operations: The operations in the body of each loop, sorted; without scalars.
      products: The matrix products in each of these bodies, in the same order.
      temporary_bytes: The memory used in addition to arguments and results.
    """

    operations: list[int]
    products: list[int]
    temporary_bytes: int


def count(compiled: jax.stages.Compiled) -> Counts:
    """Counts the operations and products per step, and the memory of all steps."""
    found = computations(compiled.as_text() or "")
    counted = sorted((_operations(b), _products(b, found)) for b in bodies(found))
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return Counts(
        [operations for operations, _ in counted],
        [products for _, products in counted],
        analysis.temp_size_in_bytes,
    )


def instructions(compiled: jax.stages.Compiled) -> int:
    """Counts all instructions of a program, which determine its compile time.

    Seconds are unreliable in a test, as other processes use the machine.
    """
    lines = (compiled.as_text() or "").splitlines()
    return sum(INSTRUCTION.match(line) is not None for line in lines)


def computations(text: str) -> dict[str, str]:
    """Returns the text of each computation of a program, by name."""
    found = {}
    for block in text.split("\n\n"):
        head = re.match(r"\s*(?:ENTRY )?%([\w.\-]+) \(", block)
        if head:
            found[head[1]] = block
    return found


def bodies(found: dict[str, str]) -> list[str]:
    """Returns the computations that are bodies of loops."""
    names = set(re.findall(r"body=%([\w.\-]+)", "\n".join(found.values())))
    return [found[name] for name in names]


def _operations(body: str) -> int:
    lines = [INSTRUCTION.match(line) for line in body.splitlines()]
    return sum(
        line[2] not in FREE and not re.match(r"(s32|s64|pred)\[\]", line[1])
        for line in lines
        if line
    )


def _products(body: str, computations: dict[str, str]) -> int:
    return _with_called(body, computations).count(" dot(")


def _with_called(body: str, computations: dict[str, str]) -> str:
    """Returns the text of a body and of what it calls, except bodies of loops.

    Newer versions of XLA put a small loop into a separate computation.
    """
    called = re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", body)
    inner = [_with_called(computations[name], computations) for name in called]
    return " ".join([body, *inner])


def scattered_products(compiled: jax.stages.Compiled) -> int:
    """Counts products in innermost loops whose right factor is read across its rows."""
    found = computations(compiled.as_text() or "")
    texts = [_with_called(body, found) for body in bodies(found)]
    innermost = " ".join(text for text in texts if " while(" not in text)
    return len(re.findall(r" dot\(.*rhs_contracting_dims=\{1\}", innermost))
