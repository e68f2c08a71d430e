"""python -P cells.py JOB: every array of one commit's cells, by every method, to files.

`experiments.benchmarks.bitwise` runs this file, the same for both commits, inside each
of them. So it takes little for granted: a registry of cells somewhere under `tests`,
`jrnn.unroll`, the factories of the methods and of the wrappers. Numbers are drawn for
each array by its name, not by its place among the others.
"""

import gc
import importlib
import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Shape(NamedTuple):
    """Sizes of a run, and whether it has lengths, resets, a mask, a key."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    flags: bool


SHAPES = {"plain": Shape(13, 4, 8, 16, False), "flags": Shape(9, 2, 3, 4, True)}
GPU, TPU = {"platform": "cuda"}, {"platform": "tpu"}
# By the name of a method: its factory, and its arguments in each of the shapes.
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "scan": ("scan", {}, {}),
    "bptt": ("bptt", {}, {}),
    "bptt chunks": ("bptt", {"chunk": 4}, {"chunk": 2, "remat": 1}),
    "truncated": ("truncated", {"window": 5}, {"window": 4}),
    "associative": ("associative", {}, {"chunk": 4}),
    "newton": ("newton", {}, {"chunk": 4}),
    "fused": ("fused", dict(GPU, interpret=True), dict(TPU, interpret=True)),
}


def find_module(name: str, attribute: str) -> Any:
    """Returns the module `name` that has `attribute`, wherever under `tests` it is."""
    for path in sorted(Path("tests").rglob(f"{name}.py"), key=lambda p: len(p.parts)):
        module = importlib.import_module(".".join(path.with_suffix("").parts))
        if hasattr(module, attribute):
            return module
    return None


def cells() -> dict[str, Callable[[int, int], Any]]:
    """Returns by name what makes a cell of k inputs and h hidden units."""
    import jrnn

    registry = find_module("registry", "CELLS")
    if registry is None:
        raise ImportError("Expected tests/**/registry.py with CELLS, got none.")
    found = {case.name: case.make for case in registry.CELLS}
    matrix = find_module("matrix", "REGISTRY")  # wrapped cells as well
    found |= {} if matrix is None else matrix.REGISTRY
    lstm, gru = jrnn.lstm, jrnn.gru
    return found | {
        "stack": lambda k, h: jrnn.stack(lstm(k, h), gru(h, h)),
        "bidirectional": lambda k, h: jrnn.bidirectional(lstm(k, h), gru(k, h)),
        "dropout": lambda k, h: jrnn.stack(jrnn.dropout(gru(k, h), 0.4), lstm(h, h)),
    }


def make_method(name: str, shape: str) -> Any:
    """Returns a method by its name in `METHODS`."""
    import jrnn

    factory, *arguments = METHODS[name]
    made = getattr(jrnn, factory, None)
    if made is None:
        made = getattr(importlib.import_module(f"jrnn.methods.{factory}"), factory)
    return made(**arguments[list(SHAPES).index(shape)])


def named(tree: Any, prefix: str) -> dict[str, Any]:
    """Returns the arrays of a tree by their names, such as `gradient/params/W_h`."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        parts = [
            str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", key))))
            for key in path
        ]
        found["/".join([prefix, *parts])] = leaf
    return found


def draw(name: str, tree: Any, scale: float = 1.0) -> Any:
    """Returns normal numbers of the shapes and types of `tree`, by each one's name."""
    names = list(named(tree, name))
    leaves, structure = jax.tree.flatten(tree)

    def one(name: str, leaf: Any) -> jax.Array:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        drawn = rng.normal(size=leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            drawn = drawn + 1j * rng.normal(size=leaf.shape)
        return jnp.asarray(scale * drawn, leaf.dtype)

    return structure.unflatten(map(one, names, leaves))


def paired(tree: Any, weights: Any) -> Any:
    """Returns the real part of the sum of all products of two trees' numbers."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(weights), strict=True)
    return sum((a * b).sum().real for a, b in pairs)


def flags_of(shape: Shape) -> dict[str, Any]:
    """Returns the keywords of `unroll` that a shape has."""
    if not shape.flags:
        return {}
    rng = np.random.default_rng(3)
    size = shape.steps, shape.batch
    return {
        "lengths": jnp.asarray([shape.steps, shape.steps - 3]),
        "resets": jnp.asarray(rng.random(size) < 0.3),
        "mask": jnp.asarray(rng.random(size) < 0.7),
        "key": jax.random.key(7),
    }


class Problem(NamedTuple):
    """What all methods of a cell are given in one shape, and what needs no method."""

    cell: Any
    leaves: tuple[Any, Any, Any]  # parameters, inputs, starting state
    weights: Any
    flags: dict[str, Any]
    first: dict[str, Any]


def make_problem(name: str, make: Any, shape: Shape, dtype: str) -> Problem:
    """Draws the numbers of a cell in one shape."""
    cell = make(shape.inputs, shape.hidden)
    first = jax.jit(lambda key: cell.init(key, jnp.dtype(dtype)))(jax.random.key(0))
    params = draw(f"{name}/params", first, 0.5)
    empty = cell.init_state(params, (shape.batch,))
    size = shape.steps, shape.batch
    xs = draw("xs", jax.ShapeDtypeStruct((*size, shape.inputs), dtype))
    if cell.elapsed is not None:  # time gone by is not negative
        xs = xs.at[..., cell.elapsed].set(jnp.abs(xs[..., cell.elapsed]))
    ys = jax.ShapeDtypeStruct((*size, cell.spec.output_size), dtype)
    return Problem(
        cell,
        (params, xs, draw("state", empty)),
        draw("weights", {"final": empty, "outputs": ys}),
        flags_of(shape),
        {**named(first, "init"), **named(empty, "init state")},
    )


def run(problem: Problem, method: Any) -> dict[str, Any]:
    """Returns arrays by name: differentiated, and, without flags, called alone."""
    import jrnn

    cell, leaves, weights, flags, first = problem

    def loss(leaves: Any, flags: Any) -> Any:
        final, ys = jrnn.unroll(cell, *leaves, method=method, **flags)
        shown = {"final": final, "outputs": ys}
        return paired(shown, weights), shown

    def both(leaves: Any, flags: Any) -> Any:
        (_, shown), gradients = jax.value_and_grad(loss, has_aux=True)(leaves, flags)
        return shown, dict(zip(("params", "xs", "state"), gradients, strict=True))

    shown, gradients = jax.jit(both)(leaves, flags)
    called = {} if flags else named(jax.jit(loss)(leaves, flags)[1], "called")
    differentiated = named(shown, "differentiated")
    return {**first, **called, **differentiated, **named(gradients, "gradient")}


def collect(
    problems: dict[str, Problem | Exception], method: str
) -> dict[str, np.ndarray]:
    """Returns the arrays of a case over all shapes; of a refused one the error's type.

    What is refused is compared by its type alone: a message may tell of new names.
    """
    found = {}
    for shape, problem in problems.items():
        try:
            if isinstance(problem, Exception):
                raise problem
            arrays = run(problem, make_method(method, shape))
        except Exception as error:  # any: it is part of the result
            foreseen = isinstance(error, ValueError | TypeError | NotImplementedError)
            told = "" if foreseen else f": {error}"
            how = "refused" if foreseen else "failed"
            arrays = {how: type(error).__name__ + told}
        found |= {f"{shape}/{key}": np.asarray(array) for key, array in arrays.items()}
    return found


def prepared(name: str, make: Any, dtype: str) -> dict[str, Problem | Exception]:
    """Returns by shape a cell's problem, or what keeps it from being made."""
    found = {}
    for title, shape in SHAPES.items():
        try:
            found[title] = make_problem(name, make, shape, dtype)
        except Exception as error:
            found[title] = error
    return found


def main(job: dict[str, Any]) -> int:
    """Writes FOLDER/CELL/METHOD/DTYPE.npz for each case that has none yet.

    Args:
      job: `root`, where the commit's files are; `folder`, for the results; `dtype`;
        `cells` and `methods`, the chosen names, empty for all; `share`, (i, n): every
        n-th cell from the i-th on.
    """
    import jrnn

    root = Path(job["root"]).resolve()
    if root not in Path(jrnn.__file__).resolve().parents:
        raise ImportError(f"Expected jrnn of {root}, got {jrnn.__file__}.")
    gc.disable()  # it would take a good part of the time
    start, step = job["share"]
    known = cells()
    chosen = [name for name in known if name in (job["cells"] or known)]
    for name in chosen[start::step]:
        paths = {
            method: Path(job["folder"]) / name / method / f"{job['dtype']}.npz"
            for method in job["methods"] or METHODS
        }
        missing = {m: path for m, path in paths.items() if not path.exists()}
        problems = prepared(name, known[name], job["dtype"]) if missing else {}
        for method, path in missing.items():
            found = collect(problems, method)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            with partial.open("wb") as file:
                np.savez(file, **found)  # pyright: ignore[reportArgumentType] its flag
            partial.replace(path)
        jax.clear_caches()  # Linux has room for so many compiled programs
        gc.collect()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
