"""python -m experiments.benchmarks.kernels --help.

On a machine with a GPU: does every method give the numbers of a scan there? How long do
the kernels of `jrnn.fused` take beside `bptt`, `scan`, flax.linen, and cuDNN through
PyTorch and through `jax.experimental.rnn`? And how near does the kernel of
`jrnn.linear_recurrence` come to the speed at which the card copies? All take turns in
one process, after a check that outputs and gradients agree. An LSTM of 16 sequences and
1,024 steps, which is the size in FlashRNN's figure, and below.

What fails is named in the results, the rest is measured, and the exit code is 1.
Without a GPU it says so, and measures nothing.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jrnn
from experiments._report import format_table, write_json
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers.jax_peers import JaxPeer, flax_linen
from experiments.benchmarks.peers.problems import (
    INFERENCE,
    PASSES,
    TRAINING,
    Problem,
    Shape,
    Weights,
    make_problem,
    normwise,
)
from experiments.benchmarks.peers.running import (
    Runner,
    enough,
    jax_runner,
    spread,
    torch_runner,
)
from experiments.benchmarks.turns import in_turn

# TF32 and bfloat16 keep 10 and 7 bits: this tells another function, not rounding.
AGREE = 0.1
# Outputs and gradients of a scan in float32, with products at full precision.
EXACT = 1e-4
REFERENCE = "jrnn bptt"

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time kernels on a GPU beside what else there is."""

    sizes: tuple[int, ...] = (128, 256, 512)
    """Units of the LSTM and its inputs, in float32."""
    narrow: tuple[int, ...] = (768,)
    """The same in bfloat16."""
    batch: int = 16
    """Sequences side by side."""
    steps: int = 1024
    """Steps of each."""
    lanes: tuple[int, int] = (8, 1536)
    """Batch and units of the linear recurrence."""
    linear_steps: int = 65536
    """Its steps."""
    seconds: float = 4.0
    """How long each group takes turns."""
    threads: int = 12
    """How many programs are compiled at the same time."""
    out: Path = Path("runs/kernels.json")
    """Where the results go."""


class Case(NamedTuple):
    """One size of the LSTM, and what runs it."""

    size: int
    dtype: str
    runners: dict[str, "Future[Runner]"]

    @property
    def what(self) -> str:
        """What its rows are called."""
        return f"lstm {self.size} {self.dtype}"


def jrnn_peer(shape: Shape, method: jrnn.Method, dtype: str) -> JaxPeer:
    """The LSTM by a method, its parameters and inputs in a type."""
    cell = jrnn.lstm(shape.I, shape.H)
    like = cell.init(jax.random.key(0))
    narrow = functools.partial(jax.tree.map, lambda leaf: leaf.astype(dtype))

    def forward(params: Any, xs: Any) -> Any:
        ys = jrnn.unroll(cell, params, narrow(xs), method=method)[1]
        return ys.astype(jnp.float32)

    return JaxPeer(forward, lambda w: narrow(like._replace(**w._asdict())))


def cudnn_peer(shape: Shape) -> JaxPeer:
    """The LSTM of cuDNN through `jax.experimental.rnn`, float32, batch in front."""
    from jax.experimental import rnn

    T, B, I, H = shape
    zeros, lengths = jnp.zeros((1, B, H)), jnp.full(B, T, jnp.int32)

    def forward(weights: Any, xs: Any) -> Any:
        state, sizes = (zeros, zeros), (I, H, 1, 0.0, False)
        results: Any = rnn.lstm(xs, *state, weights, lengths, *sizes)
        return results[0]

    def convert(w: Weights) -> Any:
        parts = w.W_x.T, w.W_h.T, w.b, jnp.zeros(4 * H)
        return jnp.concatenate([part.ravel() for part in parts])

    return JaxPeer(forward, convert, batch_first=True)


def prepare(settings: Settings, pool: ThreadPoolExecutor) -> list[Case]:
    """Begins to compile everything that is timed."""
    cases = []
    sizes = [(size, "float32") for size in settings.sizes]
    for size, dtype in [*sizes, *((size, "bfloat16") for size in settings.narrow)]:
        shape = Shape(settings.steps, settings.batch, size, size)
        problem = make_problem("lstm", shape)
        make: dict[str, Callable[[], Runner]] = {}
        methods = {"bptt": jrnn.bptt(), "scan": jrnn.scan(), "fused": jrnn.fused()}
        for name, method in methods.items():
            peer = functools.partial(jrnn_peer, shape, method, dtype)
            make[f"jrnn {name}"] = functools.partial(_run_jax, problem, peer)
        make["PyTorch"] = functools.partial(torch_runner, problem, "cuda", dtype)
        if dtype == "float32":
            peer = functools.partial(flax_linen, problem)
            make["flax.linen"] = functools.partial(_run_jax, problem, peer)
            peer = functools.partial(cudnn_peer, shape)
            make["jax.experimental.rnn"] = functools.partial(_run_jax, problem, peer)
        running = {name: pool.submit(one) for name, one in make.items()}
        cases.append(Case(size, dtype, running))
    return cases


def _run_jax(problem: Problem, peer: Callable[[], JaxPeer]) -> Runner:
    return jax_runner(problem, peer())


def ready(case: Case) -> tuple[dict[str, Runner], Rows]:
    """Returns what compiled and ran, and a row for each that did not."""
    found, failed = {}, []
    for name, future in case.runners.items():
        try:
            found[name] = future.result()
        except Exception as error:  # whatever it is, the others are measured
            failed.append(_failure(case.what, name, error))
    return found, failed


def _failure(what: str, system: str, error: Exception) -> dict[str, Any]:
    shown = f"{type(error).__name__}: {error}"[:1000]
    return {"what": what, "system": system, "error": shown}


def _guarded(what: str, measure: Callable[[], Rows]) -> Rows:
    try:
        return measure()
    except Exception as error:  # whatever it is, the rest is measured
        return [_failure(what, "all", error)]


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


def time_lstm(settings: Settings, case: Case) -> Rows:
    """One row for each system and pass at one size."""
    what = case.what
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
            rows.append(_failure(what, name, error))
            del found[name]
    for which in PASSES:
        calls = {name: runner.runs[which] for name, runner in found.items()}
        for name, times in in_turn(calls, enough(settings.seconds)).items():
            row = {"what": what, "pass": which, "system": name}
            more = {"difference": off[name]}
            compiling = found[name].compile_seconds[which]
            rows.append({**row, **spread(times), **more, "compile_seconds": compiling})
    return rows


def time_linear(settings: Settings) -> Rows:
    """The linear recurrence's kernel beside a copy of as many bytes."""
    shape = settings.linear_steps, *settings.lanes
    a = jax.jit(lambda: jax.random.uniform(jax.random.key(0), shape))()
    b = jax.jit(lambda: jax.random.normal(jax.random.key(1), shape))()
    run = functools.partial(jrnn.linear_recurrence, kernel="cuda")
    forward = jax.jit(run)
    backward = jax.jit(lambda a, b: jax.vjp(run, a, b)[1](b))
    copy = jax.jit(lambda a: -a)  # reads a and writes as much; XLA drops a mere copy
    wait = jax.block_until_ready
    # The arrays that are read and written: a b h; and with dh, g, da and db besides.
    calls: dict[tuple[str, str], tuple[int, Callable[[], Any]]] = {
        ("jrnn linear_recurrence", INFERENCE): (3, lambda: wait(forward(a, b))),
        ("jrnn linear_recurrence", TRAINING): (9, lambda: wait(backward(a, b))),
        ("copy", INFERENCE): (2, lambda: wait(copy(a))),
    }
    for _, call in calls.values():
        call()
    timed = {key: call for key, (_, call) in calls.items()}
    rows = []
    for key, times in in_turn(timed, enough(settings.seconds)).items():
        row = {"what": f"linear {shape}", "pass": key[1], "system": key[0]}
        found = spread(times)
        speed = calls[key][0] * a.nbytes / found["median_seconds"]
        rows.append({**row, **found, "bytes_per_second": speed})
    return rows


METHODS = {
    "bptt": jrnn.bptt(precision="highest"),
    "bptt remat": jrnn.bptt(chunk=16, remat=1, precision="highest"),
    "newton": jrnn.newton(),
    "associative": jrnn.associative(),
    "associative kernel": jrnn.associative(kernel="cuda"),
    "fused": jrnn.fused(precision="highest"),
    "fused in TF32": jrnn.fused(precision="tensorfloat32"),
}


class Compared(NamedTuple):
    """A cell that every method runs; `mapped`: by `vmap` over three batches."""

    name: str
    size: int
    B: int
    dtype: str = "float32"
    mapped: bool = False


# A matrix that stays in one program; that several share, for one block of rows and for
# blocks at the same time and in turn; with 64 columns each and 32; read at each step.
COMPARED = (
    Compared("elman", 40, 3),
    Compared("gru", 40, 3),
    Compared("lstm", 40, 3),
    Compared("elman", 256, 3),
    Compared("gru", 200, 17),
    Compared("gru", 200, 3, mapped=True),
    Compared("lstm", 256, 300),
    Compared("lstm", 512, 200),
    Compared("lstm", 768, 32),
    Compared("lstm", 768, 16, "bfloat16"),
    Compared("lstm", 1024, 16),
    Compared("lru", 64, 3),
    Compared("min_gru", 64, 3),
)


def agree(case: Compared) -> Rows:
    """How far every method is from a scan, outputs and gradients, on this machine.

    With lengths, resets, a mask and a state to begin with.
    """
    T, B = 60, case.B
    cell = getattr(jrnn, case.name)(5, case.size)
    params = cell.init(jax.random.key(0), case.dtype)
    batches = (3,) if case.mapped else ()
    xs = jax.random.normal(jax.random.key(1), (*batches, T, B, 5), case.dtype)
    state = jax.tree.map(lambda leaf: leaf + 0.1, cell.init_state(params, (B,)))
    flags: dict[str, Any] = {
        "lengths": jnp.arange(B) * T // B + 1,
        "resets": jax.random.bernoulli(jax.random.key(2), 0.05, (T, B)),
        "mask": jax.random.bernoulli(jax.random.key(3), 0.9, (T, B)),
    }

    def result(method: jrnn.Method) -> list[np.ndarray]:
        def loss(params: Any, xs: Any, state: Any) -> Any:
            run = lambda xs: jrnn.unroll(
                cell, params, xs, state, method=method, **flags
            )[1].astype(jnp.float32)
            ys = (jax.vmap(run) if case.mapped else run)(xs)
            return (ys * jnp.sin(jnp.arange(ys.shape[-1]))).sum(), ys

        run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        with jax.default_matmul_precision("highest"):
            (_, ys), slopes = run(params, xs, state)
        found = (
            np.asarray(leaf, np.complex128) for leaf in jax.tree.leaves((ys, slopes))
        )
        return [np.stack([leaf.real, leaf.imag]) for leaf in found]

    what = f"{case.name} {case.size}, {B} sequences, {case.dtype}"
    what += ", by vmap" if case.mapped else ""
    expected, rows = result(jrnn.scan(precision="highest")), []
    for name, method in METHODS.items():
        linear = "associative" in name
        takes = cell.linear if linear else cell.gated and cell.gated.matrix
        if not takes and (linear or "fused" in name):
            continue
        if name == "newton" and case.size > 64:
            continue  # its Jacobians are T B H^2 numbers
        try:
            found = result(method)
        except Exception as error:  # whatever it is, the others are compared
            rows.append(_failure(what, name, error))
            continue
        off = max(map(normwise, found, expected))
        row = {"what": what, "pass": "agreement", "system": name}
        rows.append({**row, "difference": off})
        narrow = case.dtype != "float32" or "TF32" in name
        if not off <= (AGREE if narrow else EXACT):
            message = f"{off} off, outputs and gradients of a scan"
            rows.append(_failure(what, name, ValueError(message)))
    return rows


def main(arguments: list[str]) -> int:
    """Measures, prints a table, writes the results."""
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    if jax.default_backend() != "gpu":
        raise SystemExit(
            f"Expected a GPU, got the backend {jax.default_backend()!r}: there is "
            "nothing to measure here. Run it on a machine with one, with jax[cuda12] "
            "and PyTorch installed; `python -m pytest tests/test_fused.py` checks the "
            "kernels anywhere."
        )
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    rows: Rows = []

    def keep(more: Rows) -> None:
        rows.extend(more)
        content = {"environment": environment_of_peers(), "rows": rows}
        write_json(settings.out, {**content, "settings": dataclasses.asdict(settings)})

    with ThreadPoolExecutor(settings.threads) as pool:
        compared = {case: pool.submit(agree, case) for case in COMPARED}
        cases = prepare(settings, pool)
        for case, future in compared.items():
            keep(_guarded(str(case), future.result))
        for case in cases:
            ready(case)  # nothing is timed beside a compiler
        for case in cases:
            keep(_guarded(case.what, functools.partial(time_lstm, settings, case)))
        keep(_guarded("linear", functools.partial(time_linear, settings)))
    return show(rows)


def show(rows: Rows) -> int:
    """Prints times, differences and failures; returns 1 if there are any of these."""
    table = []
    for row in rows:
        number = row.get("error", "")
        if "median_seconds" in row:
            number = f"{1e3 * row['median_seconds']:.3f} ms"
        elif "difference" in row:
            number = f"{row['difference']:.1e} off"
        table.append([row["what"], row.get("pass", "FAILED"), row["system"], number])
    print(format_table(["what", "pass", "system", ""], table))
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
