"""Settings with bounds: dataclasses whose fields say in their types what they may be.

    hidden: Count = 48
    rates: Annotated[tuple[float, ...], SOME, ABOVE_0] = (0.01, 0.03)

`check` holds a value against the bounds of its field, and then asks the dataclass's own
method `check`, where it has one, whether the values go together. None is never refused,
and of a tuple every number is held against the bound.
"""

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

S = TypeVar("S")


class Bound(NamedTuple):
    """What a number may be: at least `least`, at most `most`, in words `said`."""

    said: str
    least: float = -math.inf
    most: float = math.inf
    open: bool = False  # whether `least` itself is refused

    def fault(self, value: Any) -> str | None:
        """Returns what was expected; None where the value is good."""
        numbers = value if isinstance(value, tuple) else (value,)
        above = lambda x: x > self.least if self.open else x >= self.least
        return None if all(above(x) and x <= self.most for x in numbers) else self.said


class Among(NamedTuple):
    """Which names, or numbers, a setting may have, one at least."""

    names: tuple[Any, ...]

    def fault(self, value: Any) -> str | None:
        """Returns what was expected; None where the value is good."""
        if value != () and not self.wrong(value):
            return None
        quoted = any("," in str(name) for name in self.names)
        return "of " + ", ".join(map(repr if quoted else str, self.names))

    def wrong(self, value: Any) -> tuple[Any, ...]:
        """Returns what is none of the names."""
        chosen = value if isinstance(value, tuple) else (value,)
        return tuple(one for one in chosen if one not in self.names)


class Some(NamedTuple):
    """A tuple that must not be empty."""

    said: str = ""

    def fault(self, value: Any) -> str | None:
        """Returns what was expected; None where the value is good."""
        return None if value else self.said


def at_least(least: int) -> Bound:
    """Returns the bound of whole numbers from `least` on."""
    return Bound(f"of {least} or more", least)


def within(least: int, most: int) -> Bound:
    """Returns the bound of whole numbers from `least` to `most`."""
    return Bound(f"of {least} to {most}", least, most)


def among(names: Iterable[Any]) -> Among:
    """Returns the bound of names."""
    return Among(tuple(names))


SOME, ABOVE_0 = Some(), Bound("above 0", 0, open=True)
FINITE = Bound("above 0 and finite", 0, math.nextafter(math.inf, 0), open=True)
Count = Annotated[int, at_least(1)]
Counts = Annotated[tuple[int, ...], SOME, at_least(1)]
Positive = Annotated[float, ABOVE_0]
Positives = Annotated[tuple[float, ...], SOME, ABOVE_0]
Seeds = Annotated[tuple[int, ...], SOME]


def flag(name: str) -> str:
    """Returns what a setting is called on the command line.

    >>> flag("learning_rate")
    '--learning-rate'
    """
    return "--" + name.replace("_", "-")


def check(settings: Any) -> None:
    """Raises ValueError for settings that mean nothing.

    >>> @dataclasses.dataclass
    ... class Settings:
    ...     hidden: Count = 0
    >>> check(Settings())
    Traceback (most recent call last):
    ValueError: Expected --hidden of 1 or more, got 0.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), flag(field.name)
        for bound in _bounds(hints[field.name]):
            said = None if value is None else bound.fault(value)
            if said == "":
                raise ValueError(f"Expected at least one of {name}, got none.")
            if said is not None:
                raise ValueError(f"Expected {name} {said}, got {_words(bound, value)}.")
    getattr(settings, "check", lambda: None)()


def _bounds(hint: Any) -> list[Any]:
    """Returns the bounds in a field's type, those of `X | None` included."""
    inside = [b for one in typing.get_args(hint) for b in _bounds(one)]
    own = [b for b in getattr(hint, "__metadata__", ()) if hasattr(b, "fault")]
    return own or inside


def _words(bound: Any, value: Any) -> str:
    value = bound.wrong(value) if isinstance(bound, Among) else value
    several = isinstance(value, tuple)
    return ", ".join(map(str, value)) or "none" if several else str(value)


def resolve(settings: S, presets: Mapping[Any, Mapping[str, Any]]) -> S:
    """Returns checked settings, with what is None filled in from their preset.

    Raises:
      ValueError: A setting means nothing.
    """
    chosen = presets[typing.cast(Any, settings).preset]
    open_ = {k: v for k, v in chosen.items() if getattr(settings, k) is None}
    settings = dataclasses.replace(typing.cast(Any, settings), **open_)
    check(settings)
    return settings
