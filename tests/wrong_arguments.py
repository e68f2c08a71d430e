"""Calls every public function with every wrong kind of argument; reports the faults.

    python -m tests.wrong_arguments [words of an entry's name]

An error must be jrnn's own: raised inside jrnn and not below it, of the right type,
with the name of the argument and its value, without terms of JAX's internals, before
any loop is traced. Run in a separate process, without the annotation checks that tests
enable.
"""

import functools
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import jax

import jrnn
from tests.arguments import ENTRIES, Entry

PACKAGE = str(Path(jrnn.__file__).parent)
FOREIGN = re.compile("Tracer|Traced<|Concretization|argument path|PyTreeDef|jaxpr")
LOOPS = ("scan", "while_loop", "fori_loop", "map", "associative_scan")


class LoopTracedError(Exception):
    """Raised when a loop is traced although an argument is wrong."""


def fault(argument: str, call: Any) -> str | None:
    """Returns the fault of the error that a call raises; None if it has none."""
    try:
        call()
    except (TypeError, ValueError) as error:
        return _fault_of(argument, error)
    except Exception as error:  # noqa: BLE001 every kind of error is reported
        return f"{type(error).__name__}: {str(error)[:160]}"
    return "is accepted"


def _fault_of(argument: str, error: Exception) -> str | None:
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    text = str(error)
    if not where.startswith(PACKAGE):
        return f"raised in {where}: {text[:160]}"
    if not text.startswith("Expected"):
        return f"does not say what was expected: {text[:160]}"
    if not re.search(rf"\b{argument}\b", text, re.IGNORECASE):
        return f"does not name the argument: {text[:160]}"
    if "got" not in text:
        return f"does not say what came: {text[:160]}"
    found = FOREIGN.search(text)
    return found and f"speaks of {found[0]}: {text[:160]}"


def _refuse(*arguments: Any, **keywords: Any) -> NoReturn:
    del arguments, keywords
    raise LoopTracedError("a loop was traced before the arguments were checked")


# Entries that are also called with all arrays traced; VALUES are not checked there.
UNDER_JIT = (
    "jrnn.unroll lru",
    "jrnn.unroll tokens",
    "Cell.step lru",
    "Distribution.sample student_t",
    "SequenceModel.log_prob numbers",
    "SequenceModel.sample categorical",
    "MarkovChain.sample",
    "LinearGaussianMarkov.sample",
)
VALUES = ("too large", "negative", "nan", "long", "one too cold", "percent")


def faults_of(name: str, entry: Entry) -> list[str]:
    """Returns the faults of an entry, as lines."""
    found = []
    for argument, wrong in entry.wrong.items():
        given = {label: entry.valid | {argument: v} for label, v in wrong.items()}
        calls = {
            label: functools.partial(entry.call, **arguments)
            for label, arguments in given.items()
        }
        valid = entry.valid[argument]
        if type(valid) in (bool, int):  # static arguments must reject traced values
            calls["traced"] = functools.partial(_traced, entry, argument)
        if name in UNDER_JIT:
            for label in (label for label in wrong if label not in VALUES):
                others = {k: v for k, v in entry.valid.items() if k != argument}
                fixed = {argument: wrong[label]}
                calls[f"{label} under jit"] = functools.partial(
                    _abstractly, entry.call, others, fixed
                )
        told = {label: fault(argument, call) for label, call in calls.items()}
        found += [f"{argument}={label}: {text}" for label, text in told.items() if text]
    return found


def _traced(entry: Entry, argument: str) -> Any:
    others = {k: v for k, v in entry.valid.items() if k != argument}
    one = lambda value: entry.call(**others, **{argument: value})
    return jax.eval_shape(one, entry.valid[argument])


def _abstractly(call: Any, others: dict[str, Any], fixed: dict[str, Any]) -> Any:
    leaves, structure = jax.tree.flatten(others)
    arrays = [leaf for leaf in leaves if hasattr(leaf, "dtype")]

    def run(arrays: list[Any]) -> Any:
        left = iter(arrays)
        filled = [next(left) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        return call(**jax.tree.unflatten(structure, filled), **fixed)

    return jax.eval_shape(run, arrays)


def main(words: str) -> dict[str, list[str]]:
    """Returns the faults of each entry that has any."""
    jax.config.update("jax_traceback_filtering", "off")
    for name in LOOPS:
        setattr(jax.lax, name, _refuse)
    faults = {}
    for name, entry in ENTRIES.items():
        if words in name:
            begun = time.perf_counter()
            found = faults_of(name, entry)
            faults |= {name: found} if found else {}
            if "TIMES" in os.environ:
                print(f"{time.perf_counter() - begun:.2f} {name}", file=sys.stderr)
    return faults


if __name__ == "__main__":
    print(json.dumps(main(" ".join(sys.argv[1:])), indent=1))
