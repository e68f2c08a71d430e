"""The type of methods: ways to run a cell along a sequence."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool

from jrnn.core.cell import Cell, Params, State
from jrnn.core.products import Precision, products_at


class Sequence(NamedTuple):
    """The sequence that a method runs along, time first; made by `jrnn.unroll`.

    Attributes:
      xs: Inputs (T, *batch, ...), zero where inactive: an array or a pytree of arrays.
      noise: Drawn by `cell.noise`, or None.
      active: True at steps that update the state, (T, *batch); None: all do.
      restart: True at steps before which `fresh` replaces the state; None: no step.
      fresh: That state, with leaves (*batch, ...); None without restarts.
      guess: Initial trajectory for methods that iterate; None: the method's own.
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
    """Which results of each step to keep: outputs, states, both or neither."""

    ys: bool
    states: bool


class Shown(NamedTuple):
    """The results kept of each step; None: not wanted.

    `report` is a method's report on its run, one for each cell; None: it makes none.
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
      run: (cell, wanted, params, state, sequence, **options) -> (state, shown), or
        (state, shown, report). `show_steps` makes `shown`.
      options: The method's settings as (name, value) pairs, all hashable.
      truncation: Where gradients stop; None: nowhere.
    """

    run: Callable[..., tuple[Any, ...]]
    options: tuple[tuple[str, Hashable], ...] = ()
    truncation: Truncation | None = None


def show_steps(
    cell: Cell, wanted: Wanted, params: Params, states: State, xs: Any
) -> Shown:
    """Returns the wanted results of one step or of many at once."""
    return Shown(
        ys=cell.output(params, states, xs) if wanted.ys else None,
        states=states if wanted.states else None,
    )


def all_at_once(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    precision: Precision,
) -> tuple[State, Shown]:
    """Returns what a run does of a cell whose state has no arrays: nothing recurs."""
    with products_at(precision):
        return state, show_steps(cell, wanted, params, state, sequence.xs)
