"""JAX's compilation cache, which the stages of CI share, changes no bit."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import jrnn
from experiments import lab
from tests import hlo

ROOT = Path(__file__).parents[2]
# What reports seconds of compiling.
NOT_TIMED = {"convergence.py"}  # which times only what runs
T, B, K, H = 9, 2, 3, 5
CASES = {
    "lstm, bptt": (jrnn.lstm(K, H), jrnn.bptt(chunk=4)),
    "gru, scan": (jrnn.gru(K, H), jrnn.scan()),
    "lru, associative": (jrnn.cells.lru(K, H), jrnn.associative()),
    "elman, newton": (jrnn.elman(K, H), jrnn.newton()),
}
SETTINGS = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
hits: list[str] = []


@jax.monitoring.register_event_listener
def _note(event, **_):
    if event == "/jax/compilation_cache/cache_hits":
        hits.append(event)


@pytest.fixture
def folder(tmp_path):
    """A cache of its own, empty, whatever the cache of the other tests."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in (
        SETTINGS | {"jax_compilation_cache_dir": str(tmp_path)}
    ).items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def programs(folder):
    return {path.name for path in folder.glob("*-cache")}


def run(loss, *given):
    """Compiles with nothing in memory; returns bits of results, and counts."""
    jax.clear_caches()
    function = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    compiled = function.lower(*given).compile()
    bits = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(compiled(*given))]
    return bits, (hlo.count(compiled), hlo.instructions(compiled))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_cached_and_fresh_programs_give_the_same_bits(name, folder):
    cell, method = CASES[name]
    params = cell.init(jax.random.key(0), jnp.float32)
    xs = jnp.sin(jnp.arange(T * B * K, dtype=jnp.float32)).reshape(T, B, K)

    def loss(params, xs):
        state, ys = jrnn.unroll(cell, params, xs, method=method)
        return jnp.square(ys).sum(), (state, ys)

    with lab.compiled_anew():
        without = run(loss, params, xs)
    written = programs(folder)
    cold = run(loss, params, xs)
    assert programs(folder) > written
    written = programs(folder)
    hits.clear()
    warm = run(loss, params, xs)
    assert hits  # else nothing was tested
    assert programs(folder) == written
    # The same bits, and the same counts and bytes where other tests measure a program.
    assert without == cold == warm


def test_what_is_timed_is_compiled_anew(folder):
    """Else the benchmarks would time how long it takes to read a file."""
    x = jnp.arange(3.0)
    compile_it = lambda: jax.jit(lambda x: jnp.sin(x) + 1.0).lower(x).compile()
    before = programs(folder)
    with lab.compiled_anew():
        compile_it()
    assert programs(folder) == before
    compile_it()
    assert len(programs(folder) - before) == 1
    hits.clear()
    with lab.compiled_anew():
        compile_it()
    assert not hits
    compile_it()
    assert hits


def test_whatever_times_compiling_compiles_anew():
    """Each `.compile()` of the experiments stands in a `with compiled_anew():`."""
    found = {}
    for file in sorted((ROOT / "experiments").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        protected = [
            call
            for block in ast.walk(tree)
            if isinstance(block, ast.With)
            and ast.unparse(block.items[0]) == "lab.compiled_anew()"
            for call in calls(block)
        ]
        if file.name not in NOT_TIMED and calls(tree):
            found[file.name] = len(calls(tree)) - len(protected)
    assert found.keys() >= {"turns.py", "compiling.py"}
    assert not any(found.values()), found


def calls(tree):
    """Returns the calls of `.compile()` but for `re.compile()`."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "compile"
        and ast.unparse(node.func) != "re.compile"
    ]
