"""What a timing depends on beside this library: the processor, and other libraries."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from experiments import lab
from jrnn.kernels.cpu.machine import this_machine

# Those of a processor's instructions that the speed of products depends on.
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512vl", "asimd", "sve", "sve2")
PACKAGES = ("torch", "flax", "dm-haiku", "equinox", "keras")


def environment_of_peers() -> dict[str, Any]:
    """Returns the environment, instructions, other libraries, and PyTorch's threads.

    What is not installed is left out. XLA takes one thread for each core.
    """
    peers = {}
    for name in PACKAGES:
        try:
            peers[name] = version(name)
        except PackageNotFoundError:
            continue
    known = this_machine().instructions
    return {
        **lab.environment(),
        "instructions": [name for name in INSTRUCTIONS if name in known],
        "peers": peers,
        "threads": {"torch": _torch_threads()},
    }


def _torch_threads() -> int | None:
    try:
        import torch  # pyright: ignore[reportMissingImports] optional
    except ModuleNotFoundError:
        return None
    return torch.get_num_threads()
