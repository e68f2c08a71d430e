"""A table of what a cell or a model consists of and costs, without running it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_size, tell
from jrnn.core.cell import Cell, Params, Spec
from jrnn.core.check_draws import check_dtype
from jrnn.core.method import Method
from jrnn.core.seams import prepared
from jrnn.core.tree import Leaf, walk
from jrnn.heads.head import Head
from jrnn.methods import associative, bptt, newton, scan
from jrnn.models.costs import kept_bytes, multiply_adds
from jrnn.models.reading import SequenceParams
from jrnn.models.sequence_model import SequenceModel
from jrnn.models.supervised_model import SupervisedModel, SupervisedParams
from jrnn.run.unroll import unroll

METHODS: dict[str, Method] = {
    "scan()": scan(),
    "bptt()": bptt(),
    "bptt(remat=1)": bptt(remat=1),
    "associative()": associative(),
    "newton()": newton(),
}


class Part(NamedTuple):
    """One row of a summary.

    Attributes:
      name: Where the part's parameters are, such as "[0]" in a stack.
      layer: What it is, and the numbers of its inputs and outputs.
      parameters: How many numbers its parameters are.
      state: How many real numbers its state is; a complex number counts twice.
      multiply_adds: Of real numbers, in the matrix products of one step forwards.
    """

    name: str
    layer: str
    parameters: int
    state: int
    multiply_adds: int


class Summary(NamedTuple):
    """What a cell or a model consists of and costs; prints as a table.

    Attributes:
      parts: The cells that are run, in their order, and a model's other parameters.
      parameters: How many numbers all parameters are.
      state: How many real numbers the state of one sequence is.
      multiply_adds: Of real numbers, in the matrix products of one step forwards.
      bytes_per_step: For each method that runs the cell, the bytes that one more step
        of one sequence adds to what the backward pass keeps.
    """

    parts: tuple[Part, ...]
    parameters: int
    state: int
    multiply_adds: int
    bytes_per_step: Mapping[str, int]

    def __repr__(self) -> str:
        """Returns the table."""
        totals = self.parameters, self.state, self.multiply_adds
        head = "part", "layer", "parameters", "state", "multiply-adds per step"
        rows = [head, *self.parts, ("total", "", *totals)]
        cells = [[f"{x:,}" if isinstance(x, int) else x for x in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for row in cells:
            pairs = zip(row, widths, strict=True)
            text = [
                x.ljust(n) if i < 2 else x.rjust(n) for i, (x, n) in enumerate(pairs)
            ]
            lines.append("  ".join(text).rstrip())
        width = max(map(len, self.bytes_per_step), default=0)
        costs = [f"{n.ljust(width)}  {x:,}" for n, x in self.bytes_per_step.items()]
        return "\n".join([*lines, "", "bytes kept per step for training", *costs])

    __str__ = __repr__


def summary(
    cell_or_model: Cell | SequenceModel | SupervisedModel,
    *,
    dtype: DTypeLike | None = None,
    steps: int = 1024,
) -> Summary:
    """Counts parameters, state, multiply-adds per step and bytes kept for training.

    Nothing is computed: shapes are traced, which takes a second or a few.

    - Multiply-adds are those of the matrix products of one step forwards, for one
      sequence. Elementwise operations and row look-ups of token ids are not counted,
      nor is `Cell.prepare`, which runs once per sequence.
    - Bytes are those of the arrays that JAX keeps between the forward and the backward
      pass of the gradient of the parameters: how many more for each step from `steps`
      to twice as many, for one sequence, the inputs included. Noise is not. The peak of
      memory is higher: it includes outputs, their gradients and temporaries.

    Args:
      cell_or_model: A cell, or a model made by `jrnn.sequence_model` or
        `jrnn.supervised_model`. For a cell the inputs are floats; a model reads what
        its head encodes.
      dtype: Of the parameters and float inputs; None: float32.
      steps: The length at which bytes are compared; those of `bptt(remat=1)` fall as
        it grows.

    Returns:
      The summary, which prints as a table. A method that refuses the cell is left out.

    Raises:
      TypeError: It is neither a cell nor such a model.

    Example:
      >>> import jrnn
      >>> found = jrnn.summary(jrnn.stack(jrnn.lstm(3, 4), jrnn.gru(4, 5)))
      >>> found.parameters, found.state, found.multiply_adds
      (283, 13, 247)
      >>> found.bytes_per_step["bptt()"]  # 3 + 6 x 4 and 5 x 5 floats
      208
    """
    steps = check_size("steps", steps, least=2)
    subject = _subject(cell_or_model, check_dtype(dtype))
    parts, params = subject.parts(), subject.params
    costs: dict[str, int] = {}
    for name, method in METHODS.items():
        run = functools.partial(subject.run, method)
        try:
            less, more = (
                kept_bytes(run, params, *subject.data(length))
                for length in (steps, 2 * steps)
            )
        except ValueError:  # the method refuses the cell
            continue
        costs[name] = round((more - less) / steps)
    states, products = (sum(column) for column in list(zip(*parts, strict=True))[3:])
    return Summary(parts, _numbers(params), states, products, costs)


class _Subject(NamedTuple):
    """What is summed up.

    Attributes:
      params: The shapes of its parameters.
      parts: () -> its rows.
      run: (method, params, *data) -> what is trained: outputs or log-probabilities.
      data: steps -> the shapes of the data of one sequence.
    """

    params: Params
    parts: Callable[[], tuple[Part, ...]]
    run: Callable[..., Array]
    data: Callable[[int], tuple[Any, ...]]


def _subject(made: Any, dtype: Any) -> _Subject:
    if not isinstance(made, Cell | SequenceModel | SupervisedModel):
        raise TypeError(
            "Expected cell_or_model to be a cell, or made by jrnn.sequence_model or "
            f"jrnn.supervised_model, got {tell(made)}."
        )
    params = jax.eval_shape(lambda: made.init(jax.random.key(0), dtype))
    if isinstance(made, Cell):
        return _cell_subject(made, params, dtype)
    if isinstance(made, SequenceModel):
        return _sequence_subject(made, params, dtype)
    return _supervised_subject(made, params, dtype)


def _cell_subject(cell: Cell, params: Params, dtype: Any) -> _Subject:
    x = _shape(1, cell.spec.input_size, dtype=dtype)
    return _Subject(
        params,
        lambda: _rows(cell, params, x),
        lambda method, params, xs: unroll(cell, params, xs, method=method)[1],
        lambda steps: (_shape(steps, *x.shape, dtype=dtype),),
    )


def _sequence_subject(
    model: SequenceModel, params: SequenceParams, dtype: Any
) -> _Subject:
    head = model.head
    x = jax.eval_shape(lambda: head.encode(head.blank((1,), dtype)))

    def parts() -> tuple[Part, ...]:
        start = Part("start", "vector", params.start.size, 0, 0)
        rows = _rows(model.cell, params.cell, x, "cell")
        return *rows, _head_row(model, params, dtype), start

    def run(method: Method, params: SequenceParams, xs: Array) -> Array:
        return model.log_prob(params, xs, method=method)[1]

    return _Subject(
        params, parts, run, lambda steps: (_symbols(head, dtype, steps, 1),)
    )


def _supervised_subject(
    model: SupervisedModel, params: SupervisedParams, dtype: Any
) -> _Subject:
    x = _shape(1, model.cell.spec.input_size, dtype=dtype)

    def parts() -> tuple[Part, ...]:
        rows = _rows(model.cell, params.cell, x, "cell")
        return *rows, _head_row(model, params, dtype)

    def run(
        method: Method, params: SupervisedParams, xs: Array, labels: Array
    ) -> Array:
        return model.log_prob(params, xs, labels, method=method)

    def data(steps: int) -> tuple[Any, ...]:
        xs = _shape(steps, *x.shape, dtype=dtype)
        found = jax.tree.leaves(jax.eval_shape(model.predict, params, xs))[0]
        lead = (steps, 1) if found.shape[0] == steps else (1,)
        return xs, _symbols(model.head, dtype, *lead)

    return _Subject(params, parts, run, data)


def _shape(*sizes: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def _symbols(head: Head, dtype: Any, *lead: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of symbols of a head: token ids or numbers."""
    symbol = jax.tree.leaves(jax.eval_shape(lambda: head.blank((), dtype)))[0]
    return _shape(*lead, *head.event_shape, dtype=symbol.dtype)


def _numbers(tree: Any, complex_counts: int = 1) -> int:
    """Returns how many numbers the arrays of a tree are."""
    return sum(
        leaf.size * (complex_counts if jnp.iscomplexobj(leaf) else 1)
        for leaf in jax.tree.leaves(tree)
    )


def _rows(cell: Cell, params: Params, x: Any, name: str = "") -> tuple[Part, ...]:
    """Returns a row for each cell that is run, for inputs of shape x."""
    rows: list[Part] = []

    def visit(leaf: Leaf, x: Any, noise: None) -> tuple[Any]:
        del noise
        one, own = leaf.cell, jax.tree.map(_like, leaf.share(params))
        read = jax.eval_shape(functools.partial(prepared, one), own)
        state = jax.eval_shape(lambda params: one.init_state(params, (1,)), own)
        given = read, state, _like(x)
        sizes = f"{one.spec.input_size} -> {one.spec.output_size}"
        counts = _numbers(own), _numbers(state, 2), multiply_adds(one.step, *given)
        place = name + leaf.name or "cell"
        rows.append(Part(place, f"{_named(one.spec)} {sizes}", *counts))
        y = jax.eval_shape(one.step, *given)[1]
        return (jnp.zeros(y.shape, y.dtype),)

    jax.eval_shape(lambda x: walk(cell, visit, x)[0], x)
    return tuple(rows)


def _head_row(model: Any, params: Any, dtype: Any) -> Part:
    head, size = model.head, model.cell.spec.output_size
    y = _shape(1, size, dtype=dtype)
    products = multiply_adds(head.predict, params.head, y)
    return Part("head", _named(head.spec), _numbers(params.head), 0, products)


def _like(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _named(spec: Spec) -> str:
    """Returns the name of a cell or head, with the cells inside: zoneout(lstm)."""
    inside = [_named(one.spec) for _, one in spec.arguments if isinstance(one, Cell)]
    return f"{spec.name}({', '.join(inside)})" if inside else spec.name
