"""Answers each row of standard input at once: its surprise, and the next interval.

The state of every series is carried from row to row, and can be kept in a file, so that
a stream goes on where another ended, bit for bit: numbers of 32 bits are exact in JSON.
"""

import csv
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import lab
from experiments.forecast.problem import Setup, inputs_at
from experiments.forecast.store import Forecaster
from experiments.forecast.table import date, one_row

FARTHEST = 1e6  # standard deviations; float32 has seven digits
TAILS = (0.05, 0.5, 0.95)
PERCENTILES = (50, 95, 99)


class Past(NamedTuple):
    """What a series has come to.

    Attributes:
      state: Of the model.
      time: Of the latest row; None: there was none.
      value: Of the latest row.
    """

    state: Any
    time: float | None = None
    value: float = 0.0


@functools.partial(jax.jit, static_argnames="model")
def advance(
    model: Any,
    params: Any,
    state: Any,
    z: Float[Array, ""],
    inputs: Float[Array, " k"],
    following: Float[Array, " k"],
) -> tuple[Any, Array, Array, Array]:
    """Returns the state after a value, its log density and cdf, and what is next."""
    expected = model.predict(params, state, inputs=inputs)
    state, log_p = model.step(params, state, z, inputs=inputs)
    return state, log_p, expected.cdf(z), foresee(model, params, state, following)


@functools.partial(jax.jit, static_argnames="model")
def foresee(model: Any, params: Any, state: Any, inputs: Array) -> Array:
    """Returns quantiles of the next scaled value."""
    expected = model.predict(params, state, inputs=inputs)
    return jnp.stack([expected.quantile(p) for p in TAILS])


class Stream:
    """A forecaster with the past of every series."""

    def __init__(self, forecaster: Forecaster) -> None:
        """Begins without a past."""
        self.setup, self.model, self.params = forecaster
        self.start = self.model.init_state(self.params)
        self.pasts: dict[str, Past] = {}

    def check(self, name: str, now: float, value: float) -> None:
        """Raises ValueError unless a row may follow those before it."""
        if self.setup.columns.id is not None and not name:
            raise ValueError(f"Expected a name in {self.setup.columns.id!r}, got none.")
        if abs(value) > FARTHEST * self.setup.sd + abs(self.setup.mean):
            raise ValueError(
                f"Expected a value within {FARTHEST:g} standard deviations of those in "
                f"training, {self.setup.sd:g} each, got {value:g}."
            )
        latest = self.pasts.get(name, Past(self.start)).time
        if latest is not None and now <= latest:
            raise ValueError(
                f"Expected a time after {_shown(latest, self.setup)}, the latest one, "
                f"got {_shown(now, self.setup)}."
            )

    def answer(self, name: str, now: float, value: float) -> dict[str, Any]:
        """Takes a row that was checked, and returns what is said of it and the next."""
        past, setup = self.pasts.get(name, Past(self.start)), self.setup
        following = self._known(now + setup.step, setup.step)
        base = past.value if setup.differences else 0.0
        if setup.differences and past.time is None:  # nothing to differ from
            state, surprise, below = past.state, None, None
            ahead = foresee(self.model, self.params, state, following)
        else:
            since = setup.step if past.time is None else now - past.time
            z = jnp.float32((value - base - setup.mean) / setup.sd)
            given = z, self._known(now, since), following
            state, log_p, below, ahead = advance(
                self.model, self.params, past.state, *given
            )
            surprise = float(np.log(setup.sd)) - float(log_p)
            below = float(below)
        self.pasts[name] = Past(state, now, value)
        base = value if setup.differences else 0.0
        values = base + setup.mean + setup.sd * np.asarray(ahead, np.float64)
        ends = {f"{100 * p:g}%": float(v) for p, v in zip(TAILS, values, strict=True)}
        following_time = _shown(now + setup.step, setup)
        return {
            **({"series": name} if name else {}),
            "time": _shown(now, setup),
            "value": value,
            "surprise": surprise,
            "below": below,
            "next": {"time": following_time, **ends},
        }

    def _known(self, at: float, since: float) -> Float[Array, " k"]:
        known = inputs_at(self.setup, np.array(at), np.array(since))
        return jnp.asarray(known, jnp.float32)

    def keep(self, path: Path) -> None:
        """Writes the past of every series, exactly."""
        written = {
            name: {
                "state": [_reals(leaf).tolist() for leaf in jax.tree.leaves(state)],
                "time": now,
                "value": value,
            }
            for name, (state, now, value) in self.pasts.items()
        }
        lab.write_json(path, {"series": written})

    def recall(self, path: Path) -> None:
        """Reads what `keep` wrote.

        Raises:
          ValueError: The file holds something else, or belongs to another model.
        """
        held: dict[str, Any] = lab.read_json(path)
        leaves, tree = jax.tree.flatten(self.start)
        try:
            for name, one in held["series"].items():
                states = [
                    jnp.asarray(
                        np.array(given, _reals(leaf).dtype)
                        .view(leaf.dtype)
                        .reshape(leaf.shape)
                    )
                    for given, leaf in zip(one["state"], leaves, strict=True)
                ]
                state = jax.tree.unflatten(tree, states)
                self.pasts[name] = Past(state, float(one["time"]), float(one["value"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected the state of a stream of this model in {path}, got another "
                f"content: {error}"
            ) from error


def _reals(leaf: Array) -> np.ndarray:
    """Returns the numbers of an array, (n,): of complex ones both parts."""
    flat = np.ascontiguousarray(leaf).reshape(-1)
    return flat.view(np.real(flat).dtype)


def _columns(setup: Setup) -> str:
    return ", ".join(filter(None, setup.columns)) + ", or a header that names others"


def _shown(at: float, setup: Setup) -> str | float:
    return date(at) if setup.dated else at


def rows(
    lines: Iterable[str], setup: Setup, separator: str
) -> Iterator[list[str] | None]:
    """Yields time, value and perhaps the name of each row; None: of another form.

    A first line that names the columns says in which order they come, and may name
    others. Without it a row has these columns alone, in this order.

    Raises:
      ValueError: The first line names some of the columns only.
    """
    wanted = [column for column in setup.columns if column is not None]
    order, width = list(range(len(wanted))), len(wanted)
    for number, line in enumerate(lines):
        # Line by line: an open quotation mark ends with its line.
        cells = next(csv.reader([line.lstrip("\ufeff")], delimiter=separator), [])
        texts = [cell.strip() for cell in cells]
        missing = [column for column in wanted if column not in texts]
        if number == 0 and len(missing) < len(wanted):
            if missing:
                raise ValueError(
                    f"Expected a header with {', '.join(wanted)}, got none of "
                    f"{', '.join(missing)} in {line.strip()!r}."
                )
            order, width = [texts.index(column) for column in wanted], len(texts)
        elif texts:
            yield [texts[i] for i in order] if len(texts) == width else None


def run(
    forecaster: Forecaster,
    lines: TextIO,
    state: Path | None,
    separator: str,
) -> int:
    """Answers every row with a line of JSON; returns how many rows were refused.

    Args:
      forecaster: The model.
      lines: Rows, such as standard input.
      state: The file that the past is read from, if it exists, and written to at the
        end; None: there is none.
      separator: Of the columns.
    """
    stream, refused, seconds = Stream(forecaster), 0, []
    if state is not None and state.exists():
        stream.recall(state)
    setup = forecaster.setup
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for number, texts in enumerate(rows(lines, setup, separator), 1):
            began = time.perf_counter()
            try:
                if texts is None:
                    raise ValueError(f"Expected the columns {_columns(setup)}.")
                now, value = one_row(texts[:2], setup.columns, setup.dated)
                name = texts[2] if len(texts) > 2 else ""
                stream.check(name, now, value)
            except ValueError as mistake:
                print(f"row {number}: {mistake}", file=sys.stderr)
                refused += 1
                continue
            said = stream.answer(name, now, value)
            print(json.dumps(said, allow_nan=False), flush=True)
            seconds.append(time.perf_counter() - began)
    except KeyboardInterrupt:  # the usual end of a stream
        pass
    except BrokenPipeError:  # nobody reads the answers any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        signal.signal(signal.SIGTERM, before)
        if state is not None:
            stream.keep(state)
    _tell(seconds, refused)
    return refused


def _tell(seconds: list[float], refused: int) -> None:
    """Prints how long rows took, without the first, which compiles."""
    warm = 1e3 * np.array(seconds[1:])
    told = f"{len(seconds)} rows answered, {refused} refused"
    if len(warm):
        found = np.percentile(warm, PERCENTILES)
        each = zip(PERCENTILES, found, strict=True)
        told += "; milliseconds a row: " + ", ".join(f"{p}% {t:.3g}" for p, t in each)
    print(told, file=sys.stderr)
