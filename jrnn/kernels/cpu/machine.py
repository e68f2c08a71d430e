"""The processor and the system that a kernel is compiled for."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jrnn.core.caches import bounded

CPUINFO = Path("/proc/cpuinfo")

# Of /proc/cpuinfo: what names the processor, and what lists its instructions, on x86,
# ARM, RISC-V, POWER and s390. The other lines change (MHz), or say nothing of code.
MODEL = {
    *("vendor_id", "cpu family", "model", "model name", "stepping"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part"),
    *("cpu", "uarch"),
}
INSTRUCTIONS = {"flags", "Features", "isa", "features"}


class Machine(NamedTuple):
    """A machine, as far as compiled code depends on it.

    Attributes:
      architecture: In lower case, such as "x86_64" or "arm64".
      model: The lines that name the processor.
      instructions: Its extensions, such as "avx2", sorted; () if the system does not
        list them.
      system: The operating system, and the version of the C library if it is glibc.
    """

    architecture: str
    model: tuple[str, ...]
    instructions: tuple[str, ...]
    system: str


@bounded
def this_machine() -> Machine:
    """Returns the machine that this process runs on."""
    lines = set(_lines())
    model = sorted(f"{name}: {value}" for name, value in lines if name in MODEL)
    words = [value.lower().split() for name, value in lines if name in INSTRUCTIONS]
    return Machine(
        platform.machine().lower(),
        tuple(model) or (platform.processor(),),
        tuple(sorted(set().union(*words))),
        f"{sys.platform} {_glibc()}".strip(),
    )


def name_of(machine: Machine) -> str:
    """Returns the name that the maker of a processor gave it, if the system tells."""
    named = dict(line.split(": ", 1) for line in machine.model if ": " in line)
    return named.get("model name") or named.get("CPU part") or machine.model[0]


def _lines() -> Iterator[tuple[str, str]]:
    """Yields names and values of what the system says of all processors."""
    if sys.platform == "darwin":
        yield from _sysctl()
        return
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or /proc is not mounted
        return
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _sysctl() -> Iterator[tuple[str, str]]:
    """Yields macOS's lines under the names that Linux gives them.

    Intel's are lists, `machdep.cpu.features: FPU VME`; Apple's are switches,
    `hw.optional.arm.FEAT_DotProd: 1`.
    """
    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    try:
        told = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    for name, value in re.findall(r"^([\w.]+): (.*)$", told, flags=re.MULTILINE):
        if name == "machdep.cpu.brand_string":
            yield "model name", value
        elif re.fullmatch(r"machdep\.cpu\.\w*features", name):
            yield "flags", value
        elif name.startswith("hw.optional.") and value == "1":
            yield "flags", name.removeprefix("hw.optional.")


def _glibc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # Windows, macOS, musl
        return ""
