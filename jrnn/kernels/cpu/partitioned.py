"""The calls of a walk on rows that are split over devices: each device walks its own.

XLA does not know that rows are independent, and would gather them on every device.
Gradients of matrices are sums over rows, and so over devices.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jrnn.core.cell import State
from jrnn.kernels.cpu import calls
from jrnn.kernels.cpu.calls import Code, Given, Gradients, Kept

# In the place of an axis of rows: an argument that all rows share, or a sum over rows.
WHOLE = -1


def forward(
    code: Code, keep: tuple[bool, ...], save: bool, given: Given
) -> tuple[State, Kept]:
    """Does what `calls.forward` does, also where rows are split over devices."""
    run = functools.partial(calls.forward, code, keep, save)
    return _by_rows(("forward", code, keep, save), run, _rows_of_states, given)


def backward(
    code: Code, dxs: bool, given: Given, kept: Kept, arriving: Gradients
) -> Given:
    """Does what `calls.backward` does, also where rows are split over devices."""
    run = functools.partial(calls.backward, code, dxs)
    key = "backward", code, dxs
    return _by_rows(key, run, _rows_of_given, given, kept, arriving)


def walk_back(
    code: Code, given: Given, kept: Kept, arriving: Gradients
) -> tuple[Array, ...]:
    """Does what `calls.walk_back` does without sums, also where rows are split."""
    run = lambda *args: tuple(calls.walk_back(code, False, False, *args))
    key = "walk_back", code
    return _by_rows(key, run, _rows_of_states, given, kept, arriving)


def _rows_of_given(given: Given) -> Given:
    """Returns for each array its axis of rows, or WHOLE."""
    rows = {
        name: jax.tree.map(lambda _, axis=axis: axis, getattr(given, name))
        for name, axis in calls.ROWS.items()
    }
    return jax.tree.map(lambda _: WHOLE, given)._replace(**rows)


def _rows_of_states(tree: Any) -> Any:
    """Does the same for arrays (rows, n) and (T, rows, n)."""
    return jax.tree.map(lambda leaf: leaf.ndim - 2, tree)


def _by_rows(
    key: tuple[Any, ...],
    run: Callable[..., Any],
    rows_of: Callable[[Any], Any],
    given: Given,
    *others: Any,
) -> Any:
    """Calls `run` on each device with the rows that it has.

    Args:
      key: What is static of the call: which, of which cell, with which options.
      run: The call.
      rows_of: Returns the axes of rows in its results.
      given: Its first argument.
      *others: Its other arguments, with leaves (rows, n) or (T, rows, n).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if jax.device_count("cpu") == 1 or AxisType.Manual in mesh.axis_types:
        return run(given, *others)
    args = given, *others
    results = jax.eval_shape(run, *args)
    leaves, structure = jax.tree.flatten(args)
    found, of_results = jax.tree.flatten(results)
    rows = jax.tree.leaves((_rows_of_given(given), *map(_rows_of_states, others)))
    result_rows = jax.tree.leaves(rows_of(results))
    count = jax.tree.leaves(given.start)[0].shape[0]

    def flat(*leaves: Array) -> list[Array]:
        return jax.tree.leaves(run(*jax.tree.unflatten(structure, leaves)))

    def on_one_device(names: Any, *leaves: Array) -> list[Array]:
        total = lambda leaf: leaf if names is None else jax.lax.psum(leaf, names)
        parts = zip(flat(*leaves), result_rows, strict=True)
        return [total(leaf) if axis == WHOLE else leaf for leaf, axis in parts]

    def partition(mesh: Mesh, operands: Any, wanted: Any) -> Any:
        shardings = [leaf.sharding for leaf in (*operands, *wanted)]
        names = _names(shardings, (*rows, *result_rows))
        each = (names,) if isinstance(names, str) else names or ()
        if count % math.prod(mesh.shape[name] for name in each):
            names = None  # the last device would have rows that mean nothing
        place = lambda spec: NamedSharding(mesh, spec)
        return (
            mesh,
            functools.partial(on_one_device, names),
            [place(spec) for spec in _specs(found, result_rows, names)],
            tuple(place(spec) for spec in _specs(leaves, rows, names)),
        )

    if AxisType.Explicit in mesh.axis_types:
        names = _names([jax.typeof(leaf).sharding for leaf in leaves], rows)
        specs = _specs(leaves, rows, names)
        mapped = jax.shard_map(
            functools.partial(on_one_device, names),
            in_specs=tuple(specs),
            out_specs=_specs(found, result_rows, names),
            check_vma=False,  # nobody knows over which axes a call's results vary
        )
        flat_results = mapped(*map(jax.sharding.reshard, leaves, specs))
    else:
        split = custom_partitioning(flat)
        rule = f"{_rule('a', leaves, rows)} -> {_rule('r', found, result_rows)}"
        split.def_partition(partition, sharding_rule=rule)
        # JAX's persistent cache knows such a call by its shapes alone: another cell's
        # program would be taken for it. A function's name is part of the key.
        named = lambda *leaves: split(*leaves)
        named.__name__ = named.__qualname__ = _name(key)
        flat_results = jax.jit(named)(*leaves)
    return jax.tree.unflatten(of_results, flat_results)


def _name(key: tuple[Any, ...]) -> str:
    """Returns a name that no other call has."""
    kind, code, *options = key
    text = repr((kind, sorted(calls.compiled(code).names.items()), code.dtype, options))
    return f"jrnn_{kind}_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _names(shardings: Iterable[Any], rows: Iterable[int]) -> Any:
    """Returns over which axes of the mesh rows are split; None: over none."""
    pairs = zip(shardings, rows, strict=True)
    # A specification may leave out the last axes.
    found = [
        dict(enumerate(one.spec)).get(axis) for one, axis in pairs if axis != WHOLE
    ]
    return next((names for names in found if names is not None), None)


def _specs(leaves: Sequence[Any], rows: Sequence[int], names: Any) -> list[P]:
    return [
        P(*(names if axis == of_rows else None for axis in range(leaf.ndim)))
        for leaf, of_rows in zip(leaves, rows, strict=True)
    ]


def _rule(prefix: str, leaves: Sequence[Any], rows: Sequence[int]) -> str:
    """Returns Shardy's rule: rows belong together, and no other axes do."""
    return ", ".join(
        " ".join(
            "rows" if axis == of_rows else f"{prefix}{i}_{axis}"
            for axis in range(leaf.ndim)
        )
        for i, (leaf, of_rows) in enumerate(zip(leaves, rows, strict=True))
    )
