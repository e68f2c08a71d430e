"""The type of cells: a few pure functions, and properties that are known of them.

A recurrent cell packs the past into a state and is written once:

    u_t = project(params, x_t)              the input's share, which needs no state
    s_t = advance(params, s_{t-1}, u_t)     the recurrent share, alone inside the loop
    y_t = output(params, s_t, x_t)          the output

A method (`jrnn.core.method`) is one way to run a cell along a sequence. Methods do not
depend on particular cells, nor cells on methods: these types are their interface.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import chex
from jaxtyping import Array

from jrnn.core.pickling import pickled_by_call

Params = Any  # a pytree of arrays: NamedTuples with the field names of the notes


State = Any  # a pytree of arrays, each of shape (*batch, ...)


Saved = Any  # residuals of a forward step for its backward step: a pytree of arrays


Gates = tuple[Array, ...]  # one array of shape (*batch, hidden_size) per gate


Key = chex.PRNGKey


class Spec(NamedTuple):
    """The call that describes a cell, head or model, for summaries, files, conversion.

    Attributes:
      name: The factory's name.
      arguments: The factory's arguments as (name, value) pairs, including defaults,
        without initialisers, which are irrelevant once parameters exist.
      input_size: Size of the last axis of a float input; number of token ids.
      output_size: Size of the last axis of the output.
    """

    name: str
    arguments: tuple[tuple[str, Hashable], ...]
    input_size: int
    output_size: int


def describe(spec: Spec) -> str:
    """Returns the call that `spec` describes, such as `lstm(3, 4)`."""
    shown = ", ".join(
        f"{name}={getattr(value, '__name__', value)}" for name, value in spec.arguments
    )
    return f"{spec.name}({shown})"


def call_of(self: Any) -> str:
    """Shows the call that made a cell, head or model, not its functions."""
    return describe(self.spec)


class Gated(NamedTuple):
    """The seam of cells with one recurrent product and elementwise gates.

    With u_t = project(params, x_t) and v_t = h_{t-1} W + b (`jrnn.core.seams.recur`),
    where h is the state's first field, of n units; both are of shape
    (*batch, gates * n) and split into `gates` arrays:

        s_t, saved_t = pointwise(s_{t-1}, u_t, v_t)
        ds_{t-1}, du_t, dv_t = pullback(s_{t-1}, s_t, saved_t, ds_t)

    Attributes:
      gates: How many gate arrays u and v consist of.
      product: params -> (W, b or None), the only product inside the loop. The shape of
        W is (n, gates * n), or one of these:
        (n, n): every gate receives the same n numbers;
        (k * n, gates * n): W multiplies the state's first k fields, side by side;
        (n,): W multiplies h unit by unit.
      pointwise: (state_tm1, u, v) -> (state, saved). Elementwise, on tuples of gates.
      pullback: (state_tm1, state, saved, dstate) -> (dstate_tm1, du, dv), derived by
        hand. `dstate_tm1` excludes the gradient through the product. If du and dv are
        equal they should be the same object, which is then stored once.
      inputs: params -> (W_x, b or None), if `project` is x W_x + b, so that a method
        may compute u gate by gate. None: `project` is something else.
    """

    gates: int
    product: Callable[[Params], tuple[Array, Array | None]]
    pointwise: Callable[[State, Gates, Gates], tuple[State, Saved]]
    pullback: Callable[[State, State, Saved, State], tuple[State, Gates, Gates]]
    inputs: Callable[[Params], tuple[Array, Array | None]] | None = None


class Adjoint(NamedTuple):
    """A cell's own backward pass of `advance`, derived by hand.

    For cells that do not fit `Gated` (a reset before the product, a projection,
    peepholes). `pullback` runs inside the loop over time, `gradient` once for many
    steps, so that each parameter's gradient is one contraction over time and batch.

    Attributes:
      advance: (params, state_tm1, u) -> (state, saved).
      pullback: (params, state_tm1, state, saved, dstate) -> (dstate_tm1, du, deltas),
        where `deltas` is whatever else `gradient` needs from the step.
      gradient: (params, states_tm1, states, saved, du, deltas) -> dparams, where each
        argument but the first has a leading axis of time; zero for parameters that
        only `project` and `output` read.
    """

    advance: Callable[[Params, State, Array], tuple[State, Saved]]
    pullback: Callable[[Params, State, State, Saved, State], tuple[State, Array, Saved]]
    gradient: Callable[[Params, State, State, Saved, Array, Saved], Params]


class Linear(NamedTuple):
    """The seam of cells that are linear in their state, for evaluation in parallel.

    With u_t = project(params, x_t), and an a and a b for each array of the state:

        a_t, b_t = coefficients(params, u_t)
        s_t = a_t * s_{t-1} + b_t              elementwise
        s_t = s_{t-1} a_t + b_t                a matrix for each step, if `full`

    A cell whose first step from a fresh state differs from the others has a state of
    two arrays, (h, fresh), and e_t = start(params, u_t):

        h_t = a_t * h_{t-1} + b_t + e_t * fresh_{t-1}

    If `fresh` is 1 in `cell.init_state`, and its own a and b are 0, this adds e_t only
    at the first step.

    Attributes:
      coefficients: (params, u) -> (a, b), each of the state's structure, for any
        leading axes of u. Leaves of b are (..., n); those of a (..., n), or (..., n, n)
        if `full`; a that does not depend on u has no leading axes, and broadcasts.
      full: Whether a contains matrices.
      start: (params, u) -> e, of the shape of the first leaf of b; None: no such term.
        Not with `full`.
    """

    coefficients: Callable[[Params, Any], tuple[State, State]]
    full: bool = False
    start: Callable[[Params, Any], Array] | None = None


class GateView(NamedTuple):
    """The gates of a cell and how to read them, for statistics.

    Attributes:
      ranges: (name, (least, greatest)) of each gate; () if the cell has no bounded
        values.
      read: (params, states_tm1, us) -> the gates by name, (*lead, n) each, for any
        leading axes; `params` are prepared, `us` is the result of `project`.
      functions: The functions of the cell that it describes, filled in by
        `jrnn.core.claims.claim`.
    """

    ranges: tuple[tuple[str, tuple[float, float]], ...]
    read: Callable[[Params, State, Any], dict[str, Array]]
    functions: tuple[Any, ...] | None = None


class StepBound(NamedTuple):
    """A proven bound of the norm of the Jacobian of a cell's step.

    Attributes:
      label: The proof, in words.
      blocks: (params, states_tm1, us, kept) -> bounds on the norms of the blocks of J,
        (T, *batch, F, F) for F arrays of the state, before zoneout; `kept` (F,) is the
        fraction of each that zoneout keeps. None: J does not depend on the state, so
        that its norm along a run is its supremum for these inputs.
      kept: That fraction, for each array of the state; (): no zoneout.
      functions: As in `GateView`.
    """

    label: str
    blocks: Callable[[Params, State, Any, Array], Array] | None
    kept: tuple[float, ...] = ()
    functions: tuple[Any, ...] | None = None


class Made(NamedTuple):
    """The functions of a cell when it was made, before any was replaced.

    Attributes:
      functions: As in `GateView`.
    """

    functions: tuple[Any, ...]


@pickled_by_call
class Cell(NamedTuple):
    """A recurrent cell: a NamedTuple of pure functions, made by a factory.

    Attributes:
      init: (key, dtype=None) -> params; float32 by default.
      init_state: (params, batch_shape=()) -> state, with leaves (*batch_shape, ...).
      project: (params, x) -> u, for x of shape (..., input_size), or integer (...,);
        (params, x, noise) -> u where the cell has noise.
      advance: (params, state, u) -> state.
      output: (params, state, x) -> y of shape (..., output_size).
      step: (params, state, x, noise=None, *, reset=None) -> (state, y): the composition
        of the three above, also after one of them was replaced
        (`jrnn.core.claims.current`). Where `reset`, booleans of the batch shape, is
        True, the state becomes that of `init_state` before x is read, and no gradient
        crosses; as `resets` in `jrnn.unroll`.
      spec: The factory call that describes the cell.
      gated: Its elementwise seam, if it has one.
      adjoint: Its own backward pass, if it has one.
      linear: Its coefficients, if it is linear in its state.
      diagonal: Whether unit i of the new state depends only on unit i of the old one
        (in every array of the state, which then all have one size), so that the
        Jacobian of a step is one small block for each unit.
      noise: (key, steps, batch_shape) -> a pytree of arrays (steps, *batch_shape, ...),
        drawn before the loop, for a cell that is random in training.
      prepare: params -> prepared parameters, for a function of the parameters that is
        worth computing once for a whole sequence (a matrix exponential). The functions
        above accept both, and `prepare` returns prepared ones unchanged. Methods get
        prepared parameters, so that none of this runs in the loop.
      children: The cells that are run in its place; None: it is run itself.
      shows_state: Whether `output` only casts the first array of the state, so that
        computing it for many steps at once saves nothing.
      elapsed: The index of the input feature that is the time since the previous step,
        such as -1 for the last; None: there is none. It cannot be a symbol, nor an
        output of another cell.
      gates: Its gates, for statistics; None: not known.
      bound: A proven bound of the norm of its step's Jacobian; None: there is none.
      made: The functions it was made of, to detect replaced ones; None: not known.

    `gates` and `bound` apply only to the functions that they were made for: they are
    ignored once a function of the cell is replaced (`jrnn.core.claims.held`).
    """

    init: Callable[..., Params]
    init_state: Callable[..., State]
    project: Callable[..., Any]
    advance: Callable[[Params, State, Any], State]
    output: Callable[[Params, State, Any], Array]
    step: Callable[..., tuple[State, Array]]
    spec: Spec
    gated: Gated | None = None
    adjoint: Adjoint | None = None
    linear: Linear | None = None
    diagonal: bool = False
    noise: Callable[[Key, int, tuple[int, ...]], Any] | None = None
    prepare: Callable[[Params], Params] | None = None
    children: "Children | None" = None
    shows_state: bool = False
    elapsed: int | None = None
    gates: GateView | None = None
    bound: StepBound | None = None
    made: Made | None = None

    __repr__ = call_of

    def __hash__(self) -> int:
        """Hashes a few functions; hashing the whole cell, with children, is slow."""
        return hash((self.init, self.project, self.advance, self.output))

    @property
    def num_feature_axes(self) -> int:
        """Raises AttributeError with the remedy: only Flax's `RNN` reads this."""
        raise AttributeError(
            f"Expected a cell of Flax, got {self}, a cell of jrnn; replace Flax's RNN "
            "by jrnn.interop.flax.nnx.RNN or jrnn.interop.flax.linen.RNN, or pass it "
            "an RNNCell from there."
        )


class Children(NamedTuple):
    """Cells that are run in the place of a cell, each along the whole sequence.

    Attributes:
      cells: The children, in the order in which they are run.
      parallel: False: each reads the outputs of the one before. True: all read the same
        inputs, every second one in reverse.
      nested: Whether the cell's params, state and noise are tuples, one entry for each
        child. False: there is one child, and the cell's params and state are its own.
      inputs: (x, noise) -> (x, noise): the inputs and the noise of the children, called
        if there is noise; for any leading axes. None: both unchanged.
      outputs: (y, x) -> y: the output of the cell, from the children's output and the
        cell's input; for any leading axes. None: the children's output.
      merge: (*ys) -> y: the children's output, from the output of each; for any leading
        axes. None: the concatenation if `parallel`, otherwise that of the last child.
      between: (x, y) -> x: the inputs of each child but the first, from those of the
        cell and the output of the child before; for any leading axes. None: that
        output. Not if `parallel`.

    At inactive steps the output is 0, whatever `outputs` and `merge` return.
    """

    cells: "tuple[Cell, ...]"
    parallel: bool = False
    nested: bool = False
    inputs: Callable[[Array, Any], tuple[Array, Any]] | None = None
    outputs: Callable[[Array, Array], Array] | None = None
    merge: Callable[..., Array] | None = None
    between: Callable[[Array, Array], Array] | None = None
