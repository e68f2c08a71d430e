"""What the networks are measured against: uniform, Markov chains, compressors."""

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np

from experiments.data.text import Alphabet, Corpus, count_unknown, encode
from experiments.lab import compressors, stopping
from experiments.language_model.settings import MARKOV_ORDERS
from jrnn import markov_chain
from jrnn.models import context_counts

# A chain's own training text is scored on this much of it, to see how far apart
# training and held-out text lie.
TRAINING_SCORED = 400_000


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      name: Of the model.
      valid: Bits per character of the validation text; None where it was not asked.
      test: Bits per character of the test text.
      parameters: How many numbers it learnt; for a chain, the counts it keeps.
      seconds: Time to learn.
      extra: What else is known of it, for the results file.
    """

    name: str
    valid: float | None
    test: float
    parameters: int | None
    seconds: float
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def with_unknown(bits: float, alphabet: Alphabet, text: str) -> float:
    """Adds what it costs to spell out the characters that training never showed."""
    return bits + count_unknown(alphabet, text) * alphabet.unknown_bits / len(text)


def uniform(corpus: Corpus) -> Row:
    """Every symbol of the alphabet alike."""
    bits = math.log2(corpus.alphabet.size)
    valid, test = (
        with_unknown(bits, corpus.alphabet, part)
        for part in (corpus.valid, corpus.test)
    )
    return Row("uniform", valid, test, 0, 0.0)


def markov_rows(
    corpus: Corpus, sample_length: int, key: Any, stop: stopping.StopRequest
) -> list[Row]:
    """Markov chains of every order, counted once for the highest.

    Args:
      corpus: The text.
      sample_length: Characters in each sample.
      key: For the samples.
      stop: Looked at between orders; once asked, those after are left out.

    Returns:
      One row for each order, with contexts seen, the median of their counts, and bits
      per character on (the beginning of) the training text.
    """
    started = time.perf_counter()
    chain = markov_chain(corpus.alphabet.size, max(MARKOV_ORDERS))
    levels = chain.fit(encode(corpus.alphabet, corpus.train))
    seconds = time.perf_counter() - started
    counts = context_counts(levels)
    rows = []
    for order in MARKOV_ORDERS:
        if stop.asked:
            break
        chain = markov_chain(corpus.alphabet.size, order)
        params = levels[: order + 1]
        train, valid, test = (
            _chain_bits(chain, params, corpus.alphabet, part)
            for part in (corpus.train[:TRAINING_SCORED], corpus.valid, corpus.test)
        )
        again = jax.random.clone(key)  # equal numbers for every order
        sample = np.asarray(chain.sample(params, again, sample_length))
        extra = {
            "order": order,
            "train": train,
            "contexts": int(counts[order][0]),
            "median_count": float(counts[order][1]),
            "sample": sample.tolist(),
        }
        kept = sum(int(level.counts.size) for level in params)
        rows.append(Row(f"markov {order}", valid, test, kept, seconds, extra))
    return rows


def _chain_bits(chain: Any, params: Any, alphabet: Alphabet, text: str) -> float:
    log_probs = np.asarray(chain.log_prob(params, encode(alphabet, text))[1])
    bits = -float(log_probs.astype(np.float64).mean()) / math.log(2)
    return with_unknown(bits, alphabet, text)


def compressor_rows(corpus: Corpus) -> list[Row]:
    """Compressors on the test text, alone and after the training text."""
    started = time.perf_counter()
    found = compressors.compress_all(corpus.train, corpus.test)
    seconds = time.perf_counter() - started
    rows = []
    for one in found:
        extra = {"note": one.note}
        rows.append(Row(f"{one.name} alone", None, one.alone, None, seconds, extra))
        rows.append(Row(f"{one.name} primed", None, one.primed, None, seconds, extra))
    return rows
