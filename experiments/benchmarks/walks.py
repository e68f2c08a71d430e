"""python -m experiments.benchmarks.walks --help.

How near does `jrnn.fused()` on a CPU come to what the machine can do? First what it can
do: multiply-adds in registers, on one core and on all of them; then the kernel's own
products of a packed matrix, on one core, beside oneDNN's with a packed matrix and
PyTorch's `mm`, where PyTorch is installed (`pip install torch==2.13.0`, the build for
CPUs); then the gates alone, forwards and backwards. From these a model on paper:
products at the peak, and gates, divided among the cores. Beside it stands the measured
time.
"""

import concurrent.futures
import ctypes
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jrnn
from experiments import lab
from experiments.benchmarks.grid import Grid, label, written
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers.jax_peers import FUSED, JAX_PEERS, arguments_of
from experiments.benchmarks.peers.problems import (
    GATES,
    GRID,
    PASSES,
    TRAINING,
    Problem,
    Shape,
    flops,
    make_problem,
    passes,
)
from experiments.benchmarks.turns import in_turn, median_ratio, prepare, until
from jrnn.kernels.cpu import compilers, toolchain
from jrnn.kernels.cpu.errors import NoCompiler
from jrnn.kernels.cpu.generate import cell_source

FACTORIES = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm}
PEAK_TURNS = 5_000_000
PEAK, PACKED, MM = "peak", "oneDNN, packed", "PyTorch's mm"

# Added to a cell's source, whose loops the compiler then knows as in the kernel.
TIMED = """
#define SEEN __attribute__((visibility("default")))
SEEN long wide(void) { return WIDE; }
SEEN long saved_count(void) { return SAVED; }
/* Multiply-adds in registers: 12 sums, enough for the latency of any of them. */
SEEN double peak(const long turns) {
  vec sum[12];
  const vec a = splat((real)1.0001), b = splat((real)0.999);
  for (int i = 0; i < 12; i++) sum[i] = splat((real)i);
  for (long t = 0; t < turns; t++)
    for (int i = 0; i < 12; i++) sum[i] = sum[i] * a + b;
  for (int i = 1; i < 12; i++) sum[0] += sum[i];
  return (double)sum[0][0] + 24.0 * LANES;
}
SEEN void multiply(const real *A, const long rows, const long size, const real *P,
                   const long panels, real *out, const long turns) {
  const matrix a = {A, size, 1};
  for (long t = 0; t < turns; t++)
    product(a, rows, size, P, panels, out, WIDE, panels * WIDE, 0);
}
/* The gates of 64 unit vectors, again and again. */
SEEN double gates(const long turns, const int backwards, const real *given) {
  vec total = splat(0);
  for (long t = 0; t < turns; t++)
    for (long q = 0; q < 64; q++) {
      const real *at = given + q * LANES;
      vec old[FIELDS], new[FIELDS], saved[SAVED + 1], u[GATES], v[GATES], d[FIELDS];
      for (int i = 0; i < FIELDS; i++) old[i] = load(at), d[i] = load(at + 64 * LANES);
      for (int g = 0; g < GATES; g++) u[g] = load(at), v[g] = load(at + 64 * LANES);
      for (int i = 0; i < SAVED; i++) saved[i] = load(at);
      if (backwards) {
        vec dv[GATES], du[GATES];
        for (int i = 0; i < FIELDS; i++) new[i] = load(at + 64 * LANES);
        pullback(old, new, saved, d, new, du, SHARED ? du : dv);
        for (int g = 0; g < GATES; g++) total += du[g];
      } else {
        pointwise(old, u, v, new, saved);
        for (int i = 0; i < SAVED; i++) total += saved[i];
      }
      for (int i = 0; i < FIELDS; i++) total += new[i];
    }
  return (double)total[0];
}
"""


@dataclasses.dataclass(frozen=True)
class Settings(Grid):
    """Compare the kernels for CPUs with the machine's peak."""

    seconds: float = 1.0
    """For each measurement; at least five rounds are made."""
    out: Path = Path("runs/walks.json")
    """Where the results go."""


def timed_code(cell: str) -> ctypes.CDLL:
    """Compiles a cell's kernel with functions that time its pieces."""
    made = FACTORIES[cell](3, 4)
    state = jax.eval_shape(
        lambda key: made.init_state(made.init(key, "float32"), (1,)), jax.random.key(0)
    )
    assert made.gated is not None
    compiler = compilers.find_compiler()
    source, flags = cell_source(made.gated, state), toolchain.build_flags(compiler)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "timed.so")
        path.write_bytes(toolchain.compile_library(compiler, source + TIMED, flags))
        library = ctypes.CDLL(str(path))
    library.peak.restype = library.gates.restype = ctypes.c_double
    library.wide.restype = ctypes.c_long
    library.peak.argtypes = [ctypes.c_long]
    library.gates.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p]
    library.multiply.argtypes = [
        *(ctypes.c_void_p, ctypes.c_long, ctypes.c_long),
        *(ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_long),
    ]
    return library


def pointer(array: np.ndarray) -> int:
    """Returns where an array's numbers lie."""
    return array.ctypes.data


def median_seconds(call: Callable[[], Any], seconds: float) -> float:
    """Returns the median seconds of a warm call."""
    call()
    return statistics.median(in_turn({"": call}, until(5, seconds))[""])


def peak_call(
    code: ctypes.CDLL, cores: int, pool: concurrent.futures.Executor
) -> tuple[Callable[[], Any], float]:
    """Returns multiply-adds in registers on so many cores, and their operations."""
    call = lambda: list(pool.map(code.peak, [PEAK_TURNS] * cores))
    return call, 24.0 * (code.wide() // 2) * PEAK_TURNS * cores


def products(
    code: ctypes.CDLL, shape: Shape, gates: int, cores: int, seconds: float
) -> dict[str, Any]:
    """Returns the speed of one core's products of a step, h W, beside its peak."""
    rows, n, wide = max(1, shape.B // cores), shape.H, code.wide()
    draw = np.random.default_rng(0).standard_normal
    h, W = draw((rows, n), "float32"), draw((n, gates * n), "float32")
    panels = -(-gates * n // wide)
    padded = np.zeros((n, panels * wide), "float32")
    padded[:, : gates * n] = W
    P = np.ascontiguousarray(padded.reshape(n, panels, wide).swapaxes(0, 1))
    out = np.zeros((rows, panels * wide), "float32")
    repeats = max(1, int(2e7 / (rows * n * gates * n)))
    given = pointer(h), rows, n, pointer(P), panels, pointer(out), repeats
    ours = lambda: code.multiply(*given)
    ours()
    assert np.allclose(out[:, : gates * n], h @ W, atol=1e-2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        peak, of_peak = peak_call(code, 1, pool)
        calls = {PEAK: peak, "jrnn": ours, **others(h, W, repeats)}
        times = in_turn(calls, until(5, seconds), settle=True)
    work = dict.fromkeys(calls, 2.0 * rows * n * gates * n * repeats) | {PEAK: of_peak}
    speed = {k: work[k] / statistics.median(v) / 1e9 for k, v in times.items()}
    best = {k: work[k] / min(v) / 1e9 for k, v in times.items()}
    share = median_ratio(times[PEAK], times["jrnn"]) * work["jrnn"] / of_peak
    return {
        "rows": rows,
        "units": n,
        "columns": gates * n,
        "gflops": speed,
        "best_gflops": best,
        "share_of_peak": share,
        "best_share_of_peak": best["jrnn"] / best[PEAK],
    }


def others(h: np.ndarray, W: np.ndarray, repeats: int) -> dict[str, Callable[[], Any]]:
    """Returns the same product by others on one core, where they are installed."""
    try:
        import torch  # pyright: ignore[reportMissingImports] optional
    except ModuleNotFoundError:
        return {}
    torch.set_num_threads(1)
    h_t, W_t = torch.from_numpy(h), torch.from_numpy(W)
    out = torch.empty(len(h), W.shape[1])
    ops = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(W_t.T.contiguous(), len(h))
    linear = lambda: ops._linear_pointwise(h_t, packed, None, "none", [], "")
    assert torch.allclose(linear(), h_t @ W_t, atol=1e-2)
    return {
        PACKED: lambda: [linear() for _ in range(repeats)],
        MM: lambda: [torch.mm(h_t, W_t, out=out) for _ in range(repeats)],
    }


def gate_seconds(code: ctypes.CDLL, seconds: float) -> dict[str, float]:
    """Returns the seconds of one unit of one row, forwards and backwards, on a core."""
    lanes, turns = code.wide() // 2, 2000
    given = np.random.default_rng(0).uniform(0.1, 0.9, 192 * lanes).astype("float32")

    def each(backwards: int) -> float:
        call = lambda: code.gates(turns, backwards, pointer(given))
        return median_seconds(call, seconds) / (64 * lanes * turns)

    return {"forwards": each(0), "backwards": each(1)}


def walks(
    code: ctypes.CDLL, problem: Problem, gates: dict[str, float], settings: Settings
) -> dict[str, Any]:
    """Returns the seconds of both passes, and the model's share of them."""
    cores: int = lab.environment()["cores"]  # pyright: ignore[reportAssignmentType]
    peer = JAX_PEERS[FUSED][0](problem)
    params, xs = arguments_of(problem, peer)
    functions = passes(peer.forward, jnp.asarray(problem.readout))
    calls = {name: prepare(f, params, xs).run for name, f in functions.items()}
    shape, found = problem.shape, {}
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        peak, of_peak = peak_call(code, cores, pool)
        times = in_turn({PEAK: peak, **calls}, until(5, settings.seconds), settle=True)
    for which in calls:
        each = gates["forwards"] + (gates["backwards"] if which == TRAINING else 0)
        of_gates = each * shape.T * shape.B * shape.H / cores
        work = flops(problem.cell, shape, which)
        on_paper = [work / of_peak * one + of_gates for one in times[PEAK]]
        found[which] = {
            "seconds": statistics.median(times[which]),
            "products_at_the_peak": work / of_peak * statistics.median(times[PEAK]),
            "gates": of_gates,
            "share": median_ratio(on_paper, times[which]),
            "best_share": min(on_paper) / min(times[which]),
        }
    return {"peak_gflops": of_peak / statistics.median(times[PEAK]) / 1e9, **found}


def measure(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields a row for each cell and shape."""
    cores: int = lab.environment()["cores"]  # pyright: ignore[reportAssignmentType]
    for cell in settings.cells:
        code = timed_code(cell)
        gates = gate_seconds(code, settings.seconds)
        for number in tqdm(settings.shapes, cell):
            shape, wide = GRID[number], GATES[cell]
            yield {
                "cell": cell,
                "shape": shape,
                "gate_nanoseconds": {k: v * 1e9 for k, v in gates.items()},
                "product": products(code, shape, wide, cores, settings.seconds),
                "walk": walks(code, make_problem(cell, shape), gates, settings),
            }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns products beside the peak and others', and walks beside their models.

    Medians over rounds and, in brackets, the best round: where other work shares a
    core, it slows loads more than what stays in registers.
    """
    one = lambda row, which, who: row["product"][which].get(who, float("nan"))
    speed = lambda row, who: (
        f"{one(row, 'gflops', who):.0f} ({one(row, 'best_gflops', who):.0f})"
    )
    columns = {
        "cell (T, B, I, H)": label,
        "a core's peak, GFLOP/s": lambda row: speed(row, PEAK),
        "jrnn's product": lambda row: speed(row, "jrnn"),
        "of the peak": lambda row: (
            f"{row['product']['share_of_peak']:.2f} "
            f"({row['product']['best_share_of_peak']:.2f})"
        ),
        PACKED: lambda row: speed(row, PACKED),
        MM: lambda row: speed(row, MM),
    }
    for which in PASSES:
        walk = lambda row, key, which=which: row["walk"][which][key]
        columns |= {
            f"{which}, ms": lambda row, walk=walk: f"{1e3 * walk(row, 'seconds'):.3g}",
            f"model / {which}": lambda row, walk=walk: (
                f"{walk(row, 'share'):.2f} ({walk(row, 'best_share'):.2f})"
            ),
        }
    return lab.table_of(rows, columns)


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results.

    Raises:
      ValueError: There is no C compiler.
    """
    try:
        compiler = compilers.find_compiler()
    except NoCompiler as error:
        raise ValueError(str(error)) from error
    started = time.perf_counter()
    rows = list(measure(settings))
    about = {
        **environment_of_peers(),
        "compiler": compiler.version.splitlines()[0],
        "seconds": round(time.perf_counter() - started),
    }
    return written(settings, "benchmarks.walks", rows, [table(rows)], about)


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
