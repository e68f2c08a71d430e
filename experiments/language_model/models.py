"""The recurrent networks and their optimiser: built from names and sizes."""

import functools
from collections.abc import Callable

import jax
import optax

import jrnn
from experiments import lab
from experiments.language_model.settings import Settings, learning_rate

CELLS: dict[str, Callable[..., jrnn.Cell]] = {
    "elman": jrnn.elman,
    "gru": jrnn.gru,
    "lstm": jrnn.lstm,
}


def build(name: str, vocab_size: int, hidden_size: int) -> jrnn.models.SequenceModel:
    """Returns the sequence model of a cell's name and sizes."""
    cell = CELLS[name](vocab_size, hidden_size, input_init=jrnn.initializers.embedding)
    return jrnn.sequence_model(cell, jrnn.categorical(vocab_size))


def count_parameters(model: jrnn.models.SequenceModel) -> int:
    """Returns how many numbers the model learns."""
    return lab.parameter_count(jax.eval_shape(model.init, jax.random.key(0)))


@functools.cache
def match_hidden_size(name: str, vocab_size: int, parameters: int) -> int:
    """Returns the hidden size whose number of parameters comes nearest."""
    more = lambda h: count_parameters(build(name, vocab_size, h)) - parameters
    low, high = 1, 2
    while more(high) < 0:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if more(middle) >= 0 else (middle, high)
    return min((low, high), key=lambda h: abs(more(h)))


def make_optimizer(name: str, settings: Settings) -> optax.GradientTransformation:
    """Returns Adam under a warm-up and a cosine, behind a clipped gradient."""
    steps, peak = int(settings.steps or 1), learning_rate(name, settings)
    rise_and_fall = max(1, steps // 20), max(2, steps)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, peak, *rise_and_fall, end_value=peak / 100
    )
    return optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(schedule))
