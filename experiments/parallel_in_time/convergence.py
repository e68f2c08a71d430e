"""python -m experiments.parallel_in_time convergence --help.

Does Newton's method find the trajectory that the scan walks, and in how many
iterations? Elman networks, GRUs and LSTMs as they are drawn and after training, and
with recurrent weights so large that small differences grow, where shrunk or diagonal
Jacobians may help. Each case is compared with the scan in its own type, and with the
scan of the same numbers in float64. Beside it stand the growth of small differences per
step, and what rounding does: by how much the scan moves when the weights are moved by
one rounding. A case that does not converge must be NaN, gradients included.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import jrnn
from experiments import lab
from experiments.lab import errors
from experiments.lab.training import descend
from experiments.parallel_in_time import convergence_report as report

CELLS = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm}
INPUTS = 8
# Sequences of each length: long ones are alone, for the memory of their Jacobians.
BATCHES = {100: 8, 1_000: 4}
DRAWN, TRAINED = "drawn", "trained"
# The training task: show the first input of DELAY steps ago.
DELAY, TRAINING_LENGTH, TRAINING_BATCH, LEARNING_RATE = 5, 50, 32, 1e-2


@dataclasses.dataclass(frozen=True)
class Settings:
    """Tabulate the convergence of `jrnn.newton`."""

    cells: tuple[str, ...] = ("elman", "gru", "lstm")
    """Which cells."""
    hidden: tuple[int, ...] = (1, 2, 8, 32)
    """Hidden units, of drawn and of trained weights."""
    steps: tuple[int, ...] = (100, 1_000, 10_000)
    """Lengths T, of drawn and of trained weights."""
    dtypes: tuple[str, ...] = ("float32", "float64")
    """Types."""
    training: int = 200
    """Steps of Adam; the task is to show an input of five steps ago."""
    scales: tuple[float, ...] = (1.5, 2.0, 3.0)
    """Of orthogonal recurrent weights, as they are drawn: each gate's spectral radius;
    the last of --hidden, all of --steps but the last."""
    dampings: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)
    """Of the scaled weights, with full Jacobians; diagonal ones are not damped."""
    out: Path = Path("runs/newton_convergence.json")
    """Where the results go."""


class Case(NamedTuple):
    """One row: a cell with its weights, a sequence, and a way to iterate."""

    cell: str
    hidden: int
    steps: int
    dtype: str
    weights: str
    scale: float = 1.0
    damping: float = 0.0
    diagonal: bool = False

    @property
    def name(self) -> str:
        """As it is listed."""
        weights = self.weights if self.scale == 1 else f"scaled {self.scale:g}"
        how = "diagonal" if self.diagonal else f"damping {self.damping:g}"
        how = "" if self.scale == 1 else f", {how}"
        size = f"H={self.hidden}, T={self.steps:,}"
        return f"{self.cell}, {size}, {self.dtype}, {weights}{how}"


def cases(settings: Settings) -> Iterator[Case]:
    """Yields every case, those of one truth one after another."""
    ways = [(damping, False) for damping in settings.dampings] + [(0.0, True)]
    own, sizes = (DRAWN, TRAINED), (settings.hidden, settings.steps)
    largest = settings.hidden[-1]
    for cell in settings.cells:
        for hidden, steps, weights, dtype in product(*sizes, own, settings.dtypes):
            yield Case(cell, hidden, steps, dtype, weights)
        scaled = settings.steps[:-1], settings.scales, settings.dtypes, ways
        for steps, scale, dtype, way in product(*scaled):
            yield Case(cell, largest, steps, dtype, DRAWN, scale, *way)


@functools.cache
def weights_of(cell: jrnn.Cell, weights: str, training: int) -> Any:
    """Returns parameters in float32, as they are drawn, or trained on a delayed copy.

    Args:
      cell: The cell.
      weights: `DRAWN` or `TRAINED`.
      training: Steps of Adam.
    """
    params = cell.init(jax.random.key(0), jnp.float32)
    if weights == DRAWN:
        return params
    W_y = jax.random.normal(jax.random.key(1), (cell.spec.output_size,), jnp.float32)
    optimiser = optax.adam(LEARNING_RATE)

    def loss(learned: Any, key: Array) -> Array:
        shape = (TRAINING_LENGTH, TRAINING_BATCH, cell.spec.input_size)
        (params, W_y), xs = learned, jax.random.normal(key, shape, jnp.float32)
        yhats = jrnn.unroll(cell, params, xs)[1][DELAY:] @ W_y
        return jnp.square(yhats - xs[:-DELAY, :, 0]).mean()

    @jax.jit
    def train(learned: Any) -> Any:
        keys = jax.random.split(jax.random.key(2), training)
        return descend(loss, optimiser, (learned, optimiser.init(learned)), keys)[0][0]

    return train((params, W_y))[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def solve(cell: jrnn.Cell, method: jrnn.Method, given: Any) -> Any:
    """Returns outputs, Newton's report, and gradients of parameters and inputs."""

    def loss(params: Any, xs: Array) -> tuple[Array, Any]:
        states, info = jrnn.run.newton_trajectory(cell, params, xs, method=method)
        ys = cell.output(params, states, xs)
        return (ys * given[2]).sum(), (ys, info)

    gradients, (ys, info) = jax.grad(loss, (0, 1), has_aux=True)(*given[:2])
    return ys, info, gradients


@functools.partial(jax.jit, static_argnums=0)
def walk(cell: jrnn.Cell, given: Any) -> Any:
    """Returns the scan's outputs, and gradients of parameters and inputs."""

    def loss(params: Any, xs: Array) -> tuple[Array, Array]:
        ys = jrnn.unroll(cell, params, xs, method=jrnn.scan())[1]
        return (ys * given[2]).sum(), ys

    gradients, ys = jax.grad(loss, (0, 1), has_aux=True)(*given[:2])
    return ys, gradients


@functools.partial(jax.jit, static_argnums=0)
def growth(cell: jrnn.Cell, params: Any, xs: Array) -> Array:
    """Returns by how much a small difference grows per step: its mean logarithm."""
    state = cell.init_state(params, xs.shape[1:-1])
    keys = jax.random.split(jax.random.key(3), len(jax.tree.leaves(state)))
    draw = [
        jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, jax.tree.leaves(state), strict=True)
    ]
    tangent = jax.tree.unflatten(jax.tree.structure(state), draw)

    def step(carry: Any, x: Array) -> tuple[Any, Array]:
        advance = lambda state: cell.step(params, state, x)[0]
        state, tangent = jax.jvp(advance, (carry[0],), (carry[1],))
        squares = [jnp.square(leaf).sum(-1) for leaf in jax.tree.leaves(tangent)]
        size = jnp.sqrt(sum(squares[1:], squares[0])) + jnp.finfo(xs.dtype).tiny
        tangent = jax.tree.map(lambda leaf: leaf / size[..., None], tangent)
        return (state, tangent), jnp.log(size)

    return jax.lax.scan(step, (state, tangent), xs)[1].mean()


def make(case: Case, training: int) -> tuple[jrnn.Cell, Any]:
    """Returns the cell, and parameters, inputs and the loss's weights in float64.

    They are drawn in float32, so that every type is given the same numbers.
    """
    cell = CELLS[case.cell](INPUTS, case.hidden)
    params = weights_of(cell, case.weights, training)
    params = params._replace(W_h=params.W_h * jnp.float32(case.scale))
    shape = (case.steps, BATCHES.get(case.steps, 1))
    draw = lambda seed, size: jax.random.normal(
        jax.random.key(seed), (*shape, size), jnp.float32
    )
    given = params, draw(4, INPUTS), draw(5, cell.spec.output_size)
    return cell, cast(given, "float64")


def cast(tree: Any, dtype: str) -> Any:
    """Returns a tree of arrays in another type."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


@functools.lru_cache(maxsize=1)
def truth(case: Case, training: int) -> tuple[Any, float]:
    """Returns what the scan finds in float64, and the growth of differences."""
    cell, given = make(case, training)
    return jax.tree.map(np.asarray, walk(cell, given)), float(growth(cell, *given[:2]))


def examine(case: Case, training: int) -> dict[str, Any]:
    """Returns one row of the table.

    Args:
      case: What to solve.
      training: Steps of Adam of trained weights.

    Returns:
      What converged, and errors of it: `outputs` and `gradients` against the scan in
      the same type, `..._float64` against the scan in float64, `..._rounding` what one
      rounding of the weights does to the scan. Gradients are compared where all
      sequences converged. What is not finite, or not there, is None.
    """
    cell, given = make(case, training)
    plain = case._replace(dtype="float64", damping=0.0, diagonal=False)
    true, growing = truth(plain, training)
    given = cast(given, case.dtype)
    diagonal = True if case.diagonal else None
    method = jrnn.newton(diagonal=diagonal, damping=case.damping)
    compiled = solve.lower(cell, method, given).compile()
    started = time.perf_counter()
    ys, info, gradients = jax.block_until_ready(compiled(given))
    seconds = time.perf_counter() - started
    solved = np.asarray(info.converged)
    row = {
        **case._asdict(),
        "name": case.name,
        "batch": len(solved),
        "converged": float(solved.mean()),
        "iterations": int(info.iterations.max()),
        "residual": finite(info.residual.max()),
        "growth": growing,
        "seconds": seconds,
        "wrong_number": shows_a_number(solved, ys, gradients),
    }
    walked = walk(cell, given)
    moved = walk(cell, (jax.tree.map(nudge, given[0]), *given[1:]))
    pairs = {
        "": ((ys, gradients), walked),
        "_float64": ((ys, gradients), true),
        "_rounding": (moved, walked),
    }
    for name, (got, expected) in pairs.items():
        outputs = (np.asarray(both[0])[:, solved] for both in (got, expected))
        row[f"outputs{name}"] = (
            finite(errors.largest(*outputs)) if solved.any() else None
        )
        found = finite(errors.largest(got[1], expected[1])) if solved.all() else None
        row[f"gradients{name}"] = found
    return row


def nudge(leaf: Array) -> Array:
    """Moves every number by one rounding, up or down."""
    up = jax.random.bernoulli(jax.random.key(6), shape=leaf.shape)
    return jnp.nextafter(leaf, jnp.where(up, jnp.inf, -jnp.inf).astype(leaf.dtype))


def finite(value: Any) -> float | None:
    """Returns a number, or None where JSON has none."""
    return float(value) if math.isfinite(value) else None


def shows_a_number(solved: np.ndarray, ys: Array, gradients: Any) -> bool:
    """Returns whether a sequence that did not converge has anything but NaN."""
    if solved.all():
        return False
    dparams, dxs = gradients
    shown = [np.asarray(ys)[:, ~solved], np.asarray(dxs)[:, ~solved]]
    shown += jax.tree.leaves(dparams)
    return not all(np.isnan(leaf).all() for leaf in shown)


def run(settings: Settings) -> int:
    """Examines every case; returns 1 where an error is the method's."""
    rows = []
    with lab.x64():
        for case in cases(settings):
            rows.append(examine(case, settings.training))
            print(report.progress(rows[-1]), flush=True)
    said, good = report.verdict(rows)
    print(f"\n{report.plain_table(rows)}\n\n{report.scaled_table(rows)}\n\n{said}")
    lab.write_results(
        settings,
        "parallel_in_time.convergence",
        bounds=report.BOUNDS,
        rows=[{**row, "verdict": report.judge(row)} for row in rows],
        verdict=said.splitlines()[-1],
    )
    print(f"Written to {settings.out}.")
    return 0 if good else 1
