"""The chromosome of Corynebacterium diphtheriae NCTC 11397: 2.46 million bases.

A, C, G, T are 0, 1, 2, 3, so that the complement of b is 3 - b. Any other letter would
be 4, "unknown"; this chromosome holds none. It is a circle: where the file ends it
begins, so a gap stands there too. Parts are stretches of it, 10,000 bases apart.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8

from experiments.data._parts import Parts, cut, in_words, lengths
from experiments.data._wheel import WheelFile, unzipped

WHEEL = WheelFile(
    "The chromosome",
    "pyrodigal==3.7.1",
    "pyrodigal/tests/data/GCF_001457455.1_NCTC11397_genomic.fna.gz",
    "e9f88cc1a5c1f0e10f372df91852e44630cbeb1d424a34566ed159e5e94850b3",
    "package GPL-3.0-or-later; sequence from NCBI RefSeq, GCF_001457455.1",
    no_deps=False,  # its gene finder is imported for `find_genes`
)
LETTERS = b"ACGT"
UNKNOWN = 4
SPLIT_PERCENT = (80, 10, 10)
# Longer than the longest gene that `find_genes` finds, 8,934 bases, so that no gene
# lies in two parts.
GAP = 10_000
# Prodigal does not train on less.
LEAST_TO_TRAIN = 20_000


class Genome(NamedTuple):
    """One strand, from its 5' to its 3' end.

    Attributes:
      bases: A, C, G, T as 0, 1, 2, 3; anything else as 4; (L,).
      parts: Slices of the positions.
      card: What a reader must know of the data.
    """

    bases: Int8[np.ndarray, " L"]
    parts: Parts
    card: dict[str, object]


class Genes(NamedTuple):
    """What codes for proteins, as a gene finder says.

    Attributes:
      forward: Whether a position lies in a gene of the strand as read, (L,).
      reverse: Whether it lies in a gene of the other strand, (L,).
      spans: (G, 3): each gene's first position, the one after its last, counted on
        the strand as read, and 1 or -1 for its strand.
    """

    forward: Bool[np.ndarray, " L"]
    reverse: Bool[np.ndarray, " L"]
    spans: np.ndarray

    @property
    def coding(self) -> np.ndarray:
        """Whether a position lies in a gene of either strand, (L,)."""
        return self.forward | self.reverse


def load() -> Genome:
    """Returns the chromosome, the same on every run.

    Raises:
      ModuleNotFoundError: The package that holds it is not installed.
      ValueError: The file is missing, or is not the expected one.
    """
    return parse(unzipped(WHEEL))


def parse(fasta: bytes) -> Genome:
    """Reads one sequence in FASTA: a line that begins with ">", then lines of letters.

    Raises:
      ValueError: No sequence, or more than one.
    """
    title = fasta.split(b"\n", 1)[0]
    if not title.startswith(b">") or fasta.count(b">") != 1:
        raise ValueError(f"Expected one sequence in FASTA, got {fasta.count(b'>')}.")
    bases = encode(b"".join(fasta.split(b"\n")[1:]).replace(b"\r", b""))
    parts = cut(len(bases), GAP, SPLIT_PERCENT, circular=True)
    return Genome(bases, parts, _card(title[1:].decode("ascii"), bases, parts))


def encode(letters: bytes) -> np.ndarray:
    """Returns the code of each letter, of either case.

    >>> encode(b"ACgtN").tolist()
    [0, 1, 2, 3, 4]
    """
    table = np.full(256, UNKNOWN, np.int8)
    for text in (LETTERS, LETTERS.lower()):
        table[list(text)] = np.arange(len(text))
    return table[np.frombuffer(letters, np.uint8)]


def decode(bases: np.ndarray) -> bytes:
    """Returns the letters of codes, N for what is unknown.

    >>> decode(np.array([0, 1, 2, 3, 4]))
    b'ACGTN'
    """
    return np.frombuffer(LETTERS + b"N", np.uint8)[bases].tobytes()


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """Returns the other strand, from its own 5' to its 3' end, along the last axis.

    >>> decode(reverse_complement(encode(b"AACGN")))
    b'NCGTT'
    """
    complement = np.array([3, 2, 1, 0, UNKNOWN], bases.dtype)
    return complement[bases[..., ::-1]]


def find_genes(bases: np.ndarray, trained_on: np.ndarray | None = None) -> Genes:
    """Returns where genes lie, by pyrodigal, the gene finder Prodigal.

    Hyatt et al. 2010, https://doi.org/10.1186/1471-2105-11-119

    Args:
      bases: (L,), where genes are looked for.
      trained_on: (M,), at least 20,000 bases that the finder learns from how genes
        look; None: `bases`, as is meant for a finished genome. Whoever fits a model to
        what is found should look in one part at a time, and train on the training part,
        so that labels of training know nothing of the test part.

    Raises:
      ModuleNotFoundError: pyrodigal is not installed.
      ValueError: Too few bases to train on.
    """
    known = bases if trained_on is None else trained_on
    if len(known) < LEAST_TO_TRAIN:
        raise ValueError(
            f"Expected {LEAST_TO_TRAIN} bases or more to train on, got {len(known)}."
        )
    try:
        from pyrodigal import GeneFinder  # pyright: ignore[reportMissingImports] optional
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The gene finder, {WHEEL.package}, is not installed. Run: {WHEEL.pip()}"
        ) from error
    finder = GeneFinder()
    finder.train(decode(known))
    found = finder.find_genes(decode(bases))
    spans = np.array([(g.begin - 1, g.end, g.strand) for g in found]).reshape(-1, 3)
    forward, reverse = (_covered(spans, len(bases), strand) for strand in (1, -1))
    return Genes(forward, reverse, spans)


def _covered(spans: np.ndarray, length: int, strand: int) -> np.ndarray:
    covered = np.zeros(length, bool)
    for first, end, _ in spans[spans[:, 2] == strand]:
        covered[first:end] = True
    return covered


def _card(title: str, bases: np.ndarray, parts: Parts) -> dict[str, object]:
    counts = np.bincount(bases, minlength=UNKNOWN + 1).tolist()
    return {
        "name": "genome",
        **WHEEL.card(),
        "sequence": title,
        "units": "bases: A, C, G, T as 0, 1, 2, 3, anything else as 4",
        "length": len(bases),
        "bases": dict(zip(("A", "C", "G", "T", "unknown"), counts, strict=True)),
        "split": (
            f"by position on a circle, {in_words(SPLIT_PERCENT)}, gaps of {GAP} bases"
        ),
        **lengths(parts),
    }
