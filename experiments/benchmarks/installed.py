"""What a timing depends on beside this library: versions and threads of the others."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from experiments import lab

PACKAGES = ("torch", "flax", "dm-haiku", "equinox", "keras")


def environment_of_peers() -> dict[str, Any]:
    """Returns the environment, versions of other libraries, and threads of PyTorch.

    What is not installed is left out. XLA takes one thread for each core.
    """
    peers = {}
    for name in PACKAGES:
        try:
            peers[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**lab.environment(), "peers": peers, "threads": {"torch": _torch_threads()}}


def _torch_threads() -> int | None:
    try:
        import torch  # pyright: ignore[reportMissingImports] optional
    except ModuleNotFoundError:
        return None
    return torch.get_num_threads()
