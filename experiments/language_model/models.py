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
    low, high = 1, 2
    while count_parameters(build(name, vocab_size, high)) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        above = count_parameters(build(name, vocab_size, middle)) >= parameters
        low, high = (low, middle) if above else (middle, high)
    return min(
        (low, high),
        key=lambda h: abs(count_parameters(build(name, vocab_size, h)) - parameters),
    )


def make_optimizer(name: str, settings: Settings) -> optax.GradientTransformation:
    """Returns Adam under a warm-up and a cosine, behind a clipped gradient."""
    steps, peak = int(settings.steps or 1), learning_rate(name, settings)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        peak,
        warmup_steps=max(1, steps // 20),
        decay_steps=max(2, steps),
        end_value=peak / 100,
    )
    return optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(schedule))
