"""Both directions, and layers on top of each other, as modules of Flax NNX."""

from collections.abc import Callable
from typing import Any

from flax import nnx
from jaxtyping import Array

from jrnn.core.arguments import check_function, check_switch
from jrnn.core.cell import Cell
from jrnn.interop.flax._combining import (
    both_ways,
    concatenate,
    layer_by_layer,
    switch,
)
from jrnn.interop.flax._running import one_of
from jrnn.interop.flax.nnx._cells import RNNCell, Streams
from jrnn.interop.flax.nnx._modules import RNN

Layer = Cell | RNNCell | nnx.Module


class Bidirectional(nnx.Module):
    """Reads sequences from both ends; stands in for `nnx.Bidirectional`.

    Attributes:
      forward_rnn: Reads from the first step.
      backward_rnn: Reads from the last.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from flax import nnx
      >>> from jrnn.interop.flax.nnx import Bidirectional
      >>> model = Bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4), rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 7, 3))).shape
      (2, 7, 8)
    """

    def __init__(
        self,
        forward_rnn: Layer,
        backward_rnn: Layer,
        *,
        merge_fn: Callable[[Array, Array], Array] = concatenate,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: Streams | None = None,
    ):
        """Combines two modules, or two cells, of which modules are made.

        Args:
          forward_rnn: An `RNN`, or a cell.
          backward_rnn: An `RNN`, or a cell.
          merge_fn: (outputs forward, outputs backward) -> outputs.
          time_major: Whether time is axis 0, before the batch axes.
          return_carry: Whether to return (final carries, outputs), the carries of both
            as a pair.
          rngs: Draws the parameters of cells, as in `RNN`.

        Raises:
          TypeError: There is a cell and there are no rngs.
        """
        check_function("merge_fn", merge_fn)
        self.forward_rnn = _module(forward_rnn, rngs)
        self.backward_rnn = _module(backward_rnn, rngs)
        self.merge_fn = merge_fn
        self.time_major = check_switch("time_major", time_major)
        self.return_carry = check_switch("return_carry", return_carry)

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: tuple[Any, Any] | None = None,
        seq_lengths: Any = None,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Any:
        """Runs both directions.

        Args:
          inputs: As in `RNN`.
          initial_carry: A pair, the carries of both directions.
          seq_lengths: As in `RNN`.
          lengths: As in `RNN`.
          resets: As in `RNN`.
          mask: As in `RNN`.
          return_carry: Overrides the attribute.
          time_major: Overrides the attribute.
          deterministic: As in `RNN`.
          rngs: As in `RNN`.

        Returns:
          The merged outputs; with `return_carry` (final carries, outputs).

        Raises:
          ValueError: `initial_carry` is not a pair; or as in `RNN`.
        """
        keywords = {
            "seq_lengths": one_of(lengths, seq_lengths),
            "resets": resets,
            "mask": mask,
            "time_major": switch("time_major", time_major, self.time_major),
            "deterministic": deterministic,
            "rngs": rngs,
        }
        ends = self.forward_rnn, self.backward_rnn
        carries, ys = both_ways(*ends, self.merge_fn, inputs, initial_carry, keywords)
        wanted = switch("return_carry", return_carry, self.return_carry)
        return (carries, ys) if wanted else ys


class Stack(nnx.Module):
    """Layers on top of each other: each reads the outputs of the one below.

    `RNN(jrnn.stack(...))` is one module with the same outputs; this one takes layers of
    both directions and Flax's own, and names them layer_0, layer_1, ...

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from flax import nnx
      >>> from jrnn.interop.flax.nnx import Stack
      >>> model = Stack(jrnn.lstm(3, 4), jrnn.gru(4, 5), rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 7, 3))).shape
      (2, 7, 5)
    """

    def __init__(
        self,
        *layers: Layer,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: Streams | None = None,
    ):
        """Puts modules, or cells, of which modules are made, on top of each other.

        Args:
          *layers: Each an `RNN`, a `Bidirectional` or a cell, from bottom to top.
          time_major: Whether time is axis 0, before the batch axes.
          return_carry: Whether to return (final carries, outputs), a tuple of one
            carry for each layer.
          rngs: Draws the parameters of cells, as in `RNN`.

        Raises:
          TypeError: There is a cell and there are no rngs.
          ValueError: There is no layer.
        """
        if not layers:
            raise ValueError("Expected at least one layer to stack, got none.")
        for i, layer in enumerate(layers):
            setattr(self, f"layer_{i}", _module(layer, rngs))
        self.depth = len(layers)
        self.time_major = check_switch("time_major", time_major)
        self.return_carry = check_switch("return_carry", return_carry)

    @property
    def layers(self) -> tuple[nnx.Module, ...]:
        """The layers from bottom to top."""
        return tuple(getattr(self, f"layer_{i}") for i in range(self.depth))

    def __call__(
        self,
        inputs: Any,
        *,
        initial_carry: tuple[Any, ...] | None = None,
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
        """Runs the layers, one after the other, each along the whole sequence.

        Args:
          inputs: As in `RNN`.
          initial_carry: A tuple of one carry for each layer.
          seq_lengths: As in `RNN`.
          lengths: As in `RNN`.
          resets: As in `RNN`.
          mask: As in `RNN`.
          return_carry: Overrides the attribute.
          time_major: Overrides the attribute.
          reverse: Whether every layer reads from the last step to the first.
          keep_order: As in `RNN`.
          deterministic: As in `RNN`.
          rngs: As in `RNN`.

        Returns:
          The outputs of the last layer; with `return_carry` (final carries, outputs).

        Raises:
          ValueError: `initial_carry` does not have one carry for each layer; or as in
            `RNN`.
        """
        keywords = {
            "seq_lengths": one_of(lengths, seq_lengths),
            "resets": resets,
            "mask": mask,
            "time_major": switch("time_major", time_major, self.time_major),
            "deterministic": deterministic,
            "rngs": rngs,
        }
        carries, ys = layer_by_layer(
            self.layers,
            inputs,
            initial_carry,
            keywords,
            reverse=switch("reverse", reverse, False),
            keep_order=switch("keep_order", keep_order, False),
        )
        wanted = switch("return_carry", return_carry, self.return_carry)
        return (carries, ys) if wanted else ys


def _module(layer: Any, rngs: Streams | None) -> Any:
    """Returns a module; one is made of a cell."""
    return RNN(layer, rngs=rngs) if isinstance(layer, Cell | RNNCell) else layer
