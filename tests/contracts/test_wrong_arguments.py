"""Every public function rejects every wrong kind of argument, with its own message."""

import functools
import inspect
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
import jrnn.interop.equinox.weights
import jrnn.interop.flax.linen
import jrnn.interop.flax.nnx
import jrnn.interop.flax.weights
import jrnn.interop.haiku
import jrnn.interop.keras
import jrnn.interop.torch
import jrnn.train
from jrnn.models.regressions import Regressions
from tests.arguments import ENTRIES, params_of
from tests.head_registry import HEADS, drawn
from tests.registry import CELLS

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)  # cloned where it draws: a key is used once
MODULES = {
    "jrnn": jrnn,
    "jrnn.activations": jrnn.activations,
    "jrnn.cells": jrnn.cells,
    "jrnn.diagnostics": jrnn.diagnostics,
    "jrnn.heads": jrnn.heads,
    "jrnn.initializers": jrnn.initializers,
    "jrnn.interop.export": jrnn.interop.export,
    "jrnn.interop.files": jrnn.interop.files,
    "jrnn.interop.flax.linen": jrnn.interop.flax.linen,
    "jrnn.interop.flax.nnx": jrnn.interop.flax.nnx,
    "jrnn.interop.equinox.weights": jrnn.interop.equinox.weights,
    "jrnn.interop.flax.weights": jrnn.interop.flax.weights,
    "jrnn.interop.haiku": jrnn.interop.haiku,
    "jrnn.interop.keras": jrnn.interop.keras,
    "jrnn.interop.torch": jrnn.interop.torch,
    "jrnn.methods": jrnn.methods,
    "jrnn.models": jrnn.models,
    "jrnn.run": jrnn.run,
    "jrnn.train": jrnn.train,
    "jrnn.train.batching": jrnn.train.batching,
    "jrnn.train.regularisers": jrnn.train.regularisers,
    "jrnn.wrappers": jrnn.wrappers,
}
MADE = (
    *("Cell", "Distribution", "Head", "LinearGaussianMarkov", "MarkovChain"),
    *("SequenceModel", "SupervisedModel"),
)
# What needs no entry in `tests.arguments`: what methods and models call of these.
SEAMS = {
    "Cell": ("project", "advance", "output", "noise", "prepare"),
    "Head": ("check_values", "symbols", "encode", "blank", "seen"),
}
BESIDES = {
    "jrnn.clear_caches": "takes no argument",
    "jrnn.activations.linear": "an activation, a function of one array",
    "jrnn.activations.positive": "an activation",
    "jrnn.cells.dense": "what methods call, with what was checked",
    "jrnn.diagnostics.claim": "for those who write cells",
    "jrnn.interop.equinox.weights.from_equinox": "needs Equinox",
    "jrnn.interop.equinox.weights.to_equinox": "needs Equinox",
    "jrnn.interop.keras.from_keras": "needs Keras",
    "jrnn.interop.keras.to_keras": "needs Keras",
    "jrnn.interop.torch.from_torch": "needs PyTorch",
    "jrnn.interop.torch.to_torch": "needs PyTorch",
}
# Modules that show what stands in others.
GATHERED = ("jrnn.cells", "jrnn.diagnostics", "jrnn.wrappers")


COVERED = {name for entry in ENTRIES.values() for name in entry.covers}


@pytest.mark.slow
def test_every_wrong_argument_is_refused():
    """In a process without the checks of annotations that tests have on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.wrong_arguments"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    faults = json.loads(done.stdout)
    assert not faults, done.stdout


def functions_of(name, module):
    """The public functions of a module, by their full names."""
    names = getattr(module, "__all__", None) or vars(module)
    for own in (own for own in names if not own.startswith("_")):
        thing = getattr(module, own)
        home = getattr(thing, "__module__", None) or ""
        is_function = callable(thing) and not isinstance(thing, type)
        if is_function and home.startswith("jrnn") and not hasattr(thing, "_fields"):
            yield f"{name}.{own}"


def named(full):
    """The object of a full name, such as `jrnn.run.unroll`."""
    return functools.reduce(getattr, full.split(".")[1:], jrnn)


def ours(full):
    """Whether a module makes a function public, and not only imports it."""
    name, own = full.rsplit(".", 1)
    module = MODULES[name]
    shown = hasattr(module, "__all__") or name in GATHERED
    home = getattr(module, own).__module__
    return shown or f"{home}.".startswith(f"{name}.")


def test_every_public_function_has_an_entry():
    every = {n for name, module in MODULES.items() for n in functions_of(name, module)}
    public = set(filter(ours, every))
    assert len(public) > 70
    # By the function, for `jrnn.unroll` is `jrnn.run.unroll`.
    entered = {named(n) for n in (*COVERED, *BESIDES) if n.startswith("jrnn.")}
    assert [n for n in public if named(n) not in entered] == []
    assert not COVERED & set(BESIDES)


@pytest.mark.parametrize("kind", MADE)
def test_every_function_of_what_is_made_has_an_entry(kind):
    made = next(getattr(m, kind) for m in MODULES.values() if hasattr(m, kind))
    calls = {n for n, hint in made.__annotations__.items() if "Callable" in str(hint)}
    calls |= {n for n, f in vars(made).items() if inspect.isfunction(f) and n[0] != "_"}
    covered = {name.split(".")[1] for name in COVERED if name.startswith(f"{kind}.")}
    assert len(calls) >= 3
    assert calls - covered == set(SEAMS.get(kind, ()))


AROUND = {
    "stack": lambda: jrnn.stack(jrnn.gru(3, 4), jrnn.cells.lru(4, 2)),
    "bidirectional": lambda: jrnn.bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4)),
    "residual": lambda: jrnn.residual(jrnn.gru(3, 3)),
    "dropout": lambda: jrnn.dropout(jrnn.gru(3, 4), 0.5),
    "zoneout": lambda: jrnn.wrappers.zoneout(jrnn.gru(3, 4), 0.5),
    "variational_dropout": lambda: jrnn.wrappers.variational_dropout(
        jrnn.gru(3, 4), 0.5
    ),
    "learned_initial_state": lambda: jrnn.wrappers.learned_initial_state(
        jrnn.cells.lru(3, 4)
    ),
    "orthogonal": lambda: jrnn.wrappers.orthogonal(jrnn.gru(3, 4)),
}
EVERY_CELL = {case.name: lambda case=case: case.make(3, 4) for case in CELLS} | AROUND


@pytest.mark.parametrize("name", [n for n in EVERY_CELL if "generic" not in n])
def test_every_cell_wants_a_key_and_a_tuple(name):
    cell = EVERY_CELL[name]()
    for key in (None, 0):
        with pytest.raises(TypeError, match=f"key to be one key.*got {key}"):
            cell.init(key)
    with pytest.raises(TypeError, match="floating dtype .* got int32"):
        cell.init(KEY, jnp.int32)
    params = jax.eval_shape(lambda: cell.init(KEY))
    with pytest.raises(TypeError, match="batch_shape to be a tuple .* got 4"):
        jax.eval_shape(lambda params: cell.init_state(params, 4), params)
    state = jax.eval_shape(lambda params: cell.init_state(params, [np.int8(2)]), params)
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(state)}
    assert sizes == ({2} if "feedforward" not in name else set())


def again():
    """The same key, as one that was not used yet."""
    return jax.random.clone(KEY)


# A temperature for each sequence.


def slowly(case):
    return pytest.param(case.make, marks=[pytest.mark.slow] if case.slow else [])


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("make", [lambda: jrnn.categorical(3), *map(slowly, HEADS)])
def test_a_head_takes_one_temperature_for_each_sequence(make):
    head = make()
    if head.spec.name == "categorical":
        params, features = head.init(again(), 4), jnp.ones((3, 4))
    else:
        params, features, _ = drawn(head, rows=3)
    tau = jnp.array([0, 1, 2], jnp.int8)
    predicted = head.predict(params, features)
    sampled = predicted.sample(again(), tau)
    for row in range(3):
        alone = predicted.sample(again(), float(tau[row]))
        np.testing.assert_array_equal(sampled[row], alone[row])
    with pytest.raises(ValueError, match=r"of shape \(3,\), got shape \(2,\)"):
        predicted.sample(again(), tau[:2])


@functools.cache
def models():
    """A model of each kind, and parameters of it, which are ones."""
    real = jrnn.sequence_model(jrnn.gru(2, 3), jrnn.gaussian(2))
    names = jrnn.sequence_model(jrnn.gru(3, 3), jrnn.categorical(3))
    chain, linear = jrnn.markov_chain(3, 1), jrnn.models.linear_gaussian_markov(0)
    shapes = (1, 0, 1, 1), (1, 1), (1, 1, 1)
    regressions = Regressions(*map(jnp.ones, shapes))
    return (
        (real, jax.tree.map(jnp.asarray, params_of(real))),
        (names, jax.tree.map(jnp.asarray, params_of(names))),
        (chain, chain.fit(np.array([0, 1, 2, 0, 2, 1, 1]))),
        (linear, regressions),
    )


@pytest.mark.slow
def test_every_model_takes_one_temperature_for_each_sequence():
    tau, same = jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.ones((2, 2))
    for model, params in models():

        def sample(tau, model=model, params=params):
            return model.sample(params, again(), 3, None, tau, (2, 2))

        both = sample(tau)
        np.testing.assert_array_equal(both[:, 0, 0], sample(0 * same)[:, 0, 0])
        np.testing.assert_array_equal(both[:, 0, 1], sample(same)[:, 0, 1])
        for wrong in (tau[0], tau[..., None], tau[:1]):
            with pytest.raises(ValueError, match="temperature .* got shape"):
                sample(wrong)


# Kinds of keys.


@pytest.fixture
def implementation(request):
    before = jax.config.jax_default_prng_impl
    jax.config.update("jax_default_prng_impl", request.param)
    yield request.param
    jax.config.update("jax_default_prng_impl", before)


def draws(key):
    """One draw of everything that takes a key."""
    cell = jrnn.stack(jrnn.elman(2, 3), jrnn.dropout(jrnn.cells.lru(3, 2), 0.5))
    cells = (cell, jrnn.wrappers.zoneout(jrnn.gru(2, 2), 0.5), jrnn.cells.exp_rnn(2, 2))
    xs = jnp.ones((3, 2))
    for cell in cells:
        params = cell.init(key)
        yield params, jrnn.unroll(cell, params, xs, key=key)
    for case in HEADS:
        head = case.make()
        params = head.init(key, 2)
        yield params, head.predict(params, xs).sample(key)
    for model, params in models():
        yield model.sample(params, key, 2, batch_shape=(2,))
    model = jrnn.sequence_model(jrnn.gru(3, 2), jrnn.categorical(3))
    yield model.init(key)
    train = jrnn.train.init_train_state
    yield train(jnp.ones(2), optax.sgd(0.1), key).params
    elman = jrnn.elman(1, 2)
    measure = jrnn.diagnostics.memory_capacity
    yield measure(elman, elman.init(key), key, max_delay=2, steps=20)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "implementation",
    ["threefry2x32", "rbg", pytest.param("unsafe_rbg", marks=pytest.mark.slow)],
    indirect=True,
)
def test_keys_of_every_kind_are_taken_everywhere(implementation):
    typed, raw = jax.random.key(3), jax.random.PRNGKey(3)
    assert raw.dtype == jnp.uint32
    models()  # fitted to numbers, which are none where all is traced
    with jax.debug_key_reuse(False):  # one key for all
        told = [jax.eval_shape(lambda k: tuple(draws(k)), key) for key in (typed, raw)]
    assert told[0] == told[1]
    cell = jrnn.dropout(jrnn.gru(3, 4), 0.5)
    ones = jax.tree.map(jnp.ones_like, jax.eval_shape(lambda: cell.init(KEY)))
    run = lambda key: jrnn.unroll(cell, ones, jnp.ones((5, 3)), key=key)[1]
    drawn = run(typed)
    np.testing.assert_array_equal(drawn, run(raw))
    assert (drawn != run(jax.random.key(4, impl=implementation))).any()


@pytest.mark.parametrize("implementation", ["rbg"], indirect=True)
def test_a_raw_key_of_another_kind_is_refused(implementation):
    del implementation
    raw = np.zeros(2, np.uint32)  # of threefry2x32
    with pytest.raises(TypeError, match=r"one key.*got uint32 of shape \(2,\)"):
        jrnn.gru(3, 4).init(raw)


# One rule for the numbers of a state.

METHODS = {
    "scan": jrnn.scan(),
    "bptt": jrnn.bptt(),
    "bptt remat": jrnn.bptt(remat=1),
    "associative": jrnn.associative(),
    "truncated": jrnn.truncated(2),
}


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", METHODS)
def test_a_real_state_begins_a_complex_cell(name):
    cell = jrnn.cells.lru(3, 4)
    params = jax.tree.map(jnp.ones_like, jax.eval_shape(lambda: cell.init(KEY)))
    real = cell.init_state(params)._replace(h=jnp.full(4, 0.5))
    whole = real._replace(h=real.h.astype(jnp.complex64))
    xs = jnp.ones((5, 3))

    def run(state):
        return jrnn.unroll(cell, params, xs, state, method=METHODS[name])

    jax.tree.map(np.testing.assert_array_equal, run(real), run(whole))
    step = cell.step(params, real, xs[0])
    jax.tree.map(np.testing.assert_array_equal, step, cell.step(params, whole, xs[0]))


# More steps than 32 bits count.

LONG = 2**31 + 8


@pytest.fixture
def in_32_bits():
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def of_long(make, method, **flags):
    cell = make(1, 2)
    params = jax.eval_shape(lambda: cell.init(KEY))
    xs = jax.ShapeDtypeStruct((LONG, 1), jnp.float32)
    flags = {k: jax.ShapeDtypeStruct(*v) for k, v in flags.items()}
    run = lambda p, xs, flags: jrnn.unroll(cell, p, xs, method=method, **flags)
    return run, (params, xs, flags)


@pytest.mark.parametrize("chunk", [None, 1 << 12])
def test_associative_runs_any_length(in_32_bits, chunk):
    del in_32_bits
    method = jrnn.associative(chunk=chunk)
    run, arguments = of_long(jrnn.cells.min_gru, method, resets=((LONG,), bool))
    assert jax.jit(run).lower(*arguments).out_info[1].shape == (LONG, 2)


@pytest.mark.parametrize("method", ["scan", "bptt", "newton", "fused", "truncated"])
def test_other_methods_refuse_what_32_bits_cannot_count(in_32_bits, method):
    del in_32_bits
    more = {"fused": {"interpret": True}, "truncated": {"window": 3}}
    made = getattr(jrnn, method)(**more.get(method, {}))
    run, arguments = of_long(jrnn.gru, made)
    with pytest.raises(ValueError, match=f"at most {2**31 - 1} steps .*{method}"):
        jax.eval_shape(run, *arguments)
    run, arguments = of_long(jrnn.gru, made, lengths=((), jnp.int32))
    with pytest.raises(ValueError, match=f"at most {2**31 - 1} steps of xs for"):
        jax.eval_shape(run, *arguments)


def test_models_refuse_what_32_bits_cannot_count(in_32_bits):
    del in_32_bits
    symbols = jax.ShapeDtypeStruct((LONG,), jnp.int32)
    length = jax.ShapeDtypeStruct((), jnp.int32)
    for model, params in models():
        dtype = jnp.int32 if "3" in str(getattr(model, "spec", "3")) else jnp.float32
        if getattr(model, "head", None) == jrnn.gaussian(2):
            xs = jax.ShapeDtypeStruct((LONG, 2), jnp.float32)
        else:
            xs = jax.ShapeDtypeStruct(symbols.shape, dtype)
        score = lambda xs, n: model.log_prob(params, xs, lengths=n)  # noqa: B023
        with pytest.raises(ValueError, match=f"at most {2**31 - 1} steps"):
            jax.eval_shape(score, xs, length)
        with pytest.raises(ValueError, match=f"at most {2**31 - 1} symbols of length"):
            model.sample(params, again(), LONG)
