"""Kernels for CPUs on a batch that is split over devices: each walks its own rows."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.methods.test_fused_cpu import has_compiler

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler")


@functools.cache
def results(devices):
    """The rows of a device's calls and its collectives, by case."""
    settings = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    settings["JAX_NUM_CPU_DEVICES"] = str(devices)
    run = subprocess.run(
        [sys.executable, "-m", "tests.methods.drive_devices"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "devices",
    [
        pytest.param(2, marks=pytest.mark.longer),
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_each_device_walks_its_own_rows(devices):
    """Values and gradients equal those of one device: the driver compares them."""
    found = results(devices)
    assert len(found) >= 13
    for name, (rows, collectives) in found.items():
        if name == "second derivatives":  # computed in JAX: no call is left
            assert rows == []
            continue
        whole = name.startswith("a whole batch")
        assert rows == ([8] if whole else [8 // devices]), name
        # Of gradients of matrices, and of the loss: newer versions of XLA join them.
        sums = collectives.count("all-reduce")
        assert (sums > 0) != whole, name
        gathered = collectives.count("all-gather")
        assert gathered == (2 if name == "a split matrix" else 0), name
        assert len(collectives) == sums + gathered, name
