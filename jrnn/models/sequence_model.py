r"""Models of sequences: a cell and a head define P(x_1..x_T).

    P(x_1..x_T) = prod_t P(x_t | x_<t),   P(x_t | x_1..x_{t-1}) = P(x_t | h_t)

The state that predicts x_t has read x_1..x_{t-1} and not x_t: at step t the cell reads
x_{t-1}, or a learned start vector at t = 1. A model's state is (cell state, last
symbol), so that a sequence scored in chunks scores the same as in one piece.

The head defines the symbols: token ids (T, *batch), numbers (T, *batch), or numbers of
several components (T, *batch, size).

Inputs z_1..z_T that are known beforehand (covariates, elapsed times, labels) are read
one step ahead of the symbols: P(x_t | x_<t, z_1..z_t), see `jrnn.models.known_inputs`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Cell, Spec, call_of
from jrnn.core.check import check_cell
from jrnn.core.memoize import memoize
from jrnn.core.pickling import pickled_by_call
from jrnn.core.tree import reads_ahead
from jrnn.heads.distribution import Distribution
from jrnn.heads.head import Head, check_head
from jrnn.models import checked_reading, checked_sampling
from jrnn.models.generation import Sampled
from jrnn.models.known_inputs import check_declared
from jrnn.models.reading import SequenceParams, SequenceState, foresee, score


@pickled_by_call
class SequenceModel(NamedTuple):
    """P(x_1..x_T) by a recurrent network, as pure functions.

    Attributes:
      init: (key, dtype=None) -> params.
      init_state: (params, batch_shape=()) -> state, before the first symbol.
      step: (params, state, x, mask=None, inputs=None) -> (state, log P(x | the symbols
        before x)).
      log_prob: (params, xs, state=None, lengths=None, method=None, key=None, mask=None,
        inputs=None) -> (state, log_probs), with log P(x_t | x_<t) in nats, (T, *batch);
        0 past a length. A key draws the cell's noise, as in `jrnn.unroll`. Where the
        mask, of the shape of xs or (T, *batch), is False, a value or a component of it
        is missing: it adds exactly 0, whatever its value, and the cell still takes a
        step, reading a flag that says the value is missing. A mask requires a head made
        with `missing=True`. Inputs are (T, *batch, k): row t is known when x_t is
        predicted.
      predict: (params, state, inputs=None) -> the `Distribution` of the next symbol,
        whose inputs are (*batch, k).
      predictive: arguments as `log_prob` -> (state, distribution) of each x_t given
        x_<t, (T, *batch); meaningless past a length. `distribution.cdf(xs, mask)` is 0
        where the mask is False, and `jnp.arange(len(xs))[:, None] < lengths[None]` is
        the mask of the steps within lengths.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=(),
        state=None, prompt_mask=None, top_k=None, top_p=None, inputs=None,
        prompt_inputs=None) -> the `length` symbols that follow the state and then the
        prompt, (length, *batch). The temperature, and for token ids top_k and top_p
        (`jrnn.heads.sampling`), are one number each, or an array of the batch shape
        with one for each sequence. `inputs` are those of the drawn symbols, (length,
        *batch, k); `prompt_inputs`, (P, *batch, k), and `prompt_mask` those of the
        prompt. A state, a prompt or inputs without batch axes serve a whole batch.
      sample_until: (params, key, length, end, ...) -> `Sampled(tokens, lengths)`, the
        token ids that `sample` draws with the other arguments, up to the id `end`.
      cell: The cell.
      head: The head.
      spec: The factory call that made the model.
      inputs: k, the number of known inputs of each step.
    """

    init: Callable[..., SequenceParams]
    init_state: Callable[..., SequenceState]
    step: Callable[..., tuple[SequenceState, Array]]
    log_prob: Callable[..., tuple[SequenceState, Array]]
    predict: Callable[..., Distribution]
    predictive: Callable[..., tuple[SequenceState, Distribution]]
    sample: Callable[..., Array]
    sample_until: Callable[..., Sampled]
    cell: Cell
    head: Head
    spec: Spec
    inputs: int

    __repr__ = call_of


@memoize
def sequence_model(cell: Cell, head: Head, inputs: int = 0) -> SequenceModel:
    """Makes a sequence model: the cell reads past symbols, the head scores the next.

    Args:
      cell: Reads the encoded symbols, and the known inputs behind them; its input size
        is `head.spec.input_size + inputs`. For token ids alone, make it with
        `input_init=jrnn.initializers.embedding`; with inputs it reads one-hot vectors.
      head: Encodes symbols and scores them, such as `jrnn.categorical(vocab_size)`, or
        `jrnn.gaussian()` for numbers. For a head without a size, every axis after time
        is a batch axis: (T, B, 1) is a batch of shape (B, 1), scored as (T, B, 1), not
        B sequences of one component.
      inputs: k, the number of inputs of each step that are known beforehand. The times
        of a cell that reads elapsed time (`cell.elapsed`) must be among them:
        `jrnn.cells.s5(..., irregular=True)` reads the last one, the time from x_{t-1}
        to x_t, and at t = 1 the time for which the start vector is held, such as 0.

    Returns:
      A model; equal arguments return the same object.

    Raises:
      TypeError: `cell` is not a cell, or `head` is not a head.
      ValueError: The cell's input size differs from that of symbols and inputs, the
        cell reads ahead, or it reads elapsed time from the symbols.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> cell = jrnn.cells.s5(2, 8, irregular=True)  # reads (x_{t-1}, dt_t)
      >>> model = jrnn.sequence_model(cell, jrnn.gaussian(), inputs=1)
      >>> params, xs = model.init(jax.random.key(0)), jnp.ones(3)
      >>> times = jnp.array([0.0, 0.5, 2.0])[:, None]
      >>> model.log_prob(params, xs, inputs=times)[1].shape
      (3,)
    """
    check_cell(cell)
    check_head(head)
    check_size("inputs", inputs, least=0)
    if reads_ahead(cell):
        raise ValueError(
            f"Expected a cell that reads only forwards, got {cell}: its outputs have "
            "seen the symbols they would predict."
        )
    check_declared(cell, head, inputs)
    reading, sampling = checked_reading, checked_sampling
    arguments = (("cell", cell), ("head", head))
    if inputs:
        arguments = (*arguments, ("inputs", inputs))
    return SequenceModel(
        init=functools.partial(reading.init, cell, head),
        init_state=functools.partial(reading.init_state, cell, head),
        step=functools.partial(reading.step, cell, head),
        log_prob=functools.partial(reading.through, score, cell, head),
        predict=functools.partial(reading.predict, cell, head),
        predictive=functools.partial(reading.through, foresee, cell, head),
        sample=functools.partial(sampling.sample, cell, head),
        sample_until=functools.partial(sampling.sample_until, cell, head),
        cell=cell,
        head=head,
        spec=Spec(
            "sequence_model", arguments, cell.spec.input_size, head.spec.output_size
        ),
        inputs=inputs,
    )
