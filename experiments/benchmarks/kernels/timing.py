"""Times of kernels and of what they are compared with, in turn in one process."""

import functools
from collections.abc import Callable
from typing import Any

import jax

import jrnn
from experiments.benchmarks.kernels.agreement import AGREE
from experiments.benchmarks.kernels.systems import REFERENCE, Case, Rows, failure, ready
from experiments.benchmarks.peers.problems import INFERENCE, PASSES, TRAINING
from experiments.benchmarks.peers.running import Runner, enough, spread
from experiments.benchmarks.turns import in_turn
from experiments.lab.errors import normwise

LINEAR, COPY = "jrnn linear_recurrence", "copy"


def check(found: dict[str, Runner]) -> dict[str, float]:
    """Returns how far each is from the reference; raises if it is another function."""
    flat = lambda runner: jax.tree.leaves((runner.outputs, runner.gradients))
    first, off = flat(found.get(REFERENCE, next(iter(found.values())))), {}
    for name, runner in found.items():
        off[name] = max(map(normwise, flat(runner), first))
        if not off[name] <= AGREE:
            raise ValueError(
                f"Expected {name} to agree with jrnn.bptt() to {AGREE}, got "
                f"{off[name]}: not the same function."
            )
    return off


def time_cell(case: Case, seconds: float) -> Rows:
    """One row for each system and pass of one cell at one size."""
    found, rows = ready(case)
    off: dict[str, float | None] = {}
    for name in list(found):
        if REFERENCE not in found:  # whose failure is a row already
            off[name] = None
            continue
        try:
            both = {REFERENCE: found[REFERENCE], name: found[name]}
            off[name] = check(both)[name]
        except ValueError as error:
            rows.append(failure(case.what, name, error))
            del found[name]
    about = {"cell": case.cell, "shape": list(case.shape), "dtype": case.dtype}
    for which in PASSES:
        calls = {name: runner.runs[which] for name, runner in found.items()}
        for name, times in in_turn(calls, enough(seconds)).items():
            row = {"what": case.what, **about, "pass": which, "system": name}
            more = {
                "difference": off[name],
                "compile_seconds": found[name].compile_seconds[which],
                "temporary_bytes": found[name].temporary_bytes[which],
            }
            rows.append({**row, **spread(times), **more})
    return rows


def time_linear(steps: int, lanes: tuple[int, int], seconds: float) -> Rows:
    """The linear recurrence's kernel beside a copy of as many bytes."""
    shape = steps, *lanes
    a = jax.jit(lambda: jax.random.uniform(jax.random.key(0), shape))()
    b = jax.jit(lambda: jax.random.normal(jax.random.key(1), shape))()
    run = functools.partial(jrnn.methods.linear_recurrence, kernel="cuda")
    forward = jax.jit(run)
    backward = jax.jit(lambda a, b: jax.vjp(run, a, b)[1](b))
    copy = jax.jit(lambda a: -a)  # reads a and writes as much; XLA drops a mere copy
    wait = jax.block_until_ready
    # The arrays that are read and written: a b h; and with dh, g, da and db besides.
    calls: dict[tuple[str, str], tuple[int, Callable[[], Any]]] = {
        (LINEAR, INFERENCE): (3, lambda: wait(forward(a, b))),
        (LINEAR, TRAINING): (9, lambda: wait(backward(a, b))),
        (COPY, INFERENCE): (2, lambda: wait(copy(a))),
    }
    for _, call in calls.values():
        call()
    timed = {key: call for key, (_, call) in calls.items()}
    rows = []
    for key, times in in_turn(timed, enough(seconds)).items():
        row = {"what": f"linear {shape}", "pass": key[1], "system": key[0]}
        found = spread(times)
        speed = calls[key][0] * a.nbytes / found["median_seconds"]
        rows.append({**row, **found, "bytes_per_second": speed})
    return rows
