"""Programs made from functions, cached only as long as these functions are alive.

A program closes over the functions that it was made from (a loss, an optimiser). In a
table keyed by those, each value would keep its own key alive, and all that a loss
closes over. So the table holds only weak references to the functions; the compiled code
reads the functions from the `Program` that the caller holds.
"""

import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from jrnn.core.caches import LOCK, register

P = ParamSpec("P")
R = TypeVar("R")

Arguments = Callable[[], tuple[Any, ...]]

# Values of these types close over nothing, so they may be kept for any time.
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.dtype)


class Program(Generic[P, R]):
    """A function made from `arguments`, which it keeps alive.

    `lower`, `trace` and `eval_shape` are the methods of the jitted function.
    """

    __slots__ = ("__weakref__", "_run", "arguments", "family")

    def __init__(
        self,
        family: "Family[P, R]",
        arguments: tuple[Any, ...],
        run: Callable[P, R],
    ) -> None:
        self.family, self.arguments, self._run = family, arguments, run

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs it."""
        return self._run(*args, **kwargs)

    def __repr__(self) -> str:
        """Shows the call that made it."""
        return f"{self.family.name}({', '.join(map(repr, self.arguments))})"

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> jax.stages.Lowered:
        """Lowers it for these arguments, as a jitted function does."""
        return self._jitted.lower(*args, **kwargs)

    def trace(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Traces it for these arguments, as a jitted function does."""
        return self._jitted.trace(*args, **kwargs)

    def eval_shape(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Returns the shapes of its results, as a jitted function does."""
        return self._jitted.eval_shape(*args, **kwargs)

    @property
    def _jitted(self) -> Any:
        return self._run


class _Kept(NamedTuple):
    """The cache entry for equal arguments.

    Attributes:
      run: The function.
      owner: A weak reference to the one program whose arguments `run` reads.
      watches: Weak references to the arguments' functions; the entry is removed when
        the first of them dies.
    """

    run: Callable[..., Any]
    owner: list["weakref.ref[Program[..., Any]]"]
    watches: list["weakref.ref[Any]"]


class Family(Generic[P, R]):
    """Programs of one kind: equal arguments give the identical one while it is alive.

    Once it is gone but its arguments are alive, equal arguments give a new program that
    reuses the compiled code. For an argument that supports no weak references (an
    instance with `__slots__`), the code is kept only as long as the program.
    """

    def __init__(self, name: str, make: Callable[[Arguments], Callable[P, R]]) -> None:
        """Makes an empty family.

        Args:
          name: The factory's name, for errors.
          make: (get_arguments) -> the function to run, which may call `get_arguments`
            when it runs, and must not keep the arguments.
        """
        self.name, self._make = name, make
        self._kept: dict[Hashable, _Kept] = {}
        register(self)

    def __call__(self, *arguments: Any) -> Program[P, R]:
        """Returns the program of these arguments.

        Raises:
          TypeError: An argument is not hashable.
        """
        parts = _Parts([], [])
        key = tuple(parts.stand_in(value, self.name) for value in arguments)
        with LOCK:
            kept = self._kept.get(key)
            found = None if kept is None else kept.owner[0]()
            return self._add(key, parts, kept, arguments) if found is None else found

    def __len__(self) -> int:
        """Returns the number of cached entries."""
        return len(self._kept)

    def cache_clear(self) -> None:
        """Forgets all programs; those that callers hold keep working."""
        self._kept.clear()

    def _add(
        self,
        key: Hashable,
        parts: "_Parts",
        kept: _Kept | None,
        arguments: tuple[Any, ...],
    ) -> Program[P, R]:
        table = self._kept
        forget = lambda _: table.pop(key, None)
        if kept is None:
            owner: list[weakref.ref[Program[..., Any]]] = []
            run = self._make(lambda: _arguments_of(owner[0]))
            watches = [weakref.ref(part, forget) for part in parts.weak]
            kept = table[key] = _Kept(run, owner, watches)
        program = Program(self, arguments, kept.run)
        kept.owner[:] = [weakref.ref(program, forget if parts.strong else None)]
        return program


class _Parts(NamedTuple):
    """Parts of the arguments: those that support weak references, and the others."""

    weak: list[Any]
    strong: list[Any]

    def stand_in(self, value: Any, name: str) -> Hashable:
        """Returns a key that equal values share, and that does not keep them alive."""
        inner = lambda part: self.stand_in(part, name)
        if isinstance(value, Program):
            return value.family, *map(inner, value.arguments)
        if isinstance(value, types.MethodType):  # each look-up makes a new one
            self._refer(value.__self__)
            return id(value.__self__), inner(value.__func__)
        if isinstance(value, tuple) and type(value).__eq__ is tuple.__eq__:
            return inner(type(value)), *map(inner, value)
        if isinstance(value, PLAIN):
            return type(value), value
        try:
            hash(value)
        except TypeError as error:
            raise TypeError(
                f"Expected hashable arguments for {name}, got {value!r}; pass "
                "functions, and put arrays into the parameters or the batch."
            ) from error
        return self._refer(value)

    def _refer(self, value: Any) -> Hashable:
        try:
            reference = weakref.ref(value)
        except TypeError:
            self.strong.append(value)
            return value
        self.weak.append(value)
        return reference


def _arguments_of(owner: "weakref.ref[Program[..., Any]]") -> tuple[Any, ...]:
    program = owner()
    assert program is not None, "a program is held while it runs"
    return program.arguments
