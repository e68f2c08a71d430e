"""Figures of the experiments, drawn without a display and readable without the text."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.lab.files import atomically

# Okabe and Ito's palette, told apart by readers with any colour vision:
# https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DOTS_PER_INCH = 130
T = TypeVar("T")


def coloured(items: Iterable[T]) -> Iterator[tuple[str, T]]:
    """Yields (colour, item), the colours round and round."""
    return zip(cycle(COLOURS), items, strict=False)


def figure_of(width: float, height: float) -> Figure:
    """Returns an empty figure, in inches, that makes room for what it holds."""
    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Iterable[Axes], direction: Any = "both") -> None:
    """Draws a faint grid, and takes the frame away above and on the right."""
    for panel in axes:
        panel.grid(axis=direction, alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)


def describe(
    axes: Axes,
    title: str | None = None,
    below: str | None = None,
    beside: str | None = None,
    size: float = 10,
    **legend: Any,
) -> None:
    """Writes what a panel shows.

    Args:
      axes: The panel.
      title: Above it; None: nothing.
      below: Under its x axis; None: nothing.
      beside: At its y axis; None: nothing.
      size: Of the title's letters.
      **legend: How the legend looks; nothing: there is none.
    """
    if title is not None:
        axes.set_title(title, fontsize=size)
    if below is not None:
        axes.set_xlabel(below)
    if beside is not None:
        axes.set_ylabel(beside)
    if legend:
        axes.legend(**{"frameon": False, "fontsize": 8, **legend})


def looks_of(
    names: Iterable[T],
    colours: Sequence[str] = COLOURS,
    markers: Sequence[str] = MARKERS,
) -> dict[T, dict[str, str]]:
    """Returns a colour and a marker for each name, as `plot` takes them."""
    pairs = zip(names, cycle(colours), cycle(markers), strict=False)
    return {name: {"color": colour, "marker": mark} for name, colour, mark in pairs}


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)  # the figure keeps it; no global state of pyplot
    with atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, bbox_inches="tight")
