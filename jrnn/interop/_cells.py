"""Cells of jrnn as other libraries describe them: layers, directions, dropout.

`layer_of` reads one cell and `levels_of` a deep one, from their specs. A spec is only
a description, so both make the cell again from what they have read, and compare.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.activations import linear
from jrnn.cells.elman import elman
from jrnn.cells.gru import gru
from jrnn.cells.lstm import lstm
from jrnn.core.cell import Cell
from jrnn.core.check import expected_params
from jrnn.interop._layout import Sizes
from jrnn.methods.scan import scan
from jrnn.run.unroll import unroll
from jrnn.wrappers import bidirectional, concat_merge, dropout, stack
from jrnn.wrappers.merges import Merge

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "linear": linear,
}
NAMES: dict[Any, str] = {function: name for name, function in ACTIVATIONS.items()} | {
    jax.lax.tanh: "tanh",
    jax.lax.logistic: "sigmoid",
}


class Layer(NamedTuple):
    """One recurrent cell, in the terms that libraries share.

    Attributes:
      kind: elman, lstm or gru.
      input_size: k.
      hidden_size: n.
      bias: Whether there are biases.
      activation: Of an Elman cell, a name in `ACTIVATIONS`.
      reset_after: Whether a GRU resets after the product.
      projection_size: Of an LSTM; None: there is none.
    """

    kind: str
    input_size: int
    hidden_size: int
    bias: bool = True
    activation: str = "tanh"
    reset_after: bool = True
    projection_size: int | None = None

    @property
    def sizes(self) -> Sizes:
        """The sizes of its arrays."""
        shown = self.projection_size or self.hidden_size
        return Sizes(self.input_size, self.hidden_size, shown)

    @property
    def family(self) -> str:
        """The name of its layout in `jrnn.interop._layout.KINDS`."""
        before = self.kind == "gru" and not self.reset_after
        return "gru reset before" if before else self.kind


class Level(NamedTuple):
    """One level of a deep cell: its cells, one for each direction, and its dropout.

    Attributes:
      cells: One cell, or one for each direction.
      rate: Dropout of its inputs.
      merge: The output from those of two directions.
      place: Where it is, such as "[1]", for an error.
    """

    cells: tuple[Cell, ...]
    rate: float = 0.0
    merge: Merge = concat_merge
    place: str = ""


def cell_of(layer: Layer) -> Cell:
    """Makes the cell that a layer describes."""
    sizes, bias = (layer.input_size, layer.hidden_size), layer.bias
    if layer.kind == "gru":
        return gru(*sizes, bias=bias, reset_after=layer.reset_after)
    if layer.kind == "lstm":
        return lstm(*sizes, bias=bias, projection_size=layer.projection_size)
    return elman(*sizes, bias=bias, activation=ACTIVATIONS[layer.activation])


class Library(NamedTuple):
    """What a library can express, to refuse the rest in its name.

    Attributes:
      name: Of the library.
      has: What it has, in words.
      kinds: Which of elman, lstm and gru it has.
      activations: Of its simple recurrent layer.
      resets: The values of `reset_after` of its GRU.
      projections: Whether its LSTM may have a projection.
    """

    name: str
    has: str
    kinds: tuple[str, ...] = ("elman", "lstm", "gru")
    activations: tuple[str, ...] = ("tanh",)
    resets: tuple[bool, ...] = (True,)
    projections: bool = False

    def refuse(self, cell: Cell, reason: str, place: str = "") -> ValueError:
        """Returns the error for a cell that the library cannot express."""
        where = f" at {place}" if place else ""
        return ValueError(
            f"Expected cell to be one that {self.name} has ({self.has}), got "
            f"{cell}{where}: {reason}."
        )


def layer_of(cell: Cell, library: Library, place: str = "") -> Layer:
    """Returns what a cell is, for a library that has it.

    Raises:
      ValueError: The library has no such cell.
    """
    name = cell.spec.name
    given: dict[str, Any] = dict(cell.spec.arguments)
    reason = _reason(name, given, library)
    if reason:
        raise library.refuse(cell, reason, place)
    layer = Layer(
        kind=name,
        input_size=given["input_size"],
        hidden_size=given["hidden_size"],
        bias=given["bias"],
        activation=NAMES.get(given.get("activation"), "tanh"),
        reset_after=given.get("reset_after", True),
        projection_size=given.get("projection_size"),
    )
    if not _same(cell, cell_of(layer)):
        raise library.refuse(cell, CHANGED, place)
    return layer


CHANGED = (
    "it does not compute what jrnn's cell of this name computes, because a function of "
    "it was replaced, or because another factory made it"
)
INSIDE = "convert the cells inside it, each with its own parameters"


def _reason(name: str, given: dict[str, Any], library: Library) -> str | None:
    """Returns why a library does not have a cell; None: it does."""
    if name not in library.kinds:
        wraps = any(isinstance(value, Cell) for value in given.values())
        more = f"; {INSIDE}" if wraps else ""
        return f"{library.name} has nothing that computes {name}{more}"
    if name == "elman" and NAMES.get(given["activation"]) not in library.activations:
        told = " or ".join(library.activations)
        return f"the activation must be {told}"
    if name == "gru" and given["reset_after"] not in library.resets:
        after, here = ("after", "before") if library.resets[0] else ("before", "after")
        return (
            f"{library.name} resets {after} the product, and this cell {here} it; no "
            f"weights make the two equal: train with reset_after={library.resets[0]}"
        )
    if given.get("peepholes"):
        return f"{library.name} has no peepholes"
    if given.get("projection_size") is not None and not library.projections:
        return f"{library.name} has no projection"
    return None


def levels_of(cell: Cell, library: Library) -> list[Level]:
    """Returns the levels of a deep cell, from bottom to top, or one of a plain cell.

    Raises:
      ValueError: Something around the cells is neither a stack, nor two directions, nor
        dropout; or was changed.
    """
    if cell.spec.name != "stack":
        return [_level(cell, library, "")]
    inner = _inside(cell)
    if not _same(cell, stack(*inner)):
        raise library.refuse(cell, CHANGED)
    return [_level(one, library, f"[{i}]") for i, one in enumerate(inner)]


def _level(cell: Cell, library: Library, place: str) -> Level:
    rate: Any = 0.0
    if cell.spec.name == "dropout":
        outer, (cell,) = cell, _inside(cell)
        rate = dict(outer.spec.arguments)["rate"]
        if not _same(outer, dropout(cell, rate)):
            raise library.refuse(outer, CHANGED, place)
    if cell.spec.name != "bidirectional":
        return Level((cell,), rate, place=place)
    inner, given = _inside(cell), dict(cell.spec.arguments)
    merge: Any = given["merge"]
    if not _same(cell, bidirectional(*inner, merge=merge)):
        raise library.refuse(cell, CHANGED, place)
    return Level(inner, rate, merge, place)


def _inside(cell: Cell) -> tuple[Cell, ...]:
    """Returns the cells among the arguments of a wrapper."""
    return tuple(v for _, v in cell.spec.arguments if isinstance(v, Cell))


def _same(cell: Cell, again: Cell) -> bool:
    """Returns whether two cells compute the same, from their numbers.

    They are identical unless they differ in initialisers, or caches were cleared.
    """
    if cell is again:
        return True
    like = expected_params(again)
    if jax.tree.structure(like) != jax.tree.structure(expected_params(cell)):
        return False
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32)
    params = jax.tree.map(draw, like)
    xs = jnp.asarray(rng.normal(size=(3, 2, cell.spec.input_size)), jnp.float32)
    ours, theirs = (unroll(one, params, xs, method=scan()) for one in (cell, again))
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
