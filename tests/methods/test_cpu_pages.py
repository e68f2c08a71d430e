"""Large pages: asked for inside of an array, and nowhere else."""

import ctypes
import mmap
import re
import sys
from pathlib import Path

import pytest

from tests.native import compile_c, needs_compiler

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux's advice"),
]
LARGE, SMALL = 1 << 21, 4096
CODE = """
#include "pages.h"
void prefer(void *from, long bytes) { prefer_large_pages(from, (size_t)bytes); }
"""


def advised(lo, hi):
    """Returns which ranges within lo..hi have the flag "hg", as smaps tells."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = re.findall(
        r"^([0-9a-f]+)-([0-9a-f]+) .*?^VmFlags:(.*?)$", text, re.MULTILINE | re.DOTALL
    )
    ranges = [(int(a, 16), int(b, 16)) for a, b, flags in found if " hg" in flags]
    return [(a, b) for a, b in ranges if a < hi and b > lo]


@pytest.mark.parametrize(
    ("skip", "size", "pages"),
    [
        (0, 4 * LARGE, 4),
        (SMALL + 64, 4 * LARGE - SMALL - 64, 3),
        (64, 3 * LARGE, 2),
        (64, LARGE, 0),
        (LARGE - 64, 128, 0),
        (0, 0, 0),
    ],
)
def test_advice_stays_within_an_array(skip, size, pages, tmp_path):
    prefer = compile_c(CODE, tmp_path).prefer
    prefer.argtypes = [ctypes.c_void_p, ctypes.c_long]
    with mmap.mmap(-1, 8 * LARGE) as memory:
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        base = -(-at // LARGE) * LARGE
        end = at + len(memory)
        if advised(at, end):
            pytest.skip("the system's own choice is large pages")
        prefer(base + skip, size)
        found = advised(at, end)
        if pages and not found:
            pytest.skip("this kernel has no large pages")
        first = -(-skip // LARGE) * LARGE + base
        assert found == ([(first, first + pages * LARGE)] if pages else [])
    prefer(None, 4 * LARGE)  # no memory
