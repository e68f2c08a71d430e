"""Makes losses for `make_train_step` from models."""

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
      ids or numbers, (T, *batch) or (T, *batch, size).

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
        params: Params, batch: Array, carry: Carry, key: Key
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        (model,) = arguments()
        noise = None if model.cell.noise is None else key
        carry, log_probs = model.log_prob(params, batch, carry, key=noise)
        return -mean_over_steps(log_probs), (carry, {})

    return loss


_sequence_losses = Family("sequence_loss", _make_sequence_loss)
