"""The hash of all that a compiled library depends on, which is its name."""

import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from jrnn.kernels.cpu.machine import this_machine
from jrnn.kernels.cpu.toolchain import Compiler, include_folders

DIGITS = 20  # hexadecimal: two kernels of 2**40 share a name by chance
INCLUDED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def fingerprint(source: str, compiler: Compiler, flags: Sequence[str]) -> str:
    """Returns `DIGITS` hexadecimal digits, which change with all that may change code.

    That is the source and the headers that it includes, jrnn's and XLA's; the compiler
    and the flags; the processor and its instructions; and jaxlib.
    """
    parts = [
        source,
        *(word for header in sorted(headers(source).items()) for word in header),
        *(str(compiler.path), *compiler.command[1:], compiler.version),
        *flags,
        repr(this_machine()),
        jaxlib_version(),
    ]
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()[:DIGITS]


def headers(source: str) -> dict[str, str]:
    """Returns the text of each header that C code includes, directly or through others.

    Those of the C library are not looked for: the compiler's version stands for them.
    """
    found: dict[str, str] = {}
    left = INCLUDED.findall(source)
    while left:
        name = left.pop()
        paths = [folder / name for folder in include_folders()]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None and name not in found:
            found[name] = path.read_text(encoding="utf-8")
            left += INCLUDED.findall(found[name])
    return found


def jaxlib_version() -> str:
    """Returns the version of jaxlib; "" if it was not installed as a package."""
    try:
        return version("jaxlib")
    except PackageNotFoundError:  # the headers still tell one from another
        return ""
