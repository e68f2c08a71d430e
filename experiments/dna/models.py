r"""Recurrent networks that read DNA base by base and say how likely the next one is.

At step t the cell reads the k bases before x_t as one of 4^k words, all of them past,
and its output gives P(x_t | x_1..x_{t-1}). Words, not bases, spare a small network the
work of remembering the last few exactly. Training reads both strands, each cut into
streams side by side, by truncated backpropagation; of the parameters seen on the way
those are kept that do best on validation.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import jrnn
from experiments import lab
from experiments.dna.strands import BASES
from experiments.lab import training
from jrnn.train import streams

# What minGRU's matrices started from when the committed results were made, its biases
# being 0; by now `jrnn.cells.min_gru` starts as its authors' code does.
UNIT = jax.nn.initializers.lecun_normal()

# A stretch is scored in pieces side by side, each after the bases before it: a state
# remembers little from further back than WARM_UP.
PIECE = 2_048
WARM_UP = 256
HEAD = jrnn.categorical(BASES)
WARM_STEPS = 50  # of the learning rate
# Adam's, by the validation part with one seed: of 3e-3, 5e-3, 6e-3 and 1.2e-2 for the
# GRU (the middle two are alike), of 5e-3 and 1e-2 for minGRU; the LSTM's is the GRU's.
RATES = {"gru": 5e-3, "lstm": 5e-3, "min_gru": 1e-2}


class Network(NamedTuple):
    """A cell that reads words of `word` bases, and Adam's learning rate for it."""

    cell: jrnn.Cell
    word: int
    rate: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How networks are trained."""

    streams: Annotated[int, lab.at_least(2)] = 64
    """Stretches read side by side."""
    window: lab.Count = 128
    """Bases of truncated backpropagation."""
    evaluations: lab.Count = 6
    """How often validation is looked at; the parameters that do best are kept."""
    clip: lab.Positive = 1.0
    """Largest norm of a gradient."""


def networks(hidden: int, word: int) -> dict[str, Network]:
    """Returns the networks that are compared, by name.

    A minGRU's gates do not see its state, so it takes two layers where the others take
    one.
    """
    words, drawn = BASES**word, jrnn.initializers.embedding
    start: dict[str, Any] = {"bias_init": jax.nn.initializers.zeros}
    deep = jrnn.stack(
        jrnn.cells.min_gru(words, hidden, input_init=drawn, **start),
        jrnn.cells.min_gru(hidden, hidden, input_init=UNIT, **start),
    )
    cells = {
        "gru": jrnn.gru(words, hidden, input_init=drawn),
        "lstm": jrnn.lstm(words, hidden, input_init=drawn),
        "min_gru": deep,
    }
    return {name: Network(cell, word, RATES[name]) for name, cell in cells.items()}


def words_before(bases: Int[np.ndarray, "N *S"], word: int) -> np.ndarray:
    """Returns what the cell reads at each step: the number of the `word` bases before.

    Before the first base stand A's, which are 0.

    >>> words_before(np.array([1, 2, 3]), 2).tolist()
    [0, 1, 6]
    """
    past = np.concatenate([np.zeros((word, *bases.shape[1:]), np.int32), bases])
    read = np.zeros(bases.shape, np.int32)
    for back in range(word):
        read = BASES * read + past[back : back + len(bases)]
    return read


def init(network: Network, key: Array) -> tuple[Any, Any]:
    """Returns the parameters of the cell and of the head."""
    key_cell, key_head = jax.random.split(key)
    size = network.cell.spec.output_size
    return network.cell.init(key_cell), HEAD.init(key_head, size)


@functools.cache
def _loss(cell: jrnn.Cell) -> Callable[..., Any]:
    def loss(params: Any, batch: Any, carry: Any, key: Array) -> Any:
        del key
        words, bases = batch
        carry, ys = jrnn.unroll(cell, params[0], words, carry)
        return -HEAD.log_prob(params[1], ys, bases).mean(), (carry, {})

    return loss


def train(
    network: Network,
    strands: Int[np.ndarray, "N S"],
    recipe: Recipe,
    epochs: float,
    valid_bits: Callable[[Any], float],
    seed: int,
    on_step: Callable[[], object],
) -> training.Trained:
    """Trains a network on strands that are read alike.

    Args:
      network: The network.
      strands: Sequences of bases, one a column, each cut into equally many streams.
      recipe: How it is trained.
      epochs: How often the strands are read.
      valid_bits: params -> bits per base of the validation part.
      seed: Of the initial parameters.
      on_step: Called after each step.

    Returns:
      What did best on validation.
    """
    data = [_streams(a, recipe) for a in (words_before(strands, network.word), strands)]
    per_epoch = len(data[0]) // recipe.window
    steps = step_count(strands, recipe, epochs)
    looks = set(np.linspace(0, steps, recipe.evaluations + 1).astype(int)[1:].tolist())
    key_init, key_run = jax.random.split(jax.random.key(seed))
    params, warm = init(network, key_init), min(WARM_STEPS, max(1, steps // 10))

    def batches() -> Iterator[Any]:
        for at in range(steps):
            place = at % per_epoch * recipe.window
            rows = slice(place, place + recipe.window)
            # Where an epoch begins, the streams do too.
            yield place == 0, tuple(array[rows] for array in data)

    best = training.train(
        _loss(network.cell),
        training.adam(network.rate, warm, max(steps, warm + 1), recipe.clip),
        params,
        key_run,
        batches(),
        valid_bits,
        looks,
        network.cell.init_state(params[0], (data[0].shape[1],)),
        lambda _: on_step(),
    )
    if best.params is None:
        raise ValueError(f"Expected finite bits on validation, got {best.looks}.")
    return best


def step_count(strands: np.ndarray, recipe: Recipe, epochs: float) -> int:
    """Returns how many steps training takes.

    Raises:
      ValueError: Strands too short for one window, or no step at all.
    """
    columns = recipe.streams // strands.shape[1]
    per_epoch = len(strands) // max(columns, 1) // recipe.window
    steps = int(per_epoch * epochs)
    if columns < 1 or steps < 1:
        raise ValueError(
            f"Expected {recipe.streams} streams of {recipe.window} bases or more out "
            f"of {strands.shape[1]} strands of {len(strands)} bases; choose fewer "
            "--streams, a shorter --window, or more --epochs."
        )
    return steps


def _streams(strands: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Lays each strand out as equally many streams, all side by side."""
    each = recipe.streams // strands.shape[1]
    return np.concatenate([streams(jnp.asarray(a), each) for a in strands.T], axis=1)


def log_probs(
    network: Network, params: Any, strands: Int[np.ndarray, "N S"]
) -> Float[np.ndarray, "N S"]:
    """Returns log P of every base, nats, each column a sequence of its own.

    The state that predicts a base has read what came before it in its own
    column, from 256 to 2,303 bases of it (fewer at the beginning, where A's stand
    in): P is conditional on the past alone, so the sum is a code length.
    """
    read = words_before(strands, network.word)
    missing = -len(strands) % PIECE
    edges = ((WARM_UP, missing), (0, 0))
    read, asked = np.pad(read, edges), np.pad(strands, edges)
    firsts = np.arange(0, len(strands), PIECE)
    at = firsts[None] + np.arange(WARM_UP + PIECE)[:, None]
    scored = _score(network.cell, params, read[at], asked[at])[WARM_UP:]
    pieces = np.asarray(scored).swapaxes(0, 1)  # (pieces, steps, S)
    return pieces.reshape(-1, strands.shape[1])[: len(strands)]


@functools.partial(jax.jit, static_argnames="cell")
def _score(cell: jrnn.Cell, params: Any, read: Array, asked: Array) -> Array:
    ys = jrnn.unroll(cell, params[0], read)[1]
    return HEAD.log_prob(params[1], ys, asked)


def size_of(network: Network) -> int:
    """Returns how many numbers a network learns."""
    init_it = functools.partial(init, network)
    return lab.parameter_count(jax.eval_shape(init_it, jax.random.key(0)))
