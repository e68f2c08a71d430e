"""Tables on the screen, and how numbers stand in them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns: the first to the left, the others to the right.

    >>> print(format_table(("model", "bits"), [("gru", "2.1"), ("uniform", "6.1")]))
    model    bits
    gru       2.1
    uniform   6.1
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    shown = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def table_of(rows: Iterable[Any], columns: Mapping[Any, Callable[[Any], Any]]) -> str:
    """Returns a table with a line for each row; a column says what it shows of one.

    Columns under a tuple of headers show a sequence of as many cells.

    >>> print(table_of([4, 16], {"n": str, "root": lambda n: f"{n**0.5:.1f}"}))
    n   root
    4    2.0
    16   4.0
    """
    several = lambda x: (x,) if isinstance(x, str) else x
    header = [one for column in columns for one in several(column)]
    shown = columns.values()
    body = [[cell for show in shown for cell in several(show(row))] for row in rows]
    return format_table(header, body)


def grouped(
    rows: Iterable[Mapping[str, Any]], by: Sequence[str]
) -> dict[tuple[Any, ...], list[Any]]:
    """Returns rows that agree in some columns together, by what they agree in."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return found


def spread(found: Mapping[str, Any], digits: str = ".4f") -> str:
    """Returns a mean, and the standard deviation where there are several values.

    >>> spread({"values": [1.5], "mean": 1.5, "sd": 0.0})
    '1.5000'
    """
    shown = format(found["mean"], digits)
    several = len(found["values"]) > 1
    return f"{shown} ± {found['sd']:{digits}}" if several else shown


def span(interval: Sequence[float], digits: str = ".4f", to: str = "..") -> str:
    """Returns an interval as text.

    >>> span([-0.25, 1.0], ".1f")
    '-0.2..1.0'
    """
    return to.join(format(end, digits) for end in interval)


def percent(
    found: Mapping[str, Any] | None, digits: str = ".1f", sign: str = ""
) -> str:
    """Returns mean and deviation in percent, "" of nothing.

    >>> percent({"mean": 0.981, "sd": 0.0042})
    '98.1 ± 0.4'
    """
    if not found or found["mean"] is None:
        return ""
    return f"{100 * found['mean']:{digits}}{sign} ± {100 * found['sd']:{digits}}{sign}"
