"""Strict settings for all tests: x64, no silent promotion, no PRNG key used twice."""

import gc
import itertools
import json
import os
import platform
from pathlib import Path

import jax
import jax.export  # older jax does not import it
import pytest

RESULTS = Path(__file__).parent / "results" / "gradient_matrix.json"
MAPPINGS = Path("/proc/self/maps")
TORN_DOWN = itertools.count(1)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)  # no typed key is consumed twice


def pytest_configure(config):
    """Compiles with little optimisation what is not slow, which mostly compiles.

    The slow tests run what users run. XLA reads the flag when it is first used.
    """
    chosen = config.option.markexpr
    if chosen == "longer" or "not slow and not nightly" in chosen:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    """Marks all cases but the first of what is `longer_but_the_first`.

    Raises for tests marked both slow and nightly, which `-m slow` would run.
    """
    begun = set()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if {"slow", "nightly"} <= marks:
            raise pytest.UsageError(f"Expected one mark, got both for {item.nodeid}.")
        if "longer_but_the_first" not in marks or {"slow", "nightly"} & marks:
            continue
        name = item.nodeid.partition("[")[0]
        if name in begun:
            item.add_marker("longer")
        begun.add(name)


def pytest_collection_finish():
    """Keeps what collecting made out of later garbage collections, which it slows."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown():
    """Frees compiled programs before Linux runs out of mappings for them.

    Each takes dozens of the 65,530 that a process may have (vm.max_map_count), and a
    process without any left crashes. A full run compiles thousands of programs.
    Counting takes about 10 ms, and so only every sixteenth test counts.
    """
    if next(TORN_DOWN) % 16:
        return
    try:
        mappings = MAPPINGS.read_bytes().count(b"\n")
    except OSError:  # not Linux: no such limit
        return
    if mappings > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def standard_promotion():
    """Allows standard promotion for tests with optax, which relies on it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def pytest_terminal_summary(terminalreporter):
    """Prints how many cases of the gradient matrix ran; saves a full run's result."""
    counted, largest, failed = 0, 0.0, 0
    names = set()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if "test_matrix.py::test_every" not in report.nodeid:
                continue
            if getattr(report, "when", "") != "call":
                continue
            names.add(report.nodeid.split("::")[1].split("[")[0])
            failed += outcome == "failed"
            known = dict(report.user_properties)
            counted += known.get("cases", 0)
            largest = max(largest, known.get("largest", 0.0))
    if not names:
        return
    terminalreporter.write_line(
        f"gradient matrix: {counted} cases equal the loop of step, largest error "
        f"{largest:.1e}, {failed} tests failed"
    )
    if names == {"test_everything"}:
        RESULTS.parent.mkdir(exist_ok=True)
        content = {
            "cases": counted,
            "failed": failed,
            "largest_error": largest,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
