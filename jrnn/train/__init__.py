r"""Training: one jitted step, truncated backpropagation through time, checkpoints.

A loss is a pure function of the parameters, a batch, the state carried over from the
previous window, and a key:

    loss(params, batch, carry, key) -> (scalar, (carry, metrics))

Truncated backpropagation through time cuts a long sequence into windows: the state is
passed from one to the next, the gradient is not. Use optax for clipping and schedules:

    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, 2000)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
"""

from jrnn.train import batching as batching
from jrnn.train import regularisers as regularisers
from jrnn.train.checkpoint import CheckpointError as CheckpointError
from jrnn.train.checkpoint import has_checkpoint as has_checkpoint
from jrnn.train.checkpoint import load_checkpoint as load_checkpoint
from jrnn.train.checkpoint import read_metadata as read_metadata
from jrnn.train.checkpoint import save_checkpoint as save_checkpoint
from jrnn.train.long_sequence import streams as streams
from jrnn.train.long_sequence import windows as windows
from jrnn.train.loop import evaluate as evaluate
from jrnn.train.loop import fit as fit
from jrnn.train.losses import sequence_loss as sequence_loss
from jrnn.train.step import Carry as Carry
from jrnn.train.step import Loss as Loss
from jrnn.train.step import Metrics as Metrics
from jrnn.train.step import Optimizer as Optimizer
from jrnn.train.step import Step as Step
from jrnn.train.step import TrainState as TrainState
from jrnn.train.step import init_train_state as init_train_state
from jrnn.train.step import make_train_step as make_train_step
