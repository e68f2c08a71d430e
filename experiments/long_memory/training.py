r"""One cell on one task, from one seed: trained on fresh data until it succeeds.

    y_t = cell(x_t),   o_t = y_t W_y + b_y

and around a cell that is linear in its state, instead,

    y_t = cell(gelu(x_t W_e + b_e)),   o_t = gelu(y_t W_1 + b_1) W_y + b_y

where x_t is a token id the cell reads it as it is.

Adam behind a clipped gradient, at a constant rate. Every batch is drawn anew inside the
compiled block; so is what is evaluated, from other keys: no batch of one part is ever a
batch of another.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import jrnn
from experiments import lab
from experiments._long_tasks import Sequences
from experiments.lab import training as lab_training
from experiments.long_memory.entrants import ENTRANTS
from experiments.long_memory.problems import EACH, Problem, problem, scores

# Parts of a folded key: what is drawn for one is never drawn for another.
INIT, TRAIN, VALID, TEST = range(4)
SOLVED, SPENT, CUT, DIVERGED = "solved", "sequences", "seconds", "diverged"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, and how: equal cases are not run twice.

    Attributes:
      task: Name of the task.
      length: T of the task.
      cell: Name of the entrant.
      seed: Of weights and data.
      hidden: Units of the cell.
      batch: Sequences per training step.
      rate: Of Adam.
      clip: Largest norm of a gradient.
      sequences: To be trained on, at most.
      every: Sequences between two evaluations.
      evaluated: Fresh sequences in each evaluation.
      tested: Fresh sequences that confirm a success, and give the final loss.
    """

    task: str
    length: int
    cell: str
    seed: int
    hidden: int
    batch: int
    rate: float
    clip: float
    sequences: int
    every: int
    evaluated: int
    tested: int

    @property
    def steps_per_block(self) -> int:
        """Training steps between two evaluations."""
        return max(1, self.every // self.batch)

    @property
    def blocks(self) -> int:
        """Blocks of training at most."""
        return max(1, self.sequences // (self.steps_per_block * self.batch))


class Dense(NamedTuple):
    """A pointwise layer: k inputs, h outputs."""

    W: Float[Array, "k h"]
    b: Float[Array, " h"]


class Params(NamedTuple):
    """Parameters: the cell, the layer at the end, and those around a linear cell."""

    cell: Any
    out: Dense
    encode: Dense | None = None
    decode: Dense | None = None


class Lane(NamedTuple):
    """The state of training."""

    params: Any
    opt_state: Any
    step: Array


def key_of(seed: int, part: int) -> Array:
    """Returns the key that all draws of a part come from."""
    return jax.random.fold_in(jax.random.key(seed), part)


def make_cell(name: str, own: Problem, hidden: int) -> jrnn.Cell:
    """Returns the entrant's cell, for the task's inputs or for encoded ones."""
    encoded = ENTRANTS[name].linear and not own.tokens
    return ENTRANTS[name].make(hidden if encoded else own.inputs, hidden, own)


def init(key: Array, name: str, own: Problem, hidden: int) -> Params:
    """Draws parameters: variance 1 over the inputs of a sum."""
    keys = jax.random.split(key, 4)
    cell = make_cell(name, own, hidden)
    h = cell.spec.output_size
    params = Params(cell.init(keys[0]), _dense(keys[1], h, own.outputs))
    if not ENTRANTS[name].linear:
        return params
    encode = None if own.tokens else _dense(keys[2], own.inputs, hidden)
    return params._replace(encode=encode, decode=_dense(keys[3], h, h))


def _dense(key: Array, inputs: int, outputs: int) -> Dense:
    drawn = jax.random.normal(key, (inputs, outputs), jnp.float32)
    return Dense(drawn * inputs**-0.5, jnp.zeros(outputs, jnp.float32))


def _apply(layer: Dense, xs: Array) -> Array:
    return xs @ layer.W + layer.b.reshape((1,) * (xs.ndim - 1) + (-1,))


def predict(params: Params, name: str, own: Problem, batch: Sequences) -> Array:
    """Returns o: (T, B, v) where each step is asked, else (B, v) at the last steps."""
    cell = make_cell(name, own, params.out.W.shape[0])
    method = jrnn.associative() if ENTRANTS[name].linear else jrnn.bptt()
    us = batch.xs
    if params.encode is not None:
        us = jax.nn.gelu(_apply(params.encode, us))
    ys = jrnn.unroll(cell, params.cell, us, method=method)[1]
    if own.asks != EACH:  # no step looks ahead: padding behind a last step is unread
        ys = jnp.take_along_axis(ys, batch.lengths[None, :, None] - 1, axis=0)[0]
    if params.decode is not None:
        ys = jax.nn.gelu(_apply(params.decode, ys))
    return _apply(params.out, ys)


class Trainer(NamedTuple):
    """Compiled: start(seed's key), advance(lane, key, data), evaluate(params, ...)."""

    start: Callable[[Array], Lane]
    advance: Callable[[Lane, Array, Any], tuple[Lane, Array]]
    evaluate: Callable[[Any, Array, Any, int], tuple[Array, Array]]


def trainer(case: Case) -> Trainer:
    """Compiles what a case needs; cases that differ in their seed share it."""
    return _trainer(dataclasses.replace(case, seed=0, sequences=0))


@functools.lru_cache(maxsize=4)
def _trainer(case: Case) -> Trainer:
    own = problem(case.task, case.length)
    adam = optax.clip_by_global_norm(case.clip), optax.adam(case.rate)
    slow = optax.stateless(lambda updates, _: _slowed(updates, case, own))
    optimizer = optax.chain(*adam, slow)

    def start(key: Array) -> Lane:
        params: Any = init(key, case.cell, own, case.hidden)
        return Lane(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def loss(params: Any, batch: Sequences) -> Array:
        return scores(own, predict(params, case.cell, own, batch), batch)[0]

    def advance(lane: Lane, key: Array, data: Any) -> tuple[Lane, Array]:
        on = lambda params, used: loss(params, own.draw(used, case.batch, data))
        steps = lane.step + jnp.arange(case.steps_per_block, dtype=jnp.int32)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(steps)
        state, (values, _) = lab_training.descend(on, optimizer, lane[:2], keys)
        return Lane(*state, steps[-1] + 1), values.mean()

    def evaluate(
        params: Any, key: Array, data: Any, sequences: int
    ) -> tuple[Array, Array]:
        size = min(case.batch, sequences)  # as in training: memory stays as it is

        def one(index: Array) -> tuple[Array, Array]:
            batch = own.fresh(key, index, size, data)
            return scores(own, predict(params, case.cell, own, batch), batch)

        found = jax.lax.map(one, jnp.arange(-(-sequences // size), dtype=jnp.int32))
        return found[0].mean(), found[1].mean()

    return Trainer(
        jax.jit(start),
        jax.jit(advance, donate_argnums=0),
        jax.jit(evaluate, static_argnums=3),
    )


def _slowed(updates: Any, case: Case, own: Problem) -> Any:
    """Returns the updates, those of the entrant's slow parameters made small."""
    factor = min(1.0, 10 / own.steps)
    slow = {
        name: factor * getattr(updates.cell, name) for name in ENTRANTS[case.cell].slow
    }
    return updates._replace(cell=updates.cell._replace(**slow)) if slow else updates


def is_solved(own: Problem, loss: float, wrong: float) -> bool:
    """Returns whether the task's threshold is passed; never where it has none."""
    measured = {"loss": loss, "wrong": wrong}
    return own.measure is not None and measured[own.measure] < own.threshold


def train(case: Case, seconds: float, report: Callable[[dict], None]) -> dict[str, Any]:
    """Trains until success, or until sequences or seconds are spent.

    Args:
      case: What to train.
      seconds: Wall-clock time that ends training at the next evaluation.
      report: Called with every row of the course.

    Returns:
      Why it stopped, sequences to success (None without), the final loss and share of
      errors on test data, the course of losses, and what it took.
    """
    began = time.perf_counter()
    own, run = problem(case.task, case.length), trainer(case)
    lane = run.start(key_of(case.seed, INIT))
    course: list[dict[str, Any]] = []
    stopped, final = SPENT, None
    for block in range(1, case.blocks + 1):
        lane, row = _block(case, own, run, lane, block)
        course.append(row)
        report(row)
        final = _confirm(case, own, run, lane, row)
        late = time.perf_counter() - began > seconds and block < case.blocks
        if row["loss"] is None or final or late:
            stopped = SOLVED if final else DIVERGED if row["loss"] is None else CUT
            break
    loss, wrong = final or _test(case, own, run, lane)
    return {
        "stopped": stopped,
        "sequences": course[-1]["sequences"],
        "sequences_to_success": course[-1]["sequences"] if stopped == SOLVED else None,
        "loss": _finite(loss),
        "wrong": wrong,
        "baseline": own.baseline,
        "parameters": lab.parameter_count(lane.params),
        "course": course,
        "seconds": time.perf_counter() - began,
        "seconds_limit": seconds,
    }


def _block(
    case: Case, own: Problem, run: Trainer, lane: Lane, block: int
) -> tuple[Lane, dict[str, Any]]:
    """Trains for a block, and evaluates on sequences that nobody has seen."""
    key = key_of(case.seed, TRAIN)
    lane, trained = run.advance(lane, key, own.data("train"))
    key = jax.random.fold_in(key_of(case.seed, VALID), block)
    found = run.evaluate(lane.params, key, own.data("valid"), case.evaluated)
    loss, wrong = map(float, found)
    return lane, {
        "sequences": block * case.steps_per_block * case.batch,
        "training_loss": _finite(float(trained)),
        "loss": _finite(loss),
        "wrong": wrong,
    }


def _confirm(
    case: Case, own: Problem, run: Trainer, lane: Lane, row: dict[str, Any]
) -> tuple[float, float] | None:
    """Returns loss and errors on test data, where these too say that it is solved."""
    if row["loss"] is None or not is_solved(own, row["loss"], row["wrong"]):
        return None
    final = _test(case, own, run, lane)
    return final if is_solved(own, *final) else None


def _test(case: Case, own: Problem, run: Trainer, lane: Lane) -> tuple[float, float]:
    """Returns loss and errors on test data, which no earlier block has drawn."""
    data = own.data("test")
    key = jax.random.fold_in(key_of(case.seed, TEST), lane.step)
    loss, wrong = run.evaluate(lane.params, key, data, case.tested)
    return float(loss), float(wrong)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
