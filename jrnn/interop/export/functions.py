"""What is exported of a cell or model: functions of dictionaries of arrays.

Parameters and states are dictionaries, with the names that files have
(`jrnn.interop.files`), because a process without jrnn has no types for them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export  # older jax does not import it
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Cell, Params, State
from jrnn.core.dtypes import cast_state, state_dtype
from jrnn.core.method import Method, Size
from jrnn.core.tree import reads_ahead
from jrnn.heads.distribution import Distribution
from jrnn.interop.files.tensors import named
from jrnn.models.sequence_model import SequenceModel
from jrnn.models.supervised_model import SupervisedModel
from jrnn.run.unroll import unroll

Dictionary = dict[str, Array]
Shape = jax.ShapeDtypeStruct
START = "initial_state"  # the result of `start`, of one sequence


class Settings(NamedTuple):
    """How to export.

    Attributes:
      method: The method that runs the cell; None takes `jrnn.bptt()`.
      tokens: Whether a cell reads token ids.
      batch: The number of sequences; None: any.
      steps: The number of steps; None: any.
    """

    method: Method | None
    tokens: bool
    batch: int | None
    steps: int | None


class Function(NamedTuple):
    """A function to export.

    Attributes:
      call: The function; its arguments and results are arrays or dictionaries of them.
      arguments: Placeholders of its arguments, by name, in order.
      results: The names of its results, in order.
    """

    call: Callable[..., Any]
    arguments: dict[str, Any]
    results: tuple[str, ...]


class Sizes(NamedTuple):
    """The sizes of one function: numbers, or symbols."""

    t: Size
    b: Size


class Flat:
    """A tree as a dictionary of its leaves, and back."""

    def __init__(self, tree: Any, alone: str = "value") -> None:
        """Remembers a tree's structure; `alone` names a leaf that is the whole."""
        self._structure = jax.tree.structure(tree)
        self._names = [name or alone for name in named(tree)]

    def flatten(self, tree: Any) -> Dictionary:
        """Returns the leaves by name."""
        return dict(zip(self._names, jax.tree.leaves(tree), strict=True))

    def restore(self, flat: Dictionary) -> Any:
        """Returns the tree."""
        leaves = [flat[name] for name in self._names]
        return jax.tree.unflatten(self._structure, leaves)


def shapes_of(tree: Any) -> Any:
    """Returns placeholders of arrays."""
    return jax.tree.map(lambda leaf: Shape(jnp.shape(leaf), leaf.dtype), tree)


def sizes(settings: Settings, least: int = 1) -> Sizes:
    """Returns the sizes of a function; symbols are in a scope of their own.

    Raises:
      ValueError: There are fewer steps than the function takes.
    """
    if settings.steps is not None and settings.steps < least:
        raise ValueError(
            f"Expected steps to be at least {least} for log_prob of a sequence model, "
            f"got {settings.steps}; export it without steps=, and call its step."
        )
    # JAX refuses a bound of a symbol that no shape has.
    limits = [f"t >= {least}"] if least > 1 and settings.steps is None else []
    t, b = jax.export.symbolic_shape("t, b", constraints=limits)
    return Sizes(settings.steps or t, settings.batch or b)


@functools.singledispatch
def functions(
    made: Any, params: Params, settings: Settings
) -> dict[str, Function] | None:
    """Returns the functions to export, by name; None: nothing can be exported."""
    del made, params, settings


@functools.singledispatch
def initial_state(made: Any, params: Params) -> State:
    """Returns the state of one sequence at its start; () if there is none."""
    del made, params
    return ()


@initial_state.register
def _(made: Cell, params: Params) -> State:
    return cast_state(made.init_state(params), state_dtype(params))


@initial_state.register
def _(made: SequenceModel, params: Params) -> State:
    start = made.init_state(params)
    return start._replace(cell=cast_state(start.cell, state_dtype(params)))


def _start(made: Any, params: Params) -> Function:
    """Returns params -> the state of one sequence, to train a learned one."""
    of_params, of_state = Flat(params), Flat(initial_state(made, params))

    def start(flat: Any) -> Dictionary:
        return of_state.flatten(initial_state(made, of_params.restore(flat)))

    arguments = {"params": of_params.flatten(shapes_of(params))}
    return Function(start, arguments, (START,))


def _spread(state: State, batch: Size) -> State:
    """Returns placeholders of a state of many sequences, given that of one."""
    one = lambda leaf: Shape((batch, *leaf.shape), leaf.dtype)
    return jax.tree.map(one, state)


@functions.register
def _(made: Cell, params: Params, settings: Settings) -> dict[str, Function]:
    of_params, start = Flat(params), initial_state(made, params)
    of_state = Flat(start)
    t, b = sizes(settings)
    row = () if settings.tokens else (made.spec.input_size,)
    dtype = jnp.int32 if settings.tokens else state_dtype(params)

    def run(flat: Any, state: Any, xs: Array, lengths: Array) -> Any:
        given = of_params.restore(flat), xs, of_state.restore(state)
        last, ys = unroll(made, *given, lengths=lengths, method=settings.method)
        return of_state.flatten(last), ys

    def step(flat: Any, state: Any, x: Array) -> Any:
        last, y = made.step(of_params.restore(flat), of_state.restore(state), x)
        return of_state.flatten(last), y

    before = {
        "params": of_params.flatten(shapes_of(params)),
        "state": of_state.flatten(_spread(start, b)),
    }
    xs = {"xs": Shape((t, b, *row), dtype), "lengths": Shape((b,), jnp.int32)}
    found = {"unroll": Function(run, before | xs, ("state", "ys"))}
    if not reads_ahead(made):
        x = {"x": Shape((b, *row), dtype)}
        found["step"] = Function(step, before | x, ("state", "y"))
    return found | {"start": _start(made, params)}


@functions.register
def _(made: SequenceModel, params: Params, settings: Settings) -> dict[str, Function]:
    of_params, start = Flat(params), initial_state(made, params)
    of_state, head = Flat(start), made.head
    dtype = jnp.int32 if head.family.values == "ids" else state_dtype(params)
    mask = lambda like: {"mask": Shape(like.shape, bool)} if head.missing else {}

    def known(*lead: Size) -> dict[str, Any]:
        k = made.inputs
        return {"inputs": Shape((*lead, k), state_dtype(params))} if k else {}

    def before(batch: Size) -> dict[str, Any]:
        return {
            "params": of_params.flatten(shapes_of(params)),
            "state": of_state.flatten(_spread(start, batch)),
        }

    t, b = sizes(settings, least=2)  # the first symbol is read apart from the others
    xs = Shape((t, b, *head.event_shape), dtype)
    whole = {"xs": xs, "lengths": Shape((b,), jnp.int32)}
    whole |= mask(xs) | known(t, b)
    b_ = sizes(settings).b  # of functions without t, in a scope without its bound
    x = Shape((b_, *head.event_shape), dtype)
    one = {"x": x} | mask(x) | known(b_)
    drawn = {"key": Shape((2,), jnp.uint32), "temperature": Shape((b_,), jnp.float32)}
    calls = _sequence_calls(made, of_params, of_state, settings.method)
    return {
        "log_prob": Function(calls[0], before(b) | whole, ("state", "log_probs")),
        "step": Function(calls[1], before(b_) | one, ("state", "log_p")),
        "predict": Function(calls[2], before(b_) | known(b_), ("distribution",)),
        "sample": Function(calls[3], before(b_) | drawn | known(b_), ("state", "x")),
        "start": _start(made, params),
    }


def _sequence_calls(
    made: SequenceModel, of_params: Flat, of_state: Flat, method: Method | None
) -> tuple[Callable[..., Any], ...]:
    """Returns log_prob, step, predict and sample of dictionaries."""
    known = ("inputs",) * bool(made.inputs)
    extras = ("mask",) * made.head.missing + known
    options = lambda names, given: dict(zip(names, given, strict=True))

    def restore(flat: Any, state: Any) -> tuple[Params, State]:
        return of_params.restore(flat), of_state.restore(state)

    def log_prob(flat: Any, state: Any, xs: Array, lengths: Array, *more: Array) -> Any:
        given, before = restore(flat, state)
        rest = {"method": method, **options(extras, more)}
        last, log_probs = made.log_prob(given, xs, before, lengths, **rest)
        return of_state.flatten(last), log_probs

    def step(flat: Any, state: Any, x: Array, *more: Array) -> Any:
        last, log_p = made.step(*restore(flat, state), x, **options(extras, more))
        return of_state.flatten(last), log_p

    def predict(flat: Any, state: Any, *more: Array) -> Dictionary:
        given = options(known, more)
        return _distribution(made.predict(*restore(flat, state), **given))

    def sample(
        flat: Any, state: Any, key: Array, temperature: Array, *more: Array
    ) -> Any:
        own, before = restore(flat, state)
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        given = options(known, more)
        x = made.predict(own, before, **given).sample(key, temperature)
        return of_state.flatten(made.step(own, before, x, **given)[0]), x

    return log_prob, step, predict, sample


def _distribution(predicted: Distribution) -> Dictionary:
    """Returns the parameters of distributions; those of a categorical: log_probs."""
    return Flat(predicted.parameters, "log_probs").flatten(predicted.parameters)


@functions.register
def _(made: SupervisedModel, params: Params, settings: Settings) -> dict[str, Function]:
    of_params = Flat(params)
    t, b = sizes(settings)
    row = () if settings.tokens else (made.cell.spec.input_size,)
    dtype = jnp.int32 if settings.tokens else state_dtype(params)

    def predict(flat: Any, xs: Array, lengths: Array) -> Dictionary:
        options = {"lengths": lengths, "method": settings.method}
        return _distribution(made.predict(of_params.restore(flat), xs, **options))

    arguments = {
        "params": of_params.flatten(shapes_of(params)),
        "xs": Shape((t, b, *row), dtype),
        "lengths": Shape((b,), jnp.int32),
    }
    return {"predict": Function(predict, arguments, ("distribution",))}
