"""python -m experiments.gradient_check --help.

Are the hand-written gradients right? For every cell, backpropagation through time
beside `jax.grad` of the scan, beside central differences, and beside a NumPy loop that
shares no code with jrnn. Then the notes' whole model, and every dL/dh_t at T = 3.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import jrnn
from experiments import lab
from experiments.lab.errors import largest
from jrnn import train

# The reference lives with the tests, which it serves first; experiments are run from a
# clone, where it is at hand.
from tests import reference
from tests.registry import CELLS

# Largest normwise relative error max|a - b| / max|b| that is let pass.
BOUNDS = {"scan": 1e-10, "numpy": 1e-10, "differences": 1e-6, "float32": 2e-5}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Check the hand-written gradients in every way there is."""

    steps: lab.Count = 12
    """T; the chunk of 5 does not divide it."""
    batch: lab.Count = 3
    """Sequences side by side."""
    inputs: lab.Count = 4
    """k, the size of x_t."""
    hidden: lab.Count = 6
    """h, the size of h_t; even, for one cell has two blocks."""
    seed: int = 0
    """Of weights, inputs and cotangents."""
    out: Path | None = None
    """The run folder; None takes the next runs/gradient_check/NUMBER."""


def cells(k: int, h: int) -> dict[str, tuple[jrnn.Cell, Any]]:
    """Returns each cell beside its reference."""
    return {case.name: (case.make(k, h), case.truth) for case in CELLS}


def draw(rng: np.random.Generator, tree: Any) -> Any:
    """Returns random arrays of the tree's shapes and types."""

    def one(leaf: Array) -> Array:
        drawn = rng.normal(size=leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            drawn = drawn + 1j * rng.normal(size=leaf.shape)
        return jnp.asarray(0.5 * drawn, leaf.dtype)

    return jax.tree.map(one, tree)


def paired(a: Any, b: Any) -> Array:
    """Returns the sum of products of two trees' leaves, its real part where complex."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    parts = [(x * y.astype(x.dtype)).sum().real for x, y in pairs]
    return jnp.stack(parts).sum()


def check_cell(
    cell: jrnn.Cell, truth: Any, settings: Settings, rng: np.random.Generator
) -> dict[str, float]:
    """Returns the errors of one cell, for parameters, inputs and starting state."""
    params = draw(rng, cell.init(jax.random.key(0), jnp.float64))
    xs = jnp.asarray(rng.normal(size=(settings.steps, settings.batch, settings.inputs)))
    if cell.elapsed is not None:  # time gone by is not negative
        xs = xs.at[..., cell.elapsed].set(jnp.abs(xs[..., cell.elapsed]))
    state = draw(rng, cell.init_state(params, (settings.batch,)))
    dys = jnp.asarray(rng.normal(size=(*xs.shape[:2], cell.spec.output_size)))
    dstate = draw(rng, state)

    def loss(arguments: Any, method: jrnn.Method) -> Array:
        last, ys = jrnn.unroll(cell, *arguments, method=method)
        return paired((ys, last), (dys, dstate))

    at = (params, xs, state)
    by_hand = jrnn.bptt(chunk=5)
    got = jax.grad(loss)(at, by_hand)
    half = {"float64": "float32", "complex128": "complex64"}
    narrow = jax.tree.map(lambda leaf: leaf.astype(half[leaf.dtype.name]), at)
    return {
        "scan": largest(got, jax.grad(loss)(at, jrnn.scan())),
        "numpy": largest(got, by_numpy(truth, at, dys, dstate)),
        "differences": by_differences(lambda a: loss(a, by_hand), at, got, rng),
        "float32": largest(jax.grad(loss)(narrow, by_hand), got),
    }


def by_numpy(truth: Any, at: Any, dys: Array, dstate: Any) -> Any:
    """Returns the reference's gradients in the structure of jrnn's."""
    params, xs, state = at
    plain = lambda tree: {
        name: None if leaf is None else np.asarray(leaf)
        for name, leaf in tree._asdict().items()
    }
    given = plain(params), np.asarray(xs), plain(state), np.asarray(dys)
    dparams, dxs, ds_0, _ = reference.bptt(truth, *given, plain(dstate))
    return params._replace(**dparams), dxs, state._replace(**ds_0)


def by_differences(loss: Any, at: Any, got: Any, rng: np.random.Generator) -> float:
    """Returns the error of directional derivatives against central differences."""
    worst, step = 0.0, 1e-6
    for _ in range(5):
        along = draw(rng, at)
        above = loss(jax.tree.map(lambda a, d: a + step * d, at, along))
        below = loss(jax.tree.map(lambda a, d: a - step * d, at, along))
        expected = float(above - below) / (2 * step)
        products = jax.tree.map(lambda g, d: float((g * d).sum().real), got, along)
        parts = jax.tree.leaves(products)
        scale = max(abs(expected), max(map(abs, parts)))
        worst = max(worst, abs(sum(parts) - expected) / scale)
    return worst


def check_notes_model(rng: np.random.Generator) -> tuple[dict[str, float], list[str]]:
    """Returns errors of the notes' whole model, and dL/dh_t beside the derivation."""
    V, h, T, B = 4, 3, 3, 1
    model = jrnn.sequence_model(jrnn.elman(V, h), jrnn.categorical(V))
    params = draw(rng, model.init(jax.random.key(0), jnp.float64))
    ys = rng.integers(0, V, (T, B))
    start = np.broadcast_to(np.asarray(params.start), (1, B, V))
    xs = np.concatenate([start, reference.one_hot(ys[:-1], V)])
    cell = {name: np.asarray(leaf) for name, leaf in params.cell._asdict().items()}
    W_y, b_y = (np.asarray(leaf) for leaf in params.head)
    loss, grads, adjoints, direct = reference.notes_model(
        cell, W_y, b_y, xs, ys, np.zeros((B, h))
    )
    carry = model.init_state(params, (B,))
    compute = jax.value_and_grad(train.sequence_loss(model), has_aux=True)
    (value, _), got = compute(params, jnp.asarray(ys), carry, jax.random.key(0))
    errors = {"L": abs(float(value) - loss) / loss}
    found = {**got.cell._asdict(), **got.head._asdict()}
    errors |= {name: largest(found[name], expected) for name, expected in grads.items()}

    def of_outputs(_: Any, hs: Array) -> Array:
        log_p = model.head.log_prob(params.head, hs, jnp.asarray(ys))
        return -jrnn.models.mean_over_steps(log_p)

    found = jrnn.diagnostics.state_adjoints(
        model.cell, params.cell, jnp.asarray(xs), of_outputs
    ).h
    errors["every dL/dh_t"] = largest(found, adjoints)
    return errors, derivation(np.asarray(found)[:, 0], adjoints[:, 0], direct[:, 0])


def derivation(found: np.ndarray, total: np.ndarray, direct: np.ndarray) -> list[str]:
    """Returns the notes' two-sided sum, line by line, from the last state on."""
    show = lambda row: " ".join(f"{x:+.6f}" for x in row)
    lines = []
    for t in reversed(range(len(total))):
        last = t == len(total) - 1
        flows = "" if last else f" + dL/dh_{t + 2} dh_{t + 2}/dh_{t + 1}"
        lines.append(
            f"dL/dh_{t + 1} = dL/dyhat_{t + 1} dyhat_{t + 1}/dh_{t + 1}{flows}"
        )
        lines.append(f"   direct        {show(direct[t])}")
        if not last:
            lines.append(f"   flowing back  {show(total[t] - direct[t])}")
        lines.append(f"   sum           {show(total[t])}")
        lines.append(f"   jrnn          {show(found[t])}")
    return lines


@lab.x64()
def run(settings: Settings) -> int:
    """Runs all checks; returns 1 where a bound is broken."""
    run = lab.begin(settings, "gradient_check")
    rng = np.random.default_rng(settings.seed)
    rows = {
        name: check_cell(cell, truth, settings, rng)
        for name, (cell, truth) in cells(settings.inputs, settings.hidden).items()
    }
    notes, lines = check_notes_model(rng)
    shown = {n: map("{:.1e}".format, row.values()) for n, row in rows.items()}
    shown["bound"] = map("{:.0e}".format, BOUNDS.values())
    header = ("cell", "jax.grad of scan", "NumPy loop", "differences", "float32")
    print(lab.format_table(header, [(name, *row) for name, row in shown.items()]))
    print("\nThe notes' whole model, T = 3, beside NumPy:")
    print(lab.format_table(("", "error"), [(n, f"{e:.1e}") for n, e in notes.items()]))
    print("\n" + "\n".join(lines))
    broken = [n for n, row in rows.items() if any(row[k] > BOUNDS[k] for k in BOUNDS)]
    broken += [name for name, found in notes.items() if found > BOUNDS["numpy"]]
    found = {"bounds": BOUNDS, "cells": rows, "notes_model": notes, "broken": broken}
    run.write(run.results(**found))
    print(f"\n{'BROKEN: ' + ', '.join(broken) if broken else 'All bounds hold.'}")
    return 1 if broken else 0


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
