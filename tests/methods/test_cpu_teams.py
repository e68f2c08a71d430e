"""Kernels for CPUs on pools of different sizes: divisions, bits, and no hang."""

import ctypes
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jrnn
from jrnn.kernels.cpu.generate import cell_source
from tests.methods.drive_teams import PROBLEMS
from tests.methods.test_fused_cpu import has_compiler
from tests.native import compile_c

DRIVER = Path(__file__).with_name("drive_teams.py")
pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler")


@functools.cache
def results(threads):
    """The number of threads, and each problem's hash and error, on such a pool."""
    settings = {"NPROC": str(threads), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0"}
    run = subprocess.run(
        [sys.executable, DRIVER],
        env={**os.environ, **settings},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found, *answers = json.loads(run.stdout)
    assert found > 0 or sys.platform != "linux", "XLA names its threads otherwise"
    if found not in (0, threads):
        pytest.skip(f"NPROC={threads} made a pool of {found} threads")
    return answers


@pytest.mark.parametrize(
    "threads",
    [
        pytest.param(4, marks=pytest.mark.longer),
        *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 8)),
    ],
)
def test_teams_of_any_pool_equal_the_scan(threads):
    """Eight callers at once: nothing hangs, and all of them get the same bits."""
    assert all(error < 2e-5 for _, error in results(threads))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3, 4, 8])
def test_a_split_of_units_changes_no_bit(threads):
    """One row is one group on every pool, and its units are split in parts."""
    rows = [number for number, (_, _, B, *_) in enumerate(PROBLEMS) if B == 1]
    assert len(rows) == 2
    for number in rows:
        assert results(threads)[number][0] == results(1)[number][0]


@pytest.fixture(scope="module")
def divide(tmp_path_factory):
    """Groups of rows and parts of units, of an LSTM's walk in float32."""
    cell = jrnn.lstm(3, 4)
    state = jax.eval_shape(
        lambda key: cell.init_state(cell.init(key, "float32"), (1,)), jax.random.key(0)
    )
    source = (
        cell_source(cell.gated, state)
        + """
static int64_t pool;
static XLA_FFI_Error *size_of_pool(XLA_FFI_ThreadPool_NumThreads_Args *args) {
  *args->num_threads = pool;
  return 0;
}
__attribute__((visibility("default")))
long division(long threads, long steps, long rows, long units, long backwards) {
  static XLA_FFI_Api api;
  XLA_FFI_CallFrame frame;
  memset(&frame, 0, sizeof frame);
  api.XLA_FFI_ThreadPool_NumThreads = size_of_pool;
  frame.api = &api, pool = threads;
  walk w;
  memset(&w, 0, sizeof w);
  w.steps = steps, w.rows = rows, w.units = units, w.vectors = vectors_of(units);
  if (LANES != 8) return -1;
  divide(&frame, &w, backwards ? GATES * units : units);
  return w.groups * 1000 + w.parts;
}
"""
    )
    folder = tmp_path_factory.mktemp("division")
    function = compile_c(source, folder, f"-I{jax.ffi.include_dir()}").division
    function.restype, function.argtypes = ctypes.c_long, [ctypes.c_long] * 5
    return lambda *sizes: divmod(function(*sizes), 1000)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((2, 100, 64, 512, 0), (2, 1)),  # rows enough for each core
        ((2, 100, 8, 512, 0), (1, 2)),  # the matrix is read once, not twice
        (
            (2, 100, 8, 512, 1),
            (2, 1),
        ),  # dv, which cores would exchange, is wider than h
        ((2, 100, 4, 512, 1), (1, 2)),
        ((8, 100, 8, 512, 1), (2, 4)),
        ((8, 100, 64, 128, 0), (8, 1)),
        ((4, 100, 1, 512, 1), (1, 4)),  # one sequence
        ((1, 100, 8, 512, 0), (1, 1)),
        ((8, 100, 2, 32, 0), (2, 1)),  # a step is shorter than a barrier
        ((2, 100, 1, 32, 0), (1, 1)),
        ((8, 1, 2, 16, 0), (1, 1)),  # all of it is shorter than a thread takes to start
        ((8, 100, 0, 512, 0), (1, 1)),
    ],
)
def test_rows_or_units_are_divided(divide, sizes, expected):
    """(threads, T, B, n, backwards) -> (groups of rows, parts of the units)."""
    found = divide(*sizes)
    if found[0] < 0:
        pytest.skip("the costs below are those of vectors of 8")
    assert found == expected
