"""A cell of jrnn as a cell of Flax NNX."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array

from jrnn.core.arguments import check_switch, tell
from jrnn.core.cell import Cell, Key, Params, State
from jrnn.core.check_draws import check_given_key
from jrnn.interop.flax._names import Nested, hold_cell, names_of, nest
from jrnn.interop.flax._running import refuse_integers

Streams = nnx.Rngs | nnx.RngStream
CARRY = "carry"  # the tag of the streams that Flax passes for initial carries


class Parameters(nnx.Module):
    """Parameters by name: an `nnx.Param`, or further parameters, for each."""

    def __init__(self, nested: Nested):
        for name, value in nested.items():
            inner = isinstance(value, dict)
            setattr(self, name, Parameters(value) if inner else nnx.Param(value))


class RNNCell(nnx.RNNCellBase):
    """A cell of jrnn as a cell of Flax NNX, for one step or for `nnx.RNN`.

    The carry is the cell's own state. `jrnn.interop.flax.nnx.RNN` runs the cell along a
    sequence by any method, and is needed for noise and token ids.

    Attributes:
      weights: The parameters by name, an `nnx.Param` each; those of the cells inside a
        cell are under cell_0, cell_1, ...
      deterministic: Whether the cell's noise is off, as in `nnx.Dropout`; set by
        `model.train()` and `model.eval()`.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> from flax import nnx
      >>> from jrnn.interop.flax.nnx import RNNCell
      >>> model = nnx.RNN(RNNCell(jrnn.lstm(3, 4), rngs=nnx.Rngs(0)))
      >>> model(jnp.ones((2, 7, 3))).shape
      (2, 7, 4)
    """

    def __init__(
        self,
        cell: Cell,
        *,
        params: Params | None = None,
        param_dtype: DTypeLike | None = None,
        deterministic: bool = False,
        rngs: Streams | None = None,
    ):
        """Makes a module of a cell, and draws its parameters unless they are given.

        Args:
          cell: The cell.
          params: Its parameters, as `cell.init` returns them; None: drawn.
          param_dtype: The type to draw them in; None: float32.
          deterministic: Whether the cell's noise is off.
          rngs: Draws the parameters, from the stream "params", and, if the cell has
            noise, that noise, from a stream forked from "dropout".

        Raises:
          TypeError: `cell` is not a cell, or there are neither params nor rngs.
          ValueError: The parameters do not fit the cell, or are given with a dtype.
        """
        self.static_cell = hold_cell(cell)
        if params is None:
            params = cell.init(_draw(rngs, cell), param_dtype)
        elif param_dtype is not None:
            raise ValueError(
                "Expected param_dtype=None beside params, which have a dtype, got "
                f"{tell(param_dtype)}."
            )
        nested = nest(cell, params)
        self.weights = Parameters(jax.tree.map(jnp.asarray, nested))
        self.deterministic = check_switch("deterministic", deterministic)
        noisy = cell.noise is not None
        self.rngs = _stream(rngs).fork() if noisy and rngs is not None else None

    @property
    def cell(self) -> Cell:
        """The cell of jrnn."""
        return self.static_cell.cell

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets `deterministic`, for `nnx.view`.

        Args:
          deterministic: Whether the cell's noise is off; None: unchanged.
        """
        if deterministic is not None:
            self.deterministic = check_switch("deterministic", deterministic)

    @property
    def params(self) -> Params:
        """The parameters as jrnn has them, for `jrnn.unroll(cell, params, xs)`."""
        paths, structure = names_of(self.cell)
        arrays = []
        for path in paths:
            at: Any = self.weights
            for name in path:
                at = getattr(at, name)
            arrays.append(at[...])
        return jax.tree.unflatten(structure, arrays)

    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Runs one step.

        Args:
          carry: The state, with leaves (*batch, ...).
          inputs: Floats (*batch, input_size), or token ids (*batch,).

        Returns:
          The new state and the output (*batch, output_size).

        Raises:
          TypeError: The inputs are features of an integer type.
          ValueError: The cell has noise and is not deterministic; or as `cell.step`.
        """
        refuse_integers(self.cell, inputs, ("*batch",))
        if self.cell.noise is not None and not self.deterministic:
            raise ValueError(
                f"Expected deterministic=True for one step of {self.cell}, got False: "
                "its noise is drawn for a whole sequence. Train it in "
                "jrnn.interop.flax.nnx.RNN, and call model.eval() before single steps."
            )
        return self.cell.step(self.params, carry, inputs)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Streams | None = None,
        carry_init: Any = None,
    ) -> State:
        """Returns the cell's initial state, which takes no key.

        Args:
          input_shape: Of the inputs of one step, (*batch, features).
          rngs: Draws the state if there is a `carry_init`; otherwise unused.
          carry_init: An initialiser (key, shape, dtype) -> array for each array of the
            state; None: the cell's own initial state.

        Raises:
          TypeError: There is a `carry_init` without rngs.
        """
        state = self.cell.init_state(self.params, tuple(input_shape[:-1]))
        if carry_init is None:
            return state
        draw = lambda leaf: carry_init(_draw(rngs, self.cell), leaf.shape, leaf.dtype)
        return jax.tree.map(draw, state)

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes of an input hold the features of one step."""
        return 1


def noise_key(module: RNNCell, deterministic: bool | None, rngs: Any) -> Key | None:
    """Returns a key for the noise of one run; None: no noise.

    A function, because `nnx.tabulate` traces every method.

    Args:
      module: A cell with or without noise.
      deterministic: Whether the noise is off; None: as the module's attribute says.
      rngs: Streams or a key; None: the module's own stream.

    Raises:
      ValueError: There is noise to draw and nothing to draw it from.
    """
    quiet = module.deterministic if deterministic is None else deterministic
    if check_switch("deterministic", quiet) or module.cell.noise is None:
        return None
    # nnx.Bidirectional passes its stream of carries, which is no choice of noise.
    of_carries = isinstance(rngs, nnx.RngStream) and rngs.tag == CARRY
    given = module.rngs if rngs is None or of_carries else rngs
    if given is None:
        raise ValueError(
            f"Expected rngs for the noise of {module.cell}, got none: make the module "
            "with rngs=nnx.Rngs(params=0, dropout=1), pass rngs to this call, or call "
            "model.eval()."
        )
    if isinstance(given, Streams):
        return _stream(given)()
    return check_given_key(given, "rngs")


def _draw(rngs: Any, cell: Cell) -> Key:
    """Returns a key for parameters, from the stream "params" or a single stream."""
    if not isinstance(rngs, Streams):
        raise TypeError(
            f"Expected rngs=nnx.Rngs(seed) to draw the arrays of {cell}, got "
            f"{tell(rngs)}."
        )
    return rngs.params() if isinstance(rngs, nnx.Rngs) else rngs()


def _stream(rngs: Streams) -> nnx.RngStream:
    """Returns the stream "dropout", or a single stream itself."""
    if isinstance(rngs, nnx.RngStream):
        return rngs
    try:
        return rngs.dropout
    except AttributeError as error:
        raise ValueError(
            'Expected rngs with a stream "dropout" for the noise of a cell, got '
            f"{', '.join(rngs) or 'none'}; such as nnx.Rngs(params=0, dropout=1)."
        ) from error
