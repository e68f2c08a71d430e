"""Calls every public function with every wrong kind of argument, and tells the faults.

    python -m tests.wrong_arguments [words of an entry's name]

An error has to be jrnn's: raised inside jrnn and not below it, of the right type, with
the name of the argument, what came, and no word of JAX, before any loop is traced. Run
on its own, without the checks of annotations that the tests switch on.
"""

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
from tests.arguments import ENTRIES

PACKAGE = str(Path(jrnn.__file__).parent)
FOREIGN = re.compile("Tracer|Traced<|Concretization|argument path|PyTreeDef|jaxpr")
LOOPS = ("scan", "while_loop", "fori_loop", "map", "associative_scan")


class LoopTracedError(Exception):
    """A loop was traced although an argument is wrong."""


def fault(argument: str, call: Any) -> str | None:
    """Returns what is wrong with the error that a call raises; None: nothing."""
    try:
        call()
    except (TypeError, ValueError) as error:
        return _fault_of(argument, error)
    except Exception as error:  # noqa: BLE001 whatever it is, it is told
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


def main(words: str) -> dict[str, list[str]]:
    """Returns the faults of each entry that has some."""
    jax.config.update("jax_traceback_filtering", "off")
    for name in LOOPS:
        setattr(jax.lax, name, _refuse)
    faults: dict[str, list[str]] = {}
    for name, entry in ENTRIES.items():
        if words not in name:
            continue
        begun = time.perf_counter()
        for argument, wrong in entry.wrong.items():
            for label, value in wrong.items():
                given = entry.valid | {argument: value}
                found = fault(argument, lambda e=entry, g=given: e.call(**g))
                if found:
                    faults.setdefault(name, []).append(f"{argument}={label}: {found}")
        if "TIMES" in os.environ:
            print(f"{time.perf_counter() - begun:.2f} {name}", file=sys.stderr)
    return faults


if __name__ == "__main__":
    print(json.dumps(main(" ".join(sys.argv[1:])), indent=1))
