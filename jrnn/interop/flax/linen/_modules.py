"""A cell of jrnn along a sequence, as a module of Flax Linen."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jrnn.core.arguments import check_switch, tell
from jrnn.core.cell import Cell, Key, State
from jrnn.core.method import Method
from jrnn.interop.flax._running import Given, layout_of, one_of, run
from jrnn.interop.flax.linen._cells import RNNCell


class RNN(nn.Module):
    """Runs a cell of jrnn along a sequence; stands in for `nn.RNN`.

    Attributes:
      cell: A cell, such as `jrnn.lstm(3, 4)`, of which an `RNNCell` is made, or an
        `RNNCell`; two modules made of one share its parameters. They are in "cell".
      time_major: Whether time is axis 0, before the batch axes.
      return_carry: Whether to return (final carry, outputs).
      reverse: Whether each sequence is read from its own last step to its first.
      keep_order: Whether the outputs of a reversed run are in the order of the inputs;
        False: in the order of reading.
      method: How to run the cell; None takes `jrnn.bptt()`.
      param_dtype: The type to draw the parameters in; None: float32, or as the
        `RNNCell` says.
      deterministic: Whether the cell's noise is off; a cell with noise needs it here or
        in the call, as `nn.Dropout` does.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.interop.flax.linen import RNN
      >>> model, xs = RNN(jrnn.lstm(3, 4)), jnp.ones((2, 7, 3))
      >>> variables = model.init(jax.random.key(0), xs)
      >>> model.apply(variables, xs, seq_lengths=jnp.array([7, 5])).shape
      (2, 7, 4)
    """

    cell: Any
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False
    method: Method | None = None
    param_dtype: Any = None
    deterministic: bool | None = None

    def __post_init__(self) -> None:
        dtype = jnp.float32 if self.param_dtype is None else self.param_dtype
        if not isinstance(self.cell, RNNCell):
            # Without a parent, so that this module becomes it.
            own = RNNCell(self.cell, dtype, parent=None)  # pyright: ignore[reportCallIssue] a field of every module
            object.__setattr__(self, "cell", own)
        elif self.param_dtype is not None and self.cell.param_dtype != dtype:
            raise ValueError(
                "Expected param_dtype=None beside an RNNCell, which has one, got "
                f"{tell(self.param_dtype)}."
            )
        super().__post_init__()

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: State | None = None,
        init_key: Key | None = None,
        seq_lengths: Any = None,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        deterministic: bool | None = None,
    ) -> Any:
        """Runs the cell.

        Args:
          inputs: Floats (*batch, T, input_size), or token ids (*batch, T); with
            `time_major` (T, *batch, input_size) or (T, *batch).
          initial_carry: The state to start from, with leaves (*batch, ...); None: the
            cell's initial state.
          init_key: None; Flax's own modules pass it.
          seq_lengths: The length of each sequence, 0..T, of the batch shape. Outputs
            past a length are 0, and the final carry is that after the sequence's own
            last step.
          lengths: The same under jrnn's name.
          resets: True where a new segment begins, (*batch, T), as in `jrnn.unroll`.
          mask: Where False, a step leaves the state unchanged, (*batch, T).
          return_carry: Overrides the attribute, as do the next four.
          time_major: See the attribute.
          reverse: See the attribute.
          keep_order: See the attribute.
          deterministic: See the attribute; with noise, the key is that of "dropout".

        Returns:
          The outputs (*batch, T, output_size), or (T, *batch, output_size); with
          `return_carry` (final carry, outputs).

        Raises:
          TypeError: An argument has the wrong type.
          ValueError: An argument has the wrong shape or structure, there is an
            `init_key`, or `deterministic` or the key of the noise is missing.
        """
        layout = layout_of(
            self,
            time_major=time_major,
            return_carry=return_carry,
            reverse=reverse,
            keep_order=keep_order,
        )
        cell: Cell = self.cell.cell.cell
        if init_key is not None:
            raise ValueError(
                f"Expected init_key=None, as the initial state of {cell} takes no key, "
                f"got {tell(init_key)}."
            )
        given = Given(initial_carry, one_of(lengths, seq_lengths), resets, mask)
        key = self._noise_key(cell, deterministic)
        return run(cell, self.cell.read(), inputs, given, layout, key, self.method)

    def _noise_key(self, cell: Cell, deterministic: bool | None) -> Key | None:
        if cell.noise is None:
            return None
        quiet = self.deterministic if deterministic is None else deterministic
        if quiet is None:
            raise ValueError(
                f"Expected deterministic to be True or False for the noise of {cell}, "
                "got None; pass it to the module or to the call."
            )
        if check_switch("deterministic", quiet):
            return None
        if not self.has_rng("dropout"):
            raise ValueError(
                f"Expected a key for the noise of {cell}, got none; pass "
                'rngs={"dropout": key} to init or apply, or deterministic=True.'
            )
        return self.make_rng("dropout")
