"""A cell of jrnn as a cell of Flax Linen."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jrnn.core.arguments import check_switch
from jrnn.core.cell import Cell, Params, State
from jrnn.core.check import expected_params
from jrnn.core.check_draws import check_dtype
from jrnn.interop.flax._names import by_name, hold_cell, unnest
from jrnn.interop.flax._running import refuse_integers


class RNNCell(nn.RNNCellBase):
    """A cell of jrnn as a cell of Flax Linen, for one step or for `nn.RNN`.

    The carry is the cell's own state. `jrnn.interop.flax.linen.RNN` runs the cell along
    a sequence by any method, and is needed for noise and token ids.

    Attributes:
      cell: The cell; kept as a static object, of which `cell.cell` is the cell.
      param_dtype: The type to draw the parameters in.
      deterministic: Whether the cell's noise is off. A cell with noise needs True for
        single steps, because noise is drawn for a whole sequence.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> from flax import linen as nn
      >>> from jrnn.interop.flax.linen import RNNCell
      >>> model, xs = nn.RNN(RNNCell(jrnn.lstm(3, 4))), jnp.ones((2, 7, 3))
      >>> model.init_with_output(jax.random.key(0), xs)[0].shape
      (2, 7, 4)
    """

    cell: Any
    param_dtype: Any = jnp.float32
    deterministic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", hold_cell(self.cell))
        check_dtype(self.param_dtype, "param_dtype")
        check_switch("deterministic", self.deterministic)
        super().__post_init__()

    def setup(self) -> None:
        """Draws the parameters, all from one key, or takes those that are there."""
        cell = self.cell.cell
        drawn = self._abstract()
        missing = [name for name in drawn if not self.has_variable("params", name)]
        if missing and self.is_mutable_collection("params"):
            params = cell.init(self.make_rng("params"), self.param_dtype)
            drawn = by_name(cell, jax.tree.leaves(params))
        self.arrays = {
            name: self.param(name, lambda _, own=own: jax.tree.map(_filled, own))
            for name, own in drawn.items()
        }

    def _abstract(self) -> dict[str, Any]:
        """Returns the shapes of the parameters by name."""
        like = jax.tree.leaves(expected_params(self.cell.cell))
        return by_name(self.cell.cell, like)

    def read(self) -> Params:
        """Returns the parameters as jrnn has them; called on a bound module."""
        return unnest(self.cell.cell, self.arrays)

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
        refuse_integers(self.cell.cell, inputs, ("*batch",))
        if self.cell.cell.noise is not None and not self.deterministic:
            raise ValueError(
                f"Expected deterministic=True for one step of {self.cell}, got False: "
                "its noise is drawn for a whole sequence. Train it in "
                "jrnn.interop.flax.linen.RNN, and make RNNCell(cell, "
                "deterministic=True) for single steps."
            )
        return self.cell.cell.step(self.read(), carry, inputs)

    @nn.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> State:
        """Returns the cell's initial state, which takes no key.

        A learned initial state is read from the parameters of a bound module; without
        any it is as it is drawn, 0.

        Args:
          rng: Unused; Flax passes it.
          input_shape: Of the inputs of one step, (*batch, features).
        """
        del rng
        return initial_carry(self, tuple(input_shape[:-1]))

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes of an input hold the features of one step."""
        return 1


def initial_carry(module: RNNCell, batch: tuple[int, ...]) -> State:
    """Returns the initial state of a bound or an unbound module."""
    cell: Cell = module.cell.cell
    like = expected_params(cell)
    names = list(by_name(cell, jax.tree.leaves(like)))
    bound = module.scope is not None
    if bound and all(module.has_variable("params", name) for name in names):
        nested = {name: module.get_variable("params", name) for name in names}
        return cell.init_state(unnest(cell, nested), batch)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, module.param_dtype), like)
    return cell.init_state(blank, batch)


def _filled(leaf: Any) -> Array:
    """Returns an array; zeros for a shape, of which Flax reads the shape alone."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return leaf
