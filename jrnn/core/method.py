"""What a method is: one way to run a cell along a sequence."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool

from jrnn.core.cell import (
    Cell,
    Params,
    State,
)


class Sequence(NamedTuple):
    """What a method walks along, time first; `jrnn.unroll` makes it.

    Attributes:
      xs: Inputs (T, *batch, ...), zero where inactive: an array or a pytree of arrays.
      noise: What `cell.noise` drew, or None.
      active: At which steps the state moves on, (T, *batch); None: at all of them.
      restart: Before which steps `fresh` takes the state's place; None: before none.
      fresh: That state, with leaves (*batch, ...); None without restarts.
      guess: A trajectory to begin with, for methods that iterate; None: theirs.
    """

    xs: Any
    noise: Any = None
    active: Bool[Array, "T *batch"] | None = None
    restart: Bool[Array, "T *batch"] | None = None
    fresh: State | None = None
    guess: State | None = None

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return jax.tree.leaves(self.xs)[0].shape[0]


class Wanted(NamedTuple):
    """What is kept of each step: outputs, states, both or nothing."""

    ys: bool
    states: bool


class Shown(NamedTuple):
    """What was kept of each step; None: not wanted.

    `report` is what a method says of its work, one for each cell; None: nothing.
    """

    ys: Any = None
    states: Any = None
    report: Any = None


class Truncation(NamedTuple):
    """How far back gradients go: `jrnn.truncated`."""

    window: int
    stride: int


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to run a cell along a sequence; equal options make equal methods.

    Attributes:
      run: (cell, wanted, params, state, sequence, **options) -> (state, shown), and a
        report after these, if it has one. `show_steps` makes `shown` of many steps.
      options: The method's settings as (name, value) pairs, all hashable.
      truncation: Where gradients are cut; None: nowhere.
    """

    run: Callable[..., tuple[Any, ...]]
    options: tuple[tuple[str, Hashable], ...] = ()
    truncation: Truncation | None = None


def show_steps(
    cell: Cell, wanted: Wanted, params: Params, states: State, xs: Any
) -> Shown:
    """Returns what is wanted of steps, of one or of many at once."""
    return Shown(
        ys=cell.output(params, states, xs) if wanted.ys else None,
        states=states if wanted.states else None,
    )
