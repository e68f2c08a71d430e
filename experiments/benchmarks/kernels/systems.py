"""What runs a gated cell on a GPU: jrnn's methods, flax.linen, and cuDNN twice."""

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn
from experiments.benchmarks.peers.jax_peers import JaxPeer, flax_linen, jrnn_peer
from experiments.benchmarks.peers.problems import Problem, Shape, Weights, make_problem
from experiments.benchmarks.peers.running import Runner, jax_runner, torch_runner

Rows = list[dict[str, Any]]

METHODS = {"bptt": jrnn.bptt(), "scan": jrnn.scan(), "fused": jrnn.fused()}
REFERENCE = "jrnn bptt"
PYTORCH = "PyTorch"


class Case(NamedTuple):
    """One cell at one size, and what runs it."""

    cell: str
    shape: Shape
    dtype: str
    runners: dict[str, "Future[Runner]"]

    @property
    def what(self) -> str:
        """What its rows are called."""
        return f"{self.cell} {self.shape.H} {self.dtype}"


def narrowed(peer: JaxPeer, dtype: str) -> JaxPeer:
    """The same with parameters and inputs in a type, outputs in float32, no step."""
    narrow = functools.partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
    return JaxPeer(
        lambda params, xs: peer.forward(params, narrow(xs)).astype(jnp.float32),
        lambda weights: narrow(peer.convert(weights)),
    )


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


def prepare(cell: str, shape: Shape, dtype: str, pool: Executor) -> Case:
    """Begins to compile everything that is timed of one cell at one size."""
    problem = make_problem(cell, shape)
    make: dict[str, Callable[[], Runner]] = {
        f"jrnn {name}": functools.partial(_run_jrnn, problem, method, dtype)
        for name, method in METHODS.items()
    }
    make[PYTORCH] = functools.partial(torch_runner, problem, "cuda", dtype)
    if dtype == "float32":
        make["flax.linen"] = lambda: jax_runner(problem, flax_linen(problem))
        if cell == "lstm":
            cudnn = functools.partial(jax_runner, problem)
            make["jax.experimental.rnn"] = lambda: cudnn(cudnn_peer(shape))
    running = {name: pool.submit(one) for name, one in make.items()}
    return Case(cell, shape, dtype, running)


def _run_jrnn(problem: Problem, method: jrnn.Method, dtype: str) -> Runner:
    return jax_runner(problem, narrowed(jrnn_peer(problem, method), dtype))


def ready(case: Case) -> tuple[dict[str, Runner], Rows]:
    """Returns what compiled and ran, and a row for each that did not."""
    found, failed = {}, []
    for name, future in case.runners.items():
        try:
            found[name] = future.result()
        except Exception as error:  # whatever it is, the others are measured
            failed.append(failure(case.what, name, error))
    return found, failed


def failure(what: str, system: str, error: Exception) -> dict[str, Any]:
    """Returns the row of what did not run, or computed something else."""
    shown = f"{type(error).__name__}: {error}"[:1000]
    return {"what": what, "system": system, "error": shown}


def guarded(what: str, measure: Callable[[], Rows]) -> Rows:
    """Returns what `measure` does, or a row that says why it failed."""
    try:
        return measure()
    except Exception as error:  # whatever it is, the rest is measured
        return [failure(what, "all", error)]
