"""python -m experiments.benchmarks.products --help.

How fast are the matrix products of a recurrent step, by layout in memory? Each runs in
a compiled loop in which one depends on the one before, as in a recurrence, through a
sum over gates or something as small; those of one shape are timed in turn, in one
process. Printed are microseconds for one product, and the other ways' time as a ratio
to the first's. PyTorch's `mm` of the same numbers, where it is installed, is called
from Python, with nothing between.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import lab
from experiments.benchmarks.grid import Cells, Grid, measured, written
from experiments.benchmarks.installed import environment_of_peers
from experiments.benchmarks.peers.problems import CELLS, GATES, Shape
from experiments.benchmarks.turns import median_ratio, prepare, repeatedly

STEPS = 64  # of a loop
CHUNK = 16  # steps that share one product for a weight's gradient
TORCH = "PyTorch"

# A product's ways by name; each takes what `factors` returns.
Ways = Mapping[str, Callable[[Array, Array, Array], Any]]


@dataclasses.dataclass(frozen=True)
class Settings(Grid):
    """Time the products of a recurrent step, several ways."""

    cells: Cells = CELLS
    """Which cells: elman has one gate, gru three, lstm four."""
    seconds: float = 2.0
    """For each product of each shape; at least five rounds are made."""
    repeats: int = 1
    """How often every loop is compiled and timed anew."""
    out: Path = Path("runs/products.json")
    """Where the results go."""


def repeat(step: Callable[[Array], Array], start: Array) -> Array:
    """Returns what a loop of `step` ends with."""
    return jax.lax.scan(lambda h, _: (step(h), None), start, None, length=STEPS)[0]


def fold(parts: list[Array]) -> Array:
    """Sums gates, the least that makes a state of a product, at an even size."""
    return functools.reduce(jnp.add, parts) / len(parts) ** 0.5


def spread(dh: Array, gates: int) -> Array:
    """Returns gates of which none equals another, from the derivative of a state."""
    return jnp.concatenate([dh * ((1 + g) / gates**1.5) for g in range(gates)], -1)


def settle(leaf: Array) -> Array:
    """Returns an array as it lies, which no compiler lays otherwise."""
    return jax.lax.optimization_barrier(leaf)


def forward_ways(gates: int) -> Ways:
    """A product h W_h, as it is written, gate by gate, and transposed."""

    def wide(W: Array, h: Array, dv: Array) -> Array:
        del dv
        return repeat(lambda h: fold(jnp.split(h @ W, gates, -1)), h)

    def apart(W: Array, h: Array, dv: Array) -> Array:
        del dv
        each = [settle(part) for part in jnp.split(W, gates, 1)]
        return repeat(lambda h: fold([h @ part for part in each]), h)

    def turned(W: Array, h: Array, dv: Array) -> Array:
        del dv
        W_T = settle(W.T)
        return repeat(lambda h_T: fold(jnp.split(W_T @ h_T, gates)), h.T).T

    return {"h W_h": wide, "gate by gate": apart, "h^T carried": turned}


def backward_ways(gates: int) -> Ways:
    """A product dv W_h^T, with W_h as it lies and transposed once before the loop."""

    def scattered(W: Array, h: Array, dv: Array) -> Array:
        del dv
        return repeat(lambda dh: spread(dh, gates) @ W.T, h)

    def turned(W: Array, h: Array, dv: Array) -> Array:
        del dv
        W_T = settle(W.T)
        return repeat(lambda dh: spread(dh, gates) @ W_T, h)

    return {"dv W_h^T": scattered, "W_h transposed before": turned}


def gradient_ways(gates: int) -> Ways:
    """A product h^T dv over a chunk, with h as it lies and transposed before."""
    del gates

    def chunks(total: Callable[[Array, Array], Array]) -> Callable[..., Array]:
        def run(W: Array, hs: Array, dvs: Array) -> Array:
            add = lambda dW, pair: (dW + total(*pair), None)
            return jax.lax.scan(add, jnp.zeros_like(W), (hs, dvs))[0]

        return run

    return {
        "sum of h^T dv": chunks(lambda h, dv: jnp.tensordot(h, dv, ((0,), (0,)))),
        "h transposed before": chunks(lambda h, dv: settle(h.T) @ dv),
    }


# For each product: its ways, and how many of them a loop runs.
PRODUCTS: dict[str, tuple[Callable[[int], Ways], int]] = {
    "forward": (forward_ways, STEPS),
    "backward": (backward_ways, STEPS),
    "gradient": (gradient_ways, STEPS // CHUNK),
}


def factors(
    product: str, shape: Shape, gates: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns W_h, a state and a derivative of the gates, or chunks of these."""
    draw = np.random.default_rng(0).standard_normal
    lead = (shape.B,)
    if product == "gradient":
        lead = (STEPS // CHUNK, CHUNK * shape.B)
    W = draw((shape.H, gates * shape.H), "float32") / np.float32(np.sqrt(shape.H))
    return W, draw((*lead, shape.H), "float32"), draw((*lead, len(W[0])), "float32")


def with_torch(
    product: str, numbers: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Callable[[], Any] | None:
    """Returns PyTorch's run of as many products, or None where it is not installed."""
    try:
        import torch  # pyright: ignore[reportMissingImports] optional
    except ModuleNotFoundError:
        return None
    W, h, dv = map(torch.from_numpy, numbers)
    pairs = [(h, W)] if product == "forward" else [(dv, W.T)]
    if product == "gradient":
        pairs = [(h_of.mT, dv_of) for h_of, dv_of in zip(h, dv, strict=True)]
    pairs = pairs * (PRODUCTS[product][1] // len(pairs))
    out = torch.empty(pairs[0][0].shape[0], pairs[0][1].shape[1])

    def call() -> None:
        for left, right in pairs:
            torch.mm(left, right, out=out)

    return call


def measure(cell: str, shape: Shape, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields a row for each product: seconds of one, over rounds and repeats."""
    gates = GATES[cell]
    for product, (make, count) in PRODUCTS.items():
        numbers = factors(product, shape, gates)

        def calls(
            product: str = product, numbers: Any = numbers, make: Any = make
        ) -> dict[str, Callable[[], Any]]:
            arrays = tuple(map(jnp.asarray, numbers))
            found = {
                name: prepare(way, *arrays).run for name, way in make(gates).items()
            }
            torch_call = with_torch(product, numbers)
            return found if torch_call is None else {**found, TORCH: torch_call}

        kept = repeatedly(calls, settings.repeats, 5, settings.seconds)
        first = next(iter(kept.values()))
        operations = 2 * shape.B * shape.H * gates * shape.H
        yield {
            "product": product,
            "shape": shape,
            "gates": gates,
            "operations": operations * (CHUNK if product == "gradient" else 1),
            "seconds": {k: statistics.median(v) / count for k, v in kept.items()},
            "ratio_to_first": {k: median_ratio(v, first) for k, v in kept.items()},
        }


def table(rows: list[dict[str, Any]], product: str) -> str:
    """Returns microseconds of the first way, its speed, and the others' ratios."""
    chosen = [row for row in rows if row["product"] == product]
    first, *others = chosen[0]["seconds"]
    speed = lambda row: row["operations"] / row["seconds"][first] / 1e9
    columns = {
        "gates x (T, B, I, H)": lambda row: f"{row['gates']} x {Shape(*row['shape'])}",
        f"{first}, us": lambda row: f"{1e6 * row['seconds'][first]:.1f}",
        "GFLOP/s": lambda row: f"{speed(row):.0f}",
    }
    for name in others:
        columns[name] = lambda row, name=name: f"{row['ratio_to_first'][name]:.2f}"
    return lab.table_of(chosen, columns)


def run(settings: Settings) -> int:
    """Measures, prints tables, writes the results."""
    rows = measured(settings, measure)
    tables, about = [table(rows, one) for one in PRODUCTS], environment_of_peers()
    return written(settings, "benchmarks.products", rows, tables, about)


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
