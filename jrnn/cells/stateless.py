r"""Layers without recurrence, for use among those of a stack.

    y_t = phi(x_t W_x + b)     feedforward: a dense layer
    y_t = f(x_t)               stateless: any function, without parameters

Row vectors: x_t is 1 x k, W_x is k x n, b is 1 x n. The state has no arrays, so that
every method computes all steps at once. For token ids the dense layer is an embedding,
x_t W_x the row of the id.

Compared with others: the layout of W_x is that of Keras' and Flax's `Dense` and Haiku's
`Linear`; PyTorch's `nn.Linear` and Equinox' keep the transpose. Initial distributions:
W_x is normal with variance 1 / k, truncated at two standard deviations, and b zero, as
in Flax and Haiku. Keras draws W_x uniform with variance 2 / (k + n); PyTorch draws both
uniform within +-1/sqrt(k), `jrnn.initializers.uniform(k**-0.5)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jrnn.activations import Activation, linear
from jrnn.core.build import build, dense, factory
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check_inputs import check_features
from jrnn.core.draw import Initializer, Weight, drawn, initial
from jrnn.core.dtypes import show
from jrnn.core.output_size import output_size
from jrnn.initializers.defaults import LECUN_NORMAL, ZEROS


class FeedforwardParams(NamedTuple):
    """Parameters: k inputs, n outputs."""

    W_x: Float[Array, "k n"]
    b: Float[Array, " n"] | None


class NoParams(NamedTuple):
    """The parameters of a function: none."""


class NoState(NamedTuple):
    """The state of a layer without recurrence: no arrays."""


@factory
def feedforward(
    input_size: int,
    output_size: int,
    *,
    activation: Activation = linear,
    bias: bool = True,
    input_init: Initializer = LECUN_NORMAL,
    bias_init: Initializer = ZEROS,
) -> Cell:
    """Makes a dense layer without recurrence, y_t = phi(x_t W_x + b).

    In a `jrnn.stack` it stands between, before or after recurrent layers. Its state has
    no arrays: each method computes all its steps at once, with JAX's own derivatives.

    Args:
      input_size: k, the number of features, or of token ids.
      output_size: n, the number of outputs.
      activation: phi, any differentiable function of the n outputs of each step.
      bias: Whether there is a b.
      input_init: Initialiser of W_x; for token ids take `jrnn.initializers.embedding`.
      bias_init: Initialiser of b.

    Returns:
      A cell with parameters `FeedforwardParams` and state `NoState`.

    Raises:
      TypeError: A size is not an integer, an argument is not hashable, or the
        activation is no function.
      ValueError: A size is below 1.

    Example:
      >>> import jax, jrnn
      >>> dense = jrnn.cells.feedforward(4, 5, activation=jax.nn.relu)
      >>> cell = jrnn.stack(jrnn.lstm(3, 4), dense, jrnn.gru(5, 4))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 4)
    """

    def output(params: FeedforwardParams, state: NoState, x: Array) -> Array:
        del state
        return show(activation(dense(params, x)), x, params.W_x)

    return build(
        drawn(
            FeedforwardParams,
            W_x=Weight(input_init, (input_size, output_size)),
            b=Weight(bias_init, (output_size,)) if bias else None,
        ),
        initial(NoState),
        output_size,
        project=_inputs,
        advance=_stay,
        output=output,
        gates={},
    )


@factory
def stateless(input_size: int, function: Callable[[Array], Array]) -> Cell:
    """Makes a layer of a function of each step, y_t = f(x_t).

    Such as an activation or a fixed change of the features between the layers of a
    `jrnn.stack`. Each method computes all steps at once, with JAX's own derivatives.

    Args:
      input_size: The number of features.
      function: f, of the last axis of arrays with any leading axes. The number of
        outputs is asked of it. To be pickled it needs a name in a module.

    Returns:
      A cell with parameters `NoParams` and state `NoState`, both empty.

    Raises:
      TypeError: `function` is not one, or `input_size` not an integer.
      ValueError: `input_size` is below 1, or `function` does not return one floating
        vector for each step.

    Example:
      >>> import jax, jrnn
      >>> relu = jrnn.cells.stateless(4, jax.nn.relu)
      >>> cell = jrnn.stack(jrnn.lstm(3, 4), relu, jrnn.gru(4, 5))
      >>> params = cell.init(jax.random.key(0))
      >>> jrnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))[1].shape
      (7, 2, 5)
    """

    def output(params: NoParams, state: NoState, x: Array) -> Array:
        del params, state
        check_features("stateless", x)
        return function(x)

    size = output_size("function", function, input_size)
    start = initial(NoState)
    return build(
        _init, start, size, project=_inputs, advance=_stay, output=output, gates={}
    )


def _init(key: Key, dtype: DTypeLike | None = None) -> NoParams:
    del key, dtype
    return NoParams()


def _inputs(params: Params, x: Array) -> Array:
    """Returns x, because nothing recurs that would need a share of it."""
    del params
    return x


def _stay(params: Params, state: State, u: Any) -> State:
    del params, u
    return state
