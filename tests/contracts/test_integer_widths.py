"""Integers of every width, wherever they are accepted: ids, labels, lengths, positions.

`ENTRIES` has one line for each public function and argument that takes integers, and a
test of the signatures finds missing ones. Sizes are chosen so that narrow types wrap:
300 symbols, 256 steps.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import diagnostics, train
from jrnn.models import reading
from jrnn.models.supervised_model import SupervisedParams
from jrnn.train import batching, regularisers

V, T, B = 300, 256, 3
WIDTHS = ("int8", "uint8", "int16", "uint16", "uint32", "int64")


def _key():
    """A key that nothing has used: reuse is an error."""
    return jax.random.key(0)


CELL = jrnn.elman(V, 2)
PARAMS = CELL.init(_key())
HIGHWAY = jrnn.cells.sru(V, V, bias=False)  # reads ids as one-hot vectors, too
REAL = jrnn.elman(1, 2)
REAL_PARAMS = REAL.init(_key())
XS = jnp.ones((T, B, 1), jnp.float32)
STEPS = jnp.ones((T, B), jnp.float32)
HEAD = jrnn.categorical(V)
MODEL = jrnn.sequence_model(CELL, HEAD)
MODEL_PARAMS = jax.tree.map(lambda a: a + 0.1, MODEL.init(_key()))
COINS = jrnn.sequence_model(REAL, jrnn.heads.bernoulli())
COIN_PARAMS = COINS.init(_key())
LABELLER = jrnn.supervised_model(REAL, HEAD)
LABELLER_PARAMS = LABELLER.init(_key())
READER = jrnn.supervised_model(CELL, HEAD)
READER_PARAMS = SupervisedParams(PARAMS, LABELLER_PARAMS.head)
FEATURES = jax.random.normal(_key(), (4, B, 2), jnp.float32)
LOG_P = jax.nn.log_softmax(jax.random.normal(_key(), (4, B, V), jnp.float32))
NAMES = jrnn.heads.Distribution(HEAD.family, LOG_P)
CHAIN = jrnn.markov_chain(V, 1)
LEVELS = CHAIN.fit(np.arange(400) % V)
LINEAR = jrnn.models.linear_gaussian_markov(1)
VALUES = jax.random.normal(jax.random.key(1), (T, B))
REGRESSIONS = LINEAR.fit(VALUES)

IDS = np.array([[0, 44, 127], [43, 5, 99], [100, 6, 1], [2, 3, 4]], np.int32)
LENGTHS = np.array([100, 127, 0], np.int32)
BITS = np.array([[0, 1, 1], [1, 0, 1]], np.int32)


def _loss(state: Any, ys: jax.Array) -> jax.Array:
    del state
    return ys.sum()


def _coins(bits: Any) -> jrnn.heads.Distribution:
    return jrnn.heads.Distribution(COINS.head.family, jnp.ones(bits.shape))


def _state(last: Any) -> reading.SequenceState:
    return MODEL.init_state(MODEL_PARAMS, (B,))._replace(last=jnp.asarray(last))


class Entry(NamedTuple):
    """A function of integers alone, and values that every width holds."""

    run: Callable[[Any], Any]
    values: np.ndarray = IDS
    jitted: bool = True  # False: it looks at values, and runs outside of jit


def _lengths(run: Callable[[Any], Any], jitted: bool = True) -> Entry:
    return Entry(run, LENGTHS, jitted)


ENTRIES = {
    "unroll.xs": Entry(lambda i: jrnn.unroll(CELL, PARAMS, i)),
    "unroll.lengths": _lengths(
        lambda n: jrnn.unroll(REAL, REAL_PARAMS, XS, lengths=n, reverse=True)
    ),
    "trajectory.xs": Entry(lambda i: jrnn.trajectory(CELL, PARAMS, i)),
    "trajectory.lengths": _lengths(
        lambda n: jrnn.trajectory(REAL, REAL_PARAMS, XS, lengths=n)
    ),
    "newton_trajectory.xs": Entry(
        lambda i: jrnn.run.newton_trajectory(CELL, PARAMS, i)
    ),
    "newton_trajectory.lengths": _lengths(
        lambda n: jrnn.run.newton_trajectory(REAL, REAL_PARAMS, XS, lengths=n)
    ),
    "diagnostics.find_non_finite.xs": Entry(
        lambda i: str(
            jrnn.diagnostics.find_non_finite(
                CELL, PARAMS._replace(W_h=PARAMS.W_h * jnp.nan), i
            )
        ),
        IDS,
        False,
    ),
    "diagnostics.find_non_finite.lengths": _lengths(
        lambda n: str(
            jrnn.diagnostics.find_non_finite(
                REAL, REAL_PARAMS, XS.at[120:].set(jnp.nan), lengths=n
            )
        ),
        False,
    ),
    "mean_over_steps.values": Entry(lambda i: jrnn.models.mean_over_steps(i)),
    "mean_over_steps.lengths": _lengths(
        lambda n: (
            jrnn.models.mean_over_steps(STEPS, n, per_sequence=True)
            + jrnn.models.mean_over_steps(STEPS, n)
        )
    ),
    "bits_per_symbol.lengths": _lengths(
        lambda n: jrnn.models.bits_per_symbol(STEPS, n)
    ),
    "Cell.project.x": Entry(lambda i: CELL.project(PARAMS, i)),
    "Cell.output.x": Entry(
        lambda i: HIGHWAY.output(
            HIGHWAY.init(_key()), HIGHWAY.init_state(HIGHWAY.init(_key()), i.shape), i
        )
    ),
    "Cell.step.x": Entry(
        lambda i: CELL.step(PARAMS, CELL.init_state(PARAMS, i.shape), i)
    ),
    "Head.log_prob.targets": Entry(
        lambda i: HEAD.log_prob(HEAD.init(_key(), 2), FEATURES, i)
    ),
    "Head.check.xs": Entry(lambda i: HEAD.check("xs", i)[0]),
    "Head.check_values.xs": Entry(
        lambda i: HEAD.check_values("xs", HEAD.check("xs", i)[0]), IDS, False
    ),
    "Head.symbols.ids": Entry(lambda i: HEAD.symbols(i)),
    "Head.symbols.xs": Entry(
        lambda i: COINS.head.symbols(COINS.head.check("xs", i)[0]), BITS
    ),
    "Head.encode.ids": Entry(lambda i: CELL.project(PARAMS, HEAD.encode(i))),
    "Head.seen.ids": Entry(lambda i: HEAD.seen(i)),
    "Distribution.log_prob.ids": Entry(lambda i: NAMES.log_prob(i)),
    "Distribution.log_prob.x": Entry(lambda i: _coins(i).log_prob(i), BITS),
    "SequenceModel.log_prob.xs": Entry(lambda i: MODEL.log_prob(MODEL_PARAMS, i)),
    "SequenceModel.log_prob.lengths": _lengths(
        lambda n: MODEL.log_prob(MODEL_PARAMS, jnp.zeros((T, B), int), lengths=n)
    ),
    "SequenceModel.step.x": Entry(
        lambda i: MODEL.step(MODEL_PARAMS, MODEL.init_state(MODEL_PARAMS, i.shape), i)
    ),
    "SequenceModel.step.state": Entry(
        lambda i: MODEL.step(MODEL_PARAMS, _state(i), jnp.full(B, 299)), IDS[0]
    ),
    "SequenceModel.predict.state": Entry(
        lambda i: MODEL.predict(MODEL_PARAMS, _state(i)), IDS[0]
    ),
    "SequenceModel.predictive.xs": Entry(lambda i: MODEL.predictive(MODEL_PARAMS, i)),
    "SequenceModel.predictive.lengths": Entry(
        lambda n: MODEL.predictive(MODEL_PARAMS, IDS, lengths=n)[0],
        np.array([0, 2, 4], np.int32),
    ),
    "SequenceModel.predictive.bits": Entry(
        lambda i: COINS.predictive(COIN_PARAMS, i)[1].variance(), BITS
    ),
    "SequenceModel.sample.prompt": Entry(
        lambda i: MODEL.sample(MODEL_PARAMS, _key(), 20, i)
    ),
    "SequenceModel.sample_until.prompt": Entry(
        lambda i: MODEL.sample_until(MODEL_PARAMS, _key(), 20, 299, i).tokens
    ),
    "SequenceModel.sample.state": Entry(
        lambda i: MODEL.sample(MODEL_PARAMS, _key(), 20, state=_state(i)), IDS[0]
    ),
    "SupervisedModel.log_prob.labels": Entry(
        lambda i: LABELLER.log_prob(LABELLER_PARAMS, XS[:4], i)
    ),
    "SupervisedModel.log_prob.xs": Entry(
        lambda i: READER.log_prob(READER_PARAMS, i, IDS)
    ),
    "SupervisedModel.log_prob.lengths": _lengths(
        lambda n: LABELLER.log_prob(
            LABELLER_PARAMS, XS, jnp.full((T, B), 299), lengths=n
        )
    ),
    "SupervisedModel.predict.xs": Entry(lambda i: READER.predict(READER_PARAMS, i)),
    "SupervisedModel.predict.lengths": _lengths(
        lambda n: jrnn.supervised_model(REAL, HEAD, jrnn.models.last_pool).predict(
            LABELLER_PARAMS, XS, lengths=n
        )
    ),
    "MarkovChain.fit.xs": Entry(lambda i: CHAIN.fit(i), IDS, False),
    "MarkovChain.fit.lengths": _lengths(
        lambda n: CHAIN.fit(np.full((T, B), 299), n), False
    ),
    "MarkovChain.log_prob.xs": Entry(lambda i: CHAIN.log_prob(LEVELS, i)),
    "MarkovChain.log_prob.lengths": _lengths(
        lambda n: CHAIN.log_prob(LEVELS, np.full((T, B), 299), lengths=n)
    ),
    "MarkovChain.log_prob.state": Entry(
        lambda i: CHAIN.log_prob(LEVELS, IDS, i), IDS[:1]
    ),
    "MarkovChain.predictive.xs": Entry(lambda i: CHAIN.predictive(LEVELS, i)),
    "MarkovChain.predictive.lengths": Entry(
        lambda n: CHAIN.predictive(LEVELS, IDS, lengths=n)[0],
        np.array([0, 2, 4], np.int32),
    ),
    "MarkovChain.predict.state": Entry(lambda i: CHAIN.predict(LEVELS, i), IDS[:1]),
    "MarkovChain.sample.prompt": Entry(lambda i: CHAIN.sample(LEVELS, _key(), 20, i)),
    "MarkovChain.sample_until.prompt": Entry(
        lambda i: CHAIN.sample_until(LEVELS, _key(), 20, 299, i).tokens
    ),
    "MarkovChain.sample.state": Entry(
        lambda i: CHAIN.sample(LEVELS, _key(), 20, state=i), IDS[:1]
    ),
    "LinearGaussianMarkov.fit.lengths": _lengths(
        lambda n: LINEAR.fit(VALUES, n), False
    ),
    "LinearGaussianMarkov.log_prob.lengths": _lengths(
        lambda n: LINEAR.log_prob(REGRESSIONS, VALUES, lengths=n)
    ),
    "LinearGaussianMarkov.predictive.lengths": _lengths(
        lambda n: LINEAR.predictive(REGRESSIONS, VALUES, lengths=n)
    ),
    "diagnostics.state_adjoints.xs": Entry(
        lambda i: diagnostics.state_adjoints(CELL, PARAMS, i, _loss)
    ),
    "diagnostics.jacobian_bound.xs": Entry(
        lambda i: diagnostics.jacobian_bound(CELL, PARAMS, i).log_steps
    ),
    "diagnostics.gradient_by_lag.xs": Entry(
        lambda i: diagnostics.gradient_by_lag(CELL, PARAMS, i, _loss)
    ),
    "diagnostics.jacobian_products.xs": Entry(
        lambda i: diagnostics.jacobian_products(CELL, PARAMS, i)
    ),
    "diagnostics.jacobian_products_by_lag.xs": Entry(
        lambda i: diagnostics.jacobian_products_by_lag(CELL, PARAMS, i)
    ),
    "diagnostics.step_jacobians.xs": Entry(
        lambda i: diagnostics.step_jacobians(CELL, PARAMS, i)
    ),
    "diagnostics.lyapunov_spectrum.xs": Entry(
        lambda i: diagnostics.lyapunov_spectrum(CELL, PARAMS, i).exponents
    ),
    "diagnostics.gate_statistics.xs": Entry(
        lambda i: diagnostics.gate_statistics(CELL, PARAMS, i)
    ),
    "regularisers.gradient_norm_penalty.xs": Entry(
        lambda i: regularisers.gradient_norm_penalty(CELL, PARAMS, i, _loss)
    ),
    "batching.bucket_bounds.lengths": Entry(
        lambda n: batching.bucket_bounds(n, 2), LENGTHS, False
    ),
    "batching.padded_batches.sequences": Entry(
        lambda i: [
            b.xs.astype(int) for b in batching.padded_batches(list(i), 300, (3,))
        ],
        IDS,
        False,
    ),
    "batching.padded_batches.bounds": Entry(
        lambda n: list(batching.padded_batches([np.ones(120)] * 300, 256, n)),
        np.array([100, 127], np.int32),
        False,
    ),
    "train.streams.tokens": Entry(lambda i: train.streams(i, 3).astype(int), IDS[:, 0]),
    "train.windows.xs": Entry(lambda i: [w.astype(int) for w in train.windows(i, 2)]),
    "train.sequence_loss.batch": Entry(
        lambda i: train.sequence_loss(MODEL)(
            MODEL_PARAMS, i, MODEL.init_state(MODEL_PARAMS, (B,)), _key()
        )
    ),
}

# What a signature names as these may be integers of a user.
TAKES = {
    "ids",
    "labels",
    "lengths",
    "prompt",
    "symbols",
    "targets",
    "tokens",
    "x",
    "xs",
}
NUMBERS = "takes numbers alone, and refuses integers"
ELSEWHERE = {
    "LinearGaussianMarkov.fit.xs": NUMBERS,
    "LinearGaussianMarkov.log_prob.xs": NUMBERS,
    "LinearGaussianMarkov.predictive.xs": NUMBERS,
    "LinearGaussianMarkov.sample.prompt": NUMBERS,
    "export.tokens": "a switch",
    "Distribution.cdf.x": "of what is whole, bernoulli alone, there is no cdf",
    "Head.encode.symbols": "numbers, as Head.symbols makes them",
    "Head.seen.symbols": "numbers, as Head.symbols makes them",
}


def _public() -> dict[str, Callable[..., Any]]:
    """Every public function, and every function that a public object holds."""
    found = {}
    flat = jrnn, jrnn.cells, jrnn.heads, jrnn.methods, jrnn.models, jrnn.run
    modules = [("", module) for module in flat]
    modules += [("diagnostics.", diagnostics), ("train.", train)]
    modules += [("regularisers.", regularisers), ("batching.", batching)]
    for prefix, module in modules:
        for name in getattr(module, "__all__", dir(module)):
            thing = getattr(module, name)
            own = getattr(thing, "__module__", "").startswith(module.__name__)
            if inspect.isfunction(thing) and own and not name.startswith("_"):
                found[prefix + name] = thing
    objects = CELL, MODEL, LABELLER, CHAIN, LINEAR, HEAD, COINS.head, NAMES
    for i, thing in enumerate(objects):
        fields = getattr(thing, "_fields", dir(thing))
        for field in (name for name in fields if not name.startswith("_")):
            if inspect.isroutine(f := getattr(thing, field)) or hasattr(f, "func"):
                found[f"{type(thing).__name__}.{field}#{i}"] = f
    return found


def test_every_public_function_that_takes_integers_is_swept():
    wanted = set()
    for name, function in _public().items():
        own = inspect.signature(function).parameters
        names = TAKES & set(own)
        if name.startswith("SupervisedModel") and "keywords" in own:
            names.add("lengths")
        wanted |= {f"{name.split('#')[0]}.{parameter}" for parameter in names}
    known = set(ENTRIES) | set(ELSEWHERE)
    assert not wanted - known, f"nothing is known of {sorted(wanted - known)}"
    assert not set(ELSEWHERE) - wanted, sorted(set(ELSEWHERE) - wanted)


def _assert_same(got: Any, wanted: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


QUICK = [
    "mean_over_steps.lengths",
    "Cell.step.x",
    "Head.log_prob.targets",
    "SequenceModel.log_prob.xs",
    "SupervisedModel.log_prob.labels",
    "MarkovChain.fit.xs",
    "LinearGaussianMarkov.fit.lengths",
    "batching.padded_batches.bounds",
]
SLOW = [
    "unroll.xs",
    "Cell.output.x",
    "Distribution.log_prob.x",
    "SequenceModel.log_prob.lengths",
    "SequenceModel.sample.state",
    "MarkovChain.log_prob.lengths",
    "train.streams.tokens",
]
COMPILED = [
    "unroll.xs",
    "unroll.lengths",
    "Head.log_prob.targets",
    "SequenceModel.log_prob.xs",
    "SupervisedModel.log_prob.labels",
    "MarkovChain.log_prob.xs",
    "train.sequence_loss.batch",
]
JITTED = [name for name, entry in ENTRIES.items() if entry.jitted]
# They lower more than the others: loops, and their derivatives.
LONG = (
    "diagnostics",
    "regularisers",
    "newton",
    "MarkovChain",
    "LinearGaussianMarkov",
    "SequenceModel.sample",
    "SequenceModel.predictive",
    "SequenceModel.mean",
    "SequenceModel.variance",
)
LARGE = [name for name in JITTED if name.startswith(LONG)]
SMALL = [name for name in JITTED if not name.startswith(LONG)]


def _marked(names, quick=(), slow=()):
    """All names: quick, slow, and the others for the night."""
    night = [pytest.mark.nightly]
    marks = dict.fromkeys(quick, []) | dict.fromkeys(slow, [pytest.mark.slow])
    return [pytest.param(name, marks=marks.get(name, night)) for name in names]


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", _marked(ENTRIES, QUICK, SLOW))
def test_every_width_says_what_int32_says(name):
    entry = ENTRIES[name]
    wanted = entry.run(jnp.asarray(entry.values))
    for width in WIDTHS:
        _assert_same(entry.run(jnp.asarray(entry.values.astype(width))), wanted)
        if name.startswith(("batching", "Markov", "SequenceModel.log_prob")):
            _assert_same(entry.run(entry.values.astype(width)), wanted)


@pytest.mark.parametrize("name", _marked(JITTED, slow=COMPILED))
def test_every_width_says_what_int32_says_under_jit(name):
    entry = ENTRIES[name]
    given = [jnp.asarray(entry.values.astype(w)) for w in ("int32", *WIDTHS)]
    found = jax.jit(lambda arrays: [entry.run(a) for a in arrays])(given)
    for one in found[1:]:
        _assert_same(one, found[0])


# Operations that move integers about; whatever else reads one of 8 bits may wrap. A
# loop carries them, and what its body works out stands on lines of its own.
MOVES = {
    "broadcast_in_dim",
    "call",
    "concatenate",
    "constant",
    "convert",
    "dynamic_slice",
    "func",
    "pad",
    "reshape",
    "return",
    "reverse",
    "select",
    "slice",
    "transpose",
    "while",
}


@pytest.mark.parametrize("name", _marked(JITTED, SMALL, LARGE))
def test_nothing_is_worked_out_in_8_bits(name):
    """Read off what JAX lowers, without compiling it."""
    entry = ENTRIES[name]
    given = jnp.asarray(entry.values.astype("uint8"))
    text = jax.jit(entry.run).lower(given).as_text()
    narrow = [line for line in text.splitlines() if "ui8>" in line]
    assert narrow, "the argument is not read"
    for line in narrow:
        operation = re.search(r"(?:^|= )(?:stablehlo\.|func\.)?(\w+)", line.strip())
        assert operation is not None, line
        assert operation[1] in MOVES, line


@pytest.mark.parametrize("width", ["uint32", "int64", "uint64"])
def test_out_of_range_stays_out_of_range(width):
    """4294967295 is not -1, nor is 2**32 + 3 the id 3."""
    far = 2**32 - 1 if width == "uint32" else 2**32 + 3
    ids = jnp.asarray(np.array([3, far], width))
    with pytest.raises(ValueError, match="within 0..299"):
        HEAD.check_values("xs", HEAD.check("xs", ids)[0])
    score = jax.jit(lambda ids: jax.tree.map(lambda a: a[:2, 0], NAMES).log_prob(ids))
    assert jnp.isnan(score(ids)).tolist() == [False, True]
    assert jnp.isnan(CELL.project(PARAMS, ids)).any(axis=-1).tolist() == [False, True]
    assert HEAD.symbols(ids).tolist() == [3, 2**31 - 1]
    lengths = jax.jit(lambda n: jrnn.models.mean_over_steps(STEPS[:, :2], n))
    assert lengths(ids) == 1


@pytest.mark.parametrize("width", ["uint32", "int64", "uint64"])
def test_without_64_bits_out_of_range_stays_out_of_range(width):
    far = 2**32 - 1 if width == "uint32" else 2**32 + 3
    home = jax if hasattr(jax, "enable_x64") else jax.experimental  # of older jax
    with home.enable_x64(False):
        for ids in (np.array([3, far], width), [3, far]):
            kept, _ = HEAD.check("xs", ids)
            assert kept.dtype == jnp.int32
            assert kept.tolist() == [3, 2**31 - 1]
        with pytest.raises(ValueError, match="within 0..299"):
            CHAIN.log_prob(LEVELS, np.array([3, far], width))
        lengths = np.array([3, far], width)
        with pytest.raises(ValueError, match="lengths within 0..256"):
            jrnn.unroll(REAL, REAL_PARAMS, XS[:, :2], lengths=lengths)


def test_a_symbol_below_zero_is_not_taken_for_no_symbol():
    """In chunks as in whole: what follows an id of -1 is NaN, under jit."""
    whole = jax.jit(lambda ids: MODEL.log_prob(MODEL_PARAMS, ids)[1])
    first = jax.jit(lambda ids: MODEL.log_prob(MODEL_PARAMS, ids)[0])
    ids = jnp.array([1, -1, 2, 3])
    state = first(ids[:2])
    rest = MODEL.log_prob(MODEL_PARAMS, ids[2:], state)[1]
    assert jnp.isnan(whole(ids)).tolist() == [False, True, True, True]
    assert jnp.isnan(rest).all()


def test_sizes_of_numpy_do_not_wrap():
    small = np.uint8
    cell = jrnn.gru(small(3), small(100))
    assert cell is jrnn.gru(3, 100)
    assert jax.eval_shape(cell.init, _key()).W_x.shape == (3, 300)
    assert jrnn.categorical(small(200)).spec.output_size == 200
    assert jrnn.bptt(chunk=small(200)).options == jrnn.bptt(chunk=200).options
    batches = batching.padded_batches([np.ones(2)] * 300, small(250), (2,))
    assert [(b.members >= 0).sum() for b in batches] == [250, 50]
