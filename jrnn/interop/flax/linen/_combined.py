"""Both directions, and layers on top of each other, as modules of Flax Linen."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Array

from jrnn.core.cell import Cell
from jrnn.interop.flax._combining import (
    both_ways,
    concatenate,
    layer_by_layer,
    switch,
)
from jrnn.interop.flax._running import one_of
from jrnn.interop.flax.linen._cells import RNNCell
from jrnn.interop.flax.linen._modules import RNN


class Bidirectional(nn.Module):
    """Reads sequences from both ends; stands in for `nn.Bidirectional`.

    Attributes:
      forward_rnn: Reads from the first step: an `RNN`, or a cell, of which one is made.
      backward_rnn: Reads from the last, likewise.
      merge_fn: (outputs forward, outputs backward) -> outputs.
      time_major: Whether time is axis 0, before the batch axes.
      return_carry: Whether to return (final carries, outputs), the carries of both as a
        pair.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.interop.flax.linen import Bidirectional
      >>> model = Bidirectional(jrnn.gru(3, 4), jrnn.gru(3, 4))
      >>> model.init_with_output(jax.random.key(0), jnp.ones((2, 7, 3)))[0].shape
      (2, 7, 8)
    """

    forward_rnn: Any
    backward_rnn: Any
    merge_fn: Callable[[Array, Array], Array] = concatenate
    time_major: bool = False
    return_carry: bool = False

    def __post_init__(self) -> None:
        for name in ("forward_rnn", "backward_rnn"):
            object.__setattr__(self, name, _module(getattr(self, name)))
        super().__post_init__()

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
        }
        ends = self.forward_rnn, self.backward_rnn
        carries, ys = both_ways(*ends, self.merge_fn, inputs, initial_carry, keywords)
        wanted = switch("return_carry", return_carry, self.return_carry)
        return (carries, ys) if wanted else ys


class Stack(nn.Module):
    """Layers on top of each other: each reads the outputs of the one below.

    `RNN(jrnn.stack(...))` is one module with the same outputs; this one takes layers of
    both directions and Flax's own. Their parameters are in layers_0, layers_1, ...

    Attributes:
      layers: From bottom to top, each an `RNN`, a `Bidirectional`, or a cell, of which
        an `RNN` is made.
      time_major: Whether time is axis 0, before the batch axes.
      return_carry: Whether to return (final carries, outputs), a tuple of one carry for
        each layer.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.interop.flax.linen import Stack
      >>> model = Stack((jrnn.lstm(3, 4), jrnn.gru(4, 5)))
      >>> model.init_with_output(jax.random.key(0), jnp.ones((2, 7, 3)))[0].shape
      (2, 7, 5)
    """

    layers: Any
    time_major: bool = False
    return_carry: bool = False

    def __post_init__(self) -> None:
        several = isinstance(self.layers, tuple | list)
        if not several or isinstance(self.layers, Cell) or not self.layers:
            raise ValueError(
                "Expected layers to be a tuple of at least one module or cell, got "
                f"{self.layers!r}."
            )
        object.__setattr__(self, "layers", tuple(map(_module, self.layers)))
        super().__post_init__()

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


def _module(layer: Any) -> Any:
    """Returns a module; one is made of a cell."""
    # Without a parent, so that the module around it becomes it.
    return RNN(layer, parent=None) if isinstance(layer, Cell | RNNCell) else layer  # pyright: ignore[reportCallIssue] a field of every module
