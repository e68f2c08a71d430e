"""What a compiled program holds, read from its text: operations, products, bytes."""

import re
from typing import NamedTuple

import jax

# What takes no time in a compiled loop.
FREE = frozenset(
    {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "while"}
)
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%\S+ = (\(.*?\)|\S+) ([\w-]+)\(")


class Counts(NamedTuple):
    """Of a compiled training step or forward pass.

    Attributes:
      operations: In the body of each loop, sorted; scalars do not count.
      products: Matrix products in each of them, in the same order.
      temporary_bytes: What it holds beside arguments and results.
    """

    operations: list[int]
    products: list[int]
    temporary_bytes: int


def count(compiled: jax.stages.Compiled) -> Counts:
    """Counts what one step in time costs, and the memory of all of them."""
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
    """Counts all instructions of a program: the time to compile it goes by these.

    Seconds are no measure in a test, where others use the machine.
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
    """Returns those computations that are the body of a loop."""
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
    """Returns the text of a body and of what it calls, but for bodies of loops.

    Newer versions of XLA put a small loop into a computation that is called.
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
