"""Submodules that are loaded when they are first used, and libraries that may miss."""

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any


def submodules(
    package: Mapping[str, Any], *names: str
) -> tuple[Callable[[str], ModuleType], Callable[[], Iterable[str]]]:
    """Returns a package's `__getattr__` and `__dir__`, which show its submodules.

    Args:
      package: Its `globals()`.
      *names: Submodules, each imported when its name is first asked for (PEP 562).
    """
    path = package["__name__"]

    def load(name: str) -> ModuleType:
        if name in names:
            return importlib.import_module(f"{path}.{name}")
        raise AttributeError(f"module {path!r} has no attribute {name!r}")

    return load, lambda: sorted({*package, *names})


@contextlib.contextmanager
def needed_by(user: str, package: str) -> Iterator[None]:
    """Tells, where the import inside fails, how to install what is missing.

    Args:
      user: What needs it, as users write it.
      package: What pip calls it.

    Raises:
      ModuleNotFoundError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{user} needs {package}, and {error.name} is not installed. Run: "
            f"pip install {package}",
            name=error.name,
        ) from error
