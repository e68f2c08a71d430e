"""Every public function, with valid arguments and wrong ones that it must reject.

To test a new public function, add one entry here; without one,
`tests/contracts/test_wrong_arguments.py` fails.
"""

import collections
import functools
import inspect
import operator
import os
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen, nnx

import jrnn
import jrnn.interop.flax.linen
import jrnn.interop.flax.nnx
import jrnn.interop.flax.weights
import jrnn.interop.haiku
import jrnn.interop.keras
import jrnn.interop.torch
import jrnn.train
from jrnn.models.regressions import Regressions

KEY = jax.random.key(0)


class Entry(NamedTuple):
    """A function under test.

    Attributes:
      covers: The public names that it covers.
      call: The function, called by keywords.
      valid: Valid arguments.
      wrong: For each argument, the values that it must reject, by label.
    """

    covers: tuple[str, ...]
    call: Callable[..., Any]
    valid: dict[str, Any]
    wrong: dict[str, dict[str, Any]]


ENTRIES: dict[str, Entry] = {}


def entry(name, call, /, **arguments):
    """Adds an entry; each argument is (valid value, {label: wrong value})."""
    valid = {k: v for k, (v, _) in arguments.items()}
    wrong = {k: w for k, (_, w) in arguments.items()}
    ENTRIES[name] = Entry((name.split(" ")[0],), call, valid, wrong)


def filled(function, *arguments):
    """Returns ones with the shapes and dtypes of a function's result, by tracing."""
    like = jax.eval_shape(function, *arguments)
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), like)


def params_of(cell):
    return filled(cell.init, KEY)


def state_of(cell, params, batch=(2,)):
    return filled(lambda params: cell.init_state(params, batch), params)


def with_nan(xs):
    xs = xs.copy()
    xs[0] = np.nan
    return xs


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def first_leaf(tree, value):
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [value, *leaves[1:]])


# Wrong values, by kind of argument.

CELL = jrnn.lstm(3, 4)
HEAD = jrnn.categorical(3)
NONE = {"None": None}
UNHASHABLE = {"list": [1], "array": np.ones(2)}
CELLS = NONE | {"factory": jrnn.lstm, "text": "lstm", "head": HEAD}
HEADS = NONE | {"factory": jrnn.categorical, "text": "categorical", "cell": CELL}
SIZES = {"half": 2.5, "float": 3.0, "bool": True, "negative": -1, "text": "3"}
OPTIONAL_SIZES = SIZES | {"zero": 0}
SIZES = OPTIONAL_SIZES | NONE | {"array": np.ones(2)}
COUNTS = {k: v for k, v in SIZES.items() if k != "zero"}
SWITCHES = {"text": "yes", "number": 2, "array": np.array(True), "None": None}
REALS = NONE | {"text": "x", "bool": True, "complex": 1j, "array": np.ones(2)}
RATES = REALS | {"one": 1.0, "negative": -0.1, "nan": float("nan")}
POSITIVE = REALS | {"negative": -1.0, "nan": float("nan"), "inf": float("inf")}
OPTIONAL_FUNCTIONS = {"text": "tanh", "number": 3, "array": np.ones(2)}
FUNCTIONS = OPTIONAL_FUNCTIONS | NONE
METHODS = {"factory": jrnn.bptt, "text": "bptt", "number": 3, "cell": CELL}
OPTIONAL_KEYS = {
    "seed": 0,
    "float": 1.5,
    "text": "key",
    "several": jax.random.split(jax.random.clone(KEY)),
    "signed": np.zeros(2, np.int32),
    "long": np.zeros(5, np.uint32),
    "list": [0, 1],
}
KEYS = OPTIONAL_KEYS | NONE
DTYPES = {"integer": int, "complex": np.complex64, "name": "foo", "number": 32}
BATCHES = NONE | {
    "number": 4,
    "float": 4.0,
    "text": "ab",
    "halves": (2.5,),
    "negative": (-1,),
    "bool": (True,),
    "array": np.array([2]),
}
TEMPERATURES = NONE | {
    "text": "hot",
    "negative": -1.0,
    "nan": float("nan"),
    "shape": np.ones(3),
    "one too cold": np.array([1.0, -1.0]),
    "complex": 1j,
    "bool": True,
    "list": ["a", "b"],
}
PROBABILITIES = NONE | {
    "negative": -0.1,
    "percent": 50,
    "text": "half",
    "nan": float("nan"),
    "shape": np.ones(7),
    "complex": 1j,
}
TOP_P = {k: v for k, v in PROBABILITIES.items() if k != "None"} | {"bool": True}
TOP_K = {
    "zero": 0,
    "float": 1.0,
    "text": "all",
    "bool": True,
    "complex": 1j,
    "shape": np.ones(3, np.int32),
    "one too low": np.array([1, -1]),
}
ENDS = NONE | {
    "text": "end",
    "bool": True,
    "float": 1.0,
    "complex": 1j,
    "too large": 3,
    "negative": -1,
    "several": np.array([1, 2]),
    "ragged": [[1], [1, 2]],
}
NO_ARRAYS = {
    "None": None,
    "text": "abc",
    "texts": ["a", "b"],
    "object": np.array([object()] * 5, dtype=object),
    "ragged": [[1.0], [1.0, 2.0]],
    "huge": [10**30],
    "cell": CELL,
}


def kinds_of_floats(xs):
    return NO_ARRAYS | {
        "bool": xs > 0,
        "complex": xs.astype(np.complex64),
        "size": xs[..., :-1],
        "scalar": xs.sum(),
        "keys": jax.random.split(jax.random.clone(KEY), 5),
    }


def sequences(xs):
    return kinds_of_floats(xs) | {"empty": xs[:0]}


def token_ids(xs, vocab=3):
    return NO_ARRAYS | {
        "bool": xs > 0,
        "float": xs.astype(np.float32),
        "complex": xs.astype(np.complex64),
        "too large": xs + vocab,
        "negative": xs - vocab - 1,
        "scalar": xs.sum(),
        "empty": xs[:0],
        "keys": jax.random.split(jax.random.clone(KEY), 5),
    }


def params_like(params):
    return NONE | {
        "text": "params",
        "array": np.ones(3),
        "list": list(jax.tree.leaves(params)),
        "integers": cast(params, np.int32),
        "bools": cast(params, bool),
        "complex": cast(params, np.complex64),
        "text inside": first_leaf(params, "W"),
        "shape": jax.tree.map(lambda leaf: leaf[..., None], params),
        "foreign": params_of(jrnn.elman(7, 2)),
    }


def states_like(state, batch=True):
    def other(leaf):
        complex_ = np.iscomplexobj(leaf)
        return leaf if complex_ else leaf.astype(np.complex64)

    wrong = {
        "text": "state",
        "number": 0.0,
        "list": [1, 2, 3],
        "integers": jax.tree.map(lambda leaf: leaf.real.astype(np.int32), state),
        "bools": jax.tree.map(lambda leaf: leaf.real.astype(bool), state),
        "text inside": first_leaf(state, "h"),
        "shape": jax.tree.map(lambda leaf: leaf[..., None], state),
    }
    if not all(np.iscomplexobj(leaf) for leaf in jax.tree.leaves(state)):
        wrong["complex"] = jax.tree.map(other, state)
    if batch:
        wrong["batch"] = jax.tree.map(lambda leaf: np.concatenate([leaf] * 2), state)
    return wrong


def lengths_for(batch, steps=5):
    ones = np.ones(batch, np.int32)
    return {
        "text": "all",
        "float": ones.astype(float),
        "bool": ones > 0,
        "complex": ones.astype(np.complex64),
        "long": ones + steps,
        "negative": ones - 2,
        "shape": np.ones((*batch, 2), np.int32),
        "ragged": [[1], [1, 2]],
        "object": np.array([None, None], object),
    }


def flags_for(shape):
    return {
        "text": "all",
        "float": np.ones(shape),
        "integer": np.ones(shape, np.int32),
        "shape": np.ones((*shape, 7), bool),
        "ragged": [[True], [True, False]],
        "object": np.array([None, None], object),
    }


XS = np.ones((5, 2, 3), np.float32)
TOKENS = np.zeros((5, 2), np.int32)
RUN = {
    "lengths": (np.array([5, 2]), lengths_for((2,))),
    "resets": (np.zeros((5, 2), bool), flags_for((5, 2))),
    "mask": (np.ones((5, 2), bool), flags_for((5, 2))),
    "key": (KEY, OPTIONAL_KEYS),
}
METHOD = {"method": (jrnn.bptt(), METHODS)}
REVERSE = {"reverse": (False, SWITCHES)}


def seam(cell, xs=XS, wrong_xs=None):
    """Returns the arguments (cell, params, xs, state)."""
    params = params_of(cell)
    state = state_of(cell, params)
    return {
        "cell": (cell, CELLS),
        "params": (params, params_like(params)),
        "xs": (xs, sequences(xs) if wrong_xs is None else wrong_xs),
        "state": (state, states_like(state)),
    }


# Running a cell.

RUN_CELLS = {
    "lstm": CELL,
    "lru": jrnn.cells.lru(3, 4),
    "stack": jrnn.stack(CELL, jrnn.dropout(jrnn.cells.lru(4, 4), 0.5)),
    "exp_rnn": jrnn.cells.exp_rnn(3, 4),
    "learnable": jrnn.wrappers.learned_initial_state(jrnn.gru(3, 4)),
}
EVERY_METHOD = {
    "scan": (jrnn.scan(), "lru"),
    "bptt": (jrnn.bptt(remat=1), "lru"),
    "associative": (jrnn.associative(), "lru"),
    "newton": (jrnn.newton(), "lstm"),
    "fused": (jrnn.fused(), "lstm"),
    "truncated": (jrnn.truncated(2), "lru"),
}
for _name, _cell in RUN_CELLS.items():
    entry(
        f"jrnn.unroll {_name}", jrnn.unroll, **seam(_cell), **RUN, **REVERSE, **METHOD
    )
for _name, (_method, _cell) in EVERY_METHOD.items():
    entry(
        f"jrnn.unroll by {_name}",
        functools.partial(jrnn.unroll, method=_method),
        state=seam(RUN_CELLS[_cell])["state"],
        **{k: (v, {}) for k, (v, _) in seam(RUN_CELLS[_cell]).items() if k != "state"},
    )
entry(
    "jrnn.unroll tokens",
    jrnn.unroll,
    **seam(CELL, TOKENS, {k: v for k, v in token_ids(TOKENS).items() if k != "float"}),
)
entry("jrnn.trajectory", jrnn.trajectory, **seam(CELL), **RUN, **REVERSE, **METHOD)
ELMAN = jrnn.elman(3, 4)
_states = state_of(ELMAN, params_of(ELMAN), (5, 2))
entry(
    "jrnn.run.newton_trajectory",
    jrnn.run.newton_trajectory,
    **seam(ELMAN),
    **RUN,
    **REVERSE,
    guess=(_states, states_like(_states)),
    method=(jrnn.newton(), METHODS | {"another": jrnn.bptt()}),
)
entry(
    "jrnn.diagnostics.find_non_finite",
    jrnn.diagnostics.find_non_finite,
    **seam(CELL),
    **RUN,
    **REVERSE,
    loss=(
        lambda state, ys: ys.sum(),
        OPTIONAL_FUNCTIONS | {"vector": lambda state, ys: ys.sum(axis=(1, 2))},
    ),
)
for _name, (_a, _full) in {
    "numbers": (np.ones((5, 2, 4)), False),
    "matrices": (np.ones((5, 2, 4, 4)), True),
}.items():
    _numbers = {k: v for k, v in kinds_of_floats(_a).items() if k != "complex"}
    entry(
        f"jrnn.methods.linear_recurrence {_name}",
        jrnn.methods.linear_recurrence,
        a=(_a, _numbers | {"integer": _a.astype(int)}),
        b=(
            np.ones((5, 2, 4)),
            {k: v for k, v in kinds_of_floats(XS).items() if k != "complex"},
        ),
        h0=(
            np.ones((2, 4)),
            {k: v for k, v in _numbers.items() if k not in ("None", "complex")},
        ),
        full=(_full, SWITCHES),
        chunk=(2, OPTIONAL_SIZES),
        kernel=(None, {"text": "gpu", "number": 3, "array": np.ones(2)}),
        interpret=(False, SWITCHES),
    )

# Factories: the wrong values of an argument follow from its annotation.

BY_ANNOTATION = {
    "int": SIZES,
    "int | None": OPTIONAL_SIZES,
    "float": REALS | {"nan": float("nan"), "inf": float("inf")},
    "float | None": {k: v for k, v in REALS.items() if k != "None"}
    | {"nan": float("nan")},
    "bool": SWITCHES | {"number": 1},
    "str | None": {"text": "exact", "number": 3, "bool": True, "array": np.ones(2)},
    "Cell": CELLS,
    "Head": HEADS,
    "Kernel": NONE | {"text": "logistic", "head": HEAD, "factory": jrnn.heads.mixture},
    "Method | None": METHODS,
    "function": FUNCTIONS,
    "function | None": OPTIONAL_FUNCTIONS,
}
WITHOUT_ZERO = {k: v for k, v in SIZES.items() if k != "zero"}
# Arguments that accept more, or less, than their annotation says.
EXCEPT = {
    "order": WITHOUT_ZERO,
    "inputs": WITHOUT_ZERO,
    "remat": WITHOUT_ZERO,
    "levels": SIZES | {"one": 1},
    "rate": RATES,
    "diagonal": {"text": "yes", "number": 2, "array": np.array(True)},
    "tolerance": {k: v for k, v in POSITIVE.items() if k != "None"} | {"zero": 0.0},
    "stride": OPTIONAL_SIZES | {"long": 99},
}


def told_annotation(annotation):
    """Returns the name of an annotation in `BY_ANNOTATION`."""
    options = typing.get_args(annotation)
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = options if union else (annotation,)
    names = []
    for option in options:
        origin = typing.get_origin(option) or option
        named = "None" if option is type(None) else getattr(origin, "__name__", "")
        names.append("function" if origin is Callable else named)
    return " | ".join(name for name in names if name != "OfGates")


def factory(name, make, **given):
    """Adds an entry whose wrong values follow from annotations."""
    arguments = {}
    for argument, p in inspect.signature(make).parameters.items():
        if p.kind is p.VAR_POSITIONAL:
            continue
        valid = given.get(argument, p.default)
        wrong = EXCEPT.get(argument) or BY_ANNOTATION[told_annotation(p.annotation)]
        arguments[argument] = (valid, UNHASHABLE | wrong)
    entry(name, make, **arguments)


SIZED = {"input_size": 3, "hidden_size": 4}
NEEDED = {
    "feedforward": {"output_size": 4},
    "stateless": {"function": jax.nn.relu},
}
for _name, _make in vars(jrnn.cells).items():
    if (
        inspect.isfunction(_make)
        and "input_size" in inspect.signature(_make).parameters
    ):
        factory(f"jrnn.cells.{_name}", _make, **SIZED, **NEEDED.get(_name, {}))
for _name in ("scan", "bptt", "associative", "newton", "fused"):
    factory(f"jrnn.{_name}", getattr(jrnn, _name))
factory("jrnn.truncated", jrnn.truncated, window=4)
for _name in ("dropout", "variational_dropout", "zoneout"):
    _make = getattr(jrnn.wrappers, _name)
    factory(f"jrnn.wrappers.{_name}", _make, cell=CELL, rate=0.5)
for _name in ("learned_initial_state", "orthogonal"):
    _make = getattr(jrnn.wrappers, _name)
    factory(f"jrnn.wrappers.{_name}", _make, cell=jrnn.gru(3, 4))
factory("jrnn.residual", jrnn.residual, cell=jrnn.gru(4, 4))
factory("jrnn.bidirectional", jrnn.bidirectional, forward=CELL, backward=CELL)
entry(
    "jrnn.wrappers.skip_connections",
    lambda cells: jrnn.wrappers.skip_connections(CELL, cells),
    cells=(jrnn.gru(7, 2), CELLS),
)
entry(
    "jrnn.stack", lambda cells: jrnn.stack(CELL, cells), cells=(jrnn.gru(4, 2), CELLS)
)
for _name in ("bernoulli", "gaussian", "student_t"):
    factory(f"jrnn.heads.{_name}", getattr(jrnn.heads, _name))
factory("jrnn.categorical", jrnn.categorical, vocab_size=3)
factory("jrnn.heads.mixture", jrnn.heads.mixture, components=2)
factory(
    "jrnn.heads.discretised_logistic",
    jrnn.heads.discretised_logistic,
    **{"lowest": 0.0, "step": 1.0, "levels": 4},
)
factory("jrnn.sequence_model", jrnn.sequence_model, cell=CELL, head=HEAD, inputs=0)
factory("jrnn.supervised_model", jrnn.supervised_model, cell=CELL, head=HEAD)
factory("jrnn.markov_chain", jrnn.markov_chain, vocab_size=3, order=1)
factory(
    "jrnn.models.linear_gaussian_markov", jrnn.models.linear_gaussian_markov, order=1
)

# The arguments of `jrnn.cells` and `jrnn.wrappers.around`, for custom cells.

Own = collections.namedtuple("Own", "W_x b")
OwnState = collections.namedtuple("OwnState", "h")
ONES = jax.nn.initializers.ones
WEIGHTS = {
    "number": 3,
    "text": "W",
    "array": np.ones((3, 4)),
    "initializer": ONES,
    "init": jrnn.cells.Weight("ones", (3, 4)),
    "no init": jrnn.cells.Weight(None, (3, 4)),
    "nan": jrnn.cells.Weight(float("nan"), (3, 4)),
    "size": jrnn.cells.Weight(ONES, 3),
    "half": jrnn.cells.Weight(ONES, (3, 1.5)),
    "negative": jrnn.cells.Weight(ONES, (3, -1)),
    "gates": jrnn.cells.Weight(ONES, (3, 4), 1.5),
    "plus": jrnn.cells.Weight(ONES, (4,), 2, 1.0),
    "plus of text": jrnn.cells.Weight(ONES, (4,), 2, ("f", 1.0)),
    "no gate": jrnn.cells.Weight(ONES, (4,), 2, (2, 1.0)),
}
WEIGHT = jrnn.cells.Weight(ONES, (3, 4))
entry(
    "jrnn.cells.drawn",
    jrnn.cells.drawn,
    params=(Own, FUNCTIONS | {"other": OwnState}),
    W_x=(WEIGHT, WEIGHTS),
    b=(None, WEIGHTS),
)
entry(
    "jrnn.cells.initial",
    jrnn.cells.initial,
    state=(OwnState, FUNCTIONS | {"other": Own}),
    h=(
        4,
        {k: v for k, v in SIZES.items() if k != "zero"}
        | {"number of shape": jrnn.cells.Field(3), "switch": jrnn.cells.Field((3,), 1)},
    ),
)
entry(
    "jrnn.cells.initial none",
    lambda state: jrnn.cells.initial(state),
    state=(OwnState, {"without fields": OwnState}),
)
PULLBACK = {k: FUNCTIONS for k in ("forward", "pullback", "sums")}
entry(
    "jrnn.cells.adjoint_of",
    jrnn.cells.adjoint_of,
    **{k: (print, v) for k, v in PULLBACK.items()},
)
SEAM = {"number": 3, "text": "seam", "cell": CELL, "function": print}
BUILT = ("project", "output")
entry(
    "jrnn.cells.build",
    jrnn.cells.build,
    output_size=(4, SIZES),
    **{k: (getattr(ELMAN, k), FUNCTIONS) for k in ("init", "init_state", *BUILT)},
    **{
        k: (ELMAN.advance if k == "advance" else None, OPTIONAL_FUNCTIONS)
        for k in ("advance", "forward", "opened", "prepare", "noise")
    },
    gated=(None, SEAM | {"inside": jrnn.cells.Gated(1.5, *[print] * 3)}),
    adjoint=(None, SEAM | {"inside": jrnn.cells.Adjoint(None, print, print)}),
    linear=(None, SEAM | {"inside": jrnn.cells.Linear("a")}),
    bound=(None, SEAM),
    gates=(None, {"number": 3, "text": "r z n", "list": ["r"]}),
    diagonal=(False, SWITCHES | {"one": 1}),
    elapsed=(None, {"text": "t", "half": 1.5, "bool": True}),
)


def returning(made):
    def leaky(input_size: int):
        del input_size
        return made

    return jrnn.cells.factory(leaky)(3)


entry(
    "jrnn.cells.factory",
    jrnn.cells.factory,
    make=(returning, FUNCTIONS | {"without": lambda size: size}),
)
entry("jrnn.cells.factory made", lambda leaky: returning(leaky), leaky=(CELL, CELLS))
entry(
    "jrnn.wrappers.around",
    jrnn.wrappers.around,
    name=("own", NONE | {"number": 3, "cell": CELL}),
    cell=(CELL, CELLS),
    **{k: (None, OPTIONAL_FUNCTIONS) for k in ("inputs", "outputs", "noise")},
)

# The functions of cells.

NOISY = jrnn.wrappers.zoneout(jrnn.gru(3, 4), 0.5)
STEPPED = RUN_CELLS | {"zoneout": NOISY, "orthogonal": jrnn.wrappers.orthogonal(CELL)}
for _name, _cell in STEPPED.items():
    _params = params_of(_cell)
    _state = state_of(_cell, _params)
    entry(f"Cell.init {_name}", _cell.init, key=(KEY, KEYS), dtype=(None, DTYPES))
    entry(
        f"Cell.init_state {_name}",
        _cell.init_state,
        params=(_params, params_like(_params)),
        batch_shape=((2,), BATCHES),
    )
    entry(
        f"Cell.step {_name}",
        _cell.step,
        params=(_params, params_like(_params)),
        state=(_state, states_like(_state)),
        x=(XS[0], {k: v for k, v in kinds_of_floats(XS[0]).items() if k != "huge"}),
        noise=(None, {"text": "noise", "key": KEY, "number": 0.5}),
        reset=(np.zeros(2, bool), flags_for((2,))),
    )

# The functions of heads and of their distributions.

HEADS_TOLD = {
    "categorical": (HEAD, np.zeros(2, np.int32)),
    "gaussian": (jrnn.gaussian(), np.zeros(2)),
    "gaussian full": (jrnn.gaussian(3, full=True), np.zeros((2, 3))),
    "student_t": (jrnn.heads.student_t(2), np.zeros((2, 2))),
    "mixture": (jrnn.heads.mixture(2, jrnn.heads.logistic_kernel), np.zeros(2)),
    "discretised": (
        jrnn.heads.mixture(2, jrnn.heads.discretised_logistic(0.0, 1.0, 3), size=2),
        np.zeros((2, 2)),
    ),
    "bernoulli": (jrnn.heads.bernoulli(), np.zeros(2)),
}
UNOFFERED = {
    "categorical": ("mean", "cdf", "quantile", "variance"),
    "bernoulli": ("cdf", "quantile"),
}


def other_features(features):
    # For features of another size the error names the parameters instead.
    return {k: v for k, v in kinds_of_floats(features).items() if k != "size"}


def values_like(x):
    """Returns values that every head rejects as x."""
    floats = x.dtype.kind == "f"
    wrong = {k: v for k, v in kinds_of_floats(x).items() if k not in ("bool", "size")}
    more = {"shape": np.concatenate([x] * 2)}
    return wrong | more if floats else token_ids(x) | more


def values_of(x):
    """Returns values that a head rejects; values unknown at tracing score NaN."""
    wrong = values_like(x)
    wrong = {k: v for k, v in wrong.items() if k not in ("too large", "negative")}
    return {k: v for k, v in wrong.items() if k != "empty"}


def asked(family, what):
    """Returns a distribution's method as a function of parameters and arguments."""

    def call(parameters, **given):
        answer = getattr(jrnn.heads.Distribution(family, parameters), what)
        return answer(**given) if callable(answer) else answer

    return call


for _name, (_head, _x) in HEADS_TOLD.items():
    _params, _features = (
        filled(functools.partial(_head.init, feature_size=4), KEY),
        np.ones((2, 4)),
    )
    _predicted = filled(_head.predict, _params, _features).parameters
    _two = {
        "params": (_params, params_like(_params)),
        "features": (_features, other_features(_features)),
    }
    _drawn = {"key": (KEY, KEYS), "temperature": (1.0, TEMPERATURES)}
    _ids = _head.family.truncates
    _drawn["top_k"] = (np.int32(1), TOP_K) if _ids else (None, {"given": 1})
    _drawn["top_p"] = (1.0, TOP_P) if _ids else (None, {"given": 1})
    _x_values = {"x": (_x, values_of(_x))}
    _targets = {"targets": (_x, values_of(_x))}
    _mask = {"mask": (None, flags_for(_x.shape))}
    _p = {"probability": (0.5, PROBABILITIES)}
    _of = {
        "parameters": (
            _predicted,
            NONE | {"text": "p", "integers": cast(_predicted, int), "cell": CELL},
        )
    }
    entry(
        f"Head.init {_name}",
        _head.init,
        key=(KEY, KEYS),
        feature_size=(4, SIZES),
        dtype=(None, DTYPES),
    )
    entry(f"Head.predict {_name}", _head.predict, **_two)
    entry(f"Head.log_prob {_name}", _head.log_prob, **_two, **_targets, **_mask)
    entry(f"Distribution.shape {_name}", asked(_head.family, "shape"), **_of)
    for _function, _more in {
        "log_prob": _x_values | _mask,
        "sample": _drawn,
        "mean": {},
        "variance": {},
        "cdf": _x_values | _mask,
        "quantile": _p,
    }.items():
        if _function not in UNOFFERED.get(_name, ()):
            _call = asked(_head.family, _function)
            entry(f"Distribution.{_function} {_name}", _call, **_of, **_more)
    _checked_x = {k: v for k, v in values_like(_x).items() if k != "shape"}
    _checked_x = {k: v for k, v in _checked_x.items() if k not in ("scalar", "empty")}
    _checked_x = {
        k: v for k, v in _checked_x.items() if k not in ("too large", "negative")
    }
    entry(
        f"Head.check {_name}",
        functools.partial(_head.check, "xs"),
        xs=(_x, _checked_x),
        mask=(None, flags_for(_x.shape)),
    )

# The functions of models.


def model_entries(name, model, xs, wrong_xs, zs=None):
    params = params_of(model)
    state = state_of(model, params)
    floats = xs.dtype.kind == "f"
    read = {
        "params": (params, params_like(params)),
        "xs": (xs, wrong_xs),
        "state": (state, states_like(state)),
        "lengths": RUN["lengths"],
        "key": RUN["key"],
        **METHOD,
        "mask": (None, flags_for(xs.shape) | ({} if floats else {"any": xs == xs})),
    }
    now = {}
    if zs is not None:
        read["inputs"] = zs, NONE | sequences(zs)
        now["inputs"] = zs[0], NONE | sequences(zs[0])
    by = lambda function: f"SequenceModel.{function} {name}"
    entry(by("init"), model.init, key=(KEY, KEYS), dtype=(None, DTYPES))
    entry(
        by("init_state"),
        model.init_state,
        params=read["params"],
        batch_shape=((2,), BATCHES),
    )
    for function in ("log_prob", "predictive"):
        entry(by(function), getattr(model, function), **read)
    one = {k: v for k, v in wrong_xs.items() if k not in ("scalar", "size", "empty")}
    one = {k: v[0] if k in ("bool", "complex", "float") else v for k, v in one.items()}
    one = {k: v for k, v in one.items() if k not in ("too large", "negative")}
    entry(
        by("step"),
        model.step,
        params=read["params"],
        state=read["state"],
        x=(xs[0], one),
        mask=(None, flags_for(xs.shape[1:])),
        **now,
    )
    entry(
        by("predict"),
        model.predict,
        params=read["params"],
        state=(state, NONE | states_like(state, batch=False)),
        **now,
    )
    drawn = sampled(params, state, xs, wrong_xs, floats)
    if zs is not None:
        drawn["inputs"] = zs[:3], NONE | sequences(zs[:3])
        drawn["prompt_inputs"] = read["inputs"]
    entry(by("sample"), model.sample, **drawn)
    if not floats:
        entry(by("sample_until"), model.sample_until, end=(np.int32(1), ENDS), **drawn)


def sampled(params, state, xs, wrong_xs, masked):
    """Returns the arguments of every model's `sample`, for a batch of 2."""
    floats = xs.dtype.kind == "f"
    no_prompt = ("None", "empty")
    arguments = {
        "params": (params, params_like(params)),
        "key": (KEY, KEYS),
        "length": (3, {k: v for k, v in SIZES.items() if k != "zero"}),
        "prompt": (xs, {k: v for k, v in wrong_xs.items() if k not in no_prompt}),
        "temperature": (np.ones(2), TEMPERATURES),
        "batch_shape": ((2,), BATCHES | {"another": (3,)}),
        "state": (state, states_like(state)),
    }
    arguments["top_k"] = (None, {"given": 1}) if floats else (np.array([1, 2]), TOP_K)
    arguments["top_p"] = (None, {"given": 1}) if floats else (np.ones(2), TOP_P)
    if masked:
        arguments["prompt_mask"] = (None, flags_for(xs.shape))
    return arguments


model_entries("categorical", jrnn.sequence_model(CELL, HEAD), TOKENS, token_ids(TOKENS))
NUMBERS = jrnn.sequence_model(jrnn.cells.lru(6, 4), jrnn.gaussian(3, missing=True))
NAN = {"nan": with_nan(XS)}
model_entries("numbers", NUMBERS, XS, sequences(XS) | NAN)
TIMED = jrnn.sequence_model(jrnn.cells.s5(5, 2, irregular=True), HEAD, inputs=2)
ZS = np.ones((5, 2, 2), np.float32)
model_entries("inputs", TIMED, TOKENS, token_ids(TOKENS), ZS)

SUPERVISED = jrnn.supervised_model(CELL, jrnn.heads.student_t(), jrnn.models.last_pool)
_params = params_of(SUPERVISED)
entry("SupervisedModel.init", SUPERVISED.init, key=(KEY, KEYS), dtype=(None, DTYPES))
for _function in ("predict", "log_prob"):
    _given = {
        "params": (_params, params_like(_params)),
        "xs": (XS, sequences(XS)),
        **RUN,
        **REVERSE,
        **METHOD,
    }
    if _function == "log_prob":
        _given["labels"] = (
            np.zeros(2),
            values_like(np.zeros(2)) | {"nan": NAN["nan"][0, :, 0]},
        )
        _given["labels_mask"] = (None, flags_for((2,)))
    entry(f"SupervisedModel.{_function}", getattr(SUPERVISED, _function), **_given)

CHAIN = jrnn.markov_chain(3, 2)
_levels = CHAIN.fit(TOKENS)
_history = np.asarray(CHAIN.init_state(_levels, (2,)))
LEVELS = NONE | {
    "text": "params",
    "array": np.ones(3),
    "cell's": params_of(CELL),
    "too few": _levels[:1],
    "floats": cast(_levels, float),
    "text inside": first_leaf(_levels, "n"),
}
HISTORIES = {
    "text": "state",
    "number": 0,
    "float": _history.astype(float),
    "bool": _history > 0,
    "batch": np.concatenate([_history] * 2, axis=1),
    "order": _history[1:],
    "too large": _history + 9,
}
_ids = token_ids(TOKENS)
entry("MarkovChain.fit", CHAIN.fit, xs=(TOKENS, _ids), lengths=RUN["lengths"])
entry(
    "MarkovChain.init_state",
    CHAIN.init_state,
    params=(_levels, LEVELS),
    batch_shape=((2,), BATCHES),
)
entry(
    "MarkovChain.predict",
    CHAIN.predict,
    params=(_levels, LEVELS),
    state=(_history, NONE | {k: v for k, v in HISTORIES.items() if k != "batch"}),
)
for _function in ("log_prob", "predictive"):
    entry(
        f"MarkovChain.{_function}",
        getattr(CHAIN, _function),
        params=(_levels, LEVELS),
        xs=(TOKENS, _ids),
        state=(_history, HISTORIES),
        lengths=RUN["lengths"],
    )
_given = sampled(_levels, _history, TOKENS, _ids, masked=False)
_given |= {"params": (_levels, LEVELS), "state": (_history, HISTORIES)}
entry("MarkovChain.sample", CHAIN.sample, **_given)
entry("MarkovChain.sample_until", CHAIN.sample_until, end=(np.int32(1), ENDS), **_given)
entry(
    "jrnn.models.context_counts",
    jrnn.models.context_counts,
    params=(_levels, {k: v for k, v in LEVELS.items() if k != "too few"}),
)

LINEAR = jrnn.models.linear_gaussian_markov(1)
_values = np.asarray(np.random.default_rng(0).normal(size=(9, 2)))
_fitted = Regressions(np.ones((2, 1, 1, 1)), np.ones((2, 1)), np.ones((2, 1, 1)))
_lags = state_of(LINEAR, _fitted)


def lags_like(batch=True):
    kept = ("text", "number", "list", "text inside", "shape")
    wrong = {k: v for k, v in states_like(_lags).items() if k in kept}
    wrong["integers"] = _lags._replace(x=_lags.x.astype(int))
    wrong["complex"] = _lags._replace(x=_lags.x.astype(complex))
    wrong["known"] = _lags._replace(known=_lags.known.astype(float))
    if not batch:
        del wrong["shape"]  # of a batch of two axes
    else:
        wrong["batch"] = jax.tree.map(lambda a: np.repeat(a, 2, axis=1), _lags)
    return wrong


_wrong = {k: v for k, v in sequences(_values).items() if k != "size"}
_wrong |= {"nan": with_nan(_values)}
_reads = {
    "params": (_fitted, params_like(_fitted)),
    "xs": (_values, _wrong),
    "state": (_lags, lags_like()),
    "lengths": (np.array([5, 2]), lengths_for((2,), 9)),
    "mask": (None, flags_for((9, 2))),
}
entry(
    "LinearGaussianMarkov.fit",
    LINEAR.fit,
    **{k: _reads[k] for k in ("xs", "lengths", "mask")},
)
entry(
    "LinearGaussianMarkov.init_state",
    LINEAR.init_state,
    params=_reads["params"],
    batch_shape=((2,), BATCHES),
)
for _function in ("predict", "forecast"):
    _more = {"steps": (3, SIZES)} if _function == "forecast" else {}
    entry(
        f"LinearGaussianMarkov.{_function}",
        getattr(LINEAR, _function),
        params=_reads["params"],
        state=(_lags, NONE | lags_like(batch=False)),
        **_more,
    )
for _function in ("log_prob", "predictive"):
    _call = getattr(LINEAR, _function)
    entry(f"LinearGaussianMarkov.{_function}", _call, **_reads)
_given = sampled(_fitted, _lags, _values, _wrong, masked=True)
_given |= {"state": _reads["state"]}
entry("LinearGaussianMarkov.sample", LINEAR.sample, **_given)

entry(
    "jrnn.summary",
    jrnn.summary,
    cell_or_model=(
        CELL,
        NONE | {"text": "lstm", "factory": jrnn.lstm, "head": HEAD, "chain": CHAIN},
    ),
    dtype=(None, DTYPES),
    steps=(4, SIZES | {"one": 1}),
)

# Pools and means.

_ys, _active = np.ones((5, 2, 3)), np.ones((5, 2), bool)
_floats = {k: v for k, v in kinds_of_floats(_ys).items() if k not in ("size", "cell")}
for _name in ("last_pool", "mean_pool"):
    entry(
        f"jrnn.models.{_name}",
        getattr(jrnn.models, _name),
        ys=(_ys, _floats),
        active=(_active, NONE | flags_for((5, 2))),
    )
for _name in ("concat_merge", "sum_merge", "mean_merge", "product_merge"):
    _wrong = {k: v for k, v in kinds_of_floats(_ys).items() if k != "cell"}
    if _name == "concat_merge":
        del _wrong["size"]
        _wrong["lead"] = _ys[1:]
    entry(
        f"jrnn.wrappers.{_name}",
        getattr(jrnn.wrappers, _name),
        y_f=(_ys, _wrong),
        y_b=(_ys, _wrong),
    )
_floats = {k: v for k, v in _floats.items() if k not in ("bool", "complex")}
entry(
    "jrnn.models.mean_over_steps",
    jrnn.models.mean_over_steps,
    values=(_ys[..., 0], _floats),
    lengths=RUN["lengths"],
    mask=RUN["mask"],
    per_sequence=(False, SWITCHES),
)
entry(
    "jrnn.models.bits_per_symbol",
    jrnn.models.bits_per_symbol,
    log_probs=(_ys[..., 0], _floats),
    lengths=RUN["lengths"],
)

# Initialisers.

SHAPES = {k: v for k, v in BATCHES.items() if k != "array"}
for _name, _call in {
    "jrnn.initializers.embedding": jrnn.initializers.embedding,
    "jrnn.initializers.henaff": jrnn.initializers.henaff,
    "jrnn.initializers.cayley": jrnn.initializers.cayley,
    "jrnn.initializers.diagonal_normal": jrnn.initializers.diagonal_normal,
}.items():
    entry(
        _name,
        _call,
        key=(KEY, KEYS),
        shape=((4, 4), SHAPES),
        dtype=(np.float32, {k: v for k, v in DTYPES.items() if k != "number"}),
    )
factory("jrnn.initializers.normal", jrnn.initializers.normal, std=0.1)
factory("jrnn.initializers.uniform", jrnn.initializers.uniform, bound=0.1)
factory("jrnn.initializers.identity", jrnn.initializers.identity)
factory("jrnn.initializers.strongest_decay", jrnn.initializers.strongest_decay)
factory(
    "jrnn.initializers.spectral_radius", jrnn.initializers.spectral_radius, radius=0.9
)
for _name in ("chrono_lstm", "chrono_gru"):
    _call = getattr(jrnn.initializers, _name)
    factory(f"jrnn.initializers.{_name}", _call, longest=9.0)

# Diagnostics.

FIELDS = {"text": "k", "number": 3, "array": np.ones(2)}
_block = {"source": ("h", FIELDS), "target": (None, FIELDS)}
_lags = {
    "lags": (2, {k: v for k, v in OPTIONAL_SIZES.items() if k != "zero"} | {"long": 99})
}
_loss = {
    "loss": (
        lambda state, ys: ys.sum(),
        FUNCTIONS | {"vector": lambda state, ys: ys.sum(axis=(1, 2))},
    )
}
_starts = NONE | {
    "number": 1,
    "text": "ab",
    "halves": (0.5,),
    "negative": (-1,),
    "late": (9,),
}
for _name, _more in {
    "step_jacobians": _block,
    "jacobian_products": _block,
    "jacobian_products_by_lag": {**_block, **_lags, "starts": ((0,), _starts)},
    "jacobian_bound": {},
    "gradient_by_lag": {**_loss, **_lags},
    "state_adjoints": _loss,
    "gate_statistics": {},
    "lyapunov_spectrum": {
        "count": (2, OPTIONAL_SIZES | {"many": 99}),
        "discard": (
            1,
            {k: v for k, v in OPTIONAL_SIZES.items() if k != "zero"} | {"all": 5},
        ),
    },
}.items():
    _call = getattr(jrnn.diagnostics, _name)
    _cell = {
        "cell": (
            CELL,
            CELLS
            | (
                {}
                if _name == "gate_statistics"
                else {"ahead": jrnn.bidirectional(CELL, CELL)}
            ),
        )
    }
    entry(f"jrnn.diagnostics.{_name}", _call, **(seam(CELL) | _cell), **_more)
_read = {k: v for k, v in seam(CELL).items() if k in ("cell", "params")}
entry(
    "jrnn.diagnostics.memory_capacity",
    jrnn.diagnostics.memory_capacity,
    **_read,
    key=(KEY, KEYS),
    max_delay=(4, SIZES),
    steps=(100, SIZES | {"few": 8}),
    washout=(9, OPTIONAL_SIZES | {"short": 3}),
    scale=(1.0, POSITIVE),
)
entry(
    "jrnn.train.regularisers.gradient_norm_penalty",
    jrnn.train.regularisers.gradient_norm_penalty,
    **seam(CELL),
    **_loss,
    immediate=(True, SWITCHES),
)

# Batching and training.

_texts = {"text": "abc", "number": 3} | NONE
_no_lengths = {"floats": [1.5], "negative": [-1], "empty": [], "table": [[1]]}
entry(
    "jrnn.train.batching.bucket_bounds",
    jrnn.train.batching.bucket_bounds,
    lengths=(
        [3, 4, 9],
        _texts | _no_lengths,
    ),
    count=(2, SIZES),
)
_sequences = [np.ones((n, 2)) for n in (3, 9)]
_mixed = [np.ones((3, 2)), np.ones((3, 1))]
_no_bounds = {"descending": (10, 4), "halves": (4.5, 10.0), "texts": ("a", "b")}
_no_bounds |= {"zero": (0, 10), "empty": ()}
entry(
    "jrnn.train.batching.padded_batches",
    jrnn.train.batching.padded_batches,
    sequences=(
        _sequences,
        _texts
        | {
            "long": [np.ones((99, 2))],
            "mixed": [np.ones((3, 2)), np.ones((3, 1))],
            "texts": ["a", "b"],
        },
    ),
    batch_size=(2, SIZES),
    bounds=(
        (4, 10),
        _texts
        | {
            "descending": (10, 4),
            "halves": (4.5, 10.0),
            "zero": (0, 10),
            "texts": ("a", "b"),
        },
    ),
    seed=(0, {"text": "seed", "half": 0.5, "negative": -1, "bool": True}),
)


def _loss_of(params, batch, carry, key):
    del batch, key
    return (params**2).sum(), (carry, {})


SGD = optax.sgd(0.1)
OPTIMIZERS = NONE | {"factory": optax.sgd, "text": "sgd", "number": 0.1}
entry(
    "jrnn.train.init_train_state",
    jrnn.train.init_train_state,
    params=(
        np.ones(3),
        {"text": "params", "text inside": {"a": "b"}, "object": object()},
    ),
    optimizer=(SGD, OPTIMIZERS),
    key=(KEY, KEYS),
    carry=((), {"text": "carry", "object": object()}),
)
entry(
    "jrnn.train.make_train_step",
    jrnn.train.make_train_step,
    loss=(_loss_of, FUNCTIONS),
    optimizer=(SGD, OPTIMIZERS),
)
entry(
    "jrnn.train.sequence_loss",
    jrnn.train.sequence_loss,
    model=(
        jrnn.sequence_model(CELL, HEAD),
        NONE
        | {
            "cell": CELL,
            "text": "model",
            "factory": jrnn.sequence_model,
            "supervised": SUPERVISED,
        },
    ),
)
_no_arrays = {k: v for k, v in NO_ARRAYS.items() if k != "cell"}
entry(
    "jrnn.train.streams",
    jrnn.train.streams,
    tokens=(np.arange(9), _no_arrays | {"scalar": np.array(3), "short": np.arange(1)}),
    batch_size=(2, SIZES),
)
entry(
    "jrnn.train.windows",
    lambda **given: list(jrnn.train.windows(**given)),
    xs=(np.arange(9), _no_arrays | {"scalar": np.array(3)}),
    length=(2, SIZES),
    start=(0, {k: v for k, v in SIZES.items() if k != "zero"}),
    keep_last=(True, SWITCHES),
)
_no_batches = {"None": None, "number": 3}
entry(
    "jrnn.train.fit",
    jrnn.train.fit,
    step=(lambda state, batch: (state, {}), FUNCTIONS),
    state=(
        jrnn.train.TrainState(1.0, (), (), KEY, 0),
        NONE | {"params": np.ones(3), "text": "state"},
    ),
    batches=((), _no_batches),
    on_step=(None, OPTIONAL_FUNCTIONS),
)
entry(
    "jrnn.train.evaluate",
    jrnn.train.evaluate,
    metric=(lambda params, batch, carry: (1.0, 1, carry), FUNCTIONS),
    params=(None, {}),
    batches=((), _no_batches),
)

NOWHERE = os.path.join(os.devnull, "last")  # nothing is ever written there
PATHS = NONE | {"number": 3, "bytes": b"last", "list": ["last"]}
entry(
    "jrnn.train.save_checkpoint",
    jrnn.train.save_checkpoint,
    path=(NOWHERE, PATHS),
    tree=({}, {}),
    metadata=(
        {},
        {"text": "abc", "number": 3, "pairs": [("a", 1)], "no JSON": {1: CELL}},
    ),
)
entry(
    "jrnn.train.load_checkpoint",
    jrnn.train.load_checkpoint,
    path=(NOWHERE, PATHS),
    like=({}, {}),
)
for _name in ("has_checkpoint", "read_metadata"):
    entry(f"jrnn.train.{_name}", getattr(jrnn.train, _name), path=(NOWHERE, PATHS))
_gru_params = params_of(jrnn.gru(3, 4))
entry(
    "jrnn.save",
    jrnn.save,
    path=(NOWHERE, PATHS),
    cell_or_model=(jrnn.gru(3, 4), NONE | {"factory": jrnn.gru, "text": "gru"}),
    params=(
        _gru_params,
        {k: v for k, v in params_like(_gru_params).items() if k != "foreign"},
    ),
    metadata=({}, {"text": "abc", "number": 3, "no JSON": {1: CELL}}),
)
entry(
    "jrnn.export",
    jrnn.export,
    cell_or_model=(
        jrnn.gru(3, 4),
        NONE
        | {"factory": jrnn.gru, "text": "gru", "kernel": jrnn.heads.gaussian_kernel},
    ),
    params=(
        _gru_params,
        {k: v for k, v in params_like(_gru_params).items() if k != "foreign"},
    ),
    path=(NOWHERE, PATHS),
    platforms=(
        ["cpu"],
        NONE | {"text": "cpu", "unknown": ["gpu"], "empty": [], "number": [3]},
    ),
    method=(None, METHODS),
    vjp_order=(0, {k: v for k, v in COUNTS.items() if k != "zero"}),
    batch=(2, OPTIONAL_SIZES),
    steps=(3, OPTIONAL_SIZES),
    tokens=(False, SWITCHES),
)
entry("jrnn.load", jrnn.load, path=(NOWHERE, PATHS))
entry(
    "jrnn.interop.files.read_metadata",
    jrnn.interop.files.read_metadata,
    path=(NOWHERE, PATHS),
)
entry(
    "jrnn.train.make_train_step step",
    jrnn.train.make_train_step(_loss_of, SGD),
    state=(
        jrnn.train.TrainState(np.ones(3), (), (), KEY, 0),
        NONE
        | {
            "params": np.ones(3),
            "text": "state",
            "text inside": jrnn.train.TrainState("a", (), (), KEY, 0),
        },
    ),
    batch=(None, {"text": "batch", "cell": {"x": print}}),
)
entry(
    "jrnn.heads.Distribution",
    lambda family: jrnn.heads.Distribution(family, np.zeros(3)).mean(),
    family=(jrnn.gaussian().family, NONE | {"head": jrnn.gaussian(), "text": "normal"}),
)

# Conversion.

_packed = np.ones((1, 2, 4), np.float32)
entry(
    "jrnn.interop.torch.from_torch_state",
    jrnn.interop.torch.from_torch_state,
    cell=(CELL, CELLS),
    state=(
        (_packed, _packed),
        NONE
        | {
            "text": "state",
            "one": _packed,
            "integers": (_packed.astype(np.int32),) * 2,
            "size": (_packed[..., :1],) * 2,
            "ragged": [[1], [1, 2]],
        },
    ),
)
_spec = jrnn.interop.torch.TorchSpec("RNN_TANH", 3, 4, bias=False)
entry(
    "jrnn.interop.torch.from_arrays",
    jrnn.interop.torch.from_arrays,
    spec=(_spec, NONE | {"text": "LSTM", "cell": CELL}),
    arrays=({}, NONE | {"list": [1], "text": "arrays"}),
    prefix=("", NONE | {"number": 3, "bytes": b"rnn."}),
    time_axis=(None, {"two": 2, "text": "time", "bool": True}),
)
entry(
    "jrnn.interop.torch.find_specs",
    jrnn.interop.torch.find_specs,
    arrays=({}, NONE | {"list": [1], "text": "arrays"}),
)
_params = params_of(CELL)
entry(
    "jrnn.interop.torch.to_arrays",
    jrnn.interop.torch.to_arrays,
    cell=(CELL, CELLS),
    params=(_params, params_like(_params)),
    batch_first=(False, SWITCHES),
    as_cell=(False, SWITCHES),
)
_state = state_of(CELL, _params)
entry(
    "jrnn.interop.torch.to_torch_state",
    jrnn.interop.torch.to_torch_state,
    cell=(CELL, CELLS),
    state=(_state, NONE | states_like(_state, batch=False)),
)
_keras_spec = jrnn.interop.keras.KerasSpec("GRU", 3, 4)
entry(
    "jrnn.interop.keras.from_arrays",
    jrnn.interop.keras.from_arrays,
    spec=(_keras_spec, NONE | {"text": "GRU", "cell": CELL}),
    arrays=({}, NONE | {"list": [1], "text": "arrays"}),
)
for _name in ("keras.to_arrays", "flax.weights.to_linen", "flax.weights.to_nnx"):
    _module, _, _last = _name.rpartition(".")
    entry(
        f"jrnn.interop.{_name}",
        getattr(operator.attrgetter(_module)(jrnn.interop), _last),
        cell=(CELL, CELLS),
        params=(_params, params_like(_params)),
    )
_linen = linen.RNN(linen.LSTMCell(4))
_linen_params = {"cell": jrnn.interop.flax.weights.to_linen(CELL, _params)[1]["params"]}
entry(
    "jrnn.interop.flax.weights.from_linen",
    jrnn.interop.flax.weights.from_linen,
    module=(
        _linen,
        NONE | {"text": "LSTM", "cell": CELL, "class": linen.LSTMCell},
    ),
    params=(_linen_params, NONE | {"text": "params", "list": [1], "empty": {}}),
    reverse=(False, SWITCHES),
)
entry(
    "jrnn.interop.flax.weights.from_nnx",
    jrnn.interop.flax.weights.from_nnx,
    module=(
        nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0)),
        NONE | {"text": "LSTM", "cell": CELL, "class": nnx.LSTMCell},
    ),
    reverse=(False, SWITCHES),
)
_core = type("LSTM", (), {})  # of which only the name is read
entry(
    "jrnn.interop.haiku.from_haiku",
    jrnn.interop.haiku.from_haiku,
    core=(_core, NONE | {"text": "LSTM", "cell": CELL}),
    params=(
        jrnn.interop.haiku.to_haiku(CELL, _params),
        NONE | {"text": "params", "list": [1], "empty": {}},
    ),
    name=(None, {"number": 3, "bytes": b"lstm"}),
)
entry(
    "jrnn.interop.haiku.to_haiku",
    jrnn.interop.haiku.to_haiku,
    cell=(CELL, CELLS),
    params=(_params, params_like(_params)),
    name=(None, {"number": 3, "bytes": b"lstm"}),
)

# Flax.

_gru = jrnn.gru(3, 4)
_named = jrnn.interop.flax.linen.nest(_gru, params_of(_gru))
entry(
    "jrnn.interop.flax.linen.nest",
    jrnn.interop.flax.linen.nest,
    cell=(_gru, CELLS),
    params=(params_of(_gru), NONE | {"text": "params", "names": _named}),
)
entry(
    "jrnn.interop.flax.linen.unnest",
    jrnn.interop.flax.linen.unnest,
    cell=(_gru, CELLS),
    nested=(
        _named,
        NONE
        | {
            "text": "nested",
            "missing": {k: v for k, v in _named.items() if k != "W_x"},
            "unknown": _named | {"W_p": np.ones(3)},
            "deeper": {"params": _named},
            "shape": _named | {"b": np.ones(3)},
        },
    ),
)
entry(
    "jrnn.interop.flax.linen.as_cell",
    jrnn.interop.flax.linen.as_cell,
    module=(linen.GRUCell(4), NONE | {"class": linen.GRUCell, "dense": linen.Dense(4)}),
    input_size=(3, COUNTS),
)
entry(
    "jrnn.interop.flax.nnx.as_cell",
    lambda make, input_size: jrnn.interop.flax.nnx.as_cell(make, input_size, 4),
    make=(nnx.GRUCell, NONE | {"text": "GRUCell", "dense": nnx.Linear}),
    input_size=(3, COUNTS),
)
entry(
    "jrnn.interop.flax.nnx.params_of",
    jrnn.interop.flax.nnx.params_of,
    module=(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), NONE | {"cell": _gru, "number": 3}),
)
