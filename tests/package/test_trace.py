"""How much a reader must read: the files and functions in a trace of an LSTM.

`python -m tests.package.test_trace` prints files and functions. The aim is 9 files and
100 functions; the bounds here are the present numbers, and may only fall.
"""

import collections
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jrnn
from jrnn.core.integers import saturate

MOST_FILES, MOST_FUNCTIONS = 28, 164
PACKAGE = Path(jrnn.__file__).parent


def entered(call) -> dict[str, list[str]]:
    """Returns the functions of jrnn that a call enters, sorted, by file."""
    found: dict[str, set[str]] = collections.defaultdict(set)

    def enter(frame, event, argument):
        del argument
        path = Path(frame.f_code.co_filename)
        if event == "call" and PACKAGE in path.parents:
            found[path.relative_to(PACKAGE).as_posix()].add(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(before)
    return {file: sorted(found[file]) for file in sorted(found)}


def trace_of_an_lstm() -> dict[str, list[str]]:
    """Returns what tracing enters, of a cell whose parameters were checked before."""
    cell = jrnn.lstm(3, 4)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    step = jax.value_and_grad(lambda p, xs: jrnn.unroll(cell, p, xs)[1].sum())
    jax.eval_shape(step, params, jnp.ones((5, 2, 3)))
    return entered(lambda: jax.eval_shape(step, params, jnp.ones((7, 2, 3))))


def main() -> None:
    files = trace_of_an_lstm()
    for file, functions in files.items():
        print(f"{len(functions):4d}  {file}  {', '.join(functions)}")
    print(f"{sum(map(len, files.values()))} functions of {len(files)} files")


@pytest.mark.longer
def test_a_trace_enters_no_more_than_it_did():
    code = (
        "from tests.package.test_trace import *; print(json.dumps(trace_of_an_lstm()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=True,
    )
    files = json.loads(run.stdout)
    assert {"run/unroll.py", "methods/bptt/backward.py", "cells/lstm.py"} <= set(files)
    assert len(files) <= MOST_FILES
    assert sum(map(len, files.values())) <= MOST_FUNCTIONS


def test_what_a_call_enters_is_counted():
    found = entered(lambda: saturate(jnp.ones(2, int), jnp.int8))
    assert found == {"core/integers.py": ["saturate"]}


if __name__ == "__main__":
    main()
