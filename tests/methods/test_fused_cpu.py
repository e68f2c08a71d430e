"""The kernels for CPUs: one call for a whole sequence, compiled here from the cell."""

import concurrent.futures
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.kernels.cpu import calls, compilers
from jrnn.kernels.cpu.errors import NoCompiler
from tests.helpers import assert_close, error, random_like

CELLS = {"elman": jrnn.elman, "gru": jrnn.gru, "lstm": jrnn.lstm}
EXACT = 1e-12
LEAST = 3e-7  # a few roundings of a float32
FUSED, SCAN = jrnn.fused(platform="cpu"), jrnn.scan()


def has_compiler():
    try:
        compilers.find_compiler()
    except NoCompiler:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler")


def problem(cell, T, B, dtype="float64", flags=True, scale=0.5) -> tuple[Any, Any]:
    """Parameters, inputs and a state of random numbers, and flags of every kind."""
    params = random_like(1, cell.init(jax.random.key(0), dtype), scale)
    xs = random_like(2, jax.ShapeDtypeStruct((T, *B, cell.spec.input_size), dtype))
    state = random_like(3, cell.init_state(params, B))
    if not flags:
        return (params, xs, state), {}
    draw = lambda seed, chance: jax.random.bernoulli(
        jax.random.key(seed), chance, (T, *B)
    )
    rows = int(np.prod(B))
    lengths = (T - jnp.arange(rows) % (T + 1)).reshape(B)
    return (params, xs, state), {
        "lengths": lengths,
        "resets": draw(4, 0.2),
        "mask": draw(5, 0.8),
    }


def loss_of(cell, method, flags: Any, **options):
    """A loss on every output and on the final state."""

    def loss(params, xs, state):
        last, ys = jrnn.unroll(
            cell, params, xs, state, method=method, **flags, **options
        )
        ends = sum((leaf**2).sum() for leaf in jax.tree.leaves(last))
        return (ys * random_like(6, ys)).sum() + ends, (last, ys)

    return loss


def everything(cell, method, flags, given, **options) -> Any:
    """The loss, final state, outputs, and the gradients of all arguments."""
    loss = loss_of(cell, method, flags, **options)
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*given)


def same(cell, T, B, dtype="float64", flags=True, scale=0.5, **options):
    """Compares with the scan in float64, as exact as that or, below, as `bptt`."""
    given, flags = problem(cell, T, B, dtype, flags, scale)
    found = everything(cell, FUSED, flags, given, **options)
    wide = jax.tree.map(lambda leaf: leaf.astype("float64"), given)
    expected = everything(cell, SCAN, flags, wide, **options)
    alone = jrnn.unroll(cell, *given, method=FUSED, **flags, **options)
    if dtype == "float64":
        assert_close((found, alone), (expected, expected[0][1]), EXACT)
        return
    plain = everything(cell, jrnn.bptt(), flags, given, **options)
    # The loss is a sum of terms of both signs: its error is one of their sizes' sum.
    value, (last, ys) = expected[0]
    size = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(last))
    size += float(abs(ys * random_like(6, ys)).sum())
    off, usual = (abs(float(one[0][0]) - float(value)) for one in (found, plain))
    assert off <= 3 * max(usual, LEAST * size)
    parts = [(aux, slopes) for (_, aux), slopes in (found, plain, expected)]
    triples = zip(*map(jax.tree.leaves, parts), strict=True)
    for one, other, exact in triples:
        assert error(one, exact) <= 3 * max(error(other, exact), LEAST)
    assert_close(alone, found[0][1], LEAST)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CELLS)
def test_outputs_and_gradients_equal_those_of_the_scan(name, dtype):
    """Sizes that no vector fills, more rows than a tile, and flags of every kind."""
    same(CELLS[name](3, 33), 7, (15,), dtype)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("size", [(1, 1, (), 1), (2, 5, (1,), 2), (40, 70, (2, 2), 9)])
def test_small_and_odd_sizes_equal_the_scan(size):
    inputs, units, batch, steps = size
    same(jrnn.gru(inputs, units), steps, batch)


@pytest.mark.longer
def test_a_chunk_of_steps_that_is_not_filled_equals_the_scan():
    """Forwards 64 rows make a chunk, backwards 128; here 3 rows and 50 steps."""
    same(jrnn.lstm(4, 6), 50, (3,), flags=False)


@pytest.mark.longer
@pytest.mark.parametrize(
    ("cell", "T", "B"), [("gru", 71, (4, 4)), ("lstm", 62, (5, 5))]
)
def test_sums_over_many_rows_lose_no_more_than_those_of_bptt(cell, T, B):
    """The gradients of biases, by chunk: one long sum loses several times as much."""
    same(CELLS[cell](20, 17), T, B, "float32", False, scale=0.12)


@pytest.mark.longer
def test_reversed_reading_equals_the_scan():
    same(jrnn.gru(3, 5), 6, (4,), reverse=True)


@pytest.mark.longer
def test_symbols_and_noise_come_as_projected_inputs():
    """Then u is given to the kernel, and JAX differentiates `project`."""
    cell = jrnn.gru(7, 5)
    params = cell.init(jax.random.key(0), "float64")
    ids = jnp.array([[1, 6], [0, 2], [3, 3]])

    def loss(params, method):
        return (jrnn.unroll(cell, params, ids, method=method)[1] ** 2).sum()

    found = jax.value_and_grad(loss)(params, FUSED)
    assert_close(found, jax.value_and_grad(loss)(params, SCAN), EXACT)


@pytest.mark.longer
def test_stacked_and_bidirectional_cells_with_noise_equal_the_scan():
    inner = jrnn.dropout(jrnn.lstm(6, 3), 0.5)
    cell = jrnn.stack(jrnn.bidirectional(jrnn.gru(4, 3), jrnn.lstm(4, 3)), inner)
    given, flags = problem(cell, 5, (3,))
    run = lambda method: everything(cell, method, flags, given, key=jax.random.key(1))
    assert_close(run(FUSED), run(SCAN), EXACT)


def test_padding_changes_no_bit():
    cell, T, lengths = jrnn.lstm(3, 5), 6, jnp.array([6, 3, 0])
    (params, xs, state), _ = problem(cell, T, (3,))
    padding = jnp.arange(T)[:, None, None] >= lengths[None, :, None]
    grad = jax.jit(
        jax.value_and_grad(
            loss_of(cell, FUSED, {"lengths": lengths}), (0, 1, 2), has_aux=True
        )
    )
    expected = grad(params, jnp.where(padding, 0.0, xs), state)
    for poison in (jnp.nan, jnp.inf, 1e30):
        found = grad(params, jnp.where(padding, poison, xs), state)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_only_what_is_wanted_is_differentiated():
    """No gradient of the inputs, and a loss on the final state or on outputs alone."""
    cell = jrnn.lstm(3, 5)
    (params, xs, state), flags = problem(cell, 6, (4,))
    for pick in (lambda last, ys: last.c.sum(), lambda last, ys: (ys**2).sum()):

        def loss(params, method, pick=pick):
            found = jrnn.unroll(cell, params, xs, state, method=method, **flags)
            return pick(*found)

        gradient = jax.jit(jax.grad(loss), static_argnums=1)
        assert_close(gradient(params, FUSED), gradient(params, SCAN), EXACT)


def test_states_of_every_step_equal_those_of_the_scan():
    cell = jrnn.lstm(3, 5)
    given, flags = problem(cell, 6, (4,))

    def loss(params, method):
        last, states = jrnn.trajectory(cell, params, *given[1:], method=method, **flags)
        weighted = jax.tree.map(lambda leaf: leaf * random_like(7, leaf), states)
        return sum(leaf.sum() for leaf in jax.tree.leaves(weighted)), (last, states)

    run = jax.value_and_grad(loss, has_aux=True)
    assert_close(run(given[0], FUSED), run(given[0], SCAN), EXACT)


@pytest.mark.longer
def test_derivatives_of_the_gradient_equal_those_of_the_scan():
    """Forward over reverse, and reverse over reverse."""
    cell = jrnn.gru(2, 3)
    (params, xs, state), flags = problem(cell, 4, (2,))
    direction = random_like(8, params)

    def slope(params, method):
        loss = loss_of(cell, method, flags)
        gradient = jax.grad(lambda p: loss(p, xs, state)[0])(params)
        pairs = jax.tree.map(lambda a, b: (a * b).sum(), gradient, direction)
        return sum(jax.tree.leaves(pairs))

    forward = lambda method: jax.jit(
        lambda p: jax.jvp(lambda p: slope(p, method), (p,), (direction,))
    )(params)
    reverse = lambda method: jax.jit(jax.grad(lambda p: slope(p, method)))(params)
    assert_close(forward(FUSED), forward(SCAN), EXACT)
    assert_close(reverse(FUSED), reverse(SCAN), EXACT)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("over", ["data", "parameters"])
def test_vmap_of_gradients_equals_that_of_the_scan(over):
    cell = jrnn.gru(3, 5)
    given, flags = problem(cell, 4, (2,))
    many = [random_like(9, jnp.zeros((3, *leaf.shape))) for leaf in given[1:2]][0]
    params = given[0]
    if over == "parameters":
        wide = jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), params)
        params = random_like(10, wide)

    def gradients(method):
        run = jax.value_and_grad(loss_of(cell, method, flags), (0, 1, 2), has_aux=True)
        axis = 0 if over == "parameters" else None
        return jax.jit(jax.vmap(run, (axis, 0, None)))(params, many, given[2])

    assert_close(gradients(FUSED), gradients(SCAN), EXACT)


def test_the_gradient_of_a_mapped_run_equals_that_of_the_scan():
    cell = jrnn.lstm(3, 5)
    (params, xs, _), _ = problem(cell, 4, (6,), flags=False)

    def loss(params, xs, method):
        run = lambda xs: jrnn.unroll(cell, params, xs, method=method)[1]
        return (jax.vmap(run, 1)(xs) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    assert_close(gradient(params, xs, FUSED), gradient(params, xs, SCAN), EXACT)


def test_outer_loops_and_checkpoints_equal_the_scan():
    cell = jrnn.gru(3, 5)
    (params, xs, state), _ = problem(cell, 8, (2,), flags=False)

    def loss(params, method):
        step = jax.checkpoint(
            lambda state, xs: jrnn.unroll(cell, params, xs, state, method=method)
        )
        return (jax.lax.scan(step, state, xs.reshape(4, 2, 2, 3))[1] ** 2).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    assert_close(gradient(params, FUSED), gradient(params, SCAN), EXACT)


def test_equal_runs_give_equal_bits_whatever_else_runs():
    """Eight callers at once, with fewer threads in XLA's pool, and none waits."""
    cell = jrnn.lstm(16, 24)
    given, _ = problem(cell, 40, (16,), "float32", flags=False)
    run = jax.jit(jax.value_and_grad(loss_of(cell, FUSED, {}), (0, 1, 2), has_aux=True))
    expected = run(*given)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: run(*given), range(40)):
            jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.longer
def test_an_empty_batch_gives_zeros():
    cell = jrnn.gru(3, 5)
    params = cell.init(jax.random.key(0))
    loss = lambda p: jrnn.unroll(cell, p, jnp.zeros((4, 0, 3), "f4"), method=FUSED)[1]
    assert loss(params).shape == (4, 0, 5)
    gradient = jax.grad(lambda p: loss(p).sum())(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_a_program_that_calls_a_kernel_of_this_machine_cannot_be_exported():
    cell = jrnn.gru(3, 5)
    params = cell.init(jax.random.key(0))
    run = jax.jit(lambda xs: jrnn.unroll(cell, params, xs, method=FUSED))
    with pytest.raises(ValueError, match="custom call"):
        jax.export.export(run)(jax.ShapeDtypeStruct((4, 2, 3), "float32"))


def test_without_a_compiler_it_warns_and_bptt_runs(monkeypatch):
    def none(*_, **__):
        raise NoCompiler("Expected a C compiler, found none.")

    monkeypatch.setattr(calls, "targets", none)
    jrnn.clear_caches()
    cell = jrnn.elman(3, 5)
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((3, 2, 3), "float32")
    with pytest.warns(UserWarning, match="found none.*bptt"):
        found = jrnn.unroll(cell, params, xs, method=FUSED)
    assert_close(found, jrnn.unroll(cell, params, xs), 1e-6)
    jrnn.clear_caches()


def test_gates_that_cannot_be_written_in_c_are_named_and_bptt_runs():
    cell = jrnn.elman(3, 5, activation=jax.lax.lgamma)
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((3, 2, 3), "float32")
    with pytest.warns(UserWarning, match=r"'lgamma'.*bptt"):
        found = jrnn.unroll(cell, params, xs, method=FUSED)
    assert_close(found, jrnn.unroll(cell, params, xs), 1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_types_without_a_kernel_are_refused(dtype):
    cell = jrnn.gru(3, 5)
    params = cell.init(jax.random.key(0), dtype)
    with pytest.raises(ValueError, match="float32 or float64"):
        jrnn.unroll(cell, params, jnp.ones((3, 2, 3), dtype), method=FUSED)


def test_interpreting_is_for_accelerators():
    with pytest.raises(ValueError, match="interpret=False"):
        jrnn.fused(platform="cpu", interpret=True)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(40))
def test_random_sizes_and_flags_equal_the_scan(seed):
    """1,000 cases in all."""
    draw = np.random.default_rng(seed)
    for _ in range(25):
        name, dtype = draw.choice(list(CELLS)), draw.choice(["float32", "float64"])
        inputs, units = int(draw.integers(1, 41)), int(draw.integers(1, 71))
        cell = CELLS[name](inputs, units)
        batch = tuple(int(size) for size in draw.integers(0, 7, draw.integers(0, 3)))
        given = {"reverse": bool(draw.integers(2))}
        flags = bool(draw.integers(2)) and 0 not in batch
        # Larger matrices would be chaotic: roundings would grow along the steps.
        scale = 0.5 / units**0.5
        same(cell, int(draw.integers(1, 80)), batch, dtype, flags, scale, **given)
