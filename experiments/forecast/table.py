"""A table of measurements, read as series; every mistake in it is named by its row.

A row is a time, a value, and perhaps the name of the subject that was measured. Times
are numbers or dates of ISO 8601, increasing within a series; the steps between them may
differ. A row without a value is left out: the next step is then a longer one. Rows are
counted from 1, below the header.
"""

import datetime
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    import pandas as pd

# Dates without hyphens, YYYYMMDD, which would pass as numbers.
BASIC_DATE = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
MONTH = re.compile(r"\d{4}-\d{2}")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
SEPARATORS = {";": "';'", "\t": "$'\\t'", "|": "'|'"}  # as a shell takes them
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
LONG_STEP = 1.5  # times the median step: a gap


class Columns(NamedTuple):
    """The names of a table's columns; `id` is None for a single series."""

    time: str
    value: str
    id: str | None = None


class Series(NamedTuple):
    """The measurements of one subject, in order of time.

    Attributes:
      name: Of the subject; "" if there is only one.
      times: Numbers as in the table; for dates the seconds since 1970, UTC.
      values: Finite.
    """

    name: str
    times: Float64[np.ndarray, " n"]
    values: Float64[np.ndarray, " n"]


class Table(NamedTuple):
    """Series, each of at least two measurements.

    Attributes:
      series: In the order in which the table first names them.
      dated: Whether times are dates.
      missing: How many rows had no value.
    """

    series: tuple[Series, ...]
    dated: bool
    missing: int

    def steps(self) -> Float64[np.ndarray, " m"]:
        """Returns the times between neighbours, of all series."""
        return np.concatenate([np.diff(one.times) for one in self.series])


def read(path: Path, columns: Columns, separator: str = ",") -> Table:
    """Reads a table.

    Raises:
      ValueError: There is no such file, it holds no rows, a column is missing, or a row
        is wrong: the message names row and column.
    """
    frame = _frame(path, columns, separator)
    times, dated = _times(frame[columns.time], columns.time)
    values = _values(frame[columns.value], columns.value)
    names = _names(frame, columns)
    series = []
    for name in dict.fromkeys(names):
        rows = np.flatnonzero((names == name) & ~np.isnan(values))
        _check_order(rows, times, frame[columns.time], columns, name)
        series.append(Series(name, times[rows], values[rows]))
    for one in series:
        if len(one.times) < 2:
            of = f" of {columns.id} {one.name!r}" if columns.id else ""
            raise ValueError(
                f"Expected at least two rows{of} with a value in column "
                f"{columns.value!r}, got {len(one.times)}."
            )
    return Table(tuple(series), dated, int(np.isnan(values).sum()))


def _frame(path: Path, columns: Columns, separator: str) -> "pd.DataFrame":
    """Returns the table's texts, without spaces around them."""
    import pandas as pd

    try:
        with warnings.catch_warnings(action="error"):  # of rows longer than the header
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
            )
    except OSError as error:
        raise ValueError(f"Expected a table in {path}: {error.strerror}.") from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"Expected a table in {path}, got an empty file.") from error
    except (Warning, ValueError) as error:  # pandas' own errors are ValueErrors
        raise ValueError(
            f"Expected a table of comma-separated values in UTF-8 in {path}, got one "
            f"that cannot be read: {error}"
        ) from error
    frame.columns = frame.columns.str.strip()
    for column in filter(None, columns):
        if column not in frame.columns:
            raise ValueError(
                f"Expected a column {column!r} in {path}, got "
                f"{', '.join(map(repr, frame.columns))}{_hint(frame, separator)}"
            )
    if not len(frame):
        raise ValueError(f"Expected rows below the header of {path}, got none.")
    return pd.DataFrame({name: frame[name].str.strip() for name in frame})


def _hint(frame: "pd.DataFrame", separator: str) -> str:
    """Returns the end of an error: another separator, if the header holds one."""
    header = separator.join(frame.columns)
    held = [shown for mark, shown in SEPARATORS.items() if mark in header]
    return f"; add --separator {held[0]}" if held else "."


def _first(wrong: np.ndarray) -> int:
    return int(np.flatnonzero(wrong)[0])


def _times(texts: Any, column: str) -> tuple[np.ndarray, bool]:
    """Returns times as numbers, and whether they are dates."""
    import pandas as pd

    numbers = np.asarray(pd.to_numeric(texts, errors="coerce"), np.float64)
    whole_days = texts.str.fullmatch(BASIC_DATE)
    if np.isfinite(numbers).mean() > 0.5 and not whole_days.all():
        dated, found, kind = False, numbers, "a number, as most times are"
    else:
        dates = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
        found = np.asarray((dates - EPOCH) / pd.Timedelta(seconds=1), np.float64)
        dated, kind = True, "a date of ISO 8601 such as 2024-03-31 14:05, or a number"
    wrong = ~np.isfinite(found)
    if wrong.any():
        row = _first(wrong)
        raise ValueError(
            f"Expected {kind}, in row {row + 1} of column {column!r}, got "
            f"{texts.iloc[row]!r}."
        )
    return found, dated


def _values(texts: Any, column: str) -> np.ndarray:
    """Returns numbers, NaN where there is none."""
    import pandas as pd

    numbers = np.asarray(pd.to_numeric(texts, errors="coerce"), np.float64)
    wrong = ~np.isfinite(numbers) & ~texts.str.lower().isin(MISSING).to_numpy()
    if wrong.any():
        row = _first(wrong)
        raise ValueError(
            f"Expected a finite number in row {row + 1} of column {column!r}, got "
            f"{texts.iloc[row]!r}; leave it empty if the value is missing."
        )
    return numbers


def _names(frame: "pd.DataFrame", columns: Columns) -> np.ndarray:
    if columns.id is None:
        return np.full(len(frame), "", object)
    names = frame[columns.id].to_numpy(object)
    if (names == "").any():
        raise ValueError(
            f"Expected a name in row {_first(names == '') + 1} of column "
            f"{columns.id!r}, got none."
        )
    return names


def _check_order(
    rows: np.ndarray,
    times: np.ndarray,
    texts: Any,
    columns: Columns,
    name: str,
) -> None:
    """Raises unless the times of these rows increase."""
    late = np.diff(times[rows]) <= 0
    if not late.any():
        return
    before, row = rows[_first(late) : _first(late) + 2]
    of = f" of {columns.id} {name!r}" if columns.id else ""
    told = f"row {row + 1}{of}, column {columns.time!r}: {texts.iloc[row]!r}"
    if times[before] == times[row]:
        hint = "" if columns.id else "; for several series name their column with --id"
        raise ValueError(
            f"Expected each time once, got that of row {before + 1} again in {told}; "
            f"keep one of the two, or their mean{hint}."
        )
    raise ValueError(
        f"Expected rows in order of time, got an earlier time than in row "
        f"{before + 1} in {told}; sort the table by {columns.time!r}."
    )


def one_row(texts: Sequence[str], columns: Columns, dated: bool) -> tuple[float, float]:
    """Returns the time and the value of a row of a stream.

    Raises:
      ValueError: One of them is missing or wrong.
    """
    try:
        time = _time(texts[0]) if dated else _number(texts[0])
    except ValueError:
        time = np.nan
    if not np.isfinite(time):
        kind = "a date such as 2024-03-31 14:05" if dated else "a number"
        raise ValueError(f"Expected {kind} in {columns.time!r}, got {texts[0]!r}.")
    try:
        value = _number(texts[1])
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(
            f"Expected a finite number in {columns.value!r}, got {texts[1]!r}."
        )
    return time, value


def _number(text: str) -> float:
    """Returns a number as tables have them: Python would read 1_000 too."""
    return np.nan if "_" in text else float(text)


def _time(text: str) -> float:
    """Returns a date of ISO 8601 as seconds since 1970; without a zone it is UTC."""
    read = datetime.datetime.fromisoformat(
        f"{text}-01" if MONTH.fullmatch(text) else text
    )
    read = read if read.tzinfo else read.replace(tzinfo=datetime.UTC)
    return (read - EPOCH).total_seconds()


def period(seconds: float) -> str:
    """Returns a time in its largest fitting unit.

    >>> period(300), period(86400 * 2)
    ('5 min', '2 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.4g} s"


def card(table: Table, columns: Columns) -> dict[str, str]:
    """Returns what was found, for a reader who knows what the table should hold."""
    counts = [len(one.times) for one in table.series]
    steps, values = table.steps(), np.concatenate([s.values for s in table.series])
    step = float(np.median(steps))
    first = min(one.times[0] for one in table.series)
    last = max(one.times[-1] for one in table.series)
    if table.dated:
        shown, unit = period, "dates"
        ends = [date(first), date(last)]
    else:
        shown, unit = "{:.6g}".format, f"numbers, in the unit of {columns.time!r}"
        ends = [f"{first:.6g}", f"{last:.6g}"]
    equal = np.isclose(steps, step, rtol=1e-3).mean()
    gaps = steps > LONG_STEP * step
    return {
        "series": f"{len(counts)}, of {min(counts)} to {max(counts)} values",
        "times": f"{unit}, {ends[0]} to {ends[1]}",
        "step": f"{shown(step)} (median), {100 * equal:.1f}% of the steps are equal",
        "gaps": f"{gaps.sum()} steps above {LONG_STEP} medians"
        + (f", the longest {shown(float(steps.max()))}" if gaps.any() else ""),
        "values": f"{values.min():.6g} to {values.max():.6g}, "
        f"mean {values.mean():.6g}, {table.missing} missing",
        **(_spreads(table) if len(counts) > 1 else {}),
    }


def _spreads(table: Table) -> dict[str, str]:
    spreads = [one.values.std() for one in table.series]
    return {
        "standard deviations": f"{min(spreads):.3g} to {max(spreads):.3g} by series; "
        "all are scaled together, so rescale those that differ by far"
    }


def date(seconds: float) -> str:
    """Returns a time as a date of ISO 8601, UTC, to the second.

    >>> date(0.0)
    '1970-01-01 00:00:00'
    """
    return str(np.datetime64(round(seconds), "s")).replace("T", " ")
