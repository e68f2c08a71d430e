"""Submodules that are imported on first use, and libraries that may be missing."""

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


def submodules(
    package: Mapping[str, Any], *names: str, **members: str
) -> tuple[Callable[[str], Any], Callable[[], Iterable[str]]]:
    """Returns a package's `__getattr__` and `__dir__`, for lazy submodules (PEP 562).

    Args:
      package: Its `globals()`.
      *names: Submodules, each imported when it is first accessed.
      **members: The submodule of each further name, imported likewise.
    """
    path = package["__name__"]

    def load(name: str) -> Any:
        if name in names:
            return importlib.import_module(f"{path}.{name}")
        if name in members:
            return getattr(importlib.import_module(f"{path}.{members[name]}"), name)
        raise AttributeError(f"module {path!r} has no attribute {name!r}")

    return load, lambda: sorted({*package, *names, *members})


@contextlib.contextmanager
def needed_by(user: str, package: str) -> Iterator[None]:
    """Says how to install a library if the import inside this context fails.

    Args:
      user: What needs the library, as users write it.
      package: Its name for pip.

    Raises:
      ModuleNotFoundError: The library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{user} needs {package}, and {error.name} is not installed. Run: "
            f"pip install {package}",
            name=error.name,
        ) from error
