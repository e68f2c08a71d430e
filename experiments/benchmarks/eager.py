"""python -m experiments.benchmarks.eager --help.

What does an eager call of `jrnn.unroll` cost beside a jitted one? Both
run the same small program on a deep stack of LSTMs, warm, and in turn within one
process, so that what is left between them is checks and dispatch in Python. Told are
the median of each, the median of the differences round by round, and how many Python
functions one call enters. Time it on an idle machine, with
`--out experiments/benchmarks/results/eager.json` for the numbers that are kept.
"""

import dataclasses
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

import jrnn
from experiments import lab
from experiments.benchmarks.grid import written
from experiments.benchmarks.turns import in_turn, rounded, until

STEPS, BATCH, SIZE = 4, 2, 8  # so small that nearly all is overhead
EAGER, JITTED = "eager", "jitted"
SHOWN = 3  # digits of a microsecond count


@dataclasses.dataclass(frozen=True)
class Settings:
    """Time eager calls beside jitted ones."""

    layers: lab.Count = 4
    """LSTMs in the stack."""
    rounds: lab.Count = 1000
    """Rounds of each comparison."""
    out: Path = Path("runs/eager.json")
    """Where the results go."""


def python_calls(call: Callable[[], Any]) -> int:
    """Returns how many Python functions a call enters."""
    count = 0

    def enter(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        del frame, argument
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count


def calls(layers: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """Returns warm calls, eager and jitted, by what is given to them."""
    cell = jrnn.stack(*(jrnn.lstm(SIZE, SIZE) for _ in range(layers)))
    params = cell.init(jax.random.key(0))
    xs = jnp.ones((STEPS, BATCH, SIZE))
    state = cell.init_state(params, (BATCH,))
    lengths = jnp.full((BATCH,), STEPS)

    def comparison(*arrays: Any, **keywords: Any) -> dict[str, Callable[[], Any]]:
        def run(params: Any, arrays: Any, keywords: Any) -> Any:
            return jrnn.unroll(cell, params, *arrays, **keywords)

        jitted = jax.jit(run)
        found = {
            EAGER: lambda: run(params, arrays, keywords),
            JITTED: lambda: jitted(params, arrays, keywords),
        }
        for call in found.values():
            jax.block_until_ready(call())
            jax.block_until_ready(call())
        return found

    return {
        "inputs": comparison(xs),
        "inputs, state": comparison(xs, state),
        "inputs, state, lengths": comparison(xs, state, lengths=lengths),
    }


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Returns a row for each comparison, in seconds."""
    rows = []
    for given, pair in tqdm(calls(settings.layers).items(), unit="comparison"):
        waited = {
            name: lambda call=call: jax.block_until_ready(call())
            for name, call in pair.items()
        }
        times = in_turn(waited, until(settings.rounds), settle=True)
        both = zip(times[EAGER], times[JITTED], strict=True)
        rows.append(
            {
                "given": given,
                "median_seconds": {n: statistics.median(s) for n, s in times.items()},
                "median_difference": statistics.median(a - b for a, b in both),
                "python_calls": {n: python_calls(call) for n, call in pair.items()},
                "seconds_per_round": {n: rounded(s) for n, s in times.items()},
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns medians in microseconds, and counts of Python calls."""
    micro = lambda seconds: f"{1e6 * seconds:.{SHOWN}g}"
    columns = {
        "given": lambda row: row["given"],
        "eager us": lambda row: micro(row["median_seconds"][EAGER]),
        "jitted us": lambda row: micro(row["median_seconds"][JITTED]),
        "more us": lambda row: micro(row["median_difference"]),
        "eager calls": lambda row: str(row["python_calls"][EAGER]),
        "jitted calls": lambda row: str(row["python_calls"][JITTED]),
    }
    return lab.table_of(rows, columns)


def run(settings: Settings) -> int:
    """Measures, prints a table, writes the results."""
    rows = measure(settings)
    return written(settings, "benchmarks.eager", rows, [table(rows)])


main = lab.main_of(Settings, __doc__, run)

if __name__ == "__main__":
    raise SystemExit(main())
