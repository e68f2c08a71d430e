"""Runs `fused` on a batch that is split over CPU devices; see test_cpu_devices.py.

`JAX_ENABLE_X64=1 JAX_NUM_CPU_DEVICES=2 python -m tests.methods.drive_devices`: beside
`scan` on one device. Prints for each case how many rows the calls of one device have,
and which collectives there are.
"""

import contextlib
import functools
import json
import re
import tempfile

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jrnn
from tests.contracts.test_mesh import set_mesh
from tests.helpers import assert_close, random_like, shapes_of

DEVICES = len(jax.devices())
T, B, K, H = 6, 8, 3, 12
CELLS = {
    "lstm": jrnn.lstm(K, H),
    "gru": jrnn.gru(K, H),
    "tanh": jrnn.elman(K, H),
    "sigmoid": jrnn.elman(K, H, activation=jax.nn.sigmoid),
    "deep": jrnn.stack(
        jrnn.bidirectional(jrnn.gru(K, H), jrnn.elman(K, H)), jrnn.lstm(2 * H, H)
    ),
}
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
POINTER = "jax_remove_custom_partitioning_ptr_from_cache_key"
ALL = ("rows",)
WHOLE = P()
RESULTS = re.compile(r"= (.*?) custom-call\(.*custom_call_target=\"jrnn")
COLLECTIVE = re.compile(
    r" (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\("
)


def unroll(cell, method, params, xs, lengths, resets):
    return jrnn.unroll(cell, params, xs, lengths=lengths, resets=resets, method=method)


def loss(run, params, xs, lengths, resets):
    """Reads the outputs and the last state, of sequences of unequal lengths."""
    last, ys = run(params, xs, lengths, resets)
    return (ys**2).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(last))


def case(
    name,
    kind=AUTO,
    *,
    seen=False,
    mapped=False,
    dtype="float64",
    axes=ALL,
    W=WHOLE,
    second=False,
):
    """Compares value and gradients, and returns what one device's program has."""
    cell = CELLS[name]
    params = random_like(1, shapes_of(cell.init), 0.5)
    xs = random_like(2, jax.ShapeDtypeStruct((T, B, K), dtype))
    lengths = jnp.arange(B) % (T + 1)
    resets = jnp.zeros((T, B), bool).at[4, :3].set(True)

    def graded(method):
        run = lambda *args: unroll(cell, method, *args)
        if mapped:
            run = jax.vmap(run, (None, 1, 0, 1), (0, 1))
        value = lambda *args: loss(run, *args)
        if second:
            first = jax.grad(value)
            value = lambda *args: sum(
                (leaf**2).sum() for leaf in jax.tree.leaves(first(*args))
            )
        return jax.jit(jax.value_and_grad(value, (0, 1)))

    expected = graded(jrnn.scan())(params, xs, lengths, resets)
    shape = (DEVICES,) if len(axes) < 2 else (2, DEVICES // 2)
    mesh = jax.make_mesh(shape, axes or ALL, axis_types=(kind,) * len(shape))
    place = lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec))
    rows = axes if axes else None
    placed = (
        jax.tree.map(lambda leaf: place(leaf, W if leaf.ndim == 2 else P()), params),
        place(xs, P(None, rows)),
        place(lengths, P(rows)),
        place(resets, P(None, rows)),
    )
    with set_mesh(mesh) if seen else contextlib.nullcontext():
        compiled = graded(jrnn.fused()).lower(*placed).compile()
        got = compiled(*placed)
    close = 1e-12 if dtype == "float64" else 1e-6
    assert_close(jax.device_get(got), jax.device_get(expected), close)
    text = compiled.as_text()
    results = " ".join(match[1] for match in RESULTS.finditer(text))
    found = {int(n) for n in re.findall(r"f64\[(?:\d+,)?(\d+),\d+\]", results)}
    return sorted(found - {K, H, 2 * H}), sorted(COLLECTIVE.findall(text))


CASES = {
    "placed arrays": lambda: case("lstm"),
    "a mesh that is set": lambda: case("lstm", seen=True),
    "explicit axes": lambda: case("lstm", EXPLICIT, seen=True),
    "under vmap": lambda: case("gru", mapped=True),
    "under vmap, a mesh that is set": lambda: case("gru", mapped=True, seen=True),
    "under vmap, explicit axes": lambda: case("gru", EXPLICIT, mapped=True, seen=True),
    "projected inputs": lambda: case("lstm", dtype="float32", seen=True),
    "deep": lambda: case("deep"),
    "deep, explicit axes": lambda: case("deep", EXPLICIT, seen=True),
    "a split matrix": lambda: case("gru", W=P(None, "rows")),
    "a whole batch": lambda: case("gru", axes=()),
    "a whole batch, explicit axes": lambda: case("gru", EXPLICIT, seen=True, axes=()),
    "second derivatives": lambda: case("gru", second=True),
}
if DEVICES > 2:
    CASES["two axes"] = lambda: case("lstm", axes=("a", "b"))
    CASES["two explicit axes"] = lambda: case(
        "lstm", EXPLICIT, axes=("a", "b"), seen=True
    )


def cached(folder):
    """Fills JAX's cache with one cell's programs, and runs another's of equal shapes.

    Beside shapes the key of a partitioned call holds a number that may come again; here
    it is left out.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if hasattr(jax.config, POINTER):
        jax.config.update(POINTER, True)
    return [case(name) for name in ("tanh", "sigmoid", "tanh")][-1]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        CASES["a cached program"] = functools.partial(cached, folder)
        found = {name: run() for name, run in CASES.items()}
    print(json.dumps(found))
