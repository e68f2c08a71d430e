"""General-purpose compressors as references, in bits per character of the test text.

A compressor is a language model too: n bytes for a text of T characters is 8 n / T bits
per character. Each is asked twice:

    alone     the test text by itself, from an empty memory
    primed    size(train + test) - size(train): what the test text adds once the
              training text has been read, the fair comparison with a trained model

How far priming reaches differs, and each row says so: bz2 sorts blocks of 900,000
bytes and remembers nothing across them; LZMA gets a dictionary larger than both texts;
PPMd (variant I, "PPMd8") gets memory enough never to restart its model.

PPMd's order, 16, is the best of 4, 5, 6, 8, 10, 12 and 16 on the *validation* part of
the default text, alone and primed; the test text chose nothing.
"""

import bz2
import lzma
from collections.abc import Callable
from dataclasses import dataclass

BZ2_LEVEL = 9  # blocks of 900,000 bytes, the largest it knows
LZMA_LEAST_DICTIONARY = 1 << 16
LZMA_LARGEST_DICTIONARY = 1536 << 20  # the limit in the format's description
PPMD_ORDER = 16
PPMD_MEMORY = 1 << 29  # bytes; 11 MB of source code fill half of it


@dataclass(frozen=True)
class Compressed:
    """One compressor's bits per character on the test text."""

    name: str
    alone: float
    primed: float
    note: str


def bz2_size(data: bytes) -> int:
    """Bytes that bz2 needs for `data`, header included."""
    return len(bz2.compress(data, BZ2_LEVEL))


def lzma_size(data: bytes) -> int:
    """Bytes that raw LZMA2 needs, its dictionary at least as large as `data`.

    The raw stream leaves out the container's header and checksum, as is fair.
    """
    wanted = max(LZMA_LEAST_DICTIONARY, len(data))
    dictionary = min(LZMA_LARGEST_DICTIONARY, 1 << (wanted - 1).bit_length())
    lzma2 = {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": dictionary,
    }
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=[lzma2]))


def ppmd_size(data: bytes) -> int:
    """Bytes that PPMd variant I needs for `data`.

    Raises:
      ModuleNotFoundError: pyppmd is not installed.
    """
    try:
        import pyppmd  # only here: the other two are in the standard library
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "PPMd is not installed. Run: pip install pyppmd"
        ) from error
    packed = pyppmd.compress(
        data, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY, variant="I"
    )
    return len(packed)


COMPRESSORS: dict[str, tuple[Callable[[bytes], int], str]] = {
    "bz2": (bz2_size, "level 9; primed by at most its last block of 900 kB"),
    "lzma": (lzma_size, "LZMA2, preset 9 extreme; dictionary holds both texts"),
    "ppmd": (ppmd_size, f"PPMd8, order {PPMD_ORDER}, {PPMD_MEMORY >> 20} MiB"),
}


def compress_all(train: str, test: str) -> list[Compressed]:
    """Bits per character of every compressor on `test`, alone and primed by `train`.

    Args:
      train: the text read beforehand when primed.
      test: the text whose size counts, at least one character.

    Returns:
      One row per compressor, in the order of `COMPRESSORS`.

    Raises:
      ValueError: `test` is empty.
      ModuleNotFoundError: pyppmd is not installed.
    """
    if not test:
        raise ValueError("Expected a test text of at least one character, got none.")
    return [_row(name, train, test) for name in COMPRESSORS]


def added(size: Callable[[bytes], int], seen: bytes, new: bytes) -> int:
    """Returns the bytes that `new` adds once a compressor has read `seen`."""
    return size(seen + new) - size(seen)


def _row(name: str, train: str, test: str) -> Compressed:
    size, note = COMPRESSORS[name]
    seen, new = train.encode("utf-8"), test.encode("utf-8")
    alone = size(new)
    primed = added(size, seen, new)
    return Compressed(name, 8 * alone / len(test), 8 * primed / len(test), note)
