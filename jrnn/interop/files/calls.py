"""A cell, head or model as the call that makes it, in JSON, and back.

    {"call": "jrnn.elman", "arguments": {"input_size": 3, ...}}     a factory's result
    {"function": "jax.numpy.tanh"}                                  a function
    [1, 2]                                                          a tuple
    3, 0.5, true, null, "highest"                                   as in Python

Loading calls the factories of `jrnn.interop.files.names`, and nothing else. Defaults
are stored too, so that a file keeps its meaning if a default changes.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from jrnn.core.arguments import annotated, tell
from jrnn.core.disk import shown
from jrnn.core.pickling import arguments_of, call_of, find, has_call, is_default
from jrnn.interop.files.errors import FileError
from jrnn.interop.files.names import current_name, factories, functions, name_of

PLAIN = (type(None), bool, int, float, str)
# Arguments of cells that are sizes, each at most the number of the cell's parameters.
SIZES = {"input_size", "hidden_size", "output_size", "projection_size"}
UNSIZED = {"jrnn.cells.stateless"}  # has no parameters, and takes no memory
# Functions for an argument of another kind than an activation.
EXAMPLES = {"merge": "jnp.maximum", "pool": "jrnn.models.mean_pool"}

# The most calls and tuples inside each other. Python's stack ends at about 150 cells.
LEVELS = 50

Json = Any  # what `json.loads` returns


def stored_call(made: Any, level: int = 0) -> Json:
    """Returns the call that makes a cell, head or model, as JSON.

    Args:
      made: The cell, head or model.
      level: How many calls it is inside of.

    Raises:
      TypeError: No call of a factory of jrnn makes the identical object, or an argument
        is a function that a file cannot name.
      ValueError: Calls are nested too deeply.
    """
    if level > LEVELS:
        raise ValueError(
            f"Expected cell_or_model of at most {LEVELS} calls inside each other, got "
            "more; use one jrnn.stack of all layers."
        )
    call = call_of(made, "a file")
    factory = name_of(find(call.factory))
    if factory is None and call.factory.startswith("jrnn.interop.flax."):
        raise TypeError(
            "Expected a cell of jrnn's own for a file, got one that as_cell made of a "
            "cell of Flax, whose code a file cannot hold; use jrnn.export, or "
            "save the parameters alone with jrnn.train.save_checkpoint."
        )
    if factory is None:
        raise TypeError(
            f"Expected a factory of jrnn's own for a file, got {tell(call.factory)}, "
            "which a file cannot name, because loading imports no code of yours; "
            "save the parameters alone with jrnn.train.save_checkpoint, and call the "
            "factory again."
        )
    bound = arguments_of(call)
    arguments = {
        name: _stored(name, value, level)
        for name, value in bound.arguments.items()
        if not (is_default(bound, name) and _is_nameless(value))
    }
    return {"call": factory, "arguments": arguments}


def _is_nameless(value: Any) -> bool:
    """Returns whether an argument is a function without a name, as some defaults."""
    return callable(value) and name_of(value) is None and not has_call(value)


def _stored(argument: str, value: Any, level: int) -> Json:
    if type(value) in PLAIN:
        return value
    if type(value) is tuple:
        return [_stored(argument, item, level) for item in value]
    name = name_of(value)
    if name is not None:
        return {"function": name}
    if has_call(value):
        return stored_call(value, level + 1)
    if argument.endswith("_init"):
        example = "jrnn.initializers.normal(0.1)"
        remedy = (
            "make the same cell without it, as it has no effect once there are "
            "parameters"
        )
    else:
        example = EXAMPLES.get(argument, "jnp.tanh")
        remedy = "save the parameters alone with jrnn.train.save_checkpoint"
    raise TypeError(
        f"Expected {argument} to be a number, a cell or a function that a file can "
        f"name, such as {example}, got {tell(value)}; take one of "
        f"jrnn.interop.files.names, or {remedy}."
    )


def made_by(described: Json, numbers: int) -> Any:
    """Repeats the calls that a file describes.

    Args:
      described: As `stored_call` returns it; anything may have altered it.
      numbers: How many numbers the file's arrays have, as a bound of sizes.

    Raises:
      FileError: The description is not valid.
    """
    try:
        return _made(described, numbers, 0)
    except FileError:
        raise
    except Exception as error:  # whatever a factory raises for altered arguments
        raise FileError(
            f"Expected calls that jrnn can repeat, got {shown(described)}, for which "
            f"it raises: {shown(str(error))}; load the file with the version of jrnn "
            "that wrote it, or use another copy."
        ) from error


def _made(described: Json, numbers: int, level: int) -> Any:
    if type(described) in PLAIN:
        return described
    if level > 2 * LEVELS + 2:  # a call and a tuple each, and an argument
        raise FileError(
            f"Expected at most {LEVELS} calls inside each other in a file, got more: "
            "the file was altered."
        )
    if isinstance(described, list):
        return tuple(_made(item, numbers, level + 1) for item in described)
    if set(described) == {"function"}:
        return _known(described["function"], functions())[1]
    if set(described) != {"call", "arguments"}:
        raise FileError(
            "Expected a call or a function in the description of a file, got "
            f"{shown(described)}: the file was altered, or is newer than this jrnn."
        )
    name, factory = _known(described["call"], factories())
    arguments = described["arguments"]
    if not isinstance(arguments, dict):
        raise FileError(
            f"Expected arguments by name for {name}, got {shown(arguments)}: the file "
            "was altered."
        )
    _check_sizes(name, arguments, numbers)
    given = {n: _made(value, numbers, level + 1) for n, value in arguments.items()}
    return _called(factory, given)


def _known(name: Json, table: Mapping[str, Any]) -> tuple[str, Any]:
    """Returns the present name of an entry of a table, and the entry."""
    present = current_name(name) if isinstance(name, str) else ""
    if present not in table:
        raise FileError(
            f"Expected one of the names that a file may contain, such as "
            f"{next(iter(table))}, got {shown(name)}: the file was altered, or needs a "
            "newer version of jrnn or JAX."
        )
    return present, table[present]


def _check_sizes(factory: str, arguments: Mapping[str, Json], numbers: int) -> None:
    """Raises for a size that would take memory which no such file needs."""
    for name in SIZES & arguments.keys():
        size = arguments[name]
        large = isinstance(size, int) and size > numbers
        sized = factory.startswith("jrnn.cells.") and factory not in UNSIZED
        if sized and large:
            raise FileError(
                f"Expected {name} of {factory} to be at most {numbers}, how many "
                f"numbers the arrays of the file have, got {shown(size)}: the file was "
                "altered."
            )


def _called(factory: Any, arguments: dict[str, Any]) -> Any:
    signature = annotated(factory)
    unknown = sorted(arguments.keys() - signature.parameters.keys())
    if unknown:
        raise FileError(
            f"Expected the arguments {', '.join(signature.parameters)} for "
            f"{factory.__name__}, got {shown(unknown)} too: the file was altered, or "
            "is newer than this jrnn."
        )
    bound = inspect.BoundArguments(
        signature,  # pyright: ignore[reportArgumentType] any ordered mapping
        {n: arguments[n] for n in signature.parameters if n in arguments},
    )
    return factory(*bound.args, **bound.kwargs)
