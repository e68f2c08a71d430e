"""Parameters as arrays by name, and back.

A name is the path of an array in the tree of parameters: `W_x`, `0.W_h` in a stack,
`cell.1.b` in a model.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.core.cell import Cell, Params
from jrnn.core.check import check_floating, check_like, expected_params
from jrnn.core.disk import check_present, shown, told_leaf
from jrnn.heads.head import Head
from jrnn.interop.files.errors import FileError
from jrnn.models.linear_gaussian_markov import LinearGaussianMarkov
from jrnn.models.markov_chain import MarkovChain
from jrnn.models.ngram_counts import Level, check_levels
from jrnn.models.regressions import Regressions
from jrnn.models.sequence_model import SequenceModel
from jrnn.models.supervised_model import SupervisedModel

MADE = (Cell, Head, SequenceModel, SupervisedModel, MarkovChain, LinearGaussianMarkov)

Tensors = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

# Types of arrays that files hold: floats, and the integers of counts.
FLOATS = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
DTYPES = {name: np.dtype(getattr(jnp, name)) for name in (*FLOATS, "int32", "int64")}


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by the names of their paths."""
    name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name(path): leaf for path, leaf in leaves}


def numbers_of(tensors: Tensors) -> int:
    """Returns how many numbers the arrays have."""
    return sum(array.size for array in tensors.values())


@functools.singledispatch
def expected(made: Any, shapes: Shapes) -> Params:
    """Returns placeholders of the parameters of a cell, head or model.

    Args:
      made: The cell, head or model.
      shapes: The shapes of arrays by name, for sizes that `made` does not say.
    """
    del shapes
    return jax.eval_shape(lambda: made.init(jax.random.key(0)))


@expected.register
def _(made: Cell, shapes: Shapes) -> Params:
    del shapes
    return expected_params(made)


@expected.register
def _(made: Head, shapes: Shapes) -> Params:
    like = lambda size: jax.eval_shape(lambda: made.init(jax.random.key(0), size))
    features = shapes.get(next(iter(named(like(1)))), ())[:1]
    return like(max(1, *features))


@expected.register
def _(made: MarkovChain, shapes: Shapes) -> Params:
    arguments: dict[str, Any] = dict(made.spec.arguments)
    order, contexts, levels = arguments["order"], 1, []
    of: Any = lambda size: jax.ShapeDtypeStruct((size,), jnp.int32)
    for m in range(min(order, len(shapes)) + 1):
        strings = math.prod(shapes.get(f"{m}.symbols", ()))
        levels.append(Level(of(contexts + 1), of(strings), of(strings), of(contexts)))
        contexts = strings
    return tuple(levels)


@expected.register
def _(made: LinearGaussianMarkov, shapes: Shapes) -> Params:
    del shapes
    arguments: dict[str, Any] = dict(made.spec.arguments)
    k, n = arguments["order"], arguments["size"] or 1
    each = (k + 1, k, n, n), (k + 1, n), (k + 1, n, n)
    like: Any = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in each]
    return Regressions(*like)


def to_tensors(made: Any, params: Params) -> Tensors:
    """Returns the parameters of a cell, head or model as NumPy arrays by name.

    Raises:
      TypeError: `made` is something else, or a leaf is not an array of a type that a
        file can hold.
      ValueError: The parameters are not those of `made`, or their values are not here.
    """
    if not isinstance(made, MADE):
        raise TypeError(
            "Expected cell_or_model to be a cell, head or model, as a factory such as "
            f"jrnn.lstm(3, 4) returns it, got {told_leaf(made)}."
        )
    leaves = named(params)
    shapes = {name: np.shape(leaf) for name, leaf in leaves.items()}
    source = f"{made}.{'fit(xs)' if hasattr(made, 'fit') else 'init(key)'}"
    if isinstance(made, MarkovChain):
        check_levels(params, len(expected(made, shapes)) - 1)
    else:
        check_floating("params", params)
    check_like("params", params, expected(made, shapes), source)
    return {name: _tensor(name, leaf) for name, leaf in leaves.items()}


def _tensor(name: str, leaf: Any) -> np.ndarray:
    check_present(name, leaf)
    array = np.asarray(jax.device_get(leaf))
    if isinstance(leaf, np.ma.MaskedArray) or array.dtype.name not in DTYPES:
        raise TypeError(
            f"Expected params of a type among {', '.join(DTYPES)} for a file, got "
            f"{told_leaf(leaf)} at {name}; cast it."
        )
    return np.asarray(array, order="C")


def to_params(made: Any, tensors: Tensors) -> Params:
    """Returns the arrays of a file as the parameters of a cell, head or model.

    Raises:
      FileError: An array is missing, unexpected, or of another shape or kind; or JAX
        would narrow it.
    """
    like = expected(made, {name: array.shape for name, array in tensors.items()})
    wanted = named(like)
    missing, unknown = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
    if missing or unknown:
        raise FileError(
            f"Expected the arrays of {made} in a file, got others; missing: "
            f"{shown(missing)}, unknown: {shown(unknown)}: the file was altered."
        )
    for name, leaf in wanted.items():
        _check_tensor(f"{name} of {made}", tensors[name], leaf)
    leaves = [jax.device_put(tensors[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check_tensor(name: str, array: np.ndarray, like: Any) -> None:
    real = jnp.issubdtype(array.dtype, jnp.floating)
    if array.shape != like.shape or real != jnp.issubdtype(like.dtype, jnp.floating):
        kind = "floats" if jnp.issubdtype(like.dtype, jnp.floating) else "integers"
        raise FileError(
            f"Expected {kind} of shape {like.shape} for {name}, got {array.dtype} of "
            f"shape {array.shape}: the file was altered."
        )
    check_kept(name, array)


def check_kept(name: str, array: np.ndarray) -> None:
    """Raises FileError for an array that JAX would narrow."""
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise FileError(
            f"Expected 64-bit types to be on for {name}, which is {array.dtype} and "
            'which JAX would narrow, got them off; call jax.config.update("'
            'jax_enable_x64", True) first.'
        )
