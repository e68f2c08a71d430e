"""Pickling a cell, head or model as the factory call that made it.

It consists of functions that have no name in any module, so it is pickled as
`factory(*arguments)`, and loading repeats the call. In the same process that gives the
identical object (`jrnn.core.memoize`), in another process the one for equal arguments
there. Functions among the arguments are pickled by their public names, or as the calls
that made them.
"""

import collections
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from jrnn.core.arguments import tell
from jrnn.core.caches import bounded, register

T = TypeVar("T")

# Modules in which activations, initialisers and mixture kernels are found by identity.
PUBLIC = (
    *("jax.numpy", "jax.nn", "jax.lax"),
    *("jrnn.activations", "jrnn.initializers", "jrnn.initializers.defaults"),
    *("jrnn.heads", "jrnn.heads.categorical"),
)
SIZE = 4096  # how many calls are remembered: the latest


class Call(NamedTuple):
    """A call of a factory: its full name, as `module:name`, and its arguments."""

    factory: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]


class _Calls:
    """The latest calls and the objects that they made."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[int, tuple[Any, Call]] = (
            collections.OrderedDict()
        )

    def put(self, made: Any, call: Call) -> None:
        self._kept.setdefault(id(made), (made, call))
        self._kept.move_to_end(id(made))
        if len(self._kept) > SIZE:
            self._kept.popitem(last=False)

    def of(self, made: Any) -> Call | None:
        return self._kept.get(id(made), (made, None))[1]

    def cache_clear(self) -> None:
        self._kept.clear()


_calls = _Calls()
register(_calls)


def note(made: Any, factory: Callable[..., Any], bound: inspect.BoundArguments) -> None:
    """Records that this call returned `made`; the caller holds `LOCK`."""
    given = [*bound.args, *bound.kwargs.values()]
    if any(made is one for one in given):
        return  # such as `dropout(cell, 0)`: it made nothing
    name = f"{factory.__module__}:{factory.__qualname__}"
    _calls.put(made, Call(name, bound.args, tuple(bound.kwargs.items())))


def pickled_by_call(kind: type[T]) -> type[T]:
    """Makes instances of a type pickle as factory calls, and copy as themselves."""
    methods = {"__reduce__": _reduce, "__copy__": _itself, "__deepcopy__": _itself}
    for name, method in methods.items():
        setattr(kind, name, method)
    return kind


def _itself(made: T, *memo: Any) -> T:
    del memo
    return made


def find(name: str) -> Any:
    """Returns the object named `module:name`.

    Raises:
      AttributeError: The module has no such name.
    """
    module, _, path = name.partition(":")
    thing = importlib.import_module(module)
    for part in path.split("."):
        if not hasattr(thing, part):
            raise AttributeError(
                f"Expected {path} in the module {module}, got none of that name; where "
                "one process pickles and another loads, both import the module that "
                "defines it."
            )
        thing = getattr(thing, part)
    return thing


def remake(
    factory: str, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]
) -> Any:
    """Repeats a call."""
    return find(factory)(*args, **dict(kwargs))


def _reduce(made: Any) -> tuple[Any, ...]:
    """Returns the call that makes `made` again, for `pickle`.

    Raises:
      TypeError: As `call_of`; or an argument is a function that cannot be found by its
        name.
    """
    name = _public_names().get(id(made))
    if name is not None:
        return find, (name,)
    call = call_of(made, "pickle")
    bound = arguments_of(call)
    for name, value in list(bound.arguments.items()):
        if is_default(bound, name):  # it may have no name
            del bound.arguments[name]
        else:
            bound.arguments[name] = _stored(name, value)
    return remake, (call.factory, bound.args, tuple(bound.kwargs.items()))


def has_call(made: Any) -> bool:
    """Returns whether a factory made the object, whether or not it can be found."""
    return _calls.of(made) is not None


def call_of(made: Any, reader: str) -> Call:
    """Returns the call that returns the identical object.

    Args:
      made: A cell, head, model, kernel or initialiser.
      reader: What needs the call, for the error.

    Raises:
      TypeError: No call of an importable factory returns the identical object.
    """
    call = _calls.of(made)
    try:
        again = call is not None and remake(*call)
    except (AttributeError, ImportError):
        raise TypeError(
            f"Expected the factory of {_told(made)} to be importable, for {reader}, "
            f"got one inside a function: {tell(call and call.factory)}; define it at "
            "the top of a module."
        ) from None
    if call is None or again is not made:
        raise TypeError(
            f"Expected an object as its factory returns it, because {reader} stores "
            f"that call, got {_told(made)}: no factory made it, one of its fields was "
            "replaced, it was made before jrnn.clear_caches(), or hundreds of others "
            "were made since. Store the arguments, and call the factory again."
        )
    return call


def arguments_of(call: Call) -> inspect.BoundArguments:
    """Returns the arguments of a call by name, including defaults."""
    signature = inspect.signature(find(call.factory))
    return signature.bind(*call.args, **dict(call.kwargs))


def is_default(bound: inspect.BoundArguments, name: str) -> bool:
    """Returns whether an argument is the identical object that is its default."""
    return bound.arguments[name] is bound.signature.parameters[name].default


def _told(made: Any) -> str:
    return str(made) if hasattr(made, "spec") else f"a {type(made).__name__}"


class _Stored:
    """Replaces a function in a pickle; unpickling returns the function."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _stored(name: str, value: Any) -> Any:
    """Returns what to pickle for an argument."""
    if type(value) is tuple:
        return tuple(_stored(name, item) for item in value)
    if has_call(value) or id(value) in _public_names():
        return _Stored(*_reduce(value))
    if not callable(value) or isinstance(value, type):
        return value
    own = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
    try:
        found = find(own)
    except (AttributeError, ImportError, ValueError):
        found = None
    if found is not value:
        raise TypeError(
            f"Expected {name} to be a function that pickle can find by its name, got "
            f"{tell(value)}; define one with `def` at the top of a module."
        )
    return _Stored(find, (own,))


@bounded
def _public_names() -> dict[int, str]:
    names: dict[int, str] = {}
    for module in PUBLIC:
        for name, thing in vars(importlib.import_module(module)).items():
            named = callable(thing) or hasattr(thing, "_fields")
            if named and not name.startswith("_"):
                names.setdefault(id(thing), f"{module}:{name}")
    return names
