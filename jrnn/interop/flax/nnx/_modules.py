"""A cell of jrnn along a sequence, as a module of Flax NNX."""

from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from jrnn.core.arguments import check_switch, tell
from jrnn.core.cell import Cell, Params, State
from jrnn.core.method import Method
from jrnn.interop.flax._running import Given, layout_of, one_of, run
from jrnn.interop.flax.nnx._cells import RNNCell, Streams, noise_key
from jrnn.run.unroll import chosen


class RNN(nnx.Module):
    """Runs a cell of jrnn along a sequence; stands in for `nnx.RNN`.

    Attributes:
      cell: The cell and its parameters, an `RNNCell`.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from flax import nnx
      >>> from jrnn.interop.flax.nnx import RNN
      >>> model = RNN(jrnn.lstm(3, 4), rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 7, 3)), seq_lengths=jnp.array([7, 5])).shape
      (2, 7, 4)
    """

    def __init__(
        self,
        cell: Cell | RNNCell,
        *,
        params: Params | None = None,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        method: Method | None = None,
        param_dtype: DTypeLike | None = None,
        rngs: Streams | None = None,
    ):
        """Makes a module of a cell, and draws its parameters unless they are given.

        Args:
          cell: A cell, such as `jrnn.lstm(3, 4)`; an `RNNCell` brings its parameters,
            and two modules made of one share them.
          params: The cell's parameters, as `cell.init` returns them, such as those of
            `jrnn.interop.torch.from_torch`; None: drawn.
          time_major: Whether time is axis 0, before the batch axes.
          return_carry: Whether to return (final carry, outputs).
          reverse: Whether each sequence is read from its own last step to its first.
          keep_order: Whether the outputs of a reversed run are in the order of the
            inputs; False: in the order of reading.
          method: How to run the cell; None takes `jrnn.bptt()`.
          param_dtype: The type to draw the parameters in; None: float32.
          rngs: Draws the parameters and the noise, as in `RNNCell`.

        Raises:
          TypeError: `cell` is not a cell, or there are neither params nor rngs.
          ValueError: The parameters do not fit the cell.
        """
        if not isinstance(cell, RNNCell):
            cell = RNNCell(cell, params=params, param_dtype=param_dtype, rngs=rngs)
        elif params is not None or param_dtype is not None:
            raise ValueError(
                "Expected params and param_dtype to be None beside an RNNCell, which "
                f"has parameters, got {tell(params)} and {tell(param_dtype)}."
            )
        self.cell = cell
        self.time_major = check_switch("time_major", time_major)
        self.return_carry = check_switch("return_carry", return_carry)
        self.reverse = check_switch("reverse", reverse)
        self.keep_order = check_switch("keep_order", keep_order)
        self.method = chosen(method)

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: State | None = None,
        seq_lengths: Any = None,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Any:
        """Runs the cell.

        Args:
          inputs: Floats (*batch, T, input_size), or token ids (*batch, T); with
            `time_major` (T, *batch, input_size) or (T, *batch).
          initial_carry: The state to start from, with leaves (*batch, ...); None: the
            cell's initial state.
          seq_lengths: The length of each sequence, 0..T, of the batch shape. Outputs
            past a length are 0, and the final carry is that after the sequence's own
            last step.
          lengths: The same under jrnn's name.
          resets: True where a new segment begins, (*batch, T), as in `jrnn.unroll`.
          mask: Where False, a step leaves the state unchanged, (*batch, T).
          return_carry: Overrides the attribute, as do the next three.
          time_major: See the constructor.
          reverse: See the constructor.
          keep_order: See the constructor.
          deterministic: Whether the cell's noise is off; None: as `RNNCell` says.
          rngs: Draws the noise: streams, of which "dropout" is taken, or a key; None:
            the module's own stream. Unused by a cell without noise.

        Returns:
          The outputs (*batch, T, output_size), or (T, *batch, output_size); with
          `return_carry` (final carry, outputs).

        Raises:
          TypeError: An argument has the wrong type.
          ValueError: An argument has the wrong shape or structure, or there is noise to
            draw and no rngs.
        """
        layout = layout_of(
            self,
            time_major=time_major,
            return_carry=return_carry,
            reverse=reverse,
            keep_order=keep_order,
        )
        given = Given(initial_carry, one_of(lengths, seq_lengths), resets, mask)
        key = noise_key(self.cell, deterministic, rngs)
        cell, params = self.cell.cell, self.cell.params
        return run(cell, params, inputs, given, layout, key, self.method)
