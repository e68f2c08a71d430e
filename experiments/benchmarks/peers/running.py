"""Compiles, checks and times every library on one problem, in turn in one process."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.peers.floor import products_alone
from experiments.benchmarks.peers.jax_peers import (
    DEVICES,
    HAIKU,
    JAX_PEERS,
    OURS,
    RESET_BEFORE,
    JaxPeer,
    arguments_of,
)
from experiments.benchmarks.peers.problems import (
    INFERENCE,
    PASSES,
    STEP,
    TRAINING,
    Problem,
    Weights,
    flops,
    passes,
)
from experiments.benchmarks.peers.torch_peer import (
    peak_on_gpu,
    torch_peer,
    without_onednn,
)
from experiments.benchmarks.turns import in_turn, prepare, rounded, until
from experiments.lab.errors import normwise

TORCH, FLOOR = "torch", "products alone"
PLAIN_TORCH = "torch, without oneDNN"
# Outputs and gradients of the same mathematics in float32, over up to 2,000 steps: what
# orders of summation leave.
TOLERANCE = 1e-3
# A round is repeated until this many seconds, within these numbers of rounds.
SECONDS, FEWEST, MOST = 12.0, 5, 50
STREAM = 50  # steps of streaming, one after the other


class Runner(NamedTuple):
    """One library on one problem.

    Attributes:
      runs: Pass -> a warm call that returns when the work is done.
      outputs: ys, time first.
      gradients: Of weights and inputs, in jrnn's layout.
      compile_seconds: Pass -> seconds of tracing and compiling; None: not compiled.
      temporary_bytes: Pass -> of the compiled program, as the compiler plans them; of
        PyTorch on a GPU what its allocator counted; None: not known.
      step: A warm call of one step of streaming, or None.
    """

    runs: dict[str, Callable[[], Any]]
    outputs: np.ndarray
    gradients: tuple[Weights, np.ndarray]
    compile_seconds: dict[str, float | None]
    temporary_bytes: dict[str, int | None]
    step: Callable[[], Any] | None


def jax_runner(problem: Problem, peer: JaxPeer) -> Runner:
    """Compiles a JAX library's passes, and a step of streaming."""
    turn = (lambda a: a.swapaxes(0, 1)) if peer.batch_first else (lambda a: a)
    weights = Weights(*map(jnp.asarray, problem.weights))
    params, xs = arguments_of(problem, peer)
    readout = jax.block_until_ready(jnp.asarray(problem.readout))  # before compiling
    runs, compile_seconds, temporary = {}, {}, {}
    for which, function in passes(peer.forward, readout).items():
        ready = prepare(function, params, xs, warm=False)
        compile_seconds[which] = ready.compile_seconds
        temporary[which] = ready.temporary_bytes
        # Timed is the call that users make, which is dispatched faster than `compiled`.
        run = jax.jit(function)
        runs[which] = lambda run=run: jax.block_until_ready(run(params, xs))
        runs[which]()
    _, (dparams, dxs) = runs[TRAINING]()
    (dweights,) = jax.vjp(peer.convert, weights)[1](dparams)
    gradients = Weights(*map(np.asarray, dweights)), np.asarray(turn(dxs))
    step = None
    if peer.step is not None:
        once, x = jax.jit(peer.step), jnp.asarray(problem.xs[0, :1])
        step = lambda: jax.block_until_ready(once(params, peer.state, x))
        step()
    outputs = np.asarray(turn(runs[INFERENCE]()))
    return Runner(runs, outputs, gradients, compile_seconds, temporary, step)


def torch_runner(
    problem: Problem, device: str, dtype: str = "float32", plain: bool = False
) -> Runner:
    """PyTorch's passes, warm; `plain`: on a CPU as they are without oneDNN."""
    peer = torch_peer(problem, device, dtype)
    apart = without_onednn if plain else lambda call: call
    runs = {INFERENCE: apart(peer.infer), TRAINING: apart(peer.train)}
    outputs, gradients = apart(peer.outputs)(), apart(peer.gradients)()
    nothing: dict[str, Any] = dict.fromkeys(PASSES)
    taken: dict[str, int | None] = nothing
    if device.startswith("cuda"):
        taken = {which: peak_on_gpu(call) for which, call in runs.items()}
    if plain:
        return Runner(runs, outputs, gradients, nothing, taken, None)
    peer.step()
    return Runner(runs, outputs, gradients, nothing, taken, peer.step)


def runners(problem: Problem, systems: tuple[str, ...]) -> dict[str, Runner]:
    """Returns those of `systems` that compute the problem's function, compiled."""
    found = {}
    on_cpu = jax.default_backend() == "cpu"
    for name in systems:
        if name == TORCH:
            found[name] = torch_runner(problem, "cpu" if on_cpu else "cuda")
            continue
        if name == PLAIN_TORCH:
            if on_cpu and problem.cell == "lstm":
                found[name] = torch_runner(problem, "cpu", plain=True)
            continue
        build, cells = JAX_PEERS[name]
        splits = name != DEVICES or problem.shape.B % jax.device_count() == 0
        if problem.cell in cells and splits:
            found[name] = jax_runner(problem, build(problem))
    return found


def disagreements(problem: Problem, found: dict[str, Runner]) -> dict[str, float]:
    """Returns how far each library is from jrnn, outputs and gradients, normwise.

    Raises:
      ValueError: One is further off than float32 explains: it computes another thing.
    """
    off = {}
    for name, runner in found.items():
        reference = found[OURS]
        if problem.cell == "gru" and name == HAIKU:
            reference = found[RESET_BEFORE]
        if name == RESET_BEFORE:
            continue
        pairs = [
            (runner.outputs, reference.outputs),
            *zip(runner.gradients[0], reference.gradients[0], strict=True),
            (runner.gradients[1], reference.gradients[1]),
        ]
        off[name] = max(normwise(a, b) for a, b in pairs)
        if not off[name] <= TOLERANCE:
            raise ValueError(
                f"Expected {name} to agree with jrnn to {TOLERANCE}, got {off[name]} "
                f"for {problem.cell} at {problem.shape}: not the same function."
            )
    return off


def enough(limit: float) -> Callable[[int, float], bool]:
    """Returns when to stop: after `limit` seconds, within the numbers of rounds."""
    return until(FEWEST, limit, MOST)


def compare(
    problem: Problem, systems: tuple[str, ...], seconds: float
) -> list[dict[str, Any]]:
    """Returns one row for each library and pass: times, ratios, memory."""
    found = runners(problem, systems)
    off, rows = disagreements(problem, found), []
    about = {"cell": problem.cell, "shape": list(problem.shape)}
    for which in PASSES:
        calls = {name: runner.runs[which] for name, runner in found.items()}
        calls[FLOOR] = products_alone(problem, which)
        work = flops(problem.cell, problem.shape, which) / 1e9
        for name, times in in_turn(calls, enough(seconds), settle=True).items():
            runner = found.get(name)
            more = {
                "gflops": work / statistics.median(times),
                "compile_seconds": runner and runner.compile_seconds[which],
                "temporary_bytes": runner and runner.temporary_bytes[which],
                "difference": off.get(name),
            }
            row = {**about, "pass": which, "system": name}
            rows.append({**row, **spread(times), **more})
    streams = {n: _stream(r.step) for n, r in found.items() if r.step is not None}
    stop = enough(min(seconds, 2.0))
    for name, times in in_turn(streams, stop, settle=True).items():
        row = {**about, "pass": STEP, "system": name}
        rows.append({**row, **spread([seconds / STREAM for seconds in times])})
    return rows


def merge(several: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Makes one list of rows of those of several comparisons: of all rounds together.

    Seconds of compiling are the medians over comparisons.
    """
    found = []
    for rows in zip(*several, strict=True):
        times = [seconds for row in rows for seconds in row["seconds_per_round"]]
        row = {**rows[0], **spread(times)}
        if row.get("compile_seconds") is not None:
            seconds = [row["compile_seconds"] for row in rows]
            row["compile_seconds"] = statistics.median(seconds)
        if "gflops" in row:
            work = rows[0]["gflops"] * rows[0]["median_seconds"]
            row["gflops"] = work / row["median_seconds"]
        found.append(row)
    return found


def _stream(step: Callable[[], Any]) -> Callable[[], None]:
    """Returns a call that takes as many steps as are timed at once.

    A step takes microseconds: alone between the calls of others it would find the
    processor's caches full of theirs, and the first in turn those of the slowest.
    """

    def run() -> None:
        for _ in range(STREAM):
            step()

    return run


def spread(times: list[float]) -> dict[str, Any]:
    """Returns times, their median and quartiles, and how many there are."""
    quartiles = np.percentile(times, (25, 50, 75)).tolist()
    return {
        "rounds": len(times),
        "median_seconds": quartiles[1],
        "quartile_seconds": [quartiles[0], quartiles[2]],
        "seconds_per_round": rounded(times),
    }
