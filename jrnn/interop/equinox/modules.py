"""A cell of jrnn along a sequence, as a module of Equinox."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_switch, tell
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check import check_params
from jrnn.core.check_draws import check_given_key
from jrnn.core.lazy import needed_by
from jrnn.core.method import Method
from jrnn.interop._static import Static, hold
from jrnn.run.unroll import chosen, unroll

with needed_by("jrnn.interop.equinox", "equinox"):
    import equinox as eqx  # pyright: ignore[reportMissingImports] optional


class RNN(eqx.Module):
    """Runs a cell of jrnn along a sequence.

    A pytree whose leaves are the parameters; the cell and the method are static. Time
    is axis 0, as in Equinox; further axes of the batch come next, or `jax.vmap`.

    Attributes:
      params: The parameters, as `cell.init` returns them.
      inference: Whether the cell's noise is off, as in `eqx.nn.Dropout`; set by
        `eqx.nn.inference_mode`.
      method: How to run the cell.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from jrnn.interop.equinox import RNN
      >>> model = RNN(jrnn.lstm(3, 4), key=jax.random.key(0))
      >>> state, ys = model(jnp.ones((7, 3)))
      >>> state.c.shape, ys.shape
      ((4,), (7, 4))
    """

    params: Params
    inference: bool
    static_cell: Static = eqx.field(static=True)
    method: Method = eqx.field(static=True)

    def __init__(
        self,
        cell: Cell,
        *,
        params: Params | None = None,
        dtype: DTypeLike | None = None,
        inference: bool = False,
        method: Method | None = None,
        key: Key | None = None,
    ):
        """Makes a module of a cell, and draws its parameters unless they are given.

        Args:
          cell: A cell, such as `jrnn.lstm(3, 4)`.
          params: Its parameters, as `cell.init` returns them, such as those of
            `jrnn.interop.torch.from_torch`; None: drawn.
          dtype: The type to draw them in; None: float32.
          inference: Whether the cell's noise is off.
          method: How to run the cell; None takes `jrnn.bptt()`.
          key: Draws the parameters.

        Raises:
          TypeError: `cell` is not a cell, or there are neither params nor a key.
          ValueError: The parameters do not fit the cell, or are given with a dtype.
        """
        self.static_cell = hold(cell)
        if params is None:
            params = cell.init(check_given_key(key), dtype)
        elif dtype is not None:
            raise ValueError(
                "Expected dtype=None beside params, which have a dtype, got "
                f"{tell(dtype)}."
            )
        check_params(cell, params)
        self.params = jax.tree.map(jnp.asarray, params)
        self.inference = check_switch("inference", inference)
        self.method = chosen(method)

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.static_cell.cell

    def __call__(
        self,
        xs: Any,
        state: State | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        reverse: bool = False,
        key: Key | None = None,
    ) -> tuple[State, Array]:
        """Runs the cell; the arguments are those of `jrnn.unroll`.

        Args:
          xs: Inputs, time first: floats (T, *batch, input_size), or token ids
            (T, *batch).
          state: The initial state; None: the cell's own.
          lengths: As in `jrnn.unroll`.
          resets: As in `jrnn.unroll`.
          mask: As in `jrnn.unroll`.
          reverse: As in `jrnn.unroll`.
          key: Draws the noise of a cell that has some, unless `inference` is set.

        Returns:
          The final state and the outputs (T, *batch, output_size).

        Raises:
          TypeError: As in `jrnn.unroll`.
          ValueError: There is noise to draw and no key; or as in `jrnn.unroll`.
        """
        noisy = self.cell.noise is not None and not self.inference
        if noisy and key is None:
            raise ValueError(
                f"Expected a key for the noise of {self.cell}, got None; pass one, or "
                "turn noise off with eqx.nn.inference_mode(model)."
            )
        return unroll(
            self.cell,
            self.params,
            xs,
            state,
            lengths=lengths,
            resets=resets,
            mask=mask,
            reverse=reverse,
            key=key if noisy else None,
            method=self.method,
        )
