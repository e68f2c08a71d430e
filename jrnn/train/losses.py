"""Makes losses for `make_train_step` from models."""

from typing import Any

from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.cell import Key, Params
from jrnn.core.programs import Arguments, Family
from jrnn.models.means import mean_over_steps
from jrnn.models.sequence_model import SequenceModel
from jrnn.train.step import Carry, Loss, Metrics


def sequence_loss(model: SequenceModel) -> Loss:
    """Makes the loss of a sequence model on windows of symbols.

    The loss is the mean of -log P(x_t | x_<t) over the window's symbols, in nats. The
    carry is the model's state, so that consecutive windows are read as one sequence.
    Equal models return the same loss object, which is freed with the model.

    Args:
      model: Made by `jrnn.sequence_model`.

    Returns:
      A loss for `make_train_step`; a batch is the `xs` of the model's `log_prob`: token
      ids or numbers, (T, *batch) or (T, *batch, size). Of a model with known inputs, it
      is the pair (xs, inputs).

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.train import sequence_loss
      >>> model = jrnn.sequence_model(jrnn.gru(2, 3), jrnn.categorical(2))
      >>> key = jax.random.key(0)
      >>> params, xs = model.init(key), jnp.array([[0], [1]])
      >>> carry = model.init_state(params, (1,))
      >>> sequence_loss(model)(params, xs, carry, key)[0].shape
      ()
    """
    if not isinstance(model, SequenceModel):
        raise TypeError(
            "Expected model to be one made by jrnn.sequence_model(cell, head), got "
            f"{tell(model)}."
        )
    return _sequence_losses(model)


def _make_sequence_loss(arguments: Arguments) -> Loss:
    def loss(
        params: Params, batch: Any, carry: Carry, key: Key
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        (model,) = arguments()
        noise = None if model.cell.noise is None else key
        xs, inputs = _parts(model, batch)
        carry, log_probs = model.log_prob(params, xs, carry, key=noise, inputs=inputs)
        return -mean_over_steps(log_probs), (carry, {})

    return loss


def _parts(model: SequenceModel, batch: Any) -> tuple[Any, Any]:
    """Returns the symbols and the known inputs of a batch."""
    if not model.inputs:
        return batch, None
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise TypeError(
            f"Expected batch to be the pair (xs, inputs), because {model} has known "
            f"inputs, got {tell(batch)}."
        )
    return batch


_sequence_losses = Family("sequence_loss", _make_sequence_loss)
