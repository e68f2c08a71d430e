r"""Telling genes from what lies between them, by how likely each makes the bases.

One model is trained on coding DNA, read in the direction of its gene, and one on what
lies between genes, both ways. A window of W bases around a position may be read on
either strand, and by a model of codons in any of three phases; with all of these
hypotheses s alike, the score of the position is the log-likelihood ratio

    log mean_s P(window | coding, s)  -  log mean_s P(window | not coding, s)

The window is chosen by the validation part. The labels are a gene finder's, trained on
the training part, and each part is labelled apart from the others: the area under the
curve measures agreement with it, and it, too, looks for codons.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import jrnn
from experiments.data.genome import Genes, reverse_complement
from experiments.dna.strands import BASES, Interval, both_strands, in_place, interval
from experiments.lab.intervals import Curve, Groups, area, both_kinds, curve

# Shorter stretches between genes are left out of training: mostly a few bases.
LEAST_SPACER = 12
# Genes are counted in pieces of so many bases, a multiple of a codon.
PIECE = 999
# Pieces of genes that a network reads in a row: so short that it must find the frame
# again and again, as it must where a gene begins.
SHORTEST, LONGEST = 100, 700
CODON = 3


class Hypotheses(NamedTuple):
    """log P of each base in place, nats, under every way to read: (N, ways)."""

    coding: Float[np.ndarray, "N S"]
    other: Float[np.ndarray, "N R"]


class Segments(NamedTuple):
    """Stretches of one part: genes 5' to 3', and both strands of what lies between."""

    coding: list[np.ndarray]
    other: list[np.ndarray]


def segments(bases: np.ndarray, genes: Genes) -> Segments:
    """Cuts a part into genes and what lies between them."""
    coding = []
    for first, end, strand in genes.spans:
        gene = bases[first:end]
        coding.append(gene if strand > 0 else reverse_complement(gene))
    edges = np.flatnonzero(np.diff(np.concatenate([[1], genes.coding, [1]])))
    between = [bases[a:b] for a, b in edges.reshape(-1, 2) if b - a >= LEAST_SPACER]
    other = [*between, *(reverse_complement(piece) for piece in between)]
    if not coding or not other:
        raise ValueError("Expected genes and stretches between them, got none of one.")
    return Segments(coding, other)


def _columns(stretches: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns pieces side by side, time first, and their lengths."""
    pieces = [a[i : i + PIECE] for a in stretches for i in range(0, len(a), PIECE)]
    xs = np.zeros((PIECE, len(pieces)), np.int32)
    for column, piece in enumerate(pieces):
        xs[: len(piece), column] = piece
    return xs, np.array([len(piece) for piece in pieces])


def fit_chain(stretches: Sequence[np.ndarray], order: int, period: int = 1) -> Any:
    """Counts the strings of stretches, apart for each place within a period."""
    xs, lengths = _columns(stretches)
    place = (np.arange(PIECE) % period)[:, None].astype(np.int32)
    return jrnn.markov_chain(BASES * period, order).fit(xs + BASES * place, lengths)


def _read(levels: Any, order: int, period: int, bases: np.ndarray) -> np.ndarray:
    """Returns log P in place for both strands in each phase, (N, 2 * period).

    A chain with a period reads base + 4 * place; where its first base stands, any
    place may be.
    """
    chain = jrnn.markov_chain(BASES * period, order)
    strands, ways = both_strands(bases), []
    for phase in range(period):
        place = ((np.arange(len(bases)) + phase) % period)[:, None].astype(np.int32)
        log_p = chain.log_prob(levels, jnp.asarray(strands + BASES * place))[1]
        ways.append(in_place(np.asarray(log_p)))
    return np.concatenate(ways, axis=1)


def read_chains(
    coding: Any, other: Any, order: int, period: int, bases: np.ndarray
) -> Hypotheses:
    """Returns what two chains say of a part; the coding one may have a period."""
    return Hypotheses(
        _read(coding, order, period, bases), _read(other, order, 1, bases)
    )


def shuffled(stretches: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Returns stretches cut into pieces of random length, in random order, in a row.

    Returns:
      (N, 1), int32: all bases that went in, none twice.
    """
    rng, pieces = np.random.default_rng(seed), []
    for stretch in stretches:
        at = 0
        while at < len(stretch):
            end = at + int(rng.integers(SHORTEST, LONGEST))
            pieces.append(stretch[at:end])
            at = end
    order = rng.permutation(len(pieces))
    return np.concatenate([pieces[i] for i in order]).astype(np.int32)[:, None]


def ratios(ways: Hypotheses, window: int) -> Float[np.ndarray, " N"]:
    """Returns the log-likelihood ratio of the window around each position, in nats."""
    coding, other = (_log_mean_exp(_windowed(a, window)) for a in ways)
    return coding - other


def _windowed(log_p: Float[np.ndarray, "N S"], window: int) -> np.ndarray:
    """Sums over the window around each position; it is cut off at the ends."""
    total = np.concatenate(
        [np.zeros((1, log_p.shape[1])), np.cumsum(log_p, axis=0, dtype=np.float64)]
    )
    at = np.arange(len(log_p))
    first = np.maximum(at - window // 2, 0)
    end = np.minimum(at - window // 2 + window, len(log_p))
    return total[end] - total[first]


def _log_mean_exp(log_p: Float[np.ndarray, "N S"]) -> Float[np.ndarray, " N"]:
    top = log_p.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(log_p - top).mean(axis=1))


def area_intervals(
    curves: dict[str, Curve], reference: str, drawn: Groups, repeats: int
) -> dict[str, tuple[Interval, Interval]]:
    """Returns each area and its difference to a reference's, by resampling blocks.

    All are resampled alike, so that what a block does to both cancels.
    """
    labels, at = curves[reference].labels, drawn.of
    both = [w for w in drawn.times[:repeats] if both_kinds(labels[w[at] > 0])]
    samples = {
        name: np.array([area(of, w[at]) for w in both]) for name, of in curves.items()
    }
    whole = {name: area(of) for name, of in curves.items()}
    less = lambda of, name: of[name] - of[reference]
    return {
        name: (
            interval(whole[name], samples[name]),
            interval(less(whole, name), less(samples, name)),
        )
        for name in curves
    }


def roc(of: Curve, points: int = 101) -> list[tuple[float, float]]:
    """Returns (false positive rate, true positive rate) at even steps of the first."""
    yes, no = (np.bincount(of.rank, kind)[::-1] for kind in (of.labels, ~of.labels))
    tpr, fpr = (np.concatenate([[0], a.cumsum() / a.sum()]) for a in (yes, no))
    grid = np.linspace(0, 1, points)
    shown = np.interp(grid, fpr, tpr)
    return list(zip(grid.tolist(), shown.tolist(), strict=True))


def choose_window(
    ways: Hypotheses,
    labels: np.ndarray,
    grid: Sequence[int],
    done: Callable[[], object],
) -> tuple[int, float]:
    """Returns the window with the largest area on validation, and that area."""
    areas = []
    for window in grid:
        areas.append(area(curve(ratios(ways, window), labels)))
        done()
    best = int(np.argmax(areas))
    return grid[best], areas[best]
