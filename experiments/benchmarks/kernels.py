"""python -m experiments.benchmarks.kernels --help.

On a machine with a GPU: how long do the kernels of `jrnn.fused` take beside `bptt`,
`scan`, cuDNN through PyTorch and through `jax.experimental.rnn`, and how near does the
kernel of `jrnn.linear_recurrence` come to the speed at which the card copies? All take
turns in one process, after a check that outputs and gradients agree. An LSTM, by
default of the size in FlashRNN's figure (16 sequences, 1,024 steps) and below.

Without a GPU it says so, and measures nothing.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import jrnn
from experiments._report import environment, format_table, write_json
from experiments.benchmarks.peers.jax_peers import JaxPeer
from experiments.benchmarks.peers.problems import (
    PASSES,
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time kernels on a GPU beside what else there is."""

    sizes: tuple[int, ...] = (128, 256, 512, 768)
    """Units of the LSTM, and its inputs."""
    batch: int = 16
    """Sequences side by side."""
    steps: int = 1024
    """Steps of each."""
    lanes: tuple[int, int] = (8, 1536)
    """Batch and units of the linear recurrence."""
    linear_steps: int = 65536
    """Its steps."""
    seconds: float = 5.0
    """How long each group takes turns."""
    out: Path = Path("runs/kernels.json")
    """Where the results go."""


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


def autocast(runner: Runner) -> Runner:
    """PyTorch's passes in bfloat16."""
    import torch  # pyright: ignore[reportMissingImports] optional

    def narrow(run: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.autocast("cuda", torch.bfloat16):
                return run()

        return call

    return runner._replace(runs={w: narrow(run) for w, run in runner.runs.items()})


def runners(problem: Problem) -> dict[str, Runner]:
    """Everything that is timed, compiled and warm; bptt in float32 comes first."""
    shape, found = problem.shape, {}
    methods = {"bptt": jrnn.bptt(), "scan": jrnn.scan(), "fused": jrnn.fused()}
    for dtype in ("float32", "bfloat16"):
        for name, method in methods.items():
            peer = jrnn_peer(shape, method, dtype)
            found[f"jrnn {name} {dtype}"] = jax_runner(problem, peer)
    found["jax.experimental.rnn float32"] = jax_runner(problem, cudnn_peer(shape))
    found["PyTorch float32"] = torch_runner(problem, "cuda")
    found["PyTorch bfloat16"] = autocast(found["PyTorch float32"])
    return found


def check(found: dict[str, Runner]) -> dict[str, float]:
    """Returns how far each is from the first; raises if it computes another thing."""
    flat = lambda runner: jax.tree.leaves((runner.outputs, runner.gradients))
    first, off = flat(next(iter(found.values()))), {}
    for name, runner in found.items():
        off[name] = max(map(normwise, flat(runner), first))
        if not off[name] <= AGREE:
            raise ValueError(
                f"Expected {name} to agree with jrnn.bptt() to {AGREE}, got "
                f"{off[name]}: not the same function."
            )
    return off


def time_lstm(settings: Settings, size: int) -> list[dict[str, Any]]:
    """One row for each system and pass at one size."""
    shape = Shape(settings.steps, settings.batch, size, size)
    found = runners(make_problem("lstm", shape))
    off, rows = check(found), []
    for which in PASSES:
        calls = {name: runner.runs[which] for name, runner in found.items()}
        for name, times in in_turn(calls, enough(settings.seconds)).items():
            row = {"what": f"lstm {size}", "pass": which, "system": name}
            rows.append({**row, **spread(times), "difference": off[name]})
    return rows


def time_linear(settings: Settings) -> list[dict[str, Any]]:
    """The linear recurrence's kernel beside a copy of as many bytes."""
    shape = settings.linear_steps, *settings.lanes
    a = jax.random.uniform(jax.random.key(0), shape)
    b = jax.random.normal(jax.random.key(1), shape)
    run = jax.jit(functools.partial(jrnn.linear_recurrence, kernel="cuda"))
    copy = jax.jit(lambda a: -a)  # reads a and writes as much; XLA drops a mere copy
    calls = {
        "jrnn linear_recurrence": lambda: jax.block_until_ready(run(a, b)),
        "copy": lambda: jax.block_until_ready(copy(a)),
    }
    for call in calls.values():
        call()
    arrays = {"jrnn linear_recurrence": 3, "copy": 2}  # read and written
    rows = []
    for name, times in in_turn(calls, enough(settings.seconds)).items():
        row = {"what": f"linear {shape}", "pass": "inference", "system": name}
        found = spread(times)
        speed = arrays[name] * a.nbytes / found["median_seconds"]
        rows.append({**row, **found, "bytes_per_second": speed})
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
    rows = time_linear(settings)
    for size in settings.sizes:
        rows += time_lstm(settings, size)
    shown = [
        [row["what"], row["pass"], row["system"], f"{1e3 * row['median_seconds']:.3f}"]
        for row in rows
    ]
    print(format_table(["what", "pass", "system", "ms"], shown))
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "rows": rows}
    write_json(settings.out, {**content, "settings": dataclasses.asdict(settings)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
