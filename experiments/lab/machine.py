"""What a number depends on beside its settings: versions, the machine, other work."""

import contextlib
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

PACKAGES = ("jax", "jaxlib", "numpy", "optax")


def environment() -> dict[str, object]:
    """What a number depends on beside its settings: versions, machine, commit."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _described("/proc/cpuinfo", "model name") or platform.processor(),
        "memory": _described("/proc/meminfo", "MemTotal"),
        "cores": _cores(),
        "device": jax.devices()[0].device_kind,
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _described(file: str, field: str) -> str:
    """The first value of a field in a list of the Linux kernel; elsewhere nothing."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # no git, or not a clone
    return done.stdout.strip()


def load_average() -> float | None:
    """Returns how many processes wanted a core in the last minute; None: not known.

    Above the number of cores, other work was running beside this.
    """
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def parameter_count(params: Any) -> int:
    """Returns how many numbers a pytree of arrays, or of their shapes, holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def x64() -> Iterator[None]:
    """Turns float64 on for as long as the block takes."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@contextlib.contextmanager
def compiled_anew() -> Iterator[None]:
    """Neither reads nor writes JAX's cache of programs on disk.

    Seconds of compiling would otherwise be those of reading a file for everyone who has
    set `JAX_COMPILATION_CACHE_DIR`.
    """
    # JAX defines its settings when it is imported.
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX remembers whether there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
